"""The benchmarks run, whatever they measure: here with next to nothing, and no time is looked at."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessionctl import beneath
from sessionctl.backends import Context
from sessionctl.backends.bubblewrap import Backend
from tests.bench import __main__ as bench
from tests.bench.benchmarks import BENCHMARKS, Sizes
from tests.bench.rows import Row, table

TINY = Sizes(plans=(1, 2), records=4, sandboxes=2, files=5, runs=1, cycles=1, tree=(5, 40), changed=2)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory for temporary files, which root's sandboxes can pass through."""
    made = Path(tempfile.mkdtemp(prefix="sessionctl-test-"))
    made.chmod(0o711)
    try:
        refusals = Backend(Context("probe", made)).probe()
        if refusals and not os.environ.get("CI"):
            pytest.skip("; ".join(f"{refusal.what}: {refusal.why}" for refusal in refusals))
        monkeypatch.setenv("TMPDIR", str(made))
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield made
    finally:
        beneath.remove_tree(str(made))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_measures_something_and_leaves_nothing_behind(
    name: str, temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = dict(os.environ)

    assert bench.main(["--json", name], sizes=TINY) == 0

    rows = json.loads(capsys.readouterr().out)["rows"]
    # Memory is what the whole machine has more of: of two sandboxes it can be anything.
    assert rows and all(row["value"] > 0 for row in rows if row["name"] != "memory")
    assert list(temporary.iterdir()) == []
    assert dict(os.environ) == environ


def test_interrupted_it_leaves_nothing_behind(temporary: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "tests.bench", "plan"],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with running:
        while not list(temporary.glob("*/state/*/sessions/*/*/run")):
            assert running.poll() is None
            time.sleep(0.01)
        (lock,) = temporary.glob("*/state/*/sessions/s-1/lock")
        with lock.open() as held:
            os.killpg(running.pid, signal.SIGINT)  # as a terminal does
            assert running.wait(timeout=60) == 130
            # The sandbox keeps it locked for as long as it lives.
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert list(temporary.iterdir()) == []


def test_a_row_says_whether_it_is_within_its_limit() -> None:
    rows = [
        Row("a", "within", 30.0, "ms", 10.0, "pass", limit=3),
        Row("b", "beyond", 31.0, "ms", 10.0, "pass", limit=3),
        Row("c", "beyond by itself", 6.0, "s", 2.0, "git", limit=5, of="value"),
        Row("d", "reported", 6.0, "s"),
    ]
    assert [row.verdict for row in rows] == ["ok", "over", "over", ""]
    assert [line.split() for line in table(rows).splitlines()] == [
        ["BENCHMARK", "MEASURED", "BASELINE", "RATIO", "TARGET"],
        ["a", "within", "30.0", "ms", "pass", "10.0", "ms", "3.0", "3", "ok"],
        ["b", "beyond", "31.0", "ms", "pass", "10.0", "ms", "3.1", "3", "over"],
        ["c", "beyond", "by", "itself", "6.0", "s", "git", "2.0", "s", "3.0", "5", "s", "over"],
        ["d", "reported", "6.0", "s"],
    ]
