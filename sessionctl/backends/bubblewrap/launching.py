"""The commands that run our two scripts, entry.py and launch.py: what goes in argv, what in the environment.

Argv can be read by every user of the host, the environment by its owner only. Nothing of the
caller's environment is passed on: what is meant for a sandbox must not act on the scripts. This
module may not do I/O.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from sessionctl.backends import Command
from sessionctl.backends.bubblewrap import elf, profile, seccomp
from sessionctl.model import HOME, WORKSPACE

Owner = tuple[int, int] | None
"""The uid and gid to become first; None: to stay who we are."""

_HERE = os.path.dirname(os.path.abspath(__file__))


def entering(
    argv: Sequence[str],
    env: Mapping[str, str],
    pid: int,
    start: int,
    *,
    tty: bool,
    machine: str,
    owner: Owner,
    host_network: bool = False,
    groups: Sequence[str] = (),
    rlimits: Mapping[int, int] | None = None,
    processors: Sequence[int] = (),
    alone: bool = False,
) -> Command:
    """Runs `argv` in the sandbox whose pid 1 is `pid`, with `env` as its whole environment.

    It is refused when the sandbox is in the host's network, unless `host_network`. `groups` are the
    files of the cgroups it joins, `rlimits` resource limits by number, `processors` those it may
    use, all when there are none; `alone` is the filter's.
    """
    helper = {
        "PID": f"{pid} {start}",
        "FILTER": seccomp.program(machine, pinned=bool(processors), alone=alone).hex(),
        "LAUNCHER": elf.executable(machine, "launch").hex(),
        "PLACES": f"{WORKSPACE}:{HOME}",
        **({"TTY": "1"} if tty else {}),
        **({"NETWORK": "host"} if host_network else {}),
        **_joining(groups),
        **({"RLIMITS": " ".join(f"{number}:{value}" for number, value in rlimits.items())} if rlimits else {}),
        **({"CPUS": " ".join(map(str, processors))} if processors else {}),
        **_identity(owner),
        **{f"_{name}": value for name, value in env.items()},
    }
    return Command((*_script("entry"), *argv), helper)


def watching(bwrap: str, words: Sequence[profile.Word], sources: Sequence[str], owner: Owner) -> Command:
    """Runs bwrap with `words`, which may hold data, and ends with the code of the program inside."""
    data = {f"DATA_{n}": word.hex() for n, word in enumerate(words, start=1) if isinstance(word, bytes)}
    plain = ("" if isinstance(word, bytes) else word for word in words)
    argv = (*_script("launch"), profile.move(bwrap, sources), *plain)
    return Command(argv, {"WATCH": "1", **_offer(sources, owner), **data})


def starting(
    bwrap: str,
    words: Sequence[str],
    sources: Sequence[str],
    owner: Owner,
    real: Sequence[str] = (),
    groups: Sequence[str] = (),
) -> Command:
    """Runs bwrap with `words`: by way of launch.py where bwrap must not run as who we are, or joins `groups`."""
    script = _script("launch") if owner or groups else ()
    offered = _offer([*sources, *real], owner)
    links = {f"REAL_{n}": "1" for n in range(len(sources), len(sources) + len(real))}
    return Command((*script, profile.move(bwrap, sources), *words), {**offered, **links, **_joining(groups)})


def _joining(groups: Sequence[str]) -> dict[str, str]:
    return {"GROUPS": "\n".join(dict.fromkeys(groups))} if groups else {}


def _offer(sources: Sequence[str], owner: Owner) -> dict[str, str]:
    return {**_identity(owner), **{f"SOURCE_{n}": source for n, source in enumerate(sources)}}


def _identity(owner: Owner) -> dict[str, str]:
    return {"OWNER": f"{owner[0]} {owner[1]}"} if owner else {}


def _script(name: str) -> tuple[str, ...]:
    # -I: no directory of the caller's is imported from; -S: no site, which would double the time.
    # As a module, because Python keeps the bytecode of modules and compiles a script each time it is run.
    start = f"import sys; sys.path.insert(0, {_HERE!r}); import {name}; {name}.main()"
    return (sys.executable, "-I", "-S", "-c", start, "--")
