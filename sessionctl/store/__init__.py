"""What sessionctl did: a record per session, and a journal that is only ever added to.

`database` opens and asks the file, whose tables are in `schema`; `rows` makes records of rows, `journal` has the
events, `directory` says where all that may be, and `locking` keeps other processes out.

This package may not decide anything, ask a backend or read git: records are history and ownership,
never status, and the journal is never read to decide. A read writes nothing, not even an mtime,
and nothing is made on disk before the first write.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from sessionctl.beneath import StrPath
from sessionctl.errors import StoreError
from sessionctl.model import GitState, Record, require_name
from sessionctl.store import journal
from sessionctl.store.database import Database
from sessionctl.store.directory import UNFINISHED
from sessionctl.store.journal import Entry
from sessionctl.store.rows import REPLACE, SELECT, record_of, row_of

__all__ = ["UNFINISHED", "Entry", "Store"]


class Store:
    """The store in `directory`. One object may be used by several threads, not across a fork.

    All methods raise `StoreError`, with the path and what to do, when the directory or the database
    cannot be used. Where there is no store, reads find nothing and make nothing.
    """

    def __init__(self, directory: StrPath) -> None:
        self._directory = os.fspath(directory)
        self._database = Database(self._directory)

    def close(self) -> None:
        """Lets go of the database. The next call opens it again."""
        self._database.close()

    # --- records -------------------------------------------------------------------------------

    def records(self) -> dict[str, Record]:
        """All records by session name.

        One that cannot be read is there too, with `Record.corrupt`: its name may be anything, and
        must not be made into a path.
        """
        return {record.session: record for record in map(record_of, self._database.rows(SELECT))}

    def record(self, name: str) -> Record | None:
        """The record of the session `name`; None when there is none."""
        rows = self._database.rows(f"{SELECT} WHERE session = ?", require_name(name))
        return record_of(rows[0]) if rows else None

    def save(self, record: Record) -> bool:
        """Stores `record` unless that is what is stored; whether anything was written."""
        name = require_name(record.session)
        if record.corrupt:
            raise StoreError(
                f"the record of {name} is corrupt ({record.corrupt}) and is not written over with what was left of it",
                hint="run: sessionctl apply, which makes it anew from the sandbox",
            )
        row = row_of(record)
        if [stored[:-1] for stored in self._database.rows(f"{SELECT} WHERE session = ?", name)] == [row]:
            return False
        with self.writing():
            self._database.rows(REPLACE, *row)
        return True

    def forget(self, name: str) -> None:
        """Deletes the record of the session `name`, if there is one. Its journal stays."""
        require_name(name)
        if self._database.rows("SELECT 1 FROM record WHERE session = ?", name):
            with self.writing():
                self._database.rows("DELETE FROM record WHERE session = ?", name)

    # --- the journal ---------------------------------------------------------------------------

    def note(
        self, session: str | None, event: str, *, time: float | None = None, git: GitState | None = None, **data: Any
    ) -> None:
        """Adds an event to the journal, as of `time` (Unix seconds, default now). `data` is what JSON can hold.

        Without a `session` it is one of the repository itself.
        """
        journal.note(self._database, session, event, time, git, data)

    def earlier(self, session: str) -> list[tuple[str, int]]:
        """What the session `session` was called before, newest first, and the rowid of the last event of each."""
        return journal.earlier(self._database, session)

    def journal(
        self,
        session: str | None = None,
        *,
        after: int = 0,
        last: int | None = None,
        earlier: Sequence[tuple[str, int]] = (),
    ) -> Iterator[Entry]:
        """The events, oldest first: of one session, with a rowid above `after`, the newest `last` of them.

        `earlier`, as the method of that name gives it: what the session did under other names is its own, too.
        """
        return journal.entries(self._database, session, after, last, earlier)

    # --- transactions --------------------------------------------------------------------------

    def writing(self) -> AbstractContextManager[None]:
        """One transaction: all that is written inside, or none of it. Other threads wait. May be nested."""
        return self._database.writing()

    def lock(self, wait: float) -> AbstractContextManager[None]:
        """Holds the lock for what changes the set of sandboxes. `LockedError` after `wait` seconds.

        The kernel frees it when the process ends, however it ends. Nothing is written into the file.
        """
        from sessionctl.store import locking

        return locking.held(self._directory, wait)
