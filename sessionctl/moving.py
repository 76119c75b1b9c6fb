"""A repository that was moved takes its sessions along.

A project is known by where its repository is, so that a copy of a repository has no power over the sessions of
the original. When the repository is moved, its state is found again by what is in both: the state directory says
where the repository was, and the repository has the refs that keep the bases of its sessions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from sessionctl import beneath, git
from sessionctl.errors import ConflictError, StoreError, UsageError
from sessionctl.git import Repository
from sessionctl.model import Move
from sessionctl.store import UNFINISHED

FILE = "repository"
"""In a state directory: whose it is."""
_HELD = ("bases/*/mark", "sessions/*/*.json", "snapshots/*/*/*.json")
"""The documents in a state directory that name paths of the repository, beside the marks of sandboxes."""


class Left(NamedTuple):
    """A state directory whose repository is not where it was."""

    directory: str
    project: str
    common_dir: str
    """Where the repository's git directory was."""
    was: str
    """The project's id before it was taken along the last time; its refs may be left, by who was cut off."""


def sign(directory: str, repository: Repository) -> None:
    """Writes down whose state directory this is, unless that is known."""
    if not os.path.lexists(os.path.join(directory, FILE)):
        _sign(directory, repository, "")


def left_behind(place: str, repository: Repository) -> list[Left]:
    """The state directories that `repository`, whose own is `place`, had before it was moved here.

    Their repository is gone, and this one has their refs; or somebody was cut off while taking them along.
    """
    return [each for each in _signed(place) if _is_begun(each, repository) or _is_gone(each, repository)]


def chosen(place: str, repository: Repository, before: str = "") -> Left:
    """The state directory that is to be taken along; `before` is where its repository was, said by a person.

    `UsageError` when there is none, or that repository is still there; `ConflictError` when it is not clear which.
    """
    if before:
        there = os.path.realpath(before)
        if os.path.lexists(there):
            raise UsageError(f"{before} is there, and its sessions are its own")
        found = [each for each in _signed(place) if there in (each.common_dir, _root(each.common_dir))]
    else:
        found = left_behind(place, repository)
    if not found:
        what = f"of {before} are" if before else "of a repository that is gone, and was this one, are"
        raise UsageError(f"no sessions {what} kept", hint="say where it was: sessionctl adopt --project PATH")
    if len(found) > 1:
        raise ConflictError(told(found), hint="say which: sessionctl adopt --project PATH")
    return found[0]


def told(found: Iterable[Left]) -> str:
    """What a person is told whose repository was moved."""
    places = " or ".join(_root(each.common_dir) for each in found)
    return f"the sessions of this repository are kept as those of {places}, which is gone"


def take_along(left: Left, directory: str, repository: Repository, marks: Iterable[Callable[[Move], None]]) -> Move:
    """Makes the state in `left` that of `repository`, below `directory`, which is not there.

    `marks` change what else bears the project's id, below ``left.directory``. Until the last step all stays where
    it is, and each can be done again: whoever was cut off does it once more. Under the lock of ``left.directory``.
    """
    if os.path.lexists(directory):
        raise ConflictError(
            f"this repository has sessions of its own already, in {directory}", hint="see sessionctl ls --all"
        )
    move = Move(left.project, repository.project, _root(left.common_dir), _root(repository.common_dir))
    try:
        refs = _refs(repository, move.project)
        # Whoever changes something next takes away what a kill has left half-written.
        beneath.publish(os.path.join(left.directory, UNFINISHED), b"")
        _update(repository, [f"update {move.ref(name)} {commit}" for name, commit in refs.items()])
        for path in (path for held in _HELD for path in _files(left.directory, held)):
            _rewrite(path, move)
        for mark in marks:
            mark(move)
        _sign(left.directory, repository, move.project)
        for project in {left.project, left.was} - {"", repository.project}:
            _update(repository, [f"delete {name}" for name in _refs(repository, project)])
        os.rename(left.directory, directory)
    except OSError as error:
        raise StoreError(
            f"{error.filename or directory} cannot be written: {error.strerror}",
            hint="nothing is lost; mend that, and do it again",
        ) from error
    return move


def _rewrite(path: str, move: Move) -> None:
    try:
        with open(path, "rb") as file:
            before = json.load(file)
        after = move.data(before)
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # damaged, and shown as that
    if after != before:
        beneath.publish(path, json.dumps(after).encode())


def _files(directory: str, pattern: str) -> list[str]:
    from glob import escape, glob

    return sorted(glob(os.path.join(escape(directory), pattern)))


def _signed(place: str) -> Iterator[Left]:
    """All state directories but `place` that say whose they are."""
    for file in _files(os.path.dirname(place), f"*/{FILE}"):
        directory = os.path.dirname(file)
        try:
            with open(file, "rb") as opened:
                data = json.load(opened)
            left = Left(directory, str(data["project"]), str(data["common_dir"]), str(data["was"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if directory != place:
            yield left


def _is_begun(left: Left, repository: Repository) -> bool:
    return left.project == repository.project


def _is_gone(left: Left, repository: Repository) -> bool:
    return not os.path.lexists(left.common_dir) and bool(_refs(repository, left.project))


def _sign(directory: str, repository: Repository, was: str) -> None:
    said = {"project": repository.project, "common_dir": repository.common_dir, "was": was}
    beneath.publish(os.path.join(directory, FILE), json.dumps(said).encode())


def _root(common_dir: str) -> str:
    return os.path.dirname(common_dir) if os.path.basename(common_dir) == ".git" else common_dir


def _refs(repository: Repository, project: str) -> dict[str, str]:
    """The commits that sessionctl's refs of `project` keep, by ref."""
    listed = git.run(
        repository.common_dir, "for-each-ref", "--format=%(objectname) %(refname)", f"refs/sessionctl/{project}/"
    )
    pairs = (line.split(" ", 1) for line in listed.text().splitlines())
    return {name: commit for commit, name in pairs}


def _update(repository: Repository, commands: list[str]) -> None:
    """Changes refs, all or none."""
    if commands:
        git.run(
            repository.common_dir, "update-ref", "--stdin", input="".join(f"{each}\n" for each in commands).encode()
        )
