"""What this machine and this repository need for sessions, looked at one by one. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from sessionctl import declared, git, plugins, process
from sessionctl.backends import Backend, Context
from sessionctl.errors import SessionctlError
from sessionctl.plugins import DEFAULT_BACKEND

if TYPE_CHECKING:
    from sessionctl.app.sources import Sources

GIT = (2, 39)
"""The oldest git that everything here was run with."""
_FULL = 32 << 20
"""Free bytes with which not even a small session can be made."""
_TIGHT = 1 << 30
"""Free bytes that one build of an agent's may need."""
_INODES = 10_000
"""Free inodes that one install of an agent's may need."""


class Check(NamedTuple):
    """One thing that `doctor` looked at."""

    ok: bool
    what: str
    found: str
    remedy: str = ""
    """What a person can do. With `ok` it is advice: all works, and could be better."""


def checks(sources: Sources) -> list[Check]:
    """Every check in the order in which a person would mend them."""
    return list(_checks(sources))


def machine(missing: SessionctlError, state_dir: str | None = None) -> list[Check]:
    """What can be looked at where there is no repository: `missing` says why there is none."""
    state_dir = declared.tool({"state_dir": state_dir}).state_dir
    backend: Backend = plugins.load("backends", DEFAULT_BACKEND)(Context("none", state_dir))
    none = Check(True, "repository", f"{missing}; {missing.hint}")
    return [_git(), none, _disk(state_dir), *_findings(DEFAULT_BACKEND, backend)]


def _checks(sources: Sources) -> Iterator[Check]:
    yield _git()
    yield Check(True, "repository", sources.repository.root)
    backends = {DEFAULT_BACKEND}
    try:
        file = sources.file
    except SessionctlError as error:
        yield Check(True, "manifest", f"none yet: {error.hint}")
    else:
        try:
            backends |= {declaration.data["backend"] for declaration in sources.declared.values()}
            yield Check(True, "manifest", f"{file}: {_count(len(sources.declared), 'session')}")
        except SessionctlError as error:
            yield Check(False, "manifest", str(error), error.hint)
    try:
        count = len(sources.store.records())
        yield Check(True, "state directory", f"{sources.directory}: {_count(count, 'record')}")
    except SessionctlError as error:
        yield Check(False, "state directory", str(error), error.hint)
    yield _disk(os.fspath(sources.directory))
    for name in sorted(backends):
        yield from _backend(sources, name)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _git() -> Check:
    try:
        said = process.run(("git", "--version")).text()
    except SessionctlError as error:
        return Check(False, "git", str(error), "install git")
    return git_check(git.printable(said))


def git_check(said: str) -> Check:
    """What `said`, the answer of ``git --version``, means."""
    numbers = (said.split() + ["", "", ""])[2].split(".")[:2]
    version = tuple(int(part) for part in numbers if part.isdecimal())
    if version >= GIT:
        return Check(True, "git", said)
    return Check(False, "git", said, f"install git {'.'.join(map(str, GIT))} or later")


def _disk(directory: str) -> Check:
    place = os.path.realpath(directory)
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    try:
        found = os.statvfs(place)
    except OSError as error:
        return Check(False, "disk", f"{place}: {error.strerror}", "mount it, or choose another one (--state-dir)")
    if not found.f_blocks:
        return Check(True, "disk", f"{place}: nobody can tell its size")
    # Btrfs and some others make inodes as they need them, and say that they have none.
    inodes = found.f_favail if found.f_files else _INODES
    return disk_check(place, found.f_bavail * found.f_frsize, inodes)


def disk_check(place: str, free: int, inodes: int) -> Check:
    """What `free` bytes and `inodes` to be had at `place` mean."""
    if free < _FULL or not inodes:
        what = f"{place} is full: {free >> 20} MiB and {inodes} files are free"
        return Check(False, "disk", what, f"make room: what you remove from the manifest, {_PRUNE} removes")
    said = f"{free / (1 << 30):.1f} GiB free"
    if free < _TIGHT or inodes < _INODES:
        what = f"{place} is nearly full: {said}, and {_count(inodes, 'file')}"
        return Check(True, "disk", what, f"make room: what you remove from the manifest, {_PRUNE} removes")
    return Check(True, "disk", f"{place}: {said}")


_PRUNE = "`sessionctl prune`"


def _backend(sources: Sources, name: str) -> Iterator[Check]:
    try:
        backend = sources.backend(name)
    except SessionctlError as error:
        yield Check(False, f"backend {name}", str(error), error.hint)
        return
    yield from _findings(name, backend)


def _findings(name: str, backend: Backend) -> Iterator[Check]:
    for finding in backend.examine():
        yield Check(finding.ok, f"{name}: {finding.what}", finding.why, finding.remedy)
