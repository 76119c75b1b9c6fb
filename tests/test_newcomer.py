"""Somebody who knows nothing but the README gets to a shell in a session; and after a mistake, is told what to type."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from sessionctl import cli
from tests.pages import ROOT, World, end_sandboxes, require_sandboxes, scratch_world
from tests.person import answering


def steps() -> list[str]:
    """The commands of the README that lead a newcomer to a shell."""
    text = (ROOT / "README.md").read_text()
    found = re.search(r"^<!-- the newcomer's commands -->\n```bash\n(.+?)^```$", text, re.M | re.S)
    assert found is not None
    return [line.partition("  #")[0].strip() for line in found[1].splitlines()]


def test_there_are_at_most_four() -> None:
    assert len(steps()) <= 4
    assert steps()[-1] == "sessionctl exec agent -- bash"


# --- as it is meant ----------------------------------------------------------------------------


class Terminal:
    """A shell in a terminal, into which lines are typed once it has shown its prompt."""

    PROMPT = b"newcomer> "

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        self.master, slave = pty.openpty()
        self.shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            cwd=directory,
            env={**env, "PS1": self.PROMPT.decode(), "TERM": "dumb", "VIRTUAL_ENV_DISABLE_PROMPT": "1"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    def until(self, wanted: bytes, seconds: float) -> str:
        """What is shown until it has `wanted`."""
        said, end = b"", time.monotonic() + seconds
        while wanted not in said:
            ready, _, _ = select.select([self.master], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{wanted!r} was not shown in {seconds:.0f} s:\n{said.decode()}"
            said += os.read(self.master, 4096)
        return said.decode("utf-8", "replace")

    def type(self, line: str) -> None:
        os.write(self.master, line.encode() + b"\n")

    def close(self) -> None:
        os.close(self.master)  # hangs up: the shell and what runs in its foreground end
        self.shell.wait(30)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A terminal in a fresh copy of the sources, of somebody with a repository ``~/project`` and nothing installed."""
    require_sandboxes(tmp_path)
    home, sources = tmp_path / "ada", tmp_path / "sources"
    shutil.copytree(ROOT / "sessionctl", sources / "sessionctl", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    project = home / "project"
    project.mkdir(parents=True)
    kept = ("PATH", "PIP_INDEX_URL", "PIP_CONFIG_FILE", "SSL_CERT_FILE", "https_proxy", "no_proxy", "LANG")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    # The `python3` that the README means is one with venv: that which these tests run in.
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(getattr(sys, "_base_executable", sys.executable))
    env |= {"HOME": str(home), "PATH": f"{programs}:{env['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {"SESSIONCTL_STATE_DIR": str(home / "state"), "GIT_CONFIG_NOSYSTEM": "1"}
    script = "git init -q -b main && git config --global user.name Ada && git config --global user.email a@b.invalid"
    subprocess.run(["bash", "-ec", f"{script} && git commit -q --allow-empty -m A"], cwd=project, env=env, check=True)
    made = Terminal(sources, env)
    try:
        yield made
    finally:
        made.close()
        end_sandboxes(project, home / "state")
        from sessionctl import beneath

        beneath.remove_tree(str(home / "state"))


def test_four_commands_lead_to_a_shell_in_a_session(terminal: Terminal) -> None:
    prompt = Terminal.PROMPT
    terminal.until(prompt, 30)
    install, init, apply, shell = steps()
    terminal.type(f"{install}; echo code $?.")
    said = terminal.until(b"code ", 30) + terminal.until(prompt, 300)
    if re.search("No matching distribution found|Could not find a version", said):
        pytest.skip("there is no package index that this project could be installed from")
    assert "code 0." in said, said
    terminal.type(init)
    assert "wrote sessions.toml with one session" in terminal.until(prompt, 30)
    terminal.type(apply)
    assert "Plan: 1 to create." in terminal.until(b"[y/N] ", 30)
    terminal.type("y")
    assert "done    agent: create" in terminal.until(prompt, 60)
    terminal.type(shell)
    terminal.until(b"$ ", 30)
    terminal.type("echo it is $(pwd), $(git branch --show-current); exit")
    assert "it is /workspace, agents/agent" in terminal.until(prompt, 30)


# --- with a mistake at each step ---------------------------------------------------------------


class Wrong(NamedTuple):
    """A mistake at a step."""

    line: str
    """What is typed."""
    before: str = ""
    """What was done before."""
    place: str = "."
    """Where, seen from the project."""
    mend: str = ""
    """What the message says has to be edited first."""


INIT = {
    "outside of a repository": Wrong("sessionctl init", place="../empty"),
    "a directory that is not there": Wrong("sessionctl -C ../nowhere init"),
    "a misspelt command": Wrong("sessionctl inti"),
    "an argument too many": Wrong("sessionctl init here"),
    "an option that it has not": Wrong("sessionctl init --yes"),
    "a second time": Wrong("sessionctl init", "sessionctl init"),
}
APPLY = {
    "no manifest": Wrong("sessionctl apply"),
    "a manifest that is not there": Wrong("sessionctl --file other.toml apply", "sessionctl init"),
    "no commit": Wrong("sessionctl apply", "git init -q . && sessionctl init", "../empty"),
    "a misspelt command": Wrong("sessionctl aply", "sessionctl init"),
    "what others call it": Wrong("sessionctl up", "sessionctl init"),
    "a misspelt session": Wrong("sessionctl apply agnet", "sessionctl init"),
    "a misspelt option": Wrong("sessionctl apply --ys", "sessionctl init"),
    "nobody to ask": Wrong("sessionctl apply </dev/null", "sessionctl init"),
    "a misspelt key": Wrong(
        "sessionctl apply",
        "sessionctl init && sed -i 's/^agent =/agnt =/' sessions.toml",
        mend="sed -i 's/^agnt =/agent =/' sessions.toml",
    ),
    "not TOML": Wrong(
        "sessionctl apply", "sessionctl init && echo x >>sessions.toml", mend="sed -i '$d' sessions.toml"
    ),
    "a base that is not there": Wrong(
        "sessionctl apply",
        'sessionctl init && sed -i \'s/base = "main"/base = "mian"/\' sessions.toml',
        mend="sed -i 's/mian/main/' sessions.toml",
    ),
}
MADE = "sessionctl init && sessionctl apply --yes"
EXEC = {
    "no manifest": Wrong("sessionctl exec agent -- bash"),
    "not applied": Wrong("sessionctl exec agent -- bash", "sessionctl init"),
    "no name": Wrong("sessionctl exec", MADE),
    "no command": Wrong("sessionctl exec agent", MADE),
    "a misspelt session": Wrong("sessionctl exec agnet -- bash", MADE),
    "a command for a name": Wrong("sessionctl exec bash", MADE),
    "an option that it has not": Wrong("sessionctl exec --tty agent -- bash", MADE),
    "a program that is not there": Wrong("sessionctl exec agent -- bahs", MADE),
    "what others call it": Wrong("sessionctl shell agent", MADE),
    "what others call it, no name": Wrong("sessionctl shell", MADE),
    "stopped": Wrong("sessionctl exec agent -- bash", f"{MADE} && sessionctl stop agent"),
}
MISTAKES = {
    f"{step}: {name}": wrong
    for step, table in (("init", INIT), ("apply", APPLY), ("exec", EXEC))
    for name, wrong in table.items()
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    require_sandboxes(tmp_path)
    with scratch_world(tmp_path) as made:
        (made.home / "empty").mkdir()
        try:
            yield made
        finally:
            if (made.home / "empty" / ".git").exists():
                end_sandboxes(made.home / "empty", made.home / "state")


def advised(said: str) -> str:
    """The command that a message says comes next: the first one of its last line that has one."""
    for line in reversed(said.splitlines()):
        found = re.search(r"`([a-z][^`]+)`|: ((?:sessionctl|git) [^;)]+)", line)
        if found:
            return found[1] or found[2]
    raise AssertionError(f"nothing says what to do next:\n{said}")


@pytest.mark.parametrize("wrong", MISTAKES.values(), ids=MISTAKES.keys())
def test_after_a_mistake_what_is_said_to_come_next_works_and_leads_to_a_shell(wrong: Wrong, world: World) -> None:
    type = answering(world, wrong.place)
    assert not wrong.before or type(wrong.before)[0] == 0
    code, said = type(wrong.line)
    assert code != 0 and "Traceback" not in said, said
    if wrong.mend:
        assert type(wrong.mend)[0] == 0
    following = advised(said)
    code, shown = type(following)
    assert code == 0, f"$ {wrong.line}\n{said}$ {following}\n{shown}"

    for _ in range(6):
        code, said = type("sessionctl exec agent -- bash -c pwd")
        if code == 0:
            assert said == "/workspace\n"
            return
        following = advised(said)
        code, shown = type(following)
        # What comes next may have something before it in turn.
        if code:
            assert type(advised(shown))[0] == 0, f"$ {following}\n{shown}"
    raise AssertionError(f"there is no end to it:\n{said}")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("up", "sessionctl apply"),
        ("ps", "sessionctl ls"),
        ("shell agent", "sessionctl exec agent -- bash"),
        ("down agent", "sessionctl stop agent"),
        ("rm agent", "sessionctl prune"),
        ("shell", "sessionctl ls"),
        ("aply", "sessionctl apply"),
        ("hooks", "sessionctl hooks install"),
    ],
)
def test_what_others_call_a_command_is_known(typed: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(typed.split()) == 2
    assert advised(capsys.readouterr().err) == meant


def test_sources_that_were_not_installed_say_how_to(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    done = subprocess.run(
        [sys.executable, "-S", "-m", "sessionctl", "init"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "is not installed here" in done.stderr, done.stderr
    assert advised(done.stderr) == "python3 -m venv .venv && .venv/bin/pip install -q ."
