"""The tables of the database, and how older ones become these. Pure."""

from __future__ import annotations

from collections.abc import Sequence

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

MIGRATIONS: Sequence[Sequence[str]] = (
    ("ALTER TABLE record ADD COLUMN expires_at REAL", "ALTER TABLE record ADD COLUMN idle_set REAL"),
)
"""The statements that make schema 2 of schema 1, then 3 of 2, and so on."""


def newest() -> int:
    """The schema that this release makes, and up to which it can write."""
    return 1 + len(MIGRATIONS)


def script() -> str:
    """SQL that makes a new database, in one transaction."""
    later = "".join(f"{statement};" for statements in MIGRATIONS for statement in statements)
    version = f"PRAGMA user_version = {newest()};"
    return f"BEGIN; {_SCHEMA_1} {later} {version} COMMIT;"
