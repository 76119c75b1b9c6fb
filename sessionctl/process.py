"""The only gate to other programs.

Every child gets a scrubbed environment, closed file descriptors and no standard input unless one
is given. What fails is told apart (not found, not startable, killed, timed out, non-zero) and
named by a line that can be pasted into a shell.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from sessionctl.errors import CommandError

_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TERM", "SSL_CERT_FILE", "SSL_CERT_DIR")
# No GIT_* (a hook runs with GIT_DIR and GIT_INDEX_FILE of the calling repository), no PYTHON*,
# no LD_*: a child starts from what this list names.


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment children get: the allowed part of ours (and ``LC_*``), then `extra`."""
    kept = {key: value for key, value in os.environ.items() if key in _KEPT or key.startswith("LC_")}
    kept.setdefault("PATH", os.defpath)
    return {**kept, **(extra or {})}


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
    try:
        done = subprocess.run(
            list(argv),
            cwd=cwd,
            env=dict(env) if env is not None else environment(),
            input=input,
            stdin=(stdin if stdin is not None else subprocess.DEVNULL) if input is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=timeout,
            pass_fds=tuple(pass_fds),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CommandError(f"{argv[0]} did not end within {timeout:g} s", hint=f"try: {line(argv, cwd)}") from None
    except FileNotFoundError as error:
        if cwd is not None and not Path(cwd).is_dir():
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


PIPE = subprocess.PIPE
