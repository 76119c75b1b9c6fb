"""Which process is pid 1 of a sandbox: told by the kernel, believed only with proof.

A pid alone is no proof, it is used again; with the time its process started and the boot it
started in, it is. While no such triple is written down (we were killed between starting and
writing) the session's files tell: only its sandbox's own pid 1 has them open or mounted. This
module may not start or change anything, but for `end`, which kills.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import NamedTuple

from sessionctl.errors import BackendError
from sessionctl.model import HOME

INIT = "/.sessionctl/init"
"""What pid 1 of a sandbox that is whole has been started as: our init, which is put there by `profile`."""
_TICKS = os.sysconf("SC_CLK_TCK")


class Life(NamedTuple):
    """One life of a sandbox: its pid 1."""

    pid: int
    start: int
    """Clock ticks after boot, as the kernel counts them."""
    boot: str
    """The kernel's random id of that boot."""
    started_at: float
    """Unix time."""


def boot_id() -> str:
    """The kernel's random id of the running boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def stat(pid: int) -> list[bytes]:
    """What proc(5) says of `pid` after its name: its state, its parent, ...; nothing when it is gone."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return []
    try:
        return os.read(fd, 4096).rpartition(b")")[2].split()
    except ProcessLookupError:
        return []
    finally:
        os.close(fd)


def start_of(pid: int) -> int | None:
    """When `pid` started, in clock ticks after boot; None when it is no more or a zombie."""
    fields = stat(pid)
    return int(fields[19]) if fields and fields[0] not in (b"Z", b"X") else None


def is_lived(life: Life, boot: str) -> bool:
    """Whether `life` still goes on, in the boot whose id is `boot`."""
    return life.boot == boot and start_of(life.pid) == life.start


def life_of(pid: int, boot: str) -> Life | None:
    """The life that `pid` is; None when it has ended."""
    start = start_of(pid)
    if start is None:
        return None
    booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return Life(pid, start, boot, booted_at + start / _TICKS)


def is_init(pid: int) -> bool:
    """Whether `pid` has become our init: only then is its sandbox whole and safe to enter."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read() == INIT.encode() + b"\0"
    except OSError:
        return False


def keeper(lock: str, home: str) -> int | None:
    """The pid 1 of another pid namespace that has `lock` open or `home` mounted; None when there is none.

    Both are proof. The descriptors of a whole sandbox may be looked at by root only, the mounts of
    one that is still being set up by nobody. Looks at every process of the machine: for the rare
    case that nothing is written down.
    """
    for pid in processes():
        try:
            with open(f"/proc/{pid}/status", "rb") as file:
                ids = file.read().partition(b"\nNSpid:")[2].partition(b"\n")[0].split()
        except OSError:
            continue  # ended meanwhile
        if len(ids) > 1 and ids[-1] == b"1" and (has_mounted(pid, home) or _has_open(pid, lock)):
            return pid
    return None


def has_mounted(pid: int, home: str) -> bool | None:
    """Whether `pid` has `home` mounted as its home; None when that cannot be told."""
    inside = f"/proc/{pid}/root{HOME}"
    with suppress(OSError):  # no such directory, not ours to look at, ended meanwhile
        # No link is followed: in a stranger's container it could lead back to the host, to `home`.
        parent = os.open(os.path.dirname(inside), os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found = os.stat(os.path.basename(inside), dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(parent)
        return os.path.samestat(found, os.stat(home))
    return None


def _has_open(pid: int, lock: str) -> bool:
    with suppress(OSError):
        info = os.stat(lock)
        return any(os.path.samestat(os.stat(f"/proc/{pid}/fd/{fd}"), info) for fd in os.listdir(f"/proc/{pid}/fd"))
    return False


def processes() -> list[int]:
    """Every process of the machine that we can see."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def populations() -> dict[str, int]:
    """How many processes each pid namespace has that we may look at, by the namespace's name."""
    count: dict[str, int] = {}
    for pid in processes():
        space = pid_namespace(pid)
        count[space] = count.get(space, 0) + 1
    return count


def members(space: str) -> list[int]:
    """The processes in the pid namespace that the kernel calls `space`."""
    return [pid for pid in processes() if pid_namespace(pid) == space]


def pid_namespace(pid: int) -> str:
    """The kernel's name of the pid namespace that `pid` lives in; empty when it cannot be told."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def shared_spaces(pid: int) -> list[str]:
    """The namespaces `pid` shares with us although no sandbox may."""
    spaces = ("user", "mnt", "pid", "net", "ipc", "uts")
    return [name for name in spaces if os.readlink(f"/proc/{pid}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}")]


def end(pid: int, start: int, timeout: float = 120.0) -> None:
    """Kills the process `pid` that started at `start`, and returns when it is gone.

    As pid 1 it takes its whole namespace with it: the kernel reports its end after theirs.
    `BackendError` when that takes more than `timeout` seconds: the kernel writes all that is unwritten
    on the disk of an overlay when its last mount goes.
    """
    import select
    import signal

    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if start_of(pid) != start:
            return
        signal.pidfd_send_signal(process, signal.SIGKILL)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        if not poll.poll(timeout * 1000):
            raise BackendError(
                f"process {pid} did not end within {timeout:g} s of SIGKILL",
                hint="a process that waits for a disk or a file server ends when that answers; try again then",
            )
    except ProcessLookupError:
        return
    finally:
        os.close(process)
