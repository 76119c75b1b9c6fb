"""Completion of command lines: what a shell loads once, and the answer that it asks for at each Tab."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from sessionctl import cli, errors
from sessionctl.cli.common import Command
from sessionctl.errors import SessionctlError

_BASH = """\
# sessionctl in bash: source <(sessionctl completion bash)
_sessionctl() {
    mapfile -t COMPREPLY < <("${COMP_WORDS[0]}" completion bash -- "${COMP_WORDS[@]:0:COMP_CWORD+1}" 2>/dev/null)
    if [[ ${COMPREPLY[0]} == *: ]]; then compopt -o nospace; fi
}
complete -o bashdefault -o default -F _sessionctl sessionctl
"""
_ZSH = """\
#compdef sessionctl
# sessionctl in zsh: source <(sessionctl completion zsh), or this as the file _sessionctl in a directory of fpath
_sessionctl() {
    local -a found
    found=("${(@f)$("${(Q)words[1]}" completion zsh -- "${(@Q)words[1,CURRENT]}" 2>/dev/null)}")
    if [[ -n $found ]]; then _describe sessionctl found; else _files; fi
}
if [[ $funcstack[1] == _sessionctl ]]; then _sessionctl "$@"; else compdef _sessionctl sessionctl; fi
"""
_FISH = """\
# sessionctl in fish: sessionctl completion fish | source
function __sessionctl
    set -l words (commandline -opc)
    set -l found ($words[1] completion fish -- $words "$(commandline -ct)" 2>/dev/null)
    if set -q found[1]
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c sessionctl -f -a '(__sessionctl)'
"""


class Candidate(NamedTuple):
    """One way to go on."""

    word: str
    what: str = ""
    """What it is, for shells that show that."""


class _Shell(NamedTuple):
    script: str
    line: Callable[[Candidate], str]
    """How it wants a candidate."""


_SHELLS = {
    "bash": _Shell(_BASH, lambda each: each.word),
    "zsh": _Shell(_ZSH, lambda each: f"{each.word.replace(':', chr(92) + ':')}:{each.what}"),
    "fish": _Shell(_FISH, lambda each: f"{each.word}\t{each.what}"),
}
_SESSIONS = ("NAME", "PREFIX")
"""What positional arguments are called that name sessions which there are."""
_PLACES = ("SOURCE", "TARGET")
"""What those are called that name files, in sessions or here."""


def _completion(args: argparse.Namespace) -> int:
    shell = _SHELLS[args.shell]
    if not args.words:
        print(shell.script, end="")
    # argparse keeps the first `--` or takes it away, by its version; the word behind it is the program.
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    for each in candidates(words[1:]):
        print(shell.line(each))
    return errors.OK


def candidates(words: Sequence[str]) -> list[Candidate]:
    """How the last of `words`, which follow ``sessionctl``, may go on; empty where files may stand."""
    if not words:
        return []
    *before, last = words
    return [each for each in _candidates(before, last) if each.word.startswith(last)]


def _candidates(before: Sequence[str], last: str) -> Iterable[Candidate]:
    at = cli.command_at(before)
    top = cli.top_parser()
    if at == len(before):
        asked = _asked_for(before, top)
        if asked is not None:
            return _choices(asked)
        return _flags(top) if last.startswith("-") else _commands(())
    name = cli.named(before[at:])
    if name not in cli.COMMANDS:
        return _commands(before[at:])
    parser = argparse.ArgumentParser(add_help=False)
    cli.global_options(parser, argparse.Namespace())
    cli.command_of(name).options(parser)
    return _of_command(parser, before, before[at + len(name.split()) :], last)


def _commands(before: Sequence[str]) -> Iterator[Candidate]:
    """The words that go on from `before` to the name of a command."""
    depth = len(before)
    seen = set()
    for name, place in cli.COMMANDS.items():
        words = name.split()
        if words[:depth] == list(before) and len(words) > depth and words[depth] not in seen:
            seen.add(words[depth])
            yield Candidate(words[depth], place.summary if len(words) == depth + 1 else "")


def _of_command(
    parser: argparse.ArgumentParser, all: Sequence[str], given: Sequence[str], last: str
) -> Iterable[Candidate]:
    if "--" in given:
        return ()  # what runs inside
    asked = _asked_for(given, parser)
    if asked is not None:
        return _choices(asked)
    if last.startswith("-"):
        return _flags(parser)
    positional = [action for action in parser._actions if not action.option_strings]
    place = len(list(_plain(given, parser)))
    if not positional or (place >= len(positional) and positional[-1].nargs not in ("*", "+")):
        return ()
    action = positional[min(place, len(positional) - 1)]
    if action.metavar in _SESSIONS:
        return (Candidate(name) for name in _names(all) if name not in given)
    if action.metavar in _PLACES:
        return (Candidate(f"{name}:", "files of this session") for name in _names(all))
    return _choices(action)


def _plain(given: Sequence[str], parser: argparse.ArgumentParser) -> Iterator[str]:
    """Those of `given` that are neither options nor values of options."""
    for number, word in enumerate(given):
        if not word.startswith("-") and _asked_for(given[:number], parser) is None:
            yield word


def _asked_for(before: Sequence[str], parser: argparse.ArgumentParser) -> argparse.Action | None:
    """The option whose value comes after `before`."""
    found = (action for action in parser._actions if before and before[-1] in action.option_strings)
    return next((action for action in found if action.nargs != 0), None)


def _choices(action: argparse.Action) -> Iterable[Candidate]:
    return map(Candidate, action.choices or ())


def _flags(parser: argparse.ArgumentParser) -> Iterable[Candidate]:
    return (Candidate(flag, action.help or "") for action in parser._actions for flag in action.option_strings)


def _names(words: Sequence[str]) -> list[str]:
    """The sessions that the command line `words` could be about."""
    from sessionctl.cli.common import open_project

    known, _ = cli.top_parser().parse_known_args(words[: cli.command_at(words)])
    try:
        return open_project(known).names()
    except SessionctlError:
        return []  # there is no repository, or it cannot be read: the command itself will say so


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=tuple(_SHELLS), help="bash, zsh or fish")
    parser.add_argument(
        "words",
        metavar="WORD",
        nargs=argparse.REMAINDER,
        help="a command line: print what its last word may be instead",
    )


COMMANDS = {
    "completion": Command(
        _options,
        _completion,
        "  source <(sessionctl completion bash)\n  sessionctl completion fish | source",
        "Commands, options and names of sessions.",
    ),
}
