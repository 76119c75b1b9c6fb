"""For who writes a backend: the suite every backend passes, and the smallest backend that does.

A backend's whole test file is a subclass::

    class TestMine(BackendContract):
        def make_backend(self, context: Context) -> Backend:
            return mine.Backend(context)

`MemoryBackend` isolates nothing: it runs commands as processes of the host, in the workspace. It is
for tests of what uses backends. No other module of sessionctl may import this one.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sessionctl import beneath, process
from sessionctl.backends import Backend, Command, Context, Finding, Progress, Refusal, silent
from sessionctl.backends.bubblewrap import injected
from sessionctl.errors import BackendError
from sessionctl.model import (
    WORKSPACE,
    Declaration,
    Digests,
    FileSpec,
    Move,
    Observed,
    SessionSpec,
    Workspace,
    is_id,
    is_name,
    make_id,
)


class MemoryBackend:
    """A backend of files and plain processes. Another instance on the same directory sees the same."""

    def __init__(self, context: Context) -> None:
        self._project = context.project
        self._sessions = Path(context.directory, "sessions")

    @property
    def owner(self) -> tuple[int, int] | None:
        return None

    def probe(self, spec: SessionSpec | None = None) -> Sequence[Refusal]:
        if spec is None:
            return ()
        plain = SessionSpec("plain")
        refusals = [
            Refusal(field, "the memory backend has nothing but the default")
            for field in ("image", "mounts", "network")
            if getattr(spec, field) != getattr(plain, field)
        ]
        declared = spec.limits._replace(wall="", enforce="")._asdict()
        return refusals + [Refusal(f"limits.{name}", "nothing is limited") for name, value in declared.items() if value]

    def strikes(self, target: Observed) -> Mapping[str, int]:
        return {}

    def examine(self) -> Sequence[Finding]:
        return ()

    def observe(self, *, session: str | None = None, deep: bool = False) -> Sequence[Observed]:
        try:
            found = (path for path in self._sessions.iterdir() if is_name(path.name) and path.is_dir())
            sessions = sorted(path for path in found if session in (None, path.name))
        except FileNotFoundError:
            return ()
        return [observed for path in sessions for observed in self._observe_session(path, deep)]

    def _observe_session(self, session: Path, deep: bool) -> list[Observed]:
        sandboxes = sorted(path for path in session.iterdir() if is_id(path.name))
        if not sandboxes and any((session / name).exists() for name in ("work", "home")):
            return [Observed(session.name, "", "memory", "partial")]
        return [self._observe(sandbox, deep) for sandbox in sandboxes]

    def _observe(self, sandbox: Path, deep: bool = False) -> Observed:
        name = sandbox.parent.name
        try:
            mark = json.loads((sandbox / "mark").read_bytes())
            made_of = Declaration(Digests(*mark["digests"]), mark["data"])
            workspace = Workspace.from_data(mark["workspace"], str(self._sessions.parent))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return Observed(name, sandbox.name, "memory", "partial")
        running = (sandbox / "running").exists()
        return Observed(
            session=name,
            id=sandbox.name,
            backend="memory",
            status="running" if running else "stopped",
            made_of=made_of,
            workspace=workspace,
            started_at=(sandbox / "running").stat().st_mtime if running else None,
            drift="" if mark["project"] == self._project else f"its mark says project {mark['project']!a}",
            busy=bool(_tagged(sandbox.name)) if deep and running else None,
            clashes=tuple(mark["clashes"]),
        )

    @contextmanager
    def paused(self, target: Observed) -> Iterator[None]:
        yield

    def recover(self) -> None:
        pass

    def freeze(self, target: Observed, place: str, *, move: bool = False) -> bool:
        return False

    def create(
        self, spec: SessionSpec, workspace: Workspace, progress: Progress = silent, *, base: str = ""
    ) -> Observed:
        declaration = Declaration.of(spec)
        session = self._sessions / spec.name
        (session / "home").mkdir(parents=True, exist_ok=True)
        last: Observed | None = None
        for observed in self._observe_session(session, deep=False):
            if observed.made_of is not None:
                if observed.made_of.digests.replace == declaration.digests.replace:
                    return observed
                last = observed
        sandbox = session / make_id(time.strftime("%Y%m%dT%H%M%S", time.gmtime()), secrets.token_bytes(4))
        before = json.loads((session / last.id / "mark").read_bytes()) if last else {}
        sandbox.mkdir()
        self._publish(sandbox, declaration, workspace, before)
        return self._observe(sandbox)

    def update(self, target: Observed, spec: SessionSpec) -> Observed:
        sandbox = self._sandbox(target)
        before = json.loads((sandbox / "mark").read_bytes())
        self._publish(
            sandbox, Declaration.of(spec), Workspace.from_data(before["workspace"], str(self._sessions.parent)), before
        )
        return self._observe(sandbox)

    def _publish(
        self, sandbox: Path, declaration: Declaration, workspace: Workspace, before: Mapping[str, Any]
    ) -> None:
        then = SessionSpec.from_data(before["data"]).files if before else ()
        home = str(sandbox.parent / "home")
        files, clashes = injected.write(home, declaration.spec.files, then, before.get("files", {}), None)
        mark = {
            "project": self._project,
            "digests": list(declaration.digests),
            "data": declaration.data,
            "workspace": workspace.data(str(self._sessions.parent)),
            "files": files,
            "clashes": clashes,
        }
        beneath.publish(str(sandbox / "mark"), json.dumps(mark).encode())

    def start(self, target: Observed) -> Observed:
        sandbox = self._sandbox(target)
        for other in sandbox.parent.glob("*/running"):
            if other.parent != sandbox:
                raise BackendError(f"the files of session {target.session} are in use by another sandbox")
        if not (sandbox / "running").exists():
            (sandbox / "running").touch()
        return self._observe(sandbox)

    def stop(self, target: Observed) -> None:
        sandbox = self._sessions / target.session / target.id
        (sandbox / "running").unlink(missing_ok=True)
        while processes := _tagged(target.id):
            for pid in processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def renamed(self, old: str, new: str) -> None:
        for path in (self._sessions / new).glob("*/mark"):
            mark = json.loads(path.read_bytes())
            root = str(self._sessions.parent)
            stack = Workspace.from_data(mark["workspace"], root).renamed(root, old, new)
            mark = {**mark, "data": {**mark["data"], "name": new}, "workspace": stack.data(root)}
            beneath.publish(str(path), json.dumps(mark).encode())

    def moved(self, move: Move) -> None:
        for path in self._sessions.glob("*/*/mark"):
            mark = json.loads(path.read_bytes())
            if mark["project"] == move.project:
                made_of = move.declaration(mark)
                beneath.publish(str(path), json.dumps({**move.data(mark), **made_of}).encode())

    def remove(self, target: Observed) -> None:
        if not target.id:
            return
        sandbox = self._sessions / target.session / target.id
        if target.status == "running":
            raise BackendError(f"sandbox {target.id} is running")
        (sandbox / "mark").unlink(missing_ok=True)
        beneath.remove_tree(str(sandbox))

    def command(
        self,
        target: Observed,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        tty: bool = False,
        inspect: bool = False,
        seen: Sequence[Workspace] = (),
    ) -> Command:
        sandbox = self._sandbox(target)
        observed = self._observe(sandbox)
        assert observed.made_of is not None
        assert observed.workspace is not None
        plain = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", _TAG: sandbox.name}
        upper = observed.workspace.upper
        if inspect:
            first = seen[0].upper if seen else upper
            return Command(("/bin/sh", "-c", _INSPECT, "sh", first, *argv), {**plain, **(env or {})})
        if observed.status != "running":
            raise BackendError(f"session {target.session} is not running")
        home = {"HOME": str(sandbox.parent / "home")}
        declared = {name: value for name, value in observed.made_of.data["env"].items() if isinstance(value, str)}
        variables = {**plain, **home, **declared, **(env or {})}
        return Command(("/bin/sh", "-c", _ENTER, "sh", str(sandbox / "running"), upper, *argv), variables)

    def _sandbox(self, target: Observed) -> Path:
        sandbox = self._sessions / target.session / target.id
        if not (is_name(target.session) and is_id(target.id) and (sandbox / "mark").exists()):
            raise BackendError(f"session {target.session} has no ready sandbox {target.id}")
        return sandbox


_TAG = "SESSIONCTL_MEMORY_SANDBOX"
_ENTER = 'test -e "$1" && cd "$2" || exit 125; shift 2; exec "$@"'
_INSPECT = 'd=$(mktemp -d) && cp -a "$1/." "$d" && cd "$d" || exit 125; shift; "$@"; c=$?; rm -rf "$d"; exit $c'


def _tagged(id: str) -> list[int]:
    """The processes that run in a sandbox of the memory backend."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"{_TAG}={id}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


# --- the contract ------------------------------------------------------------------------------


class Bench:
    """One backend under test, and short words for what tests do with it."""

    def __init__(self, backend: Backend, context: Context) -> None:
        self.backend = backend
        self.context = context
        self.directory = Path(context.directory)

    def workspace(self, name: str = "api") -> Workspace:
        """A plain directory as workspace, owned as the backend wants it, with one file in it."""
        files = self.directory / "sessions" / name / "work" / "files"
        files.mkdir(parents=True)
        (files / "file").write_text("as it was made\n")
        if self.backend.owner:
            os.chown(files, *self.backend.owner)
            os.chown(files / "file", *self.backend.owner)
        return Workspace(str(files))

    def create(self, spec: SessionSpec) -> Observed:
        return self.backend.create(spec, self.workspace(spec.name))

    def running(self, spec: SessionSpec) -> Observed:
        return self.backend.start(self.create(spec))

    def run(self, target: Observed, *argv: str, input: bytes | None = None, **options: Any) -> process.Completed:
        """`argv` in `target`, to its end, within 30 s."""
        command = self.backend.command(target, argv, **options)
        return process.run(command.argv, env=command.env, input=input, timeout=30, check=False)

    def output(self, target: Observed, script: str, **options: Any) -> str:
        """What the shell `script` printed in `target`; it must have ended well."""
        done = self.run(target, "sh", "-c", script, **options)
        assert done.code == 0, done
        return done.text()

    def home(self, name: str = "api") -> Path:
        return self.directory / "sessions" / name / "home"

    def mode(self, path: Path) -> int:
        return path.stat().st_mode & 0o7777


def spec(name: str = "api", **fields: Any) -> SessionSpec:
    """A session that any backend can make."""
    return SessionSpec(name=name, **fields)


def file_spec(content: str, path: str = "~/.tool/settings", mode: str = "0640") -> FileSpec:
    return FileSpec(path, hashlib.sha256(content.encode()).hexdigest(), mode, content=content)


class BackendContract:
    """What `sessionctl.backends.Backend` promises, one promise a test. Subclass it and make your backend."""

    inside = WORKSPACE
    """Where an inspection finds the workspace."""

    def make_backend(self, context: Context) -> Backend:
        raise NotImplementedError

    @contextmanager
    def bench(self, directory: Path) -> Iterator[Bench]:
        """A backend on an empty state directory below `directory`; nothing runs any more afterwards.

        A test is skipped, with the backend's own words, where it cannot run; with ``CI`` set it fails.
        """
        import pytest

        context = Context(project="0123456789abcdef", directory=directory / "state")
        backend = self.make_backend(context)
        if refusals := backend.probe():
            text = "; ".join(f"{refusal.what}: {refusal.why} ({refusal.remedy})" for refusal in refusals)
            if os.environ.get("CI"):
                pytest.fail(f"a backend that must run in CI does not: {text}")
            pytest.skip(text)
        bench = Bench(backend, context)
        try:
            yield bench
        finally:
            for observed in backend.observe():
                if observed.id:
                    backend.stop(observed)
            beneath.remove_tree(str(bench.directory))

    # --- probe and observe

    def test_probe_names_the_field_it_cannot_enforce(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            assert bench.backend.probe(spec()) == [] or bench.backend.probe(spec()) == ()
            refusals = bench.backend.probe(spec(image="no-such-kind:of-image"))
            assert [refusal.what for refusal in refusals] == ["image"]
            assert all(refusal.why for refusal in refusals)

    def test_probe_changes_nothing(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            bench.backend.probe()
            bench.backend.probe(spec())
            assert list(tmp_path.iterdir()) == []

    def test_nothing_was_made_yet(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            assert list(bench.backend.observe()) == []
            assert list(bench.backend.observe(deep=True)) == []

    def test_what_a_crash_left_of_a_session_is_seen_as_partial(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            bench.workspace("half")
            assert [(o.session, o.id, o.status) for o in bench.backend.observe()] == [("half", "", "partial")]

    def test_another_instance_sees_the_same(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            bench.running(spec("api"))
            bench.create(spec("web", env={"A": "1"}))
            assert self.make_backend(bench.context).observe() == bench.backend.observe()

    def test_another_projects_sandbox_is_not_taken_for_ours(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            bench.create(spec())
            stranger = self.make_backend(Context("fedcba9876543210", bench.context.directory))
            assert all(observed.drift for observed in stranger.observe())
            assert not any(observed.drift for observed in bench.backend.observe())

    def test_busy_is_whether_something_runs_beside_init(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.running(spec())
            assert [observed.busy for observed in bench.backend.observe()] == [None]
            assert [observed.busy for observed in bench.backend.observe(deep=True)] == [False]
            bench.output(target, "sleep 60 >/dev/null 2>&1 &")
            assert [observed.busy for observed in bench.backend.observe(deep=True)] == [True]

    # --- create

    def test_created_is_ready_stopped_and_says_what_it_was_made_of(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            declared = spec(env={"A": "1"}, tags=("x",))
            workspace = bench.workspace()
            made = bench.backend.create(declared, workspace)
            assert (made.session, made.status, made.drift, made.pid) == ("api", "stopped", "", None)
            assert is_id(made.id)
            assert made.made_of == Declaration.of(declared)
            assert made.workspace == workspace
            assert list(bench.backend.observe()) == [made]

    def test_create_returns_the_ready_one_of_the_same_replace_digest(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            made = bench.create(spec(title="first"))
            assert made.workspace is not None
            assert bench.backend.create(spec(title="second"), made.workspace) == made

    def test_create_makes_a_second_one_when_the_replace_digest_differs(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            made = bench.create(spec())
            assert made.workspace is not None
            other = bench.backend.create(spec(setup=("make",)), made.workspace)
            assert {o.id for o in bench.backend.observe()} == {made.id, other.id}
            assert made.id != other.id

    def test_create_keeps_the_sessions_own_files(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            made = bench.create(spec())
            assert made.workspace is not None
            (bench.home() / "notes").write_text("mine")
            bench.backend.create(spec(setup=("make",)), made.workspace)
            assert (bench.home() / "notes").read_text() == "mine"
            assert (Path(made.workspace.upper) / "file").read_text() == "as it was made\n"

    # --- start and stop

    def test_started_is_running_on_the_same_files(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            before = time.time()
            target = bench.running(spec())
            assert target.status == "running"
            assert target.started_at is not None
            assert before - 1 < target.started_at < time.time() + 1
            assert list(bench.backend.observe()) == [target]
            assert bench.output(target, "cat file") == "as it was made"

    def test_start_is_idempotent(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.running(spec())
            assert bench.backend.start(target) == target

    def test_one_sandbox_at_a_time_has_a_sessions_files(self, tmp_path: Path) -> None:
        import pytest

        with self.bench(tmp_path) as bench:
            first = bench.running(spec())
            assert first.workspace is not None
            second = bench.backend.create(spec(setup=("make",)), first.workspace)
            with pytest.raises(BackendError, match="in use"):
                bench.backend.start(second)
            bench.backend.stop(first)
            assert bench.backend.start(second).status == "running"

    def test_stop_ends_every_process_and_keeps_the_files(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.running(spec())
            assert target.workspace is not None
            bench.output(target, "echo kept > kept; while :; do date +%N > beat; done >/dev/null 2>&1 &")
            _wait_for(Path(target.workspace.upper) / "beat")
            bench.backend.stop(target)
            beat = (Path(target.workspace.upper) / "beat").stat().st_mtime_ns
            assert [observed.status for observed in bench.backend.observe()] == ["stopped"]
            again = bench.backend.start(target)
            assert bench.output(again, "cat kept") == "kept"
            assert (Path(target.workspace.upper) / "beat").stat().st_mtime_ns == beat

    def test_stop_is_idempotent(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.running(spec())
            bench.backend.stop(target)
            bench.backend.stop(target)
            assert [observed.status for observed in bench.backend.observe()] == ["stopped"]

    # --- update

    def test_update_is_in_the_mark_and_in_the_next_command(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.running(spec(env={"A": "old"}))
            changed = spec(env={"A": "new"}, title="renamed")
            updated = bench.backend.update(target, changed)
            assert updated.made_of == Declaration.of(changed)
            assert (updated.status, updated.started_at) == ("running", target.started_at)
            assert list(bench.backend.observe()) == [updated]
            assert bench.output(updated, "echo $A") == "new"

    def test_injected_files_are_there_from_the_beginning(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.running(spec(files=(file_spec("declared"),)))
            assert bench.output(target, "cat ~/.tool/settings; stat -c %a ~/.tool/settings") == "declared640"

    def test_an_injected_file_that_only_the_manifest_changed_is_written(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.create(spec(files=(file_spec("one"),)))
            updated = bench.backend.update(target, spec(files=(file_spec("two", mode="0600"),)))
            assert (bench.home() / ".tool/settings").read_text() == "two"
            assert bench.mode(bench.home() / ".tool/settings") == 0o600
            assert updated.clashes == ()

    def test_an_injected_file_that_only_the_agent_changed_is_left(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.create(spec(files=(file_spec("one"),)))
            (bench.home() / ".tool/settings").write_text("the agent's")
            updated = bench.backend.update(target, spec(files=(file_spec("one"),), title="other"))
            assert (bench.home() / ".tool/settings").read_text() == "the agent's"
            assert updated.clashes == ()

    def test_an_injected_file_that_both_changed_is_left_and_named(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.create(spec(files=(file_spec("one"),)))
            (bench.home() / ".tool/settings").write_text("the agent's")
            updated = bench.backend.update(target, spec(files=(file_spec("two"),)))
            assert (bench.home() / ".tool/settings").read_text() == "the agent's"
            assert updated.clashes == ("~/.tool/settings",)
            assert bench.backend.update(updated, spec(files=(file_spec("two"),), title="x")).clashes == updated.clashes
            (bench.home() / ".tool/settings").write_text("two")
            assert bench.backend.update(updated, spec(files=(file_spec("two"),))).clashes == ()

    def test_an_injected_file_that_the_agent_deleted_stays_deleted(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.create(spec(files=(file_spec("one"),)))
            (bench.home() / ".tool/settings").unlink()
            bench.backend.update(target, spec(files=(file_spec("one"),), title="other"))
            assert not (bench.home() / ".tool/settings").exists()

    def test_a_link_of_the_agents_is_not_followed_when_files_are_injected(self, tmp_path: Path) -> None:
        import pytest

        outside = tmp_path / "outside"
        outside.mkdir()
        with self.bench(tmp_path) as bench:
            target = bench.create(spec())
            (bench.home() / ".tool").symlink_to(outside)
            with suppress(BackendError):
                bench.backend.update(target, spec(files=(file_spec("one"),)))
            assert list(outside.iterdir()) == []
            (bench.home() / "settings").symlink_to(outside / "made")
            with pytest.raises(FileNotFoundError):
                (outside / "made").stat()
            clash = bench.backend.update(target, spec(files=(file_spec("one", path="~/settings"),)))
            assert clash.clashes == ("~/settings",)
            assert list(outside.iterdir()) == []

    def test_a_source_that_changed_since_the_plan_is_an_error(self, tmp_path: Path) -> None:
        import pytest

        source = tmp_path / "source"
        source.write_text("planned")
        declared = FileSpec("~/file", hashlib.sha256(b"planned").hexdigest(), source=str(source))
        with self.bench(tmp_path) as bench:
            target = bench.create(spec(files=(declared,)))
            assert (bench.home() / "file").read_text() == "planned"
            source.write_text("something else")
            with pytest.raises(BackendError, match="changed since the plan"):
                bench.backend.update(
                    target, spec(files=(declared, FileSpec("~/b", declared.sha256, source=str(source))))
                )
            assert not (bench.home() / "b").exists()

    # --- remove

    def test_a_renamed_session_is_the_same_and_runs_on(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.running(spec())
            bench.run(target, "sh", "-c", "echo x > kept")
            sessions = Path(bench.context.directory, "sessions")
            (sessions / "api").rename(sessions / "web")
            for _ in range(2):
                bench.backend.renamed("api", "web")
            (seen,) = bench.backend.observe()
            assert (seen.session, seen.id, seen.status, seen.drift) == ("web", target.id, "running", "")
            assert seen.made_of is not None and seen.made_of.data["name"] == "web"
            assert seen.made_of.digests == Declaration.of(spec()).digests
            assert bench.output(seen, "cat kept") == "x"
            bench.backend.stop(seen)
            assert bench.output(bench.backend.start(seen), "cat kept") == "x"

    def test_a_sandbox_of_a_repository_that_was_moved_is_the_same_and_runs_on(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.running(spec())
            bench.run(target, "sh", "-c", "echo x > kept")
            move = Move(bench.context.project, "fedcba9876543210", "/before", "/after")
            now = type(bench.backend)(bench.context._replace(project=move.to))
            assert now.observe()[0].drift
            for _ in range(2):
                now.moved(move)
            (seen,) = now.observe()
            assert (seen.session, seen.id, seen.status, seen.drift) == ("api", target.id, "running", "")
            assert seen.made_of == target.made_of and seen.workspace == target.workspace
            now.stop(seen)
            assert bench.output(now.start(seen), "cat kept") == "x"

    def test_removed_is_gone_and_the_sessions_own_files_stay(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.create(spec(files=(file_spec("kept"),)))
            assert target.workspace is not None
            bench.backend.remove(target)
            assert [(o.id, o.status) for o in bench.backend.observe()] == [("", "partial")]
            assert (bench.home() / ".tool/settings").read_text() == "kept"
            assert (Path(target.workspace.upper) / "file").exists()
            bench.backend.remove(target)
            bench.backend.remove(bench.backend.observe()[0])
            assert (Path(target.workspace.upper) / "file").exists()

    def test_a_running_one_is_not_removed(self, tmp_path: Path) -> None:
        import pytest

        with self.bench(tmp_path) as bench:
            target = bench.running(spec())
            with pytest.raises(BackendError, match="running"):
                bench.backend.remove(target)
            assert list(bench.backend.observe()) == [target]

    def test_what_lost_its_mark_is_partial_and_can_be_removed(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.create(spec())
            (bench.directory / "sessions" / "api" / target.id / "mark").write_text("{")
            partial = bench.backend.observe()[0]
            assert (partial.id, partial.status, partial.made_of) == (target.id, "partial", None)
            bench.backend.remove(partial)
            assert [observed.id for observed in bench.backend.observe()] == [""]

    # --- command

    def test_a_command_runs_only_when_it_is_run(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.running(spec())
            assert target.workspace is not None
            command = bench.backend.command(target, ["touch", "made"])
            assert not (Path(target.workspace.upper) / "made").exists()
            assert process.run(command.argv, env=command.env).code == 0
            assert (Path(target.workspace.upper) / "made").exists()

    def test_exit_codes_are_the_programs_own(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.running(spec())
            for script, code in (("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143), ("kill -KILL $$", 137)):
                assert bench.run(target, "sh", "-c", script).code == code, script
            assert bench.run(target, "no-such-program").code == 127
            assert bench.run(target, "/dev").code == 126

    def test_the_way_inside_failing_is_125(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.running(spec())
            command = bench.backend.command(target, ["true"])
            bench.backend.stop(target)
            assert process.run(command.argv, env=command.env, check=False).code == 125

    def test_streams_are_the_callers(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.running(spec())
            data = bytes(range(256)) * 1000
            done = bench.run(target, "sh", "-c", "cat; echo error >&2", input=data)
            assert (done.stdout, done.stderr) == (data, b"error\n")

    def test_arguments_arrive_as_they_are(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.running(spec())
            words = ["", " ", "a b", "'", '"', "$HOME", "*", "--", "-n", "\n", "é", "\udcff"]
            done = bench.run(target, "printf", "%s|", *words)
            assert done.stdout == "|".join([*words, ""]).encode("utf-8", "surrogateescape")

    def test_environment_is_the_sessions_and_then_the_callers(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.running(spec(env={"A": "session", "B": "session"}))
            assert bench.output(target, "echo $A $B $C", env={"B": "caller", "C": "caller"}) == "session caller caller"

    def test_the_hosts_environment_stays_outside(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.running(spec())
            os.environ["SECRET_OF_THE_HOST"] = "secret"
            try:
                assert "SECRET_OF_THE_HOST" not in bench.output(target, "env")
            finally:
                del os.environ["SECRET_OF_THE_HOST"]

    def test_background_processes_are_there_for_the_next_command(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.running(spec())
            pid = bench.output(target, "sleep 60 >/dev/null 2>&1 & echo $!")
            assert bench.run(target, "kill", "-0", pid).code == 0

    def test_no_limit_strikes_where_none_is_declared(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.running(spec())
            assert bench.run(target, "true").code == 0
            assert not any(bench.backend.strikes(target).values())

    def test_no_command_in_a_stopped_one(self, tmp_path: Path) -> None:
        import pytest

        with self.bench(tmp_path) as bench:
            target = bench.create(spec())
            with pytest.raises(BackendError, match="not running"):
                bench.backend.command(target, ["true"])

    def test_inspection_reads_the_workspace_of_a_stopped_session(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.create(spec(env={"A": "the agent's"}))
            said = bench.output(target, f"cat {self.inside}/file; echo [$A] [$B]", inspect=True, env={"B": "ours"})
            assert said == "as it was made\n[] [ours]"
            assert [observed.status for observed in bench.backend.observe()] == ["stopped"]

    def test_inspection_sees_what_a_running_session_wrote(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.running(spec())
            bench.output(target, "echo written > new")
            assert bench.output(target, f"cat {self.inside}/new", inspect=True) == "written"

    def test_inspection_changes_nothing(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.create(spec())
            assert target.workspace is not None
            bench.run(target, "sh", "-c", f"echo changed > {self.inside}/file; rm {self.inside}/file", inspect=True)
            assert (Path(target.workspace.upper) / "file").read_text() == "as it was made\n"

    def test_inspection_sees_another_workspace_instead(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.create(spec())
            other = Path(bench.directory, "other")
            other.mkdir()
            (other / "kept").write_text("of a snapshot")
            said = bench.output(target, f"cat {self.inside}/*", inspect=True, seen=(Workspace(str(other)),))
            assert said == "of a snapshot"

    def test_inspection_has_the_same_exit_codes(self, tmp_path: Path) -> None:
        with self.bench(tmp_path) as bench:
            target = bench.create(spec())
            for script, code in (("exit 0", 0), ("exit 1", 1), ("exit 3", 3), ("kill -TERM $$", 143)):
                assert bench.run(target, "sh", "-c", script, inspect=True).code == code, script
            assert bench.run(target, "no-such-program", inspect=True).code == 127
            assert bench.run(target, "/dev", inspect=True).code == 126


def _wait_for(path: Path, seconds: float = 10) -> None:
    """Returns when `path` exists."""
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear within {seconds} s"
        time.sleep(0.01)
