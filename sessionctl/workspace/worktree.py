"""Mode ``worktree``: a visible checkout that is a worktree of the user's repository as well, for git on the host.

Inside, the session has its repository elsewhere, and a file over ``.git`` that says where. On the host, ``.git`` names
the administrative directory of a worktree, which nothing inside can reach. The two share no more than the files: the
session's commits come with `fetch`, and the host's index follows them.

In the project's state directory, the file ``worktrees`` is there since there was such a session: what it holds marks
the worktrees that belong to this state directory, and no other.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from sessionctl import beneath, git
from sessionctl.beneath import StrPath
from sessionctl.errors import GitError
from sessionctl.git import worktrees
from sessionctl.git.worktrees import Worktree
from sessionctl.model import APART, WORKSPACE, Mount, is_name
from sessionctl.workspace.standing import Owner, load_standing

FILE = "worktrees"
_POINTER = f"gitdir: {APART}\n".encode()


class _Session(NamedTuple):
    """One whose files are to be a worktree."""

    name: str
    tree: str
    commit: str
    id: str | None
    """Of the worktree that its ``.git`` names on the host; empty: none. None: that cannot be read."""


def announce(directory: StrPath) -> None:
    """Says that the project in the state directory `directory` has worktrees, from now on."""
    if not _key(directory):
        beneath.publish(os.path.join(directory, FILE), os.urandom(16).hex().encode())


def mounts(fresh: str, final: str, tree: str, owner: Owner) -> tuple[Mount, Mount]:
    """Makes what is to be mounted, in the new work `fresh` and in its files `tree`; how it is, in its place `final`."""
    beneath.write(fresh, "pointer", _POINTER, 0o644, owner)
    os.close(os.open(os.path.join(tree, ".git"), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    repository, pointer = os.path.join(final, "repository", ".git"), os.path.join(final, "pointer")
    return Mount(repository, APART, True), Mount(pointer, f"{WORKSPACE}/.git")


def of_session(repository: git.Repository, directory: StrPath, name: str) -> Worktree | None:
    """The worktree that session `name` is; None when it is none."""
    key = _key(directory)
    session = _session(directory, name) if key else None
    return worktrees.ours(repository, key).get(session.id or "") if session is not None else None


def settle(repository: git.Repository, directory: StrPath, branch_of: Callable[[str], str]) -> None:
    """Makes git's worktrees those of the sessions that are there, each on the branch that `branch_of` its name gives.

    Idempotent; whatever was done to sessions before. Only while the project's lock is held. A worktree is taken off
    git's list only when it is known that no session has it.
    """
    key = _key(directory)
    if not key:
        return
    above = os.path.join(directory, "sessions")
    names = sorted(filter(is_name, beneath.names(above)))
    try:
        sessions = [each for each in (_session(directory, name) for name in names) if each is not None]
    except GitError:
        return  # one cannot be read: which worktree it has is not known
    known = worktrees.ours(repository, key)
    # A fork has its parent's `.git` at first: a worktree is of the session where it says that its files are.
    sessions.sort(key=lambda each: not each.id or each.id not in known or known[each.id].tree != each.tree)
    for each in sessions:
        branch = branch_of(each.name)
        if each.id is None or not branch:
            known = {id: at for id, at in known.items() if id != each.id and at.tree != each.tree}
            continue
        found = known.pop(each.id, None)
        if found is None or not found.tree:
            if found is not None:
                worktrees.forget(found)
            found = worktrees.link(repository, each.name, each.tree, branch, each.commit, key)
        if found.tree != each.tree:
            found = worktrees.place(found, each.tree)
        if found.branch != branch:
            found = worktrees.put(repository, found, branch)
        worktrees.follow(repository, found)
        _point(each.tree, found)
    for left in known.values():
        worktrees.forget(left)


def _key(directory: StrPath) -> str:
    try:
        with open(os.path.join(directory, FILE), encoding="ascii") as file:
            return file.read(64)
    except FileNotFoundError:
        return ""


def _session(directory: StrPath, name: str) -> _Session | None:
    """What is known of session `name`; None when it is no worktree. `GitError` when that cannot be told."""
    standing = load_standing(directory, name)
    if standing is None or standing.mode != "worktree":
        return None
    tree = standing.workspace.upper
    id: str | None = None
    # Somebody may have taken away what the sandbox covers: what is there then, an agent may have made.
    with suppress(OSError):
        said = beneath.read(tree, ".git", 8192)
        id = os.path.basename(os.fsdecode(said.removeprefix(b"gitdir: ").strip()))
    return _Session(name, tree, standing.workspace.commit, id)


def _point(tree: str, worktree: Worktree) -> None:
    """Names `worktree` in ``.git`` of its files: in place, for a sandbox that runs has another file mounted on it."""
    line = b"gitdir: " + os.fsencode(worktree.admin) + b"\n"
    path = os.path.join(tree, ".git")
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
            raise GitError(f"{path} is not the file that sessionctl made", hint="remove it, and stop the session")
        if os.pread(fd, len(line) + 1, 0) != line:
            os.pwrite(fd, line, 0)
            os.ftruncate(fd, len(line))
            os.fsync(fd)
    finally:
        os.close(fd)
