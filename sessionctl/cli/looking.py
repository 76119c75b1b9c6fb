"""Commands that show what is and what happened: ls, status, log, doctor."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from sessionctl import errors
from sessionctl.cli.common import (
    Command,
    json_option,
    name_and_json,
    name_option,
    open_project,
    positive,
)

if TYPE_CHECKING:
    from sessionctl.app.looking import Session


def _ls(args: argparse.Namespace) -> int:
    import time

    from sessionctl.render import Paint, as_json, disk_data, disk_text, sessions_json, sessions_text, tree_text

    project = open_project(args)
    rows = [row for row in project.sessions(strays=args.all) if _wanted(row, args)]
    rows.sort(key=_SORTS[args.sort])
    if args.disk:
        # What is left of sessions that are gone takes room too.
        chosen = any((args.prefix, args.tag, args.agent, args.state, args.branch))
        names = list(dict.fromkeys([*(row.name for row in rows), *([] if chosen else project.kept_of())]))
        disk = project.disk(names)
        print(as_json(disk_data(disk)) if args.json else disk_text(disk, Paint(sys.stdout, args.color)))
    elif args.tree and rows and not args.json:
        print(tree_text(rows, Paint(sys.stdout, args.color)))
    elif args.json:
        print(sessions_json(rows))
    elif rows:
        print(sessions_text(rows, time.time(), Paint(sys.stdout, args.color)))
    else:
        print("no sessions", file=sys.stderr)
    return errors.OK


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
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--tree", action="store_true", help="which was made as a copy of which (--json: `parent`)")
    shape.add_argument("--disk", action="store_true", help="what each takes on the disk, its trash too")
    json_option(parser)


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

    project = open_project(args)
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


def _path(args: argparse.Namespace) -> int:
    print(open_project(args).path(args.name))
    return errors.OK


def _log(args: argparse.Namespace) -> int:
    import json
    import time

    from sessionctl.render import Paint, event_data, event_text

    project = open_project(args)
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


def _log_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="a session (default: all)")
    parser.add_argument("-n", dest="number", type=positive, metavar="N", help="only the last N events")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as events come")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _doctor(args: argparse.Namespace) -> int:
    from sessionctl.render import Paint, as_json, checks_text

    try:
        checks = open_project(args).doctor()
    except errors.GitError as error:
        # Where a newcomer asks first.
        from sessionctl import doctor

        checks = doctor.machine(error, args.state_dir)
    if args.json:
        print(as_json([check._asdict() for check in checks]))
    else:
        print(checks_text(checks, Paint(sys.stdout, args.color)))
    return errors.OK if all(check.ok for check in checks) else errors.FAILED


COMMANDS = {
    "ls": Command(
        _ls_options,
        _ls,
        "  sessionctl ls\n  sessionctl ls --tag backend --json\n  sessionctl ls --state running api-",
    ),
    "status": Command(
        name_and_json,
        _status,
        "  sessionctl status api\n  sessionctl status api --json",
    ),
    "path": Command(
        name_option,
        _path,
        "  code $(sessionctl path api)",
        "Fails for a workspace that is a layer over others; workspace.visible = true makes it a directory.",
    ),
    "log": Command(
        _log_options,
        _log,
        "  sessionctl log api\n  sessionctl log -f --json",
    ),
    "doctor": Command(
        json_option,
        _doctor,
        "  sessionctl doctor\n  sessionctl doctor --json",
    ),
}
