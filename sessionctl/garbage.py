"""Who uses the images of a project, and which of them nobody does. Decides; `Project.collect` removes.

Unknown means keep: while one sandbox cannot be read, nothing is garbage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from sessionctl.errors import UsageError
from sessionctl.images import library
from sessionctl.images.library import Kept
from sessionctl.model import Declaration

if TYPE_CHECKING:
    from sessionctl.app import Project


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
    users, images = _users(project), library.listing(project.directory)
    loose = library.loose(project.directory, [image for image in images if image.declared in users])
    unused = tuple(image for image in images if image.declared not in users)
    return Garbage(unused, tuple(loose), library.size(project.directory, loose))


def _users(project: Project) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    # A session may have two sandboxes while one replaces the other: each of them uses what it was made of.
    made_of = [(o.session, o.made_of) for o in project.world().observed if o.made_of is not None]
    made_of += [(f"{each.session} (snapshot)", each.made_of) for each in project.snapshots() if not each.corrupt]
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
        if snapshot.corrupt:
            return f"snapshot {snapshot.id} of {snapshot.session} cannot be read: {snapshot.corrupt}"
    for observed in world.observed:
        if observed.made_of is None and observed.id:
            return f"a sandbox of {observed.session} cannot be read: sessionctl apply, or prune"
    return ""
