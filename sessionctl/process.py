"""The only gate to other programs.

Every child gets a scrubbed environment, closed file descriptors and no standard input unless one
is given. What fails is told apart (not found, not startable, killed, timed out, non-zero) and
named by a line that can be pasted into a shell.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from sessionctl.errors import CommandError

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

# What starts programs imports what it needs for that: most calls of sessionctl start none.

_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TERM", "SSL_CERT_FILE", "SSL_CERT_DIR")
# No GIT_* (a hook runs with GIT_DIR and GIT_INDEX_FILE of the calling repository), no PYTHON*,
# no LD_*: a child starts from what this list names.


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment children get: the allowed part of ours (and ``LC_*``), then `extra`."""
    kept = {key: value for key, value in os.environ.items() if key in _KEPT or key.startswith("LC_")}
    kept.setdefault("PATH", os.defpath)
    return {**kept, **(extra or {})}


PIPE = -1
"""For the streams of `spawn`: a pipe that the caller holds the other end of."""


class Completed(NamedTuple):
    """A program that has ended."""

    argv: tuple[str, ...]
    code: int
    """Exit code; 128+n when signal n ended it."""
    stdout: bytes
    stderr: bytes

    def text(self) -> str:
        """Standard output as text, without the last newline; undecodable bytes are kept as escapes."""
        return self.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")


def line(argv: Sequence[str], cwd: str | Path | None = None) -> str:
    """`argv` as a line to paste into a shell."""
    import shlex

    words = shlex.join(argv)
    return f"cd {shlex.quote(str(cwd))} && {words}" if cwd else words


def run(
    argv: Sequence[str],
    *,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    input: bytes | None = None,
    stdin: int | IO[bytes] | None = None,
    timeout: float | None = None,
    check: bool = True,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Runs `argv` to its end and returns it.

    `env` is the whole environment, `environment()` when None. `timeout` is in seconds. With
    `check`, a non-zero end is a `CommandError` that holds the last lines of its standard error.
    A program that cannot be found or started, or that ran out of time, is always one.
    """
    import subprocess

    try:
        done = subprocess.run(
            list(argv),
            cwd=cwd,
            env=dict(env) if env is not None else environment(),
            input=input,
            stdin=(stdin if stdin is not None else subprocess.DEVNULL) if input is None else None,
            capture_output=True,
            timeout=timeout,
            pass_fds=tuple(pass_fds),
            check=False,
            process_group=0,  # Ctrl-C reaches us only: what is begun is finished
        )
    except subprocess.TimeoutExpired:
        raise CommandError(f"{argv[0]} did not end within {timeout:g} s", hint=f"try: {line(argv, cwd)}") from None
    except FileNotFoundError as error:
        if cwd is not None and not os.path.isdir(cwd):
            raise CommandError(f"{cwd} is not a directory") from error
        raise CommandError(f"{argv[0]} was not found", hint="install it, or put it on PATH") from error
    except OSError as error:
        raise CommandError(f"{argv[0]} cannot be run: {error.strerror}", hint=f"try: {line(argv, cwd)}") from error
    ended = Completed(tuple(argv), shell_code(done.returncode), done.stdout, done.stderr)
    if check and ended.code:
        raise failure(ended, cwd)
    return ended


def failure(ended: Completed, cwd: str | Path | None = None) -> CommandError:
    """The error that says how `ended` failed."""
    import signal

    said = ended.stderr.decode("utf-8", "backslashreplace").strip().splitlines()[-5:]
    if ended.code > 128 and ended.code - 128 in signal.valid_signals():
        how = f"was killed by {signal.Signals(ended.code - 128).name}"
    else:
        how = f"failed with exit code {ended.code}"
    tail = ": " + "\n  ".join(said) if said else ""
    return CommandError(f"{ended.argv[0]} {how}{tail}", hint=f"try: {line(ended.argv, cwd)}")


def shell_code(returncode: int) -> int:
    """A `Popen.returncode` as a shell would give it: 128+n for signal n."""
    return returncode if returncode >= 0 else 128 - returncode


def spawn(
    argv: Sequence[str],
    *,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
    new_session: bool = False,
) -> subprocess.Popen[bytes]:
    """Starts `argv` and returns at once. Streams that are not given are ``/dev/null``."""
    import subprocess

    try:
        return subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(env) if env is not None else environment(),
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
            stdout=stdout if stdout is not None else subprocess.DEVNULL,
            stderr=stderr if stderr is not None else subprocess.DEVNULL,
            pass_fds=tuple(pass_fds),
            start_new_session=new_session,
        )
    except FileNotFoundError as error:
        raise CommandError(f"{argv[0]} was not found", hint="install it, or put it on PATH") from error
    except OSError as error:
        raise CommandError(f"{argv[0]} cannot be run: {error.strerror}", hint=f"try: {line(argv, cwd)}") from error


# --- a program in the foreground ---------------------------------------------------------------


class Relayed(NamedTuple):
    """A program that ran in the foreground and has ended."""

    code: int
    """Exit code; 128+n when signal n ended it; 124 when time ran out."""
    stdout: bytes
    """The last `keep` bytes of what it wrote there."""
    stderr: bytes
    truncated: bool
    """Whether it wrote more than is kept."""
    timed_out: bool


TIMED_OUT = 124
_GRACE = 5.0
"""Seconds between asking a program that ran out of time to end, and ending it."""


def relay(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: int | None = None,
    timeout: float | None = None,
    keep: int,
    show: bool = True,
    apart: bool = False,
) -> Relayed:
    """Runs `argv`; its output is passed on as it comes (with `show`) and its tail kept.

    Returns when the program ends, even if something it left behind still holds its output open:
    what that writes later goes nowhere, and does not end it. SIGINT, SIGTERM and SIGHUP that reach
    us are passed on to it; it decides when to end. With `apart` none is, nor does Ctrl-C reach it:
    what is begun is finished. A terminal that is `stdin` is afterwards as it was, however it ended.
    """
    import contextlib
    import selectors
    import time

    tails = {1: bytearray(), 2: bytearray()}
    truncated = False
    with spawn(argv, env=env, stdin=stdin, stdout=PIPE, stderr=PIPE, new_session=apart) as child:
        assert child.stdout is not None and child.stderr is not None
        pidfd = os.pidfd_open(child.pid)
        streams = {child.stdout.fileno(): 1, child.stderr.fileno(): 2}
        deadline = time.monotonic() + timeout if timeout is not None else None
        timed_out = ended = False
        with (
            _terminal(stdin),
            contextlib.nullcontext() if apart else _passing_on(child.pid),
            selectors.DefaultSelector() as selector,
        ):
            for fd in (pidfd, *streams):
                os.set_blocking(fd, False)
                selector.register(fd, selectors.EVENT_READ)
            while not ended:
                wait = None if deadline is None else max(0.0, deadline - time.monotonic())
                ready = [key.fd for key, _ in selector.select(wait)]
                if not ready and deadline is not None:
                    child.kill() if timed_out else child.terminate()
                    timed_out, deadline = True, time.monotonic() + _GRACE
                ended = pidfd in ready
                # What it wrote before it ended is in the pipes already: read them dry, once.
                for fd in list(streams) if ended else ready:
                    if fd == pidfd:
                        continue
                    stream = streams[fd]
                    while chunk := _some(fd):
                        if show:
                            _write(stream, chunk)
                        tails[stream] += chunk
                        truncated |= len(tails[stream]) > keep
                        del tails[stream][:-keep]
                        if not ended:
                            break
                    if chunk == b"":
                        selector.unregister(fd)
                        del streams[fd]
        os.close(pidfd)
        code = shell_code(child.wait())
        for fd in streams:
            _drain(fd)
    return Relayed(TIMED_OUT if timed_out else code, bytes(tails[1]), bytes(tails[2]), truncated, timed_out)


def _drain(fd: int) -> None:
    """Leaves a reader behind for as long as somebody inside holds the pipe: a broken one would end a
    server at the next line it logs."""
    os.set_blocking(fd, True)
    null = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
    files = [(os.POSIX_SPAWN_DUP2, fd, 0), null, (os.POSIX_SPAWN_DUP2, 1, 2)]
    os.posix_spawnp("cat", ["cat"], {"PATH": os.defpath}, file_actions=files, setsid=True)


def _some(fd: int) -> bytes | None:
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return None


def _write(stream: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(stream, view) :]
        except BlockingIOError:
            import select

            select.select((), (stream,), ())
        except BrokenPipeError:
            return  # who reads us has gone (`| head`): the program inside is not to suffer from it


class _terminal:
    """While entered, somebody may change the settings of the terminal that `stdin` is, and be killed."""

    def __init__(self, stdin: int | None) -> None:
        self.stdin = stdin if stdin is not None and os.isatty(stdin) else None

    def __enter__(self) -> None:
        if self.stdin is not None:
            import termios

            self.before = termios.tcgetattr(self.stdin)

    def __exit__(self, *exc: object) -> None:
        if self.stdin is not None:
            import contextlib
            import termios

            with contextlib.suppress(termios.error):  # it was closed meanwhile
                if termios.tcgetattr(self.stdin) != self.before:
                    termios.tcsetattr(self.stdin, termios.TCSADRAIN, self.before)


class _passing_on:
    """While entered, signals that would end us are passed on to `pid`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def __enter__(self) -> None:
        import contextlib
        import signal
        import threading

        self.before: dict[int, Any] = {}
        if threading.current_thread() is not threading.main_thread():
            return  # Python gives signals to its main thread only

        def pass_on(number: int, frame: object) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            self.before[number] = signal.signal(number, pass_on)

    def __exit__(self, *exc: object) -> None:
        import signal

        for number, before in self.before.items():
            signal.signal(number, before)
