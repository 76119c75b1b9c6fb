"""The services. The command line, git hooks, invoke tasks and Python programs call these and nothing else.

Nothing here prints, asks or exits: what is to be said is returned or raised. Imports that only some
services need are inside them, because a git hook pays for every import.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from sessionctl import git, mounts, plugins
from sessionctl.backends import Backend, Context, Refusal
from sessionctl.beneath import StrPath
from sessionctl.declared import Resolved, Tool, find, resolve, tool
from sessionctl.diff import Change, diff
from sessionctl.errors import BackendError, ConflictError, GitError, SessionctlError, StoreError, UsageError
from sessionctl.model import (
    HAS_BRANCH,
    WORKSPACE,
    Declaration,
    GitState,
    LimitsSpec,
    MountSpec,
    Observed,
    Record,
    SessionSpec,
    Status,
    World,
    host_path,
    require_name,
)
from sessionctl.plan import Plan, Policy
from sessionctl.plan import plan as make_plan
from sessionctl.store import Entry, Store
from sessionctl.units import parse_duration

if TYPE_CHECKING:
    import threading

    from sessionctl.executor import Outcome, Watcher
    from sessionctl.garbage import Garbage, Use
    from sessionctl.history import Depth, Reader

LOCK_WAIT = 10.0
"""Seconds to wait for another sessionctl that is changing the same project."""
TAIL = 8192
"""Bytes of each stream of an exec that its event in the journal keeps."""
CAPTURE = 1 << 20
"""Bytes of each stream that `exec` returns."""
FILE_LIMIT = 16 << 20
"""Bytes of an injected file; the manifest takes no larger ones."""
DEFAULT_BACKEND = "bubblewrap"


class Session(NamedTuple):
    """One session as it is: what `ls` and `status` show."""

    name: str
    status: Status
    declared: bool
    data: Mapping[str, Any]
    """The JSON form of its declaration: the manifest's, else the one last applied."""
    git: GitState
    observed: Observed | None = None
    record: Record | None = None
    stray: bool = False
    """Bears our mark, and neither manifest nor records know it."""


class Run(NamedTuple):
    """What became of one exec."""

    code: int
    """Exit code as a shell gives it: 128+n for signal n, 124 when time ran out."""
    duration: float
    """Seconds."""
    stdout: bytes
    """The last `CAPTURE` bytes."""
    stderr: bytes
    truncated: bool
    limit: str | None = None
    """``memory``, ``pids`` or ``wall`` when that limit of the session struck while it ran, as far as it is known."""

    @property
    def signal(self) -> int | None:
        """The signal that ended it, as far as an exit code can tell."""
        return self.code - 128 if self.code > 128 else None


class Check(NamedTuple):
    """One thing that `doctor` looked at."""

    ok: bool
    what: str
    found: str
    remedy: str


class Project:
    """The sessions of one git repository.

    `root` is a directory in it, `file` the manifest (default: the nearest ``sessions.toml``),
    `state_dir` where all state is kept, `overrides` are ``KEY=VALUE`` settings for every session.
    Nothing is read before it is needed. Errors are `SessionctlError`.
    """

    def __init__(
        self,
        root: StrPath = ".",
        *,
        file: StrPath | None = None,
        state_dir: StrPath | None = None,
        jobs: int | None = None,
        overrides: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.repository = git.find_repository(root)
        self._start = os.fspath(root)
        self._file = os.fspath(file) if file is not None else None
        flags = {"state_dir": str(state_dir) if state_dir is not None else None, "jobs": jobs}
        self._flags = {key: value for key, value in flags.items() if value is not None}
        self._overrides = tuple(overrides)
        self._clock = clock

    # --- where things are --------------------------------------------------------------------

    @cached_property
    def file(self) -> str:
        """The manifest. `UsageError` when there is none."""
        return self._file if self._file is not None else find(self._start, self.repository.root)

    @cached_property
    def _resolved(self) -> Resolved:
        return resolve(self.file, self.repository.root, flags=self._flags, overrides=self._overrides)

    @property
    def declared(self) -> Mapping[str, Declaration]:
        """What the manifest declares, by name."""
        return self._resolved.declared

    @cached_property
    def settings(self) -> Tool:
        """How the tool itself works. Needs no manifest."""
        return tool(self._flags, self.repository.root)

    @cached_property
    def directory(self) -> str:
        """All state of this project. May not exist yet."""
        return os.path.join(self.settings.state_dir, f"{self.repository.name}-{self.repository.project[:12]}")

    @cached_property
    def store(self) -> Store:
        return Store(self.directory)

    def backend(self, name: str) -> Backend:
        """The backend of that name, for this project."""
        if name not in self._backends:
            self._backends[name] = plugins.load("backends", name)(Context(self.repository.project, self.directory))
        return self._backends[name]

    @cached_property
    def _backends(self) -> dict[str, Backend]:
        return {}

    @cached_property
    def reader(self) -> Reader:
        from sessionctl.history import Reader

        return Reader(self.repository, self.backend, self._clock)

    # --- looking -----------------------------------------------------------------------------

    def world(self, *, deep: bool = False) -> World:
        """Backends and store, each read once. With `deep`, whether processes run in the sandboxes too."""
        records = self.store.records()
        names = {record.backend for record in records.values() if record.backend} | {DEFAULT_BACKEND}
        if "_resolved" in self.__dict__:
            names |= {declaration.data["backend"] for declaration in self.declared.values()}
        observed: list[Observed] = []
        unreachable: dict[str, str] = {}
        for name in sorted(names):
            try:
                observed += self.backend(name).observe(deep=deep)
            except (BackendError, UsageError) as error:
                unreachable[name] = str(error)
        return World(tuple(observed), records, unreachable=unreachable, now=self._clock())

    def sessions(self, *, strays: bool = False) -> list[Session]:
        """All declared and retained sessions in order of their names; with `strays`, unknown sandboxes too.

        What git says is read again where it moved, and remembered.
        """
        manifest = self.declared
        world = self.world()
        seen = _by_session(world)
        changes = diff(manifest, world)
        rows = [_session(change, seen) for change in changes if strays or change.kind != "stray"]
        return self._with_git(rows, "counts")

    def session(self, name: str, depth: Depth = "full") -> Session:
        """One session, declared or not, with its git state read anew."""
        require_name(name)
        manifest = self._declared_if_any()
        world = self.world()
        for change in diff(manifest, world):
            if change.session == name:
                return self._with_git([_session(change, _by_session(world))], depth)[0]
        raise _unknown(name, {*manifest, *world.records, *(o.session for o in world.observed)})

    def files(self, session: Session) -> dict[str, str]:
        """What became of each injected file of a session, by its path inside: as written, or what the agent did."""
        from hashlib import sha256

        from sessionctl import beneath

        found: dict[str, str] = {}
        made_of = session.observed.made_of if session.observed is not None else None
        for file in made_of.data["files"] if made_of is not None else ():
            home = os.path.join(self.directory, "sessions", session.name, "home")
            try:
                content = beneath.read(home, file["path"].removeprefix("~/"), FILE_LIMIT)
                same = sha256(content).hexdigest() == file["sha256"]
                found[file["path"]] = "as written" if same else "changed inside"
            except FileNotFoundError:
                found[file["path"]] = "removed inside"
            except OSError as error:
                found[file["path"]] = f"changed inside: {error.strerror or error}"
        return found

    def _declared_if_any(self) -> Mapping[str, Declaration]:
        # A session that runs can be looked at and entered whatever became of the manifest.
        try:
            return self.declared
        except SessionctlError:
            return {}

    def _with_git(self, rows: list[Session], depth: Depth) -> list[Session]:
        rows = [
            row._replace(git=self._look(row.observed, row.record, depth))
            if row.observed is not None and row.observed.workspace is not None
            else row
            for row in rows
        ]
        moved = [row for row in rows if row.record and not row.record.corrupt and row.git != row.record.git]
        if moved:
            with self.store.writing():
                for row in moved:
                    assert row.record is not None
                    self._remember(row.record, row.git)
        return rows

    def _remember(self, record: Record, state: GitState, **changes: Any) -> None:
        """Saves what was read of a session, and journals it when branch or commit moved."""
        self.store.save(record._replace(git=state, **changes))
        before = record.git
        if (before.branch, before.commit, before.error) != (state.branch, state.commit, state.error):
            self.store.note(record.session, "git", git=state)

    # --- planning and applying ---------------------------------------------------------------

    def plan(self, names: Iterable[str] = (), policy: Policy = Policy()) -> Plan:  # noqa: B008  (an immutable value)
        """What would be done. Changes nothing.

        `names`: only these. `UsageError` for one that is not declared (with ``policy.prune``: not known).
        """
        policy = policy._replace(names=frozenset(map(require_name, names)) or policy.names)
        manifest = self.declared
        world = self.world(deep=policy.prune)
        changes = diff(manifest, world)
        self._require_known(policy, manifest, changes)
        chosen = [change for change in changes if not policy.names or change.session in policy.names]
        world = self._with_doubts(world, chosen) if policy.prune else self._with_refusals(world, chosen)
        return make_plan(chosen, world, policy)

    def _require_known(self, policy: Policy, manifest: Mapping[str, Declaration], changes: Sequence[Change]) -> None:
        known = {change.session for change in changes}
        for name in sorted(policy.names):
            if name not in known:
                raise _unknown(name, known)
            if not policy.prune and name not in manifest:
                raise UsageError(
                    f"{name} is not declared any more",
                    hint=f"put its block back to continue it, or `sessionctl prune {name}`",
                )

    def _with_refusals(self, world: World, changes: Sequence[Change]) -> World:
        """What the sessions that are to be made need and cannot have here, and the commits they start from."""
        refused: dict[str, tuple[str, ...]] = {}
        warned: dict[str, tuple[str, ...]] = {}
        unenforced: dict[str, tuple[str, ...]] = {}
        bases: dict[str, str] = {}
        resolved: dict[str, tuple[str, str]] = {}
        for change in changes:
            if change.declared is None or change.kind in ("keep", "record", "conflict", "stop"):
                continue
            spec = change.declared.spec
            try:
                refusals = [_said(refusal) for refusal in self._probe(spec.backend)]
                cannot = self.backend(spec.backend).probe(spec)
                lenient = spec.limits.enforce == "best-effort"
                named = [r for r in cannot if lenient and r.what.startswith("limits.")]
                if named:
                    unenforced[change.session] = tuple(f"{refusal.what}: {refusal.why}" for refusal in named)
                refusals += [_said(refusal) for refusal in cannot if refusal not in named]
                unfit = mounts.refusals(spec.mounts, self._ours)
                if spec.image.startswith("rootfs:"):
                    tree = spec.image.removeprefix("rootfs:")
                    why = mounts.unfit(tree, self._ours)
                    unfit += [f"image: {tree} {why}"] if why else []
                refusals += unfit
                if not unfit:
                    warned[change.session] = tuple(mounts.warnings(spec.mounts, self.backend(spec.backend).owner))
                if change.kind in ("create", "recreate"):
                    refusals += self._refused_workspace(spec)
                    if spec.workspace.mode in HAS_BRANCH:
                        base = spec.workspace.base
                        if base not in resolved:
                            resolved[base] = git.resolve(self.repository, base)
                        # What an overlay shows belongs to the commit that is checked out.
                        goes_on = self._continued(change) if spec.workspace.mode == "clone" else ""
                        bases[change.session] = goes_on or resolved[base][0]
            except (GitError, UsageError) as error:
                refusals = [f"{error}{f' ({error.hint})' if error.hint else ''}"]
            if refusals:
                refused[change.session] = tuple(refusals)
        return world._replace(refused=refused, warned=warned, unenforced=unenforced, bases=bases)

    def _refused_workspace(self, spec: SessionSpec) -> list[str]:
        """Why the workspace of a session that is to be made cannot be had here."""
        declared, owner = spec.workspace, self.backend(spec.backend).owner
        if declared.mode in ("bind", "overlay") and self.repository.bare:
            return [f"workspace.mode: {self.repository.root} is a bare repository: it has no checkout"]
        if declared.mode == "bind":
            return mounts.warnings([MountSpec(self.repository.root, WORKSPACE, "rw")], owner)
        if not declared.session_dir:
            return []
        from sessionctl import workspace

        why = mounts.hidden(declared.session_dir, self._ours)
        why = why or workspace.unfit_session_dir(declared.session_dir, self.repository.project, spec.name)
        return [f"workspace.session_dir: {declared.session_dir} {why}"] if why else []

    @property
    def _ours(self) -> dict[str, str]:
        """What no session may have mounted."""
        return {
            os.path.realpath(self.settings.state_dir): "the state directory",
            os.path.realpath(self.repository.common_dir): "the repository's git directory",
            os.path.realpath(self.repository.git_dir): "the repository's git directory",
        }

    def _probe(self, backend: str) -> Sequence[Refusal]:
        if backend not in self._probed:
            self._probed[backend] = self.backend(backend).probe()
        return self._probed[backend]

    @cached_property
    def _probed(self) -> dict[str, Sequence[Refusal]]:
        return {}

    def _continued(self, change: Change) -> str:
        """Where a session whose files are gone goes on: at its last commit, if that came to the host, else its base."""
        record = change.record
        if record is None:
            return ""
        for commit in (record.git.commit, record.base):
            if commit and git.has_commit(self.repository, commit):
                return commit
        return ""

    def _with_doubts(self, world: World, changes: Sequence[Change]) -> World:
        """The answers that `prune` needs about each session that could go."""
        from sessionctl import workspace
        from sessionctl.history import explained, only_here

        states: dict[str, GitState] = {}
        homes: dict[str, tuple[str, ...]] = {}
        gone: set[str] = set()
        for change in changes:
            name = change.session
            if change.declared is None and not workspace.is_there(self.directory, name):
                gone.add(name)
            if change.declared is not None or change.current is None or change.current.made_of is None:
                continue
            try:
                states[name] = self.reader.look(change.current, change.record, "full")
                homes[name] = only_here(
                    os.path.join(self.directory, "sessions", name, "home"), change.current.made_of.data["files"]
                )
            except SessionctlError as error:
                states[name] = explained(error)
        return world._replace(git=states, homes=homes, gone=frozenset(gone))

    def apply(
        self,
        plan: Plan,
        *,
        on: Watcher | None = None,
        progress: Callable[[str], None] = lambda text: None,
        wait: float = LOCK_WAIT,
        interrupted: threading.Event | None = None,
    ) -> tuple[Outcome, ...]:
        """Carries out `plan`, which must still be what would be planned now; the outcomes in its order.

        `ConflictError` when the world moved since it was made, `LockedError` when another sessionctl
        holds the project for more than `wait` seconds; then nothing was done.
        """
        self._follow_heads()
        if not plan.work and not os.path.lexists(self._unfinished):
            return ()
        from sessionctl.executor import execute
        from sessionctl.steps import Site, steps

        with self.changing(wait):
            now = self.plan(policy=plan.policy)
            if now.decision != plan.decision:
                raise ConflictError(
                    "something changed since this plan was made", hint="run the command again to see the new one"
                )
            site = Site(self.repository, self.directory, self.store, self.backend, self.reader, self._clock, progress)
            self._sweep()
            outcomes = execute(now, steps(site), jobs=self.settings.jobs, on=on, interrupted=interrupted)
            if plan.policy.prune:
                self._release_bases()
            if all(outcome.result != "failed" for outcome in outcomes):
                os.unlink(self._unfinished)
        return outcomes

    @property
    def _unfinished(self) -> str:
        """A file that is there while an apply is carried out, and after one that was killed or failed."""
        return os.path.join(self.directory, "unfinished")

    def _sweep(self) -> None:
        """Takes away what an apply that did not come to its end has left half-made; begins another one."""
        from sessionctl import workspace
        from sessionctl.images import library

        try:
            if os.path.lexists(self._unfinished):
                workspace.sweep(self.directory)
                library.sweep(self.directory)
            else:
                os.close(os.open(self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreError(
                f"{error.filename or self._unfinished} cannot be changed: {error.strerror}",
                hint=f"make room and look at the disk: df {self.directory}; nothing was done",
            ) from error

    @contextmanager
    def changing(self, wait: float = LOCK_WAIT) -> Iterator[None]:
        """Holds the lock for changes to the project's set of sandboxes."""
        with self.store.lock(wait):
            self._forget_readings()
            yield

    def _forget_readings(self) -> None:
        self.__dict__.pop("reader", None)

    def _follow_heads(self) -> None:
        """Remembers branch and commit of every session where they moved; reads files only."""
        world = self.world()
        by_name = {o.session: o for o in world.observed if o.workspace is not None}
        rows = [
            Session(name, "stopped", False, {}, record.git, by_name[name], record)
            for name, record in world.records.items()
            if name in by_name
        ]
        self._with_git(rows, "head")

    def _release_bases(self) -> None:
        """Removes the prepared checkouts that no session stands on any more."""
        from sessionctl import workspace

        mounted = {path for o in self.world().observed if o.workspace for path in o.workspace.lower}
        for key in workspace.unused_bases(self.directory, mounted):
            workspace.release_base(self.directory, key)

    def resolved(self, name: str) -> dict[str, tuple[Any, str]]:
        """Every field of a declared session: its value, and where that came from."""
        from sessionctl import manifest, settings
        from sessionctl.model import flat

        root = self.repository.root
        chosen = settings.load(root, self._flags)
        found = manifest.resolve(self.file, root, settings=chosen, overrides=self._overrides)
        if require_name(name) not in found.declared:
            raise _unknown(name, found.declared)
        values = flat(found.declared[name].data)
        return {path: (value, found.origins[name].get(path, "built-in")) for path, value in sorted(values.items())}

    # --- one session -------------------------------------------------------------------------

    def _sandbox(self, name: str) -> tuple[Observed, Record | None]:
        """The ready sandbox of a session and its record; `UsageError` when there is none."""
        require_name(name)
        record = self.store.record(name)
        backend = record.backend if record is not None and record.backend else DEFAULT_BACKEND
        found = [o for o in self.backend(backend).observe(session=name) if o.status != "partial"]
        if not found:
            known = {*self.store.records(), *self._declared_if_any()}
            if name in known:
                raise UsageError(f"{name} has no sandbox", hint="run `sessionctl apply`")
            raise _unknown(name, {*known, *self.declared})  # a manifest that cannot be read is the better answer
        # What runs is the session: after a replace that failed in its setup the record still names the one before.
        best = max(found, key=lambda o: (o.status == "running", record is not None and o.id == record.sandbox, o.id))
        return best, record

    def exec(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stdin: int | None = None,
        tty: bool = False,
        show: bool = False,
        keep_output: bool = True,
    ) -> Run:
        """Runs `argv` inside session `name` and records it. `stdin` is a descriptor; None: there is no input.

        With `show`, its output is passed on as it comes. `timeout` in seconds. With `tty` it gets a
        terminal. Without `keep_output` the journal keeps that it ran, and nothing of what it wrote.
        What is kept and returned is masked for every value that the session declares as a secret.
        """
        from sessionctl import process, secret

        if not argv:
            raise UsageError("no command to run", hint=f"sessionctl exec {name} -- COMMAND ...")
        target, record = self._sandbox(name)
        if target.status != "running":
            raise UsageError(f"{name} is stopped", hint=f"run `sessionctl start {name}`")
        assert target.made_of is not None
        given = dict(env or {})
        secrets = secret.found(target.made_of.data["env"], but=given)
        backend = self.backend(target.backend)
        self._note_git(target, record, "head")
        command = backend.command(target, argv, env={**secrets, **given}, tty=tty)
        began, clock = self._clock(), time.monotonic()
        limits = LimitsSpec.of(target.made_of.data)
        wall = parse_duration(limits.wall) if limits.wall else None
        least = min((seconds for seconds in (timeout, wall) if seconds is not None), default=None)
        # One longest secret more than is wanted: what the kept part begins in the middle of can be told then.
        keep = CAPTURE + secret.longest(secrets.values())
        before = backend.strikes(target)
        ended = process.relay(command.argv, env=command.env, stdin=stdin, timeout=least, keep=keep, show=show)
        after = backend.strikes(target)
        struck = ["wall"] if ended.timed_out and least == wall else []
        struck += [limit for limit in ("memory", "pids") if after.get(limit, 0) > before.get(limit, 0)]
        streams = (ended.stdout, ended.stderr)
        out, err = (secret.masked(s, secrets.values(), skip=max(0, len(s) - CAPTURE)) for s in streams)
        run = Run(
            ended.code,
            time.monotonic() - clock,
            out,
            err,
            any(len(s) > CAPTURE for s in streams),
            next(iter(struck), None),
        )
        with self.store.writing():
            record = self.store.record(name)
            state = self._look(target, record, "changes")
            tails = {"stdout": _text(run.stdout), "stderr": _text(run.stderr)} if keep_output else {}
            self.store.note(
                name,
                "exec",
                time=began,
                git=state,
                argv=[os.fsdecode(secret.masked(os.fsencode(word), secrets.values())) for word in argv],
                exit_code=run.code,
                duration_s=round(run.duration, 3),
                timed_out=ended.timed_out,
                limit=run.limit,
                **tails,
            )
            if record is not None and not record.corrupt:
                self._remember(record, state, last_active=self._clock())
        return run

    def _look(self, target: Observed, record: Record | None, depth: Depth) -> GitState:
        from sessionctl.history import explained

        try:
            return self.reader.look(target, record, depth)
        except SessionctlError as error:
            return explained(error)

    def _note_git(self, target: Observed, record: Record | None, depth: Depth, **changes: Any) -> GitState:
        state = self._look(target, record, depth)
        if record is not None and not record.corrupt and (state != record.git or changes):
            with self.store.writing():
                self._remember(record, state, **changes)
        return state

    def start(self, name: str) -> bool:
        """Starts the processes of a session again; whether it did not run already."""
        self._sandbox(name)
        with self.changing():
            target, record = self._sandbox(name)
            if target.status == "running":
                return False
            self.backend(target.backend).start(target)
            self._note_by_hand(target, record, "start", stopped_at=None)
            return True

    def stop(self, name: str) -> bool:
        """Ends all processes of a session, keeps its files; whether it ran."""
        self._sandbox(name)
        with self.changing():
            target, record = self._sandbox(name)
            if target.status != "running":
                return False
            self.backend(target.backend).stop(target)
            self._note_by_hand(target, record, "stop", stopped_at=self._clock())
            return True

    def _note_by_hand(self, target: Observed, record: Record | None, event: str, **changes: Any) -> None:
        with self.store.writing():
            state = self._note_git(target, record, "changes", last_active=self._clock(), **changes)
            self.store.note(target.session, event, git=state)

    def fetch(self, name: str) -> git.Fetched:
        """Brings the session's commits into the host repository, and its branch along if that is a fast-forward."""
        target, record = self._sandbox(name)
        if target.workspace is None or not target.workspace.commit:
            raise UsageError(f"{name} has no git repository to fetch from")
        command = self.backend(target.backend).command(target, git.UPLOAD_PACK, inspect=True)
        assert target.made_of is not None
        head = self.reader.look(target, record, "head")
        fetched = git.fetch(
            self.repository,
            self.repository.project,
            name,
            command.argv,
            command.env,
            target.made_of.data["workspace"]["branch"],
            detached=head.branch is None and head.commit is not None,
        )
        self._forget_readings()
        with self.store.writing():
            state = self._note_git(target, record, "counts")
            # The copy of the base branch that a session begins with is not news.
            fetched = fetched._replace(moved=tuple(head for head in fetched.moved if _is_news(head, fetched, target)))
            self.store.note(name, "fetch", git=state, moved=list(fetched.moved), branch_moved=fetched.followed)
        return fetched

    def path(self, name: str) -> str:
        """The directory of the host that is the session's workspace. `UsageError` when it is layers."""
        target, _ = self._sandbox(name)
        found = host_path(target)
        if found is None:
            raise UsageError(
                f"the workspace of {name} is a layer over others, not a directory of the host",
                hint="declare a session with workspace.visible = true; or look inside: sessionctl exec",
            )
        return found

    # --- images ------------------------------------------------------------------------------

    def images(self) -> list[Use]:
        """The images that are unpacked, and the sessions that use them."""
        from sessionctl import garbage

        return garbage.uses(self)

    def garbage(self) -> Garbage:
        """The unpacked images and layers that nothing uses. Changes nothing."""
        from sessionctl import garbage

        return garbage.garbage(self)

    def collect(self, garbage: Garbage, wait: float = LOCK_WAIT) -> None:
        """Removes `garbage`, which must still be garbage: `ConflictError` when it is not, and nothing was done."""
        from sessionctl.images import library

        if not garbage.images and not garbage.layers:
            return
        with self.changing(wait):
            self.__dict__.pop("_resolved", None)  # the manifest may have changed while somebody was asked
            if self.garbage() != garbage:
                raise ConflictError(
                    "something changed since this was listed", hint="run the command again to see the new list"
                )
            library.remove(self.directory, [image.digest for image in garbage.images], garbage.layers)

    # --- history and health ------------------------------------------------------------------

    def log(self, name: str | None = None, *, after: int = 0, last: int | None = None) -> Iterator[Entry]:
        """Events of one session or of all, in order of time."""
        if name is not None:
            require_name(name)
        return self.store.journal(name, after=after, last=last)

    def doctor(self) -> list[Check]:
        """Everything this machine needs for the declared backends, looked at one by one."""
        from sessionctl.doctor import checks

        return checks(self)


def _by_session(world: World) -> dict[str, Observed]:
    """Of each session one thing that was observed, for those that have no sandbox that is whole."""
    return {observed.session: observed for observed in reversed(world.observed)}


def _session(change: Change, seen: Mapping[str, Observed]) -> Session:
    declaration = change.declared or (change.record.last if change.record else None)
    if declaration is None and change.current is not None:
        declaration = change.current.made_of
    observed = change.current or seen.get(change.session)
    if change.kind == "conflict" and observed is None:
        status: Status = "unknown"
    elif observed is None:
        status = "gone"
    else:
        status = observed.status
    return Session(
        change.session,
        status,
        change.declared is not None,
        declaration.data if declaration is not None else {},
        change.record.git if change.record else GitState(),
        observed,
        change.record,
        stray=change.kind == "stray",
    )


def _is_news(head: str, fetched: git.Fetched, target: Observed) -> bool:
    base = target.workspace.commit if target.workspace is not None else ""
    return head == fetched.branch or fetched.heads[head] != base


def _said(refusal: Refusal) -> str:
    return f"{refusal.what}: {refusal.why}{f' ({refusal.remedy})' if refusal.remedy else ''}"


def _unknown(name: str, known: Iterable[str]) -> UsageError:
    from difflib import get_close_matches

    close = get_close_matches(name, sorted(known), 1)
    return UsageError(
        f"there is no session {name}", hint=f"did you mean {close[0]}?" if close else "see `sessionctl ls`"
    )


def _text(tail: bytes) -> str:
    return tail[-TAIL:].decode("utf-8", "backslashreplace")
