"""Commands about the manifest alone: init, validate, schema, show."""

from __future__ import annotations

import argparse
import os
import sys

from sessionctl import errors
from sessionctl.cli.common import (
    Command,
    json_option,
    name_option,
    no_options,
    open_project,
)


def _init(args: argparse.Namespace) -> int:
    path = open_project(args).init()
    print(f"wrote {os.path.relpath(path)} with one session; next: sessionctl plan")
    return errors.OK


def _validate(args: argparse.Namespace) -> int:
    project = open_project(args)
    count = len(project.declared)
    if args.json:
        from sessionctl.render import as_json

        print(as_json({"valid": True, "file": str(project.file), "sessions": sorted(project.declared)}))
    else:
        print(f"{os.path.relpath(project.file)}: valid, {count} session{'s' * (count != 1)}")
    return errors.OK


def _schema(args: argparse.Namespace) -> int:
    import json

    from sessionctl import schema

    print(json.dumps(schema(), indent=2, sort_keys=True))
    return errors.OK


def _show(args: argparse.Namespace) -> int:
    from sessionctl.render import Paint, as_json, printable, table

    project = open_project(args)
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


def _show_options(parser: argparse.ArgumentParser) -> None:
    name_option(parser)
    parser.add_argument("--resolved", action="store_true", help="built-in values too")
    json_option(parser)


COMMANDS = {
    "init": Command(
        no_options,
        _init,
        "  sessionctl init && sessionctl plan",
    ),
    "validate": Command(
        json_option,
        _validate,
        "  sessionctl validate\n  sessionctl validate --json",
    ),
    "schema": Command(
        no_options,
        _schema,
        "  sessionctl schema > sessions.schema.json",
    ),
    "show": Command(
        _show_options,
        _show,
        "  sessionctl show api --resolved\n  sessionctl --set workspace.history=own show api",
    ),
}
