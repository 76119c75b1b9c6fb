"""``python -m tests.killed NUMBER COMMAND ...``: sessionctl in a process that kills itself at its NUMBER-th moment.

A moment is just before anything that outlives the process: something made, opened for writing, moved, removed or
locked, a program started, a signal sent; and the beginning and the end of every step. They are the
interpreter's own audit events, so nothing of sessionctl is made for this. Without as many moments, it ends as ever.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from sessionctl import Project, cli
from sessionctl.plan import Policy

_CHANGES = {
    *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.chmod", "os.chown", "os.truncate"),
    *("subprocess.Popen", "os.posix_spawn", "fcntl.flock", "sqlite3.connect"),
}


def main(number: int, *words: str) -> int:
    left = number
    sys.dont_write_bytecode = True

    def moment() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in _CHANGES:
            moment()

    sys.addaudithook(watch)
    if words[0] not in ("apply", "prune"):
        return cli.main(words)
    project = Project()
    project.recover()
    plan = project.plan(policy=Policy(prune=words[0] == "prune", idle=0))
    outcomes = project.apply(plan, on=lambda lane, action, result: moment())
    for outcome in outcomes:
        if outcome.result != "done":
            print(outcome, file=sys.stderr)
    return int(any(outcome.result != "done" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
