"""Worktrees of the user's repository that are sessions: what git keeps of each, as gitrepository-layout(5) has it.

The files of such a worktree are an agent's, who sees nothing of this. Git is told here of commits and of the
index, never of the files. Each is locked, so that git neither prunes nor moves it, and has a file of ours, which
says whose it is.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import NamedTuple

from sessionctl import beneath, process
from sessionctl.errors import GitError
from sessionctl.git.finding import SESSION_MARK, Repository, read
from sessionctl.git.gate import run
from sessionctl.git.host import UNDER_WAY, ref_of_host
from sessionctl.git.names import REF_LIMIT, printable, symbolic

_HEADS = "refs/heads/"
_LINE = 8192


class Worktree(NamedTuple):
    """One that is a session."""

    admin: str
    """Its administrative directory, below ``worktrees`` of the repository."""
    tree: str
    """Where its files are said to be; empty: that was not written yet."""
    key: str
    """Of the state directory that it belongs to."""
    branch: str
    """The session's, when it was last put on one."""
    at: str
    """The commit that its index was last brought to; empty: none yet."""


def ours(repository: Repository, key: str) -> dict[str, Worktree]:
    """By id, the worktrees of the repository that are marked with `key`, half-made ones too."""
    above = os.path.join(repository.common_dir, "worktrees")
    found = {}
    for id in sorted(beneath.names(above)):
        admin = os.path.join(above, id)
        try:
            mark = json.loads(read(os.path.join(admin, SESSION_MARK), _LINE))
            known = Worktree(admin, "", str(mark["key"]), str(mark["branch"]), str(mark["at"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        with suppress(FileNotFoundError):
            said = os.fsdecode(read(os.path.join(admin, "gitdir"), _LINE)).rstrip("\n")
            known = known._replace(tree=os.path.dirname(said))
        if known.key == key:
            found[id] = known
    return found


def link(repository: Repository, name: str, tree: str, branch: str, commit: str, key: str) -> Worktree:
    """A new worktree for session `name`, whose files are at `tree`, on `branch`, which is made at `commit` if need be.

    It is detached while that branch is checked out elsewhere, for git has a branch in one place only.
    """
    above = os.path.join(repository.common_dir, "worktrees")
    os.makedirs(above, exist_ok=True)
    made = Worktree(_made(above, f"sessionctl-{name}"), "", key, branch, "")
    _write(made, "locked", f"session {name}")
    _mark(made)
    _write(made, "commondir", "../..")
    tip = _tip(repository, branch, commit)
    _write(made, "HEAD", tip if elsewhere(repository, branch) else f"ref: {_HEADS}{branch}")
    return place(follow(repository, made), tree)


def place(worktree: Worktree, tree: str) -> Worktree:
    """The same with its files at `tree`."""
    _write(worktree, "gitdir", os.path.join(tree, ".git"))
    return worktree._replace(tree=tree)


def put(repository: Repository, worktree: Worktree, branch: str) -> Worktree:
    """The same for a session whose branch is `branch` now; somebody who has put it on another one is left there."""
    moved = worktree._replace(branch=branch)
    if head(worktree) == worktree.branch and worktree.at and not elsewhere(repository, branch):
        _tip(repository, branch, worktree.at)
        _write(worktree, "HEAD", f"ref: {_HEADS}{branch}")
    _mark(moved)
    return moved


def head(worktree: Worktree) -> str:
    """The branch that it is on; empty: it is detached."""
    return symbolic(read(os.path.join(worktree.admin, "HEAD"), REF_LIMIT).strip()).removeprefix(_HEADS)


def follow(repository: Repository, worktree: Worktree) -> Worktree:
    """The same with its index at the commit that its branch is at. Where something is staged, it stays as it is."""
    on = head(worktree)
    tip = ref_of_host(repository.common_dir, _HEADS + on) if on else "" if worktree.at else _detached(worktree)
    if not tip or tip == worktree.at:
        return worktree
    if not _is_at(worktree, tip):
        if worktree.at and not _is_at(worktree, worktree.at):
            return worktree
        _run(worktree, "read-tree", *(["-i", "-m"] if worktree.at else []), tip)
    # Git would run, in each repository that an agent has put there, what that one's configuration names.
    staged = _run(worktree, "ls-files", "--stage", "-z").stdout.split(b"\0")
    links = b"".join(line.partition(b"\t")[2] + b"\0" for line in staged if line.startswith(b"160000 "))
    if links:
        _run(worktree, "update-index", "-z", "--skip-worktree", "--stdin", input=links)
    worktree = worktree._replace(at=tip)
    _mark(worktree)
    return worktree


def forget(worktree: Worktree) -> None:
    """Takes it off git's list; its files are gone. Half-done before: does the rest.

    What a person has begun in it, a commit of no branch or a merge, stays for git to expire.
    """
    admin = worktree.admin
    if os.path.lexists(os.path.join(admin, "HEAD")) and worktree.tree:
        begun = any(os.path.lexists(os.path.join(admin, mark)) for _, mark in UNDER_WAY)
        if begun or not head(worktree):
            for name in ("locked", SESSION_MARK):
                os.unlink(os.path.join(admin, name))
            return
    for name in os.listdir(admin):
        if name not in ("locked", SESSION_MARK):
            beneath.remove_tree(os.path.join(admin, name))
    beneath.remove_tree(admin)
    with suppress(OSError):  # there are others
        os.rmdir(os.path.dirname(admin))


def elsewhere(repository: Repository, branch: str, but: str = "") -> str:
    """Where `branch` is checked out, other than in the worktree whose files are at `but`; empty: nowhere."""
    spared = os.path.realpath(but) if but else None
    places = (place for place, out in checkouts(repository) if out == branch)
    return next((place for place in places if os.path.realpath(place) != spared), "")


def checkouts(repository: Repository) -> list[tuple[str, str]]:
    """Every checkout of the repository that is on a branch: where it is, and that branch."""
    found, place = [], ""
    for line in os.fsdecode(run(repository.common_dir, "worktree", "list", "--porcelain").stdout).splitlines():
        if line.startswith("worktree "):
            place = line.removeprefix("worktree ")
        elif line.startswith(f"branch {_HEADS}"):
            found.append((place, line.removeprefix(f"branch {_HEADS}")))
    return found


def _tip(repository: Repository, branch: str, commit: str) -> str:
    """Where `branch` is on the host; it is made at `commit` when there is none."""
    there = ref_of_host(repository.common_dir, _HEADS + branch)
    if there is None:
        words = ("update-ref", "-m", "sessionctl", _HEADS + branch, commit, "0" * len(commit))
        run(repository.common_dir, *words)
    return there or commit


def _detached(worktree: Worktree) -> str:
    return read(os.path.join(worktree.admin, "HEAD"), REF_LIMIT).decode("ascii", "replace").strip()


def _is_at(worktree: Worktree, commit: str) -> bool:
    """Whether its index has nothing but what `commit` has."""
    words = ("diff-index", "--cached", "--quiet", "--ignore-submodules=none", commit)
    return os.path.exists(os.path.join(worktree.admin, "index")) and not _run(worktree, *words, check=False).code


def _run(worktree: Worktree, *words: str, input: bytes | None = None, check: bool = True) -> process.Completed:
    """Runs git on the index of `worktree`, where it finds no files."""
    return run(worktree.admin, *words, cwd=worktree.admin, input=input, check=check)


def _made(above: str, id: str) -> str:
    for number in range(10_000):
        admin = os.path.join(above, f"{id}-{number}" if number else id)
        with suppress(FileExistsError):
            os.mkdir(admin)
            return admin
    raise GitError(f"{printable(above)} has too many worktrees named {id}", hint="git worktree prune")


def _mark(worktree: Worktree) -> None:
    _write(worktree, SESSION_MARK, json.dumps({"key": worktree.key, "branch": worktree.branch, "at": worktree.at}))


def _write(worktree: Worktree, name: str, line: str) -> None:
    beneath.publish(os.path.join(worktree.admin, name), os.fsencode(line) + b"\n", 0o644)
