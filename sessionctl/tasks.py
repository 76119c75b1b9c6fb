"""The commands of sessionctl as an invoke Collection, to put beside one's own tasks.

    from invoke import Collection
    from sessionctl.tasks import sessions

    ns = Collection(sessions)

gives ``inv sessions.apply --yes`` and the others. Options and help are made from the command line's own, and a task
runs the command line in this process: there is nothing here that could do something else. From other tasks
they are called as ``sessions["apply"](ctx, yes=True)``. What ends with another code than 0 raises `invoke.Exit`
with it. invoke's configuration says where things are: ``sessions: {root, file, state_dir}``.
"""

from __future__ import annotations

import argparse
import inspect
import keyword
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.parser.argument import Argument
from invoke.tasks import Task

from sessionctl import cli, errors
from sessionctl.cli.common import Command

_NOT_TASKS = ("hooks run", "completion")
"""What only git and shells call."""
_WHERE = {"root": "-C", "file": "--file", "state_dir": "--state-dir"}
"""What the configuration may say, and the options that say it."""


class _CommandTask(Task):  # type: ignore[type-arg]  # generic in what the body returns: nothing
    """One command as a task: its arguments are the command's."""

    def __init__(self, name: str) -> None:
        command, place = cli.command_of(name), cli.COMMANDS[name]
        self.command = name
        self.parameters = {_attribute(action): action for action in _actions(command)}
        self.__signature__ = _signature(self.parameters)

        def body(ctx: Context, *args: Any, **kwargs: Any) -> None:
            given = self.__signature__.bind(ctx, *args, **kwargs).arguments
            given.pop("ctx")
            _call(ctx, [*name.split(), *_words(self.parameters, given, ctx)])

        body.__doc__ = f"{place.summary}.\n\n{command.detail}".strip()
        super().__init__(body, name=name.replace(" ", "-"), positional=())

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """The arguments as invoke's command line takes them."""
        arguments = [_argument(name, action) for name, action in self.parameters.items() if not _is_rest(action)]
        # Those given by place come first: so they are expected before all others.
        return sorted(arguments, key=lambda argument: not argument.positional)


def _actions(command: Command) -> list[argparse.Action]:
    parser = argparse.ArgumentParser(add_help=False)
    command.options(parser)
    return parser._actions


def _attribute(action: argparse.Action) -> str:
    """The Python name of an argument: that of its long option, with an underscore behind a word Python keeps."""
    if not action.option_strings:
        return action.dest
    name = max(action.option_strings, key=len).lstrip("-").replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def _signature(parameters: Mapping[str, argparse.Action]) -> inspect.Signature:
    def default(action: argparse.Action) -> Any:
        return inspect.Parameter.empty if _is_required(action) else False if action.nargs == 0 else None

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    made = [inspect.Parameter(name, kind, default=default(action)) for name, action in parameters.items()]
    made.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    return inspect.Signature([inspect.Parameter("ctx", kind), *made])


def _is_required(action: argparse.Action) -> bool:
    return not action.option_strings and action.nargs is None


def _is_rest(action: argparse.Action) -> bool:
    """Whether it takes all words that are left: invoke keeps these apart, after ``--``."""
    return action.nargs == argparse.REMAINDER


def _is_many(action: argparse.Action) -> bool:
    return action.nargs in ("*", "+") or (isinstance(action, argparse._AppendAction) and action.nargs != 0)


def _argument(name: str, action: argparse.Action) -> Argument:
    """The argument as invoke takes it. Only one that must be there can be given by its place; others are options."""
    flags = [option.lstrip("-") for option in sorted(action.option_strings, key=len, reverse=True)]
    if not flags:
        # One value each time: `--name api --name web`.
        flags = list(dict.fromkeys([name, str(action.metavar or name).lower()]))
    kind = bool if action.nargs == 0 else list if _is_many(action) else str
    return Argument(
        names=flags,
        attr_name=name if name != flags[0] else None,
        kind=kind,
        default=False if kind is bool else None,
        help=(action.help or "").replace("%%", "%"),
        positional=_is_required(action),
    )


def _words(parameters: Mapping[str, argparse.Action], given: Mapping[str, Any], ctx: Context) -> list[str]:
    """The command line that says what was given. Options first, and what might look like one behind ``--``."""
    options: list[str] = []
    plain: list[str] = []
    rest: list[str] | None = None
    for name, action in parameters.items():
        value = given.get(name)
        if _is_rest(action):
            rest = shlex.split(value) if isinstance(value, str) else list(value or _remainder(ctx))
        elif not action.option_strings:
            plain += [value] if isinstance(value, str) else map(str, value or ())
        elif action.nargs == 0:
            options += [action.option_strings[-1]] if value else []
        elif value is not None:
            values = value if _is_many(action) and not isinstance(value, str) else [value]
            # One word, so that a value may begin with a dash; a short option takes it in the next.
            option = action.option_strings[-1]
            options += [w for v in values for w in ([f"{option}={v}"] if option.startswith("--") else [option, str(v)])]
    return [*options, *plain, *(["--", *rest] if rest is not None else [])]


def _remainder(ctx: Context) -> list[str]:
    """The words after ``--``. invoke hands them on joined by blanks, which is no way back."""
    said = getattr(ctx, "remainder", "")
    words = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    return words if " ".join(words) == said else shlex.split(said)


def _call(ctx: Context, words: Sequence[str]) -> None:
    """Runs the command line, or shows it where invoke was told to. `Exit` with its code unless that is 0."""
    line = [*_where(ctx), *words]
    if ctx.config.run.dry or ctx.config.run.echo:
        print(shlex.join(["sessionctl", *line]), flush=True)
    if ctx.config.run.dry:
        return
    try:
        code = cli.run(line)
    except SystemExit as ended:  # argparse, which has said why
        code = ended.code if isinstance(ended.code, int) else errors.USAGE
    sys.stdout.flush()
    if code:
        raise Exit(code=code)


def _where(ctx: Context) -> list[str]:
    """The options that name the repository, the manifest and the state directory, relative to `ctx.cd`."""
    given = dict(ctx.config.get("sessions") or {})
    unknown = sorted(given.keys() - _WHERE.keys())
    if unknown:
        raise Exit(f"sessions.{unknown[0]}: unknown setting; there are {', '.join(_WHERE)}", errors.USAGE)
    found = {name: os.path.join(ctx.cwd, path) for name, path in given.items() if path is not None}
    if ctx.cwd:
        found.setdefault("root", ctx.cwd)
    return [word for name, path in found.items() for word in (_WHERE[name], path)]


sessions = Collection("sessions")
for _name in cli.COMMANDS:
    if _name not in _NOT_TASKS:
        sessions.add_task(_CommandTask(_name))
# Named, so that variables can set them too: INVOKE_SESSIONS_STATE_DIR.
sessions.configure({"sessions": dict.fromkeys(_WHERE)})
