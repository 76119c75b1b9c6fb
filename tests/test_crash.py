"""Killed at any moment: one more apply converges, no work is lost, nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sessionctl import Project, beneath
from sessionctl.backends.bubblewrap import alive
from sessionctl.cli import main
from tests.command import Repository, git
from tests.leftovers import Watch, descendants, sandboxes

KILLS = os.environ.get("SESSIONCTL_TEST_KILLS", "")
"""``all``: at every moment, which takes minutes."""
SEED = int(os.environ.get("SESSIONCTL_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)


@pytest.fixture
def watch(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    monkeypatch.chdir(repository.root)
    with Watch() as watch:
        yield watch


def killed(number: int, *words: str) -> bool:
    """Runs sessionctl until its `number`-th moment; whether it came to that."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.killed", str(number), *(words or ("apply",))],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(Path(__file__).parents[1]), *sys.path))},
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def calm(*words: str, code: int = 0) -> None:
    """Runs sessionctl in this process: a start of Python less."""
    assert main(words) == code, words


def moments(step: int) -> Iterator[int]:
    """Numbers of moments to be killed at, without end: every one, or about one in `step`, not always the same."""
    step = 1 if KILLS == "all" else step
    number = random.Random(SEED).randrange(step) + 1
    while True:
        yield number
        number += step


def converged(repository: Repository, watch: Watch) -> None:
    calm("apply", "--yes")
    calm("plan", "--exit-code")
    assert watch.strays(repository) == []


def upper(repository: Repository, name: str = "api") -> Path:
    return repository.state / "sessions" / name / "work" / "upper"


def _update(repository: Repository, round: int) -> str:
    return (
        f'[sessions.api]\nenv = {{ A = "{round}" }}\nfiles = [{{ path = "~/.x", content = "{round}" }}]\n'
        f'workspace = {{ branch = "b{round}" }}\n'
    )


def _restart(repository: Repository, round: int) -> str:
    (repository.root / f"{round}.log").write_text("included\n")
    named = ", ".join(f'"{number}.log"' for number in range(round + 1))
    return f"[sessions.api]\nworkspace = {{ include = [{named}] }}\n"


def _replace(repository: Repository, round: int) -> str:
    return f'[sessions.api]\nsetup = ["echo {round} > setup.log"]\n'


def _start(repository: Repository, round: int) -> str:
    calm("stop", "api")
    return "[sessions.api]\n"


def _stop(repository: Repository, round: int) -> str:
    repository.declare("[sessions.api]\n")
    calm("apply", "--yes")
    return '[sessions.api]\nstate = "stopped"\n'


@pytest.mark.parametrize(
    ("edit", "step"),
    [(_update, 7), (_restart, 9), (_replace, 9), (_start, 4), (_stop, 4)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_killed_while_a_session_is_changed(
    repository: Repository, watch: Watch, edit: Callable[[Repository, int], str], step: int
) -> None:
    print(f"SESSIONCTL_TEST_SEED={SEED}")
    repository.declare(edit(repository, 0) if edit in (_update, _restart, _replace) else "[sessions.api]\n")
    calm("apply", "--yes")
    repository.inside("api", "echo x > untracked; echo i > .env; echo m >> a.txt; echo h > ~/h")
    for round, moment in enumerate(moments(step), 1):
        repository.declare(edit(repository, round))
        came = killed(moment)
        print(f"{edit.__name__}: killed at {moment}: {came}")
        converged(repository, watch)
        work = [(upper(repository) / name).read_text() for name in ("untracked", ".env", "a.txt", "../../home/h")]
        assert work == ["x\n", "i\n", "a\nm\n", "h\n"]
        if not came:
            break


def test_killed_while_a_session_is_made(repository: Repository, watch: Watch) -> None:
    print(f"SESSIONCTL_TEST_SEED={SEED}")
    for round, moment in enumerate(moments(11)):
        git(repository.root, "commit", "-q", "--allow-empty", "-m", str(round))  # so that a base layer is made, too
        repository.declare(
            f'[sessions.s{round}]\nsetup = ["touch made"]\nfiles = [{{ path = "~/.x", content = "x" }}]\n'
        )
        came = killed(moment)
        print(f"create: killed at {moment}: {came}")
        converged(repository, watch)
        assert (upper(repository, f"s{round}") / "made").exists()
        if not came:
            break
        calm("stop", f"s{round}")


def test_killed_while_a_session_is_removed(repository: Repository, watch: Watch) -> None:
    print(f"SESSIONCTL_TEST_SEED={SEED}")
    for moment in moments(9):
        repository.declare("[sessions.api]\n[sessions.web]\n")
        calm("apply", "--yes")
        repository.declare("[sessions.web]\n")
        came = killed(moment, "prune")
        print(f"prune: killed at {moment}: {came}")
        calm("prune", "--yes", "--idle", "0s")
        converged(repository, watch)
        assert os.listdir(repository.state / "sessions") == ["web"]
        assert [session for session, _ in sandboxes(repository).values()] == ["web"]
        if not came:
            break


def test_killed_while_a_session_is_renamed(repository: Repository, watch: Watch) -> None:
    print(f"SESSIONCTL_TEST_SEED={SEED}")
    repository.declare("# kept\n[sessions.s0]  # kept too\n")
    calm("apply", "--yes")
    repository.inside("s0", "echo x > untracked; echo h > ~/h; git commit -q --allow-empty -m mine")
    tip = repository.session("s0")["commit"]
    (pid,) = sandboxes(repository)
    name, manifest = "s0", repository.root / "sessions.toml"
    for round, moment in enumerate(moments(3), 1):
        old, name = name, f"s{round}"
        if round % 2:
            came = killed(moment, "rename", old, name)
        else:
            repository.declare(f'# kept\n[sessions.{name}]  # kept too\nrenamed_from = "{old}"\n')
            came = killed(moment)
        print(f"rename: killed at {moment}: {came}")
        calm("apply", "--yes")
        if f"[sessions.{old}]" in manifest.read_text():
            calm("rename", old, name)
        converged(repository, watch)
        assert manifest.read_text().startswith(f"version = 1\n# kept\n[sessions.{name}]  # kept too\n")
        work = [(upper(repository, name) / file).read_text() for file in ("untracked", "../../home/h")]
        assert work == ["x\n", "h\n"]
        assert os.listdir(repository.state / "sessions") == [name]
        assert not (repository.state / "renames").exists()
        assert not list(repository.root.glob(".sessionctl-*"))
        session = repository.session(name)
        assert (session["commit"], session["pid"], session["branch"]) == (tip, pid, f"agents/{name}")
        if not came and round > 1:
            break
    assert "create" in repository.run("log", name).out


def _random_manifest(random: random.Random) -> str:
    """All of three sessions, each anyhow."""
    lines = []
    for name in ("a", "b", "c"):
        lines.append(f"[sessions.{name}]")
        lines.append(f'state = "{random.choice(["running", "running", "stopped"])}"')
        lines.append(f'env = {{ A = "{random.randrange(3)}" }}')
        lines.append(f'setup = ["echo {random.randrange(3)} > setup.log"]')
        lines.append(f'files = [{{ path = "~/.x", content = "{random.randrange(3)}" }}]' if random.randrange(2) else "")
        lines.append('workspace = { include = [".env"] }' if random.randrange(2) else "")
    return "\n".join(lines)


def test_killed_at_any_time_while_the_manifest_changes(repository: Repository, watch: Watch) -> None:
    print(f"SESSIONCTL_TEST_SEED={SEED}")
    chance = random.Random(SEED)
    (repository.root / ".env").write_text("KEY=1\n")
    repository.declare("[sessions.a]\n[sessions.b]\n[sessions.c]\n")
    calm("apply", "--yes")
    for name in ("a", "b", "c"):
        repository.inside(name, f"echo {name} > work")
    for number in range(50 if KILLS == "all" else 20):
        repository.declare(_random_manifest(chance))
        with subprocess.Popen(
            [sys.executable, "-m", "sessionctl", "apply", "--yes", "--jobs", "3"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(chance.uniform(0.1, 1.2))
            running.kill()
            assert running.stderr is not None and b"Traceback" not in running.stderr.read()
        if number % 5 == 4:
            converged(repository, watch)
            assert [(upper(repository, name) / "work").read_text() for name in "abc"] == ["a\n", "b\n", "c\n"]


# --- the sandbox is killed, in whole or in part ------------------------------------------------


def _inner(pid: int) -> list[int]:
    """The processes in the sandbox whose first one is `pid`, without that."""
    space = os.readlink(f"/proc/{pid}/ns/pid")
    return [each for each in descendants() if each != pid and alive.pid_namespace(each) == space]


def test_half_of_a_sandbox_is_killed_then_its_first_process(repository: Repository, watch: Watch) -> None:
    repository.declare("[sessions.api]\n")
    calm("apply", "--yes")
    repository.inside("api", "echo x > kept; for n in 1 2 3 4 5 6; do sleep 1000 & done")
    ((first, _),) = sandboxes(repository).items()
    inner = _inner(first)
    assert len(inner) == 6
    for pid in inner[:3]:
        os.kill(pid, signal.SIGKILL)
    calm("plan", "--exit-code")
    assert repository.inside("api", "cat kept").out == "x\n"
    os.kill(first, signal.SIGKILL)
    eventually(lambda: first not in descendants())
    converged(repository, watch)
    assert not set(descendants()) & set(inner)
    assert repository.inside("api", "cat kept").out == "x\n"


# --- two at once, and signals ------------------------------------------------------------------


def test_a_replace_ends_a_command_and_prune_waits_for_it(repository: Repository, watch: Watch) -> None:
    repository.declare("[sessions.api]\n")
    calm("apply", "--yes")
    command = [sys.executable, "-m", "sessionctl", "exec", "api", "--", "sh", "-c", "echo begun; sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stdout.readline() == b"begun\n"
        repository.declare("")
        calm("prune", "--yes", "--idle", "0s", "api", code=3)
        repository.declare('[sessions.api]\nenv = { A = "1" }\n')
        calm("apply", "--yes")
        assert running.poll() is None
        repository.declare('[sessions.api]\nsetup = ["true"]\n')
        calm("apply", "--yes")
        assert running.wait(30) == 137
    converged(repository, watch)


@contextlib.contextmanager
def _applying(repository: Repository) -> Iterator[subprocess.Popen[bytes]]:
    """An apply in a process group of its own, in the middle of a setup that writes ``begun``."""
    command = [sys.executable, "-m", "sessionctl", "apply", "--yes"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    ) as running:
        eventually(_begun)
        yield running


def _begun() -> bool:
    return bool(list(Path(os.environ["SESSIONCTL_STATE_DIR"]).glob("*/sessions/api/*/upper/begun")))


def _setups(repository: Repository) -> list[int]:
    """What runs in the sandbox."""
    return [inner for first in sandboxes(repository) for inner in _inner(first)]


def eventually(condition: Callable[[], object], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)


def test_an_interrupt_finishes_what_is_begun(repository: Repository, watch: Watch) -> None:
    repository.declare(
        '[sessions.api]\nsetup = ["touch begun; while test ! -e ~/go; do sleep 0.02; done", "touch done"]\n'
    )
    with _applying(repository) as running:
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        assert running.stderr is not None and b"once more" in running.stderr.readline()
        (upper(repository).parents[1] / "home" / "go").touch()
        assert running.wait(30) == 130
    assert (upper(repository) / "done").exists()
    calm("ls")
    converged(repository, watch)


@pytest.mark.parametrize("signals", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]], ids=["twice", "terminated"])
def test_ended_at_once(repository: Repository, watch: Watch, signals: list[signal.Signals]) -> None:
    repository.declare('[sessions.api]\nsetup = ["touch begun; while test ! -e ~/go; do sleep 0.02; done"]\n')
    with _applying(repository) as running:
        for left, number in reversed(list(enumerate(signals))):
            os.killpg(running.pid, number)
            if left:
                assert running.stderr is not None and b"once more" in running.stderr.readline()
        assert running.wait(10) == (130 if len(signals) > 1 else -signal.SIGTERM)
    eventually(lambda: not _setups(repository))
    (upper(repository).parents[1] / "home" / "go").touch()
    converged(repository, watch)


# --- the disk is full --------------------------------------------------------------------------


@pytest.mark.parametrize("room", [4, 24, 48], ids=lambda blocks: f"{blocks} blocks")
def test_no_room_is_said_and_once_there_is_room_it_is_made(repository: Repository, watch: Watch, room: int) -> None:
    """A limit of the size of files stands for a full disk: it needs no root, and strikes wherever something grows."""
    repository.declare('[sessions.api]\nfiles = [{ path = "~/.x", content = "x" }]\n')
    script = f'ulimit -f {room}; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-m", "sessionctl", "apply", "--yes"],
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error:" in done.stderr or "failed  api" in done.stdout
    converged(repository, watch)
    assert repository.inside("api", "cat ~/.x").out == "x"


_FULL = """
set -e
mount -t tmpfs -o mode=0711,size={size}k tmpfs "$SESSIONCTL_STATE_DIR"
"$@" apply --yes && first=0 || first=$?
mount -o remount,size=64m "$SESSIONCTL_STATE_DIR"
"$@" apply --yes
"$@" plan --exit-code
"$@" exec api -- git status --short
echo work=$("$@" exec api -- cat a.txt)
find "$SESSIONCTL_STATE_DIR"/*/ -name '.sessionctl-*' -o -name '*.new' -o -name unfinished
"$@" stop api
echo first=$first
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("size", [8, 52, 72])
def test_a_full_disk_is_said_and_once_there_is_room_it_is_made(repository: Repository, watch: Watch, size: int) -> None:
    repository.declare('[sessions.api]\nfiles = [{ path = "~/.x", content = "x" }]\n')
    words = ["unshare", "-m", "sh", "-c", _FULL.format(size=size), "sh", sys.executable, "-m", "sessionctl"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert done.stdout.endswith("work=a\napi: stopped\nfirst=1\n")


# --- the clock and the directory are moved -----------------------------------------------------


def test_a_clock_set_back_keeps_and_shows_no_negative_age(repository: Repository, watch: Watch) -> None:
    repository.declare("[sessions.api]\n")
    later = Project(clock=lambda: time.time() + 86400)
    later.apply(later.plan())
    repository.declare("")
    kept = repository.run("prune", "--yes").out
    assert "kept: last used in the future" in kept and repository.session("api")["observed"] == "running"
    for command in (["ls"], ["status", "api"]):
        assert not re.search(r"-\d+ ?[smhd]\b", repository.run(*command).out)


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "while it is stopped"])
def test_a_state_directory_that_was_moved_goes_on(
    repository: Repository, watch: Watch, monkeypatch: pytest.MonkeyPatch, running: bool
) -> None:
    repository.declare("[sessions.api]\n")
    calm("apply", "--yes")
    repository.inside("api", "echo x > kept; git add kept; git commit -qm kept; echo h > ~/h")
    if not running:
        calm("stop", "api")
    old = Path(os.environ["SESSIONCTL_STATE_DIR"])
    new = old.with_name(f"{old.name}-moved")
    old.rename(new)
    try:
        monkeypatch.setenv("SESSIONCTL_STATE_DIR", str(new))
        if running:
            calm("plan", "--exit-code")
            repository.inside("api", "echo y > later")
            calm("stop", "api")
            (upper(repository) / "later").unlink()
        converged(repository, watch)
        assert (
            repository.inside("api", "cat kept ~/h; git status --short; git log --format=%s").out
            == "x\nh\nkept\nfirst\n"
        )
        repository.run("fetch", "api")
        assert not old.exists()
        calm("stop", "api")
        repository.declare("")
        calm("prune", "--yes", "--idle", "0s")
        repository.declare("[sessions.other]\n")
        converged(repository, watch)
        calm("stop", "other")
    finally:
        new.rename(old)


def test_a_state_directory_that_was_copied_while_it_ran_is_not_taken_for_it(
    repository: Repository, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.declare("[sessions.api]\n")
    calm("apply", "--yes")
    repository.inside("api", "echo x > kept")
    old = Path(os.environ["SESSIONCTL_STATE_DIR"])
    new = old.with_name(f"{old.name}-copy")
    # Overlayfs keeps an empty directory there that its own user may not read: cp complains of it and goes on.
    subprocess.run(["cp", "-a", str(old), str(new)], check=False, capture_output=True)
    try:
        monkeypatch.setenv("SESSIONCTL_STATE_DIR", str(new))
        said = repository.run("apply", "--yes", code=3).out
        assert "it runs on other files than the ones here" in said and "sessionctl stop api" in said
        calm("stop", "api")
        converged(repository, watch)
        assert repository.inside("api", "cat kept; echo only here > new").out == "x\n"
        calm("stop", "api")
    finally:
        monkeypatch.setenv("SESSIONCTL_STATE_DIR", str(old))
        beneath.remove_tree(str(new))
    converged(repository, watch)
    assert not (upper(repository) / "new").exists()
