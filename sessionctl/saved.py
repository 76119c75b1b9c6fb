"""Plans in files: what was decided, and of what, so that an apply later does just that or says what has moved.

A file is somebody's word and nothing else: what is carried out is always a plan that was made anew, and what was
allowed when the file was written is allowed only if it is said again. This module decides and applies nothing.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import ndiff
from typing import Any, NamedTuple

from sessionctl import beneath
from sessionctl.beneath import StrPath
from sessionctl.errors import UsageError
from sessionctl.model import flat, is_name
from sessionctl.plan import Plan

_FORM = 1
_LIMIT = 256 << 20
"""Bytes of a file: 10,000 sessions to be made."""
_SHOWN = 40
"""Lines of a difference that are said."""


class Saved(NamedTuple):
    """A plan that was written down."""

    names: frozenset[str]
    """Only these sessions; empty: all that were declared."""
    force: bool
    allow_host: bool
    decision: tuple[str, ...]
    """The lines of `Plan.decision`."""
    declared: Mapping[str, Mapping[str, Any]]
    """By session that something was to be done to: its declaration, as `model.flat` gives it."""


def save(path: StrPath, plan: Plan, project: str) -> None:
    """Writes `plan`, made for the project of that id, to `path`: whole or not at all, mode 0600. `UsageError`."""
    data = {
        "form": _FORM,
        "project": project,
        "names": sorted(plan.policy.names),
        "force": plan.policy.force,
        "allow_host": plan.policy.allow_host,
        "decision": plan.decision.splitlines(),
        "declared": _declared(plan),
    }
    try:
        beneath.publish(os.path.abspath(path), json.dumps(data, indent=1).encode() + b"\n")
    except OSError as error:
        raise UsageError(f"{os.fspath(path)} cannot be written: {error.strerror}") from error


def load(path: StrPath, project: str) -> Saved:
    """The plan in the file at `path`, which must be of the project of that id. `UsageError`."""
    name = os.fspath(path)
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"{name} is not a regular file")
            content = file.read(_LIMIT)
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error
    try:
        data = json.loads(content)
        form, of = data["form"], data["project"]
        if form == _FORM:
            found = Saved(
                frozenset(data["names"]),
                data["force"] is True,
                data["allow_host"] is True,
                tuple(data["decision"]),
                {session: dict(fields) for session, fields in data["declared"].items()},
            )
            if not all(map(is_name, found.names)) or not all(isinstance(line, str) for line in found.decision):
                raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"{name} is no saved plan", hint=f"make one: sessionctl plan --out {name}") from None
    if form != _FORM:
        raise UsageError(
            f"{name} was written by another release of sessionctl", hint=f"make it anew: sessionctl plan --out {name}"
        )
    if of != project:
        raise UsageError(f"{name} is a plan for another repository", hint="say for which: sessionctl -C DIR apply ...")
    return found


def moved(saved: Saved, plan: Plan) -> tuple[str, ...]:
    """How `plan`, made now, differs from `saved`, a line each; nothing when it does the same with the same.

    Lines that begin with ``-`` were planned, those with ``+`` would be done now.
    """
    # Why a session that was to be worked on is left alone now is said too.
    planned = _by_session(saved.decision)
    told = plan._replace(lanes=tuple(lane for lane in plan.lanes if lane.actions or lane.session in planned))
    lines = [*_decided(planned, _by_session(str(told).splitlines())), *_redeclared(saved.declared, _declared(plan))]
    more = [f"... and {len(lines) - _SHOWN} lines more"] if len(lines) > _SHOWN else []
    return (*lines[:_SHOWN], *more)


def _declared(plan: Plan) -> dict[str, dict[str, Any]]:
    # As it is read again: tuples are lists.
    declared = {lane.session: flat(lane.change.declared.data) for lane in plan.work if lane.change.declared is not None}
    again: dict[str, dict[str, Any]] = json.loads(json.dumps(declared))
    return again


def _decided(then: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The lines that differ, each session's together."""
    for session in sorted(then.keys() | now.keys()):
        yield from (line for line in ndiff(then.get(session, ()), now.get(session, ())) if line[0] in "-+")


def _by_session(lines: Iterable[str]) -> dict[str, list[str]]:
    """The lines of a decision by session. Its last line, whether all is in sync, is nobody's: it follows."""
    found: dict[str, list[str]] = {}
    session = ""
    for line in lines:
        if line in ("in sync", "not in sync"):
            continue
        if not line.startswith(" "):
            session = line.partition(":")[0]
        found.setdefault(session, []).append(line)
    return found


def _redeclared(then: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for session in sorted(then.keys() & now.keys()):
        before, after = then[session], now[session]
        for path in sorted(before.keys() | after.keys()):
            if before.get(path) != after.get(path):
                yield f"- {session} declared with {path}: {_said(before.get(path))}"
                yield f"+ {session} declared with {path}: {_said(after.get(path))}"


def _said(value: Any) -> str:
    return "(none)" if value is None else json.dumps(value, ensure_ascii=False)
