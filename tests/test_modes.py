"""The kinds of workspace, as a person meets them: what is where, what it may write, and what goes when it goes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.command import Repository, git

ROOT = os.geteuid() == 0


def declare(repository: Repository, workspace: str) -> None:
    repository.declare(f"[sessions.api]\nworkspace = {{ {workspace} }}\n")


def make(repository: Repository, workspace: str) -> None:
    declare(repository, workspace)
    repository.apply("--allow-host")


def prune(repository: Repository) -> str:
    """What a prune says of the session, when it is not declared any more and has been stopped."""
    repository.run("stop", "api")
    repository.declare("")
    return repository.run("prune", "--yes", "--idle", "0s").out


def test_a_visible_clone_is_a_directory_without_a_repository(repository: Repository) -> None:
    make(repository, "visible = true")
    place = Path(repository.run("path", "api").out.strip())
    assert {each.name for each in place.iterdir()} == {".git", ".gitignore", "a.txt", "src"}
    assert list((place / ".git").iterdir()) == []
    assert repository.inside("api", "git status --short; git branch --show-current").out == "agents/api\n"

    repository.inside("api", "echo b >a.txt && git commit -qam second && mv .git away", code=1)
    assert (place / "a.txt").read_text() == "b\n"
    assert list((place / ".git").iterdir()) == []
    session = repository.session("api")
    assert (session["workspace"], session["path"], session["dirty"], session["ahead"]) == (
        "visible",
        str(place),
        False,
        1,
    )
    repository.run("fetch", "api")
    assert git(repository.root, "log", "-1", "--format=%s", "agents/api") == "second"

    (place / "by-hand").write_text("from an editor\n")
    assert repository.inside("api", "cat by-hand").out == "from an editor\n"
    assert "by-hand" in prune(repository)
    (place / "by-hand").unlink()
    repository.run("prune", "--yes", "--idle", "0s")
    assert not place.exists()


def test_what_is_beside_the_checkout_in_a_session_directory_stays(repository: Repository, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    make(repository, f'visible = true, session_dir = "{chosen}"')
    assert Path(repository.run("path", "api").out.strip()) == chosen / "api"
    (chosen / "mine").write_text("keep\n")
    prune(repository)
    assert sorted(each.name for each in chosen.iterdir()) == [".sessionctl", "mine"]

    (chosen / "mine").unlink()
    make(repository, f'visible = true, session_dir = "{chosen}"')
    prune(repository)
    assert not chosen.exists()


def test_a_directory_that_holds_something_is_no_session_directory(repository: Repository, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / "mine").write_text("keep\n")
    declare(repository, f'visible = true, session_dir = "{chosen}"')
    assert "is not empty" in repository.apply("--allow-host", code=2).out
    declare(repository, f'visible = true, session_dir = "{repository.root / ".git" / "x"}"')
    assert "git directory" in repository.apply("--allow-host", code=2).out
    assert [each.name for each in chosen.iterdir()] == ["mine"]


def test_an_overlay_is_the_checkout_as_it_was(repository: Repository) -> None:
    root = repository.root
    (root / "a.txt").write_text("changed\n")
    (root / "src" / "main.py").unlink()
    (root / ".env").write_text("KEY=1\n")
    (root / "cache.log").write_text("ignored\n")
    (root / "link").symlink_to("/etc/hostname")
    os.mkfifo(root / "pipe")
    make(repository, 'mode = "overlay"')
    script = "cat a.txt .env cache.log; readlink link; ls src; test -e pipe || echo no pipe"
    seen = "changed\nKEY=1\nignored\n/etc/hostname\nno pipe\n"
    assert repository.inside("api", script).out == seen
    assert repository.session("api")["dirty"] is False

    (root / "a.txt").write_text("changed again\n")
    (root / ".env").unlink()
    assert repository.inside("api", script).out == seen
    repository.inside("api", "echo agent >cache.log; echo new >>.env")
    assert "cache.log" in repository.run("status", "api").out
    assert (root / "cache.log").read_text() == "ignored\n"
    assert "files that no commit holds" in prune(repository)


def test_an_overlay_in_which_nothing_was_changed_goes(repository: Repository) -> None:
    (repository.root / ".env").write_text("KEY=1\n")
    make(repository, 'mode = "overlay"')
    assert "done    api: remove" in prune(repository)
    assert (repository.root / ".env").read_text() == "KEY=1\n"


@pytest.mark.skipif(ROOT, reason="root's sandboxes cannot write root's checkout")
def test_a_bound_checkout_is_written_but_for_what_runs_on_the_host(repository: Repository) -> None:
    root = repository.root
    make(repository, 'mode = "bind"')
    assert repository.run("path", "api").out.strip() == str(root)
    repository.inside("api", "echo agent >a.txt; git status --short")
    assert (root / "a.txt").read_text() == "agent\n"
    for script in (
        "echo x >>.git/config",
        "touch .git/hooks/post-commit",
        "mv .git x",
        "echo x >>sessions.toml",
        "mv sessions.toml x",
    ):
        assert repository.inside("api", script, code=None).code  # type: ignore[arg-type]
    assert repository.session("api")["workspace"] == "bind"
    assert "done    api: remove" in prune(repository)
    assert (root / "a.txt").read_text() == "agent\n"
    assert git(root, "status", "--short", "a.txt") == "M a.txt"


@pytest.mark.skipif(not ROOT, reason="for root")
def test_root_cannot_bind_what_its_sandboxes_cannot_write(repository: Repository) -> None:
    declare(repository, 'mode = "bind"')
    assert "cannot write" in repository.apply("--allow-host", code=2).out


@pytest.mark.parametrize(
    "workspace", ['mode = "bind"', 'mode = "overlay"', 'mode = "worktree"', 'visible = true, session_dir = "../x"']
)
def test_what_reaches_the_host_is_asked_for(repository: Repository, workspace: str) -> None:
    declare(repository, workspace)
    if ROOT and "bind" in workspace:
        return
    assert "takes from the host" in repository.run("plan").out
    repository.apply(code=5)
    assert repository.session("api")["observed"] == "gone"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('mode = "clone"', "visible = true"),
        ("visible = true", 'mode = "clone"'),
        ("visible = true", 'visible = true, session_dir = "../other"'),
        ("visible = true", 'visible = true, history = "own"'),
        ('mode = "clone"', 'mode = "overlay"'),
    ],
)
def test_a_workspace_is_settled_when_it_is_made(repository: Repository, before: str, after: str) -> None:
    make(repository, before)
    repository.inside("api", "echo work >work")
    declare(repository, after)
    assert "settled when a session is made" in repository.apply("--allow-host", code=3).out
    assert repository.inside("api", "cat work").out == "work\n"
