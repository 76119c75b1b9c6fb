"""A document as the file model has it: its valid part, and what is wrong with the rest, so that all is said at once.

Keys and values that a later release will know are named here: until then they are refused, never ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sessionctl.errors import Problem
from sessionctl.locate import Document, Key, dotted
from sessionctl.manifest import tables
from sessionctl.manifest.tables import ManifestFile, SessionTable
from sessionctl.manifest.wording import near, quoted, words

MOST_PROBLEMS = 100

NOT_YET: Mapping[str, frozenset[str]] = {
    "": frozenset({"args", "budget", "command", "model", "prompt", "runtime", "visible"}),
    "agent": frozenset({"args", "model", "prompt"}),
    "network": frozenset({"allow"}),
    "workspace": frozenset({"source"}),
}
"""Keys of each table that a later release will enforce."""

_NOT_YET_VALUES: Mapping[str, str] = {
    "network": r"allow",
    "network.mode": r"allow",
}
"""The same for values: what of an enumeration matches."""

_FIELDS: Mapping[str, Iterable[str]] = {
    "": SessionTable.model_fields,
    "agent": tables.AgentTable.model_fields,
    "env": tables.SecretTable.model_fields,
    "files": tables.FileTable.model_fields,
    "mounts": tables.MountTable.model_fields,
    "limits": tables.LimitsTable.model_fields,
    "network": tables.NetworkTable.model_fields,
    "workspace": tables.WorkspaceTable.model_fields,
}
"""What the tables of a session may hold."""

_HALVES: Mapping[str, int] = {"agent": 1, "network": 1, "env": 2}
"""Keys that may be a string or a table, and after how many keys pydantic says which half it looked at."""


def read(document: Document) -> tuple[ManifestFile, list[Problem]]:
    """The valid part of `document`, and what is wrong with the rest."""
    try:
        return ManifestFile.model_validate(document.data), []
    except ValidationError as error:
        errors = error.errors(include_url=False)
    problems = [_problem(error, document) for error in errors[: MOST_PROBLEMS + 1]]
    return ManifestFile.model_validate(_without(document.data, [error["loc"] for error in errors])), problems


class Found(NamedTuple):
    """Something wrong in a session table."""

    key: Key
    """Relative to that table."""
    message: str
    hint: str = ""


def wrong_in_session(error: ValidationError) -> list[Found]:
    """What `error` says is wrong with a session table that was validated by itself, as far as anybody reads it."""
    return [_found(each, each["loc"]) for each in error.errors(include_url=False)[:MOST_PROBLEMS]]


def _found(error: ErrorDetails, place: Key) -> Found:
    """The words for `error`, which pydantic found at `place` of a session table."""
    kind, value = error["type"], error["input"]
    key = _as_written(place, kind)
    if kind == "extra_forbidden":
        return _unknown(key)
    if kind == "literal_error" and isinstance(value, str):
        return _none_of(key, value, error["ctx"]["expected"])
    return Found(key, *words(error))


def _as_written(place: Key, kind: str) -> Key:
    """`place` without what pydantic puts into it that no document has."""
    at = _HALVES.get(str(place[0]) if place else "")
    if at is not None and place[at : at + 1] in (("(text)",), ("(table)",)):
        place = (*place[:at], *place[at + 1 :])
    return place[:-1] if place[-1:] == ("[key]",) and kind != "extra_forbidden" else place


def _unknown(key: Key) -> Found:
    name, table = str(key[-1]), str(key[0]) if len(key) > 1 else ""
    if name in NOT_YET.get(table, ()):
        return Found(key, "is not supported yet")
    return Found(key, "unknown key", near(name, _FIELDS[table]))


def _none_of(key: Key, value: str, expected: str) -> Found:
    """`value` is none of those that `expected` has in single quotes."""
    path = ".".join(map(str, key))
    if re.fullmatch(_NOT_YET_VALUES.get(path, ""), value, re.DOTALL):
        return Found(key, f"{quoted(value)} is not supported yet")
    return Found(key, f"expected {expected}, not {quoted(value)}", near(value, re.findall(r"'([^']*)'", expected)))


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
