"""What nothing may leave behind: processes, locks, mounts, temporary files, half-made directories, refs.

All that a test starts is found again, in whatever namespace and however orphaned it is: while `Watch`
is entered, the kernel gives orphans of this process to it.
"""

from __future__ import annotations

import ctypes
import os
import re
import time
from pathlib import Path

from sessionctl.model import is_id
from tests.command import Repository, git

_PR_SET_CHILD_SUBREAPER = 36
_TEMPORARY = re.compile(r"\.sessionctl-.*|\.state-.*|.*\.(new|discarded)|state\.db-.*")


class Watch:
    """Knows what was there when it was entered; tells what came and is nobody's."""

    def __enter__(self) -> Watch:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._before = descendants()
        self._mounts = _mounts()
        return self

    def __exit__(self, *_: object) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    def strays(self, repository: Repository) -> list[str]:
        """In words, all that is there and should not be. What is just ending is waited for."""
        until = time.monotonic() + 10
        while (found := self._strays(repository)) and time.monotonic() < until:
            time.sleep(0.02)
        return found

    def _strays(self, repository: Repository) -> list[str]:
        # Others may mount things meanwhile; what is ours is below the state directory, or beside the repository.
        places = (str(repository.state.parent), str(repository.root.parent))
        mounts = [f"mount {line}" for line in _mounts() - self._mounts if any(place in line for place in places)]
        return [
            *_processes(repository, self._before),
            *_locks(repository),
            *_files(repository),
            *_refs(repository),
            *mounts,
        ]


def _mounts() -> set[str]:
    return set(Path("/proc/self/mountinfo").read_text().splitlines())


def descendants() -> dict[int, tuple[int, str]]:
    """All living descendants of this process: their parents and names. Orphans that have ended are reaped."""
    seen: dict[int, tuple[int, str, str]] = {}
    for number in filter(str.isdecimal, os.listdir("/proc")):
        try:
            text = Path(f"/proc/{number}/stat").read_text()
        except OSError:
            continue
        head, _, tail = text.rpartition(")")
        state, parent = tail.split()[:2]
        seen[int(number)] = (int(parent), head.partition("(")[2], state)
    found: dict[int, tuple[int, str]] = {}
    ours = {os.getpid()}
    grown = True
    while grown:
        grown = False
        for pid, (above, comm, _state) in seen.items():
            if above in ours and pid not in ours:
                ours.add(pid)
                found[pid] = (above, comm)
                grown = True
    for pid in list(found):
        if seen[pid][2] in "ZX":
            del found[pid]
            if seen[pid][0] == os.getpid():
                os.waitpid(pid, os.WNOHANG)
    return found


def sandboxes(repository: Repository) -> dict[int, tuple[str, str]]:
    """The first processes of the sandboxes that run, each with its session and id."""
    from sessionctl.backends import Context
    from sessionctl.backends.bubblewrap import Backend
    from sessionctl.git import find_repository

    observed = Backend(Context(find_repository(repository.root).project, repository.state)).observe()
    return {each.pid: (each.session, each.id) for each in observed if each.pid is not None}


def _processes(repository: Repository, before: dict[int, tuple[int, str]]) -> list[str]:
    known = sandboxes(repository)
    now = {pid: about for pid, about in descendants().items() if pid not in before}
    # bwrap waits for the sandbox it made when nobody lived to end it; it goes with the sandbox.
    waiting = {now[pid][0] for pid in known if pid in now}
    return [f"process {pid} {name}" for pid, (_, name) in now.items() if pid not in known and pid not in waiting]


def _locks(repository: Repository) -> list[str]:
    running = {session for session, _ in sandboxes(repository).values()}
    allowed = {os.stat(repository.state / "sessions" / name / "lock").st_ino for name in running}
    held = {
        int(line.split(" EOF")[0].split()[-2].rpartition(":")[2])
        for line in Path("/proc/locks").read_text().splitlines()
    }
    files = {path.stat().st_ino: path for path in repository.state.rglob("*lock") if path.is_file()}
    return [f"lock on {path}" for inode, path in files.items() if inode in held - allowed]


def _files(repository: Repository) -> list[str]:
    state = repository.state
    found = []
    for directory, names, files in os.walk(state):
        names[:] = [name for name in names if not name.startswith(".sessionctl-probe-")]  # the next trial takes it
        if Path(directory).name == "tree":
            names.clear()  # the checkout itself: whole when its base layer has a mark
        found += [f"{directory}/{name}" for name in (*names, *files) if _TEMPORARY.fullmatch(name)]
    for session in (state / "sessions").glob("*"):
        ids = [name for name in os.listdir(session) if is_id(name)]
        found += [f"{session}/{id} has no mark" for id in ids if not (session / id / "mark").exists()]
        found += [f"{session} has {len(ids)} sandboxes"] if len(ids) > 1 else []
        found += [f"{session} is nobody's"] if not ids else []
    found += [
        f"{base} has no mark" for base in (state / "bases").glob("*") if base.is_dir() and not (base / "mark").exists()
    ]
    return found


def _refs(repository: Repository) -> list[str]:
    refs = git(repository.root, "for-each-ref", "--format=%(refname)", "refs/sessionctl/*/base").split()
    return [
        f"{ref} pins for nothing" for ref in refs if not (repository.state / "bases" / ref.rpartition("/")[2]).exists()
    ]
