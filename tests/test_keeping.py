"""Nothing is ever lost: snapshots, restore, fork, discard and undo, also when they are killed half-way."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from sessionctl import trees
from tests.command import Repository
from tests.leftovers import Watch
from tests.test_crash import calm, killed, moments, upper, watch

__all__ = ["watch"]


@pytest.fixture
def api(repository: Repository) -> Repository:
    """A repository with a session that has worked: changed, removed, untracked and ignored files, and a home."""
    repository.declare("[sessions.api]\n")
    repository.apply()
    work(repository, "one")
    return repository


def work(repository: Repository, text: str, name: str = "api") -> None:
    script = f"""
        echo {text} > staged; git add staged; echo {text} >> src/main.py; rm -f a.txt
        echo {text} > untracked; echo {text} > .env; echo {text} > ~/conversation; git stash list
        git commit -qm {text} --allow-empty; git branch -f side-{text}
    """
    repository.inside(name, script)


def state(repository: Repository, name: str = "api") -> tuple[trees.Measure, trees.Measure]:
    """Every byte of the session's own files."""
    files = repository.state / "sessions" / name
    return trees.measure(str(files / "work" / "upper")), trees.measure(str(files / "home"))


def snapshot(repository: Repository, *args: str) -> str:
    return str(repository.run("snapshot", "api", "--json", *args).json["id"])


def listed(repository: Repository, *args: str) -> list[dict[str, Any]]:
    return list(repository.run("snapshots", "--json", *args).json["snapshots"])


# --- taking and bringing back ------------------------------------------------------------------


def test_a_snapshot_brings_every_byte_back(api: Repository) -> None:
    before = state(api)
    taken = snapshot(api, "-m", "one")
    work(api, "two")
    changed = state(api)
    assert changed != before
    api.run("restore", "api", "--yes")
    assert state(api) == before
    assert api.inside("api", "git log -1 --format=%s; cat untracked .env ~/conversation").out == "one\none\none\none\n"
    assert api.run("plan", "--exit-code").out  # in sync
    (rescue,) = [each for each in listed(api, "--all", "api") if each["by"] == "rescue"]
    api.run("restore", "api", rescue["id"], "--yes")
    assert state(api) == changed
    api.run("restore", "api", taken.rpartition("-")[2], "--yes")
    assert state(api) == before


def test_a_second_resume_loses_nothing(api: Repository) -> None:
    """e2b-dev/E2B#884: what was done after the first restore was gone after the second."""
    snapshot(api)
    for text in ("two", "three"):
        work(api, text)
        done = state(api)
        api.run("restore", "api", "--yes")
        api.run("undo")
        assert state(api) == done


def test_snapshots_do_not_overwrite_each_other(api: Repository) -> None:
    """Snapshots named after the day did: agentkernel."""
    ids = [snapshot(api) for _ in range(5)]
    assert [each["id"] for each in listed(api, "api")] == ids
    assert len(set(ids)) == 5


def test_the_latest_that_a_person_made_is_meant(api: Repository) -> None:
    wanted = state(api)
    snapshot(api)
    work(api, "two")
    api.run("restore", "api", "--yes")  # leaves a rescue that is newer
    work(api, "three")
    api.run("restore", "api", "--yes")
    assert state(api) == wanted


def test_a_stopped_session_is_restored_and_stays_stopped(api: Repository) -> None:
    before = state(api)
    api.run("stop", "api")
    snapshot(api)
    api.run("start", "api")
    work(api, "two")
    api.run("stop", "api")
    api.run("restore", "api", "--yes")
    assert state(api) == before
    assert api.session("api")["observed"] == "stopped"


def test_only_one_part_is_brought_back(api: Repository) -> None:
    files, home = state(api)
    snapshot(api)
    work(api, "two")
    changed = state(api)
    api.run("restore", "api", "--yes", "--only", "agent")
    assert state(api) == (changed[0], home)
    api.run("restore", "api", "--yes", "--only", "workspace")
    assert state(api) == (files, home)
    said = api.run("restore", "api", "--yes", "--only", "sandbox", code=2).err
    assert "holds workspace, agent and nothing else" in said


def test_processes_are_paused_while_files_are_copied(api: Repository) -> None:
    api.inside("api", "for i in $(seq 400); do mkdir -p d$i; done")
    writer = "while :; do n=$((n+1)); for i in 1 100 200 300 400; do echo $n > t; mv t d$i/f; done; done"
    api.inside("api", f"setsid sh -c '{writer}' >/dev/null 2>&1 & while [ ! -e d400/f ]; do :; done")
    taken = snapshot(api)
    copy = api.state / "snapshots" / "api" / taken / "work" / "upper"
    numbers = [int((copy / f"d{i}" / "f").read_text()) for i in (1, 100, 200, 300, 400)]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] - numbers[-1] <= 1
    last = int(api.inside("api", "cat d1/f; sleep 0.05").out)
    assert int(api.inside("api", "cat d1/f").out) > last, "it does not go on"


def test_a_command_quietens_the_session_or_there_is_no_snapshot(api: Repository) -> None:
    taken = snapshot(api, "--quiesce", "echo done > quiet")
    assert (api.state / "snapshots" / "api" / taken / "work" / "upper" / "quiet").read_text() == "done\n"
    said = api.run("snapshot", "api", "--quiesce", "echo why >&2; exit 7", code=1).err
    assert "exit code 7" in said
    assert "why" in said
    assert [each["id"] for each in listed(api, "api")] == [taken]


def test_a_snapshot_that_rotted_is_refused_and_nothing_is_changed(api: Repository) -> None:
    taken = snapshot(api)
    copy = api.state / "snapshots" / "api" / taken / "work" / "upper" / "untracked"
    info = copy.stat()
    copy.write_text("eno\n")
    os.utime(copy, ns=(info.st_atime_ns, info.st_mtime_ns))
    work(api, "two")
    before = state(api)
    assert "is not what it was when it was made" in api.run("restore", "api", "--yes", code=1).err
    assert state(api) == before
    assert api.session("api")["observed"] == "running"


def test_one_damaged_snapshot_hides_no_other(api: Repository) -> None:
    first, second = snapshot(api), snapshot(api)
    (api.state / "snapshots" / "api" / first / "snapshot.json").write_text("{")
    found = {each["id"]: each["corrupt"] for each in listed(api, "api")}
    assert found[first]
    assert found[second] is None
    assert "cannot be used" in api.run("restore", "api", first, "--yes", code=1).err
    api.run("restore", "api", "--yes")


def test_a_damaged_snapshot_can_be_given_up_and_then_hinders_nothing(api: Repository) -> None:
    id = snapshot(api)
    where = api.state / "snapshots" / "api" / id
    (where / "snapshot.json").write_text("{")
    said = api.run("restore", "api", id, "--yes", code=1).err
    assert str(where) in said and f"sessionctl discard api {id}" in said
    assert f"sessionctl discard api {id}" in api.run("gc", "--dry-run", code=3).out
    said = api.run("discard", "api", id).out
    assert "it is damaged" in said
    assert (where / "work").is_dir()  # as it is
    assert listed(api, "api") == []
    assert "nothing to remove" in api.run("gc", "--dry-run").out
    api.run("undo")
    assert [each["id"] for each in listed(api, "api")] == [id]
    api.run("gc", "--dry-run", code=3)


def test_undo_does_not_call_it_done_when_what_was_kept_is_damaged(api: Repository) -> None:
    snapshot(api)
    api.inside("api", "echo now >a.txt")
    operation = api.run("restore", "api", "--yes").out.split()[-1]
    (rescue,) = [each["id"] for each in listed(api, "api", "--all") if each["operation"] == operation]
    (api.state / "snapshots" / "api" / rescue / "snapshot.json").write_text("{")
    said = api.run("undo", operation, code=1).out
    assert f"not brought back: snapshot {rescue} may be what was kept of it" in said
    (event,) = api.run("undo", "--list", "--json").json["operations"]
    assert event["undone"] is None


def test_what_is_not_there_is_named(api: Repository) -> None:
    assert "no snapshot that a person made" in api.run("restore", "api", "--yes", code=2).err
    snapshot(api)
    assert "no snapshot '12345678'" in api.run("restore", "api", "12345678", "--yes", code=2).err
    assert "did you mean api" in api.run("snapshots", "apii", code=2).err
    assert "nothing was done that can be undone" in api.run("undo", code=2).err
    assert "there is nobody to ask" in api.run("restore", "api", code=2).err


# --- forking -----------------------------------------------------------------------------------


def test_a_fork_is_a_copy_on_a_branch_of_its_own(api: Repository) -> None:
    before = state(api)
    api.run("fork", "api", "try")
    assert api.inside(
        "try", "git branch --show-current; git log -1 --format=%s; cat untracked .env ~/conversation"
    ).out == ("agents/try\none\none\none\none\n")
    work(api, "two", "try")
    assert state(api) == before
    shown = api.session("try")
    assert (shown["parent"], shown["declared"], shown["observed"]) == ("api", False, "running")
    assert "there is a session try already" in api.run("fork", "api", "try", code=2).err
    api.run("plan", "--exit-code")


def test_a_fork_of_a_snapshot(api: Repository) -> None:
    taken = snapshot(api)
    work(api, "two")
    api.run("fork", "api", "try", "--from", taken)
    assert api.inside("try", "cat untracked ~/conversation; git log -1 --format=%s").out == "one\none\none\n"


@pytest.mark.parametrize("mode", ["clone", "empty"])
def test_what_has_no_workspace_is_not_forked(repository: Repository, watch: Watch, mode: str) -> None:
    """The fork had a home and a sandbox on files that were not there; whoever cleaned up next left it with neither."""
    repository.declare(f'[sessions.api]\nstate = "stopped"\nworkspace = {{ mode = "{mode}" }}\n')
    repository.apply()
    snapshot(repository)
    repository.run("restore", "api", "--yes", "--only", "agent")
    (rescue,) = [each["id"] for each in listed(repository, "--all", "api") if each["by"] == "rescue"]
    said = repository.run("fork", "--from", rescue, "api", "try", code=2).err
    assert f"snapshot {rescue} holds the agent of api, and no workspace to fork" in said
    calm("apply", "--yes")
    assert watch.strays(repository) == []
    assert [each["name"] for each in repository.run("ls", "--all", "--json").json["sessions"]] == ["api"]


def test_a_declared_parent_is_made_first_and_copied(repository: Repository) -> None:
    repository.declare(
        '[sessions.a]\nparent = "m"\n[sessions.m]\nparent = "z"\n[sessions.z]\nsetup = ["echo done > made"]\n'
    )
    repository.apply("--jobs", "1")
    assert repository.inside("a", "cat made; git branch --show-current").out == "done\nagents/a\n"
    repository.run("plan", "--exit-code")
    repository.declare(
        '[sessions.a]\nparent = "z"\n[sessions.z]\n[sessions.b]\nparent = "c"\n[sessions.c]\nparent = "b"\n'
    )
    said = repository.run("plan", code=2)
    assert "leads in a circle" in said.out + said.err
    repository.declare('[sessions.n]\nparent = "nobody"\n')
    said = repository.run("plan", code=2)
    assert "there is no session nobody" in said.out + said.err


# --- undoing -----------------------------------------------------------------------------------


def events(repository: Repository) -> list[dict[str, Any]]:
    return [json.loads(line) for line in repository.run("log", "--json").out.splitlines()]


def test_undo_after_prune(done: Repository) -> None:
    before, record = state(done), done.session("api")
    done.run("prune", "--yes", "--idle", "0s")
    assert not (done.state / "sessions" / "api").exists()
    (event,) = [each for each in events(done) if each["event"] == "prune"]
    assert event["undo"].startswith("sessionctl undo ")
    done.run(*event["undo"].split()[1:])
    assert state(done) == before
    again = done.session("api")
    for key in ("observed", "branch", "commit", "base", "created_at", "declared"):
        assert again[key] == record[key]
    assert "was undone already" in done.run("undo", event["undo"].split()[2], code=2).err
    done.declare("[sessions.api]\n")
    done.apply()
    assert state(done) == before


def test_undo_says_what_it_cannot(done: Repository) -> None:
    done.run("prune", "--yes", "--idle", "0s")
    done.declare("[sessions.api]\n")
    done.apply()
    work(done, "two")
    before = state(done)
    said = done.run("undo", code=1).out
    assert "there is a session of that name again" in said
    assert state(done) == before


def test_killed_while_a_session_is_pruned_and_undo_brings_it_back(done: Repository, watch: Watch) -> None:
    before = state(done)
    for moment in moments(9):
        came = killed(moment, "prune")
        print(f"prune: killed at {moment}: {came}")
        if done.run("undo", "--list", "--json").json["operations"]:
            done.run("undo", code=None)
        if upper(done).exists():
            assert state(done) == before
        calm("apply", "--yes")
        assert watch.strays(done) == []
        calm("start", "api")
        assert state(done) == before
        if not came:
            break


def test_undo_after_discard(api: Repository) -> None:
    taken = snapshot(api)
    api.run("discard", "api", taken)
    assert listed(api, "api") == []
    assert "no snapshot" in api.run("restore", "api", taken, "--yes", code=2).err
    api.run("undo")
    assert [each["id"] for each in listed(api, "api")] == [taken]


# --- killed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("restore", "--yes", "api"), ("snapshot", "api"), ("undo",)], ids=" ".join)
def test_killed_and_nothing_is_lost(api: Repository, watch: Watch, words: tuple[str, ...]) -> None:
    one = state(api)
    snapshot(api)
    work(api, "two")
    two = state(api)
    for moment in moments(13):
        if words == ("undo",):
            calm("restore", "--yes", "api")
        came = killed(moment, *words)
        print(f"{words}: killed at {moment}: {came}")
        calm("apply", "--yes")
        calm("plan", "--exit-code")
        assert api.session("api")["observed"] == "running"
        assert watch.strays(api) == []
        now = state(api)
        assert now in (one, two)
        # Whichever it is, the other is there to be brought back.
        assert kept(api) >= {one, two} - {now}
        if now != two:
            (other, *_) = [id for id, held in held_by(api).items() if held == two]
            calm("restore", "--yes", "api", other)
        if not came:
            break


def kept(repository: Repository) -> set[tuple[trees.Measure, trees.Measure]]:
    return set(held_by(repository).values())


def held_by(repository: Repository) -> dict[str, tuple[trees.Measure, trees.Measure]]:
    """The files in each snapshot."""
    found = {}
    for place in sorted((repository.state / "snapshots" / "api").iterdir()):
        if (place / "work").exists() and (place / "home").exists():
            found[place.name] = trees.measure(str(place / "work" / "upper")), trees.measure(str(place / "home"))
    return found


def test_killed_while_a_copy_is_made(api: Repository, watch: Watch) -> None:
    for round, moment in enumerate(moments(13)):
        came = killed(moment, "fork", "api", f"f{round}")
        calm("apply", "--yes")
        if upper(api, f"f{round}").exists():
            calm("start", f"f{round}")
            assert (upper(api, f"f{round}") / "untracked").read_text() == "one\n"
        assert watch.strays(api) == []
        if not came:
            assert api.session(f"f{round}")["parent"] == "api"
            break


def test_a_full_disk_leaves_no_half_snapshot(api: Repository) -> None:
    shutil.rmtree(api.state / "snapshots", ignore_errors=True)
    (api.state / "snapshots").mkdir()
    (api.state / "snapshots").chmod(0o500)
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    said = api.run("snapshot", "api", code=1).err
    (api.state / "snapshots").chmod(0o700)
    assert "Permission denied" in said
    assert listed(api, "api") == []


def test_the_files_of_one_session_stay_with_it(api: Repository, tmp_path: Path) -> None:
    """A snapshot's name is checked at the door: names become paths."""
    for name in ("../x", "a/b", "."):
        assert "is not a session name" in api.run("snapshot", name, code=2).err
        assert "is not a session name" in api.run("fork", "api", name, code=2).err
    for id in ("../../etc", "..", "-x"):
        api.run("restore", "api", id, "--yes", code=2)
