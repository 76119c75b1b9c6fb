"""Bringing about what was planned, if it still is what would be planned."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sessionctl.app import changing, looking, planning, remembering
from sessionctl.errors import ConflictError, UsageError
from sessionctl.plan import Plan

if TYPE_CHECKING:
    import threading

    from sessionctl.app.sources import Sources
    from sessionctl.executor import Outcome, Watcher


def apply(
    sources: Sources,
    plan: Plan,
    *,
    on: Watcher | None,
    progress: Callable[[str], None],
    wait: float,
    interrupted: threading.Event | None,
) -> tuple[Outcome, ...]:
    """Carries out `plan`; the outcomes in its order. An error is raised before anything was done."""
    if plan.refused:
        refused = [f"{lane.session}: {each}" for lane in plan.refused for each in lane.refused]
        raise UsageError("\n".join(["this cannot be done here:", *refused]), hint="see `sessionctl doctor`")
    remembering.follow_heads(sources, looking.world(sources))
    if not plan.work and not changing.is_unfinished(sources):
        return ()
    from sessionctl.executor import execute
    from sessionctl.steps import steps

    with changing.changing(sources, wait) as held:
        now = planning.plan(sources, (), plan.policy)
        if now.decision != plan.decision:
            raise ConflictError(
                "something changed since this plan was made", hint="run the command again to see the new one"
            )
        site = sources.site(progress)
        if plan.policy.allow_host:
            from sessionctl.app import trusting

            trusting.granted(sources.directory, now)
        going = [lane.session for lane in now.work if lane.takes_away]
        operation = changing.begun(sources, "prune" if plan.policy.prune else "replace", going)
        outcomes = execute(now, steps(site, operation), jobs=sources.settings.jobs, on=on, interrupted=interrupted)
        if plan.policy.prune:
            from sessionctl.app import storing

            storing.release_bases(sources)
        held.unfinished = any(outcome.result == "failed" for outcome in outcomes)
    return outcomes
