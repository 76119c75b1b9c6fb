"""What differs between what is declared and what is, and why. Pure: decides nothing, does nothing."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sessionctl.lifetime import resting
from sessionctl.model import (
    NORMALISER,
    Declaration,
    Effect,
    Observed,
    Record,
    World,
    costliest,
    effect_of,
    flat,
    kind_of,
)

Kind = Literal[
    "keep",
    "record",
    "create",
    "recreate",
    "rename",
    "start",
    "stop",
    "update",
    "restart",
    "replace",
    "drop",
    "retained",
    "forget",
    "stray",
    "conflict",
]


class FieldChange(NamedTuple):
    """One field that is declared otherwise than the sandbox was made."""

    path: str
    before: Any
    after: Any
    effect: Effect


class Change(NamedTuple):
    """What is to be said of one session."""

    session: str
    kind: Kind
    reason: str
    fields: tuple[FieldChange, ...] = ()
    declared: Declaration | None = None
    record: Record | None = None
    current: Observed | None = None
    """The sandbox that is the session: ready, and the best match of what is declared."""
    spare: tuple[Observed, ...] = ()
    """All others of the session: half-made ones, and what a crash left beside the current one."""
    setup: bool = False
    """Whether setup is declared and has not finished in the current sandbox."""
    drifted: tuple[Observed, ...] = ()
    """For a conflict: the sandboxes that are not as they were last written."""
    otherwise: "Change | None" = None
    """For a conflict that ``--force`` may lift: what would be said if the drifted ones were not there."""
    renamed: str = ""
    """What the session is called yet, when that is another name."""
    rests: str = ""
    """Why its processes are not to run although it is declared running; empty when they are."""


def diff(declared: Mapping[str, Declaration], world: World) -> tuple[Change, ...]:
    """One change per name that is declared, observed or recorded, in order of the names."""
    seen: dict[str, list[Observed]] = {}
    for observed in world.observed:
        seen.setdefault(observed.session, []).append(observed)
    names = sorted(declared.keys() | seen.keys() | world.records.keys())
    changes = (_change(name, declared.get(name), seen.get(name, ()), world) for name in names)
    return tuple(_renamed(change, world) for change in changes)


def _renamed(change: Change, world: World) -> Change:
    rival, old = world.rivals.get(change.session), world.renamed.get(change.session)
    if rival:
        reason = f"renamed_from is {rival}, but both are there: remove the key, or rename or prune one of them"
        return change._replace(kind="conflict", reason=reason, otherwise=None)
    if old and change.kind in ("keep", "record"):
        return change._replace(kind="rename", reason=f"was {old}", renamed=old)
    return change._replace(renamed=old) if old else change


def in_sync(changes: Sequence[Change]) -> bool:
    """Whether every declared session is as declared. What is not declared does not disturb that."""
    return all(change.kind == "keep" for change in changes if change.declared is not None)


def _change(name: str, declared: Declaration | None, seen: Sequence[Observed], world: World) -> Change:
    record = world.records.get(name)
    if declared is None and not seen and record is not None and record.backend not in world.unreachable:
        # First and fast: a project that lives for years has thousands of these.
        return Change(name, "forget", "not declared, and nothing of it is left but its record", record=record)
    current, spare = _choose(seen, declared, record)
    change = Change(name, "keep", "as declared", (), declared, record, current, spare)

    for backend in _backends(declared, seen, record):
        if backend in world.unreachable:
            return change._replace(
                kind="conflict", reason=f"{backend} could not be asked: {world.unreachable[backend]}"
            )
    drifted = tuple(observed for observed in seen if observed.drift)
    if drifted:
        otherwise = _change(name, declared, [each for each in seen if not each.drift], world)
        return otherwise._replace(
            kind="conflict", reason=drifted[0].drift, fields=(), drifted=drifted, otherwise=otherwise
        )
    if declared is None:
        return _undeclared(change, world)
    if current is None:
        if record is None:
            return change._replace(kind="create", reason=_never(spare), setup=bool(declared.data["setup"]))
        gone = "image is" if any(each.made_of is not None for each in spare) else "files are"
        return change._replace(
            kind="recreate", reason=f"recorded, but its {gone} gone", setup=bool(declared.data["setup"])
        )
    return _declared(change, declared, current, record, world)


_SETTLED = frozenset({"workspace.base", "workspace.mode", "workspace.visible", "workspace.session_dir"})
_LAID_OUT = frozenset({"workspace.history", "workspace.submodules", "workspace.lfs"})
# Of a checkout that is a layer over a base, the base can be another one; one that is a plain directory is as it is.


def _declared(change: Change, declared: Declaration, current: Observed, record: Record | None, world: World) -> Change:
    made_of = _normal(current.made_of)
    fields = _fields(made_of, declared)
    rests = resting(declared.data, record, current, world.now) if declared.data["state"] == "running" else ""
    wants_running = declared.data["state"] == "running" and not rests
    pending = bool(declared.data["setup"]) and (record is None or record.setup != current.id)
    change = change._replace(fields=fields, setup=pending and wants_running, rests=rests)

    layered = kind_of(declared.data["workspace"]) in ("clone", "overlay")
    settled = _SETTLED if layered else _SETTLED | _LAID_OUT
    fixed = [field.path for field in fields if field.path in settled]
    if fixed:
        # The work stands on it: there is nothing that carries uncommitted files to another base.
        return change._replace(
            kind="conflict",
            reason=f"{fixed[0]} is settled when a session is made: declare another session beside it",
        )
    effect = costliest([field.effect for field in fields])
    if effect == "replace":
        return change._replace(kind="replace", reason=_differ(fields), setup=_sets_up(declared) and not rests)
    if effect == "restart" and current.status == "running":
        return change._replace(kind="restart", reason=_differ(fields))
    if wants_running and current.status == "stopped":
        return change._replace(kind="start", reason=_stopped(record, fields))
    if not wants_running and current.status == "running":
        return change._replace(kind="stop", reason=rests or "runs, declared stopped")
    if fields:
        return change._replace(kind="update", reason=_differ(fields))
    if current.made_of is not None and current.made_of.digests != declared.digests:
        return change._replace(kind="update", reason="its mark was written by another release")
    if change.setup:
        return change._replace(kind="update", reason="setup has not finished in it")
    if change.spare:
        return change._replace(kind="drop", reason=_spare(change.spare))
    stale = _stale(record, current, declared)
    if stale:
        return change._replace(kind="record", reason=stale)
    return change


def _undeclared(change: Change, world: World) -> Change:
    if change.record is None:
        return change._replace(kind="stray", reason="bears our mark, but there is no record of it")
    last, current = change.record.last.data, change.current
    rests = resting(last, change.record, current, world.now) if current is not None else ""
    return change._replace(kind="retained", reason="not declared", rests=rests)


def _choose(
    seen: Sequence[Observed], declared: Declaration | None, record: Record | None
) -> tuple[Observed | None, tuple[Observed, ...]]:
    """The sandbox that is the session, and the others in order of their ids.

    After a crash in a replace there are two ready ones: the one made as declared is the session,
    else the one the record knows, else the newest.
    """

    def rank(observed: Observed) -> tuple[bool, bool, str]:
        fits = declared is not None and _normal(observed.made_of).digests.replace == declared.digests.replace
        return fits, record is not None and observed.id == record.sandbox, observed.id

    ready = [observed for observed in seen if observed.status != "partial" and observed.made_of is not None]
    current = max(ready, key=rank) if ready else None
    # Files without a sandbox are not a sandbox to remove: they are what the next one stands on.
    spare = sorted((o for o in seen if o is not current and o.id), key=lambda o: o.id)
    return current, tuple(spare)


def _normal(made_of: Declaration | None) -> Declaration:
    assert made_of is not None  # only ready sandboxes come here
    return made_of if made_of.digests.normaliser == NORMALISER else Declaration.of(made_of.spec)


def _fields(before: Declaration, after: Declaration) -> tuple[FieldChange, ...]:
    if before.digests == after.digests:
        return ()
    old, new = flat(before.spec.data()), flat(after.data)  # what an earlier release wrote lacks what came later
    paths = sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))
    return tuple(FieldChange(path, old.get(path), new.get(path), effect_of(path)) for path in paths)


def _differ(fields: Sequence[FieldChange]) -> str:
    """Names the fields that make it cost what it costs; all of them are in `Change.fields`."""
    effect = costliest([field.effect for field in fields])
    paths = [field.path for field in fields if field.effect == effect]
    return f"{', '.join(paths)} {'differs' if len(paths) == 1 else 'differ'}"


def _sets_up(declared: Declaration) -> bool:
    return bool(declared.data["setup"]) and declared.data["state"] == "running"


def _backends(declared: Declaration | None, seen: Sequence[Observed], record: Record | None) -> tuple[str, ...]:
    names = [observed.backend for observed in seen]
    names += [declared.data["backend"]] if declared is not None else []
    names += [record.backend] if record is not None and record.backend else []
    return tuple(dict.fromkeys(names))


def _never(spare: Sequence[Observed]) -> str:
    return "declared, and only half made" if spare else "declared and never made"


def _stopped(record: Record | None, fields: Sequence[FieldChange]) -> str:
    if any(field.path == "state" for field in fields):
        return "declared running, nothing runs"
    if record is not None and record.stopped_at is not None:
        return "declared running, stopped by hand"
    return "its files are there, nothing runs"


def _spare(spare: Sequence[Observed]) -> str:
    halves = sum(observed.status == "partial" for observed in spare)
    parts = [f"{halves} half-made"] * bool(halves) + [f"{len(spare) - halves} superseded"] * (halves < len(spare))
    return f"{' and '.join(parts)} beside it"


def _stale(record: Record | None, current: Observed, declared: Declaration) -> str:
    if record is None:
        return "there is no record of it"
    if record.corrupt:
        return f"its record is corrupt: {record.corrupt}"
    if record.sandbox != current.id or record.backend != current.backend:
        return "its record names another sandbox"
    if record.last.digests != declared.digests:
        return "its record holds an older declaration"
    return ""
