"""Running bwrap: for a sandbox to begin its life, and to look at what an agent wrote."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sessionctl import beneath, process
from sessionctl.backends import Command
from sessionctl.backends.bubblewrap import alive, host, launching, lives, profile, stacking
from sessionctl.backends.bubblewrap.alive import Life
from sessionctl.backends.bubblewrap.marks import Mark
from sessionctl.backends.bubblewrap.places import Places, read_fd
from sessionctl.errors import BackendError
from sessionctl.model import HOME, WORKSPACE, MountSpec, Workspace

if TYPE_CHECKING:
    from sessionctl.backends.bubblewrap.limits import Group

_START_TIMEOUT = 30.0
"""Seconds that mounting may take: a busy disk is no reason to fail, a hung one is."""


def spawn(places: Places, mark: Mark, lock: int, boot: str, groups: Sequence[Group]) -> Life:
    """Starts bwrap, and returns when its pid 1 has become our init, which holds `lock` from then on.

    bwrap itself only waits then: it is ended, so that nobody has to reap it later.
    """
    session = places.session(mark.session)
    home, bwrap = os.path.join(session, "home"), host.locate()
    root = stacking.stack(places, mark)
    sources = _sources(places, mark, bwrap, root)
    spec = mark.made_of.spec
    resolver = host.resolver() if spec.network == "host" else None
    if root is not None:
        stacking.require_points(places, mark, root, resolver)
    fresh = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with _Descriptors() as fds:
        mounted = [fds.keep(_mounted(mount)) for mount in spec.mounts]
        _make_mount_points(places, mark, home, sources, lock)
        words = profile.session(
            mark.session,
            profile.move(home, sources),
            profile.moved(mark.workspace, sources),
            host.layout(),
            os.uname().machine,
            given=profile.given(spec.mounts, [f"/run/{len(sources) + n}" for n in range(len(mounted))])
            if places.owner
            else profile.given(spec.mounts, mounted),
            resolver=resolver,
            root=root and root.moved(sources),
        )
        info = fds.keep(os.open(places.file(mark.session, mark.id, "info"), fresh, 0o600))
        log = fds.keep(os.open(places.file(mark.session, mark.id, "log"), fresh, 0o600))
        ready, says_ready = map(fds.keep, os.pipe())
        data = [fds.keep(_descriptor(word)) for word in words if isinstance(word, bytes)]
        numbers = map(str, data)
        plain = [next(numbers) if isinstance(word, bytes) else word for word in words]
        real = [mount.source for mount in spec.mounts] if places.owner else []
        joined = [group.procs for group in groups]
        command = launching.starting(bwrap, ["--info-fd", str(info), *plain], sources, places.owner, real, joined)
        child = process.spawn(
            command.argv,
            env=command.env,
            stdout=says_ready,
            stderr=log,
            pass_fds=[lock, info, *data, *([] if places.owner else mounted)],
            new_session=True,
        )
        try:
            os.close(fds.release(says_ready))
            if not _said_ready(ready, _START_TIMEOUT):
                raise BackendError(f"the sandbox of {mark.session} did not start: {_said(log)}")
            return _require_isolated(lives.child_pid(read_fd(info)), boot, spec.network)
        except BaseException:
            child.kill()
            pid = lives.keeper(places, mark.session)
            if pid is not None and (start := alive.start_of(pid)) is not None:
                alive.end(pid, start)
            raise
        finally:
            child.kill()
            child.wait()


def _make_mount_points(places: Places, mark: Mark, home: str, sources: Sequence[str], lock: int) -> None:
    """Makes what is mounted upon in the home and the workspace, which nobody else can reach now.

    Left to bwrap, a link of the agent's would lead it to make directories in the host's file system.
    """
    paths = [mount.path for mount in mark.made_of.spec.mounts]
    for path in paths:
        if path.startswith(f"{HOME}/"):
            try:
                beneath.make_directory(home, path.removeprefix(f"{HOME}/"), places.owner)
            except OSError as error:
                raise _unmountable(f"{path}: {error.strerror}", home) from error
    below = [path for path in paths if path.startswith(f"{WORKSPACE}/")]
    if below:
        # By overlayfs itself, in a sandbox that holds the lock too, so that it is never one of two.
        moved = profile.moved(mark.workspace, sources)
        words = profile.making(below, moved, host.layout(), os.uname().machine)
        command = launching.watching(host.locate(), words, sources, places.owner)
        done = process.run(command.argv, env=command.env, stdin=lock, timeout=_START_TIMEOUT, check=False)
        if done.code:
            said = done.stderr.decode("utf-8", "backslashreplace").strip().splitlines()[-1:]
            why = said[0] if said else f"{below[0]}: it was not made within the sandbox (code {done.code})"
            raise _unmountable(why, mark.workspace.upper)


def _require_isolated(pid: int | None, boot: str, network: str) -> Life:
    life = alive.life_of(pid, boot) if pid is not None else None
    if pid is None or life is None or not alive.is_init(pid):
        raise BackendError("the sandbox ended as soon as it was started")
    may_share = ("net",) if network == "host" else ()
    if shared := [space for space in alive.shared_spaces(pid) if space not in may_share]:
        raise BackendError(f"bwrap did not isolate the sandbox from the host: {', '.join(shared)} shared")
    return life


def inspection(
    places: Places, mark: Mark, argv: Sequence[str], env: Mapping[str, str], seen: Sequence[Workspace]
) -> Command:
    """Runs `argv` with the host's programs, where it sees the workspaces `seen` and can write none."""
    bwrap = host.locate()
    sources = _sources(places, mark, bwrap, seen=seen)
    moved = [profile.moved(workspace, sources) for workspace in seen]
    words = profile.inspection(argv, env, moved, host.layout(), os.uname().machine)
    return launching.watching(bwrap, words, sources, places.owner)


def _sources(
    places: Places, mark: Mark, bwrap: str, root: profile.Root | None = None, seen: Sequence[Workspace] = ()
) -> list[str]:
    """What launch.py must put where the sandboxes' user reaches it; nothing when we are that user."""
    if not places.owner:
        return []
    layers: list[str] = []
    if root is not None:
        images = f"{places.directory}/images"
        lower = [path for path in root.lower if not path.startswith(f"{images}/")]
        library = [images] if len(lower) < len(root.lower) else []
        layers = [os.path.dirname(root.upper), *lower, *library]
    used = dict.fromkeys(
        path
        for each in seen or (mark.workspace,)
        for path in (each.upper, *each.lower, *(mount.source for mount in each.mounts))
    )
    inside = places.session(mark.session)
    return [*layers, inside, host.home_of(bwrap), *(path for path in used if not path.startswith(f"{inside}/"))]


def _mounted(mount: MountSpec) -> int:
    """A descriptor of the source of `mount`; `BackendError` when it is not as it was when it was allowed."""
    try:
        fd = os.open(mount.source, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise BackendError(
            f"{mount.source} cannot be mounted at {mount.path}: {error.strerror}", hint="sessionctl plan"
        ) from error
    if os.readlink(f"/proc/self/fd/{fd}") == mount.source:
        return fd
    os.close(fd)
    raise BackendError(
        f"{mount.source} is reached by a symbolic link that was not there when it was allowed", hint="sessionctl plan"
    )


def _unmountable(why: str, place: str) -> BackendError:
    return BackendError(f"nothing can be mounted at {why}", hint=f"move away what is there, below {place}")


class _Descriptors:
    """Descriptors that are closed together."""

    def __init__(self) -> None:
        self._open: list[int] = []

    def __enter__(self) -> _Descriptors:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._open:
            os.close(fd)

    def keep(self, fd: int) -> int:
        self._open.append(fd)
        return fd

    def release(self, fd: int) -> int:
        self._open.remove(fd)
        return fd


def _descriptor(content: bytes) -> int:
    fd = os.memfd_create("data")
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _said_ready(fd: int, timeout: float) -> bool:
    """Whether our init wrote its byte within `timeout` seconds; False also when all writers ended."""
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout * 1000)) and os.read(fd, 1) != b""


def _said(log: int) -> str:
    """The last lines of bwrap's complaints, for a person."""
    lines = read_fd(log).decode("utf-8", "backslashreplace").strip().splitlines()[-5:]
    return "\n  ".join(lines) or f"it was not ready within {_START_TIMEOUT:g} s"
