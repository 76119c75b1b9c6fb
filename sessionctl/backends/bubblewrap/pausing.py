"""All processes of a sandbox stopped for a moment, by signals: it takes no cgroup and no rights.

A process cannot refuse SIGSTOP, but one that is not stopped yet may start others, or let stopped ones go
on: all are looked at again until none runs. The init is left alone: it does nothing but wait.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sessionctl.backends.bubblewrap import alive
from sessionctl.errors import BackendError

_TIMEOUT = 10.0
"""Seconds until all processes must have stopped: one that waits for a disk does so when that answers."""
_POLL = 0.002


@contextmanager
def paused(pid: int, name: str) -> Iterator[None]:
    """While it is entered, nothing runs in the sandbox whose pid 1 is `pid`, but what the agent had stopped itself."""
    space = alive.pid_namespace(pid)
    if not space:
        raise BackendError(f"the processes of {name} cannot be found", hint=f"sessionctl stop {name}")
    stopped: set[int] = set()
    try:
        deadline = time.monotonic() + _TIMEOUT
        while running := {member for member in alive.members(space) if member != pid and not _rests(member)}:
            if time.monotonic() > deadline:
                raise BackendError(
                    f"{len(running)} processes of {name} could not be paused within {_TIMEOUT:g} s",
                    hint=f"sessionctl stop {name}",
                )
            for member in running:
                with suppress(ProcessLookupError):
                    os.kill(member, signal.SIGSTOP)
            stopped |= running
            time.sleep(_POLL)
        yield
    finally:
        _let_go(stopped & set(alive.members(space)))


def let_go(pid: int) -> None:
    """Lets everything run that is stopped in the sandbox whose pid 1 is `pid`."""
    space = alive.pid_namespace(pid)
    if space:
        _let_go({member for member in alive.members(space) if member != pid})


def _let_go(members: set[int]) -> None:
    for member in members:
        with suppress(ProcessLookupError):
            os.kill(member, signal.SIGCONT)


def _rests(pid: int) -> bool:
    """Whether a process is stopped, or no more."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t", b"Z", b"X")
    except OSError:
        return True
