"""Commands by which nothing is lost: snapshot, snapshots, restore, fork, discard, undo."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from sessionctl import errors
from sessionctl.cli.common import (
    Command,
    approval_options,
    json_option,
    name_option,
    open_project,
    require_agreed,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionctl.snapshots import PART, Snapshot

_PARTS: dict[str, PART] = {"workspace": "work", "agent": "home", "sandbox": "root"}


def _snapshot(args: argparse.Namespace) -> int:
    from sessionctl.render import as_json, snapshot_data
    from sessionctl.units import size

    taken = open_project(args).snapshot(args.name, args.message, quiesce=args.quiesce, progress=_said())
    if args.json:
        print(as_json(snapshot_data(taken)))
    else:
        print(f"{args.name}: snapshot {taken.id}, {size(taken.size)}")
    return errors.OK


def _snapshots(args: argparse.Namespace) -> int:
    import time

    from sessionctl.render import Paint, as_json, snapshot_data, snapshots_text

    found = open_project(args).snapshots(args.name)
    shown = [each for each in found if args.all or (each.by == "person" and not each.discarded) or each.is_unclear]
    if args.json:
        print(as_json({"snapshots": [snapshot_data(each) for each in shown]}))
    elif shown:
        print(snapshots_text(shown, time.time(), Paint(sys.stdout, args.color)))
    else:
        rest = len(found)
        print(f"no snapshots{f'; {rest} more with --all' if rest else ''}", file=sys.stderr)
    return errors.OK


def _restore(args: argparse.Namespace) -> int:
    project = open_project(args)
    chosen = project.find_snapshot(args.name, args.snapshot)
    what = args.only or "workspace, agent and sandbox"
    print(f"{args.name}: {what} as in snapshot {chosen.id}{_about(chosen)}")
    print("what is there now is kept as a snapshot of its own; its processes end")
    require_agreed("Restore it?", args)
    brought, rescue = project.restore(
        args.name, chosen.id, only=_PARTS[args.only] if args.only else None, progress=_said()
    )
    print(f"{args.name}: restored from {brought.id}; what was there is in {rescue.id}")
    print(f"  to undo: sessionctl undo {rescue.operation}")
    return errors.OK


def _about(snapshot: Snapshot) -> str:
    from sessionctl.render import printable

    return f" ({printable(snapshot.message)})" if snapshot.message else ""


def _fork(args: argparse.Namespace) -> int:
    made = open_project(args).fork(args.name, args.new, args.snapshot, progress=_said())
    print(f"{made.session}: forked from {args.name}, on branch {made.last.data['workspace']['branch'] or '-'}")
    print(f"  it is not declared; to keep it: sessionctl add {made.session}")
    return errors.OK


def _discard(args: argparse.Namespace) -> int:
    operation = open_project(args).discard(args.name, args.snapshot)
    print(f"{args.name}: snapshot {operation.data['snapshot']} is in the trash")
    if operation.data["damaged"]:
        print("  it is damaged: what there is of it stays as it is, and what it stood on is not kept for it any more")
    print(f"  to undo: sessionctl undo {operation.id}")
    return errors.OK


def _undo(args: argparse.Namespace) -> int:
    import time

    from sessionctl.render import Paint, as_json, operations_text, printable

    project = open_project(args)
    if args.list:
        found = project.operations()
        if args.json:
            print(as_json({"operations": [each._asdict() for each in found]}))
        elif found:
            print(operations_text(found, time.time(), Paint(sys.stdout, args.color)))
        else:
            print("nothing was done that can be undone", file=sys.stderr)
        return errors.OK
    operation, done = project.undo(args.operation, progress=_said())
    if args.json:
        print(as_json({"operation": operation.id, "verb": operation.verb, "sessions": [d._asdict() for d in done]}))
    else:
        print(f"undone: {operation.verb} {operation.id}" if all(d.done for d in done) else f"{operation.verb}:")
        for each in done:
            print(f"  {each.session}: {'' if each.done else 'not brought back: '}{printable(each.said)}")
    return errors.OK if all(each.done for each in done) else errors.FAILED


def _said() -> Callable[[str], None]:
    """Where progress is said: on a terminal."""
    if not sys.stderr.isatty():
        return lambda text: None
    return lambda text: print(text, file=sys.stderr)


# --- options -----------------------------------------------------------------------------------


def _snapshot_options(parser: argparse.ArgumentParser) -> None:
    name_option(parser)
    parser.add_argument("-m", "--message", metavar="TEXT", default="", help="what it is, for people")
    parser.add_argument(
        "--quiesce", metavar="COMMAND", default="", help="run inside before; no snapshot is made when it fails"
    )
    json_option(parser)


def _snapshots_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="a session (default: all)")
    parser.add_argument("-a", "--all", action="store_true", help="also rescues, and what is in the trash")
    json_option(parser)


def _restore_options(parser: argparse.ArgumentParser) -> None:
    name_option(parser)
    parser.add_argument(
        "snapshot", metavar="SNAPSHOT", nargs="?", help="its id, or the part after the dash (default: your latest)"
    )
    parser.add_argument("--only", choices=tuple(_PARTS), help="this part of it")
    approval_options(parser)


def _fork_options(parser: argparse.ArgumentParser) -> None:
    name_option(parser)
    parser.add_argument("new", metavar="NEW", help="the name of the new session")
    parser.add_argument("--from", dest="snapshot", metavar="SNAPSHOT", help="a snapshot of it (default: as it is now)")


def _discard_options(parser: argparse.ArgumentParser) -> None:
    name_option(parser)
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="its id, or the part after the dash")


def _undo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("operation", metavar="OPERATION", nargs="?", help="its id (default: the last one)")
    parser.add_argument("-l", "--list", action="store_true", help="show what can be undone; undo nothing")
    json_option(parser)


COMMANDS = {
    "snapshot": Command(
        _snapshot_options,
        _snapshot,
        '  sessionctl snapshot api -m "before the rewrite"\n  sessionctl snapshot api --quiesce sync',
        "Workspace (untracked and ignored files too), home and sandbox, of one moment: processes are paused while "
        "they are copied. It is read back before it counts.",
    ),
    "snapshots": Command(
        _snapshots_options,
        _snapshots,
        "  sessionctl snapshots api\n  sessionctl snapshots --all --json",
    ),
    "restore": Command(
        _restore_options,
        _restore,
        "  sessionctl restore api\n  sessionctl restore --only workspace api 1f3a9c04",
        "What is there becomes a snapshot of its own first.",
    ),
    "fork": Command(
        _fork_options,
        _fork,
        "  sessionctl fork api api-try\n  sessionctl fork --from 1f3a9c04 api api-again",
        "It begins at the same commit, on a branch of its own, with a copy of every file.",
    ),
    "discard": Command(
        _discard_options,
        _discard,
        "  sessionctl discard api 1f3a9c04",
        "It stays in the trash until that is emptied.",
    ),
    "undo": Command(
        _undo_options,
        _undo,
        "  sessionctl undo\n  sessionctl undo --list",
        "Brings back what prune, restore or discard took away, also when they were killed half-way.",
    ),
}
