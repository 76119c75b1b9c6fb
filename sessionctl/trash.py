"""Which snapshots are kept no longer: what the trash was emptied of, and the user's own policy. Pure; removes nothing.

In the trash is what a command moved out of its way (rescues), and what a person discarded. Unknown means keep: what
cannot be read stays until a person discards it, and so does what is from the future.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sessionctl.snapshots import Operation, Snapshot, in_order
from sessionctl.units import duration
from sessionctl.units import size as shown


class Keep(NamedTuple):
    """How long the user wants things to be kept; 0: without limit."""

    expiry: float = 30 * 86400.0
    """Seconds that anything stays in the trash."""
    size: int = 0
    """Bytes on the disk that may be in the trash."""
    last: int = 0
    """Snapshots of each session, the newest ones, that are kept."""
    age: float = 0.0
    """Seconds that a snapshot is kept. With `last`, it goes when neither keeps it."""
    named: bool = False
    """Whether those with a message go too."""


class Spent(NamedTuple):
    """A snapshot that is kept no longer."""

    session: str
    id: str
    size: int
    """Bytes on the disk."""
    why: str
    operation: str = ""
    """Id of the operation that cannot be undone without it."""


def is_trash(snapshot: Snapshot) -> bool:
    """Whether a snapshot is in the trash: nobody asked for it, or nobody wants it any more."""
    return bool(snapshot.discarded) or snapshot.by == "rescue"


def spent(
    found: Sequence[Snapshot],
    operations: Sequence[Operation],
    keep: Keep,
    size_of: Callable[[Snapshot], int],
    now: float,
) -> tuple[Spent, ...]:
    """The snapshots of `found` that are kept no longer at the time `now`, in order."""
    known = {operation.id: operation for operation in operations}
    whole = [snapshot for snapshot in found if not snapshot.is_unclear]
    why = {**_beyond_policy(whole, keep, now), **_expired(whole, known, keep, now)}
    why |= _over_size(whole, known, keep, why, size_of)
    return tuple(
        Spent(each.session, each.id, size_of(each), why[each.id], each.discarded or each.operation)
        for each in whole
        if each.id in why
    )


def _since(snapshot: Snapshot, known: Mapping[str, Operation]) -> float | None:
    """When it came to the trash; None when that is not known."""
    if snapshot.discarded:
        return known[snapshot.discarded].time if snapshot.discarded in known else None
    return snapshot.made_at


def _expired(found: Sequence[Snapshot], known: Mapping[str, Operation], keep: Keep, now: float) -> Mapping[str, str]:
    in_trash = {each.id: _since(each, known) for each in found if is_trash(each)}
    reason = f"in the trash for more than {duration(keep.expiry)}"
    return {id: reason for id, since in in_trash.items() if keep.expiry and since and now - since >= keep.expiry}


def _over_size(
    found: Sequence[Snapshot],
    known: Mapping[str, Operation],
    keep: Keep,
    gone: Mapping[str, str],
    size_of: Callable[[Snapshot], int],
) -> Mapping[str, str]:
    """Of what is left in the trash the oldest, until the rest fits. What an `undo` needs stays until it expires."""
    if not keep.size:
        return {}
    left = sorted((each for each in found if is_trash(each) and each.id not in gone), key=lambda each: each.made_at)
    total = sum(map(size_of, left))
    going: dict[str, str] = {}
    for each in left:
        needed = each.operation in known and known[each.operation].undone is None and not each.discarded
        if total > keep.size and not needed:
            total -= size_of(each)
            going[each.id] = f"the trash is larger than {shown(keep.size)}"
    return going


def _beyond_policy(found: Sequence[Snapshot], keep: Keep, now: float) -> Mapping[str, str]:
    if not keep.last and not keep.age:
        return {}
    going: dict[str, str] = {}
    of_session: dict[str, int] = {}
    for each in sorted((each for each in found if not is_trash(each)), key=in_order, reverse=True):
        place = of_session[each.session] = of_session.get(each.session, 0) + 1
        among_last = bool(keep.last) and place <= keep.last
        young = bool(keep.age) and now - each.made_at < keep.age
        if not among_last and not young and (keep.named or not each.message):
            limits = [f"not among the last {keep.last}"] * bool(keep.last)
            limits += [f"older than {duration(keep.age)}"] * bool(keep.age)
            going[each.id] = " and ".join(limits)
    return going
