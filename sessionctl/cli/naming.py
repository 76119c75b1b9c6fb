"""Commands about which sessions there are and what they are called: add, adopt, rename."""

from __future__ import annotations

import argparse
import os
import sys

from sessionctl import errors
from sessionctl.cli.common import Command, open_project
from sessionctl.errors import UsageError
from sessionctl.render import printable


def _rename(args: argparse.Namespace) -> int:
    project = open_project(args)
    manifest = project.rename(args.name, args.new)
    where = f", and its block in {os.path.relpath(manifest)}" if manifest else ""
    print(f"{args.name} is {args.new} now{where}; next: sessionctl plan")
    return errors.OK


def _rename_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a session")
    parser.add_argument("new", metavar="NEW", help="what it is to be called")


def _add(args: argparse.Namespace) -> int:
    project = open_project(args)
    block = {key: getattr(args, key) for key in ("agent", "title") if getattr(args, key) is not None}
    workspace = {key: getattr(args, key) for key in ("mode", "branch", "base") if getattr(args, key) is not None}
    path, known = project.add(args.name, {**block, **({"workspace": workspace} if workspace else {})})
    goes_on = ", as it was declared last" if known else ""
    print(f"added {args.name} to {os.path.relpath(path)}{goes_on}; next: sessionctl plan")
    return errors.OK


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a session")
    parser.add_argument("--agent", metavar="NAME", help="its coding agent")
    parser.add_argument("--title", metavar="TEXT", help="one line for people")
    parser.add_argument("--branch", metavar="BRANCH", help="where its work lands (default: agents/NAME)")
    parser.add_argument("--base", metavar="REF", help="what the branch is made from (default: what is checked out)")
    parser.add_argument("--mode", metavar="MODE", help="how its workspace is made (default: clone)")


def _adopt(args: argparse.Namespace) -> int:
    if args.project is not None:
        if args.name is not None:
            raise UsageError("--project takes on all sessions", hint="say no name beside it")
        before = open_project(args).adopt_project(args.project)
        print(f"the sessions that this repository had in {printable(before)} are here now; next: sessionctl ls")
        return errors.OK
    if args.name is None:
        raise UsageError("no session was named", hint="strays are shown by: sessionctl ls --all")
    if args.path is not None:
        return _adopt_checkout(args)
    session = open_project(args).adopt(args.name)
    then = "sessionctl plan" if session.declared else f"sessionctl add {session.name}"
    print(f"{session.name} is a session now, {session.status}; next: {then}")
    return errors.OK


def _adopt_checkout(args: argparse.Namespace) -> int:
    def say(text: str) -> None:
        print(printable(text), file=sys.stderr)

    session, adopted = open_project(args).adopt_checkout(args.name, args.path, progress=say)
    was = f"branch {adopted.branch} at " if adopted.branch else ""
    print(
        f"{session.name} has what is in {printable(adopted.path)}, {was}{adopted.commit[:10]}, on {session.git.branch}"
    )
    print("the original is as it was, and yours to remove")
    if adopted.left:
        print(f"warning: only the original has {', '.join(adopted.left)}", file=sys.stderr)
    then = "apply" if session.declared else f"start {session.name}, and to declare it: sessionctl add {session.name}"
    print(f"next: sessionctl {then}")
    return errors.OK


def _adopt_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="a stray; with PATH, a name that no session has")
    parser.add_argument("path", metavar="PATH", nargs="?", help="a worktree of the repository, or a clone of it")
    parser.add_argument(
        "--project",
        metavar="OLD",
        nargs="?",
        const="",
        help="take along all sessions of this repository, which was moved; OLD is where it was, when that is not clear",
    )


COMMANDS = {
    "add": Command(
        _add_options,
        _add,
        "  sessionctl add api --agent claude\n  sessionctl add fix --base v1.2 --branch fix/crash",
        "A block is written at the end of the manifest. A session that is there, and not declared any more, is "
        "declared as it was.",
    ),
    "adopt": Command(
        _adopt_options,
        _adopt,
        "  sessionctl ls --all\n  sessionctl adopt api\n  sessionctl adopt fix ../project-fix\n"
        "  sessionctl adopt --project",
        "A stray is left as it is, and all that it holds. What is half made, or not clearly one thing, is not taken "
        "on. With PATH, a worktree or clone becomes the work of a new session, stopped: its commit, what is staged, "
        "changed, untracked and ignored. It is copied; the original is not touched. "
        "With --project, sessions of a repository that was moved come along: what runs goes on.",
    ),
    "rename": Command(
        _rename_options,
        _rename,
        "  sessionctl rename api backend",
        "Its work, home, sandbox and history stay, and what runs goes on. Its block in the manifest is renamed; a "
        "branch that is not declared there becomes agents/NEW with the next apply, at the same commit.",
    ),
}
