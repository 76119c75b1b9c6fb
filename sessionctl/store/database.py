"""The database file: opened, made, migrated, asked, and its errors put in words. The only importer of sqlite3.

A read writes nothing, not even an mtime, and nothing is made on disk before the first write.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sessionctl import beneath
from sessionctl.errors import StoreError
from sessionctl.store import schema
from sessionctl.store.directory import REMEDY, has_directory, require_directory

if TYPE_CHECKING:
    import sqlite3  # elsewhere inside functions: it costs 7 ms, and where there is no store nothing needs it

_BUSY = 10.0
"""Seconds that a read or a write waits for other processes' transactions."""


class Database:
    """The database in `directory`. One object may be used by several threads, not across a fork.

    All methods raise `StoreError`, with the path and what to do.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._path = os.path.join(self._directory, "state.db")
        self._guard = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._schema = 0
        self._writing = False

    def close(self) -> None:
        """Lets go of the database. The next call opens it again."""
        with self._guard:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """What `sql` gives; nothing where there is no store."""
        with self._guard:
            connection = self._opened()
            if connection is None:
                return []
            import sqlite3

            try:
                try:
                    return connection.execute(sql, values).fetchall()
                except sqlite3.OperationalError as error:
                    if "Could not decode to UTF-8" not in str(error):
                        raise
                    # One text that is not UTF-8 must not hide the others.
                    connection.text_factory = _decoded
                    return connection.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise self._failed(error) from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction: all that is written inside, or none of it. Other threads wait. May be nested."""
        with self._guard:
            if self._writing:
                yield
                return
            connection = self._opened() or self._created()
            if self._schema > schema.newest():
                raise self._too_new()
            self._writing = True
            try:
                self.rows("BEGIN IMMEDIATE")
                yield
                self.rows("COMMIT")
            finally:
                self._writing = False
                if connection.in_transaction:
                    connection.rollback()

    # --- the file ------------------------------------------------------------------------------

    def _opened(self) -> sqlite3.Connection | None:
        """The connection; None where there is no store."""
        if self._connection is not None:
            return self._connection
        if not has_directory(self._directory) or not os.path.lexists(self._path):
            return None
        import sqlite3

        try:
            connection = _connect(self._path)
            try:
                version = int(connection.execute("PRAGMA user_version").fetchone()[0])
                if 0 < version < schema.newest():
                    version = _migrate(connection)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise self._failed(error) from error
        if version < 1:
            connection.close()
            raise StoreError(f"{self._path} is empty, or was not made by sessionctl", hint=self._aside())
        self._connection, self._schema = connection, version
        return connection

    def _created(self) -> sqlite3.Connection:
        """The connection to a store that was not there before, or that another process made meanwhile."""
        import sqlite3

        require_directory(self._directory)
        temporary = os.path.join(self._directory, beneath.temporary())
        try:
            try:
                os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                connection = _connect(temporary)
                try:
                    connection.executescript(f"PRAGMA journal_mode = OFF; {schema.script()}")
                finally:
                    connection.close()
                with suppress(FileExistsError, FileNotFoundError):  # made, or swept away, by another process
                    os.link(temporary, self._path)  # unlike a rename, this never replaces another one's
                beneath.sync_directory(self._directory)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
        except sqlite3.Error as error:
            raise self._failed(error) from error
        except OSError as error:
            raise StoreError(f"{self._path} cannot be made: {error.strerror}", hint=REMEDY) from error
        opened = self._opened()
        if opened is None:
            raise StoreError(f"{self._path} was removed while it was made", hint="try again")
        return opened

    # --- errors --------------------------------------------------------------------------------

    def _failed(self, error: sqlite3.Error) -> StoreError:
        """`error` with the path, the system's words, and a remedy."""
        code = getattr(error, "sqlite_errorname", "")
        if self._schema > schema.newest() and code == "SQLITE_ERROR":
            return self._too_new()
        if code.startswith("SQLITE_BUSY"):
            return StoreError(
                f"{self._path} was kept busy by other processes for {_BUSY:g} s",
                hint=f"try again; to see who: fuser -v {self._path}",
            )
        if code.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
            return StoreError(f"{self._path} cannot be used: {self._why(error)}", hint=REMEDY)
        if code.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            return StoreError(f"{self._path} is damaged: {error}", hint=self._aside())
        if code == "SQLITE_FULL" or code.startswith("SQLITE_IOERR"):
            return StoreError(
                f"{self._path} cannot be read or written: {error}",
                hint=f"make room and look at the disk: df {self._directory}; nothing was written by half",
            )
        return StoreError(f"{self._path}: {error}", hint=self._aside())

    def _why(self, error: sqlite3.Error) -> str:
        """The system's words for what sqlite only calls ``unable to open database file``."""
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError as reason:
            return reason.strerror or str(reason)
        if not os.access(self._directory, os.W_OK):
            return f"{self._directory} is not writable"
        return str(error)

    def _too_new(self) -> StoreError:
        return StoreError(
            f"{self._path} was made by a newer sessionctl (schema {self._schema}, this one knows {schema.newest()}):"
            " it can be read as far as it is known, and not written",
            hint="install the newer sessionctl, or use another directory with --state-dir",
        )

    def _aside(self) -> str:
        return (
            f"move it away (mv {self._path} {self._path}.bad) and run: sessionctl apply."
            " Sandboxes bear their own marks and are found again; the history in it is lost to sessionctl"
        )


def _connect(path: str) -> sqlite3.Connection:
    """A connection to the database at `path`, which must be there.

    Rollback journal (sqlite's default), not WAL: with WAL a mere reader makes files. A commit is 0.6 ms
    with DELETE, TRUNCATE or PERSIST alike, so the one that leaves nothing beside the database.
    """
    import sqlite3

    name = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return sqlite3.connect(
        f"file:{name}?mode=rw", uri=True, timeout=_BUSY, isolation_level=None, check_same_thread=False
    )


def _migrate(connection: sqlite3.Connection) -> int:
    """Brings an older schema up to the newest; the schema that is there then."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        for statements in schema.MIGRATIONS[version - 1 :]:
            for statement in statements:
                connection.execute(statement)
            version += 1
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
        return version
    finally:
        if connection.in_transaction:
            connection.rollback()


def _decoded(raw: bytes) -> str | bytes:
    """A text of the database, or its bytes when that is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
