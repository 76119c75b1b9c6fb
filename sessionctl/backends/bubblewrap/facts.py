"""What of this host decides whether sandboxes can be made: read, not judged (see findings.py).

This module changes nothing. The kernel is asked below `proc`, so that hosts which this one is not
can be made of files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

SYSCTLS = (
    *(f"user.max_{space}_namespaces" for space in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")),
    *("kernel.unprivileged_userns_clone", "kernel.apparmor_restrict_unprivileged_userns"),
)
"""Settings that can forbid a sandbox; most kernels have only some of them."""


class Kernel(NamedTuple):
    """What the kernel says of itself and of this process."""

    release: str
    settings: Mapping[str, str]
    """Those of `SYSCTLS` that there are."""
    filters: bool
    """Whether it has system call filters at all."""
    filtered: bool
    """Whether this process is under one already, as in most containers."""
    powerful: bool
    """Whether this process has capabilities although it is not root."""
    mapped: bool
    """Whether the user that sandboxes run as exists in our user namespace."""


class FileSystem(NamedTuple):
    """What a directory lies on."""

    kind: str
    """The kernel's name of it, such as ``ext4``; empty when it cannot be told."""
    options: frozenset[str]


class Facts(NamedTuple):
    """All that is known of a host, and what became of what was tried on it."""

    kernel: Kernel
    bwrap: str
    passed_over: str
    """Why it is not the system's bwrap; empty when it is, or when the system has none."""
    place: str
    """The directory in which it was tried: the state directory, or what of its parents is there."""
    file_system: FileSystem
    unwritable: str
    """Why nothing can be made in `place`. What went well is empty, in these four."""
    isolation: str
    """Why there was no sandbox without an overlay."""
    overlay: str
    """Why there was none with an overlay."""
    entry: str | None
    """Why no command could be run in a session; None when that was not tried."""
    limits: str
    """What holds limits here, for a person."""


def kernel(uid: int, *, proc: str = "/proc") -> Kernel:
    """The kernel, for sandboxes that run as `uid`."""
    settings = {name: _text(f"{proc}/sys/{name.replace('.', '/')}").strip() for name in SYSCTLS}
    status = dict(line.split(":", 1) for line in _text(f"{proc}/self/status").splitlines() if ":" in line)
    spans = [[int(word) for word in line.split()] for line in _text(f"{proc}/self/uid_map").splitlines()]
    return Kernel(
        release=_text(f"{proc}/sys/kernel/osrelease").strip(),
        settings={name: value for name, value in settings.items() if value},
        filters="Seccomp" in status,
        filtered=status.get("Seccomp", "").strip() == "2",
        powerful=int(status.get("CapEff", "0"), 16) != 0 and status.get("Uid", "").split()[1:2] != ["0"],
        mapped=any(first <= uid < first + count for first, _, count in spans),
    )


def file_system(path: str, *, proc: str = "/proc") -> FileSystem:
    """What `path`, a real path, lies on."""
    found = FileSystem("", frozenset())
    longest = -1
    for line in _text(f"{proc}/self/mountinfo").splitlines():
        mount, _, source = line.partition(" - ")
        words = mount.split()
        at = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[4])
        # The later of two at one place covers the earlier.
        if len(at) >= longest and (path == at or path.startswith(f"{at.rstrip('/')}/")):
            longest = len(at)
            found = FileSystem(source.split()[0], frozenset(words[5].split(",")))
    return found


def _text(path: str) -> str:
    """The content of a file; empty when it cannot be read."""
    with suppress(OSError), open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
    return ""


def nearest(directory: str) -> str:
    """The real path of `directory`, or of the nearest above it that is there."""
    path = os.path.realpath(directory)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path
