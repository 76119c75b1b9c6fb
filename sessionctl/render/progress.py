"""How far something is, on one line of a terminal that is written over."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from sessionctl.render.text import printable
from sessionctl.units import size

if TYPE_CHECKING:
    from sessionctl.plan import Lane


class Progress:
    """A bar on a terminal while a plan is carried out; nothing anywhere else."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._total, self._done, self._stream = total, 0, stream or sys.stderr
        self._on = self._stream.isatty() and os.environ.get("TERM") != "dumb" and total > 0

    def __call__(self, lane: Lane, action: Any, result: str) -> None:
        if result != "begun":
            self._done += 1
        self.say(f"{lane.session}: {action.verb}")

    def say(self, text: str) -> None:
        """Shows `text` behind the bar."""
        if self._on:
            full = 20 * self._done // self._total
            self._stream.write(
                f"\r\x1b[2K[{'#' * full}{'.' * (20 - full)}] {self._done}/{self._total} {printable(text)[:50]}"
            )
            self._stream.flush()

    def announce(self, text: str) -> None:
        """Says `text`, where there is no bar as well."""
        if self._on:
            self.say(text)
        else:
            self._stream.write(f"{text}\n")
            self._stream.flush()

    def close(self) -> None:
        if self._on:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()


class Copying:
    """Is told how many bytes more were copied; shows on a terminal how far that is, once it takes long."""

    def __init__(self, stream: TextIO | None = None) -> None:
        import time

        self._stream = stream or sys.stderr
        self._on = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._clock = time.monotonic
        self._next = self._clock() + 0.5
        self._copied = 0
        self._shown = False

    def __enter__(self) -> Copying:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()

    def __call__(self, count: int, total: int) -> None:
        self._copied += count
        if self._on and self._clock() >= self._next:
            self._next = self._clock() + 0.1
            full = min(20, 20 * self._copied // total) if total else 0
            bar = f"[{'#' * full}{'.' * (20 - full)}] " if total else ""
            of = f" of {size(total)}" if total else ""
            self._stream.write(f"\r\x1b[2K{bar}{size(self._copied)}{of}")
            self._stream.flush()
            self._shown = True
