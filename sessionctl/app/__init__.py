"""The services. The command line, git hooks, invoke tasks and Python programs call `Project` and nothing else.

A method of `Project` says what it promises; what it does is in the module of this package that is named for it.
Nothing here prints, asks or exits: what is to be said is returned or raised. Modules that only some services
need are imported inside them, because a git hook pays for every import.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sessionctl.app import looking, planning
from sessionctl.app.sources import LOCK_WAIT, Sources
from sessionctl.errors import UsageError
from sessionctl.plan import Plan, Policy

if TYPE_CHECKING:
    import threading

    from sessionctl import git, trust
    from sessionctl.adopting import Adopted
    from sessionctl.app.looking import Session
    from sessionctl.app.using import Run
    from sessionctl.backends import Backend
    from sessionctl.beneath import StrPath
    from sessionctl.comparing import Difference
    from sessionctl.copying import Copied
    from sessionctl.declared import Tool
    from sessionctl.disk import Disk
    from sessionctl.doctor import Check
    from sessionctl.executor import Outcome, Watcher
    from sessionctl.garbage import Garbage, Use
    from sessionctl.history import Depth, Reader
    from sessionctl.keeping import Undone
    from sessionctl.model import Declaration, GitState, Record, World
    from sessionctl.outputs import Output
    from sessionctl.snapshots import PART, Operation, Snapshot
    from sessionctl.store import Entry, Store


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
        flags = {"state_dir": str(state_dir) if state_dir is not None else None, "jobs": jobs}
        given = {key: value for key, value in flags.items() if value is not None}
        self._sources = Sources(root, file, given, overrides, clock)
        self.repository = self._sources.repository

    # --- where things are --------------------------------------------------------------------

    @property
    def file(self) -> str:
        """The manifest. `UsageError` when there is none."""
        return self._sources.file

    @property
    def has_manifest(self) -> bool:
        """Whether there is a file to declare anything."""
        try:
            return os.path.lexists(self.file)
        except UsageError:
            return False

    @property
    def declared(self) -> Mapping[str, Declaration]:
        """What the manifest declares, by name."""
        return self._sources.declared

    @property
    def settings(self) -> Tool:
        """How the tool itself works. Needs no manifest."""
        return self._sources.settings

    @property
    def directory(self) -> str:
        """All state of this project. May not exist yet.

        `UsageError` when it does not, and there is that of a repository which was moved here.
        """
        return self._sources.directory

    @property
    def store(self) -> Store:
        """The project's records and its journal."""
        return self._sources.store

    def backend(self, name: str) -> Backend:
        """The backend of that name, for this project."""
        return self._sources.backend(name)

    @property
    def reader(self) -> Reader:
        """What reads the git state of sessions, from outside and safely."""
        return self._sources.reader

    # --- looking -----------------------------------------------------------------------------

    def world(self, *, deep: bool = False) -> World:
        """Backends and store, each read once. With `deep`, whether processes run in the sandboxes too."""
        return looking.world(self._sources, deep=deep)

    def sessions(self, *, strays: bool = False) -> list[Session]:
        """All declared and retained sessions in order of their names; with `strays`, unknown sandboxes too.

        What git says is read again where it moved, and remembered.
        """
        return looking.sessions(self._sources, strays=strays)

    def session(self, name: str, depth: Depth = "full") -> Session:
        """One session, declared or not, with its git state read anew."""
        return looking.session(self._sources, name, depth)

    def files(self, session: Session) -> dict[str, str]:
        """What became of each injected file of a session, by its path inside: as written, or what the agent did."""
        return looking.files(self.directory, session)

    def note_git(self, event: str, **data: Any) -> GitState:
        """Adds where the repository's own checkout is to the history, as an event of no session; what was read.

        Sessions whose work is on branches of the repository itself are read anew with it.
        """

        from sessionctl.app import remembering

        return remembering.note_git(self._sources, event, **data)

    def names(self) -> list[str]:
        """All sessions that are declared or recorded, in order."""
        return looking.names(self._sources)

    # --- declaring ---------------------------------------------------------------------------

    def init(self) -> str:
        """Writes a first manifest, with one session; its path. `UsageError` when it is there, or cannot be written."""

        from sessionctl.app import declaring

        return declaring.init(self._sources)

    # --- planning and applying ---------------------------------------------------------------

    def plan(self, names: Iterable[str] = (), policy: Policy = Policy()) -> Plan:  # noqa: B008  (an immutable value)
        """What would be done. Changes nothing.

        `names`: only these. `UsageError` for one that is not declared (with ``policy.prune``: not known).
        """
        return planning.plan(self._sources, names, policy)

    def recover(self, wait: float = LOCK_WAIT) -> None:
        """Finishes what was begun and was interrupted: a plan is for a world in which nothing is half done."""

        from sessionctl.app import changing

        changing.recover(self._sources, wait)

    def rename(self, old: str, new: str) -> str:
        """Renames a session, declared or not, and its block; the manifest that was edited, or nothing.

        Its work, home, sandbox, record and history stay what they are; what runs goes on. `UsageError` when there
        is no `old`, or anything that is called `new`.
        """

        from sessionctl.app import naming

        return naming.rename(self._sources, old, new)

    def add(self, name: str, block: Mapping[str, Any]) -> tuple[str, bool]:
        """Declares session `name` in the manifest: its path, and whether the session is there already.

        What is there, and was declared once, is declared as it was, but for what `block` says. `UsageError` when the
        manifest declares `name`, or cannot be edited; `ManifestError` when it would be wrong with the block.
        """

        from sessionctl.app import declaring

        return declaring.add(self._sources, name, block)

    def adopt(self, name: str) -> Session:
        """Takes on a stray: a sandbox that bears our mark and that no record knows. It is left as it is, and recorded.

        `UsageError` when there is none, or it is known already; `ConflictError`, with a list, when it is not clear
        what would be taken on: several, half-made, or not as its backend last wrote it.
        """

        from sessionctl.app import naming

        naming.adopt(self._sources, name)
        return self.session(name, "head")

    def adopt_project(self, before: str = "") -> str:
        """Takes along the sessions that this repository had where it was before it was moved; where that was.

        `before` says so, when that cannot be told. `UsageError` when there are none; `ConflictError`, with a list,
        when it is not clear whose they are, or there are sessions here already.
        """
        from sessionctl.app import naming

        return naming.adopt_project(self._sources, before)

    def adopt_checkout(
        self, name: str, path: StrPath, *, progress: Callable[[str], None] = lambda text: None
    ) -> tuple[Session, Adopted]:
        """Makes session `name` of a worktree of the repository, or a clone of it, at `path`: a copy, stopped.

        Declared as it is in the manifest, else as a clone. `UsageError` when there is a session of that name, or no
        such checkout; `ConflictError`, with a list, when it cannot be copied as it is.
        """

        from sessionctl.app import naming

        adopted = naming.adopt_checkout(self._sources, name, path, progress)
        return self.session(name, "head"), adopted

    def takings(self, names: Iterable[str] = ()) -> tuple[trust.Taking, ...]:
        """What each session (of `names` only, if any) takes from the host, beside what was trusted last."""

        from sessionctl.app import trusting

        return trusting.takings(self._sources, names)

    def trust(self, takings: Iterable[trust.Taking]) -> None:
        """Remembers that a person who was shown `takings` wants the sessions to have just that."""

        from sessionctl.app import trusting

        trusting.trusted(self._sources, takings)

    def revoke(self, names: Iterable[str] = ()) -> tuple[str, ...]:
        """Takes back what was ever allowed to sessions (`names`, else all); those that run with some of it now."""

        from sessionctl.app import trusting

        return trusting.revoked(self._sources, names)

    def save(self, plan: Plan, path: StrPath) -> None:
        """Writes `plan` to the file at `path`, for `saved`."""

        from sessionctl import saved

        saved.save(path, plan, self.repository.project)

    def saved(self, path: StrPath, policy: Policy = Policy()) -> Plan:  # noqa: B008  (an immutable value)
        """The plan that was written to `path`, made again. Changes nothing.

        `ConflictError`, which says how, when that is another plan now; `UsageError` when `path` holds none, or
        when `policy` does not allow just what was allowed when it was made: a file allows nothing.
        """
        return planning.saved(self._sources, path, policy)

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
        holds the project for more than `wait` seconds, `UsageError` when some of it cannot be done here; then
        nothing was done. `on` is called as each action begins and ends, `progress` with what takes a while; both
        from threads. When `interrupted` is set nothing further is begun.
        """

        from sessionctl.app import applying

        return applying.apply(self._sources, plan, on=on, progress=progress, wait=wait, interrupted=interrupted)

    @contextmanager
    def changing(self, wait: float = LOCK_WAIT) -> Iterator[None]:
        """Holds the lock for changes to the project's set of sandboxes."""

        from sessionctl.app.changing import changing

        with changing(self._sources, wait):
            yield

    def unused_bases(self, without: Collection[str] = ()) -> tuple[str, ...]:
        """Keys of the base layers that no session stands on, nor any snapshot but those `without`.

        None while there is a damaged snapshot that nobody has discarded: nobody can say what it stands on.
        """

        from sessionctl.app import storing

        return storing.unused_bases(self._sources, without)

    def resolved(self, name: str) -> dict[str, tuple[Any, str]]:
        """Every field of a declared session: its value, and where that came from."""

        from sessionctl.app import declaring

        return declaring.resolved(self._sources, name)

    # --- one session -------------------------------------------------------------------------

    def exec(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        private: Collection[str] = (),
        timeout: float | None = None,
        stdin: int | None = None,
        tty: bool = False,
        show: bool = False,
        keep_output: bool = True,
    ) -> Run:
        """Runs `argv` inside session `name` and records it. `stdin` is a descriptor; None: there is no input.

        With `show`, its output is passed on as it comes. `timeout` in seconds. With `tty` it gets a
        terminal. Without `keep_output` the journal keeps that it ran, and nothing of what it wrote.
        What is kept and returned is masked for the value of every variable that the session declares
        as a secret, or that `private` names.
        """

        from sessionctl.app import using

        return using.run(
            self._sources,
            name,
            argv,
            env=dict(env or {}),
            private=private,
            timeout=timeout,
            stdin=stdin,
            tty=tty,
            show=show,
            keep_output=keep_output,
        )

    def start(self, name: str) -> bool:
        """Starts the processes of a session again; whether it did not run already.

        One whose files are there and whose sandbox is not, because something was killed, gets a new one.
        """

        from sessionctl.app import using

        return using.start(self._sources, name)

    def stop(self, name: str) -> bool:
        """Ends all processes of a session, keeps its files; whether it ran."""

        from sessionctl.app import using

        return using.stop(self._sources, name)

    # --- nothing is lost ---------------------------------------------------------------------

    def snapshots(self, name: str | None = None) -> list[Snapshot]:
        """The snapshots of a session, or of all there are or were, oldest first; discarded and damaged ones too."""

        from sessionctl.app import preserving

        return preserving.listed(self._sources, name)

    def find_snapshot(self, name: str, snapshot: str | None = None) -> Snapshot:
        """The snapshot of a session by its id, which may be cut short, else the latest a person made."""

        from sessionctl.app import preserving

        return preserving.chosen(self._sources, name, snapshot)

    def snapshot(
        self, name: str, message: str = "", *, quiesce: str = "", progress: Callable[[str], None] = lambda text: None
    ) -> Snapshot:
        """Takes a snapshot of a session, running or stopped: workspace, agent and sandbox, whole and verified."""

        from sessionctl.app import preserving

        return preserving.take(self._sources, name, message, quiesce, progress)

    def restore(
        self,
        name: str,
        snapshot: str | None = None,
        *,
        only: PART | None = None,
        progress: Callable[[str], None] = lambda text: None,
    ) -> tuple[Snapshot, Snapshot]:
        """Brings a snapshot of the session back: by its id, which may be cut short, else the latest a person made.

        That snapshot, and the one that the state before has become.
        """

        from sessionctl.app import preserving

        return preserving.restore(self._sources, name, snapshot, only, progress)

    def fork(
        self, name: str, new: str, snapshot: str | None = None, *, progress: Callable[[str], None] = lambda text: None
    ) -> Record:
        """Makes session `new`, a copy of session `name` (of a snapshot of it) on a branch of its own; its record."""

        from sessionctl.app import preserving

        return preserving.fork(self._sources, name, new, snapshot, progress)

    def discard(self, name: str, snapshot: str) -> Operation:
        """Puts a snapshot into the trash, a damaged one too. The operation, by which `undo` takes it out again."""

        from sessionctl.app import preserving

        return preserving.discard(self._sources, name, snapshot)

    def operations(self) -> list[Operation]:
        """What was done that can be undone, or was, oldest first."""

        from sessionctl import snapshots

        return snapshots.operations(self.directory)

    def undo(
        self, operation: str | None = None, *, progress: Callable[[str], None] = lambda text: None
    ) -> tuple[Operation, list[Undone]]:
        """Undoes an operation, by its id, which may be cut short; else the last that was not undone."""

        from sessionctl.app import preserving

        return preserving.undo(self._sources, operation, progress)

    # --- files and commits of sessions, here -------------------------------------------------

    def fetch(self, name: str) -> git.Fetched:
        """Brings the session's commits into the host repository, and its branch along if that is a fast-forward."""

        from sessionctl.app import using

        return using.fetch(self._sources, name)

    def copy(
        self,
        source: str,
        target: str,
        *,
        most: int | None = None,
        output: int = 1,
        on: Callable[[int, int], None] = lambda count, total: None,
    ) -> Copied:
        """Copies a file or directory out of a session or into one: one of the two is ``NAME:PATH``, the other is here.

        ``-`` is standard input, or the descriptor `output`. A session that is stopped is started to copy into it,
        and stopped again. `most` bounds its bytes (default `copying.MOST`); `on` is told how many more were copied,
        and of how many.
        """

        from sessionctl.app import reading

        return reading.copy(self._sources, source, target, most=most, output=output, on=on)

    def diff(self, name: str, snapshots: Sequence[str] = (), *, ignored: bool = False) -> Difference:
        """What became of a session's files since its base; since a snapshot; or from one snapshot to another.

        Committed, staged, changed and untracked files alike; with `ignored`, those too that git is told to ignore.
        """

        from sessionctl.app import reading

        return reading.difference(self._sources, name, snapshots, ignored=ignored)

    def path(self, name: str) -> str:
        """The directory of the host that is the session's workspace. `UsageError` when it is layers."""

        from sessionctl.app import reading

        return reading.path(self._sources, name)

    # --- the disk ----------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """What time it is (Unix time)."""
        return self._sources.clock()

    def disk(self, names: Iterable[str]) -> Disk:
        """What the sessions `names` take on the disk, with snapshots and what is in the trash of them."""

        from sessionctl.app import storing

        return storing.measured(self._sources, names)

    def kept_of(self) -> list[str]:
        """The sessions of which there are snapshots, also those that are gone, in order."""

        from sessionctl.app import storing

        return storing.kept_of(self._sources)

    def images(self) -> list[Use]:
        """The images that are unpacked, and the sessions that use them."""

        from sessionctl.app import storing

        return storing.images(self._sources)

    def garbage(self) -> Garbage:
        """What nothing uses, and snapshots that are kept no longer. Changes nothing."""

        from sessionctl.app import storing

        return storing.unused(self._sources)

    def collect(self, garbage: Garbage, wait: float = LOCK_WAIT) -> None:
        """Removes `garbage`, which must still be garbage: `ConflictError` when it is not, and nothing was done."""

        from sessionctl.app import storing

        storing.collect(self._sources, garbage, wait)

    # --- history and health ------------------------------------------------------------------

    def log(self, name: str | None = None, *, after: int = 0, last: int | None = None) -> Iterator[Entry]:
        """Events of one session or of all, in order of time."""

        from sessionctl.app import reading

        return reading.log(self._sources, name, after=after, last=last)

    def outputs(self, name: str, id: str | None = None, *, after: int = 0) -> list[Output]:
        """What is kept of the output of a session's commands, oldest first; with `id`, of that one.

        `after` is the `rowid` of the last that is known.
        """

        from sessionctl.app import reading

        return reading.outputs(self._sources, name, id, after=after)

    def doctor(self) -> list[Check]:
        """Everything this machine needs for the declared backends, looked at one by one."""

        from sessionctl.doctor import checks

        return checks(self._sources)
