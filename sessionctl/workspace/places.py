"""Directories of our own, those that belong to whom sandboxes run as, and the ones that a user names for checkouts.

A session directory, which a user names, holds a checkout named as its session, and beside it a mark that
says whose it is. Nothing else that is there is ever touched.
"""

from __future__ import annotations

import contextlib
import json
import os

from sessionctl import beneath
from sessionctl.beneath import StrPath
from sessionctl.errors import GitError, UsageError
from sessionctl.model import is_name
from sessionctl.workspace.standing import Owner, Standing, load_standing

MARK = ".sessionctl"


def directories(path: str, owner: Owner) -> None:
    """Our own directories down to `path`. Whoever a sandbox runs as may pass through them, not look."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for new in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(new, 0o700)
            os.chmod(new, 0o700 if owner is None else 0o711)


def give(path: str, mode: int, owner: Owner) -> None:
    """A new directory at `path` with `mode` that belongs to `owner`."""
    os.mkdir(path, 0o700)
    if owner is not None:
        os.chown(path, *owner)
    os.chmod(path, mode)


def unfit(session_dir: str, project: str, name: str) -> str:
    """Why the checkout of session `name` cannot be put into `session_dir`; empty when it can."""
    try:
        if os.path.realpath(session_dir) != session_dir:
            return "became a symbolic link: run the command again, to see where it leads"
        held = os.listdir(session_dir)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"cannot be used: {error.strerror}"
    if MARK not in held:
        return "is not empty, and not a session directory" if held else ""
    return "" if _is_ours(session_dir, project, name) else "is the directory of another session"


def claim(session_dir: str, project: str, name: str) -> None:
    """Makes `session_dir` the directory of session `name`: it must be new, empty or marked so. `UsageError` if not."""
    why = unfit(session_dir, project, name)
    if why:
        raise UsageError(f"{session_dir} {why}", hint="name a new or an empty directory")
    os.makedirs(session_dir, 0o755, exist_ok=True)
    _sign(session_dir, project, name)


def new(session_dir: str, name: str) -> str:
    """Where a checkout is made, before it is known to be whole."""
    return os.path.join(session_dir, f".{name}.new")


def settle(session_dir: str, name: str) -> None:
    """Moves a checkout that is whole into its place. Idempotent."""
    place = os.path.join(session_dir, name)
    if not os.path.lexists(place):
        if not os.path.isdir(new(session_dir, name)):
            raise GitError(
                f"{place} is gone, which held the files of {name}",
                hint=f"put it back; or remove what is left: sessionctl prune {name}",
            )
        os.rename(new(session_dir, name), place)


def rename(standing: Standing, old: str, new: str) -> None:
    """Makes the directory that a user named for session `old` that of `new`; the checkout in it stays where it is."""
    session_dir = os.path.dirname(standing.workspace.upper)
    if standing.project and _is_ours(session_dir, standing.project, old):
        _sign(session_dir, standing.project, new)


def sign_anew(directory: StrPath, before: str, now: str) -> None:
    """Makes the directories that a user named for sessions of project `before` those of project `now`, which it is."""
    above = os.path.join(directory, "sessions")
    for name in filter(is_name, beneath.names(above)):
        standing = load_standing(directory, name)
        if standing is not None and standing.project:
            session_dir = os.path.dirname(standing.workspace.upper)
            if _is_ours(session_dir, before, name):
                _sign(session_dir, now, name)


def release(directory: StrPath, name: str) -> None:
    """Removes the checkout of session `name` from the directory that a user named for it, and that when it is empty.

    What else is in that directory stays; so does all of it when its mark does not say that it is this session's.
    """
    try:
        standing = load_standing(directory, name)
    except GitError:
        return
    if standing is None or not standing.project:
        return
    session_dir = os.path.dirname(standing.workspace.upper)
    if not _is_ours(session_dir, standing.project, name):
        return
    aside = os.path.join(session_dir, f".{name}.discarded")
    with contextlib.suppress(FileNotFoundError):
        os.rename(standing.workspace.upper, aside)
    for half in (aside, new(session_dir, name)):
        beneath.remove_tree(half)
    with contextlib.suppress(OSError):  # Files of others are a reason to leave it, and so is that it went meanwhile.
        if os.listdir(session_dir) == [MARK]:
            os.unlink(os.path.join(session_dir, MARK))
            os.rmdir(session_dir)


def _sign(session_dir: str, project: str, name: str) -> None:
    beneath.publish(os.path.join(session_dir, MARK), json.dumps({"project": project, "session": name}).encode(), 0o644)


def _is_ours(session_dir: str, project: str, name: str) -> bool:
    try:
        data = json.loads(beneath.read(session_dir, MARK, 4096))
        return bool(data["session"] == name and data["project"] == project)
    except (OSError, ValueError, KeyError, TypeError):
        return False
