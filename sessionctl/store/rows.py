"""Rows of the database that are records, and records that become rows.

What is in a row may be anything: a record of which a part cannot be read says so, and hides no other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sessionctl.model import Declaration, Digests, GitState, Record, is_name

_TEXT, _REAL, _COUNT = (str,), (float,), (int,)
_TEXT_OR_NULL, _REAL_OR_NULL, _COUNT_OR_NULL = (str, type(None)), (float, type(None)), (int, type(None))

_COLUMNS: Mapping[str, tuple[type, ...]] = {
    "session": _TEXT,
    "sandbox": _TEXT,
    "backend": _TEXT,
    "digest_replace": _TEXT,
    "digest_restart": _TEXT,
    "digest_in_place": _TEXT,
    "normaliser": _COUNT,
    "shown": _TEXT,
    "declared": _TEXT,
    "base": _TEXT,
    "setup": _TEXT,
    "created_at": _REAL,
    "last_active": _REAL,
    "stopped_at": _REAL_OR_NULL,
    "branch": _TEXT_OR_NULL,
    "commit_id": _TEXT_OR_NULL,
    "dirty": _COUNT_OR_NULL,
    "ahead": _COUNT_OR_NULL,
    "behind": _COUNT_OR_NULL,
    "unpushed": _COUNT_OR_NULL,
    "git_error": _TEXT,
    "dirty_at": _REAL_OR_NULL,
    "seen": _TEXT,
    "against": _TEXT,
    "changes": _TEXT,
    "expires_at": _REAL_OR_NULL,
    "idle_set": _REAL_OR_NULL,
}
"""The columns of a record in the order they are read and written, and what may be in them."""

_JSON = {"shown": "{", "declared": "{", "changes": "["}
"""Columns of JSON, and what theirs begins with."""

_WELL_FORMED = " AND ".join(f"json_valid({name}) AND substr({name}, 1, 1) = '{first}'" for name, first in _JSON.items())
SELECT = f"SELECT {', '.join(_COLUMNS)}, {_WELL_FORMED} FROM record"
REPLACE = f"INSERT OR REPLACE INTO record ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"

_SHOWN = frozenset(
    {"name", "backend", "image", "agent", "title", "tags", "metadata", "state", "protect", "idle_stop", "workspace"}
)


class Stored(Mapping[str, Any]):
    """The JSON form of a spec, parsed when it is asked for: a list of 10,000 records parses what it shows."""

    __slots__ = ("_data", "_head", "declared", "shown")

    def __init__(self, shown: str, declared: str) -> None:
        self.shown = shown
        self.declared = declared
        self._head: dict[str, Any] | None = None
        self._data: dict[str, Any] | None = None

    def _whole(self) -> dict[str, Any]:
        if self._data is None:
            self._data = {**json.loads(self.shown), **json.loads(self.declared)}
        return self._data

    def __getitem__(self, key: str) -> Any:
        if key in _SHOWN:
            if self._head is None:
                self._head = json.loads(self.shown)
            if key in self._head:
                return self._head[key]
        return self._whole()[key]  # all of it, too, when an earlier release wrote it and showed less

    def __bool__(self) -> bool:
        return True  # a declaration is never empty, and nothing has to be parsed to know that

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole())

    def __len__(self) -> int:
        return len(self._whole())

    def __repr__(self) -> str:
        return repr(self._whole())


_sound: set[tuple[type, ...]] = set()
# The combinations of types that were found right: a list of 10,000 records has a handful.


def record_of(row: tuple[Any, ...]) -> Record:
    """The record in `row`: the columns, and whether those of JSON are that."""
    types = tuple(map(type, row))
    if types not in _sound:
        if not all(kind in allowed for kind, allowed in zip(types, _COLUMNS.values(), strict=False)):
            return _damaged(row)
        _sound.add(types)
    return _built(row) if row[-1] and is_name(row[0]) else _damaged(row)


def _built(row: tuple[Any, ...], corrupt: str = "") -> Record:
    (
        session, sandbox, backend, replace, restart, in_place, normaliser, shown, declared, base, setup,
        created_at, last_active, stopped_at,
        branch, commit, dirty, ahead, behind, unpushed, error, dirty_at, seen, against, changes,
        expires_at, idle_set, _,
    ) = row  # fmt: skip
    return Record(
        session,
        sandbox,
        backend,
        Declaration(Digests(replace, restart, in_place, normaliser), Stored(shown, declared)),
        base,
        setup,
        GitState(
            branch,
            commit,
            None if dirty is None else dirty != 0,
            ahead,
            behind,
            unpushed,
            error,
            dirty_at,
            seen,
            against,
            () if changes == "[]" else tuple(json.loads(changes)),
        ),
        created_at,
        last_active,
        stopped_at,
        expires_at,
        idle_set,
        corrupt,
    )


def _damaged(row: tuple[Any, ...]) -> Record:
    """The record of what can still be read of `row`, and why that is not all."""
    faults = {column: _fault(column, value) for column, value in zip(_COLUMNS, row, strict=False)}
    kept = [_instead(column, value) if faults[column] else value for column, value in zip(_COLUMNS, row, strict=False)]
    return _built((*kept, 0), ", ".join(filter(None, faults.values())))


def _fault(column: str, value: Any) -> str:
    """What is wrong with `value` in `column`; empty when nothing is."""
    if type(value) not in _COLUMNS[column]:
        return f"{column} holds {type(value).__name__}"
    if column == "session" and not is_name(value):
        return "its name is not one"
    if column in _JSON:
        try:
            json.loads(value)
        except ValueError:
            return f"{column} is not JSON"
        if not value.startswith(_JSON[column]):
            return f"{column} is JSON of something else"
    return ""


def _instead(column: str, value: Any) -> Any:
    """What a record holds where `value` cannot be used. Its name stays, to be told by."""
    if column == "session":
        return value if isinstance(value, str) else ascii(value)
    if column in _JSON:
        return "[]" if _JSON[column] == "[" else "{}"
    allowed = _COLUMNS[column]
    return None if type(None) in allowed else allowed[0]()


def row_of(record: Record) -> tuple[Any, ...]:
    """The columns of `record`."""
    last, git = record.last, record.git
    shown, declared = _texts(last.data)
    return (
        record.session,
        record.sandbox,
        record.backend,
        *last.digests,
        shown,
        declared,
        record.base,
        record.setup,
        record.created_at,
        record.last_active,
        record.stopped_at,
        spelled(git.branch),
        spelled(git.commit),
        git.dirty,
        git.ahead,
        git.behind,
        git.unpushed,
        spelled(git.error),
        git.dirty_at,
        git.seen,
        git.against,
        json.dumps(git.changes),
        record.expires_at,
        record.idle_set,
    )


def _texts(data: Mapping[str, Any]) -> tuple[str, str]:
    """`data` as two JSON objects: what lists show, and the rest."""
    if isinstance(data, Stored):
        return data.shown, data.declared
    head = {key: value for key, value in data.items() if key in _SHOWN}
    rest = {key: value for key, value in data.items() if key not in _SHOWN}
    return json.dumps(head, sort_keys=True), json.dumps(rest, sort_keys=True)


def spelled(text: str | None) -> str | None:
    """`text` as the database can hold it: what an agent named in bytes that are not UTF-8 is spelled out."""
    return text if text is None else text.encode("utf-8", "backslashreplace").decode()
