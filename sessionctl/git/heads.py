"""HEAD and refs of a session's repository, read as files: it is hostile, and git is not asked.

This module may not run anything.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from sessionctl import beneath
from sessionctl.errors import GitError
from sessionctl.git.names import OBJECT_NAME, REF_LIMIT, is_ref_name, printable, quoted, symbolic
from sessionctl.model import GitState

_PACKED_LIMIT = 16 * 1024 * 1024


class _Unreadable(Exception):
    """Why a session's HEAD says nothing; for `GitState.error`."""


def read_head(layers: Sequence[str]) -> GitState:
    """Branch and commit of the workspace that overlayfs makes of `layers` (top first); nothing else is filled in.

    Reads files, runs nothing, never raises and never waits. Detached: a commit and no branch.
    Otherwise `GitState.error` begins with ``missing`` (there is no repository), ``unborn`` (its branch
    has no commit), ``reftable`` (its refs cannot be read as files) or ``unreadable``.
    """
    try:
        return _head(layers)
    except _Unreadable as error:
        return GitState(error=str(error))
    except FileNotFoundError:
        return GitState(error="missing: the workspace has no git repository")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return GitState(error=printable(f"unreadable: {why}"))


def _head(layers: Sequence[str]) -> GitState:
    value = beneath.read_layered(layers, ".git/HEAD", REF_LIMIT).rstrip(b"\n")
    branch: str | None = None
    for _ in range(5):  # As deep as git follows symbolic refs.
        if OBJECT_NAME.fullmatch(value):
            return GitState(branch=branch, commit=value.decode())
        ref = symbolic(value)
        if ref == "refs/heads/.invalid":
            raise _Unreadable("reftable: the session keeps its refs in a format that is not read as files")
        if not is_ref_name(ref):
            raise _Unreadable(f"unreadable: HEAD leads to {quoted(value[:40])}")
        if branch is None and ref.startswith("refs/heads/"):
            branch = ref.removeprefix("refs/heads/")
        found = _ref(layers, ref)
        if found is None:
            raise _Unreadable(f"unborn: {printable(ref)} has no commit yet")
        value = found
    raise _Unreadable("unreadable: HEAD leads in circles")


def read_ref(layers: Sequence[str], ref: str) -> str | None:
    """The object name at a ref of a session; None when there is no such ref. `GitError` when it cannot be read."""
    try:
        value = _ref(layers, ref)
    except OSError as error:
        raise GitError(f"{ref} cannot be read: {error}") from error
    if value is not None and not OBJECT_NAME.fullmatch(value):
        raise GitError(f"{ref} is no commit: {printable(os.fsdecode(value))[:100]}")
    return value.decode() if value is not None else None


def _ref(layers: Sequence[str], ref: str) -> bytes | None:
    """What the ref holds, loose or packed; None when there is no such ref."""
    try:
        return beneath.read_layered(layers, ".git/" + ref, REF_LIMIT).rstrip(b"\n")
    except FileNotFoundError:
        pass
    except OSError:
        # A directory that packing its refs has left empty is no ref; git looks in packed-refs then.
        if not _is_directory(layers, ".git/" + ref):
            raise
    try:
        packed = b"\n" + beneath.read_layered(layers, ".git/packed-refs", _PACKED_LIMIT)
    except FileNotFoundError:
        return None
    at = packed.find(b" " + os.fsencode(ref) + b"\n")
    if at < 0:
        return None
    return packed[packed.rfind(b"\n", 0, at) + 1 : at]


def _is_directory(layers: Sequence[str], path: str) -> bool:
    try:
        beneath.list_layered(layers, path)
    except OSError:
        return False
    return True


def write_branch(upper: str, name: str, commit: str) -> None:
    """Makes branch `name` at `commit` the one that is checked out in the session with this upper layer.

    Only while nothing runs in it. Index and files stay as they are.
    """
    info = os.stat(upper)
    owner = (info.st_uid, info.st_gid)
    beneath.write(upper, f".git/refs/heads/{name}", f"{commit}\n".encode(), 0o644, owner)
    beneath.write(upper, ".git/HEAD", f"ref: refs/heads/{name}\n".encode(), 0o644, owner)
