"""What is left when `exec`, or a part of it, is killed: a terminal as it was, no process, no secret."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.command import Repository

PRIVATE = {"MY_TOKEN": "s3cr3t-of-mine"}


@pytest.fixture
def api(repository: Repository) -> Repository:
    """A repository whose session runs."""
    repository.declare("[sessions.api]\n")
    repository.apply()
    return repository


class _Typed:
    """``sessionctl exec api -- SCRIPT`` in a terminal, which it has made raw."""

    def __init__(self, repository: Repository, script: str) -> None:
        self.master, self.slave = pty.openpty()
        self.settings = termios.tcgetattr(self.slave)
        self.running = subprocess.Popen(
            [sys.executable, "-m", "sessionctl", "exec", "api", "--", "sh", "-c", f"echo ready; {script}"],
            cwd=repository.root,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
        )
        said = b""
        while b"ready" not in said:
            said += os.read(self.master, 4096)
        assert not self.is_restored

    @property
    def is_restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.settings

    def close(self) -> None:
        self.running.kill()
        self.running.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def typed(api: Repository) -> Iterator[_Typed]:
    typed = _Typed(api, "exec sleep 300")
    yield typed
    typed.close()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ended(pid: int) -> bool:
    """Whether `pid` is no more; one that nobody has reaped yet is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def eventually(condition: Callable[[], object], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)


def test_a_killed_way_in_leaves_the_terminal_as_it_was(typed: _Typed) -> None:
    (entry,) = children(typed.running.pid)
    (program,) = children(entry)
    os.kill(entry, signal.SIGKILL)
    assert typed.running.wait(10) == 137
    assert typed.is_restored
    eventually(lambda: ended(program))


def test_a_killed_sessionctl_leaves_the_terminal_as_it_was_and_nothing_running(typed: _Typed) -> None:
    (entry,) = children(typed.running.pid)
    (program,) = children(entry)
    typed.running.kill()
    eventually(lambda: typed.is_restored and ended(entry) and ended(program))


@pytest.mark.parametrize("ignoring", [False, True], ids=["", "under nohup"])
def test_a_command_ends_when_sessionctl_is_killed(api: Repository, ignoring: bool) -> None:
    script = "sleep 300 >/dev/null 2>&1 & echo $!; exec sleep 200"
    command = [sys.executable, "-m", "sessionctl", "exec", "api", "--", "sh", "-c", script]
    before = "trap '' HUP INT TERM; " if ignoring else ""
    with subprocess.Popen(
        ["sh", "-c", f'{before}exec "$@"', "sh", *command],
        cwd=api.root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        left = running.stdout.readline().decode().strip()
        (entry,) = children(running.pid)
        (program,) = children(entry)
        running.kill()
        eventually(lambda: ended(entry) and ended(program))
    assert api.inside("api", f"kill -0 {left}").code == 0  # what it left running is the session's
    api.run("stop", "api")  # at once: no dead process is left that nobody reaps


def test_a_variable_of_mine_is_masked_in_what_is_kept(api: Repository) -> None:
    words = ["api", "--", "sh", "-c", 'echo "$MY_TOKEN $OTHER"', *PRIVATE.values()]
    said = api.run("exec", "--json", "--env", "MY_TOKEN", "--env", "OTHER=shown", *words, env=PRIVATE)
    assert said.json["stdout"] == "*** shown\n"
    shown = api.run("exec", "--env", "MY_TOKEN", *words, env=PRIVATE)
    assert shown.out == f"{PRIVATE['MY_TOKEN']} \n"
    events = [json.loads(line) for line in api.run("log", "api", "--json").out.splitlines()]
    assert [event["stdout"] for event in events if event["event"] == "exec"] == ["*** shown\n", "*** \n"]
    kept = [path for path in api.state.rglob("*") if path.is_file() and os.access(path, os.R_OK)]
    assert kept and not [path for path in kept if PRIVATE["MY_TOKEN"].encode() in path.read_bytes()]


def test_what_takes_the_place_of_a_secret_is_masked_as_it_was(repository: Repository) -> None:
    repository.declare('[sessions.api]\nenv = { KEY = { from_env = "MY_TOKEN" } }\n')
    repository.apply("--allow-host")
    said = repository.run("exec", "--json", "--env", "KEY=another-one", "api", "--", "sh", "-c", "echo $KEY")
    assert said.json["stdout"] == "***\n"
