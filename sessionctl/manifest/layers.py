"""What a session is comes from layers: built-in < user config < manifest < SESSIONCTL_SESSION__* < flags.

Each is a mapping of values by path, every one with the place that it was said in; a higher layer's win.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, get_origin

from pydantic import ValidationError

from sessionctl.errors import ManifestError, Problem
from sessionctl.locate import Document, Key, dotted
from sessionctl.manifest.reading import wrong_in_session
from sessionctl.manifest.tables import AgentTable, LimitsTable, NetworkTable, SessionTable, Table, WorkspaceTable
from sessionctl.manifest.wording import quoted

if TYPE_CHECKING:
    from sessionctl.settings import Settings


class Rank(IntEnum):
    """Of layers; a higher one wins."""

    BUILT_IN = 0
    USER = 1
    DEFAULTS = 2
    BLOCK = 3
    """A session's own. What is below it is said of many sessions."""
    ENVIRONMENT = 4
    FLAGS = 5


_INNER: Mapping[str, type[Table]] = {"workspace": WorkspaceTable, "limits": LimitsTable}
"""Tables of a session in which each key is a value of its own, with a built-in one."""
_FREE = ("env", "metadata")
"""Those of which the user makes the keys."""


class Source(NamedTuple):
    """Where a layer comes from."""

    rank: Rank
    label: str
    directory: str
    """What relative paths of injected files start from."""
    document: Document | None = None
    ours: bool = True
    """Whether it is the user's own word, and not the repository's."""


class Value(NamedTuple):
    """A value of a layer."""

    value: Any
    source: Source
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


Layer = Mapping[str, Value]
"""Values by their path, such as ``backend``, ``env.RUST_LOG`` or ``workspace.base``. What a path does not
reach into is replaced by a higher layer as a whole: lists are, tables are merged."""


def layer(table: SessionTable, source: Source, above: Key) -> Layer:
    """What `table`, which is at `above` in `source`, says itself."""
    values: dict[str, Value] = {}
    for name, value in _said(table).items():
        if name in _INNER or name in _FREE:
            inner = _said(value) if name in _INNER else value
            values |= {f"{name}.{key}": Value(leaf, source, (*above, name, key)) for key, leaf in inner.items()}
        else:
            values[name] = Value(_short(value), source, (*above, name))
    return values


def _said(table: Table) -> dict[str, Any]:
    return {name: getattr(table, name) for name in sorted(table.model_fields_set)}


def _short(value: Any) -> Any:
    """What a table says that a string could say too."""
    if isinstance(value, AgentTable):
        return value.name
    return value.mode if isinstance(value, NetworkTable) else value


def _built_in() -> Layer:
    source = Source(Rank.BUILT_IN, "built-in", "")
    others = (*_INNER, *_FREE, "count")
    fields = {name: field.default for name, field in SessionTable.model_fields.items() if name not in others}
    for table, model in _INNER.items():
        fields |= {f"{table}.{name}": field.default for name, field in model.model_fields.items()}
    return {path: Value(value, source, tuple(path.split("."))) for path, value in fields.items()}


BUILT_IN: Layer = _built_in()
"""What every path of a session is when nobody says it."""


def of_user(settings: Settings, faults: list[str]) -> Layer:
    """The session defaults in the user's own configuration; what is wrong with them goes to `faults`."""
    document = settings.config
    if document is None or "defaults" not in document.data:
        return {}
    source = Source(Rank.USER, "user config", os.path.dirname(document.label), document)
    try:
        return layer(SessionTable.model_validate(document.data["defaults"]), source, ("defaults",))
    except ValidationError as error:
        for found in wrong_in_session(error):
            key = ("defaults", *found.key)
            problem = Problem(dotted(key), found.message, document.line(key), found.hint)
            faults.append(str(ManifestError(document.label, [problem])))
        return {}


# --- one value at a time -----------------------------------------------------------------------


def of_overrides(settings: Settings, overrides: Sequence[str], directory: str, faults: list[str]) -> Layer:
    """What the environment and flags (``KEY=VALUE``) say, of every session; what is wrong goes to `faults`."""
    merged: dict[str, Value] = {}
    for variable, text in sorted(settings.session.items()):
        source = Source(Rank.ENVIRONMENT, variable, directory)
        merged.update(_of_text(variable_path(variable), text, source, faults))
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals:
            faults.append(f"--set: {quoted(override)} is not KEY=VALUE")
            continue
        merged.update(_of_text(path.strip(), text, Source(Rank.FLAGS, "--set", directory), faults))
    return merged


def variable_path(variable: str) -> str:
    """The path that ``SESSIONCTL_SESSION__WORKSPACE__BASE`` sets: ``workspace.base``.

    Names below ``ENV`` and ``METADATA`` keep their case, and their double underscores.
    """
    head, separator, rest = variable.removeprefix("SESSIONCTL_SESSION__").partition("__")
    head = head.lower()
    return f"{head}.{rest if head in _FREE else rest.lower()}" if separator else head


def _of_text(path: str, text: str, source: Source, faults: list[str]) -> Layer:
    """One value given as `text`, by a flag or a variable; what is wrong with it goes to `faults`."""
    head, dot, rest = path.partition(".")
    try:
        value = text if _takes_text(head, rest) else _toml_value(text)
        return layer(SessionTable.model_validate({head: {rest: value} if dot else value}), source, ())
    except ValidationError as error:
        for found in wrong_in_session(error):
            hint = f" ({found.hint})" if found.hint else ""
            faults.append(f"{source.label}: {dotted(found.key)}: {found.message}{hint}")
    except ValueError:
        faults.append(f'{source.label}: {dotted((path,))}: {quoted(text)} is not a TOML value, such as true or ["a"]')
    return {}


def _takes_text(head: str, rest: str) -> bool:
    """Whether what is at `head`, or at `rest` in it, can be a string, so that no quotes are needed."""
    if rest and head not in _INNER:
        return True
    table, name = (_INNER[head], rest) if rest else (SessionTable, head)
    field = table.model_fields.get(name)
    if field is None:
        return True
    kind = field.annotation
    return not (kind in (bool, int, float, *_INNER.values()) or get_origin(kind) in (list, dict))


def _toml_value(text: str) -> Any:
    """The value that `text` is in TOML; `ValueError` when it is none."""
    try:
        found = tomllib.loads(f"value = {text}")
    except RecursionError:
        raise ValueError("nests too deeply") from None
    if len(found) != 1:
        raise ValueError("more than a value")
    return found["value"]
