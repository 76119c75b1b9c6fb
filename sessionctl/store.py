"""What sessionctl did: a record per session, and a journal that is only ever added to. The only importer of sqlite3.

This module may not decide anything, ask a backend or read git: records are history and ownership,
never status, and the journal is never read to decide. A read writes nothing, not even an mtime,
and nothing is made on disk before the first write.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from time import gmtime, monotonic, sleep, strftime
from time import time as now
from typing import TYPE_CHECKING, Any, NamedTuple

from sessionctl import beneath
from sessionctl.beneath import StrPath
from sessionctl.errors import LockedError, StoreError
from sessionctl.model import Declaration, Digests, GitState, Record, is_name, make_id, require_name

if TYPE_CHECKING:
    import sqlite3  # elsewhere inside functions: it costs 7 ms, and where there is no store nothing needs it

_BUSY = 10.0
"""Seconds that a read or a write waits for other processes' transactions."""
_POLL = 0.02
"""Seconds between two tries of the lock; flock itself knows no time limit."""
UNFINISHED = "unfinished"
"""Beside the store, a file that is there while anything is changed, and after that was killed or failed."""
_PAGE = 1000
"""Journal entries fetched at a time."""

_SCHEMA_1 = """
CREATE TABLE record (
    session TEXT NOT NULL PRIMARY KEY,
    sandbox TEXT NOT NULL,
    backend TEXT NOT NULL,
    digest_replace TEXT NOT NULL,
    digest_restart TEXT NOT NULL,
    digest_in_place TEXT NOT NULL,
    normaliser INTEGER NOT NULL,
    shown TEXT NOT NULL,    -- JSON object: the part of the declaration that lists show
    declared TEXT NOT NULL, -- JSON object: the rest of it
    base TEXT NOT NULL,
    setup TEXT NOT NULL,
    created_at REAL NOT NULL,
    last_active REAL NOT NULL,
    stopped_at REAL,
    branch TEXT,
    commit_id TEXT,
    dirty INTEGER,
    ahead INTEGER,
    behind INTEGER,
    unpushed INTEGER,
    git_error TEXT NOT NULL,
    dirty_at REAL,
    seen TEXT NOT NULL,
    against TEXT NOT NULL,
    changes TEXT NOT NULL   -- JSON array of strings
);
CREATE TABLE journal (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    time REAL NOT NULL,
    session TEXT NOT NULL,
    event TEXT NOT NULL,
    branch TEXT,
    commit_id TEXT,
    dirty INTEGER,
    ahead INTEGER,
    behind INTEGER,
    data TEXT NOT NULL      -- JSON object
);
CREATE INDEX journal_of_session ON journal (session, number);
CREATE TRIGGER journal_keeps BEFORE DELETE ON journal
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER journal_stays BEFORE UPDATE ON journal
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER journal_grows BEFORE INSERT ON journal WHEN NEW.number IN (SELECT number FROM journal)
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END; -- INSERT OR REPLACE fires no DELETE trigger
PRAGMA user_version = 1;
"""

_MIGRATIONS: Sequence[Sequence[str]] = (
    ("ALTER TABLE record ADD COLUMN expires_at REAL", "ALTER TABLE record ADD COLUMN idle_set REAL"),
)
"""The statements that make schema 2 of schema 1, then 3 of 2, and so on."""

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
_SELECT = f"SELECT {', '.join(_COLUMNS)}, {_WELL_FORMED} FROM record"
_REPLACE = f"INSERT OR REPLACE INTO record ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"

_SHOWN = frozenset({"name", "backend", "image", "agent", "title", "tags", "metadata", "state", "protect", "idle_stop"})


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
        if key not in _SHOWN:
            return self._whole()[key]
        if self._head is None:
            self._head = json.loads(self.shown)
        return self._head[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole())

    def __len__(self) -> int:
        return len(self._whole())

    def __repr__(self) -> str:
        return repr(self._whole())


class Store:
    """The store in `directory`. One object may be used by several threads, not across a fork.

    All methods raise `StoreError`, with the path and what to do, when the directory or the database
    cannot be used. Where there is no store, reads find nothing and make nothing.
    """

    def __init__(self, directory: StrPath) -> None:
        self._directory = os.fspath(directory)
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

    # --- records -------------------------------------------------------------------------------

    def records(self) -> dict[str, Record]:
        """All records by session name.

        One that cannot be read is there too, with `Record.corrupt`: its name may be anything, and
        must not be made into a path.
        """
        return {record.session: record for record in map(_record, self._rows(_SELECT))}

    def record(self, name: str) -> Record | None:
        """The record of the session `name`; None when there is none."""
        rows = self._rows(f"{_SELECT} WHERE session = ?", require_name(name))
        return _record(rows[0]) if rows else None

    def save(self, record: Record) -> bool:
        """Stores `record` unless that is what is stored; whether anything was written."""
        name = require_name(record.session)
        if record.corrupt:
            raise StoreError(
                f"the record of {name} is corrupt ({record.corrupt}) and is not written over with what was left of it",
                hint="run: sessionctl apply, which makes it anew from the sandbox",
            )
        row = _row(record)
        if [stored[:-1] for stored in self._rows(f"{_SELECT} WHERE session = ?", name)] == [row]:
            return False
        with self.writing():
            self._rows(_REPLACE, *row)
        return True

    def forget(self, name: str) -> None:
        """Deletes the record of the session `name`, if there is one. Its journal stays."""
        require_name(name)
        if self._rows("SELECT 1 FROM record WHERE session = ?", name):
            with self.writing():
                self._rows("DELETE FROM record WHERE session = ?", name)

    # --- the journal ---------------------------------------------------------------------------

    def note(
        self, session: str | None, event: str, *, time: float | None = None, git: GitState | None = None, **data: Any
    ) -> None:
        """Adds an event to the journal, as of `time` (Unix seconds, default now). `data` is what JSON can hold.

        Without a `session` it is one of the repository itself.
        """
        if session is not None:
            require_name(session)
        when = now() if time is None else time
        git = git or GitState()
        row = (
            make_id(strftime("%Y%m%dT%H%M%S", gmtime(when)), os.urandom(4)),
            when,
            session or "",
            event,
            _text(git.branch),
            _text(git.commit),
            git.dirty,
            git.ahead,
            git.behind,
            json.dumps(data),
        )
        with self.writing():
            self._rows(
                "INSERT INTO journal (id, time, session, event, branch, commit_id, dirty, ahead, behind, data)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *row,
            )

    def earlier(self, session: str) -> list[tuple[str, int]]:
        """What the session `session` was called before, newest first, and the rowid of the last event of each."""
        found: list[tuple[str, int]] = []
        name, until = require_name(session), 1 << 62
        while True:
            rows = self._rows(
                "SELECT number, data FROM journal WHERE session = ? AND event = 'rename' AND number < ?"
                " AND json_extract(data, '$.was') IS NOT NULL ORDER BY number DESC LIMIT 1",
                *(name, until),
            )
            if not rows:
                return found
            until, name = rows[0][0], str(json.loads(rows[0][1])["was"])
            found.append((name, until))

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
        where = "number > ?"
        names: tuple[Any, ...] = ()
        if session is not None:
            where += " AND (session = ?" + " OR (session = ? AND number < ?)" * len(earlier) + ")"
            names = (require_name(session), *(value for each in earlier for value in each))
        if last is not None:
            newest = self._rows(
                f"SELECT number FROM journal WHERE {where} ORDER BY number DESC LIMIT 1 OFFSET ?", after, *names, last
            )
            after = newest[0][0] if newest else after
        return self._entries(where, after, names)

    def _entries(self, where: str, after: int, names: tuple[Any, ...]) -> Iterator[Entry]:
        select = (
            "SELECT number, id, time, session, event, branch, commit_id, dirty, ahead, behind, data"
            f" FROM journal WHERE {where} ORDER BY number LIMIT {_PAGE}"
        )
        while rows := self._rows(select, after, *names):
            yield from map(_entry, rows)
            after = rows[-1][0]

    # --- transactions --------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction: all that is written inside, or none of it. Other threads wait. May be nested."""
        with self._guard:
            if self._writing:
                yield
                return
            connection = self._opened() or self._created()
            if self._schema > _newest():
                raise self._too_new()
            self._writing = True
            try:
                self._rows("BEGIN IMMEDIATE")
                yield
                self._rows("COMMIT")
            finally:
                self._writing = False
                if connection.in_transaction:
                    connection.rollback()

    @contextmanager
    def lock(self, wait: float) -> Iterator[None]:
        """Holds the lock for what changes the set of sandboxes. `LockedError` after `wait` seconds.

        The kernel frees it when the process ends, however it ends. Nothing is written into the file.
        """
        self._require_directory()
        path = os.path.join(self._directory, "lock")
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{path} cannot be opened: {error.strerror}", hint=_REMEDY) from error
        try:
            deadline = monotonic() + wait
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if monotonic() >= deadline:
                        raise LockedError(
                            f"another sessionctl is changing this project's sandboxes: {_holder(fd)}",
                            hint="try again when it has ended",
                        ) from None
                    sleep(_POLL)
                except OSError as error:
                    raise StoreError(f"{path} cannot be locked: {error.strerror}", hint=_REMEDY) from error
            yield
        finally:
            os.close(fd)

    # --- the file ------------------------------------------------------------------------------

    def _opened(self) -> sqlite3.Connection | None:
        """The connection; None where there is no store."""
        if self._connection is not None:
            return self._connection
        if not self._has_directory() or not os.path.lexists(self._path):
            return None
        import sqlite3

        try:
            connection = _connect(self._path)
            try:
                schema = int(connection.execute("PRAGMA user_version").fetchone()[0])
                if 0 < schema < _newest():
                    schema = _migrate(connection)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise self._failed(error) from error
        if schema < 1:
            connection.close()
            raise StoreError(f"{self._path} is empty, or was not made by sessionctl", hint=self._aside())
        self._connection, self._schema = connection, schema
        return connection

    def _created(self) -> sqlite3.Connection:
        """The connection to a store that was not there before, or that another process made meanwhile."""
        import sqlite3

        self._require_directory()
        temporary = os.path.join(self._directory, beneath.temporary())
        try:
            try:
                os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                connection = _connect(temporary)
                try:
                    later = "".join(f"{statement};" for statements in _MIGRATIONS for statement in statements)
                    version = f"PRAGMA user_version = {_newest()};"
                    connection.executescript(f"PRAGMA journal_mode = OFF; BEGIN; {_SCHEMA_1} {later} {version} COMMIT;")
                finally:
                    connection.close()
                with suppress(FileExistsError, FileNotFoundError):  # made, or swept away, by another process
                    os.link(temporary, self._path)  # unlike a rename, this never replaces another one's
                _sync(self._directory)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
        except sqlite3.Error as error:
            raise self._failed(error) from error
        except OSError as error:
            raise StoreError(f"{self._path} cannot be made: {error.strerror}", hint=_REMEDY) from error
        opened = self._opened()
        if opened is None:
            raise StoreError(f"{self._path} was removed while it was made", hint="try again")
        return opened

    def _has_directory(self) -> bool:
        """Whether the directory is there; `StoreError` when it is not ours alone to write."""
        try:
            info = os.stat(self._directory)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"{self._directory} cannot be used: {error.strerror}", hint=_REMEDY) from error
        if not stat.S_ISDIR(info.st_mode):
            raise StoreError(f"{self._directory} is not a directory", hint=_REMEDY)
        if info.st_uid != os.geteuid():
            raise StoreError(f"{self._directory} belongs to uid {info.st_uid}, not to {os.geteuid()}", hint=_REMEDY)
        if info.st_mode & 0o022:
            raise StoreError(
                f"{self._directory} can be written by others (mode {stat.S_IMODE(info.st_mode):04o})",
                hint=f"when nobody has: chmod go-w {self._directory}",
            )
        return True

    def _require_directory(self) -> None:
        """The directory, made where it is missing, with its parents: 0700, and as root traversable,
        because sandboxes that run as another user lie below it."""
        if self._has_directory():
            return
        mode = 0o711 if os.geteuid() == 0 else 0o700
        try:
            for path in reversed(_missing(self._directory)):
                with suppress(FileExistsError):
                    os.mkdir(path, mode)
                    os.chmod(path, mode)  # whatever the umask
        except OSError as error:
            raise StoreError(f"{self._directory} cannot be made: {error.strerror}", hint=_REMEDY) from error
        self._has_directory()

    # --- queries -------------------------------------------------------------------------------

    def _rows(self, sql: str, *values: Any) -> list[Any]:
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

    # --- errors --------------------------------------------------------------------------------

    def _failed(self, error: sqlite3.Error) -> StoreError:
        """`error` with the path, the system's words, and a remedy."""
        code = getattr(error, "sqlite_errorname", "")
        if self._schema > _newest() and code == "SQLITE_ERROR":
            return self._too_new()
        if code.startswith("SQLITE_BUSY"):
            return StoreError(
                f"{self._path} was kept busy by other processes for {_BUSY:g} s",
                hint=f"try again; to see who: fuser -v {self._path}",
            )
        if code.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
            return StoreError(f"{self._path} cannot be used: {self._why(error)}", hint=_REMEDY)
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
            f"{self._path} was made by a newer sessionctl (schema {self._schema}, this one knows {_newest()}):"
            " it can be read as far as it is known, and not written",
            hint="install the newer sessionctl, or use another directory with --state-dir",
        )

    def _aside(self) -> str:
        return (
            f"move it away (mv {self._path} {self._path}.bad) and run: sessionctl apply."
            " Sandboxes bear their own marks and are found again; the history in it is lost to sessionctl"
        )


_REMEDY = "make it yours to read and write, or name another directory with --state-dir"


def _newest() -> int:
    return 1 + len(_MIGRATIONS)


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
        schema = int(connection.execute("PRAGMA user_version").fetchone()[0])
        for statements in _MIGRATIONS[schema - 1 :]:
            for statement in statements:
                connection.execute(statement)
            schema += 1
        connection.execute(f"PRAGMA user_version = {schema}")
        connection.execute("COMMIT")
        return schema
    finally:
        if connection.in_transaction:
            connection.rollback()


def _missing(path: str) -> list[str]:
    """`path` and the directories above it that are not there, lowest first."""
    missing = []
    while not os.path.exists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# --- rows and values ---------------------------------------------------------------------------

_sound: set[tuple[type, ...]] = set()
# The combinations of types that were found right: a list of 10,000 records has a handful.


def _record(row: tuple[Any, ...]) -> Record:
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


def _row(record: Record) -> tuple[Any, ...]:
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
        _text(git.branch),
        _text(git.commit),
        git.dirty,
        git.ahead,
        git.behind,
        git.unpushed,
        _text(git.error),
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


def _text(text: str | None) -> str | None:
    """`text` as the database can hold it: what an agent named in bytes that are not UTF-8 is spelled out."""
    return text if text is None else text.encode("utf-8", "backslashreplace").decode()


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


def _decoded(raw: bytes) -> str | bytes:
    """A text of the database, or its bytes when that is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


# --- who holds the lock ------------------------------------------------------------------------


def _holder(fd: int) -> str:
    """``pid 123 (command)`` of the process that holds the flock on the file of `fd`, ``?`` for what is not known.

    Only inodes are compared: on btrfs the device in /proc/locks is another one than stat gives.
    """
    inode = str(os.fstat(fd).st_ino)
    pid = "?"
    try:
        with open("/proc/locks", encoding="ascii") as locks:
            lines = locks.read().splitlines()
        for line in lines:
            # "2: FLOCK  ADVISORY  WRITE 4711 08:01:131134 0 EOF"; a waiting one has "->" after its number
            words = line.split()
            if words[1] == "FLOCK" and words[5].rpartition(":")[2] == inode:
                pid = words[4]
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read().rstrip(b"\0").replace(b"\0", b" ")
    except OSError:
        command = b""
    shown = command.decode("utf-8", "replace")[:200]
    return f"pid {pid} ({''.join(c if c.isprintable() else '?' for c in shown) or '?'})"
