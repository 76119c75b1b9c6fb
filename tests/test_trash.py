"""What is taken out of the trash, what stays in it and what all of it takes on the disk, by the command."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import pytest

from sessionctl import Project
from sessionctl.disk import Meter
from sessionctl.model import Declaration, Digests, GitState
from sessionctl.snapshots import Operation, Snapshot
from sessionctl.trash import Keep, Spent, spent
from tests.command import Repository
from tests.test_app import Clock

DAY = 86400.0
NOW = 1_000 * DAY


# --- the decision ------------------------------------------------------------------------------


def snapshot(number: int, age: float, **more: object) -> Snapshot:
    """A snapshot of session ``api`` that was made `age` days ago."""
    id = f"20250101T0000{number:02d}-00000000"
    nothing = Declaration(Digests("", "", ""), {})
    plain = Snapshot(
        *("api", id, NOW - age * DAY, "person", "", "", "bubblewrap", "", False, nothing, "", False, 0.0),
        *(GitState(), None, {}),
    )
    return plain._replace(**more)  # type: ignore[arg-type]


def operation(id: str, age: float, undone: float | None = None) -> Operation:
    return Operation(id, "prune", NOW - age * DAY, ("api",), {}, undone)


def gone(found: list[Snapshot], operations: list[Operation], **keep: float) -> list[str]:
    """The numbers of those that go, of which each takes a kibibyte."""
    going = spent(found, operations, Keep(**keep), lambda each: 1024, NOW)  # type: ignore[arg-type]
    assert all(isinstance(each, Spent) and each.why for each in going)
    return [each.id[13:15] for each in going]


def test_what_is_in_the_trash_expires_and_nothing_else_does() -> None:
    found = [
        snapshot(1, 100),
        snapshot(2, 100, message="mine"),
        snapshot(3, 30, by="rescue", operation="a"),
        snapshot(4, 29.9, by="rescue", operation="a"),
        snapshot(5, 100, discarded="b"),  # long ago made, and put into the trash today
        snapshot(6, 100, discarded="c"),
        snapshot(7, 100, discarded="?"),  # nobody knows when
        snapshot(8, 100, by="rescue", corrupt="no JSON"),
        snapshot(9, -100, by="rescue"),  # from the future
    ]
    operations = [operation("a", 30), operation("b", 0), operation("c", 30)]
    assert gone(found, operations) == ["03", "06"]
    assert gone(found, operations, expiry=0.0) == []


def test_a_full_trash_loses_its_oldest_but_nothing_that_an_undo_needs() -> None:
    found = [
        snapshot(1, 9, by="rescue", operation="a"),
        snapshot(2, 8, by="rescue", operation="b"),
        snapshot(3, 7, discarded="c"),
        snapshot(4, 6, by="rescue", operation="b"),
        snapshot(5, 5),
    ]
    operations = [operation("a", 9), operation("b", 8, undone=NOW), operation("c", 7)]
    assert gone(found, operations, size=4096) == []
    assert gone(found, operations, size=3072) == ["02"]
    assert gone(found, operations, size=2048) == ["02", "03"]
    assert gone(found, operations, size=1) == ["02", "03", "04"]
    assert gone(found, operations, size=1, expiry=8.5 * DAY) == ["01", "02", "03", "04"]


def test_snapshots_stay_when_either_rule_keeps_them_and_named_ones_unless_that_is_said() -> None:
    found = [
        snapshot(1, 90, message="named"),
        snapshot(2, 80),
        snapshot(3, 70),
        snapshot(4, 3),
        snapshot(5, 2),
        snapshot(6, 60)._replace(session="web"),
        snapshot(7, 90, by="rescue", operation="a"),
    ]
    assert gone(found, [], expiry=0) == []
    assert gone(found, [], expiry=0, last=3) == ["02"]
    assert gone(found, [], expiry=0, last=1) == ["02", "03", "04"]
    assert gone(found, [], expiry=0, age=50 * DAY) == ["02", "03", "06"]
    assert gone(found, [], expiry=0, last=3, age=75 * DAY) == ["02"]
    assert gone(found, [], expiry=0, last=3, age=75 * DAY, named=True) == ["01", "02"]


def test_of_two_that_were_made_in_one_second_the_later_is_the_last() -> None:
    older, newer = snapshot(1, 5), snapshot(1, 4)
    ids = ["20250101T000001-ffffffff", "20250101T000001-00000000"]  # after the second there is chance
    found = [each._replace(id=id) for each, id in zip((older, newer), ids, strict=True)]
    (going,) = spent(found, [], Keep(last=1), lambda each: 1024, NOW)
    assert going.id == ids[0]


def test_what_is_damaged_goes_only_when_it_was_discarded() -> None:
    found = [snapshot(1, 100, corrupt="no JSON"), snapshot(2, 100, corrupt="no JSON", discarded="a")]
    assert gone(found, [operation("a", 40)]) == ["02"]
    assert gone(found, [operation("a", 20)]) == []


def test_what_is_in_use_never_depends_on_the_order(tmp_path: Path) -> None:
    found = [snapshot(n, n, by="rescue", operation=f"o{n}") for n in (3, 1, 2)]
    for order in itertools.permutations(found):
        assert sorted(gone(list(order), [operation("o3", 3)], size=1)) == ["01", "02"]


# --- the command -------------------------------------------------------------------------------


@pytest.fixture
def pruned(repository: Repository) -> Repository:
    """A repository with a session that was pruned."""
    repository.declare("[sessions.api]\n")
    repository.apply()
    repository.inside("api", "echo talk >~/conversation")
    repository.declare("")
    repository.run("prune", "--yes", "--idle", "0s")
    return repository


def test_what_can_be_undone_is_no_garbage(pruned: Repository) -> None:
    assert pruned.run("gc", "--yes").out == "nothing to remove\n"
    pruned.run("undo")


def test_when_it_expires_it_goes_and_undo_says_so(pruned: Repository, config: Path) -> None:
    config.write_text('[trash]\nexpiry = "1s"\n')
    later = Clock()
    later.now = 4e9
    found = Project(pruned.root, clock=later).garbage()
    assert [(each.session, each.why) for each in found.snapshots] == [("api", "in the trash for more than 1s")]
    assert len(found.bases) == 1  # nothing stands on it but what goes
    assert found.size > sum(each.size for each in found.snapshots) > 0
    assert (pruned.state / "snapshots" / "api").exists()
    Project(pruned.root, clock=later).collect(found)
    assert not (pruned.state / "snapshots" / "api").exists()
    assert [each for each in (pruned.state / "bases").iterdir() if each.is_dir()] == []
    assert pruned.run("gc", "--yes").out == "nothing to remove\n"
    (operation,) = pruned.run("undo", "--list", "--json").json["operations"]
    assert "nothing was done that can be undone" in pruned.run("undo", code=2).err
    said = pruned.run("undo", operation["id"], code=1).out
    assert "api: not brought back: what was kept of it is gone: gc took it out of the trash" in said


def test_what_would_go_is_shown_and_then_just_that_goes(pruned: Repository, config: Path) -> None:
    pruned.declare("[sessions.api]\n")
    pruned.apply()
    ids = [pruned.run("snapshot", "api", *more, "--json").json["id"] for more in ((), ("-m", "mine"), (), ())]
    config.write_text("[snapshots]\nlast = 1\n")
    seen = pruned.run("gc", "--dry-run", "--json").json
    assert [each["id"] for each in seen["snapshots"]] == [ids[0], ids[2]]
    assert seen["size"] >= sum(each["size"] for each in seen["snapshots"]) > 0
    shown = pruned.run("gc", "--dry-run").out
    assert f"- snapshot {ids[0]} of api" in shown and "not among the last 1" in shown
    assert pruned.run("gc", code=2).err.startswith("error: nothing was done")
    pruned.run("gc", "--yes")
    left = pruned.run("snapshots", "api", "--json").json["snapshots"]
    assert [each["id"] for each in left] == [ids[1], ids[3]]
    assert pruned.run("gc", "--yes").out == "nothing to remove\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[trash]\nexpiry = "0s"', "trash.expiry: '0s' is not from 1s to 3660d"),
        ('[trash]\nexpiry = "7"', "trash.expiry: '7' is not a duration"),
        ("[trash]\nsize = 7", "trash.size: expected a string"),
        ('[trash]\nsize = "many"', "trash.size: 'many' is not a size"),
        ("[trash]\nexpires = 1", "trash.expires: unknown key (did you mean 'expiry'?)"),
        ("[snapshots]\nlast = 0", "snapshots.last: should be greater than or equal to 1"),
        ("[snapshots]\nlast = true", "snapshots.last: expected a whole number"),
        ('[snapshots]\nage = "-1d"', "snapshots.age: '-1d' is not a duration"),
        ('[snapshots]\nnamed = "yes"', "snapshots.named: expected true or false"),
    ],
)
def test_a_wrong_limit_is_named_with_its_line(repository: Repository, config: Path, text: str, words: str) -> None:
    config.write_text(text)
    assert f"config.toml:2: {words}" in repository.run("gc", "--dry-run", code=2).err


# --- the disk ----------------------------------------------------------------------------------


def test_ls_disk_counts_the_trash(pruned: Repository) -> None:
    pruned.declare("[sessions.web]\n")
    pruned.apply()
    pruned.inside("web", "head -c 3000000 /dev/urandom >big; head -c 1000000 /dev/urandom >~/talk; ln big other")
    pruned.run("snapshot", "web")
    disk = pruned.run("ls", "--disk", "--json").json
    by_name = {each["name"]: each for each in disk["sessions"]}
    web, api = by_name["web"], by_name["api"]
    assert 3_000_000 <= web["workspace"] < 4_000_000
    assert 1_000_000 <= web["home"] < 1_200_000
    assert 4_000_000 <= web["snapshots"] < 5_200_000
    assert web["trash"] == 0 and web["whole"] is True
    assert api["workspace"] == api["home"] == 0 and api["trash"] > 0
    assert disk["shared"]["bases"] > 0 and disk["shared"]["images"] == 0
    text = pruned.run("ls", "--disk").out
    assert "TRASH" in text and "shared, and counted once: base layers" in text
    assert [each["name"] for each in pruned.run("ls", "--disk", "--json", "web").json["sessions"]] == ["web"]


def test_hard_links_are_counted_once_and_links_are_not_followed(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (one / "file").write_bytes(os.urandom(100_000))
    os.link(one / "file", two / "again")
    (two / "link").symlink_to(one)
    os.truncate(two / "again", 100_000)
    with open(two / "hole", "wb") as file:
        file.truncate(1 << 30)
    meter = Meter()
    assert 100_000 <= meter.taken(str(one)) < 130_000
    assert meter.taken(str(two)) < 20_000
    assert meter.whole
    assert meter.taken(str(tmp_path / "missing")) == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir()
    (tmp_path / "shut").chmod(0)
    meter = Meter()
    meter.taken(str(tmp_path))
    (tmp_path / "shut").chmod(0o700)
    assert not meter.whole


# --- who was made of whom ----------------------------------------------------------------------


def test_ls_tree_shows_who_was_made_of_whom(repository: Repository) -> None:
    repository.declare('[sessions.api]\n[sessions.b]\nparent = "a"\n[sessions.a]\nparent = "b"\n')
    repository.apply("api")
    for parent, name in (("api", "one"), ("api", "two"), ("one", "deep")):
        repository.run("fork", parent, name)
    lines = [re.split(r"(?<=\w)  ", line)[0] for line in repository.run("ls", "--tree").out.splitlines()]
    assert lines == ["api", " ├─ one", " │  └─ deep", " └─ two", "a", " └─ b"]
    parents = {each["name"]: each["parent"] for each in repository.run("ls", "--tree", "--json").json["sessions"]}
    assert parents == {"a": "b", "api": None, "b": "a", "deep": "one", "one": "api", "two": "api"}
    assert "one  running  agents/one  (from api, which is not here)" in repository.run("ls", "--tree", "one").out
