"""Commands that bring files and output of sessions here: cp, diff, logs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from sessionctl import errors
from sessionctl.cli.common import Command, json_option, name_option, open_project, positive
from sessionctl.cli.paging import paged
from sessionctl.errors import UsageError

if TYPE_CHECKING:
    from sessionctl.outputs import Output

_SHOWN = 16 << 20
"""Bytes of a file that are shown on a terminal."""
_NAMED = 20
"""How many of the things that were left out are named."""


def _cp(args: argparse.Namespace) -> int:
    from sessionctl.render import Copying, copied_text, printable

    shows = args.target == "-" and sys.stdout.isatty()
    output = os.memfd_create("shown") if shows else 1
    with Copying() as bar:
        most = min(args.max_size or _SHOWN, _SHOWN) if shows else args.max_size
        copied = open_project(args).copy(args.source, args.target, most=most, output=output, on=bar)
    for each in copied.left_out[:_NAMED]:
        print(f"left out: {printable(each)}", file=sys.stderr)
    if len(copied.left_out) > _NAMED:
        print(f"left out: {len(copied.left_out) - _NAMED} more", file=sys.stderr)
    if shows:
        from sessionctl.render import plain

        print(plain(os.pread(output, _SHOWN, 0).decode("utf-8", "backslashreplace")), end="")
    elif args.target != "-":
        print(copied_text(copied))
    return errors.OK


def _cp_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="what to copy: NAME:PATH, or a file or directory here")
    parser.add_argument("target", metavar="TARGET", help="where to: the other of the two; - is standard output")
    parser.add_argument("--max-size", type=_size, metavar="SIZE", help="refuse to copy more (default: 10GiB)")


def _size(text: str) -> int:
    from sessionctl.units import parse_size

    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.with_hint) from None


def _diff(args: argparse.Namespace) -> int:
    from sessionctl.render import Paint, as_json, difference_data, patch_text, printable, stat_text

    found = open_project(args).diff(args.name, args.snapshot or (), ignored=args.ignored)
    for note in found.notes:
        print(f"not compared: {printable(note)}", file=sys.stderr)
    if args.json:
        print(as_json(difference_data(found)))
        return errors.OK
    if not found.files:
        print(f"{found.session}: nothing differs from {found.before} to {found.after}", file=sys.stderr)
        return errors.OK
    paint = Paint(sys.stdout, args.color)
    paged(stat_text(found, paint) if args.stat else patch_text(found, paint))
    if found.cut:
        print(f"{found.session}: there is more than is shown", file=sys.stderr)
    return errors.OK


def _diff_options(parser: argparse.ArgumentParser) -> None:
    name_option(parser)
    parser.add_argument(
        "--snapshot",
        metavar="SNAPSHOT",
        action=_OneOrTwo,
        nargs="+",
        help="compare with this snapshot; or this one with a second one",
    )
    parser.add_argument("--stat", action="store_true", help="how many lines of each file, instead of the lines")
    parser.add_argument("--ignored", action="store_true", help="files that git is told to ignore, too")
    json_option(parser)


class _OneOrTwo(argparse.Action):
    """One value, or two, at once or one after the other."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,
    ) -> None:
        given = [*(getattr(namespace, self.dest) or ()), *(values if isinstance(values, list) else ())]
        if len(given) > 2:
            parser.error("argument --snapshot: one snapshot, or two")
        setattr(namespace, self.dest, given)


def _logs(args: argparse.Namespace) -> int:
    import json
    import time

    from sessionctl.render import Paint, output_data, output_lines

    project = open_project(args)
    paint = Paint(sys.stdout, args.color)
    found = project.outputs(args.name, args.exec)
    after = max((each.rowid for each in found), default=0)
    if args.json:
        lines: Callable[[Output], Iterator[str]] = lambda each: iter((json.dumps(output_data(each)),))  # noqa: E731
    else:

        def lines(each: Output) -> Iterator[str]:
            return output_lines(each, paint)

    shown = [line for each in found for line in lines(each)]
    for line in shown[-args.tail :] if args.tail else shown:
        print(line)
    if not found and not args.follow:
        print(f"no output of {args.name} was kept", file=sys.stderr)
    while args.follow:
        sys.stdout.flush()
        time.sleep(0.5)
        for each in project.outputs(args.name, args.exec, after=after):
            after = each.rowid
            for line in lines(each):
                print(line)
    return errors.OK


def _logs_options(parser: argparse.ArgumentParser) -> None:
    name_option(parser)
    parser.add_argument("--tail", type=positive, metavar="N", help="only the last N lines")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as commands end")
    parser.add_argument(
        "--exec", metavar="ID", help="only of this command: the id of its event, or what follows its dash"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for each command, a line each")


COMMANDS = {
    "cp": Command(
        _cp_options,
        _cp,
        "  sessionctl cp api:report.md .\n  sessionctl cp ./data api:/workspace/data\n"
        "  sessionctl cp api:~/.bash_history - | less\n  sessionctl cp api:src/. src",
        "NAME:PATH is a path of the workspace, or of the home with ~; `DIRECTORY/.` means what is in it. What is there "
        "is replaced as cp does it, when all of it has come. Links that lead out are left out.",
    ),
    "diff": Command(
        _diff_options,
        _diff,
        "  sessionctl diff api\n  sessionctl diff api --stat\n  sessionctl diff api --snapshot 1f3a9c04",
        "Since the session began, in commits and files: staged, unstaged and untracked ones.",
    ),
    "logs": Command(
        _logs_options,
        _logs,
        "  sessionctl logs api --tail 20\n  sessionctl logs api --exec 1f3a9c04",
        "What is kept of it: the last 8 KiB of each stream of each exec, and of setup.",
    ),
}
