"""Plans, what became of them, and what sessions take from the host by them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sessionctl.render.states import git_data
from sessionctl.render.text import PLAIN, Paint, listed, moment, printable, safe_block

if TYPE_CHECKING:
    from sessionctl.executor import Outcome
    from sessionctl.plan import Action, Lane, Plan
    from sessionctl.trust import Taking

_SIGNS = {
    "create": ("+", "green"),
    "recreate": ("+", "green"),
    "rename": ("~", "yellow"),
    "start": (">", "green"),
    "stop": ("=", "yellow"),
    "update": ("~", "yellow"),
    "restart": ("~", "yellow"),
    "replace": ("±", "red"),
    "drop": ("-", "yellow"),
    "record": ("·", "dim"),
    "retained": ("·", "dim"),
    "forget": ("·", "dim"),
    "stray": ("?", "yellow"),
    "conflict": ("!", "red"),
    "keep": (" ", "dim"),
}
_COSTS = {"in-place": "in place", "restart": "needs a restart", "replace": "needs a new sandbox"}
_TELLING = ("rename", "prepare", "setup", "branch", "rest", "rescue", "delete")


def plan_text(plan: Plan, paint: Paint = PLAIN) -> str:
    """A plan for a person who is about to approve it: what differs, what it costs, what will be done."""
    lines: list[str] = []
    shown = [lane for lane in plan.lanes if _tells(lane, plan)]
    width = max((len(lane.session) for lane in shown), default=0)
    for lane in shown:
        lines += _lane(lane, width, paint)
    warnings: dict[str, list[str]] = {}
    for lane in shown:
        for warning in lane.warnings:
            warnings.setdefault(warning, []).append(lane.session)
    if warnings:
        lines.append("")
        lines += [paint("yellow", f"! {listed(names)}: {warning}") for warning, names in warnings.items()]
    if lines:
        lines.append("")
    lines.append(_summary(plan))
    return "\n".join(lines)


def _tells(lane: Lane, plan: Plan) -> bool:
    """Whether there is anything to say of a session: a prune is silent about what is declared."""
    return bool(lane.kept or lane.actions or (lane.change.kind != "keep" and not plan.policy.prune))


def _lane(lane: Lane, width: int, paint: Paint) -> Iterable[str]:
    change = lane.change
    sign, colour = ("-", "red") if lane.removes else _SIGNS[change.kind]
    reason = change.reason
    if lane.kept:
        reason = f"kept: {lane.kept}" if change.declared is None else f"{reason}; kept: {lane.kept}"
    if not lane.kept and change.kind == "start" and change.record is not None and change.record.stopped_at is not None:
        reason += f" at {moment(change.record.stopped_at)}"
    kind = _kind(lane)
    name = paint("bold", f"{change.session:{width}}")
    yield f"{paint(colour, sign)} {name}  {paint(colour, f'{kind:8}')}  {printable(reason)}"
    pad = " " * 6
    for field in change.fields:
        cost = paint("dim", _COSTS[field.effect]) if not lane.blocked else ""
        yield f"{pad}{field.path}: {_value(field.before)} -> {_value(field.after)}  {cost}".rstrip()
    for each in lane.takes:
        told = paint("red", " (not trusted)") if each in lane.untrusted else ""
        yield f"{pad}{paint('yellow', 'takes from the host:')} {printable(each)}{told}"
    if lane.untrusted:
        yield f"{pad}{paint('red', f'nothing is done to it: sessionctl trust {lane.session}')}"
    for refusal in lane.refused:
        yield f"{pad}{paint('red', f'cannot be done here: {printable(refusal)}')}"
    if lane.blocked:
        force = "; --force replaces it" if change.otherwise else ""
        yield f"{pad}{paint('red', f'nothing is done to it{force}')}"
    steps = [_step(lane, action) for action in lane.actions if action.verb != "record" or len(lane.actions) == 1]
    if steps:
        yield f"{pad}{paint('dim', ' → '.join(steps))}"


def _kind(lane: Lane) -> str:
    """What becomes of a session, in a word."""
    if lane.removes:
        return "remove"
    return "stop" if any(action.verb == "rest" for action in lane.actions) else lane.change.kind


def _step(lane: Lane, action: Action) -> str:
    if action.verb not in _TELLING:
        return action.verb
    at = f" at {lane.base[:10]}" if action.verb == "prepare" and lane.base else ""
    return f"{action.verb} ({action.reason}{at})"


def _summary(plan: Plan) -> str:
    kinds: dict[str, int] = {}
    for lane in plan.work:
        kind = _kind(lane)
        kinds[kind] = kinds.get(kind, 0) + 1
    parts = [f"{count} to {kind}" for kind, count in kinds.items()]
    if plan.policy.prune:
        kept = sum(bool(lane.kept) for lane in plan.lanes)
        return f"Prune: {', '.join(parts) or 'nothing to remove'}{f', {kept} kept' if kept else ''}."
    parts += [f"{len(plan.blocked)} blocked"] if plan.blocked else []
    parts += [f"{len(plan.refused)} cannot be done here"] if plan.refused else []
    parts += [f"{len(plan.untrusted)} not trusted"] if plan.untrusted else []
    retained = sum(lane.change.kind == "retained" for lane in plan.lanes)
    aside = f" {retained} retained." if retained else ""
    if plan.in_sync and not parts:
        count = sum(lane.change.declared is not None for lane in plan.lanes)
        return f"In sync: {count} session{'s' * (count != 1)} as declared.{aside}"
    return f"Plan: {', '.join(parts)}.{aside}"


def _value(value: Any) -> str:
    if value is None:
        return "(none)"
    return printable(json.dumps(value, ensure_ascii=False))


def plan_data(plan: Plan) -> dict[str, Any]:
    """The JSON form of a plan; its shape is described in docs/json.md."""
    return {
        "in_sync": plan.in_sync,
        "changes": [
            {
                "session": lane.session,
                "kind": lane.change.kind,
                "reason": lane.change.reason,
                "fields": [field._asdict() for field in lane.change.fields],
                "actions": [
                    {"verb": a.verb, "reason": a.reason, "sandbox": a.target.id if a.target else None}
                    for a in lane.actions
                ],
                "git": _plan_git(lane),
                "takes": list(lane.takes),
                "untrusted": list(lane.untrusted),
                "warnings": list(lane.warnings),
                "kept": lane.kept or None,
            }
            for lane in plan.lanes
            if _tells(lane, plan)
        ],
        "blocked": [
            {
                "session": lane.session,
                "reason": lane.blocked or "; ".join(lane.refused) or f"not trusted: {'; '.join(lane.untrusted)}",
                "forcible": lane.change.otherwise is not None,
            }
            for lane in plan.lanes
            if lane.blocked or lane.refused or lane.untrusted
        ],
    }


def _plan_git(lane: Lane) -> dict[str, Any]:
    record = lane.change.record
    data = git_data(record.git) if record else {}
    declared = lane.change.declared
    workspace = declared.data["workspace"] if declared else {}
    return {
        **data,
        "base": lane.base or (record.base if record else "") or None,
        "declared_branch": workspace.get("branch"),
    }


def outcomes_text(plan: Plan, outcomes: Sequence[Outcome], paint: Paint = PLAIN) -> str:
    """What became of each lane, one line each, and every failure with its remedy."""
    lines = []
    for lane in plan.work:
        mine = [outcome for outcome in outcomes if outcome.session == lane.session]
        failed = next((outcome for outcome in mine if outcome.result == "failed"), None)
        kind = _kind(lane)
        if failed is not None:
            lines.append(
                f"{paint('red', 'failed')}  {lane.session}: {failed.action.verb}: {safe_block(str(failed.error))}"
            )
            hint = getattr(failed.error, "hint", "")
            lines += [f"        {printable(hint)}"] if hint else []
        elif any(outcome.result == "skipped" for outcome in mine):
            lines.append(f"{paint('yellow', 'stopped')} {lane.session}: {kind}, not finished")
        else:
            lines.append(f"{paint('green', 'done')}    {lane.session}: {kind}")
        lines += [f"        {printable(note)}" for outcome in mine for note in outcome.notes]
    return "\n".join(lines)


def takings_text(takings: Sequence[Taking], paint: Paint) -> str:
    """What each session takes: what is trusted already, what is new, and what is not taken any more."""
    lines = []
    for each in takings:
        lines.append(paint("bold", each.session) + ("" if each.declared else "  (not declared any more)"))
        for line in each.lines:
            new = line in each.new
            sign = paint("yellow", "+") if new else " "
            lines.append(f"  {sign} {printable(line)}" + (paint("yellow", "  (not trusted)") if new else ""))
        lines += [paint("dim", f"  - {printable(line)}  (not taken any more)") for line in each.gone]
    return "\n".join(lines)


def takings_data(takings: Sequence[Taking]) -> dict[str, Any]:
    """The JSON form of the same; its shape is described in docs/json.md."""
    return {
        "trusted": not any(each.new for each in takings),
        "sessions": [
            {
                "name": each.session,
                "declared": each.declared,
                "takes": list(each.lines),
                "untrusted": list(each.new),
                "gone": list(each.gone),
            }
            for each in takings
        ],
    }
