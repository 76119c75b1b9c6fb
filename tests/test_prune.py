"""What `prune` takes and what it leaves alone, by the command, on real repositories; and why, before it asks."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

from sessionctl import Project, lifetime, merged
from sessionctl.errors import UsageError
from sessionctl.plan import Action, Lane, Policy
from tests import worlds
from tests.command import Repository, git
from tests.test_app import Clock

LINES = "".join(f"line {number}\n" for number in range(1, 21))
EDITS = (
    "sed -i 's/^line.3$/three/' f; git commit -qam one; "
    "sed -i 's/^line.17$/seventeen/' f; printf 'a\\0b' >bin; git add .; "
)


@pytest.fixture
def work(repository: Repository) -> Repository:
    """A repository with a session that has two commits, and whose block is gone."""
    worked(repository, "")
    return repository


def worked(repository: Repository, keys: str) -> None:
    """Makes a session with `keys`, has it make two commits, and takes its block away."""
    (repository.root / "f").write_text(LINES)
    git(repository.root, "add", "f")
    git(repository.root, "commit", "-qm", "lines")
    repository.declare(f"[sessions.api]\n{keys}")
    repository.apply()
    repository.inside("api", f"{EDITS} git commit -qm two")
    repository.declare("")


def on_host(repository: Repository, script: str) -> None:
    """Runs `script` in the repository; `edit` and `binary` are what the session did."""
    edit = "sed -i 's/^line.3$/three/;s/^line.17$/seventeen/' f; printf 'a\\0b' >bin; git add f bin"
    subprocess.run(["bash", "-euc", f"edit() {{ {edit}; }}\n{script}"], cwd=repository.root, check=True)


def said(repository: Repository, *args: str) -> str:
    """What a dry run says of session ``api``: why it stays, or what becomes of its files."""
    (change,) = repository.run("prune", "--dry-run", "--idle", "0s", "--json", *args).json["changes"]
    going = [action["reason"] for action in change["actions"] if action["verb"] in ("rescue", "delete")]
    return str(change["kept"] or going[0])


def asked(repository: Repository, *args: str) -> str:
    """What a person at a terminal reads before the question, who then says no."""
    terminal, other = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "sessionctl", "prune", "--idle", "0s", *args],
        cwd=repository.root,
        stdin=other,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        os.close(other)
        os.write(terminal, b"n\n")
        out, _ = running.communicate(timeout=60)
    os.close(terminal)
    return out.partition("Remove these?")[0]


# --- merged, one commit more, an ignored file --------------------------------------------------


def test_a_squash_merged_branch_is_prunable(work: Repository) -> None:
    assert "2 commits that no host branch" in said(work)
    on_host(work, "edit; git commit -qm squashed")
    why = f"2 commits merged as {work.head[:10]}: its files go to the trash"
    assert why in asked(work)
    assert "done    api: remove" in work.run("prune", "--yes", "--idle", "0s").out
    assert work.run("ls", "--json").json["sessions"] == []
    work.run("undo")
    assert work.inside("api", "git log --format=%s -2").out == "two\none\n"


def test_a_branch_with_one_unpushed_commit_is_not(work: Repository) -> None:
    on_host(work, "edit; git commit -qm squashed")
    work.inside("api", "echo more >>f; git commit -qam three")
    why = (
        "1 commit that no host branch, remote or fetched ref holds, "
        f"beside 2 that are merged as {work.head[:10]}: sessionctl fetch"
    )
    assert why in said(work)
    assert why in work.run("prune", "--yes", "--idle", "0s", "api", code=3).out
    work.run("fetch", "api")
    assert said(work) == "no file of its own, and the repository has its commits: its files go to the trash"


def test_env_keeps_its_session_alive(work: Repository) -> None:
    on_host(work, "edit; git commit -qm squashed")
    work.inside("api", "echo KEY=1 >.env")
    assert said(work) == "files that no commit holds: .env"
    work.run("prune", "--yes", "--idle", "0s", "api", code=3)
    assert work.inside("api", "cat .env").out == "KEY=1\n"


def test_the_reason_is_read_before_the_question(work: Repository) -> None:
    assert "kept: 2 commits that no host branch" in asked(work)
    work.inside("api", "echo KEY=1 >.env")
    assert "kept: files that no commit holds: .env" in asked(work)


# --- other forms -------------------------------------------------------------------------------

MERGED = {
    "squashed after others came": "sed -i 's/^line.9$/nine/' f; git commit -qam other; edit; git commit -qm squashed",
    "squashed before others came": "edit; git commit -qm squashed; sed -i 's/^line.9$/nine/' f; git commit -qam other",
    "rebased": "sed -i 's/^line.10$/ten/' f; git commit -qam other; sed -i 's/^line.3$/three/' f; git commit -qam 1;"
    " sed -i 's/^line.17$/seventeen/' f; printf 'a\\0b' >bin; git add f bin; git commit -qm 2",
    "the same files, by other commits": "sed -i 's/^line.17$/seventeen/' f; git commit -qam a;"
    " printf 'a\\0b' >bin; git add bin; git commit -qm b; sed -i 's/^line.3$/three/' f; git commit -qam c",
    "squashed, and taken back": "edit; git commit -qm squashed; git revert --no-edit HEAD >/dev/null",
    "squashed on another branch": "git switch -qc side; edit; git commit -qm squashed; git switch -q main",
}
NOT_MERGED = {
    "in part": "sed -i 's/^line.3$/three/' f; git commit -qam 1",
    "with another space": "edit; sed -i 's/three/three /' f; git add f; git commit -qm squashed",
    "with another binary": "edit; printf 'a\\0c' >bin; git add bin; git commit -qm squashed",
    "with another mode": "edit; chmod +x bin; git add bin; git commit -qm squashed",
    "with one file more": "edit; echo >new; git add new; git commit -qm squashed",
    "with a file of another name": "edit; git mv -f bin bim; git commit -qm squashed",
    "as a commit that no ref holds": "edit; git commit -qm squashed; git reset -q --hard HEAD~",
    "only its message": "git commit -q --allow-empty -m two",
}


@pytest.mark.parametrize("how", MERGED)
def test_merged(work: Repository, how: str) -> None:
    on_host(work, MERGED[how])
    assert said(work).startswith("no file of its own, 2 commits merged as ")


@pytest.mark.parametrize("how", NOT_MERGED)
def test_not_merged(work: Repository, how: str) -> None:
    on_host(work, NOT_MERGED[how])
    assert "that no host branch, remote or fetched ref holds" in said(work)


def test_a_history_of_its_own_is_compared_too(repository: Repository) -> None:
    worked(repository, 'workspace = { history = "own" }\n')
    on_host(repository, "edit; git commit -qm squashed")
    assert "2 commits merged as" in said(repository)


def test_a_branch_that_took_in_main_and_was_squashed(work: Repository) -> None:
    on_host(work, "sed -i 's/^line.10$/ten/' f; git commit -qam other")
    head = work.head
    work.inside("api", f"git merge -q -m merged {head}")
    on_host(work, "edit; git commit -qm squashed")
    assert "3 commits merged as" in said(work)


def test_what_was_amended_or_reset_away_goes_to_the_trash(work: Repository) -> None:
    away = "git commit -q --allow-empty -m away; git reset -q --hard HEAD~"
    work.inside("api", f"git commit -q --amend -m amended; {away}")
    on_host(work, "edit; git commit -qm squashed")
    assert "2 commits merged" in said(work)


def test_a_stash_below_another_keeps_its_session(work: Repository) -> None:
    on_host(work, "edit; git commit -qm squashed")
    work.inside("api", 'for n in 1 2; do echo $n >>f; GIT_COMMITTER_DATE="@$n +0000" git stash -q; done')
    # What was staged in each is nothing: the host has just that tree.
    assert said(work).startswith("2 commits that no host branch")
    work.inside("api", "git stash drop -q")
    assert said(work).startswith("1 commit that no host branch")


def test_too_much_to_compare_is_not_merged(work: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    on_host(work, "edit; git commit -qm squashed")
    cut = merged._CHANGES.replace(str(merged._LIMIT), "300")
    for changes in ({"MOST": 1}, {"_LIMIT": 300, "_CHANGES": cut}, {"_SINCE": 0}):
        with monkeypatch.context() as patch:
            for name, value in changes.items():
                patch.setattr(merged, name, value)
            (lane,) = Project(work.root).plan(policy=Policy(prune=True, idle=0)).lanes
        assert lane.kept.startswith("2 commits that no host branch")


@pytest.mark.parametrize(
    "attack",
    [
        "git config diff.external 'touch /tmp/owned; cat'; git config core.fsmonitor 'touch /tmp/owned'",
        "printf '* diff=x filter=x binary\\n' >.git/info/attributes; git config diff.x.textconv true;"
        " git config diff.x.command true",
        "git replace HEAD HEAD~2 2>/dev/null; git config diff.noprefix true; git config diff.context 0",
    ],
)
def test_nothing_of_the_sessions_configuration_makes_it_merged(work: Repository, attack: str) -> None:
    on_host(work, "edit; printf other >>bin; git add bin; git commit -qm nearly")
    work.inside("api", attack)
    assert "2 commits that no host branch" in said(work)
    on_host(work, "git reset -q --hard HEAD~; edit; git commit -qm squashed")
    assert "2 commits merged as" in said(work)


# --- homes, and what is kept of a session ------------------------------------------------------


def test_a_home_goes_to_the_trash_and_comes_back(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    repository.inside("api", "echo talk >~/conversation")
    repository.declare("")
    repository.run("prune", "--yes", "--idle", "0s")
    repository.run("undo")
    assert repository.inside("api", "cat ~/conversation").out == "talk\n"


def test_what_is_to_be_deleted_is_held_elsewhere_to_the_last_bit(work: Repository) -> None:
    work.declare('[sessions.api]\non_prune = "delete"\n')
    work.apply()
    work.declare("")
    on_host(work, "edit; git commit -qm squashed")
    assert "its commits are merged as" in said(work)
    work.run("fetch", "api")
    work.inside("api", "git commit -q --allow-empty -m away; git reset -q --hard HEAD~; echo talk >~/conversation")
    assert said(work).startswith("1 commit that no host branch")
    work.inside("api", "git reflog expire --expire=now --all; rm .git/ORIG_HEAD")
    assert said(work) == "its home holds ~/conversation, and nothing would be kept of that (on_prune is delete)"
    work.inside("api", "rm ~/conversation")
    assert said(work) == "no file of its own, and the repository has its commits: its files are deleted"
    work.run("prune", "--yes", "--idle", "0s")
    assert not (work.state / "sessions" / "api").exists()
    assert not (work.state / "snapshots" / "api").exists()
    assert work.run("undo", code=2).err
    assert json.loads(work.run("log", "--json").out.splitlines()[-1])["event"] == "prune"


def test_what_comes_home_before_it_is_deleted_keeps_a_session(repository: Repository) -> None:
    """Until its processes are ended they may write: all that was asked is asked again then, of the home too."""
    repository.declare('[sessions.api]\non_prune = "delete"\n')
    repository.apply()
    repository.declare("")
    opened = Project(repository.root)
    talk = repository.state / "sessions" / "api" / "home" / "talk"

    def told(lane: Lane, action: Action, result: str) -> None:
        if (action.verb, result) == ("stop", "done"):
            talk.write_text("talk\n")

    outcomes = opened.apply(opened.plan(policy=Policy(prune=True, idle=0)), on=told)
    (failed,) = [each for each in outcomes if each.result == "failed"]
    assert "its home holds ~/talk" in str(failed)
    assert talk.read_text() == "talk\n"


# --- time --------------------------------------------------------------------------------------


def project(repository: Repository, clock: Clock) -> Project:
    return Project(repository.root, clock=clock)


def applied(repository: Repository, clock: Clock, policy: Policy = Policy()) -> list[str]:  # noqa: B008
    """The verbs of what a plan made now does."""
    opened = project(repository, clock)
    plan = opened.plan(policy=policy)
    outcomes = opened.apply(plan)
    assert all(outcome.result == "done" for outcome in outcomes), outcomes
    return [action.verb for lane in plan.work for action in lane.actions]


def test_a_session_whose_ttl_is_over_may_be_pruned_and_is_made_anew(repository: Repository) -> None:
    clock, policy = Clock(), Policy(prune=True, idle=0)
    repository.declare('[sessions.api]\nttl = "1h"\n[sessions.dirty]\nttl = "1h"\n')
    applied(repository, clock)
    project(repository, clock).exec("dirty", ["touch", "new"])
    clock.now += 3599
    assert applied(repository, clock, policy) == []
    clock.now += 1
    assert applied(repository, clock) == []  # by itself nothing happens
    (api, dirty) = project(repository, clock).plan(policy=policy).lanes
    assert (api.change.reason, api.removes) == ("its ttl of 1h is over", True)
    assert dirty.kept == "files that no commit holds: new"
    assert applied(repository, clock, policy) == ["stop", "verify", "rescue", "forget"]
    assert applied(repository, clock) == ["prepare", "create", "record", "start"]
    assert applied(repository, clock, policy) == []


def test_a_changed_ttl_never_acts_backwards(repository: Repository) -> None:
    """alibaba/ROCK#1263: a changed setting shortened the deadlines of what ran already."""
    clock, policy = Clock(), Policy(prune=True, idle=0)
    repository.declare('[sessions.api]\nttl = "7d"\n')
    applied(repository, clock)
    clock.now += 3 * 86400
    repository.declare('[sessions.api]\nttl = "1d"\n')
    assert applied(repository, clock, policy) == []
    assert applied(repository, clock) == ["update", "record"]
    assert applied(repository, clock, policy) == []
    clock.now += 86400 - 1
    repository.declare('[sessions.api]\nttl = "1d"\ntitle = "another"\n')
    assert applied(repository, clock) == ["update", "record"]  # what is not the ttl does not move it
    assert applied(repository, clock, policy) == []
    clock.now += 1
    repository.declare('[sessions.api]\nttl = "2d"\n')
    assert applied(repository, clock, policy) == []  # its time was up, and a person has said otherwise
    repository.declare('[sessions.api]\nttl = "1d"\ntitle = "another"\n')
    assert "rescue" in applied(repository, clock, policy)


def test_a_session_that_is_not_used_is_stopped_by_the_next_apply_and_stays_so(repository: Repository) -> None:
    clock = Clock()
    repository.declare('[sessions.api]\nidle_stop = "1h"\n')
    applied(repository, clock)
    clock.now += 3000
    project(repository, clock).exec("api", ["true"])
    clock.now += 3599
    assert applied(repository, clock) == []
    clock.now += 1
    (lane,) = project(repository, clock).plan().work
    assert lane.change.reason == "unused for longer than its idle_stop of 1h"
    assert applied(repository, clock) == ["stop", "record"]
    assert applied(repository, clock) == []
    assert project(repository, clock).plan().in_sync
    assert project(repository, clock).start("api")
    assert applied(repository, clock) == []
    clock.now += 3600
    assert applied(repository, clock, Policy(prune=True)) == ["rest"]
    assert [event.event for event in project(repository, clock).log("api", last=1)] == ["stop"]


def test_what_runs_is_not_idle(repository: Repository) -> None:
    clock = Clock()
    repository.declare('[sessions.api]\nidle_stop = "1h"\n')
    applied(repository, clock)
    repository.inside("api", "sleep 1000 >/dev/null 2>&1 &")
    store = project(repository, clock).store
    record = store.record("api")
    assert record is not None
    store.save(record._replace(last_active=clock.now))  # the command was run by another clock
    clock.now += 7200
    assert applied(repository, clock) == []
    repository.inside("api", "pkill sleep; while pgrep sleep; do :; done")


def test_what_may_run_is_not_idle() -> None:
    """Nobody looked, or could: not known is not no."""
    kept = worlds.record(worlds.RESTS, idle_set=1.0)
    for busy in (None, True):
        assert lifetime.resting(worlds.RESTS.data, kept, worlds.sandbox(worlds.RESTS, busy=busy), worlds.NOW) == ""
    assert lifetime.resting(worlds.RESTS.data, kept, worlds.sandbox(worlds.RESTS, busy=False), worlds.NOW)


def test_a_changed_idle_stop_counts_from_when_it_was_applied(repository: Repository) -> None:
    clock = Clock()
    repository.declare('[sessions.api]\nidle_stop = "8h"\n')
    applied(repository, clock)
    clock.now += 7200
    repository.declare('[sessions.api]\nidle_stop = "1h"\n')
    assert applied(repository, clock) == ["update", "record"]
    assert applied(repository, clock) == []
    clock.now += 3600
    assert applied(repository, clock) == ["stop", "record"]


def test_hooks_stop_nothing(repository: Repository) -> None:
    clock = Clock()
    repository.declare('[sessions.api]\nidle_stop = "1h"\n')
    applied(repository, clock)
    clock.now += 3600
    assert applied(repository, clock, Policy(additive=True)) == []


def test_idle_must_be_said_and_is_no_less_than_nothing(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    repository.declare("")
    assert "idle is 10m" in repository.run("prune", "--yes").out
    for wrong in ("-1s", "0", "x"):
        repository.run("prune", f"--idle={wrong}", "--yes", code=2)
    with pytest.raises(UsageError, match="idle cannot be -1"):
        Project(repository.root).plan(policy=Policy(prune=True, idle=-1))
    assert repository.session("api")["observed"] == "running"


def test_what_is_kept_in_the_record_outlives_the_block(repository: Repository) -> None:
    clock = Clock()
    repository.declare('[sessions.api]\nttl = "1h"\nidle_stop = "1h"\non_prune = "delete"\n')
    applied(repository, clock)
    shown = repository.session("api")
    assert (shown["expires_at"], shown["idle_stop"]) == ("1970-01-12T14:46:40.000Z", "1h")
    repository.declare("")
    shown = repository.session("api")
    assert (shown["idle_stop"], shown["on_prune"]) == ("1h", "delete")
    assert "prune keeps nothing of it" in repository.run("status", "api").out
    clock.now += 3600
    assert applied(repository, clock, Policy(prune=True, idle=86400)) == ["rest"]
    assert applied(repository, clock, Policy(prune=True, idle=0)) == ["verify", "delete", "forget"]


@pytest.mark.parametrize("key", ["ttl", "idle_stop"])
@pytest.mark.parametrize("value", ['"0s"', '"-1s"', '"7"', "7", '"20y"', '"4000d"'])
def test_a_duration_that_is_none_is_refused(repository: Repository, key: str, value: str) -> None:
    repository.declare(f"[sessions.api]\n{key} = {value}\n")
    assert f"sessions.toml:3: sessions.api.{key}: " in repository.run("validate", code=2).err


def test_a_session_says_what_defaults_say_unless_it_says_otherwise(repository: Repository) -> None:
    repository.declare(
        '[defaults]\nttl = "30d"\n[sessions.api]\nidle_stop = "2h30m"\non_prune = "snapshot"\nttl = ""\n'
    )
    shown = repository.run("show", "api", "--json").json
    assert [shown[key]["value"] for key in ("ttl", "idle_stop", "on_prune")] == ["", "2h30m", "snapshot"]
