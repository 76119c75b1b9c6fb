"""Nothing is lost: snapshots, what is made of them, and undoing. `keeping` does it; here it is found out of what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sessionctl import keeping, snapshots
from sessionctl.app import looking, naming
from sessionctl.app.changing import changing, recover
from sessionctl.errors import UsageError
from sessionctl.model import Record, names_id, require_name

if TYPE_CHECKING:
    from sessionctl.app.sources import Sources
    from sessionctl.keeping import Undone
    from sessionctl.snapshots import PART, Operation, Snapshot

Progress = Callable[[str], None]


def listed(sources: Sources, name: str | None) -> list[Snapshot]:
    """The snapshots of a session, or of all there are or were, oldest first; discarded and damaged ones too."""
    if name is None:
        return snapshots.all_of(sources.directory)
    found = snapshots.of_session(sources.directory, require_name(name))
    known = {*sources.store.records(), *sources.declared_if_any}
    if not found and name not in known:
        raise looking.unknown(name, known)
    return found


def chosen(sources: Sources, name: str, snapshot: str | None) -> Snapshot:
    """The snapshot of a session by its id, which may be cut short, else the latest a person made."""
    try:
        return snapshots.chosen(sources.directory, name, snapshot)
    except UsageError:
        listed(sources, name)  # says so when there is no such session
        raise


def take(sources: Sources, name: str, message: str, quiesce: str, progress: Progress) -> Snapshot:
    """Takes a snapshot of a session, running or stopped."""
    with changing(sources):
        return keeping.take(sources.site(progress), name, message=message, quiesce=quiesce)


def restore(
    sources: Sources, name: str, snapshot: str | None, only: PART | None, progress: Progress
) -> tuple[Snapshot, Snapshot]:
    """Brings a snapshot back: that snapshot, and the one that the state before has become."""
    with changing(sources):
        found = snapshots.chosen(sources.directory, require_name(name), snapshot)
        return found, keeping.restore(sources.site(progress), name, found, [only] if only else snapshots.PARTS)


def fork(sources: Sources, name: str, new: str, snapshot: str | None, progress: Progress) -> Record:
    """Makes session `new`, a copy of session `name` (of a snapshot of it) on a branch of its own; its record."""
    if require_name(new) in sources.declared_if_any:
        raise UsageError(f"{new} is declared in the manifest", hint=f'give it parent = "{name}", and apply makes it so')
    with changing(sources):
        found = snapshots.chosen(sources.directory, require_name(name), snapshot) if snapshot is not None else None
        return keeping.fork(sources.site(progress), require_name(name), new, found)


def discard(sources: Sources, name: str, snapshot: str) -> Operation:
    """Puts a snapshot into the trash, a damaged one too. The operation, by which `undo` takes it out again."""
    with changing(sources):
        chosen = snapshots.chosen(sources.directory, require_name(name), snapshot, damaged=True)
        return keeping.discard(sources.site(), chosen)


def undo(sources: Sources, id: str | None, progress: Progress) -> tuple[Operation, list[Undone]]:
    """Undoes an operation; else the last that was not undone."""
    directory = sources.directory
    found = operation(snapshots.operations(directory), id)
    if found.verb == "rename":
        if found.undone is not None:
            raise UsageError(f"operation {found.id} was undone already", hint="see `sessionctl undo --list`")
        (name,), old = found.sessions, found.data["old"]
        recover(sources)
        records = sources.store.records()
        is_done = old in records and name not in records  # killed before it began, or when it had been undone
        if not is_done:
            naming.rename(sources, name, old)
        with changing(sources):
            snapshots.save_operation(directory, found._replace(undone=sources.clock()))
        return found, [keeping.Undone(old, True, "is called so" if is_done else f"was {name}")]
    with changing(sources):
        found = operation(snapshots.operations(directory), found.id)
        return found, keeping.undo(sources.site(progress), found)


def operation(known: Sequence[Operation], id: str | None) -> Operation:
    """That of `known` which `id`, which may be cut short, names; else the last not undone. Pure, or `UsageError`."""
    if id is None:
        found = [each for each in known if each.undone is None and each.expired is None][-1:]
    else:
        found = [each for each in known if names_id(id, each.id)]
    if not found:
        what = "nothing was done that can be undone" if id is None else f"no operation {id!a}"
        raise UsageError(what, hint="see `sessionctl undo --list`")
    return found[0]
