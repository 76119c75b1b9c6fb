"""A few seeds of the torture, and that it would notice. ``invoke torture`` does it for longer."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests import torture
from tests.command import Repository
from tests.leftovers import Watch

SEEDS = (1, 2, 3)
OPERATIONS = int(os.environ.get("SESSIONCTL_TEST_OPERATIONS", "25"))


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_ever_lost(repository: Repository, seed: int) -> None:
    made = torture.run(repository, seed, OPERATIONS)
    assert sum(made.counted.values()) == OPERATIONS


@pytest.fixture
def made(repository: Repository) -> torture.Torture:
    """A run that has just begun, in which ``s0`` has a snapshot."""
    with Watch() as watch:
        begun = torture.Torture(repository, watch, seed=1)
        begun.begin(("s0",))
        begun.command("snapshot", "s0")
        return begun


def _work(made: torture.Torture) -> Path:
    return Path(made.state) / "sessions" / "s0" / "work" / "upper"


def _keep(made: torture.Torture) -> Path:
    (place,) = (Path(made.state) / "snapshots" / "s0").iterdir()
    return place


def _unlink(*paths: Path) -> None:
    for path in paths:
        path.unlink()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda made: _unlink(_work(made) / ".env"), ""),
        (lambda made: shutil.rmtree(_keep(made)), ""),
        (lambda made: shutil.rmtree(next((Path(made.state) / "bases").glob("*/tree"))), "is gone, and something"),
        (lambda made: _unlink(_work(made) / ".env", _keep(made) / "work/upper/.env"), "1 lost"),
        (lambda made: (_keep(made) / "snapshot.json").write_text("{"), "snapshot"),
    ],
    ids=["in a snapshot", "in place", "its base", "nowhere", "damaged"],
)
def test_it_would_notice(made: torture.Torture, harm, said: str) -> None:  # type: ignore[no-untyped-def]
    before = made.held()
    harm(made)
    if not said:
        made.require(before)
        return
    with pytest.raises(torture.Lost, match=said):
        made.require(before)
