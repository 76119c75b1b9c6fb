"""Commands that compare what is declared with what is, and bring it about: plan, apply, verify, prune."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from sessionctl import errors
from sessionctl.cli.common import (
    Command,
    agreed,
    approval_options,
    json_option,
    names_option,
    nobody,
    open_project,
    seconds,
)
from sessionctl.errors import UntrustedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sessionctl.app import Project
    from sessionctl.executor import Outcome
    from sessionctl.plan import Plan, Policy


def _plan(args: argparse.Namespace) -> int:
    from sessionctl.plan import Policy

    project = open_project(args)
    plan = project.plan(args.names, Policy(force=args.force, allow_host=args.allow_host))
    if args.out is not None:
        project.save(plan, args.out)
    _print_plan(plan, args)
    if plan.refused:
        return errors.USAGE
    return errors.CHANGES if args.exit_code and not plan.in_sync else errors.OK


def _plan_options(parser: argparse.ArgumentParser) -> None:
    names_option(parser, "only these declared sessions")
    parser.add_argument("--exit-code", action="store_true", help="end with 3 when something would change")
    parser.add_argument("--out", metavar="FILE", help="write the plan to FILE, for `apply --plan`")
    parser.add_argument("--force", action="store_true", help="plan to replace what is not as we last wrote it")
    parser.add_argument("--allow-host", action="store_true", help="plan as if what is taken from the host were allowed")
    json_option(parser)


def _verify(args: argparse.Namespace) -> int:
    project = open_project(args)
    plan = project.plan(args.names)
    _print_plan(plan, args)
    return errors.OK if plan.in_sync else errors.CHANGES


def _verify_options(parser: argparse.ArgumentParser) -> None:
    names_option(parser, "only these declared sessions")
    json_option(parser)


def _apply(args: argparse.Namespace) -> int:
    from sessionctl.plan import Policy

    policy = Policy(force=args.force, allow_host=args.allow_host)
    if args.plan is None:
        return _carry_out(args, policy, "Apply this plan?")
    if args.names:
        raise UsageError("--plan is for the sessions that the plan is of", hint="leave the names away")
    project = open_project(args)
    return _go(project, project.saved(args.plan, policy), args, "Apply this plan?")


def _apply_options(parser: argparse.ArgumentParser) -> None:
    names_option(parser, "only these declared sessions")
    parser.add_argument(
        "--plan", metavar="FILE", help="just what `plan --out FILE` said; with 3, when that has changed"
    )
    parser.add_argument("--force", action="store_true", help="replace what is not as we last wrote it")
    parser.add_argument(
        "--allow-host", action="store_true", help="let sessions take from the host what the plan says they would"
    )
    approval_options(parser)


def _prune(args: argparse.Namespace) -> int:
    from sessionctl.plan import Policy

    return _carry_out(args, Policy(prune=True, idle=args.idle), "Remove these?")


def _prune_options(parser: argparse.ArgumentParser) -> None:
    names_option(parser, "only these sessions")
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="say what would go and what stays and why; remove nothing"
    )
    parser.add_argument(
        "--idle", type=seconds, default=600.0, metavar="DURATION", help="unused for at least this long (default: 10m)"
    )
    approval_options(parser)
    parser.add_argument("--json", action="store_true", help="with --dry-run: the plan as one JSON document")


def _print_plan(plan: Plan, args: argparse.Namespace) -> None:
    from sessionctl.render import Paint, as_json, plan_data, plan_text

    print(as_json(plan_data(plan)) if args.json else plan_text(plan, Paint(sys.stdout, args.color)))


_TRIES = 2
"""How often ``--yes`` plans again because another sessionctl was faster."""


def _carry_out(args: argparse.Namespace, policy: Policy, question: str) -> int:
    if not args.yes:
        return _once(args, policy, question)
    for _ in range(_TRIES):
        try:
            return _once(args, policy, question)
        except errors.ConflictError as error:
            # Nothing was done, and nobody has read the plan: the next one is as good.
            print(f"{error}: planning again", file=sys.stderr)
    return _once(args, policy, question)


def _once(args: argparse.Namespace, policy: Policy, question: str) -> int:
    project = open_project(args)
    if not getattr(args, "dry_run", False):
        project.recover()
    plan = project.plan(args.names, policy)
    if getattr(args, "dry_run", False):
        _print_plan(plan, args)
        return plan.exit_code()
    if getattr(args, "json", False):
        raise UsageError("--json goes with --dry-run")
    return _go(project, plan, args, question)


def _go(project: Project, plan: Plan, args: argparse.Namespace, question: str) -> int:
    """Shows `plan`, asks, carries it out and says what became of it."""
    from sessionctl.render import Paint, outcomes_text, plan_text

    paint = Paint(sys.stdout, args.color)
    print(plan_text(plan, paint))
    if plan.refused:
        return errors.USAGE
    if plan.work and plan.untrusted and not args.yes and nobody(args):
        raise _untrusted(plan)  # hooks and CI: nothing was done, and this is what a person has to look at
    if plan.work and not args.yes and not agreed(question, args):
        return errors.FAILED
    outcomes = _applied(project, plan)
    if outcomes:
        print(outcomes_text(plan, outcomes, paint))
    code = plan.exit_code(outcome.result for outcome in outcomes)
    if code == errors.UNTRUSTED:
        raise _untrusted(plan)
    return code


def _untrusted(plan: Plan) -> UntrustedError:
    lines = [f"{lane.session} would take from the host: {each}" for lane in plan.untrusted for each in lane.untrusted]
    names = " ".join(lane.session for lane in plan.untrusted)
    return UntrustedError(
        "\n".join(lines),
        hint=f"if that is meant: sessionctl trust {names}; just this once: sessionctl apply --allow-host {names}",
    )


def _applied(project: Project, plan: Plan) -> Sequence[Outcome]:
    if not plan.work:
        return project.apply(plan)
    import signal
    import threading

    from sessionctl.render import Progress

    interrupted = threading.Event()
    progress = Progress(sum(len(lane.actions) for lane in plan.work))

    def interrupt(number: int, frame: object) -> None:
        # The second one ends it at once: what is half done is found and finished by the next apply.
        if interrupted.is_set():
            os._exit(errors.INTERRUPTED)
        interrupted.set()
        progress.announce("finishing what is begun; once more to stop at once")

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        return project.apply(plan, on=progress, progress=progress.say, interrupted=interrupted)
    finally:
        progress.close()
        signal.signal(signal.SIGINT, before)


COMMANDS = {
    "plan": Command(
        _plan_options,
        _plan,
        "  sessionctl plan\n  sessionctl plan --exit-code api\n  sessionctl plan --json | jq .in_sync\n"
        "  sessionctl plan --out api.plan api",
    ),
    "apply": Command(
        _apply_options,
        _apply,
        "  sessionctl apply\n  sessionctl apply --yes api web\n  sessionctl apply --plan api.plan",
        "Removes nothing that a block was deleted for: that is prune's.",
    ),
    "verify": Command(
        _verify_options,
        _verify,
        "  sessionctl verify && git push",
    ),
    "prune": Command(
        _prune_options,
        _prune,
        "  sessionctl prune --dry-run\n  sessionctl prune --idle 0s old-api",
        "Clean (untracked and ignored files too), held by the host repository, and idle; unknown means keep.",
    ),
}
