"""Who uses the images of a project, and what of all that it keeps nobody needs. Decides; `Project.collect` removes.

Unknown means keep: while one sandbox cannot be read, nothing is garbage.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from sessionctl import snapshots, workspace
from sessionctl.disk import Meter
from sessionctl.images import library
from sessionctl.images.library import Kept
from sessionctl.model import Declaration, Observed, World
from sessionctl.snapshots import Operation, Snapshot
from sessionctl.trash import Keep, Spent, spent


class Use(NamedTuple):
    """An image that is unpacked."""

    image: Kept
    size: int
    """Bytes on the disk, layers that other images share among them."""
    users: tuple[str, ...]
    """Names of the sessions that were made of it or are declared with it."""


class Garbage(NamedTuple):
    """What nothing uses."""

    images: tuple[Kept, ...]
    layers: tuple[str, ...]
    """Those that none of the other images has."""
    size: int
    """Bytes that go with `layers`."""
    kept: str = ""
    """Why it is not known what is used; then nothing is garbage."""
    snapshots: tuple[Spent, ...] = ()
    """Those that are kept no longer."""
    bases: tuple[str, ...] = ()
    """Keys of the base layers that nothing stands on."""

    def __bool__(self) -> bool:
        return bool(self.images or self.layers or self.snapshots or self.bases)


def uses(directory: str, observed: Collection[Observed], declared: Mapping[str, Declaration]) -> list[Use]:
    """Every image of the project in `directory`, with its users, in order of the images' sources."""
    users = _users(observed, declared, snapshots.all_of(directory))
    return [
        Use(image, library.size(directory, image.layers), tuple(sorted(users.get(image.declared, ()))))
        for image in library.listing(directory)
    ]


def unknown(world: World, found: Iterable[Snapshot]) -> str:
    """Why nobody can say what is used, by `world` and by the snapshots `found`; empty when that is known. Pure."""
    for name, why in world.unreachable.items():
        return f"{name} could not be asked: {why}"
    for snapshot in found:
        if snapshot.is_unclear:
            return (
                f"snapshot {snapshot.id} of {snapshot.session} cannot be read: {snapshot.corrupt}"
                f" (to give it up: sessionctl discard {snapshot.session} {snapshot.id})"
            )
    for observed in world.observed:
        if observed.made_of is None and observed.id:
            return f"a sandbox of {observed.session} cannot be read: sessionctl apply, or prune"
    return ""


def garbage(
    directory: str,
    observed: Collection[Observed],
    declared: Mapping[str, Declaration],
    found: Sequence[Snapshot],
    operations: Sequence[Operation],
    keep: Keep,
    now: float,
) -> Garbage:
    """What nothing uses: neither sandboxes nor declarations, nor those of the snapshots `found` that are kept."""
    meter = Meter()
    sizes: dict[str, int] = {}

    def size_of(snapshot: Snapshot) -> int:
        if snapshot.id not in sizes:
            sizes[snapshot.id] = meter.taken(snapshots.place(directory, snapshot.session, snapshot.id))
        return sizes[snapshot.id]

    going = spent(found, operations, keep, size_of, now)
    gone = {each.id for each in going}
    users = _users(observed, declared, [each for each in found if each.id not in gone])
    images = library.listing(directory)
    loose = library.loose(directory, [image for image in images if image.declared in users])
    unused = tuple(image for image in images if image.declared not in users)
    bases = unused_bases(directory, observed, found, gone)
    size = library.size(directory, loose) + sum(each.size for each in going)
    size += meter.taken(*(os.path.join(directory, "bases", key) for key in bases))
    return Garbage(unused, tuple(loose), size, "", going, bases)


def unused_bases(
    directory: str, observed: Iterable[Observed], found: Sequence[Snapshot], without: Collection[str] = ()
) -> tuple[str, ...]:
    """Keys of the base layers that no sandbox stands on, nor any of the snapshots `found` but those `without`.

    None while there is a damaged snapshot that nobody has discarded: nobody can say what it stands on.
    """
    if any(each.is_unclear for each in found):
        return ()
    mounted = {path for each in observed if each.workspace for path in each.workspace.lower}
    kept = (path for each in found if each.id not in without for path in each.lower)
    mounted |= {path if path.startswith("/") else os.path.join(directory, path) for path in kept}
    return workspace.unused_bases(directory, mounted)


def _users(
    observed: Iterable[Observed], declared: Mapping[str, Declaration], found: Iterable[Snapshot]
) -> dict[str, set[str]]:
    """By the digest of an image, the sessions that use it. Pure."""
    users: dict[str, set[str]] = {}
    # A session may have two sandboxes while one replaces the other: each of them uses what it was made of.
    made_of = [(each.session, each.made_of) for each in observed if each.made_of is not None]
    made_of += [(f"{each.session} (snapshot)", each.made_of) for each in found if not each.corrupt]
    for name, declaration in [*made_of, *declared.items()]:
        for key in ("image_digest", "image_extra_digest"):
            if digest := declaration.data.get(key):
                users.setdefault(digest, set()).add(name)
    return users
