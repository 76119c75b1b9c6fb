"""The journal: what happened, in order, only ever added to and never read to decide."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from time import gmtime, strftime
from time import time as now
from typing import Any, NamedTuple

from sessionctl.model import GitState, make_id, require_name
from sessionctl.store.database import Database
from sessionctl.store.rows import spelled

PAGE = 1000
"""Entries fetched at a time."""


class Entry(NamedTuple):
    """One event of the journal."""

    rowid: int
    """Grows from entry to entry; what `Store.journal` takes as `after`."""
    id: str
    time: float
    """Unix seconds."""
    session: str
    """Empty: the repository itself."""
    event: str
    branch: str | None
    commit: str | None
    dirty: bool | None
    ahead: int | None
    behind: int | None
    data: dict[str, Any]
    """What else was noted; ``{"corrupt": …}`` with the stored text when that is no JSON object."""


def note(
    database: Database,
    session: str | None,
    event: str,
    time: float | None,
    git: GitState | None,
    data: Mapping[str, Any],
) -> None:
    """Adds an event, as of `time` (Unix seconds; None: now)."""
    if session is not None:
        require_name(session)
    when = now() if time is None else time
    git = git or GitState()
    row = (
        make_id(strftime("%Y%m%dT%H%M%S", gmtime(when)), os.urandom(4)),
        when,
        session or "",
        event,
        spelled(git.branch),
        spelled(git.commit),
        git.dirty,
        git.ahead,
        git.behind,
        json.dumps(data),
    )
    with database.writing():
        database.rows(
            "INSERT INTO journal (id, time, session, event, branch, commit_id, dirty, ahead, behind, data)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *row,
        )


def earlier(database: Database, session: str) -> list[tuple[str, int]]:
    """What the session `session` was called before, newest first, and the rowid of the last event of each."""
    found: list[tuple[str, int]] = []
    name, until = require_name(session), 1 << 62
    while True:
        rows = database.rows(
            "SELECT number, data FROM journal WHERE session = ? AND event = 'rename' AND number < ?"
            " AND json_extract(data, '$.was') IS NOT NULL ORDER BY number DESC LIMIT 1",
            *(name, until),
        )
        if not rows:
            return found
        until, name = rows[0][0], str(json.loads(rows[0][1])["was"])
        found.append((name, until))


def entries(
    database: Database, session: str | None, after: int, last: int | None, earlier: Sequence[tuple[str, int]]
) -> Iterator[Entry]:
    """The events, oldest first; what `Store.journal` promises."""
    where = "number > ?"
    names: tuple[Any, ...] = ()
    if session is not None:
        where += " AND (session = ?" + " OR (session = ? AND number < ?)" * len(earlier) + ")"
        names = (require_name(session), *(value for each in earlier for value in each))
    if last is not None:
        newest = database.rows(
            f"SELECT number FROM journal WHERE {where} ORDER BY number DESC LIMIT 1 OFFSET ?", after, *names, last
        )
        after = newest[0][0] if newest else after
    return _pages(database, where, after, names)


def _pages(database: Database, where: str, after: int, names: tuple[Any, ...]) -> Iterator[Entry]:
    select = (
        "SELECT number, id, time, session, event, branch, commit_id, dirty, ahead, behind, data"
        f" FROM journal WHERE {where} ORDER BY number LIMIT {PAGE}"
    )
    while rows := database.rows(select, after, *names):
        yield from map(_entry, rows)
        after = rows[-1][0]


def _entry(row: tuple[Any, ...]) -> Entry:
    readable: list[Any] = [v.decode("utf-8", "backslashreplace") if isinstance(v, bytes) else v for v in row]
    number, id, time, session, event, branch, commit, dirty, ahead, behind, text = readable
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        data = {"corrupt": text}
    return Entry(
        number, id, time, session, event, branch, commit, None if dirty is None else dirty != 0, ahead, behind, data
    )
