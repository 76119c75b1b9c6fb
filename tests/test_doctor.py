"""What doctor says: of hosts that this one is not, from facts made up or read from files that look like a kernel's;
of this one, where it can be brought into that state."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessionctl import doctor
from sessionctl.backends import Context
from sessionctl.backends.bubblewrap import Backend, alive, facts
from sessionctl.backends.bubblewrap.facts import Facts, FileSystem, Kernel
from sessionctl.backends.bubblewrap.findings import findings
from sessionctl.doctor import Check
from sessionctl.model import SessionSpec, Workspace
from tests.command import Repository

ROOT = os.geteuid() == 0
SOUND = Facts(
    kernel=Kernel("6.18.44", {}, filters=True, filtered=False, powerful=False, mapped=True),
    bwrap="/opt/bwrap",
    passed_over="",
    place="/state",
    file_system=FileSystem("ext4", frozenset({"rw"})),
    unwritable="",
    isolation="",
    overlay="",
    entry="",
    limits="memory by cgroup v2",
)
REFUSED = "bwrap: No permissions to create new namespace"


def said(wrong: Facts) -> tuple[str, str, str]:
    """The last finding, which must be the only one that is not ok, if any is not."""
    *before, last = findings(wrong)
    assert all(finding.ok for finding in before)
    return f"{'ok' if last.ok else 'NO'} {last.what}", last.why, last.remedy


def test_where_all_works_every_probe_says_so() -> None:
    found = findings(SOUND)
    assert all(finding.ok and not finding.remedy for finding in found)
    assert [finding.what for finding in found] == [
        *("bubblewrap", "user namespaces", "system call filter", "overlay file system", "commands in sandboxes"),
        "limits",
    ]
    assert "commands in sandboxes" not in [finding.what for finding in findings(SOUND._replace(entry=None))]


KERNEL = SOUND.kernel


@pytest.mark.parametrize(
    ("kernel", "why", "remedy"),
    [
        (KERNEL, REFUSED, "in a container, allow it to make user namespaces and mounts"),
        (
            KERNEL._replace(settings={"user.max_user_namespaces": "0", "user.max_pid_namespaces": "63432"}),
            f"{REFUSED}; user.max_user_namespaces is 0",
            "sysctl user.max_user_namespaces=15000",
        ),
        (
            KERNEL._replace(settings={"user.max_net_namespaces": "0"}),
            f"{REFUSED}; user.max_net_namespaces is 0",
            "sysctl user.max_net_namespaces=15000",
        ),
        (
            KERNEL._replace(settings={"kernel.unprivileged_userns_clone": "0"}),
            f"{REFUSED}; kernel.unprivileged_userns_clone is 0",
            "sysctl kernel.unprivileged_userns_clone=1",
        ),
        (
            KERNEL._replace(settings={"kernel.apparmor_restrict_unprivileged_userns": "1"}),
            f"{REFUSED}; AppArmor restricts user namespaces",
            "an AppArmor profile with `userns,` for /opt/bwrap, or sysctl",
        ),
        (KERNEL._replace(powerful=True), "which bwrap refuses", "setpriv --inh-caps=-all"),
        (KERNEL._replace(filtered=True), "under a system call filter already", "--security-opt seccomp=FILE"),
        (
            KERNEL._replace(settings={"user.max_user_namespaces": "0"}, filtered=True),
            "user.max_user_namespaces is 0; this process is under",
            "sysctl user.max_user_namespaces=15000; start the container",
        ),
    ],
)
def test_user_namespaces_that_are_forbidden_are_told_by_what_forbids_them(
    kernel: Kernel, why: str, remedy: str
) -> None:
    what, found, mend = said(SOUND._replace(kernel=kernel, isolation=REFUSED, overlay=REFUSED))
    assert what == "NO user namespaces"
    assert why in found and remedy in mend


def test_settings_that_forbid_nothing_here_are_not_spoken_of() -> None:
    """A profile may allow what AppArmor restricts: what works, works."""
    restricted = KERNEL._replace(settings={"kernel.apparmor_restrict_unprivileged_userns": "1"}, filtered=True)
    assert findings(SOUND._replace(kernel=restricted)) == findings(SOUND)


@pytest.mark.parametrize(
    ("kind", "release", "why"),
    [
        ("overlay", "6.1.0", "it lies on an overlay itself (overlay), as the root of most containers does"),
        ("nfs4", "6.1.0", "it lies on nfs4, which has no extended attributes for it"),
        ("fuse.sshfs", "6.1.0", "it lies on fuse.sshfs, which has no"),
        ("ext4", "5.10.0-30-amd64", "users may mount overlays since Linux 5.11, and this is 5.10.0-30-amd64"),
        ("tmpfs", "6.5.0", "on tmpfs that needs Linux 6.6, and this is 6.5.0"),
        ("vfat", "6.18.44", "it lies on vfat"),
    ],
)
def test_a_state_directory_that_refuses_overlays_is_told_by_what_it_lies_on(kind: str, release: str, why: str) -> None:
    what, found, remedy = said(
        SOUND._replace(
            kernel=KERNEL._replace(release=release),
            file_system=FileSystem(kind, frozenset()),
            overlay="bwrap: Invalid argument",
        )
    )
    assert what == "NO overlay file system"
    assert found.startswith("/state: bwrap: Invalid argument; ") and why in found
    assert "ext4, xfs, btrfs or tmpfs" in remedy and "--state-dir" in remedy


@pytest.mark.parametrize(
    ("changes", "what", "why", "remedy"),
    [
        ({"unwritable": "Read-only file system"}, "state directory", "nothing can be made in /state", "--state-dir"),
        ({"kernel": KERNEL._replace(filters=False)}, "system call filter", "has none", "CONFIG_SECCOMP_FILTER"),
        ({"kernel": KERNEL._replace(mapped=False)}, "user namespaces", "lacks the user", "as an ordinary user"),
        ({"entry": "setns: Operation not permitted"}, "commands in sandboxes", "setns", "pidfd_open"),
    ],
)
def test_what_keeps_it_from_running_is_named_with_a_remedy(
    changes: dict[str, Any], what: str, why: str, remedy: str
) -> None:
    found = said(SOUND._replace(**changes))
    assert found[0] == f"NO {what}"
    assert why in found[1] and remedy in found[2]


def test_what_could_be_better_is_advice() -> None:
    advised = findings(SOUND._replace(file_system=FileSystem("ext4", frozenset({"rw", "noexec"}))))
    assert all(finding.ok for finding in advised)
    assert [(finding.what, "noexec" in finding.why) for finding in advised if finding.remedy] == [
        ("state directory", True)
    ]
    passed = findings(SOUND._replace(passed_over="/usr/bin/bwrap: it is setuid"))
    assert passed[0].ok and passed[0].why == "/opt/bwrap (not /usr/bin/bwrap: it is setuid)"


# --- facts -------------------------------------------------------------------------------------


def tree(top: Path, files: dict[str, str]) -> str:
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(content)
    return str(top)


def test_a_kernel_is_read_from_its_files(tmp_path: Path) -> None:
    proc = tree(
        tmp_path,
        {
            "sys/kernel/osrelease": "6.8.0-31-generic\n",
            "sys/kernel/apparmor_restrict_unprivileged_userns": "1\n",
            "sys/user/max_user_namespaces": "0\n",
            "self/status": "Name:\tx\nUid:\t1001\t1001\t1001\t1001\nCapEff:\t0000000000000400\nSeccomp:\t2\n",
            "self/uid_map": "         0     100000      65536\n    100000          0          1\n",
        },
    )
    settings = {"user.max_user_namespaces": "0", "kernel.apparmor_restrict_unprivileged_userns": "1"}
    expected = Kernel("6.8.0-31-generic", settings, filters=True, filtered=True, powerful=True, mapped=True)
    assert facts.kernel(100_000, proc=proc) == expected
    assert not facts.kernel(100_001, proc=proc).mapped
    assert facts.kernel(65_535, proc=proc).mapped and not facts.kernel(65_536, proc=proc).mapped
    (tmp_path / "self" / "status").write_text("Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n")
    root = facts.kernel(0, proc=proc)
    assert (root.filters, root.filtered, root.powerful) == (False, False, False)


def test_this_kernel_is_read_without_fail() -> None:
    found = facts.kernel(os.getuid())
    assert found.release == os.uname().release and found.filters and found.mapped
    assert facts.kernel(0, proc="/nonexistent").release == ""


def test_a_file_system_is_the_one_mounted_last_and_longest(tmp_path: Path) -> None:
    lines = [
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw",
        "30 22 0:26 / /home rw,nosuid,noexec - nfs4 server:/home rw",
        r"31 22 0:27 / /home/a\040b rw - tmpfs tmpfs rw",
        "32 22 0:28 / /mnt rw - vfat /dev/b rw",
        "33 22 0:29 / /mnt rw,noexec - overlay overlay rw,lowerdir=/a",
    ]
    proc = tree(tmp_path, {"self/mountinfo": "\n".join(lines) + "\n"})
    for path, kind in {
        "/": "ext4",
        "/homes": "ext4",
        "/home": "nfs4",
        "/home/ada/state": "nfs4",
        "/home/a b/state": "tmpfs",
        "/mnt/state": "overlay",
    }.items():
        assert facts.file_system(path, proc=proc).kind == kind, path
    assert facts.file_system("/home", proc=proc).options == {"rw", "nosuid", "noexec"}
    assert facts.file_system("/", proc="/nonexistent") == FileSystem("", frozenset())


# --- what is not the backend's -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "ok"),
    [
        ("git version 2.39.5", True),
        ("git version 3.0.0", True),
        ("git version 2.45.1.windows.1", True),
        ("git version 2.38.9", False),
        ("git version 1.9", False),
        ("git", False),
    ],
)
def test_an_old_git_is_told_by_its_version(answer: str, ok: bool) -> None:
    found = doctor.git_check(answer)
    assert found == Check(ok, "git", answer, "" if ok else "install git 2.39 or later")


def test_an_old_git_is_found_and_no_git_is_said(repository: Repository, tmp_path: Path) -> None:
    old = tmp_path / "bin" / "git"
    old.parent.mkdir()
    old.write_text('#!/bin/sh\necho "git version 2.20.1"\n')
    old.chmod(0o755)
    shown = repository.run("doctor", code=1, env={"PATH": f"{old.parent}:{os.environ['PATH']}"}).out
    assert "NO  git: git version 2.20.1\n    install git 2.39 or later\n" in shown
    old.unlink()
    assert (
        "NO  git: git was not found\n    install git\n"
        in repository.run("doctor", code=1, env={"PATH": str(old.parent)}).out
    )


def test_room_is_looked_at() -> None:
    assert doctor.disk_check("/state", 5 << 30, 100_000) == Check(True, "disk", "/state: 5.0 GiB free")
    for free, inodes in ((512 << 20, 100_000), (5 << 30, 9_000)):
        tight = doctor.disk_check("/state", free, inodes)
        assert tight.ok and "nearly full" in tight.found and "sessionctl prune" in tight.remedy
    for free, inodes in ((1 << 20, 100_000), (5 << 30, 0)):
        full = doctor.disk_check("/state", free, inodes)
        assert not full.ok and "is full" in full.found and "sessionctl prune" in full.remedy


def test_a_state_directory_that_others_may_write_is_said(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    repository.state.chmod(0o777)
    try:
        shown = repository.run("doctor", code=1).out
    finally:
        repository.state.chmod(0o700)
    assert f"NO  state directory: {repository.state} can be written by others" in shown
    assert f"chmod go-w {repository.state}" in shown


# --- this machine, made unfit ------------------------------------------------------------------

LIKE_ME = ("--map-user", str(os.getuid()), "--map-group", str(os.getgid()), "--keep-caps")
AS_BEFORE = "exec setpriv --inh-caps=-all --ambient-caps=-all "
as_user = pytest.mark.skipif(ROOT, reason="the kernel's own setting, for all of the host")


def doctor_in(repository: Repository, unshare: list[str], script: str, *words: str) -> tuple[int, str]:
    """What doctor says in namespaces that `unshare` makes, after `script`."""
    assert shutil.which("unshare"), "util-linux is needed"
    command = [sys.executable, "-m", "sessionctl", *words, "doctor"]
    done = subprocess.run(
        ["unshare", *unshare, "sh", "-ec", f'{script} "$@"', "sh", *command],
        cwd=repository.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


@as_user
def test_user_namespaces_that_are_used_up(repository: Repository) -> None:
    script = f"echo 0 > /proc/sys/user/max_user_namespaces; {AS_BEFORE}"
    code, shown = doctor_in(repository, ["-U", *LIKE_ME], script)
    assert code == 1
    assert "NO  bubblewrap: user namespaces: bwrap: " in shown and "; user.max_user_namespaces is 0\n" in shown
    assert "\n    sysctl user.max_user_namespaces=15000\n" in shown


@as_user
def test_a_user_with_capabilities(repository: Repository) -> None:
    code, shown = doctor_in(repository, ["-U", *LIKE_ME], "exec")
    assert code == 1 and "has capabilities without being root, which bwrap refuses" in shown
    assert "setpriv --inh-caps=-all" in shown


def test_root_of_a_user_namespace_of_one_user(repository: Repository) -> None:
    code, shown = doctor_in(repository, ["-Ur"], "exec")
    assert code == 1
    assert "NO  bubblewrap: user namespaces: this is root of a user namespace that lacks the user" in shown


MOUNTING = ["-m"] if ROOT else ["-Um", *LIKE_ME]


@pytest.fixture
def place(repository: Repository) -> Path:
    """A directory for a state directory that root's sandboxes can pass into."""
    made = Path(os.environ["SESSIONCTL_STATE_DIR"]) / ".place"
    for name in ("lower", "upper", "work", "state"):
        (made / name).mkdir(parents=True)
    return made


def test_a_state_directory_on_an_overlay(repository: Repository, place: Path) -> None:
    layers = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work,userxattr"
    script = f"mount -t overlay none -o {layers} {place}/state; {AS_BEFORE}"
    code, shown = doctor_in(repository, MOUNTING, script, "--state-dir", f"{place}/state")
    assert code == 1
    assert "NO  bubblewrap: overlay file system: " in shown
    assert "Invalid argument; it lies on an overlay itself (overlay)" in shown and "--state-dir" in shown


def test_a_state_directory_that_is_small_and_noexec(repository: Repository, place: Path) -> None:
    script = f"mount -t tmpfs -o noexec,mode=0711,size=90m none {place}/state; {AS_BEFORE}"
    code, shown = doctor_in(repository, MOUNTING, script, "--state-dir", f"{place}/state")
    assert code == 0
    assert f"!   disk: {place}/state is nearly full: 0.1 GiB free" in shown
    assert f"!   bubblewrap: state directory: {place}/state is mounted noexec: no program" in shown


def test_a_state_directory_where_nothing_can_be_made(repository: Repository) -> None:
    shown = repository.run("--state-dir", "/proc/x", "doctor", code=1).out
    assert "NO  bubblewrap: state directory: nothing can be made in /proc" in shown


def test_a_sandbox_that_a_killed_doctor_left_running_is_ended_by_the_next(repository: Repository) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = Path(os.environ["SESSIONCTL_STATE_DIR"]) / f".sessionctl-probe-{ended.pid}-x"
    work = left / "sessions" / "trial" / "work"
    work.mkdir(parents=True)
    backend = Backend(Context("trial", left))
    for path in (left, work):
        path.chmod(0o711)
    if backend.owner:
        os.chown(work, *backend.owner)
    target = backend.start(backend.create(SessionSpec("trial"), Workspace(str(work))))
    assert target.pid is not None and alive.start_of(target.pid) is not None
    repository.run("doctor")
    assert not left.exists() and alive.start_of(target.pid) is None


def impostor(directory: Path, version: str, mode: int = 0o755) -> Path:
    """A bwrap that says it is of `version`."""
    path = directory / "bwrap"
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("version", "mode", "why"),
    [
        ("bubblewrap 0.8.0", 0o755, "is bubblewrap 0.8.0, and overlays need 0.11"),
        ("bubblewrap 0.11.0", 0o4755, "is setuid, and would refuse overlays"),
        ("hello", 0o755, "invalid literal"),
        ("bubblewrap 0.11.0", 0o644, "cannot be run: Permission denied"),
    ],
)
def test_a_bwrap_that_will_not_do(repository: Repository, tmp_path: Path, version: str, mode: int, why: str) -> None:
    bwrap = impostor(tmp_path, version, mode)
    checks = repository.run("doctor", "--json", code=1, env={"SESSIONCTL_BWRAP": str(bwrap)}).json
    (wrong,) = [check for check in checks if not check["ok"]]
    assert wrong["what"] == "bubblewrap: bubblewrap" and why in wrong["found"]
    assert "bwrap of 0.11 or later that is not setuid" in wrong["remedy"]
    repository.declare("[sessions.api]\n")
    planned = repository.run("plan", code=2, env={"SESSIONCTL_BWRAP": str(bwrap)}).out
    assert why in planned


def test_a_bwrap_of_the_system_that_will_not_do_is_passed_over_and_said(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sessionctl.backends.bubblewrap import host, profile

    impostor(tmp_path, "bubblewrap 0.8.0")
    monkeypatch.setattr(profile, "PATH", f"{tmp_path}:{profile.PATH}")
    clear: list[Callable[[], None]] = [host.locate.cache_clear, host.examine.cache_clear]
    for each in clear:
        each()
    try:
        found = host.examine(os.environ["SESSIONCTL_STATE_DIR"], (300_000, 300_000) if ROOT else None, entering=False)
    finally:
        for each in clear:
            each()
    assert all(finding.ok for finding in found)
    assert found[1].why.endswith(
        f" (not {tmp_path}/bwrap: {tmp_path}/bwrap is bubblewrap 0.8.0, and overlays need 0.11)"
    )
