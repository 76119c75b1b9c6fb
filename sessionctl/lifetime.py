"""How long sessions are to be there, and to run: `ttl` and `idle_stop`. Pure; is told what time it is.

Nothing acts by itself when time is up: the next `apply` or `prune` does. What is counted from is kept in the record,
so that a changed declaration counts from when it was applied, and never ends what was allowed before.
"""

from collections.abc import Mapping
from typing import Any

from sessionctl.model import Declaration, Observed, Record
from sessionctl.units import parse_duration


def expires_at(declared: Declaration, before: Record | None, now: float) -> float | None:
    """When (Unix time) the session that is recorded `now` as declared may be pruned; None: when nobody declares it."""
    ttl = declared.data.get("ttl")
    if not ttl:
        return None
    if before is not None and before.expires_at is not None and before.last.data.get("ttl") == ttl:
        return before.expires_at
    return now + parse_duration(ttl)


def idle_set(declared: Declaration, before: Record | None, now: float) -> float | None:
    """When `idle_stop` was declared as it is in what is recorded `now`: before that nothing counts as idle."""
    wanted = declared.data.get("idle_stop")
    if not wanted:
        return None
    if before is not None and before.idle_set is not None and before.last.data.get("idle_stop") == wanted:
        return before.idle_set
    return now


def counted(record: Record, before: Record | None, now: float) -> Record:
    """`record`, which is written `now` where `before` was, with the times that what it declares counts from."""
    return record._replace(expires_at=expires_at(record.last, before, now), idle_set=idle_set(record.last, before, now))


def expired(declared: Declaration | None, record: Record | None, now: float) -> str:
    """Why a session may be pruned although it is declared; empty when its time is not up, or another was declared."""
    if record is None or record.corrupt or record.expires_at is None or now < record.expires_at:
        return ""
    ttl = record.last.data["ttl"]
    return f"its ttl of {ttl} is over" if declared is None or declared.data.get("ttl") == ttl else ""


def resting(declared: Mapping[str, Any], record: Record | None, current: Observed, now: float) -> str:
    """Why the session in `current`, declared running as `declared` says, is not to run; empty: it is, or nobody knows.

    The reason says nothing that changes while time passes.
    """
    wanted = declared.get("idle_stop")
    if not wanted or record is None or record.corrupt or record.last.data.get("idle_stop") != wanted:
        return ""
    if current.status == "running" and current.busy is not False:
        return ""
    if now - max(record.last_active, record.idle_set or 0.0) < parse_duration(wanted):
        return ""
    return f"unused for longer than its idle_stop of {wanted}"
