"""Every combination of what is declared, observed, recorded and allowed, and a crash after every step.

A plan is carried out on a small world of values by the rules that a backend keeps; each rule is
asserted as it is used. So the plans are checked, not their execution: that is tests/test_apply.py's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest

from sessionctl import lifetime
from sessionctl.diff import diff
from sessionctl.model import Declaration, GitState, Merged, Observed, Record, World
from sessionctl.plan import Action, Plan, Policy, plan, taken, unclean
from tests.worlds import (
    BASE,
    BRANCH,
    DELETE,
    ENV,
    HOST,
    IMAGE,
    INCLUDE,
    NAME,
    NOW,
    PROTECTED,
    RESTS,
    SETUP,
    STOPPED,
    TAKES,
    TTL,
    A,
    git,
    record,
    sandbox,
)

Case = tuple[Declaration | None, tuple[Observed, ...], Record | None]

DECLARED = (None, A, STOPPED, ENV, BRANCH, INCLUDE, IMAGE, SETUP, PROTECTED, BASE, HOST, TAKES, RESTS)
OBSERVED: tuple[tuple[Observed, ...], ...] = (
    (),
    (sandbox(None, "partial", ""),),
    (sandbox(None, "partial"),),
    (sandbox(A, busy=False),),
    (sandbox(A, busy=True),),
    (sandbox(A, "stopped"),),
    (sandbox(A), sandbox(None, "partial", "2")),
    (sandbox(A), sandbox(IMAGE, "stopped", "2")),
    (sandbox(A, "stopped"), sandbox(IMAGE, "running", "2")),
    (sandbox(A, "stopped"), sandbox(A, "stopped", "2")),
    (sandbox(SETUP),),
    (sandbox(INCLUDE, "stopped"),),
    (sandbox(PROTECTED, busy=False),),
    (sandbox(HOST),),
    (sandbox(TAKES, "stopped"),),
    (sandbox(RESTS, busy=False),),
    (sandbox(RESTS, "stopped"),),
    (sandbox(A, drift="its mark names web"),),
)
RECORDED = (
    None,
    record(A),
    record(A, "2"),
    record(A, stopped_at=5.0),
    record(SETUP, setup=""),
    record(PROTECTED),
    record(A, corrupt="no JSON"),
    record(TAKES),
    record(TAKES, corrupt="no JSON"),
    record(RESTS, idle_set=1.0),
)
CASES = tuple(itertools.product(DECLARED, OBSERVED, RECORDED))
PRUNED = (
    *CASES,
    *itertools.product(
        (None, A, TTL),
        ((sandbox(TTL, busy=False),), (sandbox(TTL, busy=True),), (sandbox(DELETE, "stopped"),)),
        (record(TTL, expires_at=NOW - 1), record(TTL, expires_at=NOW + 1), record(DELETE)),
    ),
)
"""What only `prune` tells apart is not in every other combination."""

STATES = (
    None,
    git(),
    git(dirty=True),
    git(dirty=None),
    git(unpushed=1),
    git(unpushed=None),
    git(error="HEAD is a link"),
)
HOMES = (None, (), ("~/notes",))


def seen(case: Case, **more: object) -> World:
    _, observed, recorded = case
    return World(observed, {NAME: recorded} if recorded else {}, now=NOW, **more)  # type: ignore[arg-type]


def planned(case: Case, policy: Policy = Policy(), **more: object) -> Plan:  # noqa: B008  (an immutable value)
    world = seen(case, **more)
    manifest = {NAME: case[0]} if case[0] is not None else {}
    return plan(diff(manifest, world), world, policy)


def steps(of: Plan) -> tuple[Action, ...]:
    return tuple(action for lane in of.lanes for action in lane.actions)


class Site:
    """What a backend, a workspace and a store would hold; keeps the rules they keep."""

    def __init__(self, case: Case) -> None:
        self.declared, observed, self.record = case
        self.sandboxes = {o.id: o for o in observed if o.id}
        self.work = bool(observed)
        self.made: str | None = None
        self.starts = False
        """Whether the plan starts it, which counts as use."""

    def case(self) -> Case:
        only_work = () if self.sandboxes or not self.work else (sandbox(None, "partial", ""),)
        return self.declared, (*self.sandboxes.values(), *only_work), self.record

    def running(self) -> list[str]:
        return [id for id, each in self.sandboxes.items() if each.status == "running"]

    def ready(self) -> list[str]:
        return [id for id, each in self.sandboxes.items() if each.status != "partial" and not each.drift]

    def do(self, action: Action) -> None:
        target = action.target.id if action.target is not None else self.made
        match action.verb:
            case "prepare":
                self.work = True
                if "include" in action.reason:
                    assert not self.running(), "files were put into a layer that is mounted"
            case "create":
                assert self.work and self.declared is not None
                same = [
                    id
                    for id in self.ready()
                    if _made(self.sandboxes[id]).digests.replace == self.declared.digests.replace
                ]
                self.made = same[0] if same else str(max(map(int, self.sandboxes), default=0) + 1)
                if not same:
                    self.sandboxes[self.made] = sandbox(self.declared, "stopped", self.made)
            case "start":
                assert not set(self.running()) - {target}, "two sandboxes on one upper layer"
                self._change(target, status="running", busy=False)
            case "stop" | "rest":
                self._change(target, status="stopped")
            case "update":
                assert target is not None and self.declared is not None
                restarts = _made(self.sandboxes[target]).digests.restart != self.declared.digests.restart
                assert not (restarts and target in self.running()), "a restart field was changed while it ran"
                self._change(target, made_of=self.declared)
            case "setup":
                assert target in self.running() and target is not None
                assert self.declared is not None
                base = self.record or record(self.declared, target, setup="")
                self.record = base._replace(setup=target)
            case "branch":
                pass
            case "verify":
                assert not self.running(), "looked at while something could still write"
            case "remove":
                assert target is not None and target not in self.running(), "removed while it ran"
                ready = self.sandboxes[target].status != "partial"
                del self.sandboxes[target]
                assert self.declared is None or not ready or self.ready(), "the last good one went first"
            case "rescue" | "delete":
                assert not self.running(), "its work went while it ran"
                self.work = False
                self.sandboxes = {}
            case "record":
                assert self.declared is not None
                sandbox_id = self.made or max(self.ready())
                was = self.record
                last = _made(self.sandboxes[sandbox_id])
                assert last.digests == self.declared.digests, "recorded before it was so"
                now = record(self.declared, sandbox_id, setup=was.setup if was else "")
                now = now._replace(last_active=NOW if was is None or self.starts else was.last_active)
                self.record = lifetime.counted(now, was, NOW)
            case "forget":
                assert not self.sandboxes and not self.work
                self.record = None

    def _change(self, target: str | None, **changes: object) -> None:
        assert target is not None
        self.sandboxes[target] = self.sandboxes[target]._replace(**changes)  # type: ignore[arg-type]


def _made(observed: Observed) -> Declaration:
    assert observed.made_of is not None
    return observed.made_of


def carry_out(case: Case, policy: Policy, crash_after: int | None = None, **more: object) -> Case:
    """`case` after its plan was carried out, or the first `crash_after` steps of it."""
    decided = planned(case, policy, **more)
    site = Site(case)
    current = next((lane.change.current for lane in decided.lanes), None)
    site.starts = any(action.verb == "start" for action in steps(decided))
    site.made = current.id if current is not None else None
    for action in steps(decided)[:crash_after]:
        if action.verb == "create":
            site.made = None
        site.do(action)
    return site.case()


def blocked(case: Case, policy: Policy) -> bool:
    return bool(planned(case, policy).blocked)


POLICIES = [Policy(force, allow_host) for force, allow_host in itertools.product((False, True), repeat=2)]


@pytest.mark.parametrize("policy", POLICIES)
def test_one_apply_converges(policy: Policy) -> None:
    for case in CASES:
        after = carry_out(case, policy)
        left = planned(after, policy)
        assert not steps(left), f"{case}\n{planned(case, policy)}\nthen\n{left}"
        assert left.in_sync or left.blocked or (left.untrusted and not policy.allow_host), str(left)


@pytest.mark.parametrize("policy", POLICIES)
def test_after_a_crash_at_any_step_the_next_apply_converges(policy: Policy) -> None:
    for case in CASES:
        for done in range(len(steps(planned(case, policy)))):
            halfway = carry_out(case, policy, done)
            after = carry_out(halfway, policy)
            left = planned(after, policy)
            assert not steps(left), f"{case}\n{planned(case, policy)}\ncrashed after {done}, then\n{left}"


def test_a_crash_and_another_declaration_converges() -> None:
    for case, then in itertools.product(CASES, DECLARED):
        for done in range(len(steps(planned(case)))):
            _, observed, recorded = carry_out(case, Policy(), done)
            changed: Case = (then, observed, recorded)
            left = planned(carry_out(changed, Policy()))
            assert not steps(left), f"{case}\n{planned(case)}\ncrashed after {done}, then {then}\n{left}"


def test_nothing_is_taken_from_the_host_that_was_not_allowed() -> None:
    for case, force in itertools.product(CASES, (False, True)):
        _, observed, recorded = case
        before = [each.made_of for each in observed if each.made_of is not None and not each.drift]
        before += [recorded.last] if recorded and not recorded.corrupt else []
        allowed = {line for made_of in before for line in taken(made_of.data)}
        policy = Policy(force=force)
        for lane in planned(case, policy).lanes:
            assert not (lane.untrusted and lane.actions)
            if lane.actions and lane.change.declared is not None:
                assert set(taken(lane.change.declared.data)) <= allowed, f"{case}\n{planned(case, policy)}"


def test_what_was_allowed_need_not_be_allowed_again() -> None:
    for case in CASES:
        after = carry_out(case, Policy(allow_host=True))
        assert not planned(after).untrusted
        stopped = tuple(each._replace(status="stopped") if each.made_of else each for each in after[1])
        assert not planned((after[0], stopped, after[2])).untrusted or planned(case).blocked


def test_apply_never_takes_work_away() -> None:
    for case, force in itertools.product(CASES, (False, True)):
        verbs = {action.verb for action in steps(planned(case, Policy(force=force)))}
        assert not verbs & {"rescue", "forget"}


def test_what_only_adds_does_nothing_but_make_and_start() -> None:
    done = set()
    for case, allow_host in itertools.product(CASES, (False, True)):
        usual = {lane.session: lane for lane in planned(case, Policy(allow_host=allow_host)).lanes}
        for lane in planned(case, Policy(allow_host=allow_host, additive=True)).lanes:
            assert lane.actions in ((), usual[lane.session].actions)
            if lane.actions:
                done.add(lane.change.kind)
                assert not {action.verb for action in lane.actions} & {"stop", "remove", "discard", "forget"}
    assert done == {"create", "start"}


def test_apply_leaves_alone_what_is_not_declared() -> None:
    for case in CASES:
        if case[0] is None:
            assert not steps(planned(case, Policy(force=True)))


def test_what_is_blocked_or_refused_has_no_steps() -> None:
    for case in CASES:
        for lane in planned(case, unreachable={"bubblewrap": "no answer"}).lanes:
            assert not lane.actions
        for lane in planned(case, refused={NAME: ("network: no",)}).lanes:
            assert not lane.actions


def prune_cases() -> Iterator[tuple[Case, GitState | None, Sequence[str] | None, float]]:
    cases = [case for case in PRUNED if case[0] is None]
    return itertools.product(cases, STATES, HOMES, (0.0, 600.0, 2 * NOW))


def test_prune_takes_only_what_every_answer_allows() -> None:
    for case, state, home, idle in prune_cases():
        git_states = {} if state is None else {NAME: state}
        homes = {} if home is None else {NAME: home}
        decided = planned(case, Policy(prune=True, idle=idle), git=git_states, homes=homes)
        verbs = {action.verb for action in steps(decided)}
        if not verbs & {"rescue", "delete"}:
            continue
        _, observed, recorded = case
        assert not unclean(state, Merged(), home, gone="delete" in verbs)
        if "delete" in verbs:
            assert home == () and recorded is not None and recorded.last is DELETE
            assert all(each.made_of is DELETE for each in observed)
        assert state is not None and state.dirty is False and state.unpushed == 0 and not state.error
        assert not any(each.status == "running" and each.busy is not False for each in observed)
        assert not any(each.drift for each in observed)
        assert recorded is None or not recorded.protect
        assert idle == 0.0 or (recorded is not None and NOW - recorded.last_active >= idle)


def test_prune_takes_of_what_is_declared_only_what_expired_and_stops_only_what_rests() -> None:
    taken_away = stopped = 0
    for case in PRUNED:
        declared, observed, recorded = case
        if declared is None:
            continue
        policy = Policy(prune=True, idle=0, force=True, names=frozenset({NAME}))
        verbs = {action.verb for action in steps(planned(case, policy, git={NAME: git()}, homes={NAME: ()}))}
        if verbs == {"rest"}:
            stopped += 1
            assert declared is RESTS and recorded is not None and recorded.last is RESTS
            assert NOW - recorded.last_active >= 3600 and all(each.busy is False for each in observed)
        elif verbs:
            taken_away += 1
            assert declared is TTL and recorded is not None
            assert recorded.expires_at is not None and recorded.expires_at <= NOW
    assert taken_away and stopped


def test_prune_verifies_between_stopping_and_removing() -> None:
    pruned = 0
    for case, state, home, idle in prune_cases():
        if state is None or home is None:
            continue
        decided = planned(case, Policy(prune=True, idle=idle), git={NAME: state}, homes={NAME: home})
        verbs = [action.verb for action in steps(decided)]
        if "rescue" in verbs:
            pruned += 1
            assert verbs.index("verify") < verbs.index("rescue")
            assert "stop" not in verbs[verbs.index("verify") :]
            after = carry_out(case, Policy(prune=True, idle=idle), git={NAME: state}, homes={NAME: home})
            assert after == (None, (), None)
    assert pruned


def test_plans_are_deterministic() -> None:
    for case in CASES:
        assert str(planned(case)) == str(planned(case))
