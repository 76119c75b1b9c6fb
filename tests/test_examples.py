"""Every example is run, and leaves nothing behind but what it was asked to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sessionctl import beneath
from sessionctl.app import Project
from tests.pages import ROOT, end_sandboxes, require_sandboxes

EXAMPLES = ROOT / "examples"
QUICKSTART = EXAMPLES / "quickstart" / "run.py"

_ADOPTING = """
import ctypes, os, signal, subprocess, sys
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
code = subprocess.run(sys.argv[1:]).returncode
signal.alarm(30)  # whatever was left behind is our child now: when one does not end, this ends us
try:
    while True:
        os.wait()
except ChildProcessError:
    sys.exit(code)
"""
"""Runs its arguments, and ends with their exit code once every process they started has ended; else by SIGALRM."""


def run(tmp_path: Path, *words: str, adopting: bool = False) -> str:
    """What the quickstart prints when it is given `words`."""
    temporary = tmp_path / "tmp"
    temporary.mkdir(exist_ok=True)
    before = [sys.executable, "-c", _ADOPTING] if adopting else []
    done = subprocess.run(
        [*before, sys.executable, str(QUICKSTART), *words],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(temporary), "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def after(said: str, command: str) -> list[str]:
    """The lines that were printed after `command`, up to the next one."""
    lines = [line for line in said.partition(f"$ {command}\n")[2].splitlines() if line]
    return lines[: next(number for number, line in enumerate(lines) if line.startswith(("$ ", "# ")))]


def test_each_example_has_a_page_and_is_run_here() -> None:
    played = {path.parent.name for path in EXAMPLES.glob("*/README.md") if "\n```console\n" in path.read_text()}
    assert {path.name for path in EXAMPLES.iterdir()} == {"quickstart", *played}  # those by test_docs
    assert {path.name for path in (EXAMPLES / "quickstart").iterdir() if path.is_file()} == {"README.md", "run.py"}


def test_the_quickstart_does_the_main_job_and_leaves_no_file_and_no_process(tmp_path: Path) -> None:
    require_sandboxes(tmp_path)
    said = run(tmp_path, adopting=True)
    assert "Plan: 3 to create." in after(said, "sessionctl plan")
    assert [line.split()[:2] for line in after(said, "sessionctl ls")[1:4]] == [
        ["api", "running"],
        ["audit", "stopped"],
        ["docs", "running"],
    ]
    assert [line.partition(" ")[2] for line in after(said, "git log --oneline")] == ["Say hi", "A beginning"]
    assert after(said, "sessionctl verify")[0] == "In sync: 2 sessions as declared."
    assert list((tmp_path / "tmp").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"tmp"}


def test_the_quickstart_keeps_what_it_was_told_to_keep(tmp_path: Path) -> None:
    require_sandboxes(tmp_path)
    place = tmp_path / "demo"
    try:
        said = run(tmp_path, str(place), "--keep")
        assert f"$ export SESSIONCTL_STATE_DIR={place}/state" in said.splitlines()
        project = Project(place / "repository", state_dir=place / "state")
        assert [(each.name, each.status) for each in project.sessions()] == [("api", "running"), ("docs", "running")]
    finally:
        end_sandboxes(place / "repository", place / "state")
        beneath.remove_tree(str(place))


def test_the_quickstart_cleans_up_when_a_step_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssertionError, match="git was not found"):
        run(tmp_path)
    assert list((tmp_path / "tmp").iterdir()) == []
