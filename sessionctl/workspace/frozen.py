"""What the user's checkout has beside its commit, copied once: the layer that mode ``overlay`` puts under a session.

The checkout itself cannot be a lower layer: what overlayfs shows is undefined once a lower layer is
changed, and an editor changes it. So what no commit has is copied: changed, untracked and ignored
files. What is as committed comes from the base layer. Reads the user's checkout, never writes it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence

from sessionctl import git, process
from sessionctl.errors import CommandError, GitError
from sessionctl.workspace.checkout import chown
from sessionctl.workspace.standing import Owner, Progress

_ARGUMENTS = 64 * 1024
"""Bytes of file names that one call of cp is given."""


def freeze(
    repository: git.Repository,
    commit: str,
    target: str,
    owner: Owner,
    progress: Progress | None,
    *,
    asking: tuple[str, Mapping[str, str]] | None = None,
) -> None:
    """Makes the directory `target`, in which is all that the checkout has otherwise than `commit`, its HEAD.

    With `asking`, a git directory at that commit and variables for git, its own is not used.
    Deleted files are whiteouts of overlayfs. Sockets, pipes and devices are left out. `GitError` when the
    checkout has another commit by now, is bare, or cannot be copied whole.
    """
    if repository.bare:
        raise GitError(f"{repository.root} is a bare repository: it has no files to overlay")
    if git.resolve(repository, "")[0] != commit:
        raise GitError(f"{repository.root} has another commit checked out by now", hint="sessionctl plan")
    if progress is not None:
        progress("copying what the checkout has beside its commit")
    changed, deleted = _beside(repository.root, *(asking or (repository.git_dir, {})))
    os.mkdir(target, 0o755)
    copy(repository.root, _whole(repository.root, changed), target)
    for path in deleted:
        place = os.path.join(target, path)
        with contextlib.suppress(FileExistsError, NotADirectoryError):  # What is there hides it already.
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.mknod(place, stat.S_IFCHR | 0o600, 0)
    if owner is not None:
        chown(target, owner)
    os.chmod(target, 0o755)


def copy(root: str, paths: Iterable[str], target: str) -> None:
    """Copies what is at `paths` below `root`, directories whole, to the same paths below `target`; links stay links.

    Where the file system can, the content is shared until one of the two is written.
    """
    for some in _bundles(paths):
        # By name from the root, and links never followed: nothing from elsewhere gets in.
        words = ("cp", "-dR", "--parents", "--preserve=mode,timestamps", "--reflink=auto", "--")
        try:
            process.run((*words, *some, target), cwd=root)
        except CommandError as error:
            raise GitError(git.printable(f"the checkout cannot be copied: {error}"), hint=error.hint) from error


def _beside(root: str, git_dir: str, env: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Paths of the checkout that HEAD has not, or otherwise; and paths of HEAD that the checkout has not."""
    asked = ("status", "--porcelain=v2", "-z", "--no-renames", "--untracked-files=normal", "--ignored=traditional")
    words = (f"--work-tree={root}", *asked, "--ignore-submodules=all")
    listed = git.run(git_dir, *words, cwd=root, env=env).stdout
    paths: dict[str, None] = {}
    for record in listed.split(b"\0")[:-1]:
        fields = record.split(b" ", {b"1": 8, b"u": 10}.get(record[:1], 1))
        paths[os.fsdecode(fields[-1].rstrip(b"/"))] = None
    there = {path: _is_there(root, path) for path in paths}
    return [path for path in paths if there[path]], [path for path in paths if not there[path]]


def _is_there(root: str, path: str) -> bool:
    """Whether the checkout has `path` itself, and not something that a link on the way leads to."""
    *parents, _ = path.split("/")
    for number in range(1, len(parents) + 1):
        if os.path.islink(os.path.join(root, *parents[:number])):
            return False
    return os.path.lexists(os.path.join(root, path))


def _whole(root: str, paths: Iterable[str]) -> list[str]:
    """`paths` of files, links and directories; of a directory that holds anything else, what it holds of these."""
    found = []
    for path in paths:
        mode = os.lstat(os.path.join(root, path)).st_mode
        if stat.S_ISREG(mode) or stat.S_ISLNK(mode) or (stat.S_ISDIR(mode) and _is_plain(os.path.join(root, path))):
            found.append(path)
        elif stat.S_ISDIR(mode):
            found += _whole(root, (os.path.join(path, name) for name in sorted(os.listdir(os.path.join(root, path)))))
    return found


def _is_plain(directory: str) -> bool:
    """Whether there are only files, links and directories in `directory`, however deep."""
    kinds = (stat.S_ISREG, stat.S_ISLNK, stat.S_ISDIR)
    for here, _, files in os.walk(directory):
        for name in files:
            mode = os.lstat(os.path.join(here, name)).st_mode
            if not any(kind(mode) for kind in kinds):
                return False
    return True


def _bundles(paths: Iterable[str]) -> Iterable[Sequence[str]]:
    bundle: list[str] = []
    size = 0
    for path in paths:
        bundle.append(path)
        size += len(os.fsencode(path)) + 1
        if size > _ARGUMENTS:
            yield bundle
            bundle, size = [], 0
    if bundle:
        yield bundle
