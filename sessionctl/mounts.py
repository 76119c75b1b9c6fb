"""What of the host a session may see by `mounts`: looked at when a plan is made. Reads, changes nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence

from sessionctl.model import MountSpec, is_within

_KERNEL = ("/proc", "/sys", "/dev")


def refusals(mounts: Iterable[MountSpec], ours: Mapping[str, str], read_only: Mapping[str, str]) -> list[str]:
    """Why some of `mounts` cannot be had, one sentence each.

    `ours`: real paths that no session may see, directly or in what holds them, and what they are.
    `read_only`: the same for what none may write, directly or in what holds it.
    """
    found = []
    for mount in mounts:
        why = unfit(mount.source, ours) or (_written(mount.source, read_only) if mount.mode == "rw" else "")
        if why:
            found.append(f"mounts.{mount.path}: {mount.source} {why}")
    return found


def unfit(source: str, ours: Mapping[str, str]) -> str:
    """Why `source`, a real path, may not be seen by a session; empty when it may. `ours` as in `refusals`."""
    why = hidden(source, ours)
    if why:
        return why
    try:
        mode = os.lstat(source).st_mode
    except OSError as error:
        return f"cannot be used: {error.strerror}"
    if stat.S_ISLNK(mode) or os.path.realpath(source) != source:
        return "became a symbolic link: run the command again, to see where it leads"
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        return "is neither a directory nor a regular file"
    return ""


def _written(source: str, read_only: Mapping[str, str]) -> str:
    for place, what in read_only.items():
        if is_within(place, source):
            return f"is or holds {what}, which no session may write: mount it with mode ro, or another directory"
    return ""


def hidden(path: str, ours: Mapping[str, str]) -> str:
    """Why no session may have the real path `path`, whatever is there; `ours` as for `refusals`."""
    if path == "/":
        return "is all of the host"
    for place in _KERNEL:
        if is_within(path, place):
            return f"is a part of {place}"
    for place, what in ours.items():
        if is_within(place, path):
            return f"is or holds {what}"
        if is_within(path, place):
            return f"lies in {what}"
    return ""


def warnings(mounts: Iterable[MountSpec], owner: tuple[int, int] | None) -> list[str]:
    """What of `mounts` the sandboxes' user cannot use as declared; `owner` as in `Backend.owner`."""
    if owner is None:
        return []
    return [
        f"uid {owner[0]}, which root's sandboxes run as, cannot {verb} {mount.source}"
        for mount in mounts
        for verb in _denied(mount, owner)
    ]


def _denied(mount: MountSpec, owner: tuple[int, int]) -> Sequence[str]:
    """What `owner` may not do with the source itself; what is in a directory may be different."""
    info = os.stat(mount.source)
    shift = 6 if info.st_uid == owner[0] else 3 if info.st_gid == owner[1] else 0
    bits = info.st_mode >> shift
    if not bits & 4:
        return ["read"]
    return ["write"] if mount.mode == "rw" and not bits & 2 else []
