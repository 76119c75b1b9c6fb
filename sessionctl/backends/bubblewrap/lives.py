"""Which sandboxes live, by what was written down when they were started and by what the kernel says.

This module may not start or end anything; it forgets what has ended.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress

from sessionctl.backends.bubblewrap import alive, grouping
from sessionctl.backends.bubblewrap.alive import Life
from sessionctl.backends.bubblewrap.places import Places, read, taken, write
from sessionctl.errors import BackendError
from sessionctl.model import Observed, is_id

_SETTLE_TIMEOUT = 10.0
"""Seconds that a start which lost its starter may take until it is a sandbox or has failed."""
_POLL = 0.02

Look = Callable[[Places, str, str, str], Life | None]
"""`whole` or `pid1`: takes a session's name, a sandbox's id and the boot that is now."""


def whole(places: Places, name: str, id: str, boot: str) -> Life | None:
    """The life of a sandbox that is whole: one that is still being set up must not be entered."""
    life = pid1(places, name, id, boot)
    return life if life and (os.path.exists(places.file(name, id, "run")) or alive.is_init(life.pid)) else None


def pid1(places: Places, name: str, id: str, boot: str) -> Life | None:
    """The life of a sandbox's first process, whole or still being set up; None when there is none."""
    try:
        life = Life(*json.loads(read(places.file(name, id, "run"))))
        return life if alive.is_lived(life, boot) else None
    except (FileNotFoundError, ValueError, TypeError):
        pass
    try:
        info = read(places.file(name, id, "info"))
    except FileNotFoundError:
        return None
    # Whoever started it was killed before it could write down what it had started.
    pid = keeper(places, name)
    return alive.life_of(pid, boot) if pid is not None and child_pid(info) in (None, pid) else None


def awaited(places: Places, target: Observed, lock: int, boot: str, look: Look) -> Life | None:
    """What `look` finds of `target`, which somebody who was killed had begun to start; None once `lock` is
    ours, for then it has ended."""
    name = target.session
    others = [each for each in filter(is_id, os.listdir(places.session(name))) if each != target.id]
    deadline = time.monotonic() + _SETTLE_TIMEOUT
    while not taken(lock):
        life = look(places, name, target.id, boot)
        if life is not None:
            return life
        if time.monotonic() >= deadline or any(whole(places, name, other, boot) for other in others):
            raise BackendError(
                f"the files of session {name} are in use by another sandbox, or one that is being started",
                hint=f"sessionctl stop {name}",
            )
        time.sleep(_POLL)
    return None


def keeper(places: Places, name: str) -> int | None:
    """The pid 1 that has the session's files, whether or not it is written down; None when there is none."""
    return alive.keeper(places.lock(name), f"{places.session(name)}/home")


def child_pid(info: bytes) -> int | None:
    """The pid in what bwrap wrote; None when it did not come to write all of it."""
    try:
        return int(json.loads(info)["child-pid"])
    except (ValueError, KeyError, TypeError):
        return None


def write_down(places: Places, name: str, id: str, life: Life) -> None:
    """Keeps what a sandbox's pid 1 is, with the proof, unless that is kept already."""
    if not os.path.exists(places.file(name, id, "run")):
        # Not synced: it is worth nothing after a power cut, and cut short it is as if it were not there.
        write(places.file(name, id, "run"), json.dumps(life).encode())


def forget(places: Places, name: str, id: str) -> None:
    """Takes away what was written down of a life that has ended, and its cgroups."""
    grouping.remove(places, name, id)
    for file in ("run", "info"):
        with suppress(FileNotFoundError):
            os.unlink(places.file(name, id, file))


def release(places: Places, name: str, id: str, boot: str) -> None:
    """Removes the cgroups of a sandbox that has ended by itself, unless it is just being started or stopped."""
    with places.locked(name) as (_, free):
        if free and pid1(places, name, id, boot) is None:
            grouping.remove(places, name, id, wait=0)
