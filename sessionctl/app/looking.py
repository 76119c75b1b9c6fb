"""What there is: the world, read once, and the sessions in it. Changes nothing but what is remembered of git."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from sessionctl.app import remembering
from sessionctl.diff import Change, diff
from sessionctl.errors import BackendError, UsageError
from sessionctl.model import GitState, Observed, Record, Status, World, is_name, require_name, sandbox_of
from sessionctl.plugins import DEFAULT_BACKEND

if TYPE_CHECKING:
    from sessionctl.app.sources import Sources
    from sessionctl.history import Depth

FILE_LIMIT = 16 << 20
"""Bytes of an injected file; the manifest takes no larger ones."""


class Session(NamedTuple):
    """One session as it is: what `ls` and `status` show."""

    name: str
    status: Status
    declared: bool
    data: Mapping[str, Any]
    """The JSON form of its declaration: the manifest's, else the one last applied."""
    git: GitState
    observed: Observed | None = None
    record: Record | None = None
    stray: bool = False
    """Bears our mark, and neither manifest nor records know it."""


def world(sources: Sources, *, deep: bool = False) -> World:
    """Backends and store, each read once. With `deep`, whether processes run in the sandboxes too."""
    records = sources.store.records()
    names = {record.backend for record in records.values() if record.backend} | {DEFAULT_BACKEND}
    names |= {declaration.data["backend"] for declaration in sources.declared_if_read.values()}
    observed: list[Observed] = []
    unreachable: dict[str, str] = {}
    for name in sorted(names):
        try:
            observed += sources.backend(name).observe(deep=deep)
        except (BackendError, UsageError) as error:
            unreachable[name] = str(error)
    return World(tuple(observed), records, unreachable=unreachable, now=sources.clock())


def sessions(sources: Sources, *, strays: bool = False) -> list[Session]:
    """All declared and retained sessions in order of their names; with `strays`, unknown sandboxes too."""
    manifest = sources.declared
    seen = world(sources)
    first = _by_session(seen)
    rows = [_session(change, first) for change in diff(manifest, seen) if strays or change.kind != "stray"]
    return _with_git(sources, rows, "counts")


def session(sources: Sources, name: str, depth: Depth = "full") -> Session:
    """One session, declared or not, with its git state read anew."""
    require_name(name)
    manifest = sources.declared_if_any
    seen = world(sources)
    for change in diff(manifest, seen):
        if change.session == name:
            return _with_git(sources, [_session(change, _by_session(seen))], depth)[0]
    raise unknown(name, {*manifest, *seen.records, *(o.session for o in seen.observed)})


def files(directory: str, session: Session) -> dict[str, str]:
    """What became of each injected file of a session, by its path inside: as written, or what the agent did."""
    import os
    from hashlib import sha256

    from sessionctl import beneath

    found: dict[str, str] = {}
    made_of = session.observed.made_of if session.observed is not None else None
    for file in made_of.data["files"] if made_of is not None else ():
        home = os.path.join(directory, "sessions", session.name, "home")
        try:
            content = beneath.read(home, file["path"].removeprefix("~/"), FILE_LIMIT)
            same = sha256(content).hexdigest() == file["sha256"]
            found[file["path"]] = "as written" if same else "changed inside"
        except FileNotFoundError:
            found[file["path"]] = "removed inside"
        except OSError as error:
            found[file["path"]] = f"changed inside: {error.strerror or error}"
    return found


def names(sources: Sources) -> list[str]:
    """All sessions that are declared or recorded, in order."""
    return sorted({*sources.declared_if_any, *filter(is_name, sources.store.records())})


def sandbox(sources: Sources, name: str) -> tuple[Observed, Record | None]:
    """The ready sandbox of a session and its record; `UsageError` when there is none."""
    require_name(name)
    record = sources.store.record(name)
    backend = record.backend if record is not None and record.backend else DEFAULT_BACKEND
    found = sandbox_of(sources.backend(backend).observe(session=name), record)
    if found is None:
        known = {*sources.store.records(), *sources.declared_if_any}
        if name in known:
            raise UsageError(f"{name} has no sandbox", hint="run `sessionctl apply`")
        raise unknown(name, {*known, *sources.declared})  # a manifest that cannot be read is the better answer
    return found, record


def unknown(name: str, known: Iterable[str]) -> UsageError:
    """What is said of a name that no session has, with the nearest of those that are `known`."""
    from difflib import get_close_matches

    close = get_close_matches(name, sorted(known), 1)
    return UsageError(
        f"there is no session {name}",
        hint=f"did you mean {close[0]}? See `sessionctl ls`" if close else "see `sessionctl ls`",
    )


def _with_git(sources: Sources, rows: list[Session], depth: Depth) -> list[Session]:
    """`rows`, those that have a workspace with what git says of it now."""
    seen = {
        row.name: (row.observed, row.record)
        for row in rows
        if row.observed is not None and row.observed.workspace is not None
    }
    states = dict(zip(seen, remembering.readings(sources, seen.values(), depth), strict=True))
    return [row._replace(git=states[row.name]) if row.name in states else row for row in rows]


def _by_session(seen: World) -> dict[str, Observed]:
    """Of each session one thing that was observed, for those that have no sandbox that is whole."""
    return {observed.session: observed for observed in reversed(seen.observed)}


def _session(change: Change, seen: Mapping[str, Observed]) -> Session:
    declaration = change.declared or (change.record.last if change.record else None)
    if declaration is None and change.current is not None:
        declaration = change.current.made_of
    observed = change.current or seen.get(change.session)
    if change.kind == "conflict" and observed is None:
        status: Status = "unknown"
    elif observed is None:
        status = "gone"
    else:
        status = observed.status
    return Session(
        change.session,
        status,
        change.declared is not None,
        declaration.data if declaration is not None else {},
        change.record.git if change.record else GitState(),
        observed,
        change.record,
        stray=change.kind == "stray",
    )
