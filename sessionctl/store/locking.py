"""The lock for what changes the set of sandboxes, and who holds it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep

from sessionctl.errors import LockedError, StoreError
from sessionctl.store.directory import REMEDY, require_directory

_POLL = 0.02
"""Seconds between two tries of the lock; flock itself knows no time limit."""


@contextmanager
def held(directory: str, wait: float) -> Iterator[None]:
    """Holds the lock of the store in `directory`; what `Store.lock` promises."""
    require_directory(directory)
    path = os.path.join(directory, "lock")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error.strerror}", hint=REMEDY) from error
    try:
        deadline = monotonic() + wait
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if monotonic() >= deadline:
                    raise LockedError(
                        f"another sessionctl is changing this project's sandboxes: {_holder(fd)}",
                        hint="try again when it has ended",
                    ) from None
                sleep(_POLL)
            except OSError as error:
                raise StoreError(f"{path} cannot be locked: {error.strerror}", hint=REMEDY) from error
        yield
    finally:
        os.close(fd)


def _holder(fd: int) -> str:
    """``pid 123 (command)`` of the process that holds the flock on the file of `fd`, ``?`` for what is not known.

    Only inodes are compared: on btrfs the device in /proc/locks is another one than stat gives.
    """
    inode = str(os.fstat(fd).st_ino)
    pid = "?"
    try:
        with open("/proc/locks", encoding="ascii") as locks:
            lines = locks.read().splitlines()
        for line in lines:
            # "2: FLOCK  ADVISORY  WRITE 4711 08:01:131134 0 EOF"; a waiting one has "->" after its number
            words = line.split()
            if words[1] == "FLOCK" and words[5].rpartition(":")[2] == inode:
                pid = words[4]
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read().rstrip(b"\0").replace(b"\0", b" ")
    except OSError:
        command = b""
    shown = command.decode("utf-8", "replace")[:200]
    return f"pid {pid} ({''.join(c if c.isprintable() else '?' for c in shown) or '?'})"
