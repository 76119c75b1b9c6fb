"""Long answers, by way of the user's pager."""

from __future__ import annotations

import os
import sys

_NOT_FOUND = 127
"""What a shell answers when there is no such pager."""


def paged(text: str) -> None:
    """Prints `text`; on a terminal, by way of the user's pager."""
    from sessionctl import process

    if not sys.stdout.isatty() or text.count("\n") < _lines():
        print(text)
        return
    pager = os.environ.get("SESSIONCTL_PAGER") or os.environ.get("PAGER") or "less"
    env = process.environment({"LESS": os.environ.get("LESS", "FRX"), "LESSSECURE": "1"})
    child = process.spawn(("sh", "-c", pager), env=env, stdin=process.PIPE, stdout=1, stderr=2)
    assert child.stdin is not None
    try:
        child.stdin.write(text.encode() + b"\n")
        child.stdin.close()
    except BrokenPipeError:
        pass  # who reads has seen enough
    if child.wait() == _NOT_FOUND:
        print(text)


def _lines() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).lines
    except OSError:
        return 24
