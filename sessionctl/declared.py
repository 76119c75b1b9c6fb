"""The fast path: what is declared, without importing what reads declarations.

The answer of `manifest` and `settings` is kept in one file of the user's cache, under a hash of all
that it depends on, and believed only while every bit of that is the same. The cache is nobody's
authority: without it, or with any bytes in it, the same is answered later. This module may import
pydantic, tomlkit, tomllib and GitPython on a miss only, and on a hit it writes nothing.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import sessionctl
from sessionctl import model
from sessionctl.beneath import StrPath
from sessionctl.errors import UsageError
from sessionctl.model import Declaration, Digests, sha256

if TYPE_CHECKING:
    from sessionctl.settings import Settings

FILE = "sessions.toml"
"""What a manifest is called."""
_LIMIT = 1024 * 1024
"""Bytes of a manifest or user config; larger ones are refused and so never kept."""
_SETTLED_NS = 50_000_000
"""Age from which on a change of a file shows in its times. The kernel's clock for them ticks every 1 to 10 ms."""


class Tool(NamedTuple):
    """How the tool works here."""

    state_dir: str
    jobs: int
    color: str
    hooks_apply: bool = False
    """Whether git hooks may make and start sessions."""
    trash_expiry: float = 0.0
    """Seconds that anything stays in the trash, and the like: see `trash.Keep`."""
    trash_size: int = 0
    keep_last: int = 0
    keep_age: float = 0.0
    keep_named: bool = False


class Resolved(NamedTuple):
    """What the manifest declares, and how the tool works."""

    settings: Tool
    declared: dict[str, Declaration]


def find(start: StrPath, root: StrPath) -> str:
    """The nearest manifest, from the directory `start` up to and including `root`.

    One in another repository on the way is not meant: it may be the checkout of a session, which an agent writes.
    """
    top, directory = os.path.realpath(root), os.path.realpath(start)
    found = ""
    if os.path.commonpath((top, directory)) != top:
        raise _no_manifest(start)
    while directory != top:
        if os.path.lexists(os.path.join(directory, ".git")):
            found = ""
        elif not found and os.path.lexists(os.path.join(directory, FILE)):
            found = os.path.join(directory, FILE)
        directory = os.path.dirname(directory)
    found = found or os.path.join(top, FILE)
    if os.path.lexists(found):
        return found
    raise _no_manifest(start)


def _no_manifest(start: StrPath) -> UsageError:
    return UsageError(f"there is no {FILE} in {start} or above it in the repository", hint="make one: sessionctl init")


def resolve(
    file: StrPath, root: StrPath, *, flags: Mapping[str, Any] | None = None, overrides: Sequence[str] = ()
) -> Resolved:
    """What the manifest `file` of the repository at `root` declares: `manifest.resolve`, with its errors.

    `flags` are fields of `Tool` (None: not given), `overrides` are ``KEY=VALUE`` for every session.
    """
    flags = _given(flags)
    question = _Question.of(root, flags, file, overrides)
    kept = question.answer()
    if kept is not None:
        declared = {name: Declaration(Digests(*digests), data) for name, (digests, data) in kept["declared"].items()}
        return Resolved(Tool(*kept["tool"]), declared)

    from sessionctl import manifest, settings

    started = time.time_ns()
    chosen = settings.load(root, flags)
    found = manifest.resolve(file, root, settings=chosen, overrides=overrides)
    resolved = Resolved(_tool(chosen), found.declared)
    if question == _Question.of(root, flags, file, overrides):
        question.keep(resolved, found.inputs, started, found.links)
    return resolved


def tool(flags: Mapping[str, Any] | None = None, root: StrPath | None = None) -> Tool:
    """How the tool works, for commands that need no manifest: `settings.load`, with its errors."""
    flags = _given(flags)
    question = _Question.of(root, flags)
    kept = question.answer()
    if kept is not None:
        return Tool(*kept["tool"])

    from sessionctl import settings

    started = time.time_ns()
    chosen = settings.load(root, flags)
    found = _tool(chosen)
    if question == _Question.of(root, flags):
        question.keep(Resolved(found, {}), (), started)
    return found


def _tool(chosen: Settings) -> Tool:
    from sessionctl.units import parse_duration, parse_size

    trash, kept = chosen.trash, chosen.snapshots
    return Tool(
        str(chosen.state_dir),
        chosen.jobs,
        chosen.color,
        chosen.hooks.apply,
        parse_duration(trash.expiry),
        parse_size(trash.size) if trash.size else 0,
        kept.last,
        parse_duration(kept.age) if kept.age else 0.0,
        kept.named,
    )


def _given(flags: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in sorted((flags or {}).items()) if value is not None}


# --- where things are --------------------------------------------------------------------------


def base_directory(kind: str) -> str:
    """The user's directory for ``CONFIG``, ``STATE`` or ``CACHE``, as the XDG base directory specification says."""
    named = os.environ.get(f"XDG_{kind}_HOME", "")
    if os.path.isabs(named):  # "if ... a relative path ... consider the path invalid and ignore it"
        return named
    return os.path.expanduser({"CONFIG": "~/.config", "STATE": "~/.local/state", "CACHE": "~/.cache"}[kind])


def config_file() -> str:
    """The path of the user config, which need not exist."""
    return os.path.join(base_directory("CONFIG"), "sessionctl", "config.toml")


def cache_directory() -> str:
    """The directory of what was resolved, which need not exist."""
    return os.path.join(base_directory("CACHE"), "sessionctl")


def variables() -> dict[str, str]:
    """The environment's SESSIONCTL_*, in whatever case: pydantic-settings does not look at the case either."""
    return {name: value for name, value in os.environ.items() if name[:11].upper() == "SESSIONCTL_"}


def cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


# --- the cache ---------------------------------------------------------------------------------


class _Question(NamedTuple):
    """What was asked, and where its answer is kept."""

    path: str
    key: bytes
    """Hash of everything that is known before the answer; empty when something cannot be read."""

    @classmethod
    def of(
        cls, root: StrPath | None, flags: Mapping[str, Any], file: StrPath | None = None, overrides: Sequence[str] = ()
    ) -> _Question:
        top = os.path.realpath(root) if root is not None else ""
        manifest = os.path.realpath(file) if file is not None else ""
        name = sha256(ascii((top, manifest)).encode()).hexdigest()[:32]
        path = os.path.join(cache_directory(), f"{name}.json")
        config = config_file()
        try:
            contents = (_content(config), _content(manifest) if manifest else None)
        except OSError:
            return cls(path, b"")
        known = (
            *(sessionctl.__version__, model.NORMALISER),
            *(top, manifest, os.path.abspath(file) if file is not None else ""),
            *(config, base_directory("STATE"), os.path.expanduser("~"), os.geteuid(), cpus()),
            *(sorted(variables().items()), [(name, str(value)) for name, value in flags.items()], list(overrides)),
            *contents,
        )
        return cls(path, sha256(ascii(known).encode()).digest())

    def answer(self) -> dict[str, Any] | None:
        """What was kept for this question; None when that is nothing, or cannot be believed."""
        if not self.key:
            return None
        seal, _, body = _kept(self.path).partition(b"\n")
        if seal != self.seal(body):
            return None
        kept: dict[str, Any] = json.loads(body)
        same = all(_identity(known[0]) == known for known in kept["inputs"])
        return kept if same and all(os.path.realpath(path) == real for path, real in kept["links"]) else None

    def keep(self, resolved: Resolved, inputs: Sequence[str], started: int, links: Sequence[str] = ()) -> None:
        """Keeps the answer, if that can be done and `inputs` are old enough to show a change since `started`.

        Of `links` it is only kept where they lead: of a secret not even the size.
        """
        identities = [_identity(path) for path in inputs]
        if not self.key or any(max(times) > started - _SETTLED_NS for _, _, _, _, *times in identities):
            return
        body = json.dumps(
            {
                "tool": resolved.settings,
                "inputs": identities,
                "links": [(path, os.path.realpath(path)) for path in links],
                "declared": {name: [one.digests, one.data] for name, one in resolved.declared.items()},
            }
        ).encode()
        _put(self.path, self.seal(body) + b"\n" + body)

    def seal(self, body: bytes) -> bytes:
        """What says that `body` is whole, and the answer to this question."""
        return sha256(self.key + body).hexdigest().encode()


def remembered(path: str, find: Callable[[], str]) -> str:
    """What `find` says of the file at `path`, kept while the file is the same by its size, inode and times."""
    kept_at = os.path.join(cache_directory(), f"{sha256(os.fsencode(path)).hexdigest()[:32]}.digest")
    identity = _identity(path)
    with suppress(ValueError, TypeError):
        known, answer = json.loads(_kept(kept_at))
        if known == identity and isinstance(answer, str):
            return answer
    started = time.time_ns()
    answer = find()
    if _identity(path) == identity and max(identity[4:]) <= started - _SETTLED_NS:
        _put(kept_at, json.dumps([identity, answer]).encode())
    return answer


def _kept(path: str) -> bytes:
    """What is kept at `path` in the user's cache; nothing when that is not there, or another may have written it."""
    try:
        if not _private(os.stat(os.path.dirname(path))):
            return b""
        with open(path, "rb", opener=_no_link) as file:
            info = os.fstat(file.fileno())
            return file.read() if stat.S_ISREG(info.st_mode) and _private(info) else b""
    except OSError:
        return b""


def _put(path: str, content: bytes) -> None:
    """Keeps `content` at `path` in the user's cache, if that can be done."""
    from sessionctl import beneath

    directory = os.path.dirname(path)
    try:
        above = directory
        while not os.path.lexists(above):
            above = os.path.dirname(above)
        if os.stat(above).st_uid not in (0, os.geteuid()):
            return  # root with a user's HOME: a directory of root's there would be in the user's way
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if _private(os.stat(directory)):
            beneath.publish(path, content)
    except OSError:
        return


def _no_wait(path: str, flags: int) -> int:
    """Opens `path`, also when it is a FIFO that nobody writes to."""
    return os.open(path, flags | os.O_NONBLOCK)


def _no_link(path: str, flags: int) -> int:
    return _no_wait(path, flags | os.O_NOFOLLOW)


def _content(path: str) -> bytes | None:
    """The bytes of the file at `path`; None when there is none. `OSError` for what can be no configuration."""
    try:
        with open(path, "rb", opener=_no_wait) as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode) or info.st_size > _LIMIT:
                raise OSError(f"{path} is not a file of at most {_LIMIT} bytes")
            return file.read(_LIMIT)
    except FileNotFoundError:
        return None


def _private(info: os.stat_result) -> bool:
    """Whether nobody but us can write it."""
    return info.st_uid == os.geteuid() and not info.st_mode & 0o022


def _identity(path: str) -> list[Any]:
    """What differs when the file at `path` is another one, or was written."""
    try:
        info = os.stat(path)
    except OSError:
        return [path, "", 0, 0, 0, 0]
    return [path, os.path.realpath(path), info.st_size, info.st_ino, info.st_mtime_ns, info.st_ctime_ns]
