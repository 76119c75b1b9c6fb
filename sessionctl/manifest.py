"""The manifest: TOML -> strict file models -> one `Declaration` per session, with the origin of every value.

What a session is comes from layers: built-in < user config < manifest < SESSIONCTL_SESSION__* < flags.
Rules for one value are in the models, so that the schema, every layer and every message share them;
rules that need the whole are in `resolve`. This module may not write, run anything or ask git, and
reads besides the manifest only what it names to be injected.
"""

# a manifest holds paths as text, and a declaration does too.

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from sessionctl import beneath, images, plugins
from sessionctl.beneath import StrPath
from sessionctl.declared import FILE, remembered
from sessionctl.errors import ImageError, ManifestError, Problem, UntrustedError, UsageError
from sessionctl.images import extra
from sessionctl.locate import Document, Key, dotted, load_document, parse_document
from sessionctl.model import (
    HAS_BRANCH,
    HOME,
    WORKSPACE,
    Declaration,
    FileSpec,
    LimitsSpec,
    MountSpec,
    SessionSpec,
    WorkspaceSpec,
    flat,
    is_name,
    kind_of,
    require_name,
)
from sessionctl.units import parse_duration, parse_size

if TYPE_CHECKING:
    from sessionctl.settings import Settings

MOST_SESSIONS = 10_000
MOST_PROBLEMS = 100
ENV_BYTES = 96 * 1024
"""Of all variables of a session together: the kernel's room for arguments is shared with the command."""
LEAST_MEMORY = 16 * 1024 * 1024
"""Below it not even the way into a sandbox would fit."""
SOURCE_BYTES = 16 * 1024 * 1024

NOT_YET: Mapping[str, frozenset[str]] = {
    "": frozenset({"args", "budget", "command", "model", "prompt", "runtime", "visible"}),
    "agent": frozenset({"args", "model", "prompt"}),
    "network": frozenset({"allow"}),
    "workspace": frozenset({"source"}),
}
"""Keys of each table that a later release will enforce. Until then they are refused, never ignored."""

NOT_YET_VALUES: Mapping[str, str] = {
    "network": r"allow",
    "network.mode": r"allow",
    "workspace.mode": r"worktree",
}
"""The same for values: what of an enumeration matches."""

INSTEAD: Mapping[str, str] = {
    "workspace.mode": 'use mode = "clone" with visible = true; one that exists: sessionctl adopt NAME PATH',
}
"""What to use in place of those values."""

MEANINGLESS: Mapping[str, tuple[str, ...]] = {
    "clone": ("session_dir",),
    "visible": ("submodules",),
    "overlay": ("base", "include", "submodules", "visible", "session_dir"),
    "bind": ("branch", "base", "include", "history", "submodules", "lfs", "visible", "session_dir"),
    "empty": ("branch", "base", "include", "history", "submodules", "lfs", "visible", "session_dir"),
}
"""Per kind of workspace (`model.kind_of`) the keys of its table that say nothing there."""


# --- rules for one value -----------------------------------------------------------------------

# C0, DEL, C1, line separators and what turns the direction of text: a manifest is shown in terminals.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")


def wrong(message: str, hint: str = "") -> PydanticCustomError:
    """The error that a rule raises; `words` gives its message and hint back."""
    return PydanticCustomError("rule", "{message}", {"message": message, "hint": hint})


def _quoted(text: str) -> str:
    """`text` as it may be shown: escaped and not too long."""
    shown = ascii(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _label(text: str) -> str:
    if _CONTROL.search(text):
        raise wrong("holds a control character")
    return text


def _name(text: str) -> str:
    try:
        return require_name(text)
    except UsageError as error:
        raise wrong(str(error), error.hint) from None


def _session_dir(text: str) -> str:
    if not text.strip():
        raise wrong("names no directory")
    return _no_nul(_label(text))


def _known(kind: plugins.Kind) -> AfterValidator:
    def check(text: str) -> str:
        try:
            return plugins.require(kind, text)
        except UsageError as error:
            raise wrong(str(error), error.hint) from None

    return AfterValidator(check)


def _unique(items: list[str]) -> list[str]:
    seen: set[str] = set()
    for item in items:
        if item in seen:
            raise wrong(f"names {_quoted(item)} twice")
        seen.add(item)
    return items


def _command(text: str) -> str:
    if not text.strip():
        raise wrong("is an empty command")
    return _no_nul(text)


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise wrong("holds a NUL character")
    return text


def _variable_name(text: str) -> str:
    if not _ENV_NAME.fullmatch(text):
        raise wrong("is not the name of an environment variable", "use A-Z, a-z, 0-9 and _, and no digit first")
    return text


def _env_name(text: str) -> str:
    _variable_name(text)
    if text == "HOME":
        raise wrong("cannot be set: the sandbox's home is fixed")
    return text


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


def _branch(text: str) -> str:
    if not is_branch(text.replace("{name}", "name")):
        raise wrong(f"{_quoted(text)} is not a branch name that git accepts")
    return text


def _base(text: str) -> str:
    if text.startswith("-"):
        raise wrong("begins with '-'")
    return _label(text)


def _relative(text: str) -> str:
    """A path that, symlinks aside, cannot lead out."""
    if any(part in ("", ".", "..") for part in text.split("/")):
        raise wrong(f"{_quoted(text)} is not a relative path without '.' and '..'")
    if ".git" in text.lower().split("/"):
        raise wrong("lies inside .git")
    return _label(text)


def _home_path(text: str) -> str:
    if len(text) > 1024:
        raise wrong("is longer than 1024 characters")
    if not text.startswith("~/"):
        raise wrong("is not supported yet: only paths below ~/")
    if any(part in ("", ".", "..") for part in text.split("/")):
        raise wrong(f"{_quoted(text)} is not a path below ~/ without '.' and '..'")
    return _label(text)


def _mode(text: str) -> str:
    if not re.fullmatch(r"0[0-7]{3}", text, re.ASCII):
        raise wrong('is not four octal digits from "0000" to "0777"')
    return text


def _size(text: str) -> str:
    try:
        bytes = parse_size(text)
    except UsageError as error:
        raise wrong(str(error), error.hint) from None
    if not LEAST_MEMORY <= bytes <= 1 << 50:
        raise wrong(f"{_quoted(text)} is not from 16MiB to 1024TiB")
    return text


def _cpus(number: float) -> float:
    """`number`, whole where it is."""
    if not 0.01 <= number <= 10_000:
        raise wrong("is not from 0.01 to 10000")
    return int(number) if number == int(number) else number


def _wall(text: str) -> str:
    return _duration(text, 366)


def _lasting(text: str) -> str:
    return _duration(text, 3660) if text else text


def _duration(text: str, days: int) -> str:
    try:
        seconds = parse_duration(text)
    except UsageError as error:
        raise wrong(str(error), error.hint) from None
    if not 1 <= seconds <= days * 86400:
        raise wrong(f"{_quoted(text)} is not from 1s to {days}d")
    return text


def _image(text: str) -> str:
    if text != images.HOST and images.parse(text) is None:
        if re.fullmatch(r"[a-z0-9][a-zA-Z0-9._/-]*(:[A-Za-z0-9._-]+)?(@sha256:[0-9a-f]{64})?", text):
            hint = near(text.partition(":")[0], (images.HOST, *images.KINDS))
            raise wrong(f"{_quoted(text)} is not supported yet: nothing is fetched from a registry", hint)
        raise wrong(f"{_quoted(text)} is no image", "expected host, rootfs:DIR, archive:FILE or oci:LAYOUT[:TAG]")
    return _label(text)


def _program(text: str) -> str:
    if not extra.is_name(text):
        raise wrong(f"{_quoted(text)} is not the name of a program")
    return text


def _disjoint(files: list[FileTable]) -> list[FileTable]:
    paths = set(_unique([file.path for file in files]))
    for path in sorted(paths):
        if any(char == "/" and path[:at] in paths for at, char in enumerate(path)):
            raise wrong(f"{_quoted(path)} lies below a path that is a file itself")
    return files


_RESERVED = (
    *("/.sessionctl", "/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr"),
)
_TAKEN = ("/", "/home", "/run", "/tmp", "/var", "/var/tmp", HOME, WORKSPACE)


def _mount_path(text: str) -> str:
    """A path inside at which nothing of the sandbox's own is hidden, and that an agent cannot have bent."""
    if len(text) > 1024:
        raise wrong("is longer than 1024 characters")
    if text != "/" and (not text.startswith("/") or {"", ".", ".."} & set(text.split("/")[1:])):
        raise wrong(f"{_quoted(text)} is not an absolute path without '.' and '..'")
    for place in _RESERVED:
        if _is_below(f"{text}/", place):
            raise wrong(f"{_quoted(text)} is the sandbox's own, as all of {place} is")
    if _is_below(f"{text}/", WORKSPACE) and ".git" in text.lower().split("/"):
        raise wrong(f"{_quoted(text)} lies inside .git")
    if text in _TAKEN:
        raise wrong(f"{_quoted(text)} is the sandbox's own; choose a path below it")
    return _label(text)


def _apart(mounts: list[MountTable]) -> list[MountTable]:
    paths = set(_unique([mount.path for mount in mounts]))
    for path in sorted(paths):
        above = next((path[:at] for at, char in enumerate(path) if char == "/" and path[:at] in paths), None)
        if above:
            raise wrong(f"{_quoted(path)} lies below another mount, {_quoted(above)}")
    return mounts


def _text(pattern: str, **schema: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, **schema})


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


_NAME = _text("^[a-z0-9][a-z0-9-]{0,62}$")
_Label = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_label)]
_Lasting = Annotated[str, AfterValidator(_lasting), _text("^$|[smhdwSMHDW]")]
_Scalar = Discriminator(lambda value: "(table)" if isinstance(value, dict) else "(text)")
# Says which half of `string or table` was meant, so that a message speaks of that half only.


# --- the file ----------------------------------------------------------------------------------


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class AgentTable(_Table):
    """The coding agent of the session."""

    name: Annotated[str, _known("agents"), _NAME] = Field(description="Name of the agent, such as claude.")


class NetworkTable(_Table):
    """What the session can reach."""

    mode: Literal["none", "host"] = Field(
        description="none: no network but the sandbox's own loopback; host: the host's, as it is."
    )


class WorkspaceTable(_Table):
    """The git checkout that the agent works on, at /workspace."""

    mode: Literal["clone", "overlay", "bind", "empty"] = Field(
        default="clone",
        description="clone: a checkout of its own that borrows the repository's objects; overlay: the same, with a "
        "copy of what your checkout has beside its commit; bind: your own checkout; empty: no git at all.",
    )
    branch: Annotated[str, AfterValidator(_branch)] = Field(
        default="agents/{name}", description="Where the session's work lands. {name} is the session's name."
    )
    base: Annotated[str, AfterValidator(_base)] = Field(
        default="",
        description="What the branch is made from, once. Empty: the commit that the repository has checked out.",
    )
    include: Annotated[list[Annotated[str, AfterValidator(_relative)]], AfterValidator(_unique)] = Field(
        default=[], description="Untracked files of the repository that are copied in, relative to its root."
    )
    history: Literal["shared", "own"] = Field(
        default="shared",
        description="shared: all objects of the repository can be read inside; own: those of the base only.",
    )
    submodules: bool = Field(default=False, description="Whether submodules are checked out.")
    lfs: bool = Field(default=False, description="Whether git-lfs files are checked out instead of their pointers.")
    visible: bool = Field(
        default=False, description="Of a clone: whether its files are an ordinary directory, for an editor to open."
    )
    session_dir: Annotated[str, AfterValidator(_session_dir)] = Field(
        default="",
        description="A new or empty directory that the files of a visible clone are put in, below the session's name. "
        "{name} is that name. Empty: the state directory.",
    )


_Size = Annotated[str, AfterValidator(_size), _text(r"^[0-9]+(\.[0-9]+)?([kMGT]B|[KMGT]iB)$")]


class LimitsTable(_Table):
    """Limits of a session, and what to do where they cannot be enforced."""

    memory: _Size = Field(
        default="",
        description="Memory and swap of all its processes together, such as 4GiB: at least 16MiB.",
        json_schema_extra=_without_default,
    )
    cpus: Annotated[float, AfterValidator(_cpus), WithJsonSchema({"type": "number", "minimum": 0.01})] = Field(
        default=0,
        description="Processor time, in processors: 2, or 0.5.",
        json_schema_extra=_without_default,
    )
    pids: int = Field(
        default=0,
        ge=4,
        le=4_000_000,
        description="Processes and threads at a time, the sandbox's first one among them.",
        json_schema_extra=_without_default,
    )
    disk: _Size = Field(
        default="",
        description="Size of what it writes. No backend can hold a session to it yet: strict, it is refused.",
        json_schema_extra=_without_default,
    )
    wall: Annotated[str, AfterValidator(_wall), _text("[smhdwSMHDW]")] = Field(
        default="",
        description="How long one exec or setup command may take, such as 90s or 2h: it ends with 124.",
        json_schema_extra=_without_default,
    )
    enforce: Literal["strict", "best-effort"] = Field(
        default="strict",
        description="strict: a limit that cannot be enforced here is refused; best-effort: `plan` and `ls` name it.",
    )


class FileTable(_Table):
    """A file that is put into the session's home."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["source"]}, {"required": ["content"]}]})

    path: Annotated[str, AfterValidator(_home_path), _text("^~/")] = Field(
        description="Where it is put: a path below ~/, the home inside."
    )
    source: Annotated[str, Field(min_length=1), AfterValidator(_label)] = Field(
        default="",
        description="A file on the host, relative to the manifest. Outside of the repository it has to be trusted.",
    )
    content: str = Field(default="", description="What to write, instead of a source.")
    mode: Annotated[str, AfterValidator(_mode), _text("^0[0-7]{3}$")] = Field(
        default="0644", description="Permissions: four octal digits."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> FileTable:
        if len(self.model_fields_set & {"source", "content"}) != 1:
            raise wrong("needs either source or content")
        return self


class MountTable(_Table):
    """A file or directory of the host that is seen inside."""

    source: Annotated[str, Field(min_length=1), AfterValidator(_label)] = Field(
        description="A file or directory of the host, relative to the manifest; ~/ is your home."
    )
    path: Annotated[str, AfterValidator(_mount_path), _text("^/")] = Field(
        description="Where it is seen inside: an absolute path."
    )
    mode: Literal["ro", "rw"] = Field(default="ro", description="ro: to be read only; rw: what is written is kept.")


class SecretTable(_Table):
    """Where on the host the value of a variable is found, each time a command is run."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["from_env"]}, {"required": ["from_file"]}]})

    from_env: Annotated[str, AfterValidator(_variable_name), _text("^[A-Za-z_][A-Za-z0-9_]*$")] = Field(
        default="",
        description="A variable of the environment that sessionctl is run in.",
        json_schema_extra=_without_default,
    )
    from_file: Annotated[str, Field(min_length=1), AfterValidator(_label)] = Field(
        default="",
        description="A file of the host, relative to the manifest, of at most 96 KiB; its last newline is left out.",
        json_schema_extra=_without_default,
    )

    @model_validator(mode="after")
    def _one_origin(self) -> SecretTable:
        if len(self.model_fields_set) != 1:
            raise wrong("needs either from_env or from_file")
        return self


_Variable = Annotated[
    Annotated[str, AfterValidator(_no_nul), Tag("(text)")] | Annotated[SecretTable, Tag("(table)")], _Scalar
]
_Agent = Annotated[
    Annotated[str, _known("agents"), _NAME, Tag("(text)")] | Annotated[AgentTable, Tag("(table)")], _Scalar
]
_Network = Annotated[
    Annotated[Literal["none", "host"], Tag("(text)")] | Annotated[NetworkTable, Tag("(table)")], _Scalar
]


_PLAIN = ("backend", "agent", "title", "state", "protect", "ttl", "idle_stop", "on_prune", "parent", "network")
"""Keys whose value is the field's."""


def _parent(name: str) -> str:
    if name and not is_name(name):
        raise wrong(f"{_quoted(name)} is not a session name")
    return name


class SessionTable(_Table):
    """One session: an agent, its sandbox, its workspace."""

    agent: _Agent = Field(
        default="", description="The coding agent: its name, or a table with its name. Recorded; not yet started."
    )
    image: Annotated[str, AfterValidator(_image), _text("^(host|(rootfs|archive|oci):.+)$")] = Field(
        default="host",
        description="What the sandbox's file system is made of. host: the host's programs, read-only; rootfs:DIR, "
        "archive:FILE or oci:LAYOUT[:TAG]: that, as a writable layer over it. Relative to the manifest; outside of "
        "the repository it has to be trusted.",
    )
    image_extra: Annotated[
        list[Annotated[str, AfterValidator(_program), _text("^[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}$")]],
        AfterValidator(_unique),
    ] = Field(
        default=[],
        description="Programs of the host's /usr that are brought into an image which has none of that name, with all "
        "that they load, such as git and node.",
    )
    backend: Annotated[str, _known("backends"), _NAME] = Field(
        default="bubblewrap", description="What makes the sandbox."
    )
    title: Annotated[str, Field(max_length=200), AfterValidator(_label)] = Field(
        default="", description="One line for people, of at most 200 characters."
    )
    tags: Annotated[list[_Label], AfterValidator(_unique)] = Field(
        default=[], description="Words to select sessions by, of at most 64 characters each."
    )
    metadata: dict[_Label, Annotated[str, AfterValidator(_label)]] = Field(
        default={}, description="Anything of your own, as strings. sessionctl keeps it and shows it."
    )
    state: Literal["running", "stopped"] = Field(default="running", description="Whether `apply` lets it run.")
    protect: bool = Field(
        default=False, description="Whether `prune` must never take it, also after its block is gone."
    )
    ttl: _Lasting = Field(
        default="",
        description="How long after this was applied `prune` may take the session although it is declared, if it holds "
        "no work: such as 7d. `apply` makes it anew.",
    )
    idle_stop: _Lasting = Field(
        default="",
        description="How long the session must be unused, and nothing run in it, for the next `apply` or `prune` to "
        "stop it: such as 2h. It runs again with `start`.",
    )
    on_prune: Literal["snapshot", "delete"] = Field(
        default="snapshot",
        description="snapshot: what `prune` takes away goes to the trash, and `undo` brings it back; delete: nothing "
        "is kept, and whatever lies in the home or is only merged in another form keeps the session.",
    )
    parent: Annotated[str, AfterValidator(_parent), _text("^([a-z0-9][a-z0-9-]{0,62})?$")] = Field(
        default="",
        description="A session that this one is made as a copy of, on a branch of its own. "
        "Of no effect once it is there.",
    )
    count: int = Field(
        default=0,
        ge=1,
        le=1000,
        description="Makes NAME-1 to NAME-count of this session. A branch given by name then needs {name}.",
        json_schema_extra=_without_default,
    )
    renamed_from: Annotated[str, AfterValidator(_name), _NAME] = Field(
        default="",
        description="What the session was called before: `apply` renames it, with its work, home and history.",
        json_schema_extra=_without_default,
    )
    setup: list[Annotated[str, AfterValidator(_command), _text(r"\S")]] = Field(
        default=[], description="Shell commands that run inside, once, after the sandbox was made."
    )
    env: dict[
        Annotated[str, AfterValidator(_env_name), _text("^[A-Za-z_][A-Za-z0-9_]*$")],
        _Variable,
    ] = Field(
        default={},
        description="Environment variables of every command inside: strings, together at most 96 KiB, or tables that "
        "say where on the host a secret is. PATH may be set; HOME may not, because the home inside is fixed.",
        json_schema_extra={"additionalProperties": False},
    )
    files: Annotated[list[FileTable], AfterValidator(_disjoint)] = Field(
        default=[], description="Files that are put into the session's home."
    )
    workspace: WorkspaceTable = Field(
        default=WorkspaceTable(),
        description="The git checkout that the agent works on.",
        json_schema_extra=_without_default,
    )
    mounts: Annotated[list[MountTable], AfterValidator(_apart)] = Field(
        default=[], description="Files and directories of the host that are seen inside. They have to be trusted."
    )
    limits: LimitsTable = Field(
        default=LimitsTable(), description="What the session may use.", json_schema_extra=_without_default
    )
    network: _Network = Field(
        default="none",
        description="What the session can reach. none: nothing but its own loopback; host: all that the host "
        "reaches, which has to be trusted.",
    )


class ManifestFile(_Table):
    """The sessions of a repository."""

    version: Annotated[int, Field(ge=1, le=1), WithJsonSchema({"const": 1})] = Field(
        description="Version of this format."
    )
    defaults: SessionTable = Field(
        default=SessionTable(),
        description="What every session has that does not say otherwise.",
        json_schema_extra=_without_default,
    )
    sessions: dict[Annotated[str, AfterValidator(_name), _NAME], SessionTable] = Field(
        default={},
        description="The sessions by name: 1 to 63 of a-z, 0-9 and '-', not beginning with '-'.",
        json_schema_extra={"additionalProperties": False},
    )


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the manifest. Every valid manifest satisfies it; finer rules are not in it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:sessionctl:manifest:1",
        **ManifestFile.model_json_schema(),
        "title": FILE,
    }


def template(branch: str) -> str:
    """The text of a first manifest: one session whose work starts from `branch` (empty: what is checked out)."""
    base = f", base = {json.dumps(branch, ensure_ascii=False)}" if branch else ""
    return f"""\
# Isolated sessions of coding agents on this repository.
# `sessionctl plan` says what would be done, `sessionctl apply` does it.
version = 1

# [defaults] may hold any key of a session, for all of them.

[sessions.agent]
agent = "claude"
workspace = {{ branch = "agents/agent"{base} }}  # its commits land on this branch
# setup = ["make deps"]                # runs inside, once, after the sandbox was made
# env = {{ LOG_LEVEL = "debug" }}
# files = [{{ path = "~/.config/tool.toml", source = "tool.toml", mode = "0600" }}]
"""


# --- what is wrong, in words -------------------------------------------------------------------

_FIELDS: Mapping[str, Iterable[str]] = {
    "": SessionTable.model_fields,
    "agent": AgentTable.model_fields,
    "env": SecretTable.model_fields,
    "files": FileTable.model_fields,
    "mounts": MountTable.model_fields,
    "limits": LimitsTable.model_fields,
    "network": NetworkTable.model_fields,
    "workspace": WorkspaceTable.model_fields,
}
_EXPECTED = {
    "string_type": "expected a string",
    "bool_type": "expected true or false",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "list_type": "expected an array",
    "tuple_type": "expected an array",
    "dict_type": "expected a table",
    "model_type": "expected a table",
    "model_attributes_type": "expected a table",
    "missing": "is missing",
}
"""pydantic's types of errors that say in terms of Python what TOML has other words for."""


def near(word: str, words: Iterable[str]) -> str:
    """The hint ``did you mean …?`` for `word`, or nothing."""
    found = get_close_matches(word[:64], list(words), n=1)
    return f"did you mean {found[0]!r}?" if found else ""


class _Found(NamedTuple):
    """Something wrong in a session table."""

    key: Key
    """Relative to that table."""
    message: str
    hint: str = ""


def _found(error: ErrorDetails, inner: Key) -> _Found:
    """The words for `error`, which pydantic found at `inner` of a session table."""
    kind = error["type"]
    if inner[:1] in (("agent",), ("network",)) and inner[1:2] in (("(text)",), ("(table)",)):
        inner = (inner[0], *inner[2:])
    if inner[:1] == ("env",) and inner[2:3] in (("(text)",), ("(table)",)):
        inner = (*inner[:2], *inner[3:])
    if inner[-1:] == ("[key]",) and kind != "extra_forbidden":
        inner = inner[:-1]
    table = str(inner[0]) if len(inner) > 1 else ""
    if kind == "extra_forbidden":
        key = str(inner[-1])
        if key in NOT_YET.get(table, ()):
            return _Found(inner, "is not supported yet")
        return _Found(inner, "unknown key", near(key, _FIELDS[table]))
    value = error["input"]
    if kind == "literal_error" and isinstance(value, str):
        if re.fullmatch(NOT_YET_VALUES.get(".".join(map(str, inner)), ""), value, re.DOTALL):
            where = ".".join(map(str, inner))
            return _Found(inner, f"{_quoted(value)} is not supported yet", INSTEAD.get(where, ""))
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return _Found(inner, f"expected {error['ctx']['expected']}, not {_quoted(value)}", near(value, choices))
    return _Found(inner, *words(error))


def words(error: ErrorDetails) -> tuple[str, str]:
    """Message and hint for an error whose place does not matter."""
    kind, value = error["type"], error["input"]
    if kind == "rule":
        return error["ctx"]["message"], error["ctx"]["hint"]
    if kind == "literal_error":
        return f"expected {error['ctx']['expected']}", ""
    hint = "put it in quotes" if kind == "string_type" and not isinstance(value, dict | list) else ""
    return _EXPECTED.get(kind) or error["msg"].replace("Input should", "should"), hint


def _read(document: Document) -> tuple[ManifestFile, list[Problem]]:
    """The valid part of `document`, and what is wrong with the rest: so that all of it is said at once."""
    try:
        return ManifestFile.model_validate(document.data), []
    except ValidationError as error:
        errors = error.errors(include_url=False)
    problems = [_problem(error, document) for error in errors[: MOST_PROBLEMS + 1]]
    return ManifestFile.model_validate(_without(document.data, [error["loc"] for error in errors])), problems


def _problem(error: ErrorDetails, document: Document) -> Problem:
    place = error["loc"]
    depth = {"defaults": 1, "sessions": 2}.get(str(place[0]), 0)
    if 0 < depth < len(place) and place[depth] != "[key]":
        found = _found(error, place[depth:])
        key = (*place[:depth], *found.key)
        return Problem(dotted(key), found.message, document.line(key), found.hint)
    key = place[:-1] if place[-1] == "[key]" else place
    if error["type"] == "extra_forbidden":
        message, hint = "unknown key", near(str(place[0]), ManifestFile.model_fields)
    elif key == ("version",):
        message = "is missing" if error["type"] == "missing" else "must be 1: this release knows no other"
        hint = "write: version = 1"
    else:
        message, hint = words(error)
    return Problem(dotted(key), message, document.line(key), hint)


def _without(data: Mapping[str, Any], bad: Iterable[Key]) -> dict[str, Any]:
    """`data` as far as it is valid: without each session key, session or table that holds one of `bad`."""
    gone = {key[:3] if key[0] == "sessions" else key[:2] for key in bad} | {("version",)}
    gone |= {key[:2] for key in gone if key[-1] == "[key]"}

    def kept(table: Mapping[str, Any], *above: str) -> Iterator[tuple[str, Any]]:
        return ((name, value) for name, value in table.items() if (*above, name) not in gone)

    valid = {name: value for name, value in kept(data) if name in ("defaults", "sessions")}
    if "defaults" in valid:
        valid["defaults"] = dict(kept(valid["defaults"], "defaults"))
    if "sessions" in valid:
        valid["sessions"] = {
            name: dict(kept(table, "sessions", name)) for name, table in kept(valid["sessions"], "sessions")
        }
    return {"version": 1, **valid}


# --- layers ------------------------------------------------------------------------------------


class _Source(NamedTuple):
    """Where a layer comes from."""

    rank: int
    """A higher one wins."""
    label: str
    directory: str
    """What relative paths of injected files start from."""
    document: Document | None = None
    ours: bool = True
    """Whether it is the user's own word, and not the repository's."""


class _Value(NamedTuple):
    """A value of a layer."""

    value: Any
    source: _Source
    key: Key
    """Its place in the source."""

    def origin(self, *more: str | int) -> str:
        document = self.source.document
        return f"{self.source.label}:{document.line((*self.key, *more))}" if document else self.source.label

    def problem(self, message: str, *more: str | int, hint: str = "") -> Problem:
        key = (*self.key, *more)
        if self.source.ours:
            return Problem(dotted(key), f"{message} ({self.origin(*more)})", 0, hint)
        return Problem(dotted(key), message, self.source.document.line(key) if self.source.document else 0, hint)


_BLOCK = 3
"""The rank of a session's own block: what is said below it is said of many."""
_Layer = Mapping[str, _Value]
"""Values by their path, such as ``backend``, ``env.RUST_LOG`` or ``workspace.base``. What a path does not
reach into is replaced by a higher layer as a whole: lists are, tables are merged."""


def _layer(table: SessionTable, source: _Source, above: Key) -> _Layer:
    """What `table`, which is at `above` in `source`, says itself."""
    values: dict[str, _Value] = {}
    for name in sorted(table.model_fields_set):
        value = getattr(table, name)
        if name in ("workspace", "limits"):
            inner = {key: getattr(value, key) for key in sorted(value.model_fields_set)}
        elif name in ("env", "metadata"):
            inner = value
        else:
            plain = value.name if isinstance(value, AgentTable) else value
            plain = plain.mode if isinstance(plain, NetworkTable) else plain
            values[name] = _Value(plain, source, (*above, name))
            continue
        for key, leaf in inner.items():
            values[f"{name}.{key}"] = _Value(leaf, source, (*above, name, key))
    return values


def _built_in() -> _Layer:
    source = _Source(0, "built-in", "")
    fields = {name: field.default for name, field in SessionTable.model_fields.items()}
    for name in ("count", "env", "metadata", "workspace", "limits"):
        del fields[name]
    fields |= {f"workspace.{name}": field.default for name, field in WorkspaceTable.model_fields.items()}
    fields |= {f"limits.{name}": field.default for name, field in LimitsTable.model_fields.items()}
    return {path: _Value(value, source, tuple(path.split("."))) for path, value in fields.items()}


def _of_user(settings: Settings, faults: list[str]) -> _Layer:
    """The session defaults in the user's own configuration; what is wrong with them goes to `faults`."""
    document = settings.config
    if document is None or "defaults" not in document.data:
        return {}
    source = _Source(1, "user config", os.path.dirname(document.label), document)
    try:
        return _layer(SessionTable.model_validate(document.data["defaults"]), source, ("defaults",))
    except ValidationError as error:
        for item in error.errors(include_url=False)[:MOST_PROBLEMS]:
            found = _found(item, item["loc"])
            key = ("defaults", *found.key)
            problem = Problem(dotted(key), found.message, document.line(key), found.hint)
            faults.append(str(ManifestError(document.label, [problem])))
        return {}


def _of_text(path: str, text: str, source: _Source, faults: list[str]) -> _Layer:
    """One value given as `text`, by a flag or a variable; what is wrong with it goes to `faults`."""
    head, dot, rest = path.partition(".")
    try:
        value = text if _takes_text(head, rest) else _toml_value(text)
        return _layer(SessionTable.model_validate({head: {rest: value} if dot else value}), source, ())
    except ValidationError as error:
        for item in error.errors(include_url=False)[:MOST_PROBLEMS]:
            found = _found(item, item["loc"])
            hint = f" ({found.hint})" if found.hint else ""
            faults.append(f"{source.label}: {dotted(found.key)}: {found.message}{hint}")
    except ValueError:
        faults.append(f'{source.label}: {dotted((path,))}: {_quoted(text)} is not a TOML value, such as true or ["a"]')
    return {}


def _takes_text(head: str, rest: str) -> bool:
    """Whether what is at `head`, or at `rest` in it, can be a string, so that no quotes are needed."""
    fields = SessionTable.model_fields
    tables = {"workspace": WorkspaceTable.model_fields, "limits": LimitsTable.model_fields}
    if rest and head in tables:
        head, fields = rest, tables[head]
    elif rest or head not in fields:
        return True
    kind = fields[head].annotation if head in fields else str
    return not (kind in (bool, int, float, WorkspaceTable, LimitsTable) or get_origin(kind) in (list, dict))


def _toml_value(text: str) -> Any:
    """The value that `text` is in TOML; `ValueError` when it is none."""
    try:
        found = tomllib.loads(f"value = {text}")
    except RecursionError:
        raise ValueError("nests too deeply") from None
    if len(found) != 1:
        raise ValueError("more than a value")
    return found["value"]


def _of_overrides(settings: Settings, overrides: Sequence[str], directory: str, faults: list[str]) -> _Layer:
    """What the environment and flags say, of every session."""
    merged: dict[str, _Value] = {}
    for variable, text in sorted(settings.session.items()):
        source = _Source(4, variable, directory)
        merged.update(_of_text(variable_path(variable), text, source, faults))
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals:
            faults.append(f"--set: {_quoted(override)} is not KEY=VALUE")
            continue
        merged.update(_of_text(path.strip(), text, _Source(5, "--set", directory), faults))
    return merged


def variable_path(variable: str) -> str:
    """The path that ``SESSIONCTL_SESSION__WORKSPACE__BASE`` sets: ``workspace.base``.

    Names below ``ENV`` and ``METADATA`` keep their case, and their double underscores.
    """
    head, separator, rest = variable.removeprefix("SESSIONCTL_SESSION__").partition("__")
    head = head.lower()
    return f"{head}.{rest if head in ('env', 'metadata') else rest.lower()}" if separator else head


# --- resolving ---------------------------------------------------------------------------------


class Manifest(NamedTuple):
    """A manifest, resolved."""

    declared: dict[str, Declaration]
    """By name, in the order of the file."""
    origins: dict[str, dict[str, str]]
    """By name: where the value at each path of `model.flat` comes from, such as ``sessions.toml:12``,
    ``user config:3``, ``SESSIONCTL_SESSION__BACKEND``, ``--set`` or ``built-in``."""
    inputs: tuple[str, ...]
    """Absolute paths of the files besides the manifest and the user config that this depends on."""
    links: tuple[str, ...] = ()
    """Absolute paths of which it depends on where they lead, and not on what is there."""


def resolve(
    file: StrPath, root: StrPath, *, settings: Settings, overrides: Sequence[str] = (), text: str | None = None
) -> Manifest:
    """The sessions that the manifest `file` of the repository at `root` declares, or would with `text` in it.

    `overrides` are ``KEY=VALUE``. `ManifestError` with everything that is wrong in the manifest;
    `UsageError` for the other layers; `UntrustedError` when it would take files from outside of the repository.
    """
    path, top = os.path.abspath(file), os.path.realpath(root)
    label = os.path.relpath(path, root) if _is_below(path, os.path.abspath(root)) else path
    document = load_document(path, label) if text is None else parse_document(text, label)
    read, problems = _read(document)
    directory = os.path.dirname(path)
    faults: list[str] = []
    user = _of_user(settings, faults)
    above = _of_overrides(settings, overrides, directory, faults)
    if faults:
        raise UsageError("\n".join(faults))

    source = _Source(2, label, directory, document, ours=False)
    below = {**_built_in(), **user, **_layer(read.defaults, source, ("defaults",))}
    source = source._replace(rank=_BLOCK)
    judge = _Judge(top, settings, problems)
    sessions = {
        name: {**below, **_layer(table, source, ("sessions", name)), **above} for name, table in read.sessions.items()
    }
    judge.require_room(sessions)
    for name, values in sessions.items():
        judge.session(name, values, document.line(("sessions", name)))
    judge.require_distinct_branches()
    judge.require_old_names({name: values["renamed_from"] for name, values in sessions.items()})
    if judge.problems:
        found = sorted(dict.fromkeys(judge.problems), key=lambda problem: problem.line or sys.maxsize)
        more = [Problem("", "and more of these")] if len(found) > MOST_PROBLEMS else []
        raise ManifestError(label, found[:MOST_PROBLEMS] + more)
    if judge.untrusted:
        raise UntrustedError(
            str(ManifestError(label, list(dict.fromkeys(judge.untrusted)))),
            hint="what is included must lie in the repository; `files` and `mounts` can reach outside of it",
        )
    return Manifest(judge.declared, judge.origins, tuple(judge.inputs), tuple(judge.links))


def _is_below(path: str, directory: str) -> bool:
    return path.startswith(directory.rstrip("/") + "/")


class _Refused(Exception):
    """A file that the manifest names cannot be used."""

    def __init__(self, message: str, *, outside: bool = False) -> None:
        super().__init__(message)
        self.outside = outside


class _Judge:
    """Makes declarations of merged values, and collects what is wrong with them.

    Each file that is named is looked at once, however many sessions name it.
    """

    def __init__(self, root: str, settings: Settings, problems: list[Problem]) -> None:
        self.root = root
        self.git = os.path.realpath(os.path.join(root, ".git"))
        self.forbidden = [(*entry.partition("=")[::2], entry) for entry in settings.forbid]
        self.problems = problems
        self.untrusted: list[Problem] = []
        self.declared: dict[str, Declaration] = {}
        self.origins: dict[str, dict[str, str]] = {}
        self.session_dirs: dict[str, str] = {}
        self.branches: dict[str, tuple[str, _Value]] = {}
        """Which session has it, and where that is said."""
        self.inputs: dict[str, None] = {}
        """Absolute paths as they were named, in order."""
        self.links: dict[str, None] = {}
        """The same, of what is not read."""
        self.digests: dict[str, str] = {}
        self.pinned: dict[images.Reference, images.Pinned] = {}
        self.programs: dict[tuple[str, ...], images.Pinned] = {}

    def require_room(self, sessions: dict[str, dict[str, _Value]]) -> None:
        """Empties `sessions` when they are too many: no more is said of them."""
        total = sum(values["count"].value if "count" in values else 1 for values in sessions.values())
        if total > MOST_SESSIONS:
            self.problems.append(
                Problem("sessions", f"declares {total} sessions; at most {MOST_SESSIONS} are possible")
            )
            sessions.clear()

    def session(self, name: str, values: dict[str, _Value], line: int) -> None:
        """Declares `name`, or as many of it as its count says."""
        self.workspace(name, values)
        self.environment(values)
        count = values.get("count")
        branch = values["workspace.branch"]
        if count is None:
            names = [name]
        else:
            names = [f"{name}-{number}" for number in range(1, count.value + 1)]
            if branch.value and "{name}" not in branch.value:
                self.problems.append(branch.problem("must hold {name}, because count is given"))
            if values["renamed_from"].value:
                self.problems.append(values["renamed_from"].problem("cannot be beside count"))
        files, mounts = self.files(values["files"]), self.mounts(values["mounts"])
        self.require_seen(values["files"], mounts)
        self.included(values["workspace.include"])
        image = self.image(values["image"]) | self.image_extra(name, values)
        for each in names:
            if not is_name(each):
                self.problems.append(Problem(dotted(("sessions", name)), f"{each} is too long for a name", line))
            elif each == values["parent"].value:
                self.problems.append(values["parent"].problem("is the session itself"))
            elif each in self.declared:
                message = f"the name {each} is taken by another session"
                self.problems.append(Problem(dotted(("sessions", name)), message, line))
            else:
                self.declare(each, values, files, mounts, image)

    def declare(
        self,
        name: str,
        values: dict[str, _Value],
        files: tuple[FileSpec, ...],
        mounts: tuple[MountSpec, ...],
        image: Mapping[str, Any],
    ) -> None:
        def table(head: str) -> dict[str, Any]:
            cut = len(head) + 1
            return {path[cut:]: value.value for path, value in values.items() if path.startswith(f"{head}.")}

        workspace = table("workspace")
        workspace["branch"] = workspace["branch"].replace("{name}", name)
        workspace["include"] = tuple(workspace["include"])
        if workspace["session_dir"]:
            given = values["workspace.session_dir"]
            workspace["session_dir"] = place = self.leads(workspace["session_dir"].replace("{name}", name), given)
            if place in self.session_dirs:
                both = f"{self.session_dirs[place]} and {name}"
                self.problems.append(given.problem(f"{_quoted(place)} would be the directory of both {both}"))
            self.session_dirs[place] = name
        if workspace["branch"]:
            self.branch(name, workspace["branch"], values["workspace.branch"])
        spec = SessionSpec(
            name=name,
            **{key: values[key].value for key in _PLAIN},
            **image,
            renamed_from=values["renamed_from"].value,
            tags=tuple(values["tags"].value),
            setup=tuple(values["setup"].value),
            metadata=table("metadata"),
            env={name[4:]: self.variable(value) for name, value in values.items() if name.startswith("env.")},
            workspace=WorkspaceSpec(**workspace),
            limits=LimitsSpec(**table("limits")),
            files=files,
            mounts=mounts,
        )
        self.declared[name] = declaration = Declaration.of(spec)
        fields = flat(declaration.data)
        listed = {
            f"{key}.{table.path}": (key, number)
            for key in ("files", "mounts")
            for number, table in enumerate(values[key].value)
        }
        self.origins[name] = {
            path: values[listed[path][0]].origin(listed[path][1])
            if path in listed
            else values[_DECIDED_BY.get(path, path)].origin()
            for path in fields
        }
        for forbidden, text, entry in self.forbidden:
            for path in (forbidden,) if forbidden in fields else _of_kind(spec, forbidden, text):
                if forbidden not in fields or text in _texts(fields[forbidden]):
                    message = f"the user config forbids {_quoted(entry)}, which {name} has"
                    key, number = listed.get(path, (path, None))
                    self.problems.append(values[key].problem(message, *(() if number is None else (number,))))

    def workspace(self, name: str, values: dict[str, _Value]) -> None:
        """What has no meaning with the mode is dropped when it is said elsewhere, and refused when it is beside it."""
        mode, visible = values["workspace.mode"], values["workspace.visible"]
        kind = kind_of({"mode": mode.value, "visible": visible.value and mode.value == "clone"})
        decides = visible if kind == "visible" else mode
        built_in = _built_in()
        for key in MEANINGLESS[kind]:
            path = f"workspace.{key}"
            given = values[path]
            if given.source.rank and given.source.rank >= decides.source.rank:
                self.problems.append(given.problem(f"has no meaning with {_said_kind(kind)}, which {name} has"))
            values[path] = built_in[path]
        if kind not in HAS_BRANCH:
            values["workspace.branch"] = built_in["workspace.branch"]._replace(value="")

    def environment(self, values: dict[str, _Value]) -> None:
        variables = {path: value for path, value in values.items() if path.startswith("env.")}

        def length(value: _Value) -> int:
            return len(value.value.encode()) if isinstance(value.value, str) else 0

        size = sum(len(path) - 2 + length(value) for path, value in variables.items())
        if size > ENV_BYTES:
            largest = max(variables.values(), key=length)
            message = f"all variables together have {size} bytes; at most {ENV_BYTES} are possible"
            self.problems.append(largest.problem(message))

    def branch(self, name: str, branch: str, value: _Value) -> None:
        if not is_branch(branch):
            self.problems.append(value.problem(f"{_quoted(branch)} is not a branch name that git accepts"))
        if branch in self.branches:
            both = f"{self.branches[branch][0]} and {name}"
            self.problems.append(value.problem(f"{_quoted(branch)} would be the branch of both {both}"))
        self.branches[branch] = (name, value)

    def require_distinct_branches(self) -> None:
        """Git keeps a branch as a file: `a` and `a/b` cannot both exist in the repository they land in."""
        for branch, (name, value) in self.branches.items():
            for at, char in enumerate(branch):
                if char == "/" and branch[:at] in self.branches:
                    owners = f"the branches of {self.branches[branch[:at]][0]} and {name}"
                    both = f"{_quoted(branch[:at])} and {_quoted(branch)}"
                    self.problems.append(value.problem(f"git cannot have both {both}, {owners}"))

    def require_old_names(self, given: Mapping[str, _Value]) -> None:
        """A session can have been called what no other one is called or was called."""
        was: dict[str, str] = {}
        for name, value in given.items():
            old = value.value
            if old and old in self.declared:
                self.problems.append(value.problem(f"{old} is declared too, so {name} cannot be it"))
            elif old and old in was:
                self.problems.append(value.problem(f"both {was[old]} and {name} would be {old}"))
            elif old:
                was[old] = name

    # What is named on the host.

    def files(self, value: _Value) -> tuple[FileSpec, ...]:
        specs = []
        for number, table in enumerate(value.value):
            if "content" in table.model_fields_set:
                digest = hashlib.sha256(table.content.encode()).hexdigest()
                specs.append(FileSpec(path=table.path, sha256=digest, mode=table.mode, content=table.content))
                continue
            try:
                real = self.real(_host_path(table.source, value), anywhere=True)
                outside = not value.source.ours and not _is_below(real, self.root)
                digest = self.digest(real)
                specs.append(FileSpec(table.path, digest, table.mode, source=real, outside=outside))
            except _Refused as refused:
                into = self.untrusted if refused.outside else self.problems
                into.append(value.problem(f"{_quoted(table.source)} {refused}", number, "source"))
        return tuple(specs)

    def image(self, value: _Value) -> dict[str, Any]:
        """The fields of a declaration that `value`, an image, decides."""
        reference = images.parse(value.value)
        if reference is None:
            return {"image": images.HOST}
        try:
            real = self.real(_host_path(reference.path, value), anywhere=True)
            reference = reference._replace(path=real)
            if reference not in self.pinned:
                self.pinned[reference] = _pinned(reference)
        except (_Refused, ImageError) as refused:
            hint = refused.hint if isinstance(refused, ImageError) else ""
            self.problems.append(value.problem(f"{_quoted(value.value)} {refused}", hint=hint))
            return {"image": images.HOST}
        self.inputs.update(dict.fromkeys(self.pinned[reference].inputs))
        outside = not value.source.ours and not _is_below(real, self.root)
        digest = self.pinned[reference].digest
        return {"image": str(reference), "image_digest": digest, "image_outside": outside}

    def image_extra(self, name: str, values: dict[str, _Value]) -> dict[str, Any]:
        """The same of the host's programs in it. Without an image those that are said elsewhere are dropped."""
        given, image = values["image_extra"], values["image"]
        if not given.value:
            return {}
        if image.value == images.HOST:
            if given.source.rank >= max(image.source.rank, _BLOCK):  # defaults are for those that have one
                message = f"has no meaning without an image, and {name} has none: it sees the host's programs"
                self.problems.append(given.problem(message))
            values["image_extra"] = _built_in()["image_extra"]
            return {}
        names = tuple(sorted(given.value))
        if names not in self.programs:
            self.programs[names] = images.Pinned("", ())
            try:
                self.programs[names] = extra.pin(names)
            except (ImageError, OSError) as error:
                said = (str(error), error.hint) if isinstance(error, ImageError) else (f"{error.filename}: {error}", "")
                self.problems.append(given.problem(said[0], hint=said[1]))
        self.inputs.update(dict.fromkeys(self.programs[names].inputs))
        return {"image_extra": names, "image_extra_digest": self.programs[names].digest}

    def mounts(self, value: _Value) -> tuple[MountSpec, ...]:
        return tuple(MountSpec(self.leads(table.source, value), table.path, table.mode) for table in value.value)

    def require_seen(self, value: _Value, mounts: Iterable[MountSpec]) -> None:
        """What is injected must not be hidden by what is mounted."""
        for number, table in enumerate(value.value):
            for mount in mounts:
                if _is_below(f"{HOME}/{table.path[2:]}/", mount.path):
                    message = f"{_quoted(table.path)} would be hidden by what is mounted at {_quoted(mount.path)}"
                    self.problems.append(value.problem(message, number, "path"))

    def variable(self, value: _Value) -> str | dict[str, str]:
        """The value of a variable; of a secret, where it is found."""
        given = value.value
        if isinstance(given, str):
            return given
        return {"from_env": given.from_env} if given.from_env else {"from_file": self.leads(given.from_file, value)}

    def leads(self, path: str, value: _Value) -> str:
        """Where `path`, named by `value`, leads on the host. What is there is not looked at."""
        named = _host_path(path, value)
        self.links[named] = None
        return os.path.realpath(named)

    def included(self, value: _Value) -> None:
        for number, text in enumerate(value.value):
            try:
                real = self.real(os.path.join(self.root, text), anywhere=False)
                if not os.path.isfile(real):
                    raise _Refused("is not a regular file" if os.path.lexists(real) else "does not exist")
            except _Refused as refused:
                into = self.untrusted if refused.outside else self.problems
                into.append(value.problem(f"{_quoted(text)} {refused}", number))

    def real(self, path: str, *, anywhere: bool) -> str:
        """The real path of `path`; `_Refused` when that is in git's own directory or, unless `anywhere`, outside."""
        real = os.path.realpath(path)
        self.inputs[path] = None
        inside = _is_below(real, self.root)
        if not inside and not anywhere:
            raise _Refused("leads outside of the repository", outside=True)
        if _is_below(real + "/", self.git) or (inside and ".git" in real[len(self.root) :].lower().split("/")):
            raise _Refused("lies inside .git")
        return real

    def digest(self, real: str) -> str:
        """The hash of the regular file at `real`, which is opened without following links that appeared since."""
        if real not in self.digests:
            base = self.root if _is_below(real, self.root) else os.path.dirname(real)
            try:
                content = beneath.read(base, os.path.relpath(real, base), SOURCE_BYTES)
            except OSError as error:
                raise _Refused(f"cannot be read: {error.strerror}") from error
            self.digests[real] = hashlib.sha256(content).hexdigest()
        return self.digests[real]


def _pinned(reference: images.Reference) -> images.Pinned:
    if reference.kind != "archive":
        return images.pin(reference)
    # All of it must be read for its digest; of one that did not change that is known.
    return images.Pinned(remembered(reference.path, lambda: images.pin(reference).digest), (reference.path,))


def _said_kind(kind: str) -> str:
    return {"visible": "visible = true", "clone": "visible = false"}.get(kind, f"mode {kind}")


def _host_path(text: str, value: _Value) -> str:
    """`text`, named by `value`, as an absolute path."""
    expanded = os.path.expanduser(text) if text == "~" or text.startswith("~/") else text
    return os.path.join(value.source.directory, expanded)


_DECIDED_BY = {"image.source": "image", "image_extra.digest": "image_extra"}
"""Paths of a declaration whose value comes with that of another key."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "mounts": ("ro", "rw"),
    "env": ("from_env", "from_file"),
    "files": ("outside",),
}
"""What a prohibition may say of a field that has many entries: any entry of that kind."""


def _of_kind(spec: SessionSpec, field: str, kind: str) -> Iterator[str]:
    """The paths, as in `model.flat`, of the entries of `field` that are of `kind`, one of `KINDS`."""
    if field == "mounts":
        yield from (f"mounts.{mount.path}" for mount in spec.mounts if mount.mode == kind)
    elif field == "env":
        yield from (f"env.{name}" for name, value in spec.env.items() if not isinstance(value, str) and kind in value)
    elif field == "files":
        yield from (f"files.{file.path}" for file in spec.files if file.outside)


def _texts(value: Any) -> list[str]:
    """`value` as a prohibition may name it: each element of a list, and booleans as TOML writes them."""
    if isinstance(value, list):
        return [str(item) for item in value]
    return [str(value).lower() if isinstance(value, bool) else str(value)]
