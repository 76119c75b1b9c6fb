"""The way into a running sandbox: ``python -I -S entry.py -- ARGV...``. A script, never imported.

It joins the namespaces of a sandbox's pid 1, takes on every restriction again (joining brings none
of them along) and becomes ARGV there. It exits with ARGV's code, 128+n when signal n ended it, 126
or 127 when it could not be executed or found, 125 when the way inside failed.

From the first ``setns`` on, paths lead into the sandbox while this process still has power over it.
From there nothing may be imported, and nothing opened but the sandbox's own terminal; the program
itself is looked up after all power is gone. What the sandbox sees of us is a process that it may
not inspect, and then the sealed launcher (see elf.py), never the interpreter. The parent, which
waits for ARGV and relays signals, stays outside of the sandbox's process ids.

Environment, all that is read:
    PID         pid 1 of the sandbox as the host numbers it, and the start time that proves it
    OWNER       ``uid gid`` to become first; only when root calls
    FILTER      the seccomp program, in hex
    LAUNCHER    the launcher, in hex
    GROUPS      files, one a line, that ARGV is written to: the sandbox's cgroups; may be missing
    RLIMITS     ``number:value`` of each resource limit for ARGV, and
    CPUS        the processors it may run on, with spaces between; both may be missing
    PLACES      directories with ``:`` between; ARGV starts in the first that can be entered
    NETWORK     ``host``: the sandbox is in our network; else that is an error
    TTY         ``1``: ARGV gets a terminal of the sandbox, and ours is relayed to it
    _NAME       is NAME for ARGV: under its own name it would act on this interpreter first

Standard library only, and of that only what loads fast: `signal` would cost a third of the start.
"""

import ctypes
import fcntl
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` alone would double the time this takes
    from typing import NoReturn

TTY = os.environ.get("TTY") == "1"
TERMINALS = [fd for fd in (0, 1, 2) if os.isatty(fd)]
if TTY or TERMINALS:
    import select
    import termios
    import tty

libc = ctypes.CDLL(None, use_errno=True)

SPACES = {
    "mnt": 0x00020000,
    "net": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
    "pid": 0x20000000,
}
CLONE_NEWUSER = 0x10000000
NS_GET_USERNS = 0xB701
TIOCSCTTY, TIOCGWINSZ, TIOCSWINSZ, TIOCSPTLCK, TIOCGPTPEER = 0x540E, 0x5413, 0x5414, 0x40045431, 0x5441
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, SECCOMP_MODE_FILTER = 38, 47, 4, 2
SYS_PIDFD_SEND_SIGNAL, SYS_CLOSE_RANGE = 424, 436
SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}
KEYCTL_JOIN_SESSION_KEYRING = 1
RLIMIT_CORE = 4
SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGUSR1, SIGUSR2, SIGTERM, SIGCHLD, SIGWINCH = 1, 2, 3, 9, 10, 12, 15, 17, 28
ORPHANED = 34
"""The first real-time signal that is free: tells us that the caller has ended."""
SIG_DFL, SIG_IGN = None, 1


def main() -> "NoReturn":
    caller = os.getppid()
    try:
        shield()
        given = os.environb
        env = {name[1:]: value for name, value in given.items() if name.startswith(b"_")}
        argv = [os.fsencode(word) for word in sys.argv[sys.argv.index("--") + 1 :]]
        seccomp = bytes.fromhex(given[b"FILTER"].decode())
        launcher = sealed(bytes.fromhex(given[b"LAUNCHER"].decode()))
        groups = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in given.get(b"GROUPS", b"").splitlines()]
        rlimits = [tuple(map(int, each.split(b":"))) for each in given.get(b"RLIMITS", b"").split()]
        cpus = [int(number) for number in given.get(b"CPUS", b"").split()]
        signals = hold_signals()
        if b"OWNER" in given:
            become(*map(int, given[b"OWNER"].split()))
        pid, started = map(int, given[b"PID"].split())
        join(pid, started, {"net"} if given.get(b"NETWORK") == b"host" else set())
        die_with(caller)
        relay = Relay()
        alive, ours = os.pipe()
        child = os.fork()
    except (OSError, KeyError, ValueError) as error:
        fail("cannot enter the sandbox", error)
    if child == 0:
        try:
            os.close(ours)
            die_with_parent(alive)
            # By who opened them, not by who writes: all power over them may be gone. And not the parent:
            # what waits for ARGV is not to be killed for what the sandbox uses.
            for group in groups:
                os.write(group, b"0")
            os.setsid()
            relay.take()
            reset_signals()
            start_in(given[b"PLACES"].split(b":"))
            take_limits(rlimits, cpus)
            give_up_power(seccomp)
            execute(argv, env, launcher)
        except BaseException as error:
            fail(f"cannot run {argv[0]!r} inside the sandbox", error)
    try:
        os._exit(relay.attend(child, signals))
    except BaseException as error:
        fail("lost the program", error)


def fail(what: str, error: BaseException) -> "NoReturn":
    why = error.strerror if isinstance(error, OSError) else repr(error)
    os.write(2, f"sessionctl: {what}: {why}\n".encode(errors="replace"))
    os._exit(125)


def checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, value: object = 0, third: object = 0) -> int:
    result: int = libc.prctl(option, value, third, 0, 0)
    return result


# --- before: on the host, with nothing of the sandbox in reach -----------------------------------


def shield() -> None:
    """Nothing of the caller's goes in with us: descriptors, keys. Nothing inside may inspect us."""
    checked(prctl(PR_SET_DUMPABLE, 0), "prctl")
    libc.syscall(SYS_CLOSE_RANGE, 3, ctypes.c_uint(0xFFFFFFFF), 0)
    while (fd := os.open("/dev/null", os.O_RDWR)) < 3:
        os.set_inheritable(fd, True)  # a standard stream was closed: what is opened next must not become it
    os.close(fd)
    # The session keyring would be inherited, and /proc/keys shows it. Out of quota: the filter refuses its use.
    libc.syscall(SYS_KEYCTL[os.uname().machine], KEYCTL_JOIN_SESSION_KEYRING, None)


def sealed(program: bytes) -> int:
    """A descriptor of `program` as an executable that nobody can change any more."""
    try:
        fd = os.memfd_create("launch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | 0x10)  # MFD_EXEC
    except OSError:
        fd = os.memfd_create("launch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)  # before Linux 6.3
    os.write(fd, program)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return fd


def hold_signals() -> int:
    """Blocks the signals that `attend` passes on, and returns the descriptor that tells of them.

    Those the caller ignores (nohup) stay ignored. Blocked from here on, none is lost on the way in.
    """
    libc.signal(SIGCHLD, SIG_DFL)  # ignored by the caller, ARGV's exit code would be lost
    mask, old = ctypes.create_string_buffer(128), ctypes.create_string_buffer(256)
    libc.sigemptyset(mask)
    for number in (SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM, SIGCHLD, SIGWINCH):
        libc.sigaction(number, None, old)
        if int.from_bytes(old.raw[:8], "little") != SIG_IGN:
            libc.sigaddset(mask, number)
    libc.sigaddset(mask, ORPHANED)
    checked(libc.sigprocmask(0, mask, None), "sigprocmask")
    return checked(libc.signalfd(-1, mask, os.O_CLOEXEC), "signalfd")


def become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    checked(prctl(PR_SET_DUMPABLE, 0), "prctl")  # a change of uid may set it


# --- inside --------------------------------------------------------------------------------------


def join(pid: int, started: int, shared: set[str]) -> None:
    """Enters the namespaces of `pid`, which must be the process that started at `started` (clock ticks).

    Those in `shared` may be ours.
    """
    process = os.pidfd_open(pid)
    with open(f"/proc/{pid}/stat", "rb") as file:
        if int(file.read().rpartition(b")")[2].split()[19]) != started:
            raise ProcessLookupError(0, "it has ended")
    spaces = {name: os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in SPACES}
    inner = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    outer = fcntl.ioctl(spaces["mnt"], NS_GET_USERNS)
    checked(libc.syscall(SYS_PIDFD_SEND_SIGNAL, process, 0, None, 0), "pidfd_send_signal")  # it still was `pid`
    other = [name for name, fd in spaces.items() if not os.path.sameopenfile(fd, os.open(f"/proc/self/ns/{name}", 0))]
    if not {"mnt", "net", "ipc", "uts", "pid"} - shared <= set(other):
        raise PermissionError(0, "it is not isolated from the host")
    for finders in (sys.meta_path, sys.path_hooks, sys.path):
        finders.clear()
    checked(libc.setns(outer, CLONE_NEWUSER), "setns outer user")
    for name in other:  # one that we share (cgroup, where it could not be unshared) may not be joined again
        checked(libc.setns(spaces[name], SPACES[name]), f"setns {name}")
    if not os.path.sameopenfile(outer, inner):
        checked(libc.setns(inner, CLONE_NEWUSER), "setns inner user")


def die_with(caller: int) -> None:
    """ORPHANED for us when `caller` ends: nothing goes on inside that nobody waits for, a killed setup for one.

    Not SIGKILL: the caller's terminal is to be as it was. A change of identity or of powers forgets
    it, so this comes after the last of them.
    """
    checked(prctl(PR_SET_PDEATHSIG, ORPHANED), "prctl")
    if os.getppid() != caller:
        os._exit(125)  # it ended before the kernel was told


def die_with_parent(alive: int) -> None:
    """SIGKILL for us when our parent ends. `alive` is a pipe that only the parent holds the other end of."""
    checked(prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl")
    os.set_blocking(alive, False)
    try:
        os.read(alive, 1)
    except BlockingIOError:
        return
    os._exit(125)  # it ended before the kernel was told


def reset_signals() -> None:
    for number in range(1, 65):
        libc.signal(number, SIG_DFL)  # ignored signals would stay ignored: Python's SIGPIPE, nohup's SIGHUP
    mask = ctypes.create_string_buffer(128)
    checked(libc.sigprocmask(2, mask, None), "sigprocmask")


def start_in(places: list[bytes]) -> None:
    os.umask(0o022)
    for place in [*places, b"/"]:
        try:
            os.chdir(place)
            break
        except OSError:
            continue


def take_limits(rlimits: "list[tuple[int, ...]]", cpus: list[int]) -> None:
    for number, value in rlimits:
        checked(libc.setrlimit(number, (ctypes.c_ulong * 2)(value, value)), "setrlimit")
    if cpus:
        os.sched_setaffinity(0, cpus)


def give_up_power(seccomp: bytes) -> None:
    # 1, not 0: a core_pattern that is a pipe ignores every other limit, and hands what an agent made
    # crash to a program of the host.
    if libc.setrlimit(RLIMIT_CORE, (ctypes.c_ulong * 2)(1, 1)) < 0:
        checked(libc.setrlimit(RLIMIT_CORE, (ctypes.c_ulong * 2)(0, 0)), "setrlimit")
    for capability in range(64):
        if prctl(PR_CAPBSET_DROP, capability) < 0:
            break  # the kernel has no more of them
    checked(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL), "prctl ambient")
    checked(libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()), "capset")
    checked(prctl(PR_SET_NO_NEW_PRIVS, 1), "prctl no_new_privs")
    code = ctypes.create_string_buffer(seccomp, len(seccomp))
    program = (ctypes.c_uint64 * 2)(len(seccomp) // 8, ctypes.addressof(code))
    checked(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program), "seccomp")


def execute(argv: list[bytes], env: dict[bytes, bytes], launcher: int) -> "NoReturn":
    """Becomes `argv` by way of the launcher. All other descriptors but the standard streams close on exec."""
    name, code = argv[0], 127
    for place in [b""] if b"/" in name else [d + b"/" for d in env.get(b"PATH", b"").split(b":") if d]:
        path = place + name
        try:
            directory = os.stat(path).st_mode & 0o170000 == 0o040000
        except OSError as error:
            code = 126 if isinstance(error, PermissionError) else code
            continue
        if not directory and os.access(path, os.X_OK):
            os.execve(launcher, [b"launch", path, *argv], env)
        code = 126
    os.write(2, b"sessionctl: " + name + (b": not found\n" if code == 127 else b": cannot be executed\n"))
    os._exit(code)


# --- outside, until it ends ----------------------------------------------------------------------


class Route:
    """One direction of a relayed stream."""

    __slots__ = ("ending", "pending", "sink", "source")

    def __init__(self, source: int, sink: int, ending: bytes = b"") -> None:
        self.source = source
        """-1 when it has ended."""
        self.sink = sink
        self.ending = ending
        """What tells the sink that the source has ended; empty: it is closed."""
        self.pending = b""
        """What was read and not yet written."""

    def interest(self) -> tuple[int, int]:
        return (self.sink, select.POLLOUT) if self.pending else (self.source, select.POLLIN)

    def move(self) -> None:
        """One read or one write, of no more than what can be written without waiting."""
        try:
            if self.pending:
                self.pending = self.pending[os.write(self.sink, self.pending) :]
                return
            self.pending = os.read(self.source, 4096)
        except BlockingIOError:
            return
        except OSError:  # nobody reads it any more; or, reading, a terminal that everybody has closed
            self.pending, ended = b"", not self.pending
            if not ended:
                return
        if not self.pending:
            self.source = -1
            if self.ending:
                self.pending = self.ending
            else:
                os.close(self.sink)


class Relay:
    """The streams between ours and the program's, and the wait for its end.

    A terminal of the host never goes in: who holds one can type into it. It is relayed, to a
    terminal of the sandbox (TTY) or to a pipe. Other streams go in as they are.
    """

    def __init__(self) -> None:
        self.theirs: dict[int, int] = {}
        """Per standard stream the descriptor that ARGV gets for it."""
        self.routes: list[Route] = []
        self.master = -1
        if TTY:
            # The sandbox cannot put something else there: /dev/pts is a mount.
            self.master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC)
            fcntl.ioctl(self.master, TIOCSPTLCK, bytes(4))
            end = fcntl.ioctl(self.master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
            os.set_blocking(self.master, False)
            self.theirs = {0: end, 1: end, 2: end}
            self.routes = [Route(0, self.master, ending=b"\x04"), Route(self.master, 1)]
            self.resize()
            return
        for stream in TERMINALS:
            source, sink = os.pipe()
            self.theirs[stream] = source if stream == 0 else sink
            self.routes.append(Route(0, sink) if stream == 0 else Route(source, stream))

    def resize(self) -> None:
        for stream in TERMINALS[:1]:
            fcntl.ioctl(self.master, TIOCSWINSZ, fcntl.ioctl(stream, TIOCGWINSZ, bytes(8)))

    def take(self) -> None:
        """In the child, a session leader: makes their ends its standard streams."""
        if TTY:
            fcntl.ioctl(self.theirs[0], TIOCSCTTY, 0)
        for stream, end in self.theirs.items():
            os.dup2(end, stream)

    def attend(self, child: int, signals: int) -> int:
        """The exit code of `child`, once it has ended. What it left running does not keep us."""
        for end in set(self.theirs.values()):
            os.close(end)
        settings = termios.tcgetattr(0) if TTY and 0 in TERMINALS else None
        try:
            if settings is not None:
                tty.setraw(0)
            while True:
                while self.pump(signals):
                    pass
                number = int.from_bytes(os.read(signals, 128)[:4], "little")
                if number == SIGCHLD:
                    ended, status = os.waitpid(child, os.WNOHANG)
                    if ended:
                        self.drain()
                        return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
                elif number == ORPHANED:
                    # Reaped here: a dead process that nobody reaps keeps its sandbox from ending, and who
                    # inherits ours may never look.
                    os.kill(child, SIGKILL)
                    os.waitpid(child, 0)
                    return 125
                elif number == SIGWINCH and TTY:
                    self.resize()
                else:
                    forward(number, child)
        finally:
            if settings is not None:
                termios.tcsetattr(0, termios.TCSADRAIN, settings)

    def pump(self, signals: int = -1, wait: int | None = None) -> bool:
        """Moves what can be moved, waiting for it `wait` ms. False when a signal came, or nothing can."""
        moving = [route for route in self.routes if route.pending or route.source >= 0]
        if not moving:
            return False
        wanted = {signals: select.POLLIN} if signals >= 0 else {}
        for fd, event in (route.interest() for route in moving):
            wanted[fd] = wanted.get(fd, 0) | event
        poll = select.poll()
        for fd, events in wanted.items():
            poll.register(fd, events)
        ready = dict(poll.poll(wait))
        for route in moving:
            fd, event = route.interest()
            if ready.get(fd, 0) & (event | select.POLLHUP | select.POLLERR):
                route.move()
        return bool(ready) and signals not in ready

    def drain(self) -> None:
        """What the program wrote before it ended: as much as a terminal or a pipe holds, no more."""
        self.routes = [route for route in self.routes if route.source != 0]
        for _ in range(64):
            if not self.pump(wait=None if any(route.pending for route in self.routes) else 0):
                break


def forward(number: int, child: int) -> None:
    """As a terminal would: what ends a program ends the whole pipeline; what only tells it something does not."""
    try:
        if number in (SIGHUP, SIGINT, SIGQUIT, SIGTERM):
            os.killpg(child, number)
        else:
            os.kill(child, number)
    except ProcessLookupError:
        if number in (SIGHUP, SIGINT, SIGQUIT, SIGTERM):
            os.kill(child, number)  # it has no group of its own yet
