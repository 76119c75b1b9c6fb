"""Snapshots, and what was done that can be undone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sessionctl.render.states import branch_of
from sessionctl.render.text import Paint, listed, moment, printable, table
from sessionctl.units import duration, size

if TYPE_CHECKING:
    from sessionctl.snapshots import Operation, Snapshot


def snapshots_text(found: Sequence[Snapshot], now: float, paint: Paint) -> str:
    """A table of snapshots."""
    rows = []
    for each in found:
        if each.corrupt:
            what = ("damaged", "red")
            message = each.corrupt
        else:
            what = ("trash", "dim") if each.discarded else (("rescue", "yellow") if each.by == "rescue" else ("", ""))
            message = each.message
        moved = None in each.parts.values()
        rows.append(
            (
                (each.session, "bold"),
                (each.id, ""),
                (f"{duration(max(now - each.made_at, 0))} ago" if each.made_at else "-", ""),
                ("-" if moved or not each.parts else size(each.size), ""),
                (f"{branch_of(each.git)} {(each.git.commit or '')[:10]}".rstrip(), ""),
                what,
                (printable(message), "dim"),
            )
        )
    return table(("SESSION", "SNAPSHOT", "MADE", "SIZE", "COMMIT", "", ""), rows, paint)


def snapshot_data(snapshot: Snapshot) -> dict[str, Any]:
    """The JSON form of one snapshot; its shape is described in docs/json.md."""
    from sessionctl.snapshots import SHOWN

    return {
        "id": snapshot.id,
        "session": snapshot.session,
        "made_at": moment(snapshot.made_at),
        "by": snapshot.by,
        "message": snapshot.message or None,
        "operation": snapshot.operation or None,
        "branch": snapshot.git.branch,
        "commit": snapshot.git.commit,
        "size_bytes": snapshot.size,
        "parts": {SHOWN[part]: measure._asdict() if measure else None for part, measure in snapshot.parts.items()},
        "discarded": bool(snapshot.discarded),
        "corrupt": snapshot.corrupt or None,
    }


def operations_text(found: Sequence[Operation], now: float, paint: Paint) -> str:
    """A table of what was done that can be undone."""
    rows = [
        (
            (each.id, "bold"),
            (each.verb, ""),
            (f"{duration(max(now - each.time, 0))} ago", ""),
            (listed(each.sessions), ""),
            ("undone" if each.undone is not None else "expired" if each.expired is not None else "", "dim"),
        )
        for each in found
    ]
    return table(("OPERATION", "", "DONE", "SESSIONS", ""), rows, paint)
