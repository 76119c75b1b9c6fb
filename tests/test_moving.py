"""A repository that is moved takes its sessions along; a copy of it takes nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from sessionctl.model import Move
from tests.command import Repository, git
from tests.leftovers import Watch
from tests.test_crash import calm, killed, moments, watch

__all__ = ["watch"]

READ = "git log -1 --format=%s; cat untracked ~/conversation"


@pytest.fixture
def made(repository: Repository) -> Repository:
    """A repository with a session that runs and one in a directory of the user's, and work in both."""
    repository.declare(
        "[sessions.api]\n[sessions.web]\nstate = 'stopped'\n"
        "workspace = { visible = true, session_dir = 'here' }\n[sessions.bare]\nworkspace = { mode = 'empty' }\n"
    )
    (repository.root / ".git" / "info" / "exclude").write_text("/here\n")
    repository.apply("--allow-host")
    repository.inside("api", "echo one >untracked; echo one >~/conversation; git commit -qm one --allow-empty")
    repository.run("fetch", "api")
    return repository


def move(repository: Repository, name: str) -> Path:
    """Moves the repository; where it was."""
    before = repository.root
    repository.root = before.rename(before.parent / name)
    os.chdir(repository.root)
    return before


def refs(repository: Repository) -> set[str]:
    """The projects that the repository keeps refs for."""
    return {line.split("/")[2] for line in git(repository.root, "for-each-ref", "--format=%(refname)").splitlines()} - {
        *("main", "agents")
    }


def test_a_moved_repository_is_told_and_takes_its_sessions_along(made: Repository) -> None:
    made.run("snapshot", "api", "-m", "before")
    made.inside("api", "echo two >untracked")
    (old,) = refs(made)
    pid = made.session("api")["pid"]
    before = move(made, "elsewhere")

    for words in (("ls",), ("plan",), ("apply", "--yes"), ("prune", "--yes"), ("exec", "api", "--", "true")):
        refused = made.run(*words, code=125 if words[0] == "exec" else 2).err
        assert f"{before}, which is gone" in refused and "sessionctl adopt --project" in refused
    assert str(before) in made.run("adopt", "--project").out

    made.run("plan", "--exit-code")
    assert made.session("api")["pid"] == pid
    assert made.inside("api", READ).out == "one\ntwo\none\n"
    made.run("restore", "api", "--yes")
    assert made.inside("api", READ).out == "one\none\none\n"
    made.run("stop", "api")
    made.run("start", "api")
    made.inside("api", "git commit -qm three --allow-empty && git fsck")
    made.run("fetch", "api")
    assert git(made.root, "log", "-1", "--format=%s", "agents/api") == "three"
    made.run("start", "web")
    made.inside("web", "echo x >by-hand; git status --short")
    assert (made.root / "here" / "web" / "by-hand").exists()
    assert json.loads((made.root / "here" / ".sessionctl").read_text())["project"] in refs(made)
    assert refs(made).isdisjoint({old})
    assert [json.loads(line)["event"] for line in made.run("log", "api", "--json").out.splitlines()].count("adopt") == 1
    assert "adopt" not in made.run("ls").out + made.run("ls").err


def test_all_is_in_sync_after_it(repository: Repository) -> None:
    repository.declare("[sessions.api]\n[sessions.web]\nworkspace = { visible = true }\n")
    repository.apply()
    move(repository, "elsewhere")
    repository.run("adopt", "--project")
    repository.run("plan", "--exit-code")
    repository.run("adopt", "--project", code=2)


def test_a_copy_has_sessions_of_its_own(made: Repository) -> None:
    original = made.root
    shutil.copytree(original, original.parent / "copy")
    made.root = original.parent / "copy"
    assert [each["observed"] for each in made.run("ls", "--json").json["sessions"]] == ["gone"] * 3
    assert "no sessions" in made.run("adopt", "--project", code=2).err
    assert "its sessions are its own" in made.run("adopt", "--project", str(original), code=2).err
    assert "one thing" not in made.run("adopt", code=2).err
    made.root = original
    assert made.inside("api", READ).out == "one\none\none\n"


def test_which_of_two_has_to_be_said(made: Repository) -> None:
    first = made.root
    second = first.parent / "second"
    shutil.copytree(first, second, ignore=shutil.ignore_patterns("here"))
    made.root = second
    made.declare("[sessions.other]\n")
    made.apply()
    shutil.rmtree(first)
    move(made, "third")
    assert {str(first), str(second)} <= set(made.run("adopt", "--project", code=3).err.replace(",", "").split())
    made.run("adopt", "--project", str(second))
    assert made.session("other")["observed"] == "running"
    assert "sessions of its own already" in made.run("adopt", "--project", str(first), code=3).err


def test_killed_while_it_takes_them_along(made: Repository, watch: Watch) -> None:
    for number in moments(3):
        move(made, f"place-{number}")
        if not killed(number, "adopt", "--project"):
            break
        if made.run("ls", code=None).code:
            calm("adopt", "--project")
        assert made.inside("api", READ).out == "one\none\none\n"
    calm("apply", "--yes", "--allow-host")
    assert len(refs(made)) == 1
    assert watch.strays(made) == []


def test_only_paths_of_the_host_are_changed() -> None:
    repository = Move("old", "new", "/workspace", "/elsewhere")
    assert repository.data(
        {
            "project": "old",
            "message": "/workspace/x",
            "standing": {
                "upper": "/workspace",
                "lower": ["/workspace2"],
                "mounts": [["/workspace/.git", "/workspace"]],
            },
            "pins": [["/workspace/.git", "refs/sessionctl/old/base/1"]],
        }
    ) == {
        "project": "new",
        "message": "/workspace/x",
        "standing": {"upper": "/elsewhere", "lower": ["/workspace2"], "mounts": [["/elsewhere/.git", "/workspace"]]},
        "pins": [["/elsewhere/.git", "refs/sessionctl/new/base/1"]],
    }
