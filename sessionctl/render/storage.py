"""What is on the disk: what sessions take of it, images, and what nothing needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sessionctl.render.text import Paint, moment, printable, table
from sessionctl.units import size

if TYPE_CHECKING:
    from sessionctl.disk import Disk
    from sessionctl.garbage import Garbage, Use
    from sessionctl.images.library import Kept


def images_text(uses: Sequence[Use], paint: Paint) -> str:
    """A table of images."""
    rows = [
        (
            (_short(each.image.digest), "bold"),
            (size(each.size), ""),
            (str(len(each.image.layers)), ""),
            (", ".join(each.users) or "-", ""),
            (printable(each.image.source), "dim"),
        )
        for each in uses
    ]
    return table(("IMAGE", "SIZE", "LAYERS", "USED BY", "FROM"), rows, paint)


def images_data(uses: Sequence[Use]) -> list[dict[str, Any]]:
    """The JSON form of images."""
    return [{**_image_data(each.image), "size": each.size, "users": list(each.users)} for each in uses]


def _image_data(image: Kept) -> dict[str, Any]:
    return {
        "digest": image.digest,
        "source": image.source,
        "layers": list(image.layers),
        "env": sorted(image.config.env),
        "user": image.config.user or None,
        "directory": image.config.directory or None,
        "made_at": moment(image.made_at),
    }


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def garbage_text(found: Garbage) -> str:
    """What `gc` would remove, or why nothing."""
    if found.kept:
        return f"nothing is removed: {printable(found.kept)}"
    if not found:
        return "nothing to remove"
    lines = [f"- snapshot {each.id} of {each.session}  {size(each.size)}  {each.why}" for each in found.snapshots]
    lines += [f"- image {_short(image.digest)}  {printable(image.source)}" for image in found.images]
    parts = [(len(found.layers), "layer"), (len(found.bases), "base layer")]
    loose = [f"{count} {word}{'s' * (count != 1)} that nothing else uses" for count, word in parts if count]
    return "\n".join([*lines, *loose, f"{size(found.size)} in all"])


def garbage_data(found: Garbage) -> dict[str, Any]:
    """The JSON form of what `gc` would remove."""
    return {
        "images": [_image_data(image) for image in found.images],
        "layers": list(found.layers),
        "snapshots": [
            {"id": each.id, "session": each.session, "size": each.size, "reason": each.why} for each in found.snapshots
        ],
        "bases": list(found.bases),
        "size": found.size,
        "kept": found.kept or None,
    }


def disk_text(disk: Disk, paint: Paint) -> str:
    """A table of what sessions take on the disk, and what they share."""
    rows = [
        (
            (each.session, "bold"),
            *((size(part), "") for part in each[1:6]),
            (f"{'' if each.whole else 'at least '}{size(each.total)}", ""),
        )
        for each in disk.sessions
    ]
    heads = ("NAME", "WORKSPACE", "HOME", "SANDBOX", "SNAPSHOTS", "TRASH", "TOTAL")
    total = sum(each.total for each in disk.sessions) + disk.bases + disk.images
    shared = f"base layers {size(disk.bases)}, images {size(disk.images)}"
    return f"{table(heads, rows, paint)}\nshared, and counted once: {shared}\nin all: {size(total)}"


def disk_data(disk: Disk) -> dict[str, Any]:
    """The JSON form of the same; its shape is described in docs/json.md."""
    sessions = [
        {
            "name": each.session,
            "workspace": each.workspace,
            "home": each.home,
            "sandbox": each.sandbox,
            "snapshots": each.snapshots,
            "trash": each.trash,
            "whole": each.whole,
        }
        for each in disk.sessions
    ]
    return {"sessions": sessions, "shared": {"bases": disk.bases, "images": disk.images}}
