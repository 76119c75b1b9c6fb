"""The directories of one session: its work and its home. They are made, and removed, whole.

May not decide whether something may be removed, or look into what an agent wrote.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from sessionctl import beneath
from sessionctl.beneath import StrPath
from sessionctl.errors import GitError
from sessionctl.model import is_id, is_name, require_name
from sessionctl.workspace import bases, places
from sessionctl.workspace.places import directories, give
from sessionctl.workspace.standing import Owner, Standing, load_standing, save_standing


def begin(directory: StrPath, name: str, owner: Owner, fill: Callable[[str, str], Standing]) -> Standing:
    """Fresh work, filled in by `fill`, and what it stands on, written down.

    `fill` is given the new directory and the path it will have; nothing outside may point to the former.
    What it stands on is written before the work is moved into place, so that work which is there
    always says what it stands on.
    """
    session = os.path.join(directory, "sessions", name)
    final, fresh = os.path.join(session, "work"), os.path.join(session, "work.new")
    directories(session, owner)
    if os.path.lexists(final):
        raise GitError(
            f"{final} is there, but not {session}/workspace.json, which says what it stands on",
            hint=f"restore that file; or move {final} away, and {name} begins anew",
        )
    beneath.remove_tree(fresh)
    os.mkdir(fresh, 0o700 if owner is None else 0o711)
    standing = fill(fresh, final)
    save_standing(directory, name, standing)
    os.rename(fresh, final)
    return standing


def home(directory: StrPath, name: str, owner: Owner) -> str:
    """The home directory of session `name`, made if it is not there."""
    session = os.path.join(directory, "sessions", require_name(name))
    directories(session, owner)
    with contextlib.suppress(FileExistsError):
        give(os.path.join(session, "home"), 0o700, owner)
    return os.path.join(session, "home")


def session_directory(directory: StrPath, name: str, owner: Owner) -> None:
    """The directory of session `name`, made if it is not there."""
    directories(os.path.join(directory, "sessions", require_name(name)), owner)


def fresh_scratch(work: str, owner: Owner, *, wanted: bool) -> None:
    """In `work`, which nobody has mounted, an empty directory for overlayfs beside the upper one; or none."""
    beneath.remove_tree(os.path.join(work, "scratch"))
    if wanted:
        give(os.path.join(work, "scratch"), 0o700, owner)


def seed(directory: StrPath, name: str) -> str:
    """Where the files are that session `name`'s next sandbox begins with; empty when there are none."""
    waiting = os.path.join(directory, "sessions", require_name(name), "seed", "root")
    return waiting if os.path.lexists(os.path.join(waiting, "upper")) else ""


def rename(directory: StrPath, old: str, new: str) -> None:
    """Makes the work, home and sandboxes of session `old` those of `new`. Idempotent; what runs in them goes on.

    `GitError` when something of `new` is there that is not what was `old`'s.
    """
    source, target = (os.path.join(directory, "sessions", require_name(name)) for name in (old, new))
    try:
        os.rename(source, target)
    except FileNotFoundError:
        pass  # that was done before, or there never was anything
    except OSError as error:
        raise GitError(f"{source} cannot become {target}: {error.strerror}", hint=f"look at {target}") from error
    standing = load_standing(directory, new)
    if standing is not None:
        stack = standing.workspace.renamed(os.fspath(directory), old, new)
        if stack != standing.workspace:
            save_standing(directory, new, standing._replace(workspace=stack))
        places.rename(standing, old, new)


def discard(directory: StrPath, name: str) -> None:
    """Removes the work and the home of session `name`, and what they stood on. Absent already is done.

    They are moved aside first: what a crash leaves of them is not taken for a session's work again.
    The home is the first, since without the work nobody can say any more what it held. No sandbox may
    have them mounted.
    """
    session = os.path.join(directory, "sessions", require_name(name))
    for part in ("home", "work"):
        beneath.remove_tree(os.path.join(session, f"{part}.discarded"))
        with contextlib.suppress(FileNotFoundError):
            os.rename(os.path.join(session, part), os.path.join(session, f"{part}.discarded"))
    leave(directory, name)


def is_there(directory: StrPath, name: str) -> bool:
    """Whether session `name` has work or a home."""
    session = os.path.join(directory, "sessions", require_name(name))
    return any(os.path.lexists(os.path.join(session, part)) for part in ("work", "home"))


def leave(directory: StrPath, name: str) -> None:
    """Removes what is left of session `name` when it has neither work nor home nor sandbox: a backend's lock."""
    session = os.path.join(directory, "sessions", require_name(name))
    for part in _HALF:
        beneath.remove_tree(os.path.join(session, part))
    if not seed(directory, name):
        beneath.remove_tree(os.path.join(session, "seed"))
    if os.path.isdir(session) and not is_there(directory, name):
        places.release(directory, name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(session, "workspace.json"))
    if os.path.isdir(session) and not is_there(directory, name) and not any(map(is_id, os.listdir(session))):
        beneath.remove_tree(session)


_HALF = ("work.new", "work.discarded", "home.discarded")


def sweep(directory: StrPath) -> None:
    """Removes what a crash has left half-made or half-removed of sessions and base layers.

    Whole things stay, used or not. Only while nobody else makes or removes any.
    """
    sessions = os.path.join(directory, "sessions")
    beneath.sweep(os.fspath(directory))
    for name in filter(is_name, beneath.names(sessions)):
        session = os.path.join(sessions, name)
        for place in (".", "work", *filter(is_id, beneath.names(session))):
            if os.path.isdir(os.path.join(session, place)):
                beneath.sweep(os.path.join(session, place))
        leave(directory, name)
    bases.sweep(directory)
