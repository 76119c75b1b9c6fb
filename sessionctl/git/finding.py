"""Which repository of the host a directory belongs to, read from files.

This module may not run anything, but for asking git about a repository of another owner.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import NamedTuple

from sessionctl.beneath import StrPath
from sessionctl.errors import GitError
from sessionctl.model import sha256

SESSION_MARK = "sessionctl"
"""In the administrative directory of a worktree: it is a session's, and its files are an agent's."""


class Repository(NamedTuple):
    """A repository of the host."""

    root: str
    """The top of the checkout it was found from; the repository itself when it is bare."""
    git_dir: str
    """Where this checkout's HEAD is."""
    common_dir: str
    """Where refs and objects are; linked worktrees share it."""
    bare: bool
    project: str
    """Project id: 16 hex digits of the hash of `common_dir`."""
    name: str
    """What people call it, for directory names; not unique."""


def find_repository(start: StrPath) -> Repository:
    """The repository that `start`, or the nearest directory above it, belongs to.

    Reads files only, whatever ``GIT_*`` says; only a repository of another owner makes it ask git for
    ``safe.directory``. `GitError` when there is none, when a ``.git`` leads nowhere or may not be
    read, and when git itself would refuse it because somebody else owns it.
    """
    here = os.path.realpath(start)
    if not os.path.isdir(here):
        hint = f"make it with `git init {shlex.quote(os.fspath(start))}`, or name another one with -C DIR"
        raise GitError(f"{start} is not a directory", hint=hint)
    directory = here
    while True:
        try:
            found = _repository_at(directory)
        except OSError as error:
            raise GitError(f"{error.filename or directory} cannot be read: {error.strerror}") from error
        if found is not None:
            return found
        if directory == "/":
            raise GitError(f"no git repository at {here} or above", hint="run `git init`, or name one with -C DIR")
        directory = os.path.dirname(directory)


def _repository_at(directory: str) -> Repository | None:
    dot = os.path.join(directory, ".git")
    if os.path.isfile(dot):
        pointer = read(dot, 4096)
        if not pointer.startswith(b"gitdir: "):
            raise GitError(f"{dot} is not what git wrote", hint=f"see `git -C {shlex.quote(directory)} status`")
        git_dir = os.path.realpath(os.path.join(directory, os.fsdecode(pointer[8:].strip(b"\r\n"))))
        if os.path.exists(os.path.join(git_dir, SESSION_MARK)):
            # What lies there an agent has written, a manifest too: the user's own checkout is meant.
            common = _common_dir(git_dir)
            return _repository_at(os.path.dirname(common) if os.path.basename(common) == ".git" else common)
        if not _is_git_dir(git_dir):
            raise GitError(
                f"{dot} points to {git_dir}, which is not a git directory",
                hint="`git worktree repair`, run in the main checkout, mends a moved worktree",
            )
        return _owned(directory, git_dir, bare=False, also=dot)
    if os.path.isdir(dot) and _is_git_dir(dot):
        return _owned(directory, os.path.realpath(dot), bare=False)
    if _is_git_dir(directory):
        if os.path.basename(directory) == ".git":
            return _owned(os.path.dirname(directory), directory, bare=False)
        return _owned(directory, directory, bare=True)
    return None


def _is_git_dir(path: str) -> bool:
    """Whether git would take `path` for a git directory. `PermissionError` when it may not be looked into."""
    try:
        os.stat(os.path.join(path, "HEAD"), follow_symlinks=False)
        common = _common_dir(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        if os.path.basename(path) == ".git":
            raise
        return False
    return os.path.isdir(os.path.join(common, "objects")) and os.path.isdir(os.path.join(common, "refs"))


def _common_dir(git_dir: str) -> str:
    try:
        shared = read(os.path.join(git_dir, "commondir"), 4096)
    except FileNotFoundError:
        return git_dir
    return os.path.realpath(os.path.join(git_dir, os.fsdecode(shared.strip(b"\r\n"))))


def _owned(root: str, git_dir: str, *, bare: bool, also: str = "") -> Repository:
    """The repository, unless git's own rule (``safe.directory``) would refuse it.

    A repository's configuration names programs that git runs, so one that somebody else can write
    is not read, wherever it was found.
    """
    us = {os.geteuid()}
    if us == {0} and os.environ.get("SUDO_UID", "").isdecimal():
        us.add(int(os.environ["SUDO_UID"]))
    for path in filter(None, (also, root, git_dir)):
        owner = os.stat(path, follow_symlinks=False).st_uid
        if owner not in us and not _is_declared_safe(root):
            raise GitError(
                f"{path} belongs to another user (uid {owner})",
                hint=f"if you trust it: git config --global --add safe.directory {shlex.quote(root)}",
            )
    common = _common_dir(git_dir)
    # A checkout beside a bare repository (`gitdir: ./.bare`) has no files of its own.
    bare = bare or (git_dir == common and bool(also) and _says_bare(common))
    project = sha256(os.fsencode(common)).hexdigest()[:16]
    base = os.path.basename(common)
    name = os.path.basename(os.path.dirname(common)) if base.startswith(".") else base.removesuffix(".git")
    return Repository(root, git_dir, common, bare, project, name or "repository")


def _is_declared_safe(root: str) -> bool:
    from sessionctl.git.configured import declared_safe

    return declared_safe(root)


def _says_bare(common_dir: str) -> bool:
    section = ""
    for line in read(os.path.join(common_dir, "config"), 1 << 20).decode("utf-8", "replace").lower().splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[core]" and re.fullmatch(r"bare(\s*=\s*(true|yes|on|1))?", line):
            return True
    return False


def read(path: str, limit: int) -> bytes:
    """The first `limit` bytes of a file of the host's repository; all of it with -1."""
    with open(path, "rb") as file:
        return file.read(limit)
