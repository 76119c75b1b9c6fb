"""Where benchmarks work: a place with its own home and state, whose sandboxes and files end with it.

Measures time, memory and disk there. Knows no benchmark and no limit, and writes nothing outside of the place.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sessionctl import beneath
from sessionctl.backends import Backend, Context
from sessionctl.backends.bubblewrap import Backend as Bubblewrap
from tests.command import Repository

_SCRUBBED = ("GIT_", "SESSIONCTL_", "XDG_", "PYTHON")
_GITCONFIG = "[user]\n\tname = Benchmark\n\temail = benchmark@test.invalid\n[init]\n\tdefaultBranch = main\n"


class Call(NamedTuple):
    """A program as it is started."""

    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    """Its whole environment; None: ours."""


class Lab:
    """A place to measure in. `show` is told what goes on."""

    def __init__(self, place: Path, show: Callable[[str], None]) -> None:
        self.place = place
        self.show = show
        self.interrupted = False
        script = Path(sys.executable).with_name("sessionctl")
        # What people run, where it is installed.
        self._command = (str(script),) if script.exists() else (sys.executable, "-m", "sessionctl")

    @property
    def nothing(self) -> Call:
        """The start of Python: what all of sessionctl's times are compared with."""
        return Call((sys.executable, "-c", "pass"))

    def sessionctl(self, repository: Repository, *words: str) -> Call:
        return Call((*self._command, "-C", str(repository.root), *words))

    def repository(self, name: str, manifest: str) -> Repository:
        """A new repository in which what `manifest` declares was applied."""
        self.go_on(f"{name}: making its sandboxes")
        made = Repository(self.place / name)
        made.declare(manifest)
        made.apply()
        return made

    def go_on(self, doing: str) -> None:
        """Between two steps: says what comes next, or ends it all when that was asked for."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.show(doing)

    def compare(self, runs: int, *calls: Call) -> list[float]:
        """The median time of each of `calls` in ms, run in turn so that what else the machine does hits all alike."""
        for call in calls:
            self.once(call)
        times: list[list[float]] = [[] for _ in calls]
        for run in range(runs):
            self.go_on(f"{Path(calls[0].argv[0]).name} {' '.join(calls[0].argv[1:])}: {run + 1} of {runs}")
            for call, taken in zip(calls, times, strict=True):
                taken.append(self.once(call))
        return [statistics.median(taken) for taken in times]

    def once(self, call: Call) -> float:
        """The time that `call` takes, in ms. Its output goes nowhere; it must succeed."""
        log = self.place / "log"
        null = os.devnull
        writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, null, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, null, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, str(log), writing, 0o600),
        ]
        env = os.environ if call.env is None else call.env
        began = time.perf_counter()
        # Not `subprocess`, which takes a millisecond itself: bwrap takes four.
        child = os.posix_spawn(call.argv[0], list(call.argv), env, file_actions=actions)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        taken = (time.perf_counter() - began) * 1000
        if code:
            raise RuntimeError(f"{' '.join(call.argv)} ended with {code}: {log.read_text()}")
        return taken


@contextmanager
def lab(show: Callable[[str], None]) -> Iterator[Lab]:
    """A lab in a temporary place. At its end all that ran and was written there is gone.

    SIGINT and SIGTERM end it between two steps: a sessionctl that is cut short in the middle of one
    could still be starting a sandbox when all of them are being ended.
    """
    place = Path(tempfile.mkdtemp(prefix="sessionctl-bench-"))
    made = Lab(place, show)

    def interrupt(number: int, frame: object) -> None:
        made.interrupted = True

    environ = dict(os.environ)
    handlers = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _settle(place)
        yield made
    except Exception:
        if made.interrupted:  # on a terminal, whatever ran just then was interrupted too
            raise KeyboardInterrupt from None
        raise
    finally:
        show("removing all that was made")
        for directory in (place / "state").glob("*"):
            _end(Bubblewrap(Context("benchmark", directory)))
        beneath.remove_tree(str(place))
        os.environ.clear()
        os.environ.update(environ)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _settle(place: Path) -> None:
    """Makes `place` the home, and the environment one that says nothing of this machine's user."""
    place.chmod(0o711)  # root's sandboxes run as somebody else, who must get through
    for name in ("home", "state"):
        (place / name).mkdir(mode=0o711)
    (place / "home" / ".gitconfig").write_text(_GITCONFIG)
    for name in list(os.environ):
        if name.startswith(_SCRUBBED):
            del os.environ[name]
    os.environ["HOME"] = str(place / "home")
    os.environ["SESSIONCTL_STATE_DIR"] = str(place / "state")
    # An installed package has its bytecode; a checkout may not, and may belong to somebody else.
    os.environ["PYTHONPYCACHEPREFIX"] = str(place / "bytecode")


def _end(backend: Backend) -> None:
    for observed in backend.observe():
        if observed.id:
            backend.stop(observed)


# --- memory and disk ---------------------------------------------------------------------------


_KERNEL = frozenset({"SUnreclaim", "KernelStack", "PageTables", "Percpu", "Shmem"})
# Not MemAvailable: what everybody else on the machine allocates meanwhile is more than what is looked for.


def kernel_memory() -> int:
    """KiB that the kernel has in use for itself and in memory files, for whomever."""
    lines = (line.partition(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(value.split()[0]) for name, _, value in lines if name in _KERNEL)


def resident(pid: int) -> int:
    """KiB of memory that process `pid` has in use, shared ones too (``VmRSS``)."""
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(value.split()[0]) for name, _, value in lines if name == "VmRSS")


def on_disk(root: Path) -> float:
    """KiB that the files and directories below `root` take up."""
    inside = (
        os.lstat(os.path.join(directory, name)) for directory, _, names in os.walk(root) for name in (".", *names)
    )
    return sum(info.st_blocks for info in inside) / 2
