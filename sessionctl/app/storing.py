"""What is kept on the disk for sessions: who uses it, what nobody needs, and removing that."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from sessionctl import disk, garbage, snapshots, workspace
from sessionctl.app import looking
from sessionctl.app.changing import changing
from sessionctl.errors import ConflictError, UsageError
from sessionctl.garbage import Garbage, Use
from sessionctl.images import library
from sessionctl.model import Declaration
from sessionctl.trash import Keep

if TYPE_CHECKING:
    from sessionctl.app.sources import Sources


def measured(sources: Sources, names: Iterable[str]) -> disk.Disk:
    """What the sessions `names` take on the disk, with snapshots and what is in the trash of them."""
    return disk.measured(sources.directory, names, snapshots.all_of(sources.directory))


def kept_of(sources: Sources) -> list[str]:
    """The sessions of which there are snapshots, also those that are gone, in order."""
    return sorted({each.session for each in snapshots.all_of(sources.directory)})


def images(sources: Sources) -> list[Use]:
    """The images that are unpacked, and the sessions that use them."""
    world = looking.world(sources)
    return garbage.uses(sources.directory, world.observed, _declared(sources))


def unused(sources: Sources) -> Garbage:
    """What nothing uses, and snapshots that are kept no longer. Changes nothing."""
    found = snapshots.all_of(sources.directory)
    unknown = garbage.unknown(looking.world(sources), found)
    if unknown:
        return Garbage((), (), 0, unknown)
    declared = _declared(sources)
    tool = sources.settings
    return garbage.garbage(
        sources.directory,
        looking.world(sources).observed,  # of the backends that are declared only, too
        declared,
        found,
        snapshots.operations(sources.directory),
        Keep(tool.trash_expiry, tool.trash_size, tool.keep_last, tool.keep_age, tool.keep_named),
        sources.clock(),
    )


def unused_bases(sources: Sources, without: Collection[str] = ()) -> tuple[str, ...]:
    """Keys of the base layers that no session stands on, nor any snapshot but those `without`."""
    found = snapshots.all_of(sources.directory)
    return garbage.unused_bases(sources.directory, looking.world(sources).observed, found, without)


def release_bases(sources: Sources) -> None:
    """Removes the base layers that no session and no snapshot stands on any more. Only while the lock is held."""
    for key in unused_bases(sources):
        workspace.release_base(sources.directory, key)


def collect(sources: Sources, shown: Garbage, wait: float) -> None:
    """Removes what was `shown`, which must still be garbage: `ConflictError` when it is not, and nothing was done."""
    if not shown:
        return
    directory = sources.directory
    with changing(sources, wait):
        sources.forget_declared()  # the manifest may have changed while somebody was asked
        if unused(sources) != shown:
            raise ConflictError(
                "something changed since this was listed", hint="run the command again to see the new list"
            )
        # First of all it is known that it cannot be undone.
        spoilt = {each.operation for each in shown.snapshots}
        for operation in snapshots.operations(directory):
            if operation.id in spoilt and operation.undone is None:
                snapshots.save_operation(directory, operation._replace(expired=sources.clock()))
        for each in shown.snapshots:
            snapshots.remove(directory, each.session, each.id)
        release_bases(sources)
        library.remove(directory, [image.digest for image in shown.images], shown.layers)
        if shown.snapshots:
            with sources.store.writing():
                for each in shown.snapshots:
                    sources.store.note(each.session, "gc", snapshot=each.id, reason=each.why)


def _declared(sources: Sources) -> Mapping[str, Declaration]:
    """What the manifest declares; nothing when there is none. One that cannot be read is an error."""
    try:
        _ = sources.file
    except UsageError:
        return {}
    return sources.declared
