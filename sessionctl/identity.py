"""What a session is called. A rename moves all that bears its name, and makes and removes nothing.

It is written down before it is begun, in ``renames/<new>`` of the project's state directory: whoever finds it there
finishes it, step by step, each of which may have been done. Only while the lock is held. Decides nothing.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from sessionctl import beneath, snapshots, trust, workspace
from sessionctl.backends import Backend
from sessionctl.errors import StoreError, UsageError
from sessionctl.model import Observed, Record, World, is_name, require_name
from sessionctl.store import Store

_DIRECTORY = "renames"


class Rename(NamedTuple):
    """One session's change of name."""

    old: str
    new: str
    backends: tuple[str, ...] = ()
    """All that have sandboxes of it."""
    manifest: str = ""
    """Real path of the file whose block is to be renamed; empty: that has been done, or there is none."""


def pending(directory: str) -> tuple[Rename, ...]:
    """The renames that were begun and not finished. `StoreError` when one cannot be read."""
    place = os.path.join(directory, _DIRECTORY)
    found = []
    for name in sorted(filter(is_name, beneath.names(place))):
        path = os.path.join(place, name)
        try:
            with open(path, "rb") as file:
                old, new, backends, manifest = json.load(file)
            found.append(Rename(require_name(old), require_name(new), tuple(backends), str(manifest)))
        except FileNotFoundError:
            continue  # finished meanwhile
        except (OSError, ValueError, TypeError, UsageError) as error:
            raise StoreError(
                f"{path} cannot be read: {error}", hint="move it away and see `sessionctl plan`"
            ) from error
    return tuple(found)


def rename(directory: str, store: Store, backend: Callable[[str], Backend], what: Rename) -> None:
    """Carries out `what`, from its beginning or from wherever it was left. Idempotent."""
    place = os.path.join(directory, _DIRECTORY)
    with suppress(FileExistsError):
        os.mkdir(place, 0o700)
    beneath.publish(os.path.join(place, what.new), json.dumps(what).encode())
    finish(directory, store, backend, what)


def finish(directory: str, store: Store, backend: Callable[[str], Backend], what: Rename) -> None:
    """Does what is left of `what`, which was written down."""
    old, new = what.old, what.new
    workspace.rename(directory, old, new)
    snapshots.rename(directory, old, new)
    for name in what.backends:
        backend(name).renamed(old, new)
    said = trust.load(directory)
    if old in {*said.trusted, *said.revoked}:
        trust.save(directory, said.renamed(old, new))
    record = store.record(old)
    if record is not None:
        with store.writing():
            store.save(called(record, new))
            store.forget(old)
            store.note(new, "rename", git=record.git, reason=f"was {old}", was=old)
            store.note(old, "rename", git=record.git, reason=f"is {new} now")
    if what.manifest:
        edit_manifest(what.manifest, old, new)
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, _DIRECTORY, new))
    with suppress(OSError):  # another one is under way
        os.rmdir(os.path.join(directory, _DIRECTORY))


def recover(directory: str, store: Store, backend: Callable[[str], Backend]) -> None:
    """Finishes every rename that was begun. Only while the lock is held, and nothing is being renamed."""
    for what in pending(directory):
        finish(directory, store, backend, what)
    place = os.path.join(directory, _DIRECTORY)
    with suppress(FileNotFoundError):
        beneath.sweep(place)  # of one that had not begun yet
        os.rmdir(place)


def edit_manifest(path: str, old: str, new: str) -> None:
    """Renames the block of `old` in the manifest at `path`, unless that was done."""
    from sessionctl import edit

    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    if edit.declares(text, old):
        replace_manifest(path, edit.renamed(text, old, new))
    beneath.sweep(os.path.dirname(path))


def replace_manifest(path: str, text: str) -> None:
    """Puts `text` at the real path `path`, whole or not at all, for whom it was there before. `UsageError`."""
    try:
        info = os.stat(path)
        beneath.publish(path, text.encode(), stat.S_IMODE(info.st_mode))
        if os.geteuid() == 0:
            os.chown(path, info.st_uid, info.st_gid, follow_symlinks=False)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint="edit it by hand") from error


# --- a world in which renames were carried out -------------------------------------------------


def called(record: Record, name: str) -> Record:
    """The same record of a session of another name."""
    return record._replace(session=name, last=record.last.called(name))


def foreseen(world: World, wanted: Mapping[str, str], directory: str) -> World:
    """`world` as it will be when sessions have their new names; `wanted`: of each session, its old one.

    One that is there under its new name has it already: when the old one is there too, they are rivals.
    """
    there = {observed.session for observed in world.observed} | world.records.keys()
    renamed = {new: old for new, old in wanted.items() if old in there and new not in there}
    rivals = {new: old for new, old in wanted.items() if old in there and new in there}
    if not renamed and not rivals:
        return world
    new_of = {old: new for new, old in renamed.items()}
    return world._replace(
        observed=tuple(
            _called(each, new_of[each.session], directory) if each.session in new_of else each
            for each in world.observed
        ),
        records={
            new_of.get(name, name): called(record, new_of[name]) if name in new_of else record
            for name, record in world.records.items()
        },
        renamed=renamed,
        rivals=rivals,
    )


def _called(observed: Observed, name: str, directory: str) -> Observed:
    return observed._replace(
        session=name,
        made_of=observed.made_of.called(name) if observed.made_of else None,
        workspace=observed.workspace.renamed(directory, observed.session, name) if observed.workspace else None,
    )
