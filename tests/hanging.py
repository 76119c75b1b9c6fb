"""What must not wait: an end after so many seconds, wherever it hangs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Hang(BaseException):
    """Nothing that is tested may catch it."""


@contextmanager
def soon(seconds: int = 60) -> Iterator[None]:
    """Raises `Hang` in what takes longer."""

    def end(*_: object) -> None:
        raise Hang(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
