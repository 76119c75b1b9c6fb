"""Killed at any moment, and so is who comes next and finishes it: no work is lost, and no session is half there.

A verb has a world in which it is tried, which is made once: each time it is the same one, of which a copy was kept.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from sessionctl import beneath
from sessionctl.model import is_id
from tests.command import Repository, git
from tests.leftovers import Watch
from tests.test_crash import SEED, calm, killed, moments, watch
from tests.torture import Torture, end

__all__ = ["watch"]

_SOON = 60
"""Who comes next is killed before so many moments, or not at all."""


class Verb(NamedTuple):
    """What is killed, in which world."""

    words: tuple[str, ...]
    renamed: Mapping[str, str] = {}
    """What sessions may be called after it."""


def _worked(repository: Repository, *names: str, more: str = "") -> None:
    """Sessions with work of their own, stopped."""
    _declare(repository, *names, more=more)
    calm("apply", "--yes")
    for name in names:
        calm("start", name)
        repository.inside(name, "echo x > untracked; echo secret > .env; echo m >> a.txt; echo h > ~/talk; git add -A")
        calm("stop", name)


def _declare(repository: Repository, *names: str, more: str = "") -> None:
    repository.declare("".join(f'[sessions.{name}]\nstate = "stopped"\n{more}' for name in names))


def _snapshot(repository: Repository) -> str:
    """The id of a snapshot of ``api``, in which things have changed since."""
    taken = str(repository.run("snapshot", "api", "--json").json["id"])
    calm("start", "api")
    repository.inside("api", "echo later > untracked; echo later > later; echo later > ~/talk; rm a.txt")
    calm("stop", "api")
    return taken


def _prunable(repository: Repository, more: str = "") -> None:
    _worked(repository, "api", "web", more=more)
    calm("start", "api")
    repository.inside("api", "git add -A -f; git commit -qm all")
    calm("fetch", "api")
    calm("stop", "api")
    _declare(repository, "web", more=more)


def _fork(repository: Repository) -> Verb:
    _worked(repository, "api")
    return Verb(("fork", "api", "try"))


def _fork_of_a_snapshot(repository: Repository) -> Verb:
    _worked(repository, "api", more="workspace = { visible = true }\n")
    return Verb(("fork", "--from", _snapshot(repository), "api", "try"))


def _restore(repository: Repository) -> Verb:
    _worked(repository, "api")
    return Verb(("restore", "--yes", "api", _snapshot(repository)))


def _restore_only(repository: Repository) -> Verb:
    _worked(repository, "api")
    return Verb(("restore", "--yes", "--only", "agent", "api", _snapshot(repository)))


def _restore_of_what_is_gone(repository: Repository) -> Verb:
    _prunable(repository)
    taken = str(repository.run("snapshot", "api", "--json").json["id"])
    calm("prune", "--yes", "--idle", "0s")
    return Verb(("restore", "--yes", "api", taken))


def _undo_of_restore(repository: Repository) -> Verb:
    calm(*_restore(repository).words)
    return Verb(("undo",))


def _prune(repository: Repository) -> Verb:
    _prunable(repository)
    return Verb(("prune",))


def _undo_of_prune(repository: Repository) -> Verb:
    _prunable(repository)
    calm("prune", "--yes", "--idle", "0s")
    return Verb(("undo",))


def _rename(repository: Repository) -> Verb:
    _worked(repository, "api")
    _snapshot(repository)
    return Verb(("rename", "api", "new"), {"api": "new"})


def _undo_of_rename(repository: Repository) -> Verb:
    calm(*_rename(repository).words)
    return Verb(("undo",), {"new": "api"})


def _discard(repository: Repository) -> Verb:
    _worked(repository, "api")
    return Verb(("discard", "api", _snapshot(repository)))


def _undo_of_discard(repository: Repository) -> Verb:
    calm(*_discard(repository).words)
    return Verb(("undo",))


def _adopt(repository: Repository) -> Verb:
    _worked(repository, "api")
    checkout = repository.root / "checkout.log"
    git(repository.root, "worktree", "add", "-q", "-b", "theirs", str(checkout))
    (checkout / "untracked").write_text("theirs\n")
    return Verb(("adopt", "theirs", str(checkout)))


@pytest.mark.parametrize(
    ("world", "step"),
    [
        *(
            (_fork, 110),
            (_fork_of_a_snapshot, 110),
            (_restore, 110),
            (_restore_only, 16),
            (_restore_of_what_is_gone, 110),
        ),
        *((_undo_of_restore, 20), (_prune, 20), (_undo_of_prune, 25), (_rename, 12), (_undo_of_rename, 14)),
        *((_discard, 6), (_undo_of_discard, 5), (_adopt, 30)),
    ],
    ids=lambda value: getattr(value, "__name__", "").strip("_"),
)
def test_killed_and_killed_again_while_that_is_finished(
    repository: Repository, watch: Watch, tmp_path: Path, world: Callable[[Repository], Verb], step: int
) -> None:
    print(f"SESSIONCTL_TEST_SEED={SEED}")
    chance = random.Random(SEED)
    verb = world(repository)
    kept = _Kept(repository, tmp_path / "kept")
    model = Torture(repository, watch, SEED)
    before = model.held()
    for moment in moments(step):
        came = killed(moment, *verb.words)
        again = chance.randrange(1, _SOON)
        also = killed(again, "apply")
        print(f"{' '.join(verb.words)}: killed at {moment}: {came}; apply: killed at {again}: {also}")
        calm("apply", "--yes")
        model.require(before, verb.renamed)
        for session in (repository.state / "sessions").iterdir():
            left = {name for name in os.listdir(session) if not is_id(name)} - {"lock"}
            assert left == {"work", "home", "workspace.json"}, session
        assert not (repository.state / "unfinished").exists()
        listed = repository.run("ls", "--all", "--json").json["sessions"]
        assert {each["observed"] for each in listed} <= {"stopped", "gone"}
        calm("plan", "--exit-code")
        if not came:
            break
        kept.bring_back()


class _Kept:
    """A world as it was, in which nothing runs."""

    def __init__(self, repository: Repository, place: Path) -> None:
        self._repository = repository
        end(repository)
        state = os.environ["SESSIONCTL_STATE_DIR"]
        self._copies = {place / "state": Path(state), place / "root": repository.root}
        place.mkdir()
        for copy, original in self._copies.items():
            _copy(original, copy)

    def bring_back(self) -> None:
        end(self._repository)
        for copy, original in self._copies.items():
            beneath.remove_tree(str(original))
            _copy(copy, original)
        os.chdir(self._repository.root)


def _copy(source: Path, target: Path) -> None:
    # Overlayfs keeps an empty directory there that its own user may not read: cp complains of it and goes on.
    subprocess.run(["cp", "-a", str(source), str(target)], check=False, capture_output=True)
