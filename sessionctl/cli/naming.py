"""Commands about which sessions there are and what they are called: rename."""

from __future__ import annotations

import argparse
import os

from sessionctl import errors
from sessionctl.cli.common import Command, open_project


def _rename(args: argparse.Namespace) -> int:
    project = open_project(args)
    manifest = project.rename(args.name, args.new)
    where = f", and its block in {os.path.relpath(manifest)}" if manifest else ""
    print(f"{args.name} is {args.new} now{where}; next: sessionctl plan")
    return errors.OK


def _rename_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a session")
    parser.add_argument("new", metavar="NEW", help="what it is to be called")


COMMANDS = {
    "rename": Command(
        _rename_options,
        _rename,
        "  sessionctl rename api backend",
        "Its work, home, sandbox and history stay, and what runs goes on. Its block in the manifest is renamed; a "
        "branch that is not declared there becomes agents/NEW with the next apply, at the same commit.",
    ),
}
