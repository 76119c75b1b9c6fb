"""The command line: argparse → app → render → exit code. The only place that catches, asks and exits.

Here are what all commands share and the table of them. A command's module is imported, and its parser made,
when that command is called: `sessionctl plan` in a git hook does not pay for the others.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

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
    "add": Place("naming", "Declare a session in the manifest"),
    "rename": Place("naming", "Give a session another name, with all that it is"),
    "adopt": Place("naming", "Take on a sandbox that no record knows, or a worktree or clone that exists"),
    "trust": Place("trusting", "Show what the manifest takes from the host, and allow it"),
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
    "cp": Place("reading", "Copy files out of a session, or into one"),
    "diff": Place("reading", "Show what became of a session's files"),
    "logs": Place("reading", "Show what is kept of the output of a session's commands"),
    "snapshot": Place("keeping", "Keep a session's state: workspace, agent and sandbox"),
    "snapshots": Place("keeping", "List snapshots"),
    "restore": Place("keeping", "Bring a session back to a snapshot"),
    "fork": Place("keeping", "Make a copy of a session, on a branch of its own"),
    "discard": Place("keeping", "Put a snapshot into the trash"),
    "undo": Place("keeping", "Bring back what a command took away"),
    "images": Place("storing", "List the images that are unpacked, and who uses them"),
    "gc": Place("storing", "Remove what nothing uses or needs any more"),
    "hooks install": Place("hooking", "Let git hooks of the repository record its commits, checkouts and merges"),
    "hooks uninstall": Place("hooking", "Remove the hooks, and put back what stood in their place"),
    "hooks status": Place("hooking", "Show which hooks are installed, and where"),
    "hooks run": Place("hooking", "What the installed hooks call"),
    "doctor": Place("looking", "Check what this machine needs to run sandboxes"),
    "completion": Place("completing", "Print what a shell needs to complete command lines"),
}
"""By name: of one word, or of two."""


_ELSEWHERE = {
    **dict.fromkeys(("shell", "enter", "ssh"), "exec NAME -- bash"),
    **dict.fromkeys(("up", "sync"), "apply"),
    **dict.fromkeys(("down", "kill"), "stop NAME"),
    **dict.fromkeys(("list", "ps"), "ls"),
    **dict.fromkeys(("rm", "remove", "delete", "destroy"), "prune"),
}
"""What tools of this kind call things, and what that is here."""


_NEEDED = ("pydantic", "pydantic_settings", "tomlkit", "git", "invoke")
"""What pip installs with sessionctl: not there when its sources are run as they are."""
_INSTALL = "install it with what it needs, in its sources: `python3 -m venv .venv && .venv/bin/pip install -q .`"


def command_of(name: str) -> Command:
    """The command of that name; its module is imported for it."""
    from importlib import import_module

    command: Command = import_module(f"sessionctl.cli.{COMMANDS[name].module}").COMMANDS[name]
    return command


def program() -> int:
    """`main`, for a process that ends with it."""
    import gc

    # A call is over before collecting garbage would pay, and what is left at its end goes with the process.
    gc.disable()
    try:
        return main()
    finally:
        gc.freeze()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    try:
        return run(list(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:
        # Who read us has enough (`| head`); nothing is left to say, also not by the interpreter at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.OK


def run(words: list[str]) -> int:
    """Runs one command in this process, which may go on afterwards; its exit code. `SystemExit` for a wrong option."""
    try:
        return _run(words)
    except SessionctlError as error:
        return _failed(error, CANNOT_RUN if _is_exec(words) else error.exit_code)
    except KeyboardInterrupt:
        return errors.INTERRUPTED
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        return _failed(UsageError(f"{error.name} is not installed here", hint=_INSTALL), errors.USAGE)


def _run(words: list[str]) -> int:
    top = top_parser()
    place, rest = top.parse_known_args(words[: command_at(words)]), words[command_at(words) :]
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
    name = named(rest)
    if name not in COMMANDS:
        raise _unknown(rest)
    command = command_of(name)
    parser = _Parser(
        prog=f"sessionctl {name}",
        description=f"{COMMANDS[name].summary}. {command.detail}".strip(),
        epilog=f"examples:\n{command.examples}",
        formatter_class=_Help,
        allow_abbrev=False,
    )
    global_options(parser, known)
    command.options(parser)
    args = parser.parse_args(rest[len(name.split()) :])
    args.line = shlex.join(["sessionctl", *words])
    return command.run(args)


def named(words: Sequence[str]) -> str:
    """The name of the command that `words` begin with: of two words where there is such a one, else the first."""
    two = " ".join(words[:2])
    return two if two in COMMANDS else words[0]


def _unknown(words: Sequence[str]) -> UsageError:
    from difflib import get_close_matches

    name = words[0]
    more = [each for each in COMMANDS if each.startswith(f"{name} ")]
    if more:
        whole = ", ".join(f"`sessionctl {each}`" for each in more)
        return UsageError(f"{name} is not a whole command", hint=f"one of: {whole}")
    close = [_ELSEWHERE[name]] if name in _ELSEWHERE else get_close_matches(name, COMMANDS, 1)
    if not close:
        hint = "see `sessionctl --help`"
    elif "NAME" not in close[0].split():
        hint = f"did you mean `sessionctl {close[0]}`?"
    elif words[1:]:
        hint = f"did you mean `sessionctl {close[0].replace('NAME', shlex.quote(words[1]))}`?"
    else:
        hint = f"did you mean sessionctl {close[0]}? For a NAME see `sessionctl ls`"
    return UsageError(f"there is no command {name!a}", hint=hint)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors look like all others: what is wrong, and what to type next."""

    def error(self, message: str) -> NoReturn:
        from difflib import get_close_matches

        known = [option for action in self._actions for option in action.option_strings]
        unknown = message.partition("unrecognized arguments: ")[2].split()
        close = get_close_matches(unknown[0], known, 1) if unknown else []
        hint = f"did you mean {close[0]}? See `{self.prog} --help`" if close else f"see `{self.prog} --help`"
        raise SystemExit(_failed(UsageError(message, hint=hint), errors.USAGE))


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


def command_at(words: Sequence[str]) -> int:
    """Index of the first word that is neither an option nor an option's value."""
    index = 0
    while index < len(words) and words[index].startswith("-"):
        index += 2 if words[index] in _WITH_VALUE else 1
    return min(index, len(words))


def _is_exec(words: Sequence[str]) -> bool:
    index = command_at(words)
    return index < len(words) and words[index] == "exec"


def top_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sessionctl", add_help=False, allow_abbrev=False, formatter_class=_Help)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    global_options(parser, argparse.Namespace())
    return parser


def global_options(parser: argparse.ArgumentParser, known: argparse.Namespace) -> None:
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
