"""The rules for one value, each of which refuses it in words that follow its key, or returns it.

They are part of the file model in `tables`, so that the schema, every layer and every message share them.
A rule sees a value alone: what needs the session, the others or the host is in `judging` and `host`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from sessionctl import images, plugins
from sessionctl.errors import UsageError
from sessionctl.images import extra
from sessionctl.manifest.wording import near, quoted
from sessionctl.model import HOME, WORKSPACE, is_name, require_name
from sessionctl.units import parse_duration, parse_size

LEAST_MEMORY = 16 * 1024 * 1024
"""Below it not even the way into a sandbox would fit."""

# C0, DEL, C1, line separators and what turns the direction of text: a manifest is shown in terminals.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_OF_A_REGISTRY = re.compile(r"[a-z0-9][a-zA-Z0-9._/-]*(:[A-Za-z0-9._-]+)?(@sha256:[0-9a-f]{64})?")

_RESERVED = (
    *("/.sessionctl", "/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr"),
)
"""Directories of a sandbox in which nothing may be mounted."""
_TAKEN = ("/", "/home", "/run", "/tmp", "/var", "/var/tmp", HOME, WORKSPACE)
"""Those at which nothing may be mounted, but below which it may."""

Read = TypeVar("Read")


def wrong(message: str, hint: str = "") -> PydanticCustomError:
    """The error that a rule raises; `wording.words` gives its message and hint back."""
    return PydanticCustomError("rule", "{message}", {"message": message, "hint": hint})


def _read(read: Callable[[str], Read], text: str) -> Read:
    """What `read` makes of `text`; where it refuses, that is a rule's error."""
    try:
        return read(text)
    except UsageError as error:
        raise wrong(str(error), error.hint) from None


# --- text and names ----------------------------------------------------------------------------


def label(text: str) -> str:
    if _CONTROL.search(text):
        raise wrong("holds a control character")
    return text


def no_nul(text: str) -> str:
    if "\0" in text:
        raise wrong("holds a NUL character")
    return text


def unique(items: list[str]) -> list[str]:
    seen: set[str] = set()
    for item in items:
        if item in seen:
            raise wrong(f"names {quoted(item)} twice")
        seen.add(item)
    return items


def session_name(text: str) -> str:
    return _read(require_name, text)


def parent(text: str) -> str:
    if text and not is_name(text):
        raise wrong(f"{quoted(text)} is not a session name")
    return text


def known(kind: plugins.Kind) -> AfterValidator:
    """The rule that a plugin of `kind` has that name."""
    return AfterValidator(partial(_read, partial(plugins.require, kind)))


def command(text: str) -> str:
    if not text.strip():
        raise wrong("is an empty command")
    return no_nul(text)


def program(text: str) -> str:
    if not extra.is_name(text):
        raise wrong(f"{quoted(text)} is not the name of a program")
    return text


def variable_name(text: str) -> str:
    if not _ENV_NAME.fullmatch(text):
        raise wrong("is not the name of an environment variable", "use A-Z, a-z, 0-9 and _, and no digit first")
    return text


def env_name(text: str) -> str:
    variable_name(text)
    if text == "HOME":
        raise wrong("cannot be set: the sandbox's home is fixed")
    return text


def image(text: str) -> str:
    if text != images.HOST and images.parse(text) is None:
        if _OF_A_REGISTRY.fullmatch(text):
            hint = near(text.partition(":")[0], (images.HOST, *images.KINDS))
            raise wrong(f"{quoted(text)} is not supported yet: nothing is fetched from a registry", hint)
        raise wrong(f"{quoted(text)} is no image", "expected host, rootfs:DIR, archive:FILE or oci:LAYOUT[:TAG]")
    return label(text)


# --- git ---------------------------------------------------------------------------------------


def is_branch(text: str) -> bool:
    """Whether git takes `text` as the name of a new branch (git-check-ref-format(1)), and not for HEAD or an option.

    At most 200 bytes, where git leaves it to the file system.
    """
    return (
        0 < len(text.encode("utf-8", "surrogatepass")) <= 200
        and text not in ("@", "HEAD")
        and not text.startswith(("-", "/"))
        and not text.endswith(("/", "."))
        and not _REF.search(text)
        and not any(part.startswith(".") or part.endswith(".lock") for part in text.split("/"))
    )


def branch(text: str) -> str:
    if not is_branch(text.replace("{name}", "name")):
        raise wrong(f"{quoted(text)} is not a branch name that git accepts")
    return text


def base(text: str) -> str:
    if text.startswith("-"):
        raise wrong("begins with '-'")
    return label(text)


# --- paths -------------------------------------------------------------------------------------


def is_below(path: str, directory: str) -> bool:
    return path.startswith(directory.rstrip("/") + "/")


def _nested(paths: list[str]) -> Iterator[tuple[str, str]]:
    """Those of `paths` that lie below another, in order, each with the shortest that it lies below."""
    known = set(unique(paths))
    for path in sorted(known):
        yield from ((path, path[:at]) for at, char in enumerate(path) if char == "/" and path[:at] in known)


def _wanders(parts: Sequence[str]) -> bool:
    """Whether a path of these parts is not the shortest to where it leads, or leads out."""
    return any(part in ("", ".", "..") for part in parts)


def _in_git(path: str) -> bool:
    return ".git" in path.lower().split("/")


def relative(text: str) -> str:
    """A path that, symlinks aside, cannot lead out."""
    if _wanders(text.split("/")):
        raise wrong(f"{quoted(text)} is not a relative path without '.' and '..'")
    if _in_git(text):
        raise wrong("lies inside .git")
    return label(text)


def session_dir(text: str) -> str:
    if not text.strip():
        raise wrong("names no directory")
    return no_nul(label(text))


def home_path(text: str) -> str:
    if len(text) > 1024:
        raise wrong("is longer than 1024 characters")
    if not text.startswith("~/"):
        raise wrong("is not supported yet: only paths below ~/")
    if _wanders(text.split("/")):
        raise wrong(f"{quoted(text)} is not a path below ~/ without '.' and '..'")
    return label(text)


def disjoint_files(paths: list[str]) -> None:
    """The rule that of paths in a home none lies below another."""
    for path, _ in _nested(paths):
        raise wrong(f"{quoted(path)} lies below a path that is a file itself")


def mount_path(text: str) -> str:
    """A path inside at which nothing of the sandbox's own is hidden, and that an agent cannot have bent."""
    if len(text) > 1024:
        raise wrong("is longer than 1024 characters")
    if text != "/" and (not text.startswith("/") or _wanders(text.split("/")[1:])):
        raise wrong(f"{quoted(text)} is not an absolute path without '.' and '..'")
    for place in _RESERVED:
        if is_below(f"{text}/", place):
            raise wrong(f"{quoted(text)} is the sandbox's own, as all of {place} is")
    if is_below(f"{text}/", WORKSPACE) and _in_git(text):
        raise wrong(f"{quoted(text)} lies inside .git")
    if text in _TAKEN:
        raise wrong(f"{quoted(text)} is the sandbox's own; choose a path below it")
    return label(text)


def disjoint_mounts(paths: list[str]) -> None:
    """The rule that of paths inside none lies below another."""
    for path, above in _nested(paths):
        raise wrong(f"{quoted(path)} lies below another mount, {quoted(above)}")


# --- figures -----------------------------------------------------------------------------------


def permissions(text: str) -> str:
    if not re.fullmatch(r"0[0-7]{3}", text, re.ASCII):
        raise wrong('is not four octal digits from "0000" to "0777"')
    return text


def size(text: str) -> str:
    if not LEAST_MEMORY <= _read(parse_size, text) <= 1 << 50:
        raise wrong(f"{quoted(text)} is not from 16MiB to 1024TiB")
    return text


def cpus(number: float) -> float:
    """`number`, whole where it is."""
    if not 0.01 <= number <= 10_000:
        raise wrong("is not from 0.01 to 10000")
    return int(number) if number == int(number) else number


def wall(text: str) -> str:
    return _duration(text, 366)


def lasting(text: str) -> str:
    return _duration(text, 3660) if text else text


def _duration(text: str, days: int) -> str:
    if not 1 <= _read(parse_duration, text) <= days * 86400:
        raise wrong(f"{quoted(text)} is not from 1s to {days}d")
    return text
