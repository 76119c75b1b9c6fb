"""Commands for git hooks: install, uninstall and show them, and what they call."""

from __future__ import annotations

import argparse
import os
import sys

from sessionctl import errors
from sessionctl.cli.common import Command, json_option, open_project

_CHOSEN = {
    "post-commit": "record each commit",
    "post-checkout": "record each checkout of a branch or commit",
    "post-merge": "record each merge and pull",
    "pre-push": "refuse to push unless `verify` succeeds; only when it is named",
}


def _hooks_options(parser: argparse.ArgumentParser) -> None:
    for hook, help in _CHOSEN.items():
        parser.add_argument(f"--{hook}", dest="hooks", action="append_const", const=hook, help=help)


def _elsewhere_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--in-hooks-path", action="store_true", help="also when core.hooksPath leads somewhere else")


def _install_options(parser: argparse.ArgumentParser) -> None:
    _hooks_options(parser)
    _elsewhere_option(parser)


def _install(args: argparse.Namespace) -> int:
    from sessionctl import hooks

    where = hooks.directory(open_project(args).repository, elsewhere=args.in_hooks_path)
    wanted = args.hooks or list(hooks.EVENTS)
    written = {hook.name: hook for hook in hooks.install(where, wanted, _program(), _options(args))}
    for name in wanted:
        before = written.get(name)
        if before is None:
            print(f"{name}: is installed already")
        elif before.state == "foreign":
            print(f"{name}: installed; runs the hook that was there first, now {name}{hooks.KEPT}")
        else:
            print(f"{name}: {'installed anew' if before.state == 'outdated' else 'installed'}")
    return errors.OK


def _uninstall(args: argparse.Namespace) -> int:
    from sessionctl import hooks

    where = hooks.directory(open_project(args).repository, elsewhere=args.in_hooks_path)
    removed = hooks.uninstall(where, args.hooks or hooks.HOOKS)
    for hook in removed:
        print(f"{hook.name}: {'removed; the hook from before is back' if hook.kept else 'removed'}")
    if not removed:
        print("no hook of ours is installed", file=sys.stderr)
    return errors.OK


def _status(args: argparse.Namespace) -> int:
    from sessionctl import hooks
    from sessionctl.render import Paint, as_json, printable, table

    found = hooks.found(open_project(args).repository)
    rows = hooks.status(found.path, _program(), _options(args)) if os.path.isdir(found.path) else []
    if args.json:
        print(
            as_json(
                {
                    "directory": found.path,
                    "hooks_path": found.elsewhere or None,
                    "hooks": [hook._asdict() for hook in rows],
                }
            )
        )
        return errors.OK
    print(printable(f"{found.path}{f' (core.hooksPath, {found.elsewhere})' if found.elsewhere else ''}"))
    if rows:
        cells = [((hook.name, "bold"), (hook.state, ""), (_beside(hook.kept), "dim")) for hook in rows]
        print(table(("HOOK", "STATE", ""), cells, Paint(sys.stdout, args.color)))
    return errors.OK


def _beside(kept: str | None) -> str:
    return f"runs {os.path.basename(kept)} first" if kept else ""


def _run(args: argparse.Namespace) -> int:
    from sessionctl import hooks

    # What git says of the repository it calls the hook for holds for no other program that is started from here.
    start = hooks.repository_of_hook(os.environ)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        del os.environ[name]
    if args.root == ".":
        args.root = start
    try:
        report = hooks.run(open_project(args), args.hook, args.words)
    except errors.SessionctlError as error:
        report = hooks.failed(args.hook, error)
    if report.lines:
        from sessionctl.render import printable

        for line in report.lines:
            print(printable(line), file=sys.stderr)
    return report.code


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("hook", metavar="HOOK", choices=tuple(_CHOSEN), help="post-commit, post-checkout, ...")
    parser.add_argument("words", metavar="WORD", nargs="*", help="what git gave the hook")


def _program() -> list[str]:
    """What starts this very sessionctl again."""
    script = os.path.abspath(sys.argv[0])
    if os.path.basename(script) == "sessionctl" and os.access(script, os.X_OK):
        return [script]
    return [sys.executable, "-m", "sessionctl"]


def _options(args: argparse.Namespace) -> list[str]:
    """The options of this call that say where things are: the hooks are to find them there too."""
    given = (("--file", args.file), ("--state-dir", args.state_dir))
    return [word for option, path in given if path is not None for word in (option, os.path.abspath(path))]


COMMANDS = {
    "hooks install": Command(
        _install_options,
        _install,
        "  sessionctl hooks install\n  sessionctl hooks install --post-commit --pre-push",
        "post-commit, post-checkout and post-merge, unless some are named. A hook that is there is kept and run first.",
    ),
    "hooks uninstall": Command(
        _install_options,
        _uninstall,
        "  sessionctl hooks uninstall\n  sessionctl hooks uninstall --pre-push",
        "All of them unless some are named. Hooks that are not ours stay as they are.",
    ),
    "hooks status": Command(
        json_option,
        _status,
        "  sessionctl hooks status\n  sessionctl hooks status --json",
    ),
    "hooks run": Command(
        _run_options,
        _run,
        "  sessionctl hooks run post-commit",
        "Prints nothing when nothing happened.",
    ),
}
