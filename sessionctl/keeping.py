"""Nothing is ever lost: snapshots taken, brought back and forked, sessions put aside, operations undone.

A snapshot is the session's own files, copied while its processes are paused, read back, and only then called
one. Bringing one back, or taking a session away, moves what is there into a snapshot of its own first. Callers
hold the project's lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from sessionctl import beneath, git, lifetime, process, snapshots, switching, trees, workspace
from sessionctl.errors import CommandError, ConflictError, SessionctlError, StoreError, UsageError
from sessionctl.history import explained
from sessionctl.model import Declaration, GitState, Observed, Record, SessionSpec, require_name, sandbox_of
from sessionctl.plugins import DEFAULT_BACKEND
from sessionctl.site import Site
from sessionctl.snapshots import PART, PARTS, By, Operation, Snapshot
from sessionctl.switching import Switch
from sessionctl.units import size
from sessionctl.workspace import Standing

_QUIESCE = 600.0
"""Seconds that a command which is to quieten a session may take."""
_STEP = 256 << 20
"""Bytes after which progress is said again."""


class Undone(NamedTuple):
    """What became of one session when an operation was undone."""

    session: str
    done: bool
    said: str
    """For people: what was brought back, or why it could not be."""


# --- taking ------------------------------------------------------------------------------------


def take(site: Site, name: str, *, message: str = "", quiesce: str = "") -> Snapshot:
    """A snapshot of session `name`, running or stopped, whole and verified. `quiesce` is run inside before."""
    target, record = sandbox(site, name)
    _require_ours(site, target)
    if quiesce:
        _quieten(site, target, quiesce)
    with _staged(site, name) as made:
        taken = _described(site, target, record, by="person", message=message, operation="")
        with site.backend(target.backend).paused(target):
            taken = taken._replace(git=_read(site, target, record))
            parts = _copied(site, target, made)
        _verify(site, name, made, parts)
        beneath.sync_filesystem(site.directory)
        taken = taken._replace(parts=parts)
        snapshots.publish(site.directory, made, taken)
    with site.store.writing():
        site.store.note(name, "snapshot", git=taken.git, snapshot=taken.id, size=taken.size, message=message)
    return taken


def sandbox(site: Site, name: str) -> tuple[Observed, Record | None]:
    """The ready sandbox of a session, and its record; `UsageError` when there is none."""
    record = site.store.record(require_name(name))
    backend = site.backend(record.backend if record is not None and record.backend else DEFAULT_BACKEND)
    found = sandbox_of(backend.observe(session=name), record)
    if found is None:
        raise UsageError(f"{name} has no sandbox", hint="run `sessionctl apply`")
    return found, record


def _described(
    site: Site, target: Observed, record: Record | None, *, by: By, message: str, operation: str
) -> Snapshot:
    """A snapshot of `target`, as far as it can be described before any file is touched."""
    if target.made_of is None or target.workspace is None:
        raise UsageError(f"{target.session} has no whole sandbox", hint="run `sessionctl apply`")
    name = target.session
    standing = workspace.load_standing(site.directory, name)
    return Snapshot(
        session=name,
        id=site.new_id(),
        made_at=site.clock(),
        by=by,
        message=message,
        operation=operation,
        backend=target.backend,
        sandbox=target.id,
        running=target.status == "running",
        made_of=target.made_of,
        base=record.base if record is not None else target.workspace.commit,
        set_up=record is not None and record.setup == target.id,
        created_at=record.created_at if record is not None else site.clock(),
        git=record.git if record is not None else GitState(),
        standing=standing.data(site.directory) if standing is not None else None,
        parts={},
    )


def _require_ours(site: Site, target: Observed) -> None:
    """`UsageError` unless the work of `target` is in the state directory, where it can be copied whole."""
    name = target.session
    if target.workspace is None or target.made_of is None:
        raise UsageError(f"{name} has no whole sandbox", hint="run `sessionctl apply`")
    if not target.workspace.upper.startswith(os.path.join(site.directory, "sessions", name, "work", "")):
        mode = target.made_of.data["workspace"]["mode"]
        raise UsageError(
            f"{name} works in mode {mode}, whose files are not sessionctl's to copy",
            hint="commit them with git; modes clone and empty can be snapshotted",
        )


def _copied(site: Site, target: Observed, made: str) -> Mapping[PART, trees.Measure | None]:
    """Copies the files of `target` into the directory `made`; what was copied, by part."""
    watch = _Watch(site, f"{target.session}: copied")
    session = os.path.join(site.directory, "sessions", target.session)
    work, home = os.path.join(session, "work"), os.path.join(session, "home")
    parts: dict[PART, trees.Measure | None] = {"work": _copy("work", work, os.path.join(made, "work"), watch)}
    if os.path.lexists(home):
        parts["home"] = _copy("home", home, os.path.join(made, "home"), watch)
    if site.backend(target.backend).freeze(target, os.path.join(made, "root")):
        parts["root"] = trees.measure(_tree(made, "root"))
    return parts


def _verify(site: Site, name: str, made: str, parts: Mapping[PART, trees.Measure | None]) -> None:
    """`StoreError` unless what lies in `made` has the measures of `parts`, all of it read."""
    watch = _Watch(site, f"{name}: verified")
    for part, wanted in parts.items():
        if wanted is not None and trees.measure(_tree(made, part), without=_without(part), on=watch) != wanted:
            raise StoreError(
                f"the copy of the {snapshots.SHOWN[part]} of {name} is not what was copied",
                hint="look at the disk: dmesg | tail",
            )


def _tree(where: str, part: PART) -> str:
    """The directory that a part's digest is taken of."""
    return os.path.join(where, part, "upper") if part == "root" else os.path.join(where, part)


_SCRATCH = "scratch"
"""What overlayfs works in, beside an upper layer. It holds nothing while that is not mounted."""


def _without(part: PART) -> str:
    return _SCRATCH if part == "work" else ""


def _copy(part: PART, source: str, target: str, watch: trees.Watcher) -> trees.Measure:
    return trees.copy(source, target, without=_without(part), on=watch)


class _Watch:
    """Says how far copying has come, now and then."""

    def __init__(self, site: Site, what: str) -> None:
        self._say = site.progress
        self._what = what
        self._read = 0
        self._said = 0

    def __call__(self, read: int) -> None:
        self._read += read
        if self._read - self._said >= _STEP:
            self._said = self._read
            self._say(f"{self._what} {size(self._read)}")


def _quieten(site: Site, target: Observed, line: str) -> None:
    if target.status != "running":
        raise UsageError(f"{target.session} is stopped: --quiesce has nothing to run in", hint="leave it out")
    command = site.backend(target.backend).command(target, ("sh", "-c", line))
    ended = process.relay(command.argv, env=command.env, timeout=_QUIESCE, keep=2000, show=False, apart=True)
    if ended.code:
        said = git.printable((ended.stdout + ended.stderr).decode("utf-8", "backslashreplace").strip())
        raise CommandError(f"{line!r} ended with exit code {ended.code} inside, no snapshot was made: {said}")


def _read(site: Site, target: Observed, record: Record | None) -> GitState:
    try:
        return site.reader.look(target, record, "counts")
    except SessionctlError as error:
        return explained(error)


@contextmanager
def _staged(site: Site, name: str) -> Iterator[str]:
    """A new directory in which files of session `name` are made whole: what is not moved out of it goes with it.

    Unless a switch that was begun still needs them; whoever finishes that moves them. An `OSError` becomes a
    `StoreError`.
    """
    try:
        made = snapshots.fresh(site.directory, name)
        try:
            yield made
        finally:
            if not os.path.lexists(os.path.join(site.directory, "sessions", name, "switch.json")):
                beneath.remove_tree(made)
    except OSError as error:
        raise _unwritten(error) from error


def _unwritten(error: OSError) -> StoreError:
    return StoreError(
        f"{error.filename or 'a file'} cannot be copied: {error.strerror}",
        hint="nothing was changed; make room, or see who may read it, and run the command again",
    )


# --- bringing back -----------------------------------------------------------------------------


def restore(site: Site, name: str, snapshot: Snapshot, parts: Sequence[PART] = PARTS) -> Snapshot:
    """Brings `parts` of `snapshot` back into session `name`; the snapshot that the state before has become.

    The new state is made and verified first; then the session is stopped and switched over. It runs
    afterwards if it ran before.
    """
    wanted = [part for part in PARTS if part in parts and part in snapshot.parts]
    if not wanted:
        some = ", ".join(snapshots.SHOWN[part] for part in snapshot.parts)
        raise UsageError(f"snapshot {snapshot.id} holds {some or 'nothing'} and nothing else")
    _stands_on(site, name, snapshot, wanted)
    operation = Operation(site.new_id(), "restore", site.clock(), (name,))
    with _staged(site, name) as staged:
        _copied_out(site, name, snapshot, wanted, staged)
        beneath.sync_filesystem(site.directory)
        return _bring(site, name, snapshot, wanted, _sources(staged, wanted), operation, None)


def _sources(where: str, parts: Sequence[PART]) -> dict[PART, str]:
    """The `parts` in `where`, a directory of a snapshot, as a switch names them: from the state directory."""
    session, id = where.split("/")[-2:]
    return {part: f"snapshots/{session}/{id}/{part}" for part in parts}


def _copied_out(site: Site, name: str, snapshot: Snapshot, parts: Sequence[PART], made: str) -> None:
    """Copies `parts` of `snapshot` for session `name` into the directory `made`.

    `StoreError` unless they have the measures that were taken of them.
    """
    where, watch = snapshots.place(site.directory, snapshot.session, snapshot.id), _Watch(site, f"{name}: copied")
    for part in parts:
        if part == "root":
            os.mkdir(os.path.join(made, part), 0o700)
        found = _copy(part, _tree(where, part), _tree(made, part), watch)
        if snapshot.parts[part] not in (None, found):
            raise StoreError(
                f"the {snapshots.SHOWN[part]} of snapshot {snapshot.id} is not what it was when it was made",
                hint="nothing was changed; look at the disk: dmesg | tail",
            )


def _bring(
    site: Site,
    name: str,
    snapshot: Snapshot,
    parts: Sequence[PART],
    sources: Mapping[PART, str],
    operation: Operation,
    emptied: tuple[str, str] | None,
) -> Snapshot:
    """Moves `sources`, the `parts` of `snapshot`, into session `name`; what was there becomes the snapshot returned.

    `operation` is what undoes it. An error before anything is changed leaves none that could be undone.
    """
    record = site.store.record(name)
    backend = site.backend(snapshot.backend)
    observed = backend.observe(session=name)
    known = [each for each in observed if each.made_of is not None]
    current = max(known, key=lambda o: (o.status == "running", o.status != "partial", o.id)) if known else None
    made_of = snapshot.made_of
    if current is not None and current.made_of is not None and set(parts) != set(snapshot.parts):
        made_of = current.made_of  # a part is brought back into the session as it is declared now
    stands_on = _stands_on(site, name, snapshot, parts)
    standing = Standing.from_data(stands_on, site.directory).of(site.directory, name)
    running = current.status == "running" if current is not None else snapshot.running
    if current is not None:
        rescue = _described(site, current, record, by="rescue", message="", operation=operation.id)
    else:
        rescue = snapshot._replace(id=site.new_id(), made_at=site.clock(), by="rescue", message="")
        rescue = rescue._replace(operation=operation.id)
        there = workspace.load_standing(site.directory, name)
        rescue = rescue._replace(standing=there.data(site.directory) if there is not None else None, sandbox="")
    fits = (
        current is not None
        and current.workspace == standing.workspace
        and "root" not in parts
        and current.made_of == made_of
    )
    taken: list[PART] = [*parts, *(["root"] if not fits and "root" not in parts else [])]  # type: ignore[list-item]
    rescue = rescue._replace(parts=dict.fromkeys(taken))
    now = site.clock()
    before = record if record is not None and not record.corrupt else None
    after = Record(
        session=name,
        sandbox=current.id if fits and current is not None else "",
        backend=snapshot.backend,
        last=made_of,
        base=snapshot.base,
        setup="",
        git=snapshot.git,
        created_at=before.created_at if before else snapshot.created_at,
        last_active=now,
    )
    after = lifetime.counted(after, before, now)
    snapshots.save_operation(site.directory, operation)
    if record is None:
        # Before there are files again: whatever ends this half-way, it is known whose they are.
        site.store.save(after)
    _prepare_places(site, backend.owner, name, standing, sources)
    for each in observed:
        if each.status == "running":
            backend.stop(each)
    switching.switch(
        site,
        Switch(rescue, sources, standing.data(site.directory) if "work" in parts else None, not fits, emptied),
    )
    site.store.save(after)
    if fits and current is not None:
        target = current
    else:
        base = workspace.seed(site.directory, name)
        target = backend.create(made_of.spec, standing.workspace, site.progress, base=base)
    if running:
        target = backend.start(target)
    state = _read(site, target, after)
    with site.store.writing():
        set_up = before is not None and current is not None and before.setup == current.id
        if "home" in parts or "work" in parts:
            set_up = snapshot.set_up
        site.store.save(after._replace(sandbox=target.id, setup=target.id if set_up else "", git=state))
        site.store.note(
            name,
            "restore",
            git=state,
            snapshot=snapshot.id,
            parts=[snapshots.SHOWN[part] for part in parts],
            operation=operation.id,
            undo=f"sessionctl undo {operation.id}",
        )
    return rescue


def _stands_on(site: Site, name: str, snapshot: Snapshot, parts: Sequence[PART]) -> Mapping[str, Any]:
    """What the work of session `name` stands on once `parts` of `snapshot` are in it; `UsageError` if nobody knows."""
    if "work" in parts:
        known = snapshot.standing
    else:
        standing = workspace.load_standing(site.directory, name)
        known = standing.data(site.directory) if standing is not None else None
    if known is None:
        raise UsageError(
            f"{name} has no workspace, and none is brought back", hint="restore one that holds its workspace first"
        )
    return known


def mend(site: Site) -> None:
    """Gives sessions whose sandbox a crash has left half-made, or not made at all, a whole one of what they were.

    `apply` does so for those that are declared; for others nobody else would. What cannot be made now, `start`
    tries again, and says why. Of a session whose files a prune had deleted, as its manifest says, the sandbox goes too.
    """
    for name, record in site.store.records().items():
        if record.corrupt or not record.backend:
            continue
        backend = site.backend(record.backend)
        is_deleted = not workspace.is_there(site.directory, name) and record.last.data.get("on_prune") == "delete"
        for observed in backend.observe(session=name):
            is_half = observed.made_of is None and workspace.is_there(site.directory, name)
            if observed.id and observed.status != "running" and (is_half or is_deleted):
                backend.remove(observed)
        if is_deleted:
            workspace.leave(site.directory, name)
        with suppress(SessionctlError):
            revive(site, name)


def tell(site: Site) -> None:
    """Notes what was put aside by commands that were killed before they could: the log says how it comes back."""
    begun = {each.id: each for each in snapshots.operations(site.directory) if each.undone is None}
    kept = [each for each in snapshots.all_of(site.directory) if (each.discarded or each.operation) in begun]
    if not kept:
        return
    said = {entry.data.get("undo") for entry in site.store.journal()}
    for each in kept:
        operation = begun[each.discarded or each.operation]
        undo = f"sessionctl undo {operation.id}"
        if undo not in said:
            with site.store.writing():
                why = f"{operation.verb} was cut short"
                site.store.note(each.session, "rescue", git=each.git, reason=why, snapshot=each.id, undo=undo)


def revive(site: Site, name: str) -> None:
    """Makes session `name` a sandbox of what was last applied, when its files are there and it has none."""
    record = site.store.record(name)
    if record is None or record.corrupt:
        return
    backend = site.backend(record.backend)
    standing = workspace.load_standing(site.directory, name)
    if standing is None or any(each.made_of is not None for each in backend.observe(session=name)):
        return
    base = workspace.seed(site.directory, name)
    target = backend.create(record.last.spec, standing.workspace, site.progress, base=base)
    site.store.save(record._replace(sandbox=target.id))


def _prepare_places(
    site: Site, owner: tuple[int, int] | None, name: str, standing: Standing, sources: Mapping[PART, str]
) -> None:
    """Makes of a part that was copied what a session's directory must be, before it is moved there."""
    workspace.session_directory(site.directory, name, owner)
    if "work" in sources:
        work = os.path.join(site.directory, sources["work"])
        os.chmod(work, 0o700 if owner is None else 0o711)
        workspace.fresh_scratch(work, owner, wanted=bool(standing.workspace.lower))


# --- putting aside -----------------------------------------------------------------------------


def put_aside(site: Site, target: Observed, record: Record | None, operation: str) -> Snapshot:
    """Moves all files of the session in `target`, which is stopped, into a snapshot; the session is gone then.

    Its record stays, the caller's to forget.
    """
    rescue = _with_checkout(site, _described(site, target, record, by="rescue", message="", operation=operation))
    rescue = rescue._replace(parts=dict.fromkeys(PARTS), running=target.status == "running")
    switching.switch(site, Switch(rescue, {}, None, sandboxes=True, emptied=None))
    return rescue


def _with_checkout(site: Site, rescue: Snapshot) -> Snapshot:
    """What `rescue` is to say when its session's checkout is in a directory that a user named for it.

    A verified copy of the checkout is in the session's own work then, and goes into the snapshot with that. The
    directory may lie on another file system, and may be another's by the time it is brought back.
    """
    name = rescue.session
    standing = workspace.load_standing(site.directory, name)
    if standing is None or not standing.project:
        return rescue
    copied = os.path.join(site.directory, "sessions", name, "work", "tree")
    try:
        beneath.remove_tree(copied)  # of one that was killed
        if trees.copy(standing.workspace.upper, copied) != trees.measure(copied):
            raise StoreError(f"the copy of {standing.workspace.upper} is not what was copied", hint="look at the disk")
        beneath.sync_filesystem(site.directory)
    except OSError as error:
        raise _unwritten(error) from error
    standing = standing._replace(project="", workspace=standing.workspace._replace(upper=copied))
    spec = rescue.made_of.spec
    made_of = Declaration.of(spec._replace(workspace=spec.workspace._replace(session_dir="")))
    return rescue._replace(standing=standing.data(site.directory), made_of=made_of)


def keep_root(site: Site, target: Observed, record: Record | None, operation: str) -> Snapshot | None:
    """Moves the sandbox's own files out of `target`, which is stopped and removed next, into a snapshot.

    None when it has none: its session's work and home stay, and nothing is lost with it.
    """
    if target.made_of is None:
        return None  # nothing ever ran in it
    rescue = _described(site, target, record, by="rescue", message="", operation=operation)
    kept = snapshots.begin(site.directory, rescue._replace(parts={"root": None}))
    if not site.backend(target.backend).freeze(target, os.path.join(kept, "root"), move=True):
        snapshots.remove(site.directory, rescue.session, rescue.id)
        return None
    snapshots.finish(kept)
    return rescue


# --- forking -----------------------------------------------------------------------------------


def fork(site: Site, name: str, new: str, snapshot: Snapshot | None = None) -> Record:
    """A session `new` with a copy of everything of session `name`, or of a snapshot of it, on a branch of its own.

    The record of it. It runs if the other did.
    """
    require_name(new)
    if site.store.record(new) is not None or workspace.is_there(site.directory, new):
        raise UsageError(f"there is a session {new} already", hint="choose another name")
    if snapshot is None:
        source, record = sandbox(site, name)
        told = _described(site, source, record, by="rescue", message="", operation="")
    elif "work" not in snapshot.parts:
        # What was put aside when one part was brought back: a session of it would have nothing to work on.
        some = " and ".join(snapshots.SHOWN[part] for part in snapshot.parts)
        raise UsageError(
            f"snapshot {snapshot.id} holds the {some} of {name}, and no workspace to fork",
            hint=f"see `sessionctl snapshots --all {name}`",
        )
    else:
        told = snapshot
    old = told.made_of.spec
    spec = old._replace(
        name=new,
        parent=name,
        protect=False,
        workspace=old.workspace._replace(branch=f"agents/{new}" if old.workspace.branch else ""),
    )
    now = site.clock()
    made = Record(new, "", told.backend, Declaration.of(spec), told.base, created_at=now, last_active=now)
    made = lifetime.counted(made, None, now)
    # First of all: whatever ends this half-way, it is known whose the files are.
    site.store.save(made)
    try:
        standing = seed(site, spec, name, snapshot)
    except BaseException:
        site.store.forget(new)
        workspace.leave(site.directory, new)
        raise
    backend = site.backend(told.backend)
    base = workspace.seed(site.directory, new)
    target = backend.create(spec, standing.workspace, site.progress, base=base)
    if told.running:
        target = backend.start(target)
    state = _read(site, target, None)
    made = made._replace(sandbox=target.id, setup=target.id if told.set_up else "", git=state)
    with site.store.writing():
        site.store.save(made)
        site.store.note(new, "fork", git=state, parent=name, snapshot=snapshot.id if snapshot else None)
    return made


def seed(site: Site, spec: SessionSpec, parent: str, snapshot: Snapshot | None = None) -> Standing:
    """Gives session ``spec.name``, which has no files yet, a copy of its parent's, on the branch of `spec`.

    All of it or nothing: what a crash leaves is swept away.
    """
    name = spec.name
    if snapshot is None:
        target, record = sandbox(site, parent)
        _require_ours(site, target)
        told = _described(site, target, record, by="rescue", message="", operation="")
        backend = site.backend(target.backend)
        commit = _read(site, target, record).commit
    else:
        told, backend, commit = snapshot, site.backend(snapshot.backend), snapshot.git.commit
    assert told.standing is not None
    with _staged(site, name) as made:
        if snapshot is None:
            with backend.paused(target):
                parts = list(_copied(site, target, made))
        else:
            parts = list(snapshot.parts)
            _copied_out(site, name, snapshot, parts, made)
        standing = Standing.from_data(told.standing, site.directory).of(site.directory, name)
        if commit and standing.workspace.commit:
            top = os.path.relpath(
                workspace.layers(standing.workspace)[0], os.path.join(site.directory, "sessions", name)
            )
            git.write_branch(os.path.join(made, top), spec.workspace.branch, commit)
        sources = _sources(made, parts)
        _prepare_places(site, backend.owner, name, standing, sources)
        nothing = told._replace(session=name, id=site.new_id(), parts=dict.fromkeys(parts))
        switching.switch(site, Switch(nothing, sources, standing.data(site.directory), sandboxes=False, emptied=None))
    return standing


# --- undoing -----------------------------------------------------------------------------------


def undo(site: Site, operation: Operation) -> list[Undone]:
    """Brings back what `operation` took away, session by session; what could not be is said."""
    if operation.undone is not None:
        raise UsageError(f"operation {operation.id} was undone already", hint="see `sessionctl undo --list`")
    if operation.verb == "discard":
        done = [_undiscarded(site, operation)]
    else:
        done = [_brought_back(site, operation, name) for name in operation.sessions]
    if all(each.done for each in done):
        snapshots.save_operation(site.directory, operation._replace(undone=site.clock()))
    return done


def _brought_back(site: Site, operation: Operation, name: str) -> Undone:
    kept = snapshots.of_session(site.directory, name)
    found = [each for each in kept if each.operation == operation.id and each.by == "rescue"]
    if not found and operation.expired is not None:
        return Undone(name, False, "what was kept of it is gone: gc took it out of the trash")
    unclear = [each for each in kept if each.is_unclear]
    if unclear and not found:
        where = snapshots.place(site.directory, name, unclear[-1].id)
        return Undone(name, False, f"snapshot {unclear[-1].id} may be what was kept of it, and cannot be used:"
                      f" {unclear[-1].corrupt} (what there is of it is in {where})")  # fmt: skip
    if not found:
        return Undone(name, True, "nothing of it was taken away: its work and home are as they were")
    rescue = found[-1]
    if operation.verb == "prune" and workspace.is_there(site.directory, name):
        return Undone(name, False, "there is a session of that name again: it stays as it is. What was pruned is"
                      f" in its snapshot {rescue.id}: sessionctl restore {name} {rescue.id}")  # fmt: skip
    try:
        parts = [part for part in PARTS if part in rescue.parts]
        sources = _sources(snapshots.place(site.directory, name, rescue.id), parts)
        again = Operation(site.new_id(), "restore", site.clock(), (name,))
        _bring(site, name, rescue, parts, sources, again, (name, rescue.id))
    except SessionctlError as error:
        return Undone(name, False, error.with_hint)
    shown = ", ".join(snapshots.SHOWN[part] for part in parts)
    return Undone(name, True, f"{shown} as before")


def _undiscarded(site: Site, operation: Operation) -> Undone:
    (name,) = operation.sessions
    for snapshot in snapshots.of_session(site.directory, name):
        if snapshot.discarded == operation.id:
            snapshots.take_back(site.directory, snapshot)
            return Undone(name, True, f"snapshot {snapshot.id} is there again")
        if snapshot.id == operation.data.get("snapshot") and not snapshot.discarded:
            # Killed before it was in the trash, or when it had been taken out of it.
            return Undone(name, True, f"snapshot {snapshot.id} is there")
    return Undone(name, False, "the snapshot is gone: the trash was emptied")


def discard(site: Site, snapshot: Snapshot) -> Operation:
    """Puts `snapshot`, which may be damaged, into the trash, as an operation that can be undone."""
    if snapshot.discarded:
        raise ConflictError(f"snapshot {snapshot.id} was discarded already")
    data = {"snapshot": snapshot.id, "damaged": bool(snapshot.corrupt)}
    operation = Operation(site.new_id(), "discard", site.clock(), (snapshot.session,), data)
    snapshots.save_operation(site.directory, operation)
    snapshots.discard(site.directory, snapshot, operation.id)
    with site.store.writing():
        undo = f"sessionctl undo {operation.id}"
        site.store.note(snapshot.session, "discard", snapshot=snapshot.id, operation=operation.id, undo=undo)
    return operation
