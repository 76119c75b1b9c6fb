"""Runs bwrap: ``python -I -S launch.py -- BWRAP WORDS...``. A script, never imported.

For two callers. Root: bwrap must not run as root (see the package), and the user it runs as may not
reach what it needs, such as a repository or a Python below /root. So everything is mounted where
that user can reach it, in a mount namespace of our own, before the identity is given up. And
inspection: bwrap's own failure and the program's exit code must be told apart, so bwrap is watched.

Environment, all that is read:
    OWNER         ``uid gid`` to become first; only when root calls
    SOURCE_<n>    a path that is mounted at /run/<n>; with OWNER only
    REAL_<n>      ``1``: no component of that path may be a symlink
    GROUPS        files, one a line, that this process is written to first: the cgroups of the sandbox
    WATCH         ``1``: wait for bwrap, exit with the program's code, or with 125 when bwrap failed
    DATA_<n>      hex; the n-th word becomes the number of a descriptor that holds these bytes

bwrap gets an empty environment, and with WATCH no descriptors of the caller's but the standard streams.
"""

import ctypes
import os
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` alone would double the time this takes
    from typing import NoReturn

libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS = 0x00020000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}
KEYCTL_JOIN_SESSION_KEYRING = 1
SYS_CLOSE_RANGE = 436


def main() -> "NoReturn":
    given = os.environ
    try:
        words = sys.argv[sys.argv.index("--") + 1 :]
        if given.get("WATCH") == "1":
            libc.syscall(SYS_CLOSE_RANGE, 3, ctypes.c_uint(0xFFFFFFFF), 0)
        for path in given.get("GROUPS", "").splitlines():
            with open(path, "w") as file:
                file.write("0")
        libc.syscall(SYS_KEYCTL[os.uname().machine], KEYCTL_JOIN_SESSION_KEYRING, None)  # see entry.py
        if "OWNER" in given:
            offer(
                {name[7:]: value for name, value in given.items() if name.startswith("SOURCE_")},
                {name[5:] for name in given if name.startswith("REAL_")},
            )
            become(*map(int, given["OWNER"].split()))
        for name, value in given.items():
            if name.startswith("DATA_"):
                words[int(name[5:])] = str(descriptor(bytes.fromhex(value)))
        if given.get("WATCH") != "1":
            os.execve(words[0], words, {})
        os._exit(watched(words))
    except (OSError, KeyError, ValueError) as error:
        os.write(2, f"sessionctl: cannot run bwrap: {error}\n".encode(errors="replace"))
        os._exit(125)


def offer(sources: dict[str, str], real: set[str]) -> None:
    """Mounts each of `sources` at /run/<its key>, seen by this process and its children only.

    Those with a key in `real` must be where they say, and not where a link leads.
    """
    checked(libc.unshare(CLONE_NEWNS), "unshare")
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    opened = {key: os.open(source, os.O_PATH | os.O_CLOEXEC) for key, source in sources.items()}
    # opened first: one may lie below /run
    for key in real:
        if os.readlink(f"/proc/self/fd/{opened[key]}") != sources[key]:
            raise OSError(0, f"{sources[key]} is reached by a symbolic link that was not there when it was allowed")
    mount("sessionctl", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    for key, fd in opened.items():
        target = f"/run/{key}"
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o644))
        mount(f"/proc/self/fd/{fd}", target, None, MS_BIND | MS_REC)


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, options)]
    checked(libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]), f"mount {target}")


def become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.chdir("/")


def descriptor(content: bytes) -> int:
    fd = os.memfd_create("data", 0)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def watched(words: list[str]) -> int:
    """The program's exit code as bwrap reports it, or 125. Signals to us end bwrap too: it dies with its parent."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    status, writer = os.pipe()
    os.set_inheritable(writer, True)
    child = os.fork()
    if child == 0:
        try:
            os.execve(words[0], [words[0], "--json-status-fd", str(writer), *words[1:]], {})
        except OSError as error:
            os.write(2, f"sessionctl: cannot run {words[0]}: {error.strerror}\n".encode(errors="replace"))
            os._exit(125)
    os.close(writer)
    with open(status, "rb") as file:
        report = file.read()
    os.waitpid(child, 0)
    code = report.rpartition(b'"exit-code":')[2].partition(b"}")[0].strip()
    return int(code) if code.isdigit() else 125


def checked(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
