"""Commands that use one session: exec, start, stop, fetch."""

from __future__ import annotations

import argparse
import os
import sys

from sessionctl import errors
from sessionctl.cli.common import (
    Command,
    name_and_json,
    name_option,
    open_project,
    seconds,
    some_names,
)
from sessionctl.errors import UsageError


def _exec(args: argparse.Namespace) -> int:
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if command is args.command and command[:1] and command[0].startswith("-"):
        raise UsageError(
            f"{command[0]} comes after the name", hint=f"sessionctl exec {command[0]} {args.name} -- COMMAND"
        )
    env = dict(_assignment(text) for text in args.env)
    terminal = not args.no_tty and not args.json and sys.stdin.isatty() and sys.stdout.isatty()
    run = open_project(args).exec(
        args.name,
        command,
        env=env,
        private=[text for text in args.env if "=" not in text],
        timeout=args.timeout,
        stdin=_stdin(),
        tty=terminal,
        show=not args.json,
        keep_output=not args.no_record,
    )
    if run.limit:
        from sessionctl.render import LIMITS

        print(f"sessionctl: {args.name}: {LIMITS[run.limit]} (limits.{run.limit})", file=sys.stderr)
    if f"sessionctl: {command[0]}: not found\n".encode() in (run.stderr, run.stdout.replace(b"\r", b"")):
        print(f"  see what is there: sessionctl exec {args.name} -- ls /usr/bin", file=sys.stderr)
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


def _exec_options(parser: argparse.ArgumentParser) -> None:
    name_option(parser)
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="what to run, after `--`")
    parser.add_argument(
        "--timeout", type=seconds, metavar="DURATION", help="end it after this long, with exit code 124"
    )
    parser.add_argument(
        "-e", "--env", action="append", default=[], metavar="NAME[=VALUE]", help="a variable for it; may be repeated"
    )
    parser.add_argument("-T", "--no-tty", action="store_true", help="no terminal for it, even on one")
    parser.add_argument("--no-record", action="store_true", help="keep nothing of its output in the journal")
    parser.add_argument("--json", action="store_true", help="its exit code, duration and output as one JSON document")


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
    project = open_project(args)
    for name in args.names:
        print(f"{name}: {'started' if project.start(name) else 'runs already'}")
    return errors.OK


def _stop(args: argparse.Namespace) -> int:
    project = open_project(args)
    for name in args.names:
        print(f"{name}: {'stopped' if project.stop(name) else 'is stopped already'}")
    return errors.OK


def _fetch(args: argparse.Namespace) -> int:
    from sessionctl.render import as_json, printable

    fetched = open_project(args).fetch(args.name)
    if args.json:
        print(as_json({**fetched._asdict(), "heads": dict(fetched.heads)}))
        return errors.OK
    for head in fetched.moved:
        print(f"{args.name}: {printable(head)} is at {fetched.heads[head][:10]}")
    print(f"{args.name}: {printable(fetched.reason)}")
    return errors.OK


COMMANDS = {
    "exec": Command(
        _exec_options,
        _exec,
        "  sessionctl exec api -- bash\n  sessionctl exec --timeout 10m api -- python3 -m unittest\n"
        "  echo hi | sessionctl exec api -- cat",
        "Ends with the command's exit code; 124 when time ran out, 125 when sessionctl failed, 126 or 127 when it "
        "cannot be run or found.",
    ),
    "start": Command(
        some_names,
        _start,
        "  sessionctl start api",
    ),
    "stop": Command(
        some_names,
        _stop,
        "  sessionctl stop api web",
        'apply starts it again; declare state = "stopped" to keep it so.',
    ),
    "fetch": Command(
        name_and_json,
        _fetch,
        "  sessionctl fetch api",
        "Its branch here follows when that is a fast-forward and it is checked out nowhere.",
    ),
}
