"""Ways out of a sandbox, and into the host: each is first gone on a naive sandbox, where it works, and then on ours.

A naive sandbox is bwrap as its manual shows it, or our own with the one protection taken out. What
docs/security.md says of each pitfall leads to one of these tests, or to one elsewhere.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sessionctl import beneath, process
from sessionctl.app.using import CAPTURE
from sessionctl.backends.bubblewrap import entry, host, launching, profile, seccomp
from sessionctl.errors import BackendError
from sessionctl.model import Observed
from sessionctl.testing import Bench, spec
from tests.command import Repository
from tests.test_bubblewrap import CONNECT, PYTHON, ROOT, SYSCALLS, _Contract, as_root, layered, own, upper

HOST = ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with _Contract().bench(tmp_path) as bench:
        yield bench


@pytest.fixture
def target(bench: Bench) -> Observed:
    """A running session on a layered workspace."""
    return bench.backend.start(bench.backend.create(spec(), layered(bench)))


def naive(bench: Bench, words: Sequence[str], *program: str) -> process.Completed:
    """Runs `program` in bwrap with `words`, as the user that sandboxes run as."""
    sources = [sys.base_prefix, host.home_of(host.locate())] if ROOT else []
    moved = [profile.move(word, sources) for word in words]
    command = launching.watching(host.locate(), [*moved, *program], sources, bench.backend.owner)
    return process.run(command.argv, env=command.env, check=False, timeout=60)


def as_root_itself(words: Sequence[str], *program: str) -> process.Completed:
    return process.run([host.locate(), "--unshare-all", "--unshare-user", *words, *program], check=False)


def entering_without(
    bench: Bench, target: Observed, line: str, instead: str, directory: Path, *argv: str
) -> process.Completed:
    """Runs `argv` in `target` by a way in whose `line` reads `instead`."""
    script = Path(entry.__file__).read_text()
    assert script.count(line) == 1, line
    changed = directory / "changed.py"
    changed.write_text(f"import sys; sys.path.append('/workspace')\n{script.replace(line, instead)}\nmain()\n")
    command = bench.backend.command(target, argv)
    return process.run([*command.argv[:3], str(changed), *command.argv[5:]], env=command.env, check=False)


# --- 1: the host's root -------------------------------------------------------------------------


REWRITE = 'p=$(cat /proc/sys/kernel/core_pattern); printf "%s" "$p" > /proc/sys/kernel/core_pattern'
"""Changes nothing, and can be done by who could change it."""


@as_root
def test_the_kernels_settings_belong_to_uid_0_whatever_its_capabilities(bench: Bench, target: Observed) -> None:
    assert as_root_itself(["--cap-drop", "ALL", *HOST], "sh", "-c", REWRITE).code == 0, "the attack works"
    assert bench.run(target, "sh", "-c", REWRITE).code != 0


@as_root
def test_what_only_root_may_read_is_not_there(bench: Bench, target: Observed) -> None:
    assert as_root_itself(["--cap-drop", "ALL", *HOST], "cat", "/etc/shadow").code == 0, "the attack works"
    assert bench.run(target, "cat", "/etc/shadow").code != 0


@as_root
def test_a_read_only_mount_cannot_be_made_writable(bench: Bench, target: Observed, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    remount = 'mount -o remount,rw,bind "$0" && touch "$0/x"'
    words = [*HOST, "--ro-bind", str(victim), str(victim)]
    assert as_root_itself(words, "sh", "-c", remount, str(victim)).code == 0
    assert (victim / "x").exists(), "the attack works"
    for path in ("/usr", "/opt/python", "/etc/ssl"):
        assert bench.run(target, "sh", "-c", 'mount -o remount,rw,bind "$0" || touch "$0/x"', path).code != 0


# --- 3 and 4: the way in ------------------------------------------------------------------------


STATUS = ["grep", "-E", "^(CapBnd|NoNewPrivs|Seccomp):", "/proc/self/status"]


def test_entering_namespaces_takes_no_restriction_along(bench: Bench, target: Observed, tmp_path: Path) -> None:
    line = "            give_up_power(seccomp)\n"
    naively = entering_without(bench, target, line, "", tmp_path, *STATUS).text()
    assert re.search(r"CapBnd:\t0*[1-9a-f].*\nNoNewPrivs:\t0\nSeccomp:\t0", naively), "the attack works"
    assert bench.run(target, *STATUS).text() == f"CapBnd:\t{'0' * 16}\nNoNewPrivs:\t1\nSeccomp:\t2"


def test_a_module_that_an_agent_wrote_is_not_imported_by_the_way_in(
    bench: Bench, target: Observed, tmp_path: Path
) -> None:
    (upper(target) / "poison.py").write_text("import os; os.write(1, b'poisoned\\n')\n")
    own(bench, upper(target) / "poison.py")
    early = "name, code = argv[0], 127"
    clearing = "        finders.clear()\n"
    script = Path(entry.__file__).read_text()
    assert script.count(clearing) == script.count(early) == 1
    importing = script.replace(early, f"import poison\n    {early}")
    command = bench.backend.command(target, ["true"])
    for text, expected in ((importing.replace(clearing, "        pass\n"), b"poisoned\n"), (importing, b"")):
        planted = tmp_path / "planted.py"
        planted.write_text(f"import sys; sys.path.append('/workspace')\n{text}\nmain()\n")
        done = process.run([*command.argv[:3], str(planted), *command.argv[5:]], env=command.env, check=False)
        assert done.stdout == expected, done.stderr


def test_descriptors_of_the_caller_do_not_go_in(bench: Bench, target: Observed, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    leaked = os.open(tmp_path / "secret", os.O_RDONLY)
    try:
        script = f"cat /proc/self/fd/{leaked} <&{leaked}"
        words = [host.locate(), "--unshare-user", *HOST, "bash", "-c", script]
        assert process.run(words, pass_fds=[leaked], check=False).text() == "of the host", "the attack works"
        for inspect in (False, True):
            command = bench.backend.command(target, ["bash", "-c", script], inspect=inspect)
            done = process.run(command.argv, env=command.env, pass_fds=[leaked], check=False)
            assert done.code != 0 and done.stdout == b""
    finally:
        os.close(leaked)


KEYRING = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
join, add = {"x86_64": (250, 248), "aarch64": (219, 217)}[os.uname().machine]
assert libc.syscall(join, 1, None) > 0, "keyctl"
assert libc.syscall(add, b"user", b"sessionctl-test-key", b"secret", 6, -3) > 0, "add_key"
os.execve(sys.argv[1], sys.argv[1:], dict(os.environ))
"""


def test_keys_of_the_caller_do_not_go_in(bench: Bench, target: Observed) -> None:
    def keys(argv: Sequence[str], env: dict[str, str]) -> bytes:
        return process.run([sys.executable, "-c", KEYRING, *argv], env=env).stdout

    plain = [host.locate(), "--unshare-user", *HOST, "cat", "/proc/keys"]
    assert b"sessionctl-test-key" in keys(plain, process.environment()), "the attack works"
    for inspect in (False, True):
        command = bench.backend.command(target, ["cat", "/proc/keys"], inspect=inspect)
        assert b"sessionctl-test-key" not in keys(command.argv, dict(command.env))


# --- 6: processes -------------------------------------------------------------------------------


def test_the_first_process_is_no_window_to_the_host(bench: Bench, target: Observed) -> None:
    look = "readlink /proc/1/exe && ls /proc/1/root/ && ls -l /proc/1/fd/"
    seen = naive(bench, ["--unshare-user", "--unshare-pid", *HOST], "sh", "-c", look)
    assert seen.code == 0 and b"bwrap" in seen.stdout, "the attack works"
    for command in look.split(" && "):
        done = bench.run(target, "sh", "-c", command)
        assert done.code != 0 and done.stdout == b""


def test_no_process_of_the_host_is_seen(bench: Bench, target: Observed) -> None:
    count = "ls /proc | grep -c '^[0-9]*$'"
    outside = f"test -e /proc/{os.getpid()}/status"
    assert naive(bench, ["--unshare-user", *HOST], "sh", "-c", outside).code == 0, "the attack works"
    assert int(bench.output(target, count)) <= 5  # init, sh, ls and grep; and no more


# --- 7: the kernel ------------------------------------------------------------------------------


def test_what_namespaces_do_not_cover_is_open_without_a_filter(bench: Bench, target: Observed) -> None:
    """Namespaces alone leave them open: the same script as in `test_system_calls_that_sandboxes_may_not_make`."""
    numbers = {name: pair[seccomp.MACHINES.index(os.uname().machine)] for name, pair in seccomp.CALLS.items()}
    words = ["--unshare-all", "--unshare-user", *HOST, "--ro-bind", sys.base_prefix, "/mnt"]
    done = naive(bench, words, "/mnt/bin/python3", "-c", SYSCALLS, repr(numbers))
    open_to = {line for line in done.text().splitlines() if line.endswith(" ok")}
    assert {"keyctl ok", "unshare ok", "personality ok"} <= open_to, "the attacks work"
    assert len(open_to) > 6
    assert "keyctl ok" not in bench.run(target, PYTHON, "-c", SYSCALLS, repr(numbers)).text()


# --- 8: the network -----------------------------------------------------------------------------


def test_services_of_the_host_are_not_reached(bench: Bench, target: Observed) -> None:
    abstract = f"sessionctl-test-{os.getpid()}"
    speak = f"import socket; print(socket.socket(socket.AF_UNIX).connect_ex('\\0{abstract}'))"
    with socket.socket() as server, socket.socket(socket.AF_UNIX) as local:
        server.bind(("127.0.0.1", 0))
        server.listen()
        local.bind(f"\0{abstract}")
        local.listen()
        port = str(server.getsockname()[1])
        words = ["--unshare-user", *HOST, "--ro-bind", sys.base_prefix, "/mnt", "/mnt/bin/python3", "-c"]
        assert naive(bench, words, CONNECT, port).text() == "0", "the attack works"
        assert naive(bench, words, speak).text() == "0", "the attack works"
        assert bench.run(target, PYTHON, "-c", CONNECT, port).text() != "0"
        assert bench.run(target, PYTHON, "-c", speak).text() != "0"


# --- 9 and 11: files that an agent prepared -------------------------------------------------------


def test_a_link_in_a_workspace_leads_the_host_nowhere(bench: Bench, target: Observed, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    bench.output(target, f"ln -s {secret} link; ln -s {tmp_path} way; mkfifo fifo")
    assert (upper(target) / "link").read_text() == (upper(target) / "way" / "secret").read_text() == "of the host"
    for path in ("link", "way/secret"):
        with pytest.raises(beneath.Unsafe, match="symbolic link"):
            beneath.read(str(upper(target)), path, 1000)
    with pytest.raises(OSError, match="not a regular file"):
        beneath.read(str(upper(target)), "fifo", 1000)  # where open would wait for ever
    assert bench.run(target, "cat", "/workspace/link", inspect=True).code != 0


def test_two_sandboxes_cannot_have_one_upper_layer(bench: Bench, target: Observed) -> None:
    """The kernel says only in its log that what comes of it is undefined."""
    workspace = target.workspace
    assert workspace is not None
    bench.backend.stop(target)
    work = os.path.dirname(workspace.upper)
    sources = [work, workspace.lower[0], host.home_of(host.locate())] if ROOT else []
    lower, up, scratch = (
        profile.move(path, sources) for path in (workspace.lower[0], workspace.upper, workspace.scratch)
    )
    words = ["--unshare-user", *HOST, "--overlay-src", lower, "--overlay", up, scratch, "/mnt", "sh", "-c"]
    first, second = (
        launching.watching(host.locate(), [*words, script], sources, bench.backend.owner)
        for script in ("echo ready; read go", "echo x > /mnt/new")
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(first.argv, env=first.env, stdin=pipe, stdout=pipe) as running:
        assert running.stdout is not None and running.stdout.readline() == b"ready\n"
        assert process.run(second.argv, env=second.env, check=False).code == 0, "the attack works"
        running.communicate(b"\n")
    bench.backend.start(target)
    other = bench.backend.create(spec(setup=("true",)), workspace)
    with pytest.raises(BackendError, match="in use by another sandbox"):
        bench.backend.start(other)


def test_a_directory_that_an_agent_closed_can_be_removed(bench: Bench, target: Observed, tmp_path: Path) -> None:
    bench.output(target, "mkdir -p a/b; echo x > a/b/c; chmod 000 a/b a")
    work = upper(target).parent
    bench.backend.stop(target)
    if not ROOT:
        with pytest.raises(PermissionError):
            shutil.rmtree(work / "upper")
    beneath.remove_tree(str(work))
    assert not work.exists()


# --- 18 and 19: secrets, and more than fits -------------------------------------------------------


def test_a_variable_is_on_no_command_line(bench: Bench, target: Observed) -> None:
    def lines() -> str:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found.append(path.read_bytes().decode(errors="replace"))
            except OSError:
                continue
        return "\n".join(found)

    words = [host.locate(), "--unshare-user", *HOST, "--setenv", "TOKEN", "hush-hush", "sh", "-c", "echo $$; read x"]
    command = bench.backend.command(target, ["sh", "-c", "echo $$; read x"], env={"TOKEN": "hush-hush"})
    for argv, env, shown in ((words, None, True), (command.argv, dict(command.env), False)):
        with subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
            assert running.stdout is not None and running.stdout.readline()
            assert ("hush-hush" in lines()) == shown
            running.communicate(b"\n")


def test_nothing_inside_can_write_what_the_host_keeps_of_a_sandbox(bench: Bench, target: Observed) -> None:
    """Our init holds the file that bwrap's complaints go to; nobody inside reaches init's descriptors."""
    log = bench.directory / "sessions" / target.session / target.id / "log"
    before = log.read_bytes()
    assert bench.run(target, "sh", "-c", "for n in 0 1 2 3 4 5 6 7 8 9; do echo x > /proc/1/fd/$n; done").code != 0
    bench.run(target, "sh", "-c", "echo lost >&2; echo lost")
    assert log.read_bytes() == before


def test_a_flood_of_output_is_kept_in_part(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    before = sum(path.stat().st_size for path in repository.state.rglob("state.db*"))
    flood = "head -c 64M /dev/zero | tr '\\0' x"
    said = repository.run("exec", "--json", "api", "--", "sh", "-c", flood).json
    assert said["truncated"] and said["stdout"] == "x" * CAPTURE
    assert sum(path.stat().st_size for path in repository.state.rglob("state.db*")) < before + 200_000
