"""The command line: argparse → app → render → exit code. The only place that catches, asks and exits.

Here are what all commands share and the table of them. A command's module is imported, and its parser made,
when that command is called: `sessionctl plan` in a git hook does not pay for the others.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sessionctl import errors
from sessionctl.errors import SessionctlError, UsageError

if TYPE_CHECKING:
    from sessionctl.cli.common import Command

CANNOT_RUN = 125
"""What `exec` ends with when sessionctl itself failed, so that it is no exit code of the command."""


class Place(NamedTuple):
    """Where a command is, and its line in the help."""

    module: str
    """Of this package; it has a table `COMMANDS`."""
    summary: str


COMMANDS = {
    "init": Place("declaring", "Write a first sessions.toml"),
    "validate": Place("declaring", "Check the manifest and say all that is wrong with it"),
    "schema": Place("declaring", "Print the manifest's JSON Schema, for editors"),
    "show": Place("declaring", "Show a session as declared, and where each value comes from"),
    "plan": Place("converging", "Show how what is declared differs from what is, and what apply would do"),
    "apply": Place("converging", "Bring about what is declared"),
    "verify": Place("converging", "End with 3 unless everything is as declared"),
    "prune": Place("converging", "Remove sessions that are not declared any more and provably hold no work"),
    "ls": Place("looking", "List sessions as they are"),
    "status": Place("looking", "Show everything about one session, its files looked at anew"),
    "path": Place("looking", "Print the directory of the host that a session works in"),
    "log": Place("looking", "Show what happened, in order of time"),
    "exec": Place("using", "Run a command inside a session"),
    "start": Place("using", "Start a session that is stopped"),
    "stop": Place("using", "End all processes of a session; its files stay"),
    "fetch": Place("using", "Bring a session's commits into the repository"),
    "images": Place("storing", "List the images that are unpacked, and who uses them"),
    "gc": Place("storing", "Remove unpacked images that nothing uses"),
    "doctor": Place("looking", "Check what this machine needs to run sandboxes"),
}


def command_of(name: str) -> Command:
    """The command of that name; its module is imported for it."""
    from importlib import import_module

    command: Command = import_module(f"sessionctl.cli.{COMMANDS[name].module}").COMMANDS[name]
    return command


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
    command = command_of(name)
    parser = argparse.ArgumentParser(
        prog=f"sessionctl {name}",
        description=f"{COMMANDS[name].summary}. {command.detail}".strip(),
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
