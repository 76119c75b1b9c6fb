"""Carries a plan out: a thread per session, strict order inside one. Decides nothing.

A failed step skips the rest of its lane and leaves the other lanes alone. Once `interrupted` is set
no further step is begun; those that are under way are finished.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

from sessionctl.model import Observed
from sessionctl.plan import Action, Lane, Plan, Verb

Result = Literal["done", "failed", "skipped"]


class Outcome(NamedTuple):
    """What became of one action."""

    session: str
    action: Action
    result: Result
    error: Exception | None = None
    notes: tuple[str, ...] = ()
    """What a person should know although it worked."""


class Made(NamedTuple):
    """What the steps of a lane hand on to the next: the sandbox that the lane makes or changes."""

    sandbox: Observed | None
    notes: tuple[str, ...] = ()


Step = Callable[[Lane, Action, Observed | None], Made]
"""Carries out one action of a lane. Gets the lane's sandbox as the steps before left it."""

Watcher = Callable[[Lane, Action, Result | Literal["begun"]], None]


def execute(
    plan: Plan,
    steps: Mapping[Verb, Step],
    *,
    jobs: int,
    on: Watcher | None = None,
    interrupted: threading.Event | None = None,
) -> tuple[Outcome, ...]:
    """Carries out all actions of `plan`, at most `jobs` lanes at a time; the outcomes in plan order.

    An exception of a step is its outcome; none is raised from here.
    """
    stop = interrupted or threading.Event()
    watch = on or (lambda lane, action, result: None)
    lanes = plan.work
    if len(lanes) <= 1 or jobs == 1:
        outcomes = [_lane(lane, steps, watch, stop) for lane in lanes]
    else:
        with ThreadPoolExecutor(max_workers=min(jobs, len(lanes)), thread_name_prefix="lane") as pool:
            futures = [pool.submit(_lane, lane, steps, watch, stop) for lane in lanes]
            outcomes = [future.result() for future in futures]
    return tuple(outcome for lane in outcomes for outcome in lane)


def _lane(lane: Lane, steps: Mapping[Verb, Step], watch: Watcher, stop: threading.Event) -> Sequence[Outcome]:
    outcomes: list[Outcome] = []
    made = lane.change.current
    failed = False
    for action in lane.actions:
        if failed or stop.is_set():
            outcomes.append(Outcome(lane.session, action, "skipped"))
            watch(lane, action, "skipped")
            continue
        watch(lane, action, "begun")
        try:
            made, notes = steps[action.verb](lane, action, made)
            outcomes.append(Outcome(lane.session, action, "done", notes=notes))
        except Exception as error:
            failed = True
            outcomes.append(Outcome(lane.session, action, "failed", error))
        watch(lane, action, outcomes[-1].result)
    return outcomes
