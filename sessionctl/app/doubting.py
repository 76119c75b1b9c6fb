"""The answers that `prune` needs about each session that could go: what would be lost with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sessionctl import lifetime, workspace
from sessionctl.diff import Change
from sessionctl.errors import SessionctlError
from sessionctl.history import explained, only_here
from sessionctl.model import GitState, Merged, World
from sessionctl.plan import deletes

if TYPE_CHECKING:
    from sessionctl.app.sources import Sources


def with_doubts(sources: Sources, world: World, changes: Sequence[Change]) -> World:
    """`world` with the git state of each session of `changes` that could go, what of it is merged, and its home."""
    reader = sources.reader
    states: dict[str, GitState] = {}
    merged: dict[str, Merged] = {}
    homes: dict[str, tuple[str, ...]] = {}
    gone: set[str] = set()
    for change in changes:
        name = change.session
        if change.declared is None and not workspace.is_there(sources.directory, name):
            gone.add(name)
        stays = change.declared is not None and not lifetime.expired(change.declared, change.record, world.now)
        if stays or change.current is None or change.current.made_of is None:
            continue
        try:
            state = reader.look(change.current, change.record, "full")
            states[name] = reader.with_reflogs(change.current, state) if deletes(change) else state
            merged[name] = reader.merged(change.current, states[name])
            homes[name] = only_here(sources.inside("sessions", name, "home"), change.current.made_of.data["files"])
        except SessionctlError as error:
            states[name] = explained(error)
    return world._replace(git=states, merged=merged, homes=homes, gone=frozenset(gone))
