"""Completion: what a Tab offers, and that the shells' scripts ask for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sessionctl import cli
from tests.command import Repository


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository that declares sessions and has none."""
    monkeypatch.setenv("SESSIONCTL_STATE_DIR", str(tmp_path / "state"))
    made = Repository(tmp_path / "plain")
    made.declare("[sessions.api]\n[sessions.app]\n[sessions.web]\n")
    return made


def offered(repository: Repository, *words: str) -> list[str]:
    return repository.run("completion", "bash", "--", "sessionctl", *words).out.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["st"], ["status", "start", "stop"]),
        (["hooks", ""], ["install", "uninstall", "status", "run"]),
        (["hooks", "un"], ["uninstall"]),
        (["--"], ["--help", "--version", "--file", "--state-dir", "--set", "--color"]),
        (["-h"], ["-h"]),
        (["--fi"], ["--file"]),
        (["verify", "--"], ["--file", "--state-dir", "--set", "--color", "--json"]),
        (["ls", "--sort", "b"], ["branch"]),
        (["--color", ""], ["auto", "always", "never"]),
        (["status", ""], ["api", "app", "web"]),
        (["status", "ap"], ["api", "app"]),
        (["status", "api", ""], []),
        (["stop", "api", ""], ["app", "web"]),
        (["log", "-n", "3", "w"], ["web"]),
        (["log", "-n", ""], []),
        (["exec", "--timeout", "3s", "a"], ["api", "app"]),
        (["diff", "a"], ["api", "app"]),
        (["logs", "--tail", "3", "w"], ["web"]),
        (["cp", "a"], ["api:", "app:"]),
        (["cp", "file", "w"], ["web:"]),
        (["cp", "file", "api:x", ""], []),
        (["exec", "api", "--", ""], []),
        (["--file", ""], []),
        (["nonsense", ""], []),
        (["hooks", "run", "post-m"], ["post-merge"]),
        (["completion", "z"], ["zsh"]),
    ],
)
def test_what_may_come_next(plain: Repository, words: list[str], expected: list[str]) -> None:
    assert offered(plain, *words) == expected


def test_every_command_is_offered(plain: Repository) -> None:
    assert offered(plain, "") == list(dict.fromkeys(name.split()[0] for name in cli.COMMANDS))


def test_names_are_of_the_repository_that_is_meant_and_of_retained_sessions_too(repository: Repository) -> None:
    repository.declare("[sessions.old]\n")
    repository.apply()
    repository.declare("[sessions.new]\n")
    assert offered(repository, "-C", str(repository.root), "status", "") == ["new", "old"]
    (repository.root / "sessions.toml").write_text("not = [valid\n")
    assert offered(repository, "status", "") == ["old"]


def test_outside_of_a_repository_nothing_is_offered_and_nothing_fails(plain: Repository, tmp_path: Path) -> None:
    assert offered(plain, "-C", str(tmp_path), "status", "") == []


def test_an_answer_imports_nothing_heavy(plain: Repository) -> None:
    plain.run("plan")  # the manifest is in the cache
    script = (
        "import sys; from sessionctl.cli import main; main(sys.argv[1:]);"
        "print(sorted({'pydantic', 'git', 'tomlkit', 'tomllib', 'invoke', 'subprocess'} & set(sys.modules)))"
    )
    argv = [sys.executable, "-c", script, "completion", "bash", "--", "sessionctl", "status", "w"]
    done = subprocess.run(argv, cwd=plain.root, capture_output=True, text=True, check=True)
    assert done.stdout == "web\n[]\n"


# --- in shells ---------------------------------------------------------------------------------

_ASK = {
    "bash": 'eval "$(sessionctl completion bash)"; COMP_WORDS=(sessionctl status ap); COMP_CWORD=2; _sessionctl;'
    ' printf "%s\\n" "${COMPREPLY[@]}"',
    # zsh completes only for a person: what it would be given to show is shown instead.
    "zsh": 'compdef() { :; }; _describe() { print -l ${found%%:*}; }; eval "$(sessionctl completion zsh)";'
    " words=(sessionctl status ap); CURRENT=3; _sessionctl",
    "fish": "sessionctl completion fish | source; complete -C 'sessionctl status ap' 2>/dev/null",
}


@pytest.mark.parametrize("shell", _ASK)
def test_shells_ask_for_it(plain: Repository, tmp_path: Path, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell}")
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin" / "sessionctl"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sessionctl "$@"\n')
    wrapper.chmod(0o755)
    env = {**os.environ, "PATH": f"{wrapper.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [program, "-c", _ASK[shell]], cwd=plain.root, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["api", "app"], done.stderr
