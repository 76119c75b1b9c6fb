"""The cgroups of sandboxes with limits: written down before they are made, and as long as they may be."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sessionctl import beneath
from sessionctl.backends.bubblewrap import alive
from sessionctl.backends.bubblewrap.alive import Life
from sessionctl.backends.bubblewrap.marks import Mark
from sessionctl.backends.bubblewrap.places import Places, read
from sessionctl.errors import BackendError
from sessionctl.model import LimitsSpec

if TYPE_CHECKING:
    from sessionctl.backends.bubblewrap.limits import Group

_GROUP_WAIT = 5.0
"""Seconds until a cgroup whose processes were killed has none any more."""


def groups(places: Places, name: str, id: str) -> list[Group]:
    """The cgroups that a sandbox has, or may have."""
    try:
        content = read(places.file(name, id, "groups"))
    except FileNotFoundError:
        return []
    from sessionctl.backends.bubblewrap import limits

    return limits.load(content)


def make(places: Places, name: str, id: str, declared: LimitsSpec) -> list[Group]:
    """The cgroups of a sandbox, with the values of `declared`. Those that it has already stay, also unlimited."""
    made = groups(places, name, id)
    if declared == LimitsSpec() and not made:
        return []
    from sessionctl.backends.bubblewrap import limits

    if declared != LimitsSpec():
        wanted = limits.groups(declared, limits.means(), places.project, name, id)
        more = [group for group in wanted if group.limit not in {each.limit for each in made}]
        if more:
            made += more
            beneath.publish(places.file(name, id, "groups"), limits.dump(made))
    limits.make(made, declared)
    return made


def limit(places: Places, name: str, id: str, declared: LimitsSpec, life: Life) -> None:
    """Limits a running sandbox to `declared`, with all that runs in it."""
    from sessionctl.backends.bubblewrap import limits

    made = make(places, name, id, declared)
    space = alive.pid_namespace(life.pid)
    if not space:
        raise BackendError(f"the processes of {name} cannot be found", hint=f"sessionctl stop {name}")
    # Again until none is new: one that was being moved may have had a child, which is where it was.
    moved: set[int] = set()
    while new := set(alive.members(space)) - moved:
        limits.take_in(made, new)
        moved |= new


def of_a_command(places: Places, mark: Mark) -> dict[str, Any]:
    """What `launching.entering` must know of limits."""
    declared, made = LimitsSpec.of(mark.made_of.data), groups(places, mark.session, mark.id)
    if declared == LimitsSpec() and not made:
        return {}
    from sessionctl.backends.bubblewrap import limits

    return {
        "groups": [group.procs for group in made],
        "rlimits": limits.rlimits(declared, made),
        "processors": limits.processors(declared, made, mark.id, os.sched_getaffinity(0)),
    }


def remove(places: Places, name: str, id: str, wait: float = _GROUP_WAIT) -> None:
    """Removes the cgroups of a sandbox that has ended, if it has any."""
    made = groups(places, name, id)
    if made:
        from sessionctl.backends.bubblewrap import limits

        limits.remove(made, wait)
    with suppress(FileNotFoundError):
        os.unlink(places.file(name, id, "groups"))


def require_enforced(mark: Mark) -> None:
    """`BackendError` when a limit that must hold cannot: the machine, or who we are, changed since the plan."""
    declared = LimitsSpec.of(mark.made_of.data)
    if declared.enforce == "strict" and declared != LimitsSpec():
        from sessionctl.backends.bubblewrap.refusing import unenforceable

        for refusal in unenforceable(declared):
            raise BackendError(f"{refusal.what}: {refusal.why}", hint=refusal.remedy)
