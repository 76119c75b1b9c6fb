"""What a command took away comes back by the command that the log names.

After `prune`: test_keeping, too; after a replace, which takes what was installed over an image: test_image_sessions.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sessionctl import trees
from tests.command import Repository, undo_of
from tests.test_keeping import listed, snapshot, state, work


@pytest.fixture
def api(repository: Repository) -> Repository:
    repository.declare("# mine\n[sessions.api]\n")
    repository.apply()
    work(repository, "one")
    return repository


def test_undo_after_restore_and_undo_of_that(api: Repository) -> None:
    one = state(api)
    snapshot(api)
    work(api, "two")
    two = state(api)
    api.run("restore", "api", "--yes")
    api.run(*undo_of(api, "restore"))
    assert state(api) == two
    api.run(*undo_of(api, "restore"))
    assert state(api) == one


def test_undo_after_rename(api: Repository) -> None:
    before, record = state(api), api.session("api")
    manifest = (api.root / "sessions.toml").read_text()
    api.run("rename", "api", "web")
    assert not (api.state / "sessions" / "api").exists()
    api.run("undo")
    assert state(api) == before
    assert (api.root / "sessions.toml").read_text() == manifest
    again = api.session("api")
    for key in ("observed", "branch", "commit", "base", "created_at", "declared"):
        assert again[key] == record[key]
    api.run("plan", "--exit-code")


def test_undo_after_discard_by_what_the_log_says(api: Repository) -> None:
    taken = snapshot(api)
    api.run("discard", "api", taken)
    api.run(*undo_of(api, "discard"))
    assert [each["id"] for each in listed(api, "api")] == [taken]
    api.run("restore", "api", "--yes")


def test_undo_after_prune_of_a_checkout_in_a_directory_of_the_users(repository: Repository, tmp_path: Path) -> None:
    """It was deleted, and nothing could be brought back: the rescue held the rest of the session only."""
    chosen = tmp_path / "chosen"
    repository.declare(f'[sessions.api]\nworkspace = {{ visible = true, session_dir = "{chosen}" }}\n')
    repository.apply("--allow-host")
    repository.inside("api", "mkdir d; echo work > d/work; ln -s work d/link; git add d; git commit -qm work")
    repository.run("fetch", "api")
    before = trees.measure(str(chosen / "api"))
    repository.declare("")
    repository.run("prune", "--yes", "--idle", "0s")
    assert not chosen.exists()
    repository.run(*undo_of(repository, "prune"))
    back = Path(repository.run("path", "api").out.strip())
    assert trees.measure(str(back)) == before
    assert repository.inside("api", "cat d/link; git log -1 --format=%s; git status --short").out == "work\nwork\n"
    repository.run("prune", "--yes", "--idle", "0s")
    repository.run("undo")
    assert trees.measure(repository.run("path", "api").out.strip()) == before


def test_a_renamed_session_keeps_the_directory_that_a_user_named(repository: Repository, tmp_path: Path) -> None:
    """A new sandbox of it could not be made any more, and what it had there was nobody's."""
    chosen = tmp_path / "chosen"
    workspace = f'workspace = {{ visible = true, session_dir = "{chosen}" }}\n'
    repository.declare(f"[sessions.api]\n{workspace}")
    repository.apply("--allow-host")
    repository.run("rename", "api", "web")
    place = repository.run("path", "web").out
    repository.declare(f'[sessions.web]\nsetup = ["true"]\n{workspace}')
    repository.apply("--allow-host")
    assert repository.run("path", "web").out == place
    repository.inside("web", "git log -1 --format=%s")
    repository.declare("")
    repository.run("prune", "--yes", "--idle", "0s")
    assert not chosen.exists()


def test_a_restore_that_was_refused_is_nothing_to_undo(api: Repository) -> None:
    """It was the last operation: `undo` undid that, said that nothing was taken away, and brought nothing back."""
    snapshot(api)
    api.run("restore", "api", "--yes", "--only", "agent")
    (rescue,) = [each["id"] for each in listed(api, "--all", "api") if each["by"] == "rescue"]
    api.inside("api", "git add -A -f; git commit -qm all; rm -rf ~/*")
    api.run("fetch", "api")
    api.declare("")
    api.run("prune", "--yes", "--idle", "0s")
    assert not (api.state / "sessions" / "api").exists()
    said = api.run("restore", "api", rescue, "--yes", code=2).err
    assert "api has no workspace, and none is brought back" in said
    api.run("undo")
    assert (api.state / "sessions" / "api" / "work" / "upper" / "untracked").read_text() == "one\n"
