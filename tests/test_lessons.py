"""What users of other tools lost: each a test with the same shape, or, in docs/lessons.md, the test that holds it."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import subprocess
import sys

from sessionctl.diff import diff
from sessionctl.model import Digests, Record, World
from sessionctl.store import Store
from tests.command import Repository, git
from tests.pages import ROOT, known_tests
from tests.worlds import NAME, A, sandbox


def test_every_lesson_names_tests_that_there_are() -> None:
    rows = [
        line.split("|")[1:-1] for line in (ROOT / "docs" / "lessons.md").read_text().splitlines() if line[:3] == "| L"
    ]
    assert [row[0].strip() for row in rows] == [f"L{number}" for number in range(1, len(rows) + 1)]
    there = known_tests()
    for number, lesson, promise, tests in rows:
        named = set(re.findall(r"`(test_[\w.]+)`", tests))
        assert lesson.strip() and promise.strip() and named, number
        assert named <= there, (number, named - there)
    here = {name for name in there if name.startswith("test_lessons.test_")}
    page = (ROOT / "docs" / "lessons.md").read_text()
    assert [name for name in here if name not in page] == ["test_lessons.test_every_lesson_names_tests_that_there_are"]


# --- clean-up ----------------------------------------------------------------------------------


def pruned(repository: Repository) -> str:
    """What an unconditional prune says of the session that stays; the session is still there, with its work."""
    said = repository.run("prune", "--yes", "--idle", "0s").out
    assert (repository.state / "sessions" / "api" / "work").exists(), said
    return said


def test_a_clean_up_deletes_no_branch(done: Repository) -> None:
    """anthropics/claude-code#38287, #27753, #79899."""
    done.inside("api", "git commit -q --allow-empty -m unpushed")
    assert "commit" in pruned(done)
    done.run("fetch", "api")
    tips = git(done.root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/sessionctl/*/heads")
    done.run("prune", "--yes", "--idle", "0s")
    assert not (done.state / "sessions" / "api").exists()
    kept = git(done.root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/sessionctl/*/heads")
    assert kept == tips


def test_an_untracked_file_that_git_was_told_not_to_show_keeps_its_session(done: Repository) -> None:
    """anthropics/claude-code#35862."""
    done.inside("api", "git config status.showUntrackedFiles no; echo idea > idea; git status --porcelain")
    assert "idea" in pruned(done)


def test_an_ignored_env_file_keeps_its_session(done: Repository) -> None:
    """vitali87/croft#449."""
    done.inside("api", "echo KEY=1 > .env; git status --porcelain")
    assert ".env" in pruned(done)


def test_a_detached_head_with_a_commit_of_its_own_is_not_swept(done: Repository) -> None:
    """anthropics/claude-code#74719; pruning by age alone, container-use."""
    done.inside("api", "git checkout -q --detach; git commit -q --allow-empty -m detached")
    assert "commit" in pruned(done)


def test_a_session_that_was_just_used_is_not_taken(done: Repository) -> None:
    """anthropics/claude-code#78350: three seconds after its last command."""
    done.inside("api", "true")
    assert "api" in done.run("prune", "--dry-run").out
    done.run("prune", "--yes")
    assert done.session("api")["observed"] == "running"


def test_a_session_that_cannot_be_read_is_kept_and_nothing_is_forced(done: Repository) -> None:
    """anthropics/claude-code#58885: what git refused to remove was removed with rm."""
    done.inside("api", "rm -rf .git; echo ruined > .git")
    pruned(done)
    assert (done.state / "sessions" / "api" / "work" / "upper" / "work").read_text() == "work\n"


def test_a_prune_leaves_the_repository_as_it_was(done: Repository) -> None:
    """BloopAI/vibe-kanban#3406: it was wiped with the workspace."""
    (done.root / "mine").write_text("mine\n")
    before = done.files(done.root / "src", done.root / ".git" / "refs" / "heads")
    status, head = git(done.root, "status", "--porcelain"), done.head
    done.run("prune", "--yes", "--idle", "0s")
    assert not (done.state / "sessions" / "api").exists()
    assert done.files(done.root / "src", done.root / ".git" / "refs" / "heads") == before
    assert (git(done.root, "status", "--porcelain"), done.head) == (status, head)


def test_the_reason_is_shown_before_the_question(done: Repository) -> None:
    """docker/sbx-releases#562: the warning came after the approval."""
    outer, inner = pty.openpty()
    command = [sys.executable, "-m", "sessionctl", "prune", "--idle", "0s"]
    with subprocess.Popen(command, cwd=done.root, stdin=inner, stdout=inner, stderr=inner) as asked:
        os.close(inner)
        said = b""
        while b"Remove these?" not in said:
            said += os.read(outer, 4096)
        assert b"api" in said and b"not declared" in said
        assert (done.state / "sessions" / "api").exists()
        os.write(outer, b"n\n")
        asked.wait(60)
    os.close(outer)
    assert asked.returncode == 1
    assert done.session("api")["observed"] == "running"


def test_work_that_is_safe_goes_without_a_warning(repository: Repository) -> None:
    """anthropics/claude-code#90692, and the opposite pain, StefanMaron/BusinessCentral.AL.Runner#3232."""
    repository.declare("[sessions.s]\ncount = 4\n")
    repository.apply()
    for number in range(1, 5):
        repository.inside(f"s-{number}", f"echo {number} > work; git add work; git commit -qm {number}")
        repository.run("fetch", f"s-{number}")
    repository.declare("")
    said = repository.run("prune", "--dry-run", "--idle", "0s").out
    assert "4 to remove" in said
    assert "!" not in said


# --- records -----------------------------------------------------------------------------------


def test_a_record_that_is_lost_is_made_again_and_work_goes_on(done: Repository) -> None:
    """docker/sbx-releases#353: the container stayed, and there was no way to it or out."""
    done.declare("[sessions.api]\n")
    Store(done.state).forget("api")
    done.apply()
    assert done.inside("api", "cat work; git log -1 --format=%s").out == "work\nwork\n"
    done.run("plan", "--exit-code")


def test_a_removal_that_fails_forgets_nothing(done: Repository) -> None:
    """devctk: the state was dropped although the deletion had failed."""
    (done.state / "snapshots").write_text("in the way\n")
    said = done.run("prune", "--yes", "--idle", "0s", code=None)
    assert said.code == 1, said
    (done.state / "snapshots").unlink()
    assert done.session("api")["observed"] in ("running", "stopped")
    assert (done.state / "sessions" / "api" / "work" / "upper" / "work").read_text() == "work\n"
    done.run("prune", "--yes", "--idle", "0s")
    assert not (done.state / "sessions" / "api").exists()


# --- reconcilers -------------------------------------------------------------------------------


def test_an_upgrade_that_hashes_differently_replaces_nothing() -> None:
    """docker/compose#11335, #9600."""
    old = A._replace(digests=Digests("0" * 64, "0" * 64, "0" * 64, 0))
    record = Record(NAME, "1", "bubblewrap", old)
    (change,) = diff({NAME: A}, World((sandbox(old),), {NAME: record}))
    assert change.kind in ("update", "record", "keep")


# --- snapshots and resume ----------------------------------------------------------------------


def test_what_was_written_a_moment_ago_is_in_the_snapshot(done: Repository) -> None:
    """opensandbox-group/OpenSandbox#1831, e2b-dev/E2B#1104: a copy without a flush left recent files out."""
    digest = done.inside("api", "head -c 5000000 /dev/urandom | tee big | sha256sum").out.split()[0]
    taken = done.run("snapshot", "api", "--json").json["id"]
    kept = done.state / "snapshots" / "api" / taken / "work" / "upper" / "big"
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == digest


def test_a_session_whose_files_are_gone_works_nowhere_else(done: Repository) -> None:
    """imbue-ai/mngr PR#1309: without its worktree an agent went on in $HOME."""
    done.run("stop", "api")
    (done.state / "sessions" / "api" / "work").rename(done.state / "elsewhere")
    said = done.run("exec", "api", "--", "sh", "-c", "pwd; touch here", code=None)
    assert said.code == 125 and said.out == ""
    assert done.run("start", "api", code=None).code != 0
    (done.state / "elsewhere").rename(done.state / "sessions" / "api" / "work")
    done.run("start", "api")
    assert done.inside("api", "cat work").out == "work\n"


def test_a_restore_is_not_skipped_because_a_sandbox_is_there(done: Repository) -> None:
    """agentkernel: a resume ignored the snapshot when a sandbox still existed."""
    done.run("snapshot", "api")
    done.inside("api", "echo changed > work; sleep 1000 >/dev/null 2>&1 &")
    done.run("restore", "api", "--yes")
    assert done.inside("api", "cat work; pgrep sleep || echo none").out == "work\nnone\n"
