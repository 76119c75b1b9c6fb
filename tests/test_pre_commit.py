"""The hooks for pre-commit, run by the real one, which installs this project as it would for anybody."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import Repository, git
from tests.pages import ROOT

_SHIPPED = (".pre-commit-hooks.yaml", "pyproject.toml", "README.md", "LICENSE", "sessionctl")
_CONFIG = """\
repos:
  - repo: {source}
    rev: {rev}
    hooks: [{{ id: sessionctl-validate }}, {{ id: sessionctl-verify }}]
"""


def pre_commit() -> str:
    beside = Path(sys.executable).with_name("pre-commit")
    found = str(beside) if beside.exists() else shutil.which("pre-commit")
    if found is None:
        pytest.skip("pre-commit is not installed")
    return found


def run(program: str, repository: Repository, *words: str, code: int) -> str:
    """What ``pre-commit run`` with `words` says; it must end with `code`."""
    # Its environments are of installed packages: these sources must not be seen from there.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    argv = [program, "run", "--color=never", *words]
    done = subprocess.run(argv, cwd=repository.root, env=env, capture_output=True, text=True, check=False)
    if "No matching distribution found" in done.stdout:
        pytest.skip("there is no package index that this project could be installed from")
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_pre_commit_installs_and_runs_both(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = pre_commit()
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path / "cache"))
    source = tmp_path / "source"
    source.mkdir()
    for name in _SHIPPED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "as shipped"]):
        git(source, *words)
    rev = git(source, "rev-parse", "HEAD")
    (repository.root / ".pre-commit-config.yaml").write_text(_CONFIG.format(source=source, rev=rev))
    repository.declare("[sessions.api]\n")
    git(repository.root, "add", "-A")

    assert "sessionctl validate......." in run(program, repository, code=0)
    said = run(program, repository, "--hook-stage", "pre-push", "sessionctl-verify", code=1)
    assert "exit code: 3" in said and "Plan: 1 to create." in said
    repository.apply()
    run(program, repository, "--hook-stage", "pre-push", "sessionctl-verify", code=0)
    repository.declare("[sessions.api]\nagnt = 1\n")
    git(repository.root, "add", "-A")
    said = run(program, repository, code=1)
    assert "sessions.toml:3: sessions.api.agnt: unknown key (did you mean 'agent'?)" in said
    git(repository.root, "reset", "-q", "sessions.toml")
    assert "no files to check" in run(program, repository, "sessionctl-validate", code=0)
