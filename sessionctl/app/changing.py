"""Changing anything: the lock, and what is done first when somebody was killed or failed while it was held.

A file, `store.UNFINISHED`, is there while anything is changed, and stays when that does not come to its end. Whoever
changes something next finds it, and finishes or takes away what was left, before anything else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sessionctl.app.sources import LOCK_WAIT, Sources
from sessionctl.errors import GitError, StoreError
from sessionctl.plugins import DEFAULT_BACKEND
from sessionctl.store import UNFINISHED


class Held:
    """The lock, while it is held."""

    def __init__(self) -> None:
        self.unfinished = False
        """To be set by who failed with some of the work: the next one looks at what is left of it."""


@contextmanager
def changing(sources: Sources, wait: float = LOCK_WAIT, *, listing: bool = True) -> Iterator[Held]:
    """Holds the lock for changes to the project's set of sandboxes, in a world in which nothing is half done.

    `LockedError` when another sessionctl holds it for more than `wait` seconds. Not to be entered twice. With
    `listing`, git's list of worktrees is that of the sessions afterwards.
    """
    held = Held()
    with sources.store.lock(wait):
        sources.forget_readings()
        _sweep(sources)
        try:
            yield held
            if listing:
                _list_worktrees(sources)
        except BaseException:
            held.unfinished = True
            raise
        finally:
            sources.forget_readings()
            if not held.unfinished:
                os.unlink(_mark(sources))


def is_unfinished(sources: Sources) -> bool:
    """Whether somebody is changing something just now, or did not come to the end of it."""
    return os.path.lexists(_mark(sources)) or _is_renaming(sources)


def _is_renaming(sources: Sources) -> bool:
    return os.path.lexists(sources.inside("renames"))


def recover(sources: Sources, wait: float = LOCK_WAIT) -> None:
    """Finishes what was begun and was interrupted: a plan is for a world in which nothing is half done."""
    if is_unfinished(sources):
        with changing(sources, wait, listing=False) as held:
            try:
                _list_worktrees(sources)
            except GitError:
                held.unfinished = True  # whoever changes something next says why; plans need no list


def begun(sources: Sources, verb: str, sessions: Sequence[str], **data: str) -> str:
    """The id of a new operation that can be undone; empty when there are no `sessions` that it would change."""
    from sessionctl import snapshots

    if not sessions:
        return ""
    operation = snapshots.Operation(sources.site().new_id(), verb, sources.clock(), tuple(sessions), data)
    snapshots.save_operation(sources.directory, operation)
    return operation.id


def _list_worktrees(sources: Sources) -> None:
    """Sessions may have come, gone or moved: those that are worktrees of the repository are listed as that by git."""
    if not os.path.lexists(sources.inside("worktrees")):
        return
    from sessionctl.workspace.worktree import settle

    def branch_of(name: str) -> str:
        record = sources.store.record(name)
        known = record is not None and not record.corrupt
        return str(record.last.data["workspace"]["branch"]) if record is not None and known else ""

    try:
        settle(sources.repository, sources.directory, branch_of)
    except OSError as error:
        raise GitError(
            f"{error.filename or sources.repository.common_dir} cannot be changed: {error.strerror}",
            hint="the sessions are as they should be; git's list of worktrees follows with the next change",
        ) from error


def _mark(sources: Sources) -> str:
    return sources.inside(UNFINISHED)


def _sweep(sources: Sources) -> None:
    """Finishes, or takes away, what a sessionctl that did not come to its end has left; begins another one."""
    from sessionctl import moving

    try:
        if is_unfinished(sources):
            _finish(sources)
        os.close(os.open(_mark(sources), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        moving.sign(sources.directory, sources.repository)
    except OSError as error:
        raise StoreError(
            f"{error.filename or _mark(sources)} cannot be changed: {error.strerror}",
            hint=f"make room and look at the disk: df {sources.directory}; nothing was done",
        ) from error


def _finish(sources: Sources) -> None:
    from sessionctl import keeping, snapshots, switching, workspace
    from sessionctl.images import library

    site, directory = sources.site(), sources.directory
    sources.backend(DEFAULT_BACKEND).recover()
    if _is_renaming(sources):
        # First of all: else whatever comes next is done to a session that is half called so.
        from sessionctl import identity

        identity.recover(directory, sources.store, sources.backend)
        sources.forget_declared()
    switching.finish(site)
    snapshots.sweep(directory)
    workspace.sweep(directory)
    library.sweep(directory)
    keeping.mend(site)
    keeping.tell(site)
