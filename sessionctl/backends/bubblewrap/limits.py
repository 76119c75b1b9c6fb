"""What a sandbox may use: cgroups where we may make some, else what a process can take on itself.

A sandbox with limits has a directory of its own in each cgroup hierarchy that is needed, below
``sessionctl/<project>/<session>/``; which ones is written down beside its mark before they are
made. Without cgroups, limits are taken on by each command on its way in (see entry.py). This module
may not decide whether a limit that does not hold is to be refused.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import NamedTuple

from sessionctl.backends import Refusal
from sessionctl.errors import BackendError
from sessionctl.model import LimitsSpec
from sessionctl.units import parse_size

_CONTROLLERS = {"memory": "memory", "pids": "pids", "cpus": "cpu"}
"""The kernel's name of what enforces each limit."""
_PARENT = "sessionctl"
_SWAP = ("memory.swap.max", "memory.memsw.limit_in_bytes")
_PERIOD = 100_000
"""Microseconds in which processor time is shared out: the kernel's own default."""
_RLIMIT_DATA, _RLIMIT_NPROC = 2, 6
_COUNTED_PER_SANDBOX = (5, 14)
"""The first Linux that counts RLIMIT_NPROC in each user namespace, not over all that the user runs."""


class Hierarchy(NamedTuple):
    """Where cgroups for one limit can be made."""

    limit: str
    version: int
    """1 or 2, of cgroups."""
    path: str
    """The directory that ours go below."""


class Group(NamedTuple):
    """The cgroup of one sandbox for one limit; of version 2, the same directory is that for others."""

    limit: str
    version: int
    path: str

    @property
    def procs(self) -> str:
        """The file that a process must write itself to."""
        return f"{self.path}/cgroup.procs"


class Means(NamedTuple):
    """What this process can limit a sandbox with."""

    hierarchies: tuple[Hierarchy, ...]
    missing: str
    """Why there is no cgroup for the other limits."""

    @property
    def limits(self) -> frozenset[str]:
        return frozenset(hierarchy.limit for hierarchy in self.hierarchies)


# --- what there is -----------------------------------------------------------------------------


@cache
def means() -> Means:
    """What is there, looked at once per process. Changes nothing."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = file.read()
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            own = file.read()
    except OSError as error:
        return Means((), f"{error.filename} cannot be read: {error.strerror}")
    return find(mounts, own, root=os.geteuid() == 0)


def find(mounts: str, own: str, *, root: bool) -> Means:
    """What the cgroup mounts in `mounts` (the form of mountinfo) offer a process whose cgroups `own` names."""
    first, second = _mounted(mounts)
    missing = "no cgroup hierarchy is mounted" if not first and not second else ""
    found = []
    base, reason = _base(second, own, root=root) if second else ("", "")
    for limit, controller in _CONTROLLERS.items():
        if second and controller in _words(f"{second}/cgroup.controllers"):
            if base and not (why := _undividable(base, controller)):
                found.append(Hierarchy(limit, 2, base))
            else:
                missing = missing or reason or why
        elif controller not in first:
            missing = missing or f"no cgroup hierarchy has the controller {controller}"
        elif root and os.access(first[controller], os.W_OK):
            found.append(Hierarchy(limit, 1, first[controller]))
        else:
            missing = missing or f"{first[controller]} may not be written, and cgroup v1 is not delegated to users"
    return Means(tuple(found), missing)


def _mounted(mounts: str) -> tuple[dict[str, str], str]:
    """Where each controller of cgroup v1 is mounted, and where cgroup v2 is."""
    first: dict[str, str] = {}
    second = ""
    for line in mounts.splitlines():
        mount, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind == "cgroup":
            first |= dict.fromkeys(options.split(","), mount.split()[4])
        elif kind == "cgroup2":
            second = mount.split()[4]
    return first, second


def _base(mounted: str, own: str, *, root: bool) -> tuple[str, str]:
    """The cgroup v2 that ours go below, or why there is none.

    For root the topmost; for a user the topmost that was delegated to them and that holds this
    process: the kernel lets nobody move a process out of what they do not own.
    """
    if root:
        return (mounted, "") if _is_writable(mounted) else ("", f"{mounted} may not be written")
    path = next((line[3:] for line in own.splitlines() if line.startswith("0::")), "/")
    parts = [part for part in path.split("/") if part]
    places = ["/".join([mounted, *parts[:count]]) for count in range(1, len(parts) + 1)]
    for place in places:
        if ".." not in parts and _is_writable(place):
            return place, ""
    return "", f"no cgroup above this process is delegated to this user ({path} is root's)"


def _is_writable(directory: str) -> bool:
    files = (directory, f"{directory}/cgroup.procs", f"{directory}/cgroup.subtree_control")
    return all(os.access(file, os.W_OK) for file in files)


def _undividable(base: str, controller: str) -> str:
    """Why cgroups below `base` cannot have `controller`; empty when they can."""
    if controller in _words(f"{base}/cgroup.subtree_control"):
        return ""
    if controller not in _words(f"{base}/cgroup.controllers"):
        return f"the controller {controller} is not delegated to {base}"
    # Only the very root, which has no type, may both hold processes and be divided.
    if os.path.exists(f"{base}/cgroup.type") and _words(f"{base}/cgroup.procs"):
        return f"{base} holds processes itself, so it cannot be divided"
    return ""


def unenforced(limits: LimitsSpec, grouped: Collection[str], missing: str) -> list[Refusal]:
    """Which of `limits` do not hold as they are declared when there are cgroups for `grouped` only."""
    found = []
    delegate = "run as root, or in a delegated cgroup: systemd-run --user --scope -p Delegate=yes"
    if limits.memory and "memory" not in grouped:
        why = f"without a cgroup each process is limited by itself, and not the session: {missing}"
        found.append(Refusal("limits.memory", why, delegate))
    if limits.cpus and "cpus" not in grouped and limits.cpus % 1:
        why = f"without a cgroup only whole processors can be given: {missing}"
        found.append(Refusal("limits.cpus", why, f"declare a whole number; or {delegate}"))
    if limits.pids and "pids" not in grouped and _kernel() < _COUNTED_PER_SANDBOX:
        why = f"without a cgroup processes of a sandbox are counted since Linux 5.14: {missing}"
        found.append(Refusal("limits.pids", why, delegate))
    if limits.disk:
        why = "bubblewrap mounts directories of the host, and has no size to give them"
        found.append(Refusal("limits.disk", why, "put the state directory on a file system of that size"))
    return found


def summary(found: Means) -> str:
    """What holds here, in one line for a person."""
    parts = [f"{h.limit} by cgroup v{h.version}" for h in found.hierarchies]
    alone = {"memory": "memory of each process only", "pids": "pids by RLIMIT_NPROC", "cpus": "whole cpus by affinity"}
    parts += [text for limit, text in alone.items() if limit not in found.limits]
    return ", ".join(parts) + (f" ({found.missing})" if found.missing else "")


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])


# --- cgroups -----------------------------------------------------------------------------------


def groups(limits: LimitsSpec, found: Means, project: str, session: str, id: str) -> list[Group]:
    """The cgroups that a sandbox with `limits` is to have."""
    below = f"{_PARENT}/{project[:12]}/{session}/{id}"
    wanted = limits._asdict()
    return [Group(h.limit, h.version, f"{h.path}/{below}") for h in found.hierarchies if wanted[h.limit]]


def dump(made: Sequence[Group]) -> bytes:
    return json.dumps(made).encode()


def load(text: bytes) -> list[Group]:
    """The inverse of `dump`; nothing when a crash cut `text` short: then nothing was made yet."""
    try:
        return [Group(*each) for each in json.loads(text)]
    except (ValueError, TypeError):
        return []


def make(made: Sequence[Group], limits: LimitsSpec) -> None:
    """Makes the directories of `made` where they are missing, and gives them the values of `limits`."""
    try:
        for group in made:
            _make(group)
        for group in made:
            for name, value in values(group, limits):
                _set(group, name, value, limits)
    except OSError as error:
        why = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise BackendError(f"limits cannot be put in place: {why}") from error


def _make(group: Group) -> None:
    for _ in range(100):  # who removes the last sandbox beside it removes the directories above too
        try:
            if group.version == 2:
                above = group.path.rpartition(f"/{_PARENT}/")[0]
                for part in group.path[len(above) + 1 :].split("/"):
                    _enable(above, _CONTROLLERS[group.limit])
                    above = f"{above}/{part}"
                    with suppress(FileExistsError):
                        os.mkdir(above)
            else:
                os.makedirs(group.path, exist_ok=True)
            return
        except FileNotFoundError:
            continue
    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), group.path)


def _enable(directory: str, controller: str) -> None:
    if controller not in _words(f"{directory}/cgroup.subtree_control"):
        _write(f"{directory}/cgroup.subtree_control", f"+{controller}")


def _set(group: Group, name: str, value: str, limits: LimitsSpec) -> None:
    path = f"{group.path}/{name}"
    if name in _SWAP and not os.path.exists(path):
        return  # a kernel that does not count swap
    try:
        _write(path, value)
    except OSError as error:
        if error.errno == errno.EINVAL and name == "memory.limit_in_bytes":
            # With swap is never less than without: raised, the one that comes after must come first.
            _write(f"{group.path}/memory.memsw.limit_in_bytes", value)
            _write(path, value)
        elif error.errno == errno.EBUSY:
            raise BackendError(
                f"limits.memory cannot become {limits.memory} while more than that is in use",
                hint="end something inside, or stop the session first",
            ) from error
        else:
            raise


def values(group: Group, limits: LimitsSpec) -> list[tuple[str, str]]:
    """What is to be written to the files of `group`, in this order; for a limit that is not declared, no limit."""
    first = group.version == 1
    if group.limit == "memory":
        count = str(parse_size(limits.memory)) if limits.memory else "-1" if first else "max"
        if first:
            return [("memory.limit_in_bytes", count), ("memory.memsw.limit_in_bytes", count)]
        return [("memory.swap.max", "0" if limits.memory else "max"), ("memory.max", count)]
    if group.limit == "pids":
        return [("pids.max", str(limits.pids) if limits.pids else "max")]
    quota = str(round(limits.cpus * _PERIOD)) if limits.cpus else "-1" if first else "max"
    if first:
        return [("cpu.cfs_period_us", str(_PERIOD)), ("cpu.cfs_quota_us", quota)]
    return [("cpu.max", f"{quota} {_PERIOD}")]


def take_in(made: Sequence[Group], members: Iterable[int]) -> None:
    """Moves the processes `members` into `made`. One that has ended meanwhile is none."""
    for pid in members:
        for path in {group.procs for group in made}:
            with suppress(ProcessLookupError):
                _write(path, str(pid))


def strikes(made: Iterable[Group]) -> dict[str, int]:
    """How often each limit of `made` that the kernel counts has struck."""
    counted = {}
    files = {("memory", 1): ("memory.oom_control", "oom_kill"), ("memory", 2): ("memory.events", "oom_kill")}
    files |= {("pids", version): ("pids.events", "max") for version in (1, 2)}
    for group in made:
        if (group.limit, group.version) in files:
            name, key = files[group.limit, group.version]
            words = _words(f"{group.path}/{name}")
            if key in words:
                counted[group.limit] = int(words[words.index(key) + 1])
    return counted


def remove(made: Iterable[Group], wait: float) -> None:
    """Removes the cgroups `made`, and those above that held only them. `BackendError` when processes
    are in one for more than `wait` seconds."""
    for path in sorted({group.path for group in made}):
        until = time.monotonic() + wait
        while not _removed(path):
            if time.monotonic() >= until:
                raise BackendError(f"the cgroup {path} still holds processes", hint="end them, then try again")
            time.sleep(0.005)  # what was killed leaves it when the kernel comes to that: nothing tells of it in v1
        above = os.path.dirname(path)
        while f"/{_PARENT}" in above:
            try:
                os.rmdir(above)
            except OSError:
                break  # other sandboxes are there
            above = os.path.dirname(above)


def _removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise BackendError(f"the cgroup {path} cannot be removed: {error.strerror}") from error
        return False
    return True


def _words(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().split()
    except OSError:
        return []


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise type(error)(error.errno, error.strerror, path) from error
    finally:
        os.close(fd)


# --- without cgroups ---------------------------------------------------------------------------


def rlimits(limits: LimitsSpec, made: Iterable[Group]) -> dict[int, int]:
    """Resource limits, by the kernel's number, for each process of a sandbox that has the cgroups `made` only."""
    grouped = {group.limit for group in made}
    found = {}
    if limits.memory and "memory" not in grouped:
        # Not RLIMIT_AS: it counts what is reserved and never used, and runtimes reserve gigabytes.
        found[_RLIMIT_DATA] = parse_size(limits.memory)
    if limits.pids and "pids" not in grouped and _kernel() >= _COUNTED_PER_SANDBOX:
        found[_RLIMIT_NPROC] = limits.pids
    return found


def processors(limits: LimitsSpec, made: Iterable[Group], id: str, usable: Collection[int]) -> list[int]:
    """The processors, of those `usable`, that the sandbox `id` may run on; none when it may run on all.

    The same for each of its commands, and spread over the sandboxes.
    """
    count = -int(-limits.cpus // 1)
    if not limits.cpus or any(group.limit == "cpus" for group in made) or count >= len(usable):
        return []
    import zlib

    ordered = sorted(usable)
    first = zlib.crc32(id.encode()) % len(ordered)
    return sorted((ordered + ordered)[first : first + count])
