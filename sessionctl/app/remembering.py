"""What git says of sessions: read again from outside, and remembered with an event where it moved."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sessionctl import git
from sessionctl.errors import SessionctlError
from sessionctl.model import Declaration, GitState, Observed, Record, World

if TYPE_CHECKING:
    from sessionctl.app.sources import Sources
    from sessionctl.history import Depth

Seen = tuple[Observed, Record | None]
"""A sandbox, and the record of its session."""


def look(sources: Sources, target: Observed, record: Record | None, depth: Depth) -> GitState:
    """What git says of one session; what is wrong with its repository is part of the answer."""
    try:
        return sources.reader.look(target, record, depth)
    except SessionctlError as error:
        from sessionctl.history import explained

        return explained(error)


def readings(sources: Sources, seen: Iterable[Seen], depth: Depth) -> list[GitState]:
    """What git says of each session of `seen`; those of which it is not what their records say are saved."""
    found = [(record, look(sources, target, record, depth)) for target, record in seen]
    moved = [(record, state) for record, state in found if record and not record.corrupt and state != record.git]
    if moved:
        with sources.store.writing():
            for record, state in moved:
                remember(sources, record, state)
    return [state for _, state in found]


def remember(sources: Sources, record: Record, state: GitState, **changes: Any) -> None:
    """Saves what was read of a session, and journals it when branch or commit moved."""
    sources.store.save(record._replace(git=state, **changes))
    before = record.git
    if (before.branch, before.commit, before.error) != (state.branch, state.commit, state.error):
        sources.store.note(record.session, "git", git=state)


def note(sources: Sources, target: Observed, record: Record | None, depth: Depth, **changes: Any) -> GitState:
    """What git says of one session, which is saved with `changes` of its record if any of it is new."""
    state = look(sources, target, record, depth)
    if record is not None and not record.corrupt and (state != record.git or changes):
        with sources.store.writing():
            remember(sources, record, state, **changes)
    return state


def note_by_hand(sources: Sources, target: Observed, record: Record | None, event: str, **changes: Any) -> None:
    """Journals that a person did `event` to a session, which is what it was last used for."""
    with sources.store.writing():
        state = note(sources, target, record, "changes", last_active=sources.clock(), **changes)
        sources.store.note(target.session, event, git=state)


def note_git(sources: Sources, event: str, **data: Any) -> GitState:
    """Journals where the repository's own checkout is; sessions that share its branches are read anew with it."""
    state = git.host_state(sources.repository)
    sharing = [record for record in sources.store.records().values() if not record.corrupt and _is_on_host(record.last)]
    seen = [
        (observed, record)
        for record in sharing
        for observed in sources.backend(record.backend).observe(session=record.session)
        if observed.workspace is not None and observed.id == record.sandbox
    ]
    with sources.store.writing():
        sources.store.note(None, event, git=state, **data)
        readings(sources, seen, "head")
    return state


def follow_heads(sources: Sources, world: World) -> None:
    """Remembers branch and commit of every session of `world` where they moved; reads files only."""
    by_name = {each.session: each for each in world.observed if each.workspace is not None}
    readings(sources, ((by_name[name], record) for name, record in world.records.items() if name in by_name), "head")


def _is_on_host(declaration: Declaration) -> bool:
    """Whether what is committed in the session moves a branch of the user's repository, or the user sees its files."""
    workspace = declaration.data["workspace"]
    return workspace["mode"] in ("worktree", "bind") or bool(workspace.get("visible"))
