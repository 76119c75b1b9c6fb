"""A worktree or a clone that exists becomes a session: all of its work, and nothing of it touched."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from sessionctl.store import Store
from tests.command import Repository, git

Kind = str


def made(repository: Repository, kind: Kind) -> Path:
    """A worktree or a clone, in which something of every kind was done."""
    place = repository.root.parent / "beside"
    if kind == "worktree":
        git(repository.root, "worktree", "add", "-q", "-b", "fix/crash", str(place))
    else:
        git(repository.root.parent, "clone", "-q", str(repository.root), str(place))
        git(place, "switch", "-q", "-c", "fix/crash")
    (place / "committed").write_text("committed\n")
    (place / "gone").write_text("gone\n")
    (place / "unlisted").write_text("unlisted\n")
    git(place, "add", "-A")
    git(place, "commit", "-qm", "work of its own")
    (place / "staged").write_text("staged\n")
    (place / "both").write_text("staged first\n")
    git(place, "add", "staged", "both")
    (place / "both").write_text("changed after\n")
    (place / "a.txt").write_text("changed\n")
    (place / "untracked dir").mkdir()
    (place / "untracked dir" / "ünï\n").write_text("untracked\n")
    (place / ".env").write_text("IGNORED=1\n")
    (place / "link").symlink_to("/etc/hostname")
    (place / "run").write_text("#!/bin/sh\n")
    (place / "run").chmod(0o755)
    (place / "gone").unlink()
    git(place, "rm", "-q", "--cached", "unlisted")
    return place


def told(place: Path) -> str:
    return git(place, "status", "--porcelain=v1", "-z", "--untracked-files=all", "--ignored")


@pytest.mark.parametrize("kind", ["worktree", "clone"])
def test_all_of_its_work_is_there_and_it_is_not_touched(repository: Repository, kind: Kind) -> None:
    place = made(repository, kind)
    wanted, commit = told(place), git(place, "rev-parse", "HEAD")
    before = repository.files(place)
    repository.declare("")
    said = repository.run("adopt", "fix", str(place))
    assert repository.files(place) == before
    assert "the original is as it was" in said.out and "sessionctl add fix" in said.out
    shutil.rmtree(place)  # it stands on nothing of it
    git(repository.root, "worktree", "prune")

    shown = repository.session("fix")
    assert (shown["observed"], shown["branch"], shown["commit"]) == ("stopped", "agents/fix", commit)
    assert shown["dirty"] is True
    repository.run("start", "fix")
    assert (
        repository.inside("fix", "git status --porcelain=v1 -z --untracked-files=all --ignored").out.strip() == wanted
    )
    assert repository.inside("fix", "git show :both; cat both a.txt .env; readlink link; test -x run").out == (
        "staged first\nchanged after\nchanged\nIGNORED=1\n/etc/hostname\n"
    )
    repository.inside("fix", "git fsck --strict && git commit -qm 'what was staged' && git log --oneline | wc -l")
    repository.run("fetch", "fix")
    assert git(repository.root, "show", "agents/fix:both") == "staged first"

    repository.run("add", "fix")
    repository.apply()
    assert repository.inside("fix", "cat .env").out == "IGNORED=1\n"
    assert repository.run("plan", "--exit-code").out.startswith("In sync")


def test_one_that_is_declared_goes_on_as_declared(repository: Repository) -> None:
    place = made(repository, "worktree")
    repository.declare(
        '[sessions.fix]\nsetup = ["echo set up > ~/done"]\nworkspace = { branch = "topic", history = "own" }\n'
    )
    assert repository.run("adopt", "fix", str(place)).out.endswith("next: sessionctl apply\n")
    repository.apply()
    assert repository.inside("fix", "cat ~/done; git branch --show-current; git show :both").out == (
        "set up\ntopic\nstaged first\n"
    )
    assert repository.run("plan", "--exit-code").out.startswith("In sync")


def test_its_time_runs_from_when_it_was_taken_on(repository: Repository) -> None:
    place = made(repository, "worktree")
    repository.declare('[sessions.fix]\nttl = "1h"\nidle_stop = "30m"\n')
    repository.run("adopt", "fix", str(place))
    record = Store(str(repository.state)).record("fix")
    assert record is not None
    assert (record.expires_at, record.idle_set) == (record.created_at + 3600, record.created_at)


def test_its_work_counts_as_work(repository: Repository) -> None:
    """What was copied is the session's: once the original is gone, nobody else has it."""
    place = made(repository, "clone")
    repository.declare("")
    repository.run("adopt", "fix", str(place))
    shutil.rmtree(place)
    said = repository.run("prune", "--yes", "--idle", "0s", code=None)
    assert "fix" in said.out and repository.session("fix")["observed"] == "stopped"


def test_what_only_a_clone_has_is_named(repository: Repository) -> None:
    place = made(repository, "clone")
    git(place, "stash", "-q")
    git(place, "switch", "-qc", "other")
    git(place, "commit", "-q", "--allow-empty", "-m", "elsewhere")
    git(place, "switch", "-q", "fix/crash")
    repository.declare("")
    said = repository.run("adopt", "fix", str(place))
    assert "only the original has branch other, stashed changes" in said.err


def test_nothing_that_the_checkout_says_is_run(repository: Repository) -> None:
    place = made(repository, "clone")
    trap = repository.root.parent / "sprung"
    for key in ("core.fsmonitor", "filter.x.clean", "filter.x.process", "diff.external", "uploadpack.packObjectsHook"):
        git(place, "config", key, f"touch {trap}")
    (place / ".gitattributes").write_text("* filter=x\n")
    hook = place / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {trap}\n")
    hook.chmod(0o755)
    repository.declare("")
    repository.run("adopt", "fix", str(place))
    assert not trap.exists()


def test_what_is_not_clear_is_listed_and_left(repository: Repository) -> None:
    place = made(repository, "clone")
    git(place, "commit", "-qm", "one")
    git(place, "switch", "-qfc", "side", "HEAD~2")
    (place / "a.txt").write_text("side\n")
    git(place, "commit", "-qam", "two")
    os.system(f"git -C '{place}' merge -q fix/crash >/dev/null 2>&1; echo x > '{place}/.git/MERGE_HEAD'")
    stranger = repository.root.parent / "stranger"
    Repository(stranger)
    (stranger / "own").write_text("own")
    git(stranger, "add", "-A")
    git(stranger, "commit", "-q", "--amend", "-m", "its own beginning")
    repository.declare("")
    before = repository.files(place, stranger)
    for words, code, why in (
        ((str(place),), 3, "a merge is under way"),
        ((str(stranger),), 3, "no commit in common"),
        ((str(place / "src"),), 2, "is a part of the checkout"),
        ((str(repository.root.parent),), 1, "no git repository"),
        ((os.environ["SESSIONCTL_STATE_DIR"],), 2, "the state directory"),
        ((str(place / "nothing"),), 1, "is not a directory"),
    ):
        assert why in repository.run("adopt", "fix", *words, code=code).err
    assert repository.files(place, stranger) == before
    assert repository.run("ls", "--all", "--json").json["sessions"] == []


def test_what_is_there_is_not_written_over(repository: Repository) -> None:
    place = made(repository, "worktree")
    repository.declare('[sessions.fix]\n[sessions.bound]\nworkspace = { mode = "empty" }\n')
    repository.apply("fix")
    assert "there is a session fix already" in repository.run("adopt", "fix", str(place), code=2).err
    assert "another mode than clone (empty)" in repository.run("adopt", "bound", str(place), code=2).err
    assert repository.inside("fix", "ls").out == "a.txt\nsrc\n"
