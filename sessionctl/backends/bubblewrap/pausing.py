"""All processes of a sandbox stopped for a moment, by signals: it takes no cgroup and no rights.

A process cannot refuse SIGSTOP, but one that is not stopped yet may start others, or let stopped ones go
on: all are looked at again until none runs. One that is in vfork(2) stops when its child has gone on to
execve(2); a child that was stopped before that is let go on for a moment. The init is left alone: it does
nothing but wait.
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
        while running := {member: state for member, state in _states(space, pid).items() if state not in _AT_REST}:
            if time.monotonic() > deadline:
                raise BackendError(
                    f"process {min(running)} of {name} could not be paused within {_TIMEOUT:g} s",
                    hint=f"sessionctl stop {name}",
                )
            for member in running:
                with suppress(ProcessLookupError):
                    os.kill(member, signal.SIGSTOP)
            waiting = {member for member, state in running.items() if state == b"D"}
            _let_go({member for member in stopped - running.keys() if waiting and _parent(member) in waiting})
            stopped |= running.keys()
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


_AT_REST = (b"T", b"t", b"Z", b"X")
"""States of a process that is stopped, or no more."""


def _states(space: str, but: int) -> dict[int, bytes]:
    """The state of every process in the PID namespace `space` but one, as the kernel writes it."""
    found = {member: alive.stat(member) for member in alive.members(space) if member != but}
    return {member: stat[0] for member, stat in found.items() if stat}


def _parent(pid: int) -> int:
    stat = alive.stat(pid)
    return int(stat[1]) if stat else 0
