"""What is there: every sandbox with a mark, and what is half made.

This module may not change anything, but for the cgroups of what has ended by itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from sessionctl import beneath
from sessionctl.backends.bubblewrap import alive, grouping, lives, marks
from sessionctl.backends.bubblewrap.marks import FORM, Mark
from sessionctl.backends.bubblewrap.places import Places
from sessionctl.model import LimitsSpec, Observed, is_id, is_name

NAME = "bubblewrap"


def sessions(places: Places) -> list[str]:
    """The names of all sessions that have a directory; `OSError` when that cannot be told."""
    with os.scandir(places.sessions) as entries:
        return sorted(each.name for each in entries if is_name(each.name) and each.is_dir(follow_symlinks=False))


def of_session(places: Places, name: str, boot: str) -> list[Observed]:
    """Every sandbox of a session; of one with files and no sandbox, that it is partial."""
    names = beneath.names(places.session(name))  # none when it was removed meanwhile
    ids = sorted(filter(is_id, names))
    if not ids and ("work" in names or "home" in names):
        return [Observed(name, "", NAME, "partial")]
    return [observe(places, name, id, boot) for id in ids]


def observe(places: Places, name: str, id: str, boot: str) -> Observed:
    """One sandbox, as it is in the boot whose id is `boot`."""
    life = lives.whole(places, name, id, boot)
    if life is None and os.path.exists(places.file(name, id, "groups")):
        lives.release(places, name, id, boot)
    pid, started_at = (life.pid, life.started_at) if life else (None, None)
    try:
        mark = marks.load(places, name, id)
    except marks.UNUSABLE:
        return Observed(name, id, NAME, "partial", pid=pid, started_at=started_at)
    if life is None and not os.path.isdir(mark.workspace.upper):
        return Observed(name, id, NAME, "partial")  # its work is gone: it is what is left of a prune
    if life is None and not all(map(os.path.isdir, mark.lower(places.directory))):
        # Its image is gone: it has nothing to run on, and may hold what was installed.
        return Observed(name, id, NAME, "partial", made_of=mark.made_of, workspace=mark.workspace)
    return Observed(
        session=name,
        id=id,
        backend=NAME,
        status="running" if life else "stopped",
        made_of=mark.made_of,
        workspace=mark.workspace,
        pid=pid,
        started_at=started_at,
        drift=_drift(places, mark, name, id) or (life and _astray(places, mark, life.pid)) or "",
        clashes=mark.clashes,
        not_enforced=_not_enforced(places, mark, running=life is not None),
    )


def _not_enforced(places: Places, mark: Mark, *, running: bool) -> tuple[str, ...]:
    declared = LimitsSpec.of(mark.made_of.data)
    if declared == LimitsSpec():
        return ()
    from sessionctl.backends.bubblewrap import limits

    made = grouping.groups(places, mark.session, mark.id) if running else []
    there = {group.limit for group in made} if running else limits.means().limits
    return tuple(each.what.removeprefix("limits.") for each in limits.unenforced(declared, there, ""))


def _drift(places: Places, mark: Mark, name: str, id: str) -> str:
    if mark.form > FORM:
        return f"its mark was written by a later release (form {mark.form}, this one knows {FORM})"
    for what, says, place in (
        ("project", mark.project, places.project),
        ("session", mark.session, name),
        ("sandbox", mark.id, id),
    ):
        if says != place:
            return f"its mark says {what} {says!a}, and it stands where {what} {place!a} belongs"
    return ""


def _astray(places: Places, mark: Mark, pid: int) -> str:
    """Why what a sandbox writes does not come here: it was started on a directory that this is a copy of."""
    if alive.has_mounted(pid, f"{places.session(mark.session)}/home") is not False:
        return ""
    return (
        "it runs on other files than the ones here: this state directory was copied, or restored, while it ran"
        f" (what it wrote since then is not here; to go on with what is: sessionctl stop {mark.session})"
    )


def with_busy(found: Sequence[Observed]) -> list[Observed]:
    """`found` with whether anything but its pid 1 runs in each."""
    populations = alive.populations()
    spaces = [alive.pid_namespace(observed.pid) if observed.pid else "" for observed in found]
    return [
        observed._replace(busy=populations.get(space, 0) > 1) if space else observed
        for observed, space in zip(found, spaces, strict=True)
    ]
