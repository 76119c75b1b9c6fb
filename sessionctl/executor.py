"""Carries a plan out: a thread per session, strict order inside one. Decides nothing.

A failed step skips the rest of its lane, and lanes that wait for it, and leaves the others alone. Once
`interrupted` is set no further step is begun; those that are under way are finished.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, NamedTuple

from sessionctl.model import Observed
from sessionctl.plan import Action, Lane, Plan, Result, Verb


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
    done: dict[str, Future[Sequence[Outcome]]] = {lane.session: Future() for lane in lanes}

    def carry_out(lane: Lane) -> None:
        before = done[lane.after].result() if lane.after else ()
        ready = all(outcome.result == "done" for outcome in before)
        done[lane.session].set_result(_lane(lane, steps, watch, stop, ready=ready))

    # A lane that waits for another is begun after it, so that whoever waits never keeps the other from beginning.
    order = sorted(lanes, key=lambda lane: _depth(lane, {each.session: each.after for each in lanes}))
    if len(lanes) <= 1 or jobs == 1:
        for lane in order:
            carry_out(lane)
    else:
        with ThreadPoolExecutor(max_workers=min(jobs, len(lanes)), thread_name_prefix="lane") as pool:
            for running in [pool.submit(carry_out, lane) for lane in order]:
                running.result()
    return tuple(outcome for lane in lanes for outcome in done[lane.session].result())


def _depth(lane: Lane, after: Mapping[str, str]) -> int:
    """How many lanes must have ended before `lane`, one after the other."""
    depth, name = 0, lane.session
    while name := after.get(name, ""):
        depth += 1
    return depth


def _lane(
    lane: Lane, steps: Mapping[Verb, Step], watch: Watcher, stop: threading.Event, *, ready: bool
) -> Sequence[Outcome]:
    outcomes: list[Outcome] = []
    made = lane.change.current
    failed = not ready
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
