"""What a kill has left half-done is finished, or taken away, by whoever holds the lock next."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessionctl import snapshots
from tests.command import Repository, git
from tests.leftovers import Watch
from tests.test_crash import calm, killed, moments, upper, watch
from tests.test_keeping import events, state

__all__ = ["watch"]


@pytest.fixture
def api(repository: Repository) -> Iterator[Repository]:
    repository.declare("[sessions.api]\n")
    repository.apply()
    repository.inside("api", "echo untracked > untracked; echo home > ~/talk")
    yield repository


def whole(repository: Repository) -> None:
    """Requires that no snapshot is damaged."""
    assert [each.corrupt for each in snapshots.all_of(str(repository.state)) if each.corrupt] == []


def test_undo_of_a_prune_that_is_killed_is_finished(done: Repository, watch: Watch) -> None:
    """Its files were there again, without a record, a sandbox, or a way to get one: nothing could be done any more."""
    before = state(done)
    for moment in moments(29):
        calm("prune", "--yes", "--idle", "0s")
        operation = done.run("undo", "--list", "--json").json["operations"][-1]["id"]
        came = killed(moment, "undo", operation)
        print(f"undo: killed at {moment}: {came}")
        calm("apply", "--yes")
        whole(done)
        assert watch.strays(done) == []
        if not upper(done).exists():
            calm("undo", operation)
        assert state(done) == before
        assert done.session("api")["observed"] in ("stopped", "running")
        calm("start", "api")
        if not came:
            break


def test_a_fork_that_is_killed_gets_its_sandbox(api: Repository, watch: Watch) -> None:
    for round, moment in enumerate(moments(17)):
        came = killed(moment, "fork", "api", f"f{round}")
        print(f"fork: killed at {moment}: {came}")
        calm("apply", "--yes")
        assert watch.strays(api) == []
        if upper(api, f"f{round}").exists():
            assert api.session(f"f{round}")["observed"] in ("stopped", "running")
        if not came:
            break


def test_a_rename_that_is_killed_is_finished_by_whatever_comes_next(api: Repository, watch: Watch) -> None:
    """Only `apply` did: a restore of the old name made files of that again, and then neither could be finished."""
    api.run("stop", "api")
    taken = api.run("snapshot", "api", "--json").json["id"]
    name = "api"
    for round, moment in enumerate(moments(4)):
        came = killed(moment, "rename", name, f"s{round}")
        print(f"rename: killed at {moment}: {came}")
        api.run("restore", name, taken, "--yes", code=None)
        calm("apply", "--yes")
        assert not (api.state / "renames").exists()
        assert watch.strays(api) == []
        (name,) = os.listdir(api.state / "sessions")
        assert (upper(api, name) / "untracked").read_text() == "untracked\n"
        assert f"[sessions.{name}]" in (api.root / "sessions.toml").read_text()
        api.run("plan", "--exit-code")
        calm("stop", name)
        if not came:
            break


@pytest.mark.parametrize("verb", ["discard", "rename"])
def test_undo_of_what_was_killed_before_it_began_or_when_it_had_been_undone(
    api: Repository, watch: Watch, verb: str
) -> None:
    """It failed, time and again, and so did `undo` alone: there was no such session, or the trash had been emptied."""
    taken = api.run("snapshot", "api", "--json").json["id"]
    words = ["discard", "api", taken] if verb == "discard" else ["rename", "api", "web"]
    for killing in ("it", "its undo"):
        for moment in moments(2 if verb == "discard" else 3):
            before = len(_not_undone(api))
            if killing == "its undo":
                calm(*words)
            begun = _not_undone(api)[before:]
            came = killed(moment, *(["undo", *begun] if begun else words))
            print(f"{verb}, {killing}: killed at {moment}: {came}")
            for operation in begun or _not_undone(api)[before:]:
                if operation in _not_undone(api):
                    calm("undo", operation)
            assert os.listdir(api.state / "sessions") == ["api"]
            assert [each.discarded for each in snapshots.of_session(str(api.state), "api")] == [""]
            calm("plan", "--exit-code")
            if not came:
                break


def _not_undone(repository: Repository) -> list[str]:
    return [each.id for each in snapshots.operations(str(repository.state)) if each.undone is None]


def test_a_session_that_is_deleted_is_there_or_gone(repository: Repository, watch: Watch) -> None:
    """A prune that keeps nothing, and was killed, left a sandbox without files, until somebody pruned again."""
    web = '[sessions.web]\nstate = "stopped"\n'
    for moment in moments(4):
        repository.declare(f'{web}[sessions.api]\nstate = "stopped"\non_prune = "delete"\n')
        calm("apply", "--yes")
        repository.declare(web)
        came = killed(moment, "prune")
        print(f"prune: killed at {moment}: {came}")
        calm("apply", "--yes")
        assert watch.strays(repository) == []
        left = os.listdir(repository.state / "sessions")
        assert left == ["web"] or repository.session("api")["observed"] == "stopped"
        if not came:
            break


def test_no_snapshot_is_begun_and_left(api: Repository, watch: Watch) -> None:
    """A replace that was killed left the empty place of a rescue, which was shown as damaged from then on."""
    for round, moment in enumerate(moments(13)):
        api.declare(f'[sessions.api]\nsetup = ["echo {round} > setup.log"]\n')
        came = killed(moment, "apply")
        calm("apply", "--yes")
        whole(api)
        if not came:
            break


def test_what_was_moved_into_a_snapshot_is_kept_when_it_was_not_finished(api: Repository) -> None:
    taken = api.run("snapshot", "api", "--json").json["id"]
    there = Path(snapshots.place(str(api.state), "api", taken))
    (there / "snapshot.json").rename(there / "begun.json")
    empty = Path(snapshots.place(str(api.state), "api", "20200101T000000-00000000"))
    empty.mkdir()
    (empty / "begun.json").write_text((there / "begun.json").read_text())
    snapshots.sweep(str(api.state))
    assert [each["id"] for each in api.run("snapshots", "api", "--json").json["snapshots"]] == [taken]
    whole(api)


def test_what_a_killed_command_kept_is_named_by_the_log(done: Repository, watch: Watch) -> None:
    """Whoever looks for what is gone looks there, and not for a list that they have never heard of."""
    for moment in moments(17):
        came = killed(moment, "prune")
        calm("apply", "--yes")
        said = {each.get("undo") for each in events(done)}
        for each in snapshots.all_of(str(done.state)):
            assert f"sessionctl undo {each.operation}" in said
        if not came:
            break
        if not upper(done).exists():
            calm("undo")
        calm("start", "api")


# --- what snapshots stand on -------------------------------------------------------------------


def test_a_snapshot_keeps_the_commits_that_a_visible_session_borrows(repository: Repository) -> None:
    """The pin of its base went with the last session: the host's next gc took what the snapshot stands on."""
    git(repository.root, "checkout", "-q", "-b", "gone")
    (repository.root / "only-here").write_text("only here\n")
    git(repository.root, "add", "-A")
    git(repository.root, "commit", "-qm", "only here")
    repository.declare("[sessions.api]\nworkspace = { visible = true }\n")
    repository.apply()
    repository.run("snapshot", "api")
    repository.declare("")
    repository.run("prune", "--yes", "--idle", "0s")
    assert not (repository.state / "sessions" / "api").exists()
    git(repository.root, "checkout", "-q", "main")
    git(repository.root, "branch", "-qD", "gone")
    git(repository.root, "reflog", "expire", "--expire=now", "--all")
    git(repository.root, "gc", "-q", "--prune=now")
    repository.run("undo")
    assert repository.inside("api", "git fsck --connectivity-only && git show HEAD:only-here").out == "only here\n"


def test_nothing_that_a_damaged_snapshot_may_stand_on_is_released(done: Repository) -> None:
    taken = done.run("snapshot", "api", "--json").json["id"]
    file = Path(snapshots.place(str(done.state), "api", taken)) / "snapshot.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "standing": {"recipe": 1}}))
    done.run("prune", "--yes", "--idle", "0s")
    rescue = snapshots.all_of(str(done.state))[-1]
    (base,) = {done.state / layer for layer in rescue.lower}
    snapshots.remove(str(done.state), "api", rescue.id)  # nothing whole stands on it now
    done.declare('[sessions.b]\nworkspace = { mode = "empty" }\n')
    done.apply()
    done.declare("")
    done.run("prune", "--yes", "--idle", "0s")
    assert not (done.state / "sessions" / "b").exists()
    assert (base.parent / "mark").exists()
    file.write_text(json.dumps(content))
    done.run("restore", "api", taken, "--yes")
    assert done.inside("api", "cat work; git log -1 --format=%s").out == "work\nwork\n"


# --- two of one second -------------------------------------------------------------------------


def test_the_last_one_is_the_last_one_also_within_a_second(done: Repository) -> None:
    """Ids tell the second, and then chance: the last of one second was any of them."""
    directory = str(done.state)
    for number, tail in enumerate(("ffffffff", "00000000", "88888888")):
        operation = snapshots.Operation(f"20260101T000000-{tail}", "restore", 1000.0 + number / 10, ("api",))
        snapshots.save_operation(directory, operation)
    listed = [each["id"][-8:] for each in done.run("undo", "--list", "--json").json["operations"]]
    assert listed == ["ffffffff", "00000000", "88888888"]
    taken = [done.run("snapshot", "api", "--json").json["id"] for _ in range(3)]
    assert [each["id"] for each in done.run("snapshots", "api", "--json").json["snapshots"]] == taken
