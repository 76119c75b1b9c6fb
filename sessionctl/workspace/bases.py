"""Base layers: whole checkouts, made once per recipe by git's plumbing, and never written again.

Several sessions stand on one. On disk, below the project's state directory::

    bases/<key>/{tree,mark,alternates.N}    bases/<key>.lock
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from sessionctl import beneath, git
from sessionctl.beneath import StrPath
from sessionctl.errors import GitError, UsageError
from sessionctl.model import Mount, is_name
from sessionctl.workspace.places import directories
from sessionctl.workspace.standing import Owner, Progress, Recipe, load_standing


class Base(NamedTuple):
    tree: str
    mounts: tuple[Mount, ...]


_KEY = re.compile(r"[0-9a-f]{24}")


def _pin(project: str, key: str) -> str:
    return f"refs/sessionctl/{project}/base/{key}"


@contextlib.contextmanager
def layer(
    repository: git.Repository,
    recipe: Recipe,
    directory: StrPath,
    project: str,
    owner: Owner,
    progress: Progress | None,
) -> Iterator[Base]:
    """The base layer of `recipe`, made if need be; it is not released while the context lasts."""
    place = os.path.join(directory, "bases", recipe.key)
    directories(os.path.dirname(place), owner)
    with _locked(place, fcntl.LOCK_SH):
        base = _load(place)
        if base is not None:
            yield base
            return
    with _locked(place, fcntl.LOCK_EX):
        base = _load(place)  # Somebody else may have made it while we waited.
        yield base or _make(repository, recipe, place, project, owner, progress)


@contextlib.contextmanager
def _locked(place: str, how: int) -> Iterator[None]:
    # The lock file stays when its base goes: unlinking it would let two hold "the" lock.
    fd = os.open(place + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        os.close(fd)


def _mark(place: str) -> dict[str, list[list[str]]] | None:
    file = os.path.join(place, "mark")
    try:
        with open(file, "rb") as opened:
            data = json.load(opened)
        return {"mounts": data["mounts"], "pins": data["pins"]}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GitError(f"{file} cannot be read: {error}", hint="sessions stand on it: restore the file") from error


def _load(place: str) -> Base | None:
    mark = _mark(place)
    if mark is None:
        return None
    # What hides a borrowed store's own borrowing is named from here: the state directory may be moved.
    mounts = tuple(Mount(os.path.join(place, source), path) for source, path in mark["mounts"])
    return Base(os.path.join(place, "tree"), mounts)


def _make(
    repository: git.Repository, recipe: Recipe, place: str, project: str, owner: Owner, progress: Progress | None
) -> Base:
    from sessionctl.workspace import checkout  # Only who makes one pays for it.

    if progress is not None:
        progress(f"checking out {recipe.commit[:12]}")
    beneath.remove_tree(place)  # What a crash has left has no mark: nothing stands on it.
    os.mkdir(place, 0o700)
    os.chmod(place, 0o700 if owner is None else 0o711)
    tree = os.path.join(place, "tree")
    os.mkdir(tree)
    os.chmod(tree, 0o755)
    lent = checkout.Lent(place, _pin(project, recipe.key))
    try:
        source = checkout.Source(repository.common_dir, repository.git_dir)
        checkout.lay(source, recipe.commit, os.path.join(tree, ".git"), tree, recipe, lent)
        if owner is not None:
            checkout.chown(tree, owner)
        # The mark must not survive a power cut that the files do not: every session here stands on them.
        _settle(place)
        mounts = [[mount.source.removeprefix(f"{place}/"), mount.path] for mount in lent.mounts]
        mark = {"mounts": mounts, "pins": lent.pins}
        beneath.publish(os.path.join(place, "mark"), json.dumps(mark).encode())
    except BaseException:
        _unpin(lent.pins)
        beneath.remove_tree(place)
        raise
    return Base(tree, tuple(lent.mounts))


def _settle(place: str) -> None:
    try:
        beneath.sync_filesystem(place)
    except OSError as error:
        raise GitError(f"{place} cannot be written: {error.strerror}", hint="make room, and try again") from error


def _pins(place: str) -> list[list[str]]:
    """What keeps the commits of the base layer at `place`, also of one that is not whole."""
    mark = _mark(place)
    if mark is not None:
        return mark["pins"]
    try:
        with open(os.path.join(place, "pins"), "rb") as opened:
            return [json.loads(line) for line in opened.read().split(b"\n")[:-1]]
    except FileNotFoundError:
        return []


def _unpin(pins: Sequence[Sequence[str]]) -> None:
    for git_dir, ref in pins:
        if os.path.isdir(git_dir):  # A repository that is gone has nothing pinned.
            git.run(git_dir, "update-ref", "-d", ref, check=False)


def unused(directory: StrPath, used: Collection[str] = ()) -> tuple[str, ...]:
    """Keys of the base layers that no session stands on, and whose tree is not in `used`.

    `used` are the `lower` directories that sandboxes have mounted: a running one may still be on a
    base that its session has left. `GitError` when a session cannot say what it stands on.
    """
    bases = os.path.join(directory, "bases")
    if not os.path.isdir(bases):
        return ()
    named = {*_lowers(directory), *used}
    keys = [name for name in sorted(os.listdir(bases)) if _KEY.fullmatch(name)]
    return tuple(key for key in keys if os.path.join(bases, key, "tree") not in named)


def release(directory: StrPath, key: str) -> bool:
    """Removes a base layer and its pins, unless a session stands on it by now; whether it is gone.

    No sandbox may have it mounted.
    """
    if not _KEY.fullmatch(key):
        raise UsageError(f"{key!a} is not the key of a base layer")
    place = os.path.join(directory, "bases", key)
    with _locked(place, fcntl.LOCK_EX):
        if os.path.join(place, "tree") in _lowers(directory):
            return False
        pins = _pins(place)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(place, "mark"))
        _unpin(pins)
        beneath.remove_tree(place)
    return True


def _lowers(directory: StrPath) -> set[str]:
    sessions = beneath.names(os.path.join(directory, "sessions"))
    standings = [load_standing(directory, name) for name in filter(is_name, sessions)]
    stand = [standing for standing in standings if standing]
    # One that is a plain directory has no lower layer, and still borrows what its base has pinned.
    named = {os.path.join(directory, "bases", each.recipe.key, "tree") for each in stand if each.recipe}
    return named | {lower for each in stand for lower in each.workspace.lower}


def sweep(directory: StrPath) -> None:
    """Removes what a crash has left half-made of base layers. Whole ones stay, used or not."""
    bases = os.path.join(directory, "bases")
    for key in filter(_KEY.fullmatch, beneath.names(bases)):
        place = os.path.join(bases, key)
        with _locked(place, fcntl.LOCK_EX):
            if os.path.lexists(os.path.join(place, "mark")):
                beneath.sweep(place)
            else:
                _unpin(_pins(place))
                beneath.remove_tree(place)
