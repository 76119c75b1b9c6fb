"""Commands about what is kept on the disk for sessions: their images."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from sessionctl import errors
from sessionctl.cli.common import Command, agreed, asking_options, json_option, open_project
from sessionctl.errors import UsageError

if TYPE_CHECKING:
    from sessionctl.garbage import Garbage


def _images(args: argparse.Namespace) -> int:
    from sessionctl.render import Paint, as_json, images_data, images_text

    found = open_project(args).images()
    if args.json:
        print(as_json({"images": images_data(found)}))
    elif found:
        print(images_text(found, Paint(sys.stdout, args.color)))
    else:
        print("no images", file=sys.stderr)
    return errors.OK


def _gc(args: argparse.Namespace) -> int:
    from sessionctl.render import as_json, garbage_data, garbage_text

    project = open_project(args)
    found = project.garbage()
    if args.json:
        if not args.dry_run:
            raise UsageError("--json goes with --dry-run")
        print(as_json(garbage_data(found)))
        return _kept(found)
    print(garbage_text(found))
    if args.dry_run or not found:
        return _kept(found)
    if not args.yes and not agreed("Remove these?", args):
        return errors.FAILED
    project.collect(found)
    print("removed")
    return errors.OK


def _kept(found: Garbage) -> int:
    return errors.CHANGES if found.kept else errors.OK


def _gc_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", "--dry-run", action="store_true", help="say what would go; remove nothing")
    asking_options(parser)
    parser.add_argument("--json", action="store_true", help="with --dry-run: one JSON document")


COMMANDS = {
    "images": Command(
        json_option,
        _images,
        "  sessionctl images\n  sessionctl images --json",
        "A rootfs is used where it is, and not listed.",
    ),
    "gc": Command(
        _gc_options,
        _gc,
        "  sessionctl gc --dry-run\n  sessionctl gc --yes",
        "Images that neither a sandbox nor the manifest names, layers and base layers that nothing else has, what has "
        "been in the trash for long, and snapshots that your own configuration keeps no longer.",
    ),
}
