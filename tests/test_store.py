"""The store: what it promises about records, the journal, the lock and the file, with real sqlite and processes."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sessionctl.errors import LockedError, StoreError, UsageError
from sessionctl.model import Declaration, FileSpec, GitState, Record, SessionSpec, WorkspaceSpec, is_id
from sessionctl.store import Store, journal, schema

ROOT = os.geteuid() == 0
SCHEMA_1 = Path(__file__).parent / "fixtures" / "schema-1.sql"

SPEC = SessionSpec(
    name="api",
    agent="claude",
    title="API rewrite",
    tags=("backend",),
    metadata={"ticket": "ABC-1"},
    setup=("make deps",),
    protect=True,
    env={"B": "é", "A": "1"},
    files=(FileSpec("~/.config/x", "ab" * 32),),
    workspace=WorkspaceSpec(branch="agents/api", include=(".env",)),
)
GIT = GitState("agents/api", "d" * 40, True, 1, 0, 2, "", 12.5, "seen", "against", ("a file", "b"))
RECORD = Record(
    session="api",
    sandbox="20250102T030405-0a1b2c3d",
    backend="bubblewrap",
    last=Declaration.of(SPEC),
    base="c" * 40,
    setup="20250102T030405-0a1b2c3d",
    git=GIT,
    created_at=1.25,
    last_active=2.5,
    stopped_at=3.0,
)
BAD_NAMES = ["../x", "/x", "", "x" * 300, "a\0b", "\u0430pi", "-x", "API", "a b", "a\n"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "project"


@pytest.fixture
def store(directory: Path) -> Iterator[Store]:
    with closing(Store(directory)) as opened:
        yield opened


def sql(directory: Path, script: str) -> None:
    """What somebody does to the database behind sessionctl's back."""
    with closing(sqlite3.connect(directory / "state.db")) as connection:
        connection.executescript(script)


def fingerprint(directory: Path) -> dict[str, tuple[int, ...]]:
    """All of a directory that a write would change."""
    return {
        str(path): (info.st_ino, info.st_mode, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        for path in (directory.parent, directory, *directory.rglob("*"))
        for info in [path.lstat()]
    }


def run(script: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Runs a Python script to its end in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, args)], capture_output=True, text=True, check=False
    )


@contextmanager
def running(script: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    """A Python script in a process of its own that has printed a line and now waits for its standard input to end."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


class TestNothingBeforeTheFirstWrite:
    def test_reading_finds_nothing_and_makes_nothing(self, store: Store, directory: Path) -> None:
        assert store.records() == {}
        assert store.record("api") is None
        assert list(store.journal()) == []
        assert list(store.journal("api", last=3)) == []
        store.forget("api")
        assert not directory.parent.exists()

    def test_reading_does_not_even_import_sqlite(self, directory: Path) -> None:
        ended = run(
            """
            import sys
            from pathlib import Path
            from sessionctl.store import Store
            print(Store(Path(sys.argv[1])).records(), "sqlite3" in sys.modules)
            """,
            directory,
        )
        assert ended.stdout == "{} False\n", ended.stderr

    def test_an_open_reader_finds_what_is_made_later(self, store: Store, directory: Path) -> None:
        assert store.records() == {}
        with closing(Store(directory)) as other:
            other.save(RECORD)
        assert list(store.records()) == ["api"]

    @pytest.mark.parametrize("umask", [0o000, 0o077])
    def test_what_is_made_is_private_whatever_the_umask(self, store: Store, directory: Path, umask: int) -> None:
        before = os.umask(umask)
        try:
            store.save(RECORD)
            with store.lock(0):
                pass
        finally:
            os.umask(before)
        expected = 0o711 if ROOT else 0o700
        assert stat.S_IMODE(directory.stat().st_mode) == expected
        assert stat.S_IMODE(directory.parent.stat().st_mode) == expected
        assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {
            "state.db": 0o600,
            "lock": 0o600,
        }

    def test_processes_that_make_it_at_once_end_up_with_one(self, store: Store, directory: Path) -> None:
        ended = run(
            """
            import os, sys
            from pathlib import Path
            from sessionctl.store import Store
            hold, go = os.pipe()
            children = []
            for number in range(20):
                child = os.fork()
                if not child:
                    os.close(go)
                    os.read(hold, 1)  # until the parent closes its end: all begin together
                    Store(Path(sys.argv[1])).note(f"s-{number}", "create")
                    os._exit(0)
                children.append(child)
            os.close(go)
            print([os.waitpid(child, 0)[1] for child in children].count(0))
            """,
            directory,
        )
        assert ended.stdout == "20\n", ended.stderr
        assert {entry.session for entry in store.journal()} == {f"s-{number}" for number in range(20)}
        assert [path.name for path in directory.iterdir()] == ["state.db"]


class TestRecords:
    def test_a_record_comes_back_as_it_was_saved(self, store: Store, directory: Path) -> None:
        assert store.save(RECORD)
        with closing(Store(directory)) as other:
            assert other.record("api") == RECORD
            assert other.records() == {"api": RECORD}
            record = other.record("api")
            assert record is not None
            assert record.last.spec == SPEC
            assert record.protect

    def test_what_is_not_known_comes_back_as_not_known(self, store: Store) -> None:
        empty = RECORD._replace(git=GitState(), stopped_at=None, sandbox="")
        store.save(empty)
        assert store.record("api") == empty
        clean = RECORD._replace(git=GitState(dirty=False, error="no repository"))
        assert store.save(clean)
        loaded = store.record("api")
        assert loaded is not None
        assert loaded.git.dirty is False
        assert loaded == clean

    def test_only_what_differs_is_written(self, store: Store) -> None:
        assert store.save(RECORD)
        assert not store.save(RECORD)
        loaded = store.record("api")
        assert loaded is not None
        assert not store.save(loaded)
        assert store.save(loaded._replace(git=GIT._replace(ahead=2)))
        assert store.save(RECORD._replace(last=Declaration.of(SPEC._replace(title="other"))))
        assert not store.save(RECORD._replace(last=Declaration.of(SPEC._replace(title="other"))))

    def test_forgetting_keeps_the_journal(self, store: Store) -> None:
        store.save(RECORD)
        store.note("api", "create")
        store.forget("api")
        store.forget("api")
        assert store.records() == {}
        assert [entry.event for entry in store.journal("api")] == ["create"]

    def test_events_of_the_repository_itself_are_of_no_session(self, store: Store) -> None:
        store.note(None, "commit", git=GIT)
        store.note("api", "create")
        assert [(entry.session, entry.event) for entry in store.journal()] == [("", "commit"), ("api", "create")]
        assert [entry.event for entry in store.journal("api")] == ["create"]

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_a_bad_name_is_refused_at_every_door(self, store: Store, directory: Path, name: str) -> None:
        doors: list[Callable[[], Any]] = [
            lambda: store.save(RECORD._replace(session=name)),
            lambda: store.record(name),
            lambda: store.forget(name),
            lambda: store.note(name, "create"),
            lambda: store.journal(name),
        ]
        for door in doors:
            with pytest.raises(UsageError):
                door()
        assert not directory.exists()

    def test_what_an_agent_named_in_bytes_that_are_not_text_is_spelled_out(self, store: Store) -> None:
        strange = RECORD._replace(git=GIT._replace(branch="b\udcff", error="e\udcfe", changes=("c\udcfd", "n\0l")))
        assert store.save(strange)
        loaded = store.record("api")
        assert loaded is not None
        assert (loaded.git.branch, loaded.git.error) == ("b\\udcff", "e\\udcfe")
        assert loaded.git.changes == ("c\udcfd", "n\0l")
        assert not store.save(strange)


class TestCorruptRecords:
    @pytest.mark.parametrize(
        ("damage", "why"),
        [
            ("declared = '{\"env\": '", "declared"),
            ("declared = '[]'", "declared"),
            ("shown = 'null'", "shown"),
            ("shown = ''", "shown"),
            ("changes = '{}'", "changes"),
            ("created_at = 'yesterday'", "created_at"),
            ("dirty = 'perhaps'", "dirty"),
            ("normaliser = x'00'", "normaliser"),
            ("base = x'ff'", "base"),
            ("git_error = CAST(x'ff' AS TEXT)", "git_error"),
        ],
    )
    def test_one_says_why_and_hides_neither_the_others_nor_what_can_be_read_of_it(
        self, store: Store, directory: Path, damage: str, why: str
    ) -> None:
        store.save(RECORD)
        for name in ("a", "z"):
            store.save(RECORD._replace(session=name))
        sql(directory, f"UPDATE record SET {damage} WHERE session = 'api'")
        records = store.records()
        assert records.keys() == {"a", "api", "z"}
        assert why in records["api"].corrupt
        assert records["api"].sandbox == RECORD.sandbox
        assert isinstance(dict(records["api"].last.data), dict)
        assert store.record("api") == records["api"]
        assert records["a"] == RECORD._replace(session="a")
        assert not records["z"].corrupt

    def test_one_with_a_bad_name_is_shown_as_corrupt(self, store: Store, directory: Path) -> None:
        store.save(RECORD)
        store.save(RECORD._replace(session="b"))
        store.save(RECORD._replace(session="c"))
        sql(directory, "UPDATE record SET session = '../x' WHERE session = 'b'")
        sql(directory, "UPDATE record SET session = x'ff00' WHERE session = 'c'")
        records = store.records()
        assert {name: bool(record.corrupt) for name, record in records.items()} == {
            "api": False,
            "../x": True,
            "b'\\xff\\x00'": True,
        }

    def test_what_is_left_of_one_is_not_written_over_it_but_a_new_one_is(self, store: Store, directory: Path) -> None:
        store.save(RECORD)
        sql(directory, "UPDATE record SET declared = ''")
        damaged = store.record("api")
        assert damaged is not None
        with pytest.raises(StoreError):
            store.save(damaged._replace(git=GIT))
        assert store.save(RECORD)
        assert store.record("api") == RECORD

    def test_a_corrupt_journal_entry_does_not_hide_the_others(self, store: Store, directory: Path) -> None:
        store.note("api", "create")
        values = "'20250102T030405-11111111', 1.0, 'api', 'exec', NULL, NULL, NULL, NULL, NULL"
        for data in ("'{'", "'[]'", "CAST(x'7bff' AS TEXT)"):
            sql(directory, f"INSERT INTO journal VALUES (NULL, {values}, {data})")
        store.note("api", "stop", n=1)
        assert [(entry.event, entry.data) for entry in store.journal()] == [
            ("create", {}),
            ("exec", {"corrupt": "{"}),
            ("exec", {"corrupt": "[]"}),
            ("exec", {"corrupt": "{\\xff"}),
            ("stop", {"n": 1}),
        ]


class TestJournal:
    def test_an_event_comes_back_as_it_was_noted(self, store: Store) -> None:
        store.note("api", "exec", time=1735787045.25, git=GIT, argv=["git", "x\udcff"], exit_code=0)
        [entry] = store.journal()
        assert is_id(entry.id)
        assert entry.id.startswith("20250102T030405-")
        assert entry[2:] == (
            1735787045.25,
            "api",
            "exec",
            "agents/api",
            "d" * 40,
            True,
            1,
            0,
            {"argv": ["git", "x\udcff"], "exit_code": 0},
        )

    def test_without_a_reading_of_git_nothing_is_said_of_it(self, store: Store) -> None:
        store.note("api", "start")
        [entry] = store.journal()
        assert (entry.branch, entry.commit, entry.dirty, entry.ahead, entry.behind) == (None,) * 5

    def test_can_be_had_by_session_from_a_row_on_and_the_newest_only(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(journal, "PAGE", 3)
        for number in range(10):
            store.note("a" if number % 2 else "b", "exec", number=number)

        def numbers(*args: Any, **options: Any) -> list[int]:
            return [entry.data["number"] for entry in store.journal(*args, **options)]

        assert numbers() == list(range(10))
        assert numbers("a") == [1, 3, 5, 7, 9]
        assert numbers(last=3) == [7, 8, 9]
        assert numbers("b", last=2) == [6, 8]
        assert numbers(last=100) == list(range(10))
        assert numbers(last=0) == []
        seventh = [entry.rowid for entry in store.journal()][6]
        assert numbers(after=seventh) == [7, 8, 9]
        assert numbers("a", after=seventh, last=1) == [9]

    def test_a_follower_sees_what_another_process_adds(self, store: Store, directory: Path) -> None:
        store.note("api", "create")
        [first] = store.journal()
        with closing(Store(directory)) as other:
            other.note("api", "start")
        assert [entry.event for entry in store.journal(after=first.rowid)] == ["start"]

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE journal SET event = 'nothing'",
            "DELETE FROM journal",
            "INSERT OR REPLACE INTO journal SELECT number, id, time, session, 'nothing', branch, commit_id, dirty,"
            " ahead, behind, data FROM journal",
        ],
    )
    def test_is_only_ever_added_to(self, store: Store, directory: Path, change: str) -> None:
        store.note("api", "create")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            sql(directory, change)
        assert [entry.event for entry in store.journal()] == ["create"]


class TestTransactions:
    def test_all_or_nothing(self, store: Store) -> None:
        store.save(RECORD)
        with pytest.raises(RuntimeError), store.writing():
            store.save(RECORD._replace(session="b"))
            with store.writing():
                store.note("b", "create")
            store.forget("api")
            raise RuntimeError
        assert store.records() == {"api": RECORD}
        assert list(store.journal()) == []
        with store.writing():
            store.save(RECORD._replace(session="b"))
            store.note("b", "create")
        assert store.records().keys() == {"api", "b"}

    def test_others_see_it_when_it_is_done(self, store: Store, directory: Path) -> None:
        store.save(RECORD)
        with closing(Store(directory)) as other:
            with store.writing():
                store.forget("api")
                assert other.records() == {"api": RECORD}
            assert other.records() == {}

    def test_a_killed_process_leaves_nothing_by_half(self, store: Store, directory: Path) -> None:
        store.save(RECORD)
        script = """
            import sys
            from pathlib import Path
            from sessionctl.store import Store
            store = Store(Path(sys.argv[1]))
            with store.writing():
                store.forget("api")
                for _ in range(2000):
                    store.note("api", "exec", tail="x" * 2000)  # more than sqlite keeps in memory
                print("ready", flush=True)
                sys.stdin.read()
        """
        with running(script, directory) as child:
            child.send_signal(signal.SIGKILL)
            child.wait()
        assert (directory / "state.db-journal").exists()
        assert store.records() == {"api": RECORD}
        assert list(store.journal()) == []
        assert [path.name for path in directory.iterdir()] == ["state.db"]

    def test_threads_share_a_store(self, store: Store) -> None:
        def work(number: int) -> None:
            for turn in range(10):
                with store.writing():
                    store.save(RECORD._replace(session=f"s-{number}", created_at=float(turn)))
                    store.note(f"s-{number}", "exec", turn=turn)
                assert store.records()[f"s-{number}"].created_at == turn

        failures: list[BaseException] = []

        def watched(number: int) -> None:
            try:
                work(number)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=watched, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert {name: record.created_at for name, record in store.records().items()} == {f"s-{n}": 9 for n in range(8)}
        assert len(list(store.journal())) == 80

    def test_fifty_processes_lose_nothing(self, store: Store, directory: Path) -> None:
        store.save(RECORD)
        ended = run(
            """
            import os, sys
            from pathlib import Path
            from sessionctl.store import Store
            hold, go = os.pipe()
            children = []
            for number in range(50):
                child = os.fork()
                if not child:
                    os.close(go)
                    os.read(hold, 1)  # until the parent closes its end: all begin together
                    store = Store(Path(sys.argv[1]))
                    for turn in range(4):
                        store.note("api", "exec", number=number, turn=turn)
                    os._exit(0)
                children.append(child)
            os.close(go)
            print([os.waitpid(child, 0)[1] for child in children].count(0))
            """,
            directory,
        )
        assert ended.stdout == "50\n", ended.stderr
        noted = [(entry.data["number"], entry.data["turn"]) for entry in store.journal("api")]
        assert sorted(noted) == [(number, turn) for number in range(50) for turn in range(4)]


class TestReadingWritesNothing:
    def test_not_even_an_mtime(self, directory: Path) -> None:
        with closing(Store(directory)) as store, store.lock(0):
            store.save(RECORD)
            store.note("api", "create")
        before = fingerprint(directory)
        with closing(Store(directory)) as store, store.lock(0):
            record = store.record("api")
            assert record is not None
            assert store.records() == {"api": record}
            assert len(list(store.journal("api", last=1))) == 1
            assert not store.save(record)
            assert not store.save(RECORD)
            with store.writing():
                assert not store.save(record)
            store.forget("absent")
            assert fingerprint(directory) == before
        assert fingerprint(directory) == before

    @pytest.mark.skipif(ROOT, reason="root may write read-only files")
    def test_so_a_read_only_store_can_be_read(self, store: Store, directory: Path) -> None:
        store.save(RECORD)
        store.close()
        (directory / "state.db").chmod(0o400)
        directory.chmod(0o500)
        try:
            assert store.records() == {"api": RECORD}
            with pytest.raises(StoreError, match=re.escape(str(directory / "state.db"))):
                store.note("api", "exec")
        finally:
            directory.chmod(0o700)


HOLDER = """
    import sys
    from pathlib import Path
    from sessionctl.store import Store
    with Store(Path(sys.argv[1])).lock(0):
        print("ready", flush=True)
        sys.stdin.read()
"""


class TestLock:
    def test_names_who_holds_it(self, store: Store, directory: Path) -> None:
        with running(HOLDER, directory, "an argument") as child:
            with pytest.raises(LockedError) as caught, store.lock(0):
                pytest.fail("two at once")
            assert f"pid {child.pid} " in str(caught.value)
            assert sys.executable in str(caught.value)
            assert caught.value.exit_code == 4
        assert (directory / "lock").read_bytes() == b""

    def test_waits_as_long_as_asked(self, store: Store, directory: Path) -> None:
        with running(HOLDER, directory) as child:
            with pytest.raises(LockedError), store.lock(0.1):
                pytest.fail("two at once")
            released = threading.Event()

            def release() -> None:
                assert child.stdin is not None
                released.set()
                child.stdin.close()

            timer = threading.Timer(0.1, release)
            timer.start()
            with store.lock(30):
                assert released.is_set()
            timer.join()

    def test_is_freed_by_the_kernel_when_its_holder_is_killed(self, store: Store, directory: Path) -> None:
        with running(HOLDER, directory) as child:
            child.kill()
            child.wait()
            with store.lock(0):
                assert (directory / "lock").exists()

    def test_is_not_handed_to_children(self, store: Store) -> None:
        with store.lock(0):
            child = subprocess.Popen(["sleep", "60"], close_fds=False)
        try:
            with store.lock(0):
                assert child.poll() is None
        finally:
            child.kill()
            child.wait()

    def test_does_not_hinder_records(self, store: Store, directory: Path) -> None:
        with running(HOLDER, directory):
            assert store.save(RECORD)


class TestFile:
    def test_schema_1_can_be_read_and_written(self, store: Store, directory: Path) -> None:
        directory.mkdir(parents=True, mode=0o700)
        sql(directory, SCHEMA_1.read_text())
        records = store.records()
        assert {name: record.corrupt for name, record in records.items()} == {"api": "", "docs": ""}
        api, docs = records["api"], records["docs"]
        assert api.last.spec == SessionSpec(
            name="api",
            agent="claude",
            title="API rewrite",
            tags=("backend",),
            metadata={"ticket": "ABC-1"},
            protect=True,
            setup=("uv sync",),
            workspace=WorkspaceSpec(branch="agents/api", base="main", include=(".env.local",)),
            env={"RUST_LOG": "debug"},
        )
        assert api.last.digests == ("a" * 64, "b" * 64, "c" * 64, 1)
        assert (api.sandbox, api.base, api.created_at) == ("20250102T030405-0a1b2c3d", "d" * 40, 1735787045.25)
        assert api.git == GitState(
            "agents/api", "e" * 40, True, 2, 0, 2, "", 1735790645.0, "seen", "against", ("src/a.py", "\\303\\251")
        )
        assert docs.git == GitState(error="there is no repository")
        assert docs.stopped_at == 1735787050.0
        assert [(entry.event, entry.data) for entry in store.journal("api")] == [
            ("create", {"reason": "never made"}),
            ("exec", {"argv": ["git", "status"], "exit_code": 0}),
        ]
        assert not any(store.save(record) for record in records.values())
        store.note("docs", "start")
        assert store.save(api._replace(base="f" * 40))

    def test_an_older_schema_is_migrated(self, store: Store, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store.save(RECORD)
        store.close()
        steps = (("ALTER TABLE record ADD COLUMN new TEXT", "UPDATE record SET new = 'x'"), ("CREATE TABLE other (a)",))
        monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, *steps))
        assert store.records() == {"api": RECORD}
        with closing(sqlite3.connect(directory / "state.db")) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (4,)
            assert connection.execute("SELECT new FROM record").fetchone() == ("x",)
            assert connection.execute("SELECT * FROM other").fetchone() is None
        store.close()
        before = fingerprint(directory)
        assert store.records() == {"api": RECORD}
        assert fingerprint(directory) == before

    def test_a_newer_schema_is_read_and_not_written(self, store: Store, directory: Path) -> None:
        store.save(RECORD)
        store.close()
        sql(directory, "ALTER TABLE record ADD COLUMN new TEXT; PRAGMA user_version = 7")
        before = fingerprint(directory)
        assert store.records() == {"api": RECORD}
        for write in (lambda: store.save(RECORD._replace(base="")), lambda: store.note("api", "x")):
            with pytest.raises(StoreError, match=r"newer sessionctl \(schema 7, this one knows 2\)") as caught:
                write()
            assert caught.value.hint
        assert fingerprint(directory) == before

    def test_a_newer_schema_that_is_too_different_says_so(self, store: Store, directory: Path) -> None:
        store.save(RECORD)
        store.close()
        sql(directory, "DROP TABLE record; PRAGMA user_version = 7")
        with pytest.raises(StoreError, match="made by a newer sessionctl"):
            store.records()
        assert list(store.journal()) == []

    @pytest.mark.parametrize("damage", ["empty", "text", "foreign", "truncated", "directory", "dangling", "unreadable"])
    def test_what_cannot_be_used_is_named_with_a_remedy(self, store: Store, directory: Path, damage: str) -> None:
        if damage == "unreadable" and ROOT:
            pytest.skip("root may read everything")
        for number in range(50):
            store.save(RECORD._replace(session=f"s-{number}"))
        store.close()
        path = directory / "state.db"
        if damage == "truncated":
            os.truncate(path, path.stat().st_size // 2)
        elif damage == "unreadable":
            path.chmod(0)
        else:
            path.unlink()
        if damage == "empty":
            path.touch()
        elif damage == "text":
            path.write_text("these are not the bytes you are looking for\n" * 100)
        elif damage == "foreign":
            sql(directory, "CREATE TABLE record (session)")
        elif damage == "directory":
            path.mkdir()
        elif damage == "dangling":
            path.symlink_to("nowhere")
        before = fingerprint(directory)
        for door in (store.records, lambda: store.save(RECORD), lambda: store.note("api", "x")):
            with pytest.raises(StoreError) as caught:
                door()
            assert str(path) in str(caught.value)
            assert caught.value.hint
        said = {"unreadable": "Permission denied", "directory": "Is a directory", "dangling": "No such file"}
        assert said.get(damage, "") in str(caught.value)
        assert fingerprint(directory) == before

    def test_a_full_disk_is_named_and_leaves_the_store_whole(self, store: Store, directory: Path) -> None:
        store.save(RECORD)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, ((directory / "state.db").stat().st_size, limits[1]))
        try:
            with pytest.raises(StoreError, match=re.escape(str(directory / "state.db"))) as caught, store.writing():
                store.forget("api")
                for _ in range(100):
                    store.note("api", "exec", tail="x" * 10_000)
            assert caught.value.hint
            with closing(Store(directory.with_name("other"))) as other:
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
                with pytest.raises(StoreError, match="other"):
                    other.save(RECORD)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert list(directory.with_name("other").iterdir()) == []
        assert store.records() == {"api": RECORD}
        store.note("api", "exec")
        assert [entry.data for entry in store.journal()] == [{}]


class TestDirectory:
    def doors(self, directory: Path) -> list[Callable[[], Any]]:
        def lock() -> None:
            with Store(directory).lock(0):
                pytest.fail("locked")

        return [Store(directory).records, lambda: Store(directory).save(RECORD), lock]

    @pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
    def test_one_that_others_can_write_is_refused(self, directory: Path, mode: int) -> None:
        directory.mkdir(parents=True)
        directory.chmod(mode)
        for door in self.doors(directory):
            with pytest.raises(StoreError, match="can be written by others") as caught:
                door()
            assert str(directory) in str(caught.value)
        assert list(directory.iterdir()) == []

    def test_one_of_somebody_else_is_refused(self, directory: Path) -> None:
        directory.mkdir(parents=True, mode=0o700)
        if ROOT:
            os.chown(directory, 12345, 12345)
        else:
            directory = Path("/")
        for door in self.doors(directory):
            with pytest.raises(StoreError, match="belongs to uid"):
                door()

    def test_a_file_in_its_place_is_named(self, directory: Path) -> None:
        directory.parent.mkdir(parents=True)
        directory.write_text("")
        for door in self.doors(directory):
            with pytest.raises(StoreError, match="is not a directory"):
                door()

    def test_a_place_where_none_can_be_made_is_named(self) -> None:
        directory = Path("/proc/sessionctl/project")
        with pytest.raises(StoreError, match=r"/proc/sessionctl/project cannot be made: No such file or directory"):
            Store(directory).save(RECORD)

    def test_its_name_may_hold_what_a_url_would_not(self, tmp_path: Path) -> None:
        directory = tmp_path / "a?b#c%41 é"
        with closing(Store(directory)) as store:
            store.save(RECORD)
            assert [path.name for path in directory.iterdir()] == ["state.db"]
            assert store.records() == {"api": RECORD}


def test_the_json_of_a_declaration_is_plain_json(store: Store) -> None:
    store.save(RECORD)
    record = store.record("api")
    assert record is not None
    assert json.loads(json.dumps(dict(record.last.data))) == SPEC.data()
