"""What the commands share: how a command is described, and options that several have."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from sessionctl.errors import SessionctlError, UsageError

if TYPE_CHECKING:
    from sessionctl.app import Project


class Command(NamedTuple):
    """One command: its options, what it does, and what its help page says beside its summary."""

    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    """Returns the exit code."""
    examples: str
    detail: str = ""


def open_project(args: argparse.Namespace) -> Project:
    from sessionctl.app import Project

    return Project(
        args.root,
        file=args.file,
        state_dir=args.state_dir,
        jobs=getattr(args, "jobs", None),
        overrides=args.overrides or (),
    )


def no_options(parser: argparse.ArgumentParser) -> None:
    return


def json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout and nothing else")


def names_option(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("names", metavar="NAME", nargs="*", help=help)


def some_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", help="a session")


def name_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a session")


def name_and_json(parser: argparse.ArgumentParser) -> None:
    name_option(parser)
    json_option(parser)


def asking_options(parser: argparse.ArgumentParser, otherwise: str = "nothing is done") -> None:
    """What `agreed` goes by; `otherwise` is what becomes of it when nobody was asked and nobody said yes."""
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("--no-input", action="store_true", help=f"never ask: without --yes, {otherwise}")


def approval_options(parser: argparse.ArgumentParser) -> None:
    asking_options(parser)
    parser.add_argument("--jobs", type=positive, metavar="N", help="sessions at a time")


def nobody(args: argparse.Namespace) -> bool:
    """Whether there is nobody to ask: a git hook, CI, a pipe."""
    return args.no_input or not sys.stdin.isatty()


def agreed(question: str, args: argparse.Namespace) -> bool:
    """Asks; whether the answer is yes. `UsageError` when there is nobody to ask."""
    if nobody(args):
        raise UsageError("nothing was done: there is nobody to ask", hint=f"say it: {args.line} --yes")
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() in ("y", "yes"):
        return True
    print("nothing was done")
    return False


def positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000")
    return int(text)


def seconds(text: str) -> float:
    from sessionctl.units import parse_duration

    try:
        return parse_duration(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.with_hint) from None


def require_agreed(question: str, args: argparse.Namespace) -> None:
    """Asks, unless ``--yes`` was said; an error, which ends the command, when the answer is no."""
    if not args.yes and not agreed(question, args):
        raise SessionctlError("not agreed to")
