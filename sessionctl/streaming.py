"""Programs inside sessions that send us a stream, or take one. They may be an agent's: what they say is bounded in
size, and who says nothing for long is given up."""

from __future__ import annotations

import os
import select
from collections.abc import Generator
from typing import TYPE_CHECKING, Self

from sessionctl import process
from sessionctl.errors import CommandError, SessionctlError, UsageError
from sessionctl.git import printable

if TYPE_CHECKING:
    import subprocess

    from sessionctl.backends import Command

REFUSED = 3
"""What our scripts inside end with when they say why they do nothing."""
_CHANGED = 1
"""What GNU tar ends with when a file changed while it was read."""
_PATIENCE = 120.0
"""Seconds in which nothing moves until a copy is given up."""
_SAID = 8192
"""Bytes kept of what programs inside complain of."""
_PIECE = 1 << 20


class Sending:
    """A program that writes to us, and complains: its output is read as it comes, of its complaints the first."""

    def __init__(self, command: Command) -> None:
        self._child = process.spawn(command.argv, env=command.env, stdout=process.PIPE, stderr=process.PIPE)
        assert self._child.stdout is not None and self._child.stderr is not None
        self._out, self._err = self._child.stdout.fileno(), self._child.stderr.fileno()
        self._poll = select.poll()
        for fd in (self._out, self._err):
            self._poll.register(fd, select.POLLIN)
        self._said = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._child)

    def read(self, size: int = _PIECE, /) -> bytes:
        while True:
            ready = {fd for fd, _ in self._poll.poll(_PATIENCE * 1000)}
            if not ready:
                raise CommandError(f"nothing came out of the session within {_PATIENCE:g} s")
            if self._err in ready:
                said = os.read(self._err, _SAID)
                self._said = (self._said + said)[:_SAID]
                if not said:
                    self._poll.unregister(self._err)
            if self._out in ready:
                return os.read(self._out, min(size, _PIECE))

    def line(self) -> str:
        """The first line, without its end."""
        line = b""
        while len(line) < 100 and (char := self.read(1)) not in (b"\n", b""):
            line += char
        return line.decode("ascii", "replace")

    def finish(self, shown: str = "it") -> tuple[str, ...]:
        """What the program complained of; `SessionctlError` when it failed. Nothing of its output is read any more."""
        while self.read():
            pass
        self._said = (self._said + self._rest())[:_SAID]
        code = process.shell_code(self._child.wait())
        said = [printable(each) for each in self._said.decode("utf-8", "backslashreplace").splitlines()]
        if code == REFUSED and said:
            raise UsageError(f"{shown} cannot be copied: {said[-1]}")
        if code not in (0, _CHANGED):
            why = "; ".join(said[:3]) or f"tar inside ended with code {code}"
            raise SessionctlError(f"not all of it can be read, and nothing was copied: {why}")
        return tuple(each.removeprefix("tar: ") for each in said)

    def _rest(self) -> bytes:
        assert self._child.stderr is not None
        os.set_blocking(self._err, False)
        try:
            return os.read(self._err, _SAID)
        except BlockingIOError:
            return b""


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            stream.close()
    child.wait()


def fed(command: Command, pieces: Generator[bytes, None, None]) -> tuple[int, bytes, bytes]:
    """Runs a program with `pieces` as its standard input: its exit code, and the end of what it complained and said."""
    child = process.spawn(command.argv, env=command.env, stdin=process.PIPE, stdout=process.PIPE, stderr=process.PIPE)
    try:
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        feed, said = child.stdin.fileno(), {child.stderr.fileno(): b"", child.stdout.fileno(): b""}
        err, out = said
        poll = select.poll()
        os.set_blocking(feed, False)
        poll.register(feed, select.POLLOUT)
        for fd in said:
            poll.register(fd, select.POLLIN)
        waiting = {feed, *said}
        rest = memoryview(b"")
        while waiting - {feed}:
            ready = {fd for fd, _ in poll.poll(_PATIENCE * 1000)}
            if not ready:
                raise CommandError(f"nothing went into the session within {_PATIENCE:g} s")
            for fd in ready & said.keys():
                some = os.read(fd, _SAID)
                said[fd] = (said[fd] + some)[-_SAID:]
                if not some:
                    poll.unregister(fd)
                    waiting.discard(fd)
            if feed in ready:
                rest = rest or memoryview(next(pieces, b""))
                try:
                    rest = rest[os.write(feed, rest) :] if rest else _over_with(child, poll, feed)
                except BlockingIOError:
                    pass
                except BrokenPipeError:  # it has ended, and says why
                    rest = _over_with(child, poll, feed)
        return process.shell_code(child.wait()), said[err], said[out]
    finally:
        pieces.close()
        _end(child)


def _over_with(child: subprocess.Popen[bytes], poll: select.poll, feed: int) -> memoryview:
    poll.unregister(feed)
    assert child.stdin is not None
    child.stdin.close()
    return memoryview(b"")
