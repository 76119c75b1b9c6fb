"""Limits hold, say so when they strike, and where they cannot hold, that is said before anything is made."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sessionctl.backends.bubblewrap import limits
from sessionctl.backends.bubblewrap.limits import Group, Hierarchy
from sessionctl.errors import UsageError
from sessionctl.model import LimitsSpec
from sessionctl.units import parse_size
from tests.command import Repository

GROUPED = limits.means().limits >= {"memory", "pids", "cpus"}
with_cgroups = pytest.mark.skipif(not GROUPED, reason="no cgroup may be made here")
without_cgroups = pytest.mark.skipif(GROUPED, reason="cgroups may be made here")
MIB = 1024 * 1024
EAT = "x = bytearray(%d * 1024 * 1024); print(len(x))"
"""Python that uses so many MiB."""
CROWD = """
import os, signal
children = []
try:
    while len(children) < 64:
        children.append(os.fork() or signal.pause())
except OSError:
    pass
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
print(len(children))
"""
"""Python that tries to have 64 children at a time, and says how many it had."""


def declare(repository: Repository, limits: str, more: str = "") -> None:
    repository.declare(f"[sessions.api]\nlimits = {{ {limits} }}\n{more}")


def groups(repository: Repository) -> list[Path]:
    """The directories of the cgroups of all sandboxes of this repository that are there."""
    project = repository.state.name.rpartition("-")[2]
    return sorted(
        path
        for hierarchy in limits.means().hierarchies
        for path in Path(hierarchy.path, "sessionctl", project).glob("*/*")
        if path.is_dir()
    )


def said(repository: Repository, *command: str, code: int | None = None) -> dict[str, object]:
    return dict(repository.run("exec", "--json", "api", "--", *command, code=code).json)


def value(repository: Repository, name: str) -> str:
    (found,) = [group / name for group in groups(repository) if (group / name).exists()]
    return found.read_text().strip()


# --- sizes -------------------------------------------------------------------------------------


def test_a_size_has_a_number_and_a_unit() -> None:
    for text, count in (
        *(("1kB", 1000), ("1MB", 1000**2), ("1GB", 1000**3), ("1TB", 1000**4)),
        *(("1KiB", 1024), ("1MiB", 1024**2), ("4GiB", 4 * 1024**3), ("1TiB", 1024**4)),
        *(("1.5GiB", 3 * 512 * MIB), ("0.1kB", 100)),
    ):
        assert parse_size(text) == count
    for text in (
        "",
        "4",
        "4G",
        "4gib",
        "GiB",
        "-1GiB",
        "4 GiB",
        "4GiB ",
        "1e3MB",
        ".5GiB",
        "1.GiB",
        "٣GiB",
        "4KB",
        "4B",
    ):
        with pytest.raises(UsageError, match="is not a size"):
            parse_size(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('memory = "4"', "sessions.toml:3: sessions.api.limits.memory: '4' is not a size"),
        ('memory = "15MiB"', "is not from 16MiB"),
        ("memory = 4096", "sessions.api.limits.memory: expected a string"),
        ("cpus = 0", "is not from 0.01"),
        ("cpus = inf", "is not from 0.01"),
        ("cpus = nan", "is not from 0.01"),
        ("cpus = true", "sessions.api.limits.cpus: expected a number"),
        ("pids = 3", "greater than or equal to 4"),
        ("pids = 4.5", "sessions.api.limits.pids: expected a whole number"),
        ('wall = "0s"', "is not from 1s"),
        ('wall = "2"', "'2' is not a duration"),
        ('enforce = "maybe"', "expected 'strict' or 'best-effort'"),
        ('memroy = "1GiB"', "did you mean 'memory'?"),
    ],
)
def test_a_wrong_limit_is_named(repository: Repository, text: str, message: str) -> None:
    declare(repository, text)
    assert message in repository.run("validate", code=2).err


def test_every_layer_may_set_a_limit(repository: Repository) -> None:
    repository.declare('[defaults]\nlimits = { pids = 64, wall = "1h" }\n[sessions.api]\nlimits = { pids = 32 }\n')
    shown = repository.run("--set", "limits.cpus=2", "--set", "limits.memory=1GiB", "show", "api", "--json").json
    found = {path: each["value"] for path, each in shown.items() if path.startswith("limits.")}
    assert found == {
        "limits.memory": "1GiB",
        "limits.cpus": 2,
        "limits.pids": 32,
        "limits.disk": "",
        "limits.wall": "1h",
        "limits.enforce": "strict",
    }


# --- limits strike, and say so -----------------------------------------------------------------


@with_cgroups
def test_memory_is_the_sessions_and_its_end_is_said(repository: Repository) -> None:
    declare(repository, 'memory = "64MiB"')
    repository.apply()
    assert said(repository, "python3", "-c", EAT % 32, code=0)["limit"] is None
    ended = said(repository, "python3", "-c", EAT % 128, code=137)
    assert (ended["limit"], ended["signal"]) == ("memory", 9)
    shown = repository.run("exec", "api", "--", "python3", "-c", EAT % 128, code=137)
    assert shown.err.splitlines() == [
        "sessionctl: api: a process was killed, because the session's memory was used up (limits.memory)"
    ]
    events = [json.loads(line) for line in repository.run("log", "api", "--json").out.splitlines()]
    assert [event["limit"] for event in events if event["event"] == "exec"] == [None, "memory", "memory"]
    assert "[137, memory limit]" in repository.run("log", "api").out
    # Files in memory count too: they are of no process.
    filled = said(repository, "sh", "-c", "head -c 128M /dev/zero > /tmp/file")
    assert filled["limit"] == "memory"


@without_cgroups
def test_without_cgroups_each_process_has_its_memory_limited(repository: Repository) -> None:
    declare(repository, 'memory = "64MiB", enforce = "best-effort"')
    repository.apply()
    assert said(repository, "python3", "-c", EAT % 32, code=0)["stdout"] == f"{32 * MIB}\n"
    ended = said(repository, "python3", "-c", EAT % 128, code=1)
    assert "MemoryError" in str(ended["stderr"])
    assert ended["limit"] is None  # nobody counts it, so it is not known
    assert said(repository, "sh", "-c", "ulimit -d unlimited", code=2)["limit"] is None


def test_pids_are_limited(repository: Repository) -> None:
    declare(repository, "pids = 16")
    repository.apply()
    ended = said(repository, "python3", "-c", CROWD, code=0)
    # And itself, and the sandbox's first process; without cgroups, the way in as well.
    assert ended["stdout"] == ("14\n" if GROUPED else "13\n")
    assert ended["limit"] == ("pids" if GROUPED else None)
    assert said(repository, "true", code=0)["limit"] is None


def test_what_runs_in_one_exec_counts_for_the_next(repository: Repository) -> None:
    declare(repository, "pids = 8")
    repository.apply()
    repository.inside("api", "for i in 1 2 3 4 5; do sleep 60 >/dev/null 2>&1 & done")
    assert said(repository, "sh", "-c", "true | true | true | true; exit 0")["stderr"]


def test_cpus_are_limited(repository: Repository) -> None:
    declare(repository, "cpus = 1")
    repository.apply()
    if GROUPED:
        assert int(value(repository, "cpu.cfs_quota_us")) == int(value(repository, "cpu.cfs_period_us"))
        assert groups(repository)[0].joinpath("cgroup.procs").read_text()
    elif len(os.sched_getaffinity(0)) > 1:
        assert said(repository, "nproc")["stdout"] == "1\n"
        widen = "import os; os.sched_setaffinity(0, range(os.cpu_count()))"
        assert "PermissionError" in str(said(repository, "python3", "-c", widen, code=1)["stderr"])


def test_processor_time_is_shared_out_over_the_sandboxes() -> None:
    two = LimitsSpec(cpus=2)
    assert limits.processors(two, (), "a", {0, 1}) == []
    assert all(len(limits.processors(two, (), str(id), {0, 1, 5, 9})) == 2 for id in range(8))
    assert {each for id in range(32) for each in limits.processors(two, (), str(id), {0, 1, 5, 9})} == {0, 1, 5, 9}
    assert limits.processors(two, [Group("cpus", 2, "")], "a", {0, 1, 5, 9}) == []


def test_wall_ends_an_exec_and_says_so(repository: Repository) -> None:
    declare(repository, 'wall = "1s"')
    repository.apply()
    ended = said(repository, "sleep", "60", code=124)
    assert (ended["exit_code"], ended["limit"]) == (124, "wall")
    shown = repository.run("exec", "--timeout", "1h", "api", "--", "sleep", "60", code=124)
    assert shown.err == "sessionctl: api: it was ended, because its time was up (limits.wall)\n"


def test_an_earlier_timeout_is_not_the_wall_limit(repository: Repository) -> None:
    declare(repository, 'wall = "1h"')
    repository.apply()
    shown = repository.run("exec", "--json", "--timeout", "0.1s", "api", "--", "sleep", "60", code=124)
    assert shown.json["limit"] is None and not shown.err


def test_wall_ends_a_setup_command(repository: Repository) -> None:
    declare(repository, 'wall = "1s"', 'setup = ["echo begun; sleep 60"]\n')
    shown = repository.apply(code=1)
    assert "ended with exit code 124, when its time was up (limits.wall is 1s):" in shown.out
    assert "begun" in shown.out


# --- what cannot be enforced -------------------------------------------------------------------


def test_what_cannot_be_enforced_is_refused_and_nothing_is_made(repository: Repository) -> None:
    declare(repository, 'disk = "1GiB"')
    shown = repository.run("plan", code=2)
    assert "cannot be done here: limits.disk: bubblewrap mounts directories of the host" in shown.out
    assert "(put the state directory on a file system of that size)" in shown.out
    repository.apply(code=2)
    assert repository.session("api")["observed"] == "gone"


def test_with_best_effort_it_is_named(repository: Repository) -> None:
    declare(repository, 'disk = "1GiB", pids = 64, enforce = "best-effort"')
    assert "! api: not enforced: limits.disk: bubblewrap" in repository.run("plan").out
    repository.apply()
    assert repository.session("api")["not_enforced"] == ["disk"]
    assert "not enforced: disk" in repository.run("ls").out
    assert "not enforced: disk" in repository.run("status", "api").out
    assert "In sync" in repository.run("plan").out
    repository.run("stop", "api")
    assert repository.session("api")["not_enforced"] == ["disk"]


@without_cgroups
def test_a_user_without_cgroups_is_told_what_is_missing_and_how_to_get_it(repository: Repository) -> None:
    declare(repository, 'memory = "1GiB", cpus = 0.5, pids = 64')
    shown = repository.run("plan", code=2).out
    assert "limits.memory: without a cgroup each process is limited by itself" in shown
    assert "limits.cpus: without a cgroup only whole processors can be given" in shown
    assert "limits.pids" not in shown
    assert "run as root, or in a delegated cgroup" in shown
    declare(repository, 'memory = "1GiB", cpus = 0.5, pids = 64, enforce = "best-effort"')
    repository.apply()
    assert repository.session("api")["not_enforced"] == ["memory", "cpus"]


def test_doctor_says_what_limits_rest_on(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    assert "ok  bubblewrap: limits: " in repository.run("doctor").out


# --- what a change does ------------------------------------------------------------------------


def test_a_changed_limit_holds_at_once_and_nothing_is_stopped(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    pid = repository.session("api")["pid"]
    repository.inside("api", "sleep 300 >/dev/null 2>&1 &")
    declare(repository, "pids = 16, cpus = 1")
    assert "in place" in repository.run("plan").out
    repository.apply()
    assert repository.session("api")["pid"] == pid
    assert said(repository, "python3", "-c", CROWD)["stdout"] == ("13\n" if GROUPED else "12\n")
    if GROUPED:  # what ran already is in it too
        assert all(len((group / "cgroup.procs").read_text().split()) == 2 for group in groups(repository))
    declare(repository, "pids = 1000")
    repository.apply()
    assert said(repository, "python3", "-c", CROWD)["stdout"] == "64\n"
    if GROUPED:
        assert value(repository, "cpu.cfs_quota_us") == "-1"
    repository.declare("[sessions.api]\n")
    repository.apply()
    assert said(repository, "python3", "-c", CROWD)["stdout"] == "64\n"
    assert repository.session("api")["pid"] == pid


@with_cgroups
def test_memory_can_be_raised_and_lowered_but_not_below_what_is_used(repository: Repository) -> None:
    for size in ("64MiB", "256MiB", "32MiB"):
        declare(repository, f'memory = "{size}"')
        repository.apply()
        assert int(value(repository, "memory.limit_in_bytes")) == parse_size(size)
    repository.inside("api", "head -c 24M /dev/zero > /tmp/file")
    declare(repository, 'memory = "16MiB"')
    assert "limits.memory cannot become 16MiB while more than that is in use" in repository.apply(code=1).out
    assert "32MiB" in repository.run("plan").out
    repository.inside("api", "rm /tmp/file")
    repository.apply()
    assert "In sync" in repository.run("plan").out


def test_in_sync_writes_nothing(repository: Repository) -> None:
    declare(repository, 'pids = 64, wall = "1h"')
    repository.apply()
    repository.run("plan")
    roots = (Path(os.environ["SESSIONCTL_STATE_DIR"]), *groups(repository))
    before = repository.files(*roots)
    repository.apply()
    repository.run("ls")
    assert repository.files(*roots) == before


# --- nothing is left behind --------------------------------------------------------------------


@with_cgroups
def test_stopped_has_no_cgroups_and_started_has_them_again(repository: Repository) -> None:
    declare(repository, 'memory = "64MiB", pids = 64, cpus = 1')
    repository.apply()
    assert len(groups(repository)) == 3
    repository.inside("api", "sleep 300 >/dev/null 2>&1 &")
    repository.run("stop", "api")
    assert groups(repository) == []
    project = repository.state.name.rpartition("-")[2]
    assert not any(Path(each.path, "sessionctl", project).exists() for each in limits.means().hierarchies)
    repository.run("start", "api")
    assert len(groups(repository)) == 3


@with_cgroups
def test_the_cgroups_of_what_was_killed_go_with_the_next_look(repository: Repository) -> None:
    declare(repository, "pids = 64")
    repository.apply()
    pid = int(repository.session("api")["pid"])
    process = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([process], [], [])
    os.close(process)
    assert len(groups(repository)) == 1
    assert repository.session("api")["observed"] == "stopped"
    assert groups(repository) == []
    repository.apply()
    assert len(groups(repository)) == 1


@with_cgroups
@pytest.mark.parametrize("where", ["limits.make", "launching.starting", "alive.is_init"])
def test_killed_while_it_starts_a_sandbox_one_apply_converges(repository: Repository, where: str) -> None:
    declare(repository, "pids = 64", 'state = "stopped"\n')
    repository.apply()
    declare(repository, "pids = 64")
    kill = f"""
import os, sys
from sessionctl.backends.bubblewrap import alive, launching, limits
before = {where}
def killed(*args):
    before(*args)
    os.kill(os.getpid(), 9)
{where} = killed
from sessionctl.cli import main
main(["apply", "--yes"])
"""
    done = subprocess.run([sys.executable, "-c", kill], cwd=repository.root, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    repository.apply()
    assert len(groups(repository)) == 1
    assert "In sync" in repository.run("plan").out
    repository.run("stop", "api")
    assert groups(repository) == []


# --- what a machine offers ---------------------------------------------------------------------


def unified(top: Path, *, controllers: str, subtree: str = "", procs: str = "", kind: bool = True) -> Path:
    """A directory that looks like a cgroup of version 2."""
    top.mkdir(parents=True, exist_ok=True)
    for name, text in (("controllers", controllers), ("subtree_control", subtree), ("procs", procs)):
        (top / f"cgroup.{name}").write_text(text)
    if kind:
        (top / "cgroup.type").write_text("domain\n")
    return top


def mountinfo(kind: str, at: Path, options: str = "rw") -> str:
    return f"30 23 0:26 / {at} rw,nosuid shared:9 - {kind} {kind} {options}\n"


ALL = "cpuset cpu io memory pids\n"


def test_root_has_the_top_of_cgroup_v2(tmp_path: Path) -> None:
    top = unified(tmp_path / "top", controllers=ALL, procs="1\n", kind=False)
    found = limits.find(mountinfo("cgroup2", top), "0::/session.scope\n", root=True)
    assert found.hierarchies == tuple(Hierarchy(name, 2, str(top)) for name in ("memory", "pids", "cpus"))
    assert found.missing == ""


def test_a_user_has_the_topmost_that_was_delegated(tmp_path: Path) -> None:
    unified(tmp_path / "top", controllers=ALL)
    given = unified(tmp_path / "top" / "user@7", controllers="memory pids\n", subtree="memory pids\n")
    unified(given / "app.scope", controllers="memory pids\n", procs="1\n")
    mounts = mountinfo("cgroup2", tmp_path / "top")
    found = limits.find(mounts, "0::/user@7/app.scope\n", root=False)
    assert found.hierarchies == (Hierarchy("memory", 2, str(given)), Hierarchy("pids", 2, str(given)))
    assert "cpu is not delegated" in found.missing


def test_a_cgroup_that_holds_processes_is_not_divided(tmp_path: Path) -> None:
    top = unified(tmp_path / "top", controllers=ALL, procs="1\n")
    found = limits.find(mountinfo("cgroup2", top), "0::/\n", root=True)
    assert found.hierarchies == () and "holds processes itself" in found.missing


def test_cgroup_v1_is_roots(tmp_path: Path) -> None:
    mounts = "".join(mountinfo("cgroup", tmp_path, f"rw,{names}") for names in ("memory", "cpu,cpuacct"))
    found = limits.find(mounts, "", root=True)
    assert found.hierarchies == (Hierarchy("memory", 1, str(tmp_path)), Hierarchy("cpus", 1, str(tmp_path)))
    assert limits.find(mounts, "", root=False).hierarchies == ()
    assert limits.find("", "", root=True) == ((), "no cgroup hierarchy is mounted")


def test_cgroup_v2_is_divided_down_to_the_sandbox(tmp_path: Path) -> None:
    top = unified(tmp_path / "top", controllers=ALL, kind=False)
    means = limits.find(mountinfo("cgroup2", top), "", root=True)
    (group,) = limits.groups(LimitsSpec(pids=9), means, "p" * 40, "api", "1")
    assert group == Group("pids", 2, f"{top}/sessionctl/{'p' * 12}/api/1")
    assert limits.values(group, LimitsSpec(pids=9)) == [("pids.max", "9")]
    assert limits.values(group, LimitsSpec()) == [("pids.max", "max")]
    assert limits.values(Group("cpus", 2, ""), LimitsSpec(cpus=0.5)) == [("cpu.max", "50000 100000")]
    assert limits.values(Group("cpus", 2, ""), LimitsSpec()) == [("cpu.max", "max 100000")]
    memory = limits.values(Group("memory", 2, ""), LimitsSpec(memory="1MiB"))
    assert memory == [("memory.swap.max", "0"), ("memory.max", str(MIB))]
