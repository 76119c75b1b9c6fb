"""Snapshots, restore, fork and undo in every workspace mode: done whole, or refused with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.command import Repository

KEPT = ('mode = "clone"', 'mode = "clone"\nvisible = true', 'mode = "worktree"', 'mode = "overlay"')
READ = "git log -1 --format=%s; cat src/main.py untracked .env ~/conversation; git status --porcelain"


def work(repository: Repository, text: str, name: str = "api") -> str:
    """Works in the session; what `READ` prints of it then."""
    script = f"""
        echo {text} > staged; git add staged; git commit -qm {text}
        echo {text} > src/main.py; echo {text} > untracked; echo {text} > .env; echo {text} > ~/conversation
    """
    repository.inside(name, script)
    return repository.inside(name, READ).out


@pytest.fixture(params=KEPT)
def api(request: pytest.FixtureRequest, repository: Repository) -> Repository:
    repository.declare(f"[sessions.api.workspace]\n{request.param}\n")
    repository.apply("--allow-host")
    return repository


def test_restore_brings_the_work_back(api: Repository) -> None:
    one = work(api, "one")
    api.run("snapshot", "api")
    two = work(api, "two")
    assert one != two
    api.run("restore", "api", "--yes")
    assert api.inside("api", READ).out == one
    api.run("plan", "--exit-code")
    api.run("undo")
    assert api.inside("api", READ).out == two
    api.run("plan", "--exit-code")


def test_a_fork_has_a_copy_of_its_own(api: Repository) -> None:
    one = work(api, "one")
    api.run("fork", "api", "other")
    assert api.inside("other", READ).out == one
    work(api, "two")
    assert api.inside("other", READ).out == one
    assert "api" not in api.inside("other", "git rev-parse --abbrev-ref HEAD").out


def test_undo_of_prune_brings_the_session_back(api: Repository) -> None:
    api.inside("api", "git commit -qm one --allow-empty")
    api.run("fetch", "api")
    api.declare("")
    api.run("prune", "--idle", "0s", "--yes")
    assert api.run("ls", "--json", "--all").json["sessions"] == []
    api.run("undo")
    assert api.inside("api", "git log -1 --format=%s").out == "one\n"


@pytest.mark.parametrize("lines", ['mode = "bind"', 'visible = true\nsession_dir = "{there}"'])
def test_files_that_are_elsewhere_are_refused_by_name(repository: Repository, tmp_path: Path, lines: str) -> None:
    if os.geteuid() == 0 and "bind" in lines:
        pytest.skip("root's sandboxes cannot write what is root's, and say so")
    repository.declare(f"[sessions.api.workspace]\n{lines.format(there=tmp_path / 'there')}\n")
    repository.apply("--allow-host")
    refused = repository.run("snapshot", "api", code=2)
    assert "api" in refused.err and "git" in refused.err
    assert repository.run("snapshots", "--json", "--all").json["snapshots"] == []
