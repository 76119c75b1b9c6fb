"""The command about what sessions may take from the host: trust."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sessionctl import errors
from sessionctl.cli.common import Command, agreed, asking_options, json_option, names_option, open_project
from sessionctl.errors import UsageError

if TYPE_CHECKING:
    from sessionctl.app import Project
    from sessionctl.trust import Taking


def _trust(args: argparse.Namespace) -> int:
    project = open_project(args)
    if args.json and not args.show:
        raise UsageError("--json goes with --show")
    if args.revoke:
        return _revoke(project, args)
    from sessionctl.render import Paint, takings_text

    takings = project.takings(args.names)
    if args.show:
        return _show(takings, args)
    changed = [each for each in takings if each.new or each.gone]
    if not takings:
        print("the manifest takes nothing from the host: there is nothing to trust")
        return errors.OK
    print(takings_text(takings, Paint(sys.stdout, args.color)))
    if not changed:
        print("all of it is trusted already")
        return errors.OK
    if not args.yes and not agreed("Let these sessions have it?", args):
        return errors.FAILED
    project.trust(changed)
    print(f"trusted: {', '.join(each.session for each in changed)}; next: sessionctl apply")
    return errors.OK


def _show(takings: Sequence[Taking], args: argparse.Namespace) -> int:
    from sessionctl.render import Paint, as_json, takings_data, takings_text

    if args.json:
        print(as_json(takings_data(takings)))
    elif takings:
        print(takings_text(takings, Paint(sys.stdout, args.color)))
    else:
        print("the manifest takes nothing from the host, and nothing is trusted", file=sys.stderr)
    return errors.UNTRUSTED if any(each.new for each in takings) else errors.OK


def _revoke(project: Project, args: argparse.Namespace) -> int:
    running = project.revoke(args.names)
    print("nothing is trusted" + (f" any more for {', '.join(args.names)}" if args.names else " any more"))
    for name in running:
        print(f"{name} runs with what it was allowed before: sessionctl stop {name}")
    return errors.OK


def _options(parser: argparse.ArgumentParser) -> None:
    names_option(parser, "only these sessions")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--show", action="store_true", help="show it, and what is trusted; end with 5 when not all is")
    kinds.add_argument(
        "--revoke", action="store_true", help="take back all that was trusted, also what sandboxes were made with"
    )
    asking_options(parser, "nothing is trusted")
    json_option(parser)


COMMANDS = {
    "trust": Command(
        _options,
        _trust,
        "  sessionctl trust\n  sessionctl trust --show --json\n  sessionctl trust --revoke api",
        "What is trusted is just what is shown: what is added, or leads elsewhere, has to be trusted again.",
    ),
}
