"""The services. The command line, git hooks, invoke tasks and Python programs call these and nothing else.

Nothing here prints, asks or exits: what is to be said is returned or raised. Imports that only some
services need are inside them, because a git hook pays for every import.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from sessionctl import git, lifetime, mounts, plugins, trust
from sessionctl.backends import Backend, Context, Refusal
from sessionctl.beneath import StrPath
from sessionctl.declared import Resolved, Tool, cache_directory, config_file, find, resolve, tool
from sessionctl.diff import Change, diff
from sessionctl.errors import BackendError, ConflictError, GitError, SessionctlError, StoreError, UsageError
from sessionctl.model import (
    HAS_BRANCH,
    WORKSPACE,
    Declaration,
    GitState,
    LimitsSpec,
    Merged,
    MountSpec,
    Move,
    Observed,
    Record,
    SessionSpec,
    Status,
    WorkspaceSpec,
    World,
    host_path,
    is_name,
    kind_of,
    require_name,
)
from sessionctl.plan import Plan, Policy, deletes, taken
from sessionctl.plan import plan as make_plan
from sessionctl.store import UNFINISHED, Entry, Store
from sessionctl.units import parse_duration

if TYPE_CHECKING:
    import threading

    from sessionctl.adopting import Adopted
    from sessionctl.comparing import Difference
    from sessionctl.copying import Copied
    from sessionctl.disk import Disk
    from sessionctl.executor import Outcome, Watcher
    from sessionctl.garbage import Garbage, Use
    from sessionctl.history import Depth, Reader
    from sessionctl.keeping import Undone
    from sessionctl.outputs import Output
    from sessionctl.site import Site
    from sessionctl.snapshots import PART, Operation, Snapshot

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
    remedy: str = ""
    """What a person can do. With `ok` it is advice: all works, and could be better."""


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
    def has_manifest(self) -> bool:
        """Whether there is a file to declare anything."""
        try:
            return os.path.lexists(self.file)
        except UsageError:
            return False

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
        """All state of this project. May not exist yet.

        `UsageError` when it does not, and there is that of a repository which was moved here.
        """
        if not os.path.isdir(self._place):
            from sessionctl import moving

            left = moving.left_behind(self._place, self.repository)
            if left:
                raise UsageError(moving.told(left), hint="take them along: sessionctl adopt --project")
        return self._place

    @property
    def _place(self) -> str:
        return os.path.join(self.settings.state_dir, f"{self.repository.name}-{self.repository.project[:12]}")

    @cached_property
    def store(self) -> Store:
        """The project's records and its journal."""
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
        """What reads the git state of sessions, from outside and safely."""
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

    def note_git(self, event: str, **data: Any) -> GitState:
        """Adds where the repository's own checkout is to the history, as an event of no session; what was read.

        Sessions whose work is on branches of the repository itself are read anew with it.
        """
        state = git.host_state(self.repository)
        sharing = [
            record for record in self.store.records().values() if not record.corrupt and _is_on_host(record.last)
        ]
        rows = [
            Session(record.session, observed.status, False, {}, record.git, observed, record)
            for record in sharing
            for observed in self.backend(record.backend).observe(session=record.session)
            if observed.workspace is not None and observed.id == record.sandbox
        ]
        with self.store.writing():
            self.store.note(None, event, git=state, **data)
            self._with_git(rows, "head")
        return state

    def names(self) -> list[str]:
        """All sessions that are declared or recorded, in order."""
        return sorted({*self._declared_if_any(), *filter(is_name, self.store.records())})

    def _remember(self, record: Record, state: GitState, **changes: Any) -> None:
        """Saves what was read of a session, and journals it when branch or commit moved."""
        self.store.save(record._replace(git=state, **changes))
        before = record.git
        if (before.branch, before.commit, before.error) != (state.branch, state.commit, state.error):
            self.store.note(record.session, "git", git=state)

    # --- declaring ---------------------------------------------------------------------------

    def init(self) -> str:
        """Writes a first manifest, with one session; its path. `UsageError` when it is there, or cannot be written."""
        from sessionctl import manifest
        from sessionctl.declared import FILE

        if self._file is None and self.repository.bare:
            raise UsageError("a bare repository has no place for a sessions.toml", hint="name one with --file")
        path = self._file or os.path.join(self.repository.root, FILE)
        branch, _ = git.host_head(self.repository, git.host_refs(self.repository).tips)
        try:
            with open(path, "x", encoding="utf-8") as opened:
                opened.write(manifest.template(branch))
        except FileExistsError:
            raise UsageError(f"{path} is there already", hint="edit it, or see `sessionctl plan`") from None
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error
        return path

    # --- planning and applying ---------------------------------------------------------------

    def plan(self, names: Iterable[str] = (), policy: Policy = Policy()) -> Plan:  # noqa: B008  (an immutable value)
        """What would be done. Changes nothing.

        `names`: only these. `UsageError` for one that is not declared (with ``policy.prune``: not known).
        """
        policy = policy._replace(names=frozenset(map(require_name, names)) or policy.names)
        manifest = self.declared
        self._require_renamed()
        if policy.idle < 0:
            raise UsageError(f"idle cannot be {policy.idle} seconds")
        world = self._foreseen(self._with_busy(self.world(deep=policy.prune)))
        changes = diff(manifest, world)
        self._require_known(policy, manifest, changes)
        chosen = [change for change in changes if not policy.names or change.session in policy.names]
        if policy.prune:
            return make_plan(chosen, self._with_doubts(world, chosen), policy)
        return make_plan(chosen, self._with_trust(self._with_refusals(world, chosen), chosen), policy)

    def _with_busy(self, world: World) -> World:
        """Whether processes run in the sandboxes that are to be stopped if none do."""

        def asked(observed: Observed) -> bool:
            name = observed.session
            declared, record = self.declared.get(name), world.records.get(name)
            data = declared.data if declared is not None else record.last.data if record is not None else {}
            idle = observed._replace(busy=False)
            return observed.busy is None and bool(lifetime.resting(data, record, idle, world.now))

        def looked(observed: Observed) -> Observed:
            again = self.backend(observed.backend).observe(session=observed.session, deep=True)
            return next((each for each in again if each.id == observed.id), observed)

        seen = (looked(o) if o.status == "running" and asked(o) else o for o in world.observed)
        return world._replace(observed=tuple(seen))

    def _foreseen(self, world: World) -> World:
        wanted = {name: each.data.get("renamed_from", "") for name, each in self.declared.items()}
        wanted = {name: old for name, old in wanted.items() if old}
        if not wanted:
            return world
        from sessionctl import identity

        return identity.foreseen(world, wanted, self.directory)

    def _require_renamed(self) -> None:
        if os.path.lexists(os.path.join(self.directory, "renames")):
            from sessionctl import identity

            for what in identity.pending(self.directory):
                raise ConflictError(
                    f"{what.old} is just being renamed to {what.new}, or that was interrupted",
                    hint=f"finish it: sessionctl rename {what.old} {what.new}",
                )

    def recover(self, wait: float = LOCK_WAIT) -> None:
        """Finishes what was begun and was interrupted: a plan is for a world in which nothing is half done."""
        renaming = os.path.lexists(os.path.join(self.directory, "renames"))
        if not renaming and not os.path.lexists(self._unfinished):
            return
        with self.changing(wait):
            if renaming:
                from sessionctl import identity

                identity.recover(self.directory, self.store, self.backend)
        self.__dict__.pop("_resolved", None)

    def rename(self, old: str, new: str) -> str:
        """Renames a session, declared or not, and its block; the manifest that was edited, or nothing.

        Its work, home, sandbox, record and history stay what they are; what runs goes on. `UsageError` when there
        is no `old`, or anything that is called `new`.
        """
        from sessionctl import identity

        if require_name(old) == require_name(new):
            raise UsageError(f"{old} is called so already")
        for what in identity.pending(self.directory):
            if (what.old, what.new) == (old, new):
                self.recover()
                return what.manifest
        self.recover()
        with self.changing():
            world = self.world()
            here = {o.session for o in world.observed} | world.records.keys() | self._declared_if_any().keys()
            if old not in here:
                raise _unknown(old, here)
            seen = [o.backend for o in world.observed if o.session == old]
            record = world.records.get(old)
            if record is None and seen and old not in self._declared_if_any():
                raise UsageError(f"{old} is a stray", hint=f"sessionctl adopt {old}")
            if record is not None and record.corrupt:
                raise UsageError(
                    f"the record of {old} is corrupt: {record.corrupt}", hint="sessionctl apply makes it anew"
                )
            taken_by = [
                *(["the manifest declares it"] if new in self._declared_if_any() else []),
                *(["there is a record of it"] if new in world.records else []),
                *(f"there is a sandbox of it, {o.id or 'half made'}" for o in world.observed if o.session == new),
            ]
            if taken_by or os.path.lexists(os.path.join(self.directory, "sessions", new)):
                raise UsageError(f"{new} is taken: {'; '.join(taken_by) or 'its directory is there'}")
            manifest = self._renamed_manifest(old, new)
            backends = sorted({*seen, *([record.backend] if record is not None and record.backend else [])})
            what = identity.Rename(old, new, tuple(backends), manifest)
            self._begun(self._site(lambda text: None), "rename", [new], old=old)
            identity.rename(self.directory, self.store, self.backend, what)
        self.__dict__.pop("_resolved", None)
        return manifest

    def add(self, name: str, block: Mapping[str, Any]) -> tuple[str, bool]:
        """Declares session `name` in the manifest: its path, and whether the session is there already.

        What is there, and was declared once, is declared as it was, but for what `block` says. `UsageError` when the
        manifest declares `name`, or cannot be edited; `ManifestError` when it would be wrong with the block.
        """
        from sessionctl import edit, identity

        if require_name(name) in self.declared:
            raise UsageError(f"{name} is declared already", hint=f"see `sessionctl show {name}`")
        record = self.store.record(name)
        known = record is not None and not record.corrupt
        before = edit.block_of(record.last.data) if record is not None and known else {}
        merged = {**before, **block}
        if "workspace" in before and "workspace" in block:
            merged["workspace"] = {**before["workspace"], **block["workspace"]}
        path = os.path.realpath(self.file)
        with self.changing():
            with open(path, encoding="utf-8", newline="") as file:
                text = edit.added(file.read(), name, merged)
            self._require_valid(text)
            identity.replace_manifest(path, text)
        self.__dict__.pop("_resolved", None)
        return path, known

    def adopt(self, name: str) -> Session:
        """Takes on a stray: a sandbox that bears our mark and that no record knows. It is left as it is, and recorded.

        `UsageError` when there is none, or it is known already; `ConflictError`, with a list, when it is not clear
        what would be taken on: several, half-made, or not as its backend last wrote it.
        """
        require_name(name)
        with self.changing():
            world = self.world()
            found = [o for o in world.observed if o.session == name]
            if name in world.records:
                raise UsageError(f"{name} is no stray: there is a record of it", hint=f"sessionctl status {name}")
            if not found:
                raise _unknown(name, {o.session for o in world.observed} - world.records.keys())
            if len(found) > 1 or found[0].made_of is None or found[0].drift:
                raise ConflictError(
                    "\n".join([f"what {name} is cannot be told:", *(_described(each) for each in found)]),
                    hint="nothing was done; what is not yours, or not whole, stays where it is",
                )
            (target,) = found
            assert target.made_of is not None
            if target.made_of.data["name"] != name:
                raise ConflictError(f"the sandbox of {name} was made for {target.made_of.data['name']}")
            state, now = self.reader.look(target, None, "full"), self._clock()
            base = target.workspace.commit if target.workspace is not None else ""
            record = Record(name, target.id, target.backend, target.made_of, base, "", state, now, now)
            record = record._replace(
                expires_at=lifetime.expires_at(target.made_of, None, now),
                idle_set=lifetime.idle_set(target.made_of, None, now),
            )
            with self.store.writing():
                self.store.save(record)
                self.store.note(name, "adopt", git=state, reason="a stray", sandbox=target.id)
        return self.session(name, "head")

    def adopt_project(self, before: str = "") -> str:
        """Takes along the sessions that this repository had where it was before it was moved; where that was.

        `before` says so, when that cannot be told. `UsageError` when there are none; `ConflictError`, with a list,
        when it is not clear whose they are, or there are sessions here already.
        """
        from sessionctl import moving, workspace

        left = moving.chosen(self._place, self.repository, before)
        kept = Store(left.directory)
        with closing(kept), kept.lock(LOCK_WAIT):
            of = sorted({record.backend for record in kept.records().values() if record.backend} | {DEFAULT_BACKEND})
            context = Context(self.repository.project, left.directory)
            backends = [plugins.load("backends", name)(context) for name in of]
            marks = [backend.moved for backend in backends]

            def directories(move: Move) -> None:
                workspace.sign_anew(left.directory, move.project, move.to)

            def records(move: Move) -> None:
                with kept.writing():
                    for record in kept.records().values():
                        if record.last is not None and not record.corrupt:
                            kept.save(record._replace(last=record.last.moved(move.path)))

            move = moving.take_along(left, self._place, self.repository, [directories, records, *marks])
        with self.store.writing():
            for name in self.store.records():
                self.store.note(name, "adopt", reason=f"the repository was in {move.before}")
        return move.before

    def adopt_checkout(
        self, name: str, path: StrPath, *, progress: Callable[[str], None] = lambda text: None
    ) -> tuple[Session, Adopted]:
        """Makes session `name` of a worktree of the repository, or a clone of it, at `path`: a copy, stopped.

        Declared as it is in the manifest, else as a clone. `UsageError` when there is a session of that name, or no
        such checkout; `ConflictError`, with a list, when it cannot be copied as it is.
        """
        from sessionctl import adopting, workspace

        with self.changing():
            here = [o.session for o in self.world().observed]
            if require_name(name) in here or self.store.record(name) or workspace.is_there(self.directory, name):
                raise UsageError(f"there is a session {name} already", hint="choose another name")
            declared = self._declared_if_any().get(name)
            spec = SessionSpec(name, workspace=WorkspaceSpec(branch=f"agents/{name}"))
            spec = declared.spec if declared is not None else spec
            kind = kind_of(spec.workspace._asdict())
            if kind != "clone":
                raise UsageError(f"{name} is declared with a workspace of another mode than clone ({kind})")
            ours = {os.path.realpath(self.settings.state_dir): "the state directory"}
            checkout = adopting.require_clear(self.repository, path, ours)
            _, adopted = adopting.adopt(self._site(progress), spec, checkout)
        return self.session(name, "head"), adopted

    def _renamed_manifest(self, old: str, new: str) -> str:
        """The real path of the manifest, when it has a block of `old` that can become `new`'s; else nothing."""
        if old not in self._declared_if_any():
            return ""
        from sessionctl import edit

        path = os.path.realpath(self.file)
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read()
        if not edit.declares(text, old):
            raise UsageError(f"{old} is one of a count", hint="rename the block that has the count, by hand")
        self._require_valid(edit.renamed(text, old, new))
        return path

    def _require_valid(self, text: str) -> None:
        """`ManifestError`, before anything is done, when the manifest would be wrong with `text` in it."""
        from sessionctl import manifest, settings

        root = self.repository.root
        chosen = settings.load(root, self._flags)
        manifest.resolve(self.file, root, settings=chosen, overrides=self._overrides, text=text.replace("\r\n", "\n"))

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
                writes = any(mount.mode == "rw" for mount in spec.mounts)
                unfit = mounts.refusals(spec.mounts, self._ours, self._read_only if writes else {})
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
                if change.kind == "create" and spec.parent:
                    refusals += self._parent_refused(spec.name, spec.parent, world)
            except (GitError, UsageError) as error:
                refusals = [f"{error}{f' ({error.hint})' if error.hint else ''}"]
            if refusals:
                refused[change.session] = tuple(refusals)
        return world._replace(refused=refused, warned=warned, unenforced=unenforced, bases=bases)

    def _parent_refused(self, name: str, parent: str, world: World) -> list[str]:
        """Why `name` cannot be made as a copy of `parent`."""
        if not any(each.session == parent and each.status != "partial" for each in world.observed):
            if parent not in self.declared:
                return [f"parent: there is no session {parent}"]
            seen, above = [name], parent
            while above in self.declared and self.declared[above].data.get("parent"):
                if above in seen:
                    return [f"parent: {' → '.join([*seen, above])} leads in a circle"]
                seen.append(above)
                above = self.declared[above].data["parent"]
        return []

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

    @cached_property
    def _read_only(self) -> dict[str, str]:
        """What no session may write: all that decides what sessions are."""
        named = os.path.abspath(self.file)
        kept = {
            os.path.realpath(self.repository.root): "the repository's root",
            os.path.join(os.path.realpath(os.path.dirname(named)), os.path.basename(named)): "the manifest",
            os.path.realpath(named): "the manifest",
            os.path.realpath(os.path.dirname(config_file())): "your own configuration",
            os.path.realpath(cache_directory()): "the cache of manifests",
        }
        for name, declaration in self.declared.items():
            data = declaration.data
            sources = [file["source"] for file in data["files"] if file["source"] and not file.get("outside")]
            sources += [os.path.join(self.repository.root, path) for path in data["workspace"]["include"]]
            kept |= {os.path.realpath(source): f"a file that goes into {name}" for source in sources}
        return kept

    def _with_trust(self, world: World, changes: Sequence[Change]) -> World:
        """What was trusted, read only when a session that is to be worked on takes something from the host."""
        if not any(each.declared and each.kind != "keep" and taken(each.declared.data) for each in changes):
            return world
        said = trust.load(self.directory)
        for new, old in world.renamed.items():
            said = said.renamed(old, new)
        return world._replace(trusted=said.trusted, revoked=said.revoked)

    def takings(self, names: Iterable[str] = ()) -> tuple[trust.Taking, ...]:
        """What each session (of `names` only, if any) takes from the host, beside what was trusted last."""
        declared = {name: declaration.data for name, declaration in self.declared.items()}
        said = trust.load(self.directory)
        chosen = set(map(require_name, names))
        for name in sorted(chosen - declared.keys() - said.trusted.keys()):
            raise _unknown(name, declared)
        return trust.takings(declared, said, chosen)

    def trust(self, takings: Iterable[trust.Taking]) -> None:
        """Remembers that a person who was shown `takings` wants the sessions to have just that."""
        with self.changing(), self.store.writing():
            said = trust.load(self.directory).trusting({each.session: frozenset(each.lines) for each in takings})
            for each in takings:
                if each.new or each.gone:
                    self.store.note(each.session, "trust", reason="; ".join(each.lines) or "nothing any more")
            trust.save(self.directory, said)

    def revoke(self, names: Iterable[str] = ()) -> tuple[str, ...]:
        """Takes back what was ever allowed to sessions (`names`, else all); those that run with some of it now."""
        chosen = set(map(require_name, names))
        world = self.world()
        known = {*world.records, *(o.session for o in world.observed), *self._declared_if_any()}
        with self.changing(), self.store.writing():
            said = trust.load(self.directory)
            for name in sorted(chosen - known - said.trusted.keys()):
                raise _unknown(name, known)
            held: dict[str, frozenset[str]] = {}
            for made_of in _made(world):
                name = made_of.data["name"]
                held[name] = held.get(name, frozenset()).union(taken(made_of.data))
            chosen = chosen or {name for name in (*held, *said.trusted) if held.get(name) or name in said.trusted}
            for name in sorted(chosen):
                self.store.note(name, "revoke")
            trust.save(self.directory, said.revoking(chosen, held))
        running = {o.session: o.made_of for o in world.observed if o.status == "running" and o.made_of is not None}
        return tuple(sorted(name for name in chosen & running.keys() if taken(running[name].data)))

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
        merged: dict[str, Merged] = {}
        homes: dict[str, tuple[str, ...]] = {}
        gone: set[str] = set()
        for change in changes:
            name = change.session
            if change.declared is None and not workspace.is_there(self.directory, name):
                gone.add(name)
            stays = change.declared is not None and not lifetime.expired(change.declared, change.record, world.now)
            if stays or change.current is None or change.current.made_of is None:
                continue
            try:
                state = self.reader.look(change.current, change.record, "full")
                states[name] = self.reader.with_reflogs(change.current, state) if deletes(change) else state
                merged[name] = self.reader.merged(change.current, states[name])
                homes[name] = only_here(
                    os.path.join(self.directory, "sessions", name, "home"), change.current.made_of.data["files"]
                )
            except SessionctlError as error:
                states[name] = explained(error)
        return world._replace(git=states, merged=merged, homes=homes, gone=frozenset(gone))

    def save(self, plan: Plan, path: StrPath) -> None:
        """Writes `plan` to the file at `path`, for `saved`."""
        from sessionctl import saved

        saved.save(path, plan, self.repository.project)

    def saved(self, path: StrPath, policy: Policy = Policy()) -> Plan:  # noqa: B008  (an immutable value)
        """The plan that was written to `path`, made again. Changes nothing.

        `ConflictError`, which says how, when that is another plan now; `UsageError` when `path` holds none, or
        when `policy` does not allow just what was allowed when it was made: a file allows nothing.
        """
        from sessionctl import saved

        then = saved.load(path, self.repository.project)
        for flag, was, given in (
            ("--force", then.force, policy.force),
            ("--allow-host", then.allow_host, policy.allow_host),
        ):
            if was != given:
                raise UsageError(
                    f"{os.fspath(path)} was made {'with' if was else 'without'} {flag}",
                    hint=f"say {flag} here too, if that is meant" if was else f"leave {flag} away, or plan anew",
                )
        now = self.plan(then.names, policy)
        difference = saved.moved(then, now)
        if difference:
            raise ConflictError(
                "\n".join([f"what would be done is not what {os.fspath(path)} says:", *difference]),
                hint=f"nothing was done; look at it anew: sessionctl plan --out {os.fspath(path)}",
            )
        return now

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
        if plan.refused:
            refused = [f"{lane.session}: {each}" for lane in plan.refused for each in lane.refused]
            raise UsageError("\n".join(["this cannot be done here:", *refused]), hint="see `sessionctl doctor`")
        self._follow_heads()
        if not plan.work and not os.path.lexists(self._unfinished):
            return ()
        from sessionctl.executor import execute
        from sessionctl.steps import steps

        with self.changing(wait):
            now = self.plan(policy=plan.policy)
            if now.decision != plan.decision:
                raise ConflictError(
                    "something changed since this plan was made", hint="run the command again to see the new one"
                )
            site = self._site(progress)
            if plan.policy.allow_host:
                granted = {lane.session: frozenset(lane.takes) for lane in now.work if lane.takes}
                said = trust.load(self.directory)
                if said.granting(granted) != said:
                    trust.save(self.directory, said.granting(granted))
            going = [lane.session for lane in now.work if lane.takes_away]
            operation = self._begun(site, "prune" if plan.policy.prune else "replace", going)
            outcomes = execute(now, steps(site, operation), jobs=self.settings.jobs, on=on, interrupted=interrupted)
            if plan.policy.prune:
                self._release_bases()
            if any(outcome.result == "failed" for outcome in outcomes):
                self._keep_unfinished = True
        return outcomes

    @property
    def _unfinished(self) -> str:
        return os.path.join(self.directory, UNFINISHED)

    def _begun(self, site: Site, verb: str, sessions: Sequence[str], **data: str) -> str:
        """The id of a new operation that can be undone; empty when there are no `sessions` that it would change."""
        from sessionctl import snapshots

        if not sessions:
            return ""
        operation = snapshots.Operation(site.new_id(), verb, self._clock(), tuple(sessions), data)
        snapshots.save_operation(self.directory, operation)
        return operation.id

    def _site(self, progress: Callable[[str], None]) -> Site:
        from sessionctl.site import Site

        return Site(self.repository, self.directory, self.store, self.backend, self.reader, self._clock, progress)

    def _sweep(self) -> None:
        """Finishes, or takes away, what a sessionctl that did not come to its end has left; begins another one."""
        from sessionctl import keeping, snapshots, switching, workspace
        from sessionctl.images import library

        try:
            if os.path.lexists(self._unfinished):
                site = self._site(lambda text: None)
                self.backend(DEFAULT_BACKEND).recover()
                switching.finish(site)
                snapshots.sweep(self.directory)
                workspace.sweep(self.directory)
                library.sweep(self.directory)
                keeping.mend(site)
                keeping.tell(site)
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
        from sessionctl import moving

        with self.store.lock(wait):
            moving.sign(self.directory, self.repository)
            self._forget_readings()
            self._sweep()
            self._keep_unfinished = False
            try:
                yield
            except BaseException:
                self._keep_unfinished = True
                raise
            finally:
                self._forget_readings()
                if not self._keep_unfinished:
                    os.unlink(self._unfinished)

    _keep_unfinished = False

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
        """Removes the prepared checkouts that no session and no snapshot stands on any more."""
        from sessionctl import workspace

        for key in self.unused_bases():
            workspace.release_base(self.directory, key)

    def unused_bases(self, without: Collection[str] = ()) -> tuple[str, ...]:
        """Keys of the base layers that no session stands on, nor any snapshot but those `without`.

        None while there is a damaged snapshot that nobody has discarded: nobody can say what it stands on.
        """
        from sessionctl import snapshots, workspace

        found = snapshots.all_of(self.directory)
        if any(each.is_unclear for each in found):
            return ()
        mounted = {path for o in self.world().observed if o.workspace for path in o.workspace.lower}
        kept = (path for each in found if each.id not in without for path in each.lower)
        mounted |= {path if path.startswith("/") else os.path.join(self.directory, path) for path in kept}
        return workspace.unused_bases(self.directory, mounted)

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
        from sessionctl import process, secret

        target, record = self._sandbox(name)
        if not argv:
            raise UsageError("no command to run", hint=f"say one after two dashes: sessionctl exec {name} -- bash")
        if target.status != "running":
            raise UsageError(f"{name} is stopped", hint=f"run `sessionctl start {name}`")
        assert target.made_of is not None
        given = dict(env or {})
        trust.require_kept(self.directory, name, target.made_of.data, but=given)
        declared = target.made_of.data["env"]
        variables = {**secret.found(declared, but=given), **given}
        secrets = [variables[each] for each in variables.keys() & {*secret.names(declared), *private}]
        backend = self.backend(target.backend)
        self._note_git(target, record, "head")
        command = backend.command(target, argv, env=variables, tty=tty)
        began, clock = self._clock(), time.monotonic()
        limits = LimitsSpec.of(target.made_of.data)
        wall = parse_duration(limits.wall) if limits.wall else None
        least = min((seconds for seconds in (timeout, wall) if seconds is not None), default=None)
        # One longest secret more than is wanted: what the kept part begins in the middle of can be told then.
        keep = CAPTURE + secret.longest(secrets)
        before = backend.strikes(target)
        ended = process.relay(command.argv, env=command.env, stdin=stdin, timeout=least, keep=keep, show=show)
        after = backend.strikes(target)
        struck = ["wall"] if ended.timed_out and least == wall else []
        struck += [limit for limit in ("memory", "pids") if after.get(limit, 0) > before.get(limit, 0)]
        streams = (ended.stdout, ended.stderr)
        out, err = (secret.masked(s, secrets, skip=max(0, len(s) - CAPTURE)) for s in streams)
        run = Run(
            ended.code,
            time.monotonic() - clock,
            out,
            err,
            ended.truncated or any(len(s) > CAPTURE for s in streams),
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
                argv=[os.fsdecode(secret.masked(os.fsencode(word), secrets)) for word in argv],
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
        """Starts the processes of a session again; whether it did not run already.

        One whose files are there and whose sandbox is not, because something was killed, gets a new one.
        """
        from sessionctl import keeping, workspace

        if not workspace.is_there(self.directory, require_name(name)):
            self._sandbox(name)
        with self.changing():
            keeping.revive(self._site(lambda text: None), name)
            target, record = self._sandbox(name)
            if target.status == "running":
                return False
            if target.made_of is not None:
                trust.require_kept(self.directory, name, target.made_of.data)
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

    # --- nothing is lost -------------------------------------------------------------------------

    def snapshots(self, name: str | None = None) -> list[Snapshot]:
        """The snapshots of a session, or of all there are or were, oldest first; discarded and damaged ones too."""
        from sessionctl import snapshots

        if name is None:
            return snapshots.all_of(self.directory)
        found = snapshots.of_session(self.directory, require_name(name))
        known = {*self.store.records(), *self._declared_if_any()}
        if not found and name not in known:
            raise _unknown(name, known)
        return found

    def find_snapshot(self, name: str, snapshot: str | None = None) -> Snapshot:
        """The snapshot of a session by its id, which may be cut short, else the latest a person made."""
        from sessionctl import snapshots

        self.snapshots(name)  # says so when there is no such session
        return snapshots.chosen(self.directory, name, snapshot)

    def snapshot(
        self, name: str, message: str = "", *, quiesce: str = "", progress: Callable[[str], None] = lambda text: None
    ) -> Snapshot:
        """Takes a snapshot of a session, running or stopped: workspace, agent and sandbox, whole and verified."""
        from sessionctl import keeping

        with self.changing():
            return keeping.take(self._site(progress), name, message=message, quiesce=quiesce)

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
        from sessionctl import keeping, snapshots

        with self.changing():
            chosen = snapshots.chosen(self.directory, require_name(name), snapshot)
            return chosen, keeping.restore(self._site(progress), name, chosen, [only] if only else snapshots.PARTS)

    def fork(
        self, name: str, new: str, snapshot: str | None = None, *, progress: Callable[[str], None] = lambda text: None
    ) -> Record:
        """Makes session `new`, a copy of session `name` (of a snapshot of it) on a branch of its own; its record."""
        from sessionctl import keeping, snapshots

        if require_name(new) in self._declared_if_any():
            raise UsageError(
                f"{new} is declared in the manifest", hint=f'give it parent = "{name}", and apply makes it so'
            )
        with self.changing():
            chosen = snapshots.chosen(self.directory, require_name(name), snapshot) if snapshot is not None else None
            return keeping.fork(self._site(progress), require_name(name), new, chosen)

    def discard(self, name: str, snapshot: str) -> Operation:
        """Puts a snapshot into the trash, a damaged one too. The operation, by which `undo` takes it out again."""
        from sessionctl import keeping, snapshots

        with self.changing():
            chosen = snapshots.chosen(self.directory, require_name(name), snapshot, damaged=True)
            return keeping.discard(self._site(lambda text: None), chosen)

    def operations(self) -> list[Operation]:
        """What was done that can be undone, or was, oldest first."""
        from sessionctl import snapshots

        return snapshots.operations(self.directory)

    def undo(
        self, operation: str | None = None, *, progress: Callable[[str], None] = lambda text: None
    ) -> tuple[Operation, list[Undone]]:
        """Undoes an operation, by its id, which may be cut short; else the last that was not undone."""
        from sessionctl import keeping, snapshots

        chosen = self._operation(operation)
        if chosen.verb == "rename":
            if chosen.undone is not None:
                raise UsageError(f"operation {chosen.id} was undone already", hint="see `sessionctl undo --list`")
            (name,), old = chosen.sessions, chosen.data["old"]
            self.rename(name, old)
            snapshots.save_operation(self.directory, chosen._replace(undone=self._clock()))
            return chosen, [keeping.Undone(old, True, f"was {name}")]
        with self.changing():
            chosen = self._operation(chosen.id)
            return chosen, keeping.undo(self._site(progress), chosen)

    def _operation(self, operation: str | None) -> Operation:
        """An operation by its id, or the last that was not undone. `UsageError` when there is none."""
        known = self.operations()
        if operation is None:
            found = [each for each in known if each.undone is None and each.expired is None][-1:]
        else:
            found = [each for each in known if operation in (each.id, each.id.rpartition("-")[2])]
        if not found:
            what = "nothing was done that can be undone" if operation is None else f"no operation {operation!a}"
            raise UsageError(what, hint="see `sessionctl undo --list`")
        return found[0]

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
        from sessionctl import copying

        limit = most if most is not None else copying.MOST
        inside, there = copying.Place.parse(source), copying.Place.parse(target)
        site = self._site(lambda text: None)
        with copying.explained():
            if inside is not None and there is None:
                self._sandbox(inside.session)
                return copying.out(site, inside, output if target == "-" else target, most=limit, on=on)
            if there is not None and inside is None:
                with self._running(there.session):
                    return copying.into(site, source, there, most=limit, on=on)
        raise UsageError(
            "one of the two must be in a session, and the other here",
            hint="sessionctl cp NAME:PATH HERE, or sessionctl cp HERE NAME:PATH; a file called a:b is ./a:b",
        )

    @contextmanager
    def _running(self, name: str) -> Iterator[None]:
        """While it is entered, session `name` runs; one that was stopped is stopped again."""
        if self._sandbox(name)[0].status == "running":
            yield
            return
        with self.changing():
            target, _ = self._sandbox(name)
            backend, stopped = self.backend(target.backend), target.status != "running"
            if stopped:
                if target.made_of is not None:
                    trust.require_kept(self.directory, name, target.made_of.data)
                target = backend.start(target)
            try:
                yield
            finally:
                if stopped:
                    backend.stop(target)

    def diff(self, name: str, snapshots: Sequence[str] = (), *, ignored: bool = False) -> Difference:
        """What became of a session's files since its base; since a snapshot; or from one snapshot to another.

        Committed, staged, changed and untracked files alike; with `ignored`, those too that git is told to ignore.
        """
        from sessionctl import comparing
        from sessionctl import snapshots as kept

        target, _ = self._sandbox(name)
        chosen = [kept.chosen(self.directory, name, each) for each in snapshots]
        return comparing.difference(self._site(lambda text: None), target, chosen, ignored=ignored)

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

    @property
    def now(self) -> float:
        """What time it is (Unix time)."""
        return self._clock()

    def disk(self, names: Iterable[str]) -> Disk:
        """What the sessions `names` take on the disk, with snapshots and what is in the trash of them."""
        from sessionctl import disk, snapshots

        return disk.measured(self.directory, names, snapshots.all_of(self.directory))

    def kept_of(self) -> list[str]:
        """The sessions of which there are snapshots, also those that are gone, in order."""
        from sessionctl import snapshots

        return sorted({each.session for each in snapshots.all_of(self.directory)})

    def images(self) -> list[Use]:
        """The images that are unpacked, and the sessions that use them."""
        from sessionctl import garbage

        return garbage.uses(self)

    def garbage(self) -> Garbage:
        """What nothing uses, and snapshots that are kept no longer. Changes nothing."""
        from sessionctl import garbage

        return garbage.garbage(self)

    def collect(self, garbage: Garbage, wait: float = LOCK_WAIT) -> None:
        """Removes `garbage`, which must still be garbage: `ConflictError` when it is not, and nothing was done."""
        from sessionctl import snapshots
        from sessionctl.images import library

        if not garbage:
            return
        with self.changing(wait):
            self.__dict__.pop("_resolved", None)  # the manifest may have changed while somebody was asked
            if self.garbage() != garbage:
                raise ConflictError(
                    "something changed since this was listed", hint="run the command again to see the new list"
                )
            # First of all it is known that it cannot be undone.
            spoilt = {each.operation for each in garbage.snapshots}
            for operation in self.operations():
                if operation.id in spoilt and operation.undone is None:
                    snapshots.save_operation(self.directory, operation._replace(expired=self._clock()))
            for each in garbage.snapshots:
                snapshots.remove(self.directory, each.session, each.id)
            self._release_bases()
            library.remove(self.directory, [image.digest for image in garbage.images], garbage.layers)
            if garbage.snapshots:
                with self.store.writing():
                    for each in garbage.snapshots:
                        self.store.note(each.session, "gc", snapshot=each.id, reason=each.why)

    # --- history and health ------------------------------------------------------------------

    def log(self, name: str | None = None, *, after: int = 0, last: int | None = None) -> Iterator[Entry]:
        """Events of one session or of all, in order of time."""
        if name is None:
            return self.store.journal(after=after, last=last)
        return self.store.journal(require_name(name), after=after, last=last, earlier=self.store.earlier(name))

    def outputs(self, name: str, id: str | None = None, *, after: int = 0) -> list[Output]:
        """What is kept of the output of a session's commands, oldest first; with `id`, of that one.

        `after` is the `rowid` of the last that is known.
        """
        from sessionctl import outputs

        entries = self.log(name, after=after)
        found = list(outputs.outputs(entries))
        if id is not None:
            found = outputs.of_command(found, id)
            if not found and not after:
                raise UsageError(
                    f"no output of a command {id!a} of {name} is kept", hint=f"see `sessionctl log {name}`"
                )
        elif not found and not after and name not in self.names():
            raise _unknown(name, self.names())
        return found

    def doctor(self) -> list[Check]:
        """Everything this machine needs for the declared backends, looked at one by one."""
        from sessionctl.doctor import checks

        return checks(self)


def _is_on_host(declaration: Declaration) -> bool:
    """Whether what is committed in the session moves a branch of the user's repository, or the user sees its files."""
    workspace = declaration.data["workspace"]
    return workspace["mode"] in ("worktree", "bind") or bool(workspace.get("visible"))


def _by_session(world: World) -> dict[str, Observed]:
    """Of each session one thing that was observed, for those that have no sandbox that is whole."""
    return {observed.session: observed for observed in reversed(world.observed)}


def _made(world: World) -> Iterator[Declaration]:
    """All declarations that sandboxes were made of, as far as marks and records say."""
    yield from (observed.made_of for observed in world.observed if observed.made_of is not None)
    yield from (record.last for record in world.records.values() if not record.corrupt)


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


def _described(observed: Observed) -> str:
    why = observed.drift or ("half made" if observed.made_of is None else observed.status)
    return f"  {observed.backend} {observed.id or '(no sandbox, only files)'}: {why}"


def _said(refusal: Refusal) -> str:
    return f"{refusal.what}: {refusal.why}{f' ({refusal.remedy})' if refusal.remedy else ''}"


def _unknown(name: str, known: Iterable[str]) -> UsageError:
    from difflib import get_close_matches

    close = get_close_matches(name, sorted(known), 1)
    return UsageError(
        f"there is no session {name}",
        hint=f"did you mean {close[0]}? See `sessionctl ls`" if close else "see `sessionctl ls`",
    )


def _text(tail: bytes) -> str:
    return tail[-TAIL:].decode("utf-8", "backslashreplace")
