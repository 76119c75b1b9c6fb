"""The command line: argparse → app → render → exit code. The only place that catches, asks and exits.

A command's parser is made when that command is called: `sessionctl plan` in a git hook does not pay for
the options of the others.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sessionctl import errors
from sessionctl.errors import SessionctlError, UntrustedError, UsageError

if TYPE_CHECKING:
    from sessionctl.app import Project, Session
    from sessionctl.plan import Plan, Policy

CANNOT_RUN = 125
"""What `exec` ends with when sessionctl itself failed, so that it is no exit code of the command."""


class Command(NamedTuple):
    """One command: its line in the help, its options, what it does, and examples for its help page."""

    summary: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    examples: str
    detail: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    import gc

    # A call is over before collecting garbage would pay, and what is left at its end goes with the process.
    gc.disable()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except SessionctlError as error:
        return _failed(error, CANNOT_RUN if _is_exec(words) else error.exit_code)
    except KeyboardInterrupt:
        return errors.INTERRUPTED
    except BrokenPipeError:
        # Who read us has enough (`| head`); nothing is left to say, also not by the interpreter at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.OK
    finally:
        gc.freeze()


def _run(words: list[str]) -> int:
    top = _top_parser()
    place, rest = top.parse_known_args(words[: _command_at(words)]), words[_command_at(words) :]
    known, unknown = place
    if unknown:
        top.error(f"unrecognized arguments: {' '.join(unknown)}")
    if known.version:
        from sessionctl import __version__

        print(f"sessionctl {__version__}")
        return errors.OK
    if known.help or not rest:
        print(_overview(), end="")
        return errors.OK if known.help else errors.USAGE
    name = rest[0]
    if name not in COMMANDS:
        from difflib import get_close_matches

        close = get_close_matches(name, COMMANDS, 1)
        raise UsageError(
            f"there is no command {name!a}",
            hint=f"did you mean `sessionctl {close[0]}`?" if close else "see `sessionctl --help`",
        )
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(
        prog=f"sessionctl {name}",
        description=f"{command.summary}. {command.detail}".strip(),
        epilog=f"examples:\n{command.examples}",
        formatter_class=_Help,
        allow_abbrev=False,
    )
    _global_options(parser, known)
    command.options(parser)
    return command.run(parser.parse_args(rest[1:]))


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help pages as wide as the terminal. argparse makes one for every option that is added, and would
    import `shutil`, with every compression module there is, to ask for the width."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    try:
        return int(os.environ.get("COLUMNS", "")) or 80
    except ValueError:
        pass
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns if sys.__stdout__ else 80
    except (OSError, ValueError):
        return 80


_WITH_VALUE = ("-C", "--file", "--state-dir", "--set", "--color")


def _command_at(words: Sequence[str]) -> int:
    """Index of the first word that is neither an option nor an option's value."""
    index = 0
    while index < len(words) and words[index].startswith("-"):
        index += 2 if words[index] in _WITH_VALUE else 1
    return min(index, len(words))


def _is_exec(words: Sequence[str]) -> bool:
    index = _command_at(words)
    return index < len(words) and words[index] == "exec"


def _top_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sessionctl", add_help=False, allow_abbrev=False, formatter_class=_Help)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    _global_options(parser, argparse.Namespace())
    return parser


def _global_options(parser: argparse.ArgumentParser, known: argparse.Namespace) -> None:
    def given(name: str, otherwise: object) -> object:
        return getattr(known, name, otherwise)

    group = parser.add_argument_group("everywhere")
    group.add_argument("-C", dest="root", metavar="DIR", default=given("root", "."), help="act as if started in DIR")
    group.add_argument(
        "--file", metavar="FILE", default=given("file", None), help="the manifest (default: sessions.toml)"
    )
    group.add_argument("--state-dir", metavar="DIR", default=given("state_dir", None), help="where all state is kept")
    group.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=given("overrides", None),
        help="a setting of every session, before all others: workspace.history=own",
    )
    group.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default=given("color", "auto"),
        help="colours (default: on a terminal, unless NO_COLOR is set)",
    )


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        "usage: sessionctl [-C DIR] [--file FILE] [--state-dir DIR] COMMAND ...",
        "",
        "Declare, plan and apply isolated sessions of AI coding agents on a git repository.",
        "",
        *(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()),
        "",
        "first steps:",
        "  sessionctl init                   write a first sessions.toml",
        "  sessionctl plan                   see what would be done",
        "  sessionctl apply                  do it",
        "  sessionctl exec agent -- bash     a shell inside",
        "",
        "`sessionctl COMMAND --help` has the options and examples of each.",
    ]
    return "\n".join(lines) + "\n"


def _failed(error: SessionctlError, code: int) -> int:
    from sessionctl.render import Paint, printable, safe_block

    paint = Paint(sys.stderr)
    print(f"{paint('red', 'error:')} {safe_block(str(error))}", file=sys.stderr)
    if error.hint:
        print(f"  {printable(error.hint)}", file=sys.stderr)
    return code


def _project(args: argparse.Namespace) -> Project:
    from sessionctl.app import Project

    return Project(
        args.root,
        file=args.file,
        state_dir=args.state_dir,
        jobs=getattr(args, "jobs", None),
        overrides=args.overrides or (),
    )


# --- options that several commands share -------------------------------------------------------


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout and nothing else")


def _names(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("names", metavar="NAME", nargs="*", help=help)


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a session")


def _approval(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--no-input", action="store_true", help="never ask: without --yes, nothing is done")
    parser.add_argument("--jobs", type=_positive, metavar="N", help="sessions at a time")


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000")
    return int(text)


def _seconds(text: str) -> float:
    from sessionctl.units import parse_duration

    try:
        return parse_duration(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(f"{error} ({error.hint})") from None


# --- declaring ---------------------------------------------------------------------------------


def _init(args: argparse.Namespace) -> int:
    from pathlib import Path

    project = _project(args)
    from sessionctl import declared, git, manifest

    if project.repository.bare:
        raise UsageError("a bare repository has no place for a sessions.toml", hint="name one with --file")
    file = Path(args.file) if args.file else Path(project.repository.root) / declared.FILE
    branch, _ = git.host_head(project.repository, git.host_refs(project.repository).tips)
    text = manifest.template(branch)
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise UsageError(f"{file} is there already", hint="edit it, or see `sessionctl plan`") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error
    print(f"wrote {os.path.relpath(file)} with one session; next: sessionctl plan")
    return errors.OK


def _validate(args: argparse.Namespace) -> int:
    project = _project(args)
    count = len(project.declared)
    if args.json:
        from sessionctl.render import as_json

        print(as_json({"valid": True, "file": str(project.file), "sessions": sorted(project.declared)}))
    else:
        print(f"{os.path.relpath(project.file)}: valid, {count} session{'s' * (count != 1)}")
    return errors.OK


def _schema(args: argparse.Namespace) -> int:
    import json

    from sessionctl import manifest

    print(json.dumps(manifest.schema(), indent=2, sort_keys=True))
    return errors.OK


def _show(args: argparse.Namespace) -> int:
    from sessionctl.render import Paint, as_json, printable, table

    project = _project(args)
    values = project.resolved(args.name)
    if args.json:
        print(as_json({path: {"value": value, "from": origin} for path, (value, origin) in values.items()}))
        return errors.OK
    import json

    paint = Paint(sys.stdout, args.color)
    rows = [
        ((path, "bold"), (printable(json.dumps(value, ensure_ascii=False)), ""), (printable(origin), "dim"))
        for path, (value, origin) in values.items()
        if args.resolved or origin != "built-in"
    ]
    print(table(("FIELD", "VALUE", "FROM"), rows, paint))
    return errors.OK


# --- planning and applying ---------------------------------------------------------------------


def _plan(args: argparse.Namespace) -> int:
    from sessionctl.plan import Policy

    project = _project(args)
    plan = project.plan(args.names, Policy(force=args.force, allow_host=args.allow_host))
    _print_plan(plan, args)
    if plan.refused:
        return errors.USAGE
    return errors.CHANGES if args.exit_code and not plan.in_sync else errors.OK


def _verify(args: argparse.Namespace) -> int:
    project = _project(args)
    plan = project.plan(args.names)
    _print_plan(plan, args)
    return errors.OK if plan.in_sync else errors.CHANGES


def _print_plan(plan: Plan, args: argparse.Namespace) -> None:
    from sessionctl.render import Paint, as_json, plan_data, plan_text

    print(as_json(plan_data(plan)) if args.json else plan_text(plan, Paint(sys.stdout, args.color)))


def _apply(args: argparse.Namespace) -> int:
    from sessionctl.plan import Policy

    return _carry_out(args, Policy(force=args.force, allow_host=args.allow_host), "Apply this plan?")


def _prune(args: argparse.Namespace) -> int:
    from sessionctl.plan import Policy

    return _carry_out(args, Policy(prune=True, idle=args.idle), "Remove these?")


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


_TRIES = 2
"""How often ``--yes`` plans again because another sessionctl was faster."""


def _once(args: argparse.Namespace, policy: Policy, question: str) -> int:
    from sessionctl.render import Paint, outcomes_text, plan_text

    project = _project(args)
    paint = Paint(sys.stdout, args.color)
    plan = project.plan(args.names, policy)
    if getattr(args, "dry_run", False):
        _print_plan(plan, args)
        return _kept(plan)
    if getattr(args, "json", False):
        raise UsageError("--json goes with --dry-run")
    print(plan_text(plan, paint))
    if plan.refused:
        return errors.USAGE
    if plan.work and not args.yes and not _agreed(question, args):
        return errors.FAILED
    outcomes = _applied(project, plan)
    if outcomes:
        print(outcomes_text(plan, outcomes, paint))
    if any(outcome.result == "failed" for outcome in outcomes):
        return errors.FAILED
    if any(outcome.result == "skipped" for outcome in outcomes):
        return errors.INTERRUPTED
    if plan.untrusted:
        raise _untrusted(plan)
    return errors.CHANGES if plan.blocked else _kept(plan)


def _untrusted(plan: Plan) -> UntrustedError:
    lines = [f"{lane.session} would take from the host: {each}" for lane in plan.untrusted for each in lane.takes]
    names = " ".join(lane.session for lane in plan.untrusted)
    return UntrustedError("\n".join(lines), hint=f"if that is meant: sessionctl apply --allow-host {names}")


def _kept(plan: Plan) -> int:
    asked = [lane for lane in plan.lanes if lane.kept and lane.session in plan.policy.names]
    return errors.CHANGES if asked else errors.OK


def _agreed(question: str, args: argparse.Namespace) -> bool:
    if args.no_input or not sys.stdin.isatty():
        raise UsageError("nothing was done: there is nobody to ask", hint="say --yes")
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() in ("y", "yes"):
        return True
    print("nothing was done")
    return False


def _applied(project: Project, plan: Plan):  # type: ignore[no-untyped-def]  # Sequence[Outcome], imported lazily
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


# --- looking -----------------------------------------------------------------------------------


def _ls(args: argparse.Namespace) -> int:
    import time

    from sessionctl.render import Paint, sessions_json, sessions_text

    rows = [row for row in _project(args).sessions(strays=args.all) if _wanted(row, args)]
    rows.sort(key=_SORTS[args.sort])
    if args.json:
        print(sessions_json(rows))
    elif rows:
        print(sessions_text(rows, time.time(), Paint(sys.stdout, args.color)))
    else:
        print("no sessions", file=sys.stderr)
    return errors.OK


def _wanted(row: Session, args: argparse.Namespace) -> bool:
    return (
        (not args.prefix or row.name.startswith(tuple(args.prefix)))
        and (not args.tag or set(args.tag) <= set(row.data.get("tags", ())))
        and (not args.agent or row.data.get("agent") == args.agent)
        and (not args.state or row.status == args.state)
        and (not args.branch or row.git.branch == args.branch)
    )


_SORTS: dict[str, Callable[[Session], tuple[float | str, ...]]] = {
    "name": lambda row: (row.name,),
    "status": lambda row: (row.status, row.name),
    "used": lambda row: (-(row.record.last_active if row.record else 0), row.name),
    "created": lambda row: (-(row.record.created_at if row.record else 0), row.name),
    "branch": lambda row: (row.git.branch or "", row.name),
}


def _status(args: argparse.Namespace) -> int:
    import time

    from sessionctl.render import Paint, as_json, event_data, session_data, status_text

    project = _project(args)
    session = project.session(args.name)
    files = project.files(session)
    events = list(project.log(args.name, last=5))
    if args.json:
        clashes = list(session.observed.clashes) if session.observed else []
        more = {
            "changes": list(session.git.changes),
            "files": files,
            "clashes": clashes,
            "events": [event_data(e) for e in events],
        }
        print(as_json({**session_data(session), **more}))
    else:
        print(status_text(session, files, events, time.time(), Paint(sys.stdout, args.color)))
    return errors.OK


def _log(args: argparse.Namespace) -> int:
    import json
    import time

    from sessionctl.render import Paint, event_data, event_text

    project = _project(args)
    paint = Paint(sys.stdout, args.color)
    after, last = 0, args.number
    while True:
        for event in project.log(args.name, after=after, last=last):
            after = event.rowid
            print(json.dumps(event_data(event)) if args.json else event_text(event, paint))
        if not args.follow:
            return errors.OK
        sys.stdout.flush()
        last = None
        time.sleep(0.5)


def _doctor(args: argparse.Namespace) -> int:
    from sessionctl.render import Paint, as_json, checks_text

    try:
        checks = _project(args).doctor()
    except errors.GitError as error:
        # Where a newcomer asks first.
        from sessionctl import declared, doctor

        checks = doctor.machine(declared.tool({"state_dir": args.state_dir}).state_dir, error)
    if args.json:
        print(as_json([check._asdict() for check in checks]))
    else:
        print(checks_text(checks, Paint(sys.stdout, args.color)))
    return errors.OK if all(check.ok for check in checks) else errors.FAILED


# --- one session -------------------------------------------------------------------------------


def _exec(args: argparse.Namespace) -> int:
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if command is args.command and command[:1] and command[0].startswith("-"):
        raise UsageError(
            f"{command[0]} comes after the name", hint=f"sessionctl exec {command[0]} {args.name} -- COMMAND"
        )
    env = dict(_assignment(text) for text in args.env)
    terminal = not args.no_tty and not args.json and sys.stdin.isatty() and sys.stdout.isatty()
    run = _project(args).exec(
        args.name,
        command,
        env=env,
        timeout=args.timeout,
        stdin=_stdin(),
        tty=terminal,
        show=not args.json,
        keep_output=not args.no_record,
    )
    if run.limit:
        from sessionctl.render import LIMITS

        print(f"sessionctl: {args.name}: {LIMITS[run.limit]} (limits.{run.limit})", file=sys.stderr)
    if args.json:
        from sessionctl.render import as_json

        print(
            as_json(
                {
                    "exit_code": run.code,
                    "limit": run.limit,
                    "signal": run.signal,
                    "duration_s": round(run.duration, 3),
                    "stdout": run.stdout.decode("utf-8", "backslashreplace"),
                    "stderr": run.stderr.decode("utf-8", "backslashreplace"),
                    "truncated": run.truncated,
                }
            )
        )
    return run.code


def _stdin() -> int | None:
    """The descriptor of our standard input; None when there is none, or it is no file."""
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        return None


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not name.isascii() or "\0" in value:
        raise UsageError(f"{text!a} is not NAME=VALUE")
    if not equals:
        if name not in os.environ:
            raise UsageError(f"{name} is not set here", hint=f"say --env {name}=VALUE")
        value = os.environ[name]
    return name, value


def _start(args: argparse.Namespace) -> int:
    project = _project(args)
    for name in args.names:
        print(f"{name}: {'started' if project.start(name) else 'runs already'}")
    return errors.OK


def _stop(args: argparse.Namespace) -> int:
    project = _project(args)
    for name in args.names:
        print(f"{name}: {'stopped' if project.stop(name) else 'is stopped already'}")
    return errors.OK


def _fetch(args: argparse.Namespace) -> int:
    from sessionctl.render import as_json, printable

    fetched = _project(args).fetch(args.name)
    if args.json:
        print(as_json({**fetched._asdict(), "heads": dict(fetched.heads)}))
        return errors.OK
    for head in fetched.moved:
        print(f"{args.name}: {printable(head)} is at {fetched.heads[head][:10]}")
    print(f"{args.name}: {printable(fetched.reason)}")
    return errors.OK


# --- the table ---------------------------------------------------------------------------------


def _no_options(parser: argparse.ArgumentParser) -> None:
    return


def _show_options(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    parser.add_argument("--resolved", action="store_true", help="built-in values too")
    _json(parser)


def _plan_options(parser: argparse.ArgumentParser) -> None:
    _names(parser, "only these declared sessions")
    parser.add_argument("--exit-code", action="store_true", help="end with 3 when something would change")
    parser.add_argument("--force", action="store_true", help="plan to replace what is not as we last wrote it")
    parser.add_argument("--allow-host", action="store_true", help="plan as if what is taken from the host were allowed")
    _json(parser)


def _apply_options(parser: argparse.ArgumentParser) -> None:
    _names(parser, "only these declared sessions")
    parser.add_argument("--force", action="store_true", help="replace what is not as we last wrote it")
    parser.add_argument(
        "--allow-host", action="store_true", help="let sessions take from the host what the plan says they would"
    )
    _approval(parser)


def _verify_options(parser: argparse.ArgumentParser) -> None:
    _names(parser, "only these declared sessions")
    _json(parser)


def _prune_options(parser: argparse.ArgumentParser) -> None:
    _names(parser, "only these sessions")
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="say what would go and what stays and why; remove nothing"
    )
    parser.add_argument(
        "--idle", type=_seconds, default=600.0, metavar="DURATION", help="unused for at least this long (default: 10m)"
    )
    _approval(parser)
    parser.add_argument("--json", action="store_true", help="with --dry-run: the plan as one JSON document")


def _ls_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prefix", metavar="PREFIX", nargs="*", help="only sessions whose names begin so")
    parser.add_argument("-a", "--all", action="store_true", help="sandboxes without a record too")
    parser.add_argument("--sort", choices=tuple(_SORTS), default="name", help="default: name")
    parser.add_argument("--tag", action="append", metavar="TAG", help="only with this tag; may be repeated")
    parser.add_argument("--agent", metavar="NAME", help="only of this agent")
    parser.add_argument(
        "--state", choices=("running", "stopped", "partial", "gone", "unknown"), help="only observed so"
    )
    parser.add_argument("--branch", metavar="BRANCH", help="only on this branch")
    _json(parser)


def _status_options(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    _json(parser)


def _log_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="a session (default: all)")
    parser.add_argument("-n", dest="number", type=_positive, metavar="N", help="only the last N events")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as events come")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _exec_options(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="what to run, after `--`")
    parser.add_argument(
        "--timeout", type=_seconds, metavar="DURATION", help="end it after this long, with exit code 124"
    )
    parser.add_argument(
        "-e", "--env", action="append", default=[], metavar="NAME[=VALUE]", help="a variable for it; may be repeated"
    )
    parser.add_argument("-T", "--no-tty", action="store_true", help="no terminal for it, even on one")
    parser.add_argument("--no-record", action="store_true", help="keep nothing of its output in the journal")
    parser.add_argument("--json", action="store_true", help="its exit code, duration and output as one JSON document")


def _some_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", help="a session")


COMMANDS: dict[str, Command] = {
    "init": Command(
        "Write a first sessions.toml",
        _no_options,
        _init,
        "  sessionctl init && sessionctl plan",
    ),
    "validate": Command(
        "Check the manifest and say all that is wrong with it",
        _json,
        _validate,
        "  sessionctl validate\n  sessionctl validate --json",
    ),
    "schema": Command(
        "Print the manifest's JSON Schema, for editors",
        _no_options,
        _schema,
        "  sessionctl schema > sessions.schema.json",
    ),
    "show": Command(
        "Show a session as declared, and where each value comes from",
        _show_options,
        _show,
        "  sessionctl show api --resolved\n  sessionctl --set workspace.history=own show api",
    ),
    "plan": Command(
        "Show how what is declared differs from what is, and what apply would do",
        _plan_options,
        _plan,
        "  sessionctl plan\n  sessionctl plan --exit-code api\n  sessionctl plan --json | jq .in_sync",
    ),
    "apply": Command(
        "Bring about what is declared",
        _apply_options,
        _apply,
        "  sessionctl apply\n  sessionctl apply --yes api web",
        "Removes nothing that a block was deleted for: that is prune's.",
    ),
    "verify": Command(
        "End with 3 unless everything is as declared",
        _verify_options,
        _verify,
        "  sessionctl verify && git push",
    ),
    "prune": Command(
        "Remove sessions that are not declared any more and provably hold no work",
        _prune_options,
        _prune,
        "  sessionctl prune --dry-run\n  sessionctl prune --idle 0s old-api",
        "Clean (untracked and ignored files too), held by the host repository, and idle; unknown means keep.",
    ),
    "ls": Command(
        "List sessions as they are",
        _ls_options,
        _ls,
        "  sessionctl ls\n  sessionctl ls --tag backend --json\n  sessionctl ls --state running api-",
    ),
    "status": Command(
        "Show everything about one session, its files looked at anew",
        _status_options,
        _status,
        "  sessionctl status api\n  sessionctl status api --json",
    ),
    "log": Command(
        "Show what happened, in order of time",
        _log_options,
        _log,
        "  sessionctl log api\n  sessionctl log -f --json",
    ),
    "exec": Command(
        "Run a command inside a session",
        _exec_options,
        _exec,
        "  sessionctl exec api -- bash\n  sessionctl exec --timeout 10m api -- make test\n"
        "  echo hi | sessionctl exec api -- cat",
        "Ends with the command's exit code; 124 when time ran out, 125 when sessionctl failed, 126 or 127 when it "
        "cannot be run or found.",
    ),
    "start": Command(
        "Start a session that is stopped",
        _some_names,
        _start,
        "  sessionctl start api",
    ),
    "stop": Command(
        "End all processes of a session; its files stay",
        _some_names,
        _stop,
        "  sessionctl stop api web",
        'apply starts it again; declare state = "stopped" to keep it so.',
    ),
    "fetch": Command(
        "Bring a session's commits into the repository",
        _status_options,
        _fetch,
        "  sessionctl fetch api",
        "Its branch here follows when that is a fast-forward and it is checked out nowhere.",
    ),
    "doctor": Command(
        "Check what this machine needs to run sandboxes",
        _json,
        _doctor,
        "  sessionctl doctor\n  sessionctl doctor --json",
    ),
}
