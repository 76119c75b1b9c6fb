"""Who uses the images of a project, and what of all that it keeps nobody needs. Decides; `Project.collect` removes.

Unknown means keep: while one sandbox cannot be read, nothing is garbage.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

from sessionctl import snapshots
from sessionctl.disk import Meter
from sessionctl.errors import UsageError
from sessionctl.images import library
from sessionctl.images.library import Kept
from sessionctl.model import Declaration
from sessionctl.trash import Keep, Spent, spent

if TYPE_CHECKING:
    from sessionctl.app import Project
    from sessionctl.snapshots import Snapshot


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


def uses(project: Project) -> list[Use]:
    """Every image of the project and its users, in order of the images' sources."""
    users = _users(project)
    directory = project.directory
    return [
        Use(image, library.size(directory, image.layers), tuple(sorted(users.get(image.declared, ()))))
        for image in library.listing(directory)
    ]


def garbage(project: Project) -> Garbage:
    """What nothing uses now."""
    unknown = _unknown(project)
    if unknown:
        return Garbage((), (), 0, unknown)
    directory, meter = project.directory, Meter()
    sizes: dict[str, int] = {}

    def size_of(snapshot: Snapshot) -> int:
        if snapshot.id not in sizes:
            sizes[snapshot.id] = meter.taken(snapshots.place(directory, snapshot.session, snapshot.id))
        return sizes[snapshot.id]

    tool = project.settings
    keep = Keep(tool.trash_expiry, tool.trash_size, tool.keep_last, tool.keep_age, tool.keep_named)
    going = spent(project.snapshots(), project.operations(), keep, size_of, project.now)
    users, images = _users(project, {each.id for each in going}), library.listing(directory)
    loose = library.loose(directory, [image for image in images if image.declared in users])
    unused = tuple(image for image in images if image.declared not in users)
    bases = project.unused_bases({each.id for each in going})
    size = library.size(directory, loose) + sum(each.size for each in going)
    size += meter.taken(*(os.path.join(directory, "bases", key) for key in bases))
    return Garbage(unused, tuple(loose), size, "", going, bases)


def _users(project: Project, without: Collection[str] = ()) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    # A session may have two sandboxes while one replaces the other: each of them uses what it was made of.
    made_of = [(o.session, o.made_of) for o in project.world().observed if o.made_of is not None]
    kept = [each for each in project.snapshots() if not each.corrupt and each.id not in without]
    made_of += [(f"{each.session} (snapshot)", each.made_of) for each in kept]
    for name, declaration in [*made_of, *_declared(project).items()]:
        for key in ("image_digest", "image_extra_digest"):
            if digest := declaration.data.get(key):
                found.setdefault(digest, set()).add(name)
    return found


def _declared(project: Project) -> Mapping[str, Declaration]:
    """What the manifest declares; nothing when there is none. One that cannot be read is an error."""
    try:
        _ = project.file
    except UsageError:
        return {}
    return project.declared


def _unknown(project: Project) -> str:
    world = project.world()
    for name, why in world.unreachable.items():
        return f"{name} could not be asked: {why}"
    for snapshot in project.snapshots():
        if snapshot.is_unclear:
            return (
                f"snapshot {snapshot.id} of {snapshot.session} cannot be read: {snapshot.corrupt}"
                f" (to give it up: sessionctl discard {snapshot.session} {snapshot.id})"
            )
    for observed in world.observed:
        if observed.made_of is None and observed.id:
            return f"a sandbox of {observed.session} cannot be read: sessionctl apply, or prune"
    return ""
