"""Untracked files of the user's checkout, copied into a session's upper where nothing of that name is."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from sessionctl import beneath, git
from sessionctl.errors import GitError, UsageError
from sessionctl.model import Workspace
from sessionctl.workspace.standing import Owner, layers

_LIMIT = 256 * 1024 * 1024


def include(repository: git.Repository, paths: Sequence[str], workspace: Workspace, owner: Owner) -> None:
    """Copies untracked files into the upper, where the workspace has nothing of that name."""
    if repository.bare:
        raise GitError(f"{repository.root} is a bare repository: it has no files to include")
    # All are looked at before the first is copied: a refused one leaves nothing behind.
    files = [file for path in paths for file in _files_of(repository.root, path)]
    seen = layers(workspace)
    for file in files:
        if not _is_there(seen, file):
            try:
                mode = os.stat(os.path.join(repository.root, file), follow_symlinks=False).st_mode & 0o777
                beneath.write(workspace.upper, file, beneath.read(repository.root, file, _LIMIT), mode, owner)
            except OSError as error:
                raise GitError(f"include {git.printable(file)} cannot be copied: {error.strerror}") from error


def _files_of(root: str, path: str) -> list[str]:
    """The regular files that the include `path` names, relative to `root`."""
    parts = path.rstrip("/").split("/")
    if path.startswith("/") or not all(parts) or {"..", ".", ".git"} & set(parts):
        raise UsageError(f"include {path!a} is not a path inside the repository")
    place, mode = root, 0
    for part in parts:
        place = os.path.join(place, part)
        try:
            mode = os.stat(place, follow_symlinks=False).st_mode
        except OSError as error:
            hint = "create it, or remove it from workspace.include"
            raise GitError(f"include {path}: {error.strerror}", hint=hint) from error
        if stat.S_ISLNK(mode):
            raise GitError(f"include {path}: {place} is a symlink", hint="include the file it points to")
    if stat.S_ISREG(mode):
        return ["/".join(parts)]
    if not stat.S_ISDIR(mode):
        raise GitError(f"include {path} is neither a file nor a directory")
    found = [(f"{'/'.join(parts)}/{entry.path}", entry.kind) for entry in beneath.walk(place)]
    for file, kind in found:
        if kind not in ("file", "dir"):
            raise GitError(
                f"include {path}: {git.printable(file)} is no regular file", hint="name the files one by one"
            )
    return [file for file, kind in found if kind == "file"]


def _is_there(seen: Sequence[str], path: str) -> bool:
    try:
        beneath.read_layered(seen, path, 0)
    except FileNotFoundError:
        return False
    except OSError:
        pass  # Too large, a directory, a link, or behind one: the agent's, whatever it is.
    return True
