"""How the tool works: flags > SESSIONCTL_* > user config > built-in, with the origin of every value.

The repository's manifest has no say here. The session defaults and prohibitions of the user config,
and the variables ``SESSIONCTL_SESSION__*``, are only collected; `manifest` knows what they mean.
This module may not write, and reads nothing but the user config and the repository's ``.git`` file.
"""

# only links are followed here; the rest is text.

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    StrictBool,
    StrictStr,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from sessionctl.beneath import StrPath
from sessionctl.declared import base_directory, config_file, cpus, variables
from sessionctl.errors import ManifestError, Problem, UsageError
from sessionctl.locate import Document, dotted, load_document
from sessionctl.manifest import KINDS, near, words, wrong
from sessionctl.model import effect_of
from sessionctl.units import parse_duration, parse_size

NOT_SETTINGS = frozenset({"SESSIONCTL_BWRAP"})
"""Variables that are read elsewhere. SESSIONCTL_BWRAP: the bubblewrap program (backends/bubblewrap)."""

_SESSION = "SESSIONCTL_SESSION__"
_TOOL = ("state_dir", "jobs", "color")
"""What flags, variables and the user config can all say."""
_USERS = ("forbid", "hooks", "trash", "snapshots")
"""What only the user config can say. A prohibition that a variable or flag could set, they could also lift, and
what may happen unasked is nobody's to say who only shares the environment."""
_CONFIG = (*_TOOL, *_USERS, "defaults")
"""What the user config can say."""


def _whole(value: Any) -> Any:
    if isinstance(value, bool | float):
        raise wrong("expected a whole number")
    return value


def _absolute(path: Path) -> Path:
    if "\0" in str(path):
        raise wrong("holds a NUL character")
    expanded = Path(os.path.expanduser(path))
    if not expanded.is_absolute():
        raise wrong(f"{str(path)!a} is not an absolute path")
    return expanded


def _default_state_dir() -> Path:
    return Path("/var/lib/sessionctl" if os.geteuid() == 0 else os.path.join(base_directory("STATE"), "sessionctl"))


def _prohibition(entry: str) -> str:
    path, equals, value = entry.partition("=")
    try:
        effect_of(path)
    except KeyError:
        raise wrong(f"{path!a} is not a field of a session") from None
    if not equals:
        raise wrong(f"{entry!a} is not PATH=VALUE, such as workspace.history=shared")
    if path in ("limits", "metadata"):
        raise wrong(f"{entry!a} forbids nothing: {path} is a table, name a key of it")
    kinds = KINDS.get(path)
    if kinds and value not in kinds:
        raise wrong(f"{entry!a} forbids nothing: {path} takes {' or '.join(kinds)}")
    return entry


class _UserConfig(PydanticBaseSettingsSource):
    """What the user config, already read, says of the tool."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        document = self.current_state["config"]
        return (document.data.get(field_name) if document else None), field_name, False

    def __call__(self) -> dict[str, Any]:
        fields = {
            name: self.get_field_value(self.settings_cls.model_fields[name], name)[0] for name in (*_TOOL, *_USERS)
        }
        return {name: value for name, value in fields.items() if value is not None}


class Hooks(BaseModel):
    """What git hooks may do beside recording: ``[hooks]`` of the user config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    apply: StrictBool = False
    """Make and start declared sessions."""


def _lasting(text: str) -> str:
    try:
        seconds = parse_duration(text)
    except UsageError as error:
        raise wrong(error.with_hint) from None
    if not 1 <= seconds <= 3660 * 86400:
        raise wrong(f"{text!a} is not from 1s to 3660d")
    return text


def _size(text: str) -> str:
    try:
        parse_size(text)
    except UsageError as error:
        raise wrong(error.with_hint) from None
    return text


class Trash(BaseModel):
    """What `gc` leaves in the trash: ``[trash]`` of the user config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    expiry: Annotated[StrictStr, AfterValidator(_lasting)] = "30d"
    """How long all of it stays."""
    size: Annotated[StrictStr, AfterValidator(_size)] = ""
    """What it may take on the disk; what can still be undone stays until it expires."""


class Snapshots(BaseModel):
    """Which snapshots `gc` leaves alone: ``[snapshots]`` of the user config. By itself all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    last: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=10_000)] = 0
    """The newest of each session."""
    age: Annotated[StrictStr, AfterValidator(_lasting)] = ""
    """Those younger than this."""
    named: StrictBool = False
    """Whether those with a message may go too."""


class Settings(BaseSettings):
    """How the tool works, and what the user says of every session. Made by `load`."""

    model_config = SettingsConfigDict(env_prefix="SESSIONCTL_", extra="forbid", frozen=True, validate_default=True)

    state_dir: Annotated[Path, AfterValidator(_absolute)] = Field(default_factory=_default_state_dir)
    jobs: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=256)] = Field(
        default_factory=lambda: min(8, 2 * cpus())
    )
    """Sessions that are worked on at the same time."""
    color: Literal["auto", "always", "never"] = "auto"
    forbid: tuple[Annotated[str, AfterValidator(_prohibition)], ...] = ()
    """What no session may be, as ``path=value``; nothing lifts it."""
    hooks: Hooks = Hooks()
    trash: Trash = Trash()
    snapshots: Snapshots = Snapshots()
    session: Mapping[str, str] = {}
    """The variables SESSIONCTL_SESSION__*, by name."""
    config: SkipValidation[Document | None] = None
    """The user config; its ``[defaults]`` are for every session."""
    origins: Mapping[str, str] = {}
    """Where ``state_dir``, ``jobs``, ``color`` and ``forbid`` come from, such as ``--jobs`` or ``user config:3``."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _UserConfig(settings_cls)


def load(root: StrPath | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings for the repository at `root`, if there is one.

    `flags` are ``state_dir``, ``jobs`` and ``color``; None counts as not given. `UsageError` that names
    each place where something is wrong, also when the state directory lies in the repository.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    path = config_file()
    try:
        document = load_document(path, path) if os.path.lexists(path) else None
    except ManifestError as error:
        raise UsageError(str(error)) from error
    environment = variables()
    faults = [*_unknown_variables(environment), *_unknown_keys(document)]
    origins = {name: _origin(name, given, environment, document) for name in (*_TOOL, *_USERS)}
    try:
        settings = Settings(
            config=document,
            session={name: text for name, text in environment.items() if name.startswith(_SESSION)},
            origins=origins,
            **given,
        )
    except ValidationError as error:
        raise UsageError("\n".join([*faults, *_described(error, origins, document)])) from error
    if faults:
        raise UsageError("\n".join(faults))
    _require_outside(settings, root)
    return settings


def _origin(name: str, flags: Mapping[str, Any], environment: Mapping[str, str], document: Document | None) -> str:
    variable = f"SESSIONCTL_{name.upper()}"
    if name in flags:
        return f"--{name.replace('_', '-')}"
    if variable in environment:
        return variable
    if document and name in document.data:
        return f"user config:{document.line((name,))}"
    return "built-in"


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    known = [*(f"SESSIONCTL_{name.upper()}" for name in _TOOL), *NOT_SETTINGS]
    for name in sorted(environment):
        if name not in known and not name.startswith(_SESSION):
            hint = near(name, [*known, f"{_SESSION}BACKEND"])
            yield f"{ascii(name)[1:-1]}: unknown variable" + (f" ({hint})" if hint else "")


def _unknown_keys(document: Document | None) -> Iterator[str]:
    if document:
        for name in document.data.keys() - set(_CONFIG):
            problem = Problem(dotted((name,)), "unknown key", document.line((name,)), near(name, _CONFIG))
            yield str(ManifestError(document.label, [problem]))


def _described(error: ValidationError, origins: Mapping[str, str], document: Document | None) -> Iterator[str]:
    for item in error.errors(include_url=False):
        place, (message, hint) = item["loc"], words(item)
        if item["type"] == "extra_forbidden":
            tables: dict[str, type[BaseModel]] = {"hooks": Hooks, "trash": Trash, "snapshots": Snapshots}
            message, hint = "unknown key", near(str(place[-1]), tables[str(place[0])].model_fields)
        origin = origins[str(place[0])]
        if document and origin.startswith("user config"):
            yield str(ManifestError(document.label, [Problem(dotted(place), message, document.line(place), hint)]))
        else:
            yield f"{origin}: {message}"


def _require_outside(settings: Settings, root: StrPath | None) -> None:
    state = os.path.realpath(settings.state_dir)
    for directory in _repository(root) if root is not None else ():
        if f"{state}/".startswith(f"{directory.rstrip('/')}/"):
            raise UsageError(
                f"the state directory {settings.state_dir} ({settings.origins['state_dir']}) lies in the repository",
                hint="what agents are recorded in must be out of their reach: choose another with --state-dir",
            )


def _repository(root: StrPath) -> Iterator[str]:
    """The real paths of the work tree at `root`, of its git directories and, for a linked one, of the main one."""
    top = os.path.realpath(root)
    yield top
    git = os.path.realpath(os.path.join(top, ".git"))
    yield git
    pointer = _line(git)
    if pointer.startswith("gitdir: "):
        git = os.path.realpath(os.path.join(top, pointer.removeprefix("gitdir: ")))
        common = os.path.realpath(os.path.join(git, _line(os.path.join(git, "commondir"))))
        yield from (git, common)
        if os.path.basename(common) == ".git":
            yield os.path.dirname(common)


def _line(path: str) -> str:
    """The first line of the file at `path`, or nothing when there is none."""
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.readline(8192)).rstrip("\n")
    except OSError:
        return ""
