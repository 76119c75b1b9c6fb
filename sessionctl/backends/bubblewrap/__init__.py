"""Sandboxes made by bubblewrap, on the host's own programs or on an image: no daemon, no root.

On disk, below the project's state directory::

    sessions/<name>/home         the session's home, the agent's to write
    sessions/<name>/lock         kept locked by the sandbox that has the session's files mounted
    sessions/<name>/<id>/mark    what the sandbox was made of; written last, removed first
    sessions/<name>/<id>/info    bwrap's own words on what it started; there while it may run
    sessions/<name>/<id>/run     its pid 1, with the proof that it is the one
    sessions/<name>/<id>/groups  the cgroups it has, when it has limits; there while they may be
    sessions/<name>/<id>/paused  there while its processes are paused
    sessions/<name>/<id>/base    where that came from, until there is a mark
    sessions/<name>/<id>/root    what was written over its image; there when it has one
    sessions/<name>/<id>/log     what bwrap complained about at the last start

A sandbox is a directory with a mark. It runs when its pid 1 lives, and that is asked of the kernel
each time. Nothing in <id> can be reached from inside.

As root, bwrap and everything in a sandbox run as `OWNER`: a process of the host's uid 0 owns the
kernel's settings, whatever namespaces and capabilities say (/proc/sys/kernel/core_pattern).

This module may not decide what should exist or run, and may not remove a session's work or home.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from sessionctl import beneath, trees
from sessionctl.backends import Command, Context, Finding, Progress, Refusal, silent
from sessionctl.backends.bubblewrap import alive, launching, profile
from sessionctl.backends.bubblewrap.alive import Life
from sessionctl.errors import BackendError
from sessionctl.model import (
    HOME,
    WORKSPACE,
    Declaration,
    Digests,
    Effect,
    LimitsSpec,
    Mount,
    MountSpec,
    Move,
    Observed,
    SessionSpec,
    Workspace,
    effect_of,
    flat,
    is_id,
    is_name,
    make_id,
    require_name,
)

if TYPE_CHECKING:
    from sessionctl.backends.bubblewrap.limits import Group
    from sessionctl.images import Root

OWNER = 300_000
"""Host uid and gid of root's sandboxes: no account's."""

_NAME = "bubblewrap"
_FORM = 2
"""Version of the mark's form: 2 for sandboxes with an image, which an earlier release would run on the host's root."""
_GROUP_WAIT = 5.0
"""Seconds until a cgroup whose processes were killed has none any more."""
_START_TIMEOUT = 30.0
"""Seconds that mounting may take: a busy disk is no reason to fail, a hung one is."""
_SETTLE_TIMEOUT = 10.0
"""Seconds that a start which lost its starter may take until it is a sandbox or has failed."""
_POLL = 0.02


class _Mark(NamedTuple):
    """What a sandbox was made of."""

    project: str
    session: str
    id: str
    created_at: float
    made_of: Declaration
    workspace: Workspace
    files: Mapping[str, str]
    """Per injected file the SHA-256 of what was last written."""
    clashes: tuple[str, ...]
    form: int = 1
    root: Root | None = None
    """What an image gives; None: the host's programs."""

    def dump(self, directory: str) -> bytes:
        data = {
            **self._asdict(),
            "form": _FORM if self.root else 1,
            "root": self.root and self.root._asdict(),
            "made_of": {"digests": list(self.made_of.digests), "data": self.made_of.data},
            "workspace": self.workspace.data(directory),
        }
        return json.dumps(data, indent=1).encode()

    @classmethod
    def load(cls, text: bytes, directory: str) -> _Mark:
        """`ValueError`, `KeyError` or `TypeError` when `text` is no mark."""
        data = json.loads(text)
        made_of = Declaration(Digests(*data["made_of"]["digests"]), data["made_of"]["data"])
        workspace = Workspace.from_data(data["workspace"], directory)
        known = {name: data[name] for name in cls._fields if name != "root"}
        root = _root(data["root"]) if data.get("root") else None
        return cls(
            **{**known, "made_of": made_of, "workspace": workspace, "clashes": tuple(data["clashes"]), "root": root}
        )


class Backend:
    """The `sessionctl.backends.Backend` of bubblewrap."""

    def __init__(self, context: Context) -> None:
        self._project = context.project
        self._directory = os.fspath(context.directory)
        self._sessions = os.path.join(self._directory, "sessions")
        self._machine = os.uname().machine

    @property
    def owner(self) -> tuple[int, int] | None:
        return (OWNER, OWNER) if os.geteuid() == 0 else None

    # --- what is there ---------------------------------------------------------------------------

    def probe(self, spec: SessionSpec | None = None) -> Sequence[Refusal]:
        """With `spec`, its fields alone, and nothing is tried; without, see `examine`."""
        if spec is not None:
            return _unsupported(spec)
        return [Refusal(f.what, f.why, f.remedy) for f in self._examine(entering=False) if not f.ok]

    def examine(self) -> Sequence[Finding]:
        return self._examine(entering=True)

    def _examine(self, *, entering: bool) -> Sequence[Finding]:
        """Tried once per process: some 20 ms, and 40 with `entering`."""
        from sessionctl.backends.bubblewrap import host

        return host.examine(self._directory, self.owner, entering=entering)

    def strikes(self, target: Observed) -> Mapping[str, int]:
        made = self._groups(*self._require_place(target))
        if not made:
            return {}
        from sessionctl.backends.bubblewrap import limits

        return limits.strikes(made)

    def observe(self, *, session: str | None = None, deep: bool = False) -> Sequence[Observed]:
        boot = alive.boot_id()
        try:
            if session is not None:
                names = [require_name(session)]
            else:
                with os.scandir(self._sessions) as entries:
                    names = sorted(e.name for e in entries if is_name(e.name) and e.is_dir(follow_symlinks=False))
            found = [observed for name in names for observed in self._observe_session(name, boot)]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise BackendError(f"{error.filename or self._sessions} cannot be read: {error.strerror}") from error
        return _with_busy(found) if deep else found

    def _observe_session(self, name: str, boot: str) -> list[Observed]:
        try:
            names = os.listdir(self._session(name))
        except FileNotFoundError:
            return []  # removed meanwhile
        ids = sorted(filter(is_id, names))
        if not ids and ("work" in names or "home" in names):
            return [Observed(name, "", _NAME, "partial")]
        return [self._observe(name, id, boot) for id in ids]

    def _observe(self, name: str, id: str, boot: str) -> Observed:
        life = self._life(name, id, boot)
        if life is None and os.path.exists(self._file(name, id, "groups")):
            self._release_groups(name, id, boot)
        pid, started_at = (life.pid, life.started_at) if life else (None, None)
        try:
            mark = _Mark.load(_read(self._file(name, id, "mark")), self._directory)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return Observed(name, id, _NAME, "partial", pid=pid, started_at=started_at)
        if life is None and not all(map(os.path.isdir, [mark.workspace.upper, *self._lower(mark)])):
            return Observed(name, id, _NAME, "partial")  # its work or image is gone: it has nothing to run on any more
        return Observed(
            session=name,
            id=id,
            backend=_NAME,
            status="running" if life else "stopped",
            made_of=mark.made_of,
            workspace=mark.workspace,
            pid=pid,
            started_at=started_at,
            drift=self._drift(mark, name, id) or (life and self._astray(mark, life.pid)) or "",
            clashes=mark.clashes,
            not_enforced=self._not_enforced(mark, running=life is not None),
        )

    def _not_enforced(self, mark: _Mark, *, running: bool) -> tuple[str, ...]:
        declared = LimitsSpec.of(mark.made_of.data)
        if declared == LimitsSpec():
            return ()
        from sessionctl.backends.bubblewrap import limits

        there = {group.limit for group in self._groups(mark.session, mark.id)} if running else limits.means().limits
        return tuple(each.what.removeprefix("limits.") for each in limits.unenforced(declared, there, ""))

    def _drift(self, mark: _Mark, name: str, id: str) -> str:
        if mark.form > _FORM:
            return f"its mark was written by a later release (form {mark.form}, this one knows {_FORM})"
        for what, says, place in (
            ("project", mark.project, self._project),
            ("session", mark.session, name),
            ("sandbox", mark.id, id),
        ):
            if says != place:
                return f"its mark says {what} {says!a}, and it stands where {what} {place!a} belongs"
        return ""

    def _astray(self, mark: _Mark, pid: int) -> str:
        """Why what a sandbox writes does not come here: it was started on a directory that this is a copy of."""
        if alive.has_mounted(pid, f"{self._session(mark.session)}/home") is not False:
            return ""
        return (
            "it runs on other files than the ones here: this state directory was copied, or restored, while it ran"
            f" (what it wrote since then is not here; to go on with what is: sessionctl stop {mark.session})"
        )

    def _life(self, name: str, id: str, boot: str) -> Life | None:
        """The life of a sandbox that is whole: one that is still being set up must not be entered."""
        life = self._pid1(name, id, boot)
        return life if life and (os.path.exists(self._file(name, id, "run")) or alive.is_init(life.pid)) else None

    def _pid1(self, name: str, id: str, boot: str) -> Life | None:
        """The life of a sandbox's first process, whole or still being set up; None when there is none."""
        try:
            life = Life(*json.loads(_read(self._file(name, id, "run"))))
            return life if alive.is_lived(life, boot) else None
        except (FileNotFoundError, ValueError, TypeError):
            pass
        try:
            info = _read(self._file(name, id, "info"))
        except FileNotFoundError:
            return None
        # Whoever started it was killed before it could write down what it had started.
        pid = self._keeper(name)
        return alive.life_of(pid, boot) if pid is not None and _child_pid(info) in (None, pid) else None

    # --- what is changed -------------------------------------------------------------------------

    def create(
        self, spec: SessionSpec, workspace: Workspace, progress: Progress = silent, *, base: str = ""
    ) -> Observed:
        name = require_name(spec.name)
        declaration = Declaration.of(spec)
        boot = alive.boot_id()
        self._make_directories(name)
        last: Observed | None = None
        for observed in self._observe_session(name, boot):
            if observed.made_of is not None and not observed.drift:
                if observed.made_of.digests.replace == declaration.digests.replace:
                    return observed
                last = observed
        root = self._unpacked(spec, progress)
        before = self._load(last) if last else None
        written = self._inject(name, declaration, before)
        id = make_id(time.strftime("%Y%m%dT%H%M%S", time.gmtime()), os.urandom(4))
        os.mkdir(os.path.join(self._session(name), id), 0o700)
        mark = _Mark(self._project, name, id, time.time(), declaration, workspace, *written, root=root)
        if root is not None:
            self._furnish(mark, root, base)
        beneath.publish(self._file(name, id, "mark"), mark.dump(self._directory))
        with suppress(FileNotFoundError):
            os.unlink(self._file(name, id, "base"))
        return self._observe(name, id, boot)

    def update(self, target: Observed, spec: SessionSpec) -> Observed:
        mark = self._load(target)
        boot = alive.boot_id()
        life = self._life(target.session, target.id, boot)
        effects: set[Effect] = {"in-place"} if life else {"in-place", "restart"}
        before = mark.made_of.spec.data()  # a mark of an earlier release lacks what came later
        declaration = Declaration.of(SessionSpec.from_data(_merged(before, spec.data(), effects)))
        declared = LimitsSpec.of(declaration.data)
        if life is not None and declared != LimitsSpec.of(mark.made_of.data):
            self._require_enforced(mark._replace(made_of=declaration))
            self._limit(target.session, target.id, declared, life)
        files, clashes = self._inject(target.session, declaration, mark)
        mark = mark._replace(made_of=declaration, files=files, clashes=clashes)
        beneath.publish(self._file(target.session, target.id, "mark"), mark.dump(self._directory))
        return self._observe(target.session, target.id, boot)

    def start(self, target: Observed) -> Observed:
        mark = self._load(target)
        boot = alive.boot_id()
        life = self._life(target.session, target.id, boot)
        if life is None:
            self._require_enforced(mark)
            self._make_directories(target.session)  # a prune that was killed may have taken the home
            with self._locked(target.session) as (lock, free):
                if not free:
                    life = self._awaited(target, lock, boot, self._life)
                if life is None:
                    # Who holds the lock knows that no sandbox of the session lives, whatever was left behind.
                    for id in filter(is_id, os.listdir(self._session(target.session))):
                        self._forget_life(target.session, id)
                    made = self._make_groups(mark.session, mark.id, LimitsSpec.of(mark.made_of.data))
                    life = self._spawn(mark, lock, boot, made)
        if not os.path.exists(self._file(target.session, target.id, "run")):
            # Not synced: it is worth nothing after a power cut, and cut short it is as if it were not there.
            _write(self._file(target.session, target.id, "run"), json.dumps(life).encode())
        return self._observe(target.session, target.id, boot)

    def stop(self, target: Observed) -> None:
        name, id = self._require_place(target)
        boot = alive.boot_id()
        life = self._pid1(name, id, boot)
        if life is None and os.path.exists(self._file(name, id, "info")):
            with self._locked(name) as (lock, free):
                life = None if free else self._awaited(target, lock, boot, self._pid1)
        if life is not None:
            alive.end(life.pid, life.start)
        self._forget_life(name, id)

    @contextmanager
    def paused(self, target: Observed) -> Iterator[None]:
        name, id = self._require_place(target)
        life = self._life(name, id, alive.boot_id())
        if life is None:
            yield
            return
        from sessionctl.backends.bubblewrap import pausing

        _write(self._file(name, id, "paused"), b"")
        with pausing.paused(life.pid, name):
            yield
        os.unlink(self._file(name, id, "paused"))

    def recover(self) -> None:
        boot = alive.boot_id()
        for observed in self.observe():
            file = self._file(observed.session, observed.id, "paused")
            if observed.id and os.path.exists(file):
                life = self._life(observed.session, observed.id, boot)
                if life is not None:
                    from sessionctl.backends.bubblewrap import pausing

                    pausing.let_go(life.pid)
                os.unlink(file)

    def freeze(self, target: Observed, place: str, *, move: bool = False) -> bool:
        own = self._file(*self._require_place(target), "root")
        if not os.path.lexists(own):
            return False  # all that is written in it is in its work and its home
        if move:
            os.rename(own, place)
        else:
            os.mkdir(place, 0o700)
            trees.copy(os.path.join(own, "upper"), os.path.join(place, "upper"))
        return True

    def renamed(self, old: str, new: str) -> None:
        for id in filter(is_id, os.listdir(self._session(require_name(new)))):
            try:
                mark = _Mark.load(_read(self._file(new, id, "mark")), self._directory)
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                continue  # half made, whatever it is called
            if mark.session == old and mark.project == self._project:
                stack = mark.workspace.renamed(self._directory, old, new)
                mark = mark._replace(session=new, made_of=mark.made_of.called(new), workspace=stack)
                beneath.publish(self._file(new, id, "mark"), mark.dump(self._directory))

    def moved(self, move: Move) -> None:
        # Not what `observe` calls whole: a workspace that was moved is not where its mark says.
        for name, id in ((each.session, each.id) for each in self.observe() if each.id):
            try:
                mark = _Mark.load(_read(self._file(name, id, "mark")), self._directory)
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                continue  # half made, wherever it is
            if mark.project == move.project:
                stack, made_of = mark.workspace.moved(move.path), mark.made_of.moved(move.path)
                mark = mark._replace(project=move.to, workspace=stack, made_of=made_of)
                beneath.publish(self._file(name, id, "mark"), mark.dump(self._directory))

    def remove(self, target: Observed) -> None:
        if not target.id:
            return  # only the session's own files are there, and they are not ours
        name, id = self._require_place(target)
        observed = self._observe(name, id, alive.boot_id())
        if observed.status == "running":
            raise BackendError(f"sandbox {id} of session {name} is running", hint=f"sessionctl stop {name}")
        self.stop(observed)  # a partial one is nobody's: nothing that still runs in it may stay behind
        if not os.path.lexists(self._file(name, id, "mark")):
            self._give_back(name, id)
        with suppress(FileNotFoundError):
            os.unlink(self._file(name, id, "mark"))
        try:
            beneath.remove_tree(os.path.join(self._session(name), id))
        except OSError as error:
            raise BackendError(f"{error.filename} cannot be removed: {error.strerror}") from error

    def command(
        self,
        target: Observed,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        tty: bool = False,
        inspect: bool = False,
        seen: Sequence[Workspace] = (),
    ) -> Command:
        if not argv:
            raise BackendError("there is no command to run")
        mark = self._load(target)
        if inspect:
            return self._inspection(mark, argv, env or {}, seen or (mark.workspace,))
        life = self._life(target.session, target.id, alive.boot_id())
        if life is None:
            raise BackendError(f"session {target.session} is not running", hint=f"sessionctl start {target.session}")
        terminal = {"TERM": os.environ.get("TERM", "xterm-256color")} if tty else {}
        plain = {name: value for name, value in mark.made_of.data["env"].items() if isinstance(value, str)}
        variables = {**self._environment(mark), **terminal, **plain, **(env or {})}
        return launching.entering(
            argv,
            variables,
            life.pid,
            life.start,
            tty=tty,
            machine=self._machine,
            owner=self.owner,
            host_network=mark.made_of.data["network"] == "host",
            alone=mark.root is not None,
            **self._limits_of_a_command(mark),
        )

    # --- how -------------------------------------------------------------------------------------

    # Images: unpacked by `images.library`, whose directories are mounted as they are.

    def _unpacked(self, spec: SessionSpec, progress: Progress) -> Root | None:
        if spec.image == "host":
            return None
        from sessionctl import images
        from sessionctl.images import library

        wanted = None
        if spec.image_extra:
            wanted = library.Extra(spec.image_extra, spec.image_extra_digest, profile.PATH)
        reference = images.parse(spec.image)
        if reference is None or not spec.image_digest:
            raise BackendError(f"{spec.image!a} is no image that was resolved", hint="sessionctl plan")
        return library.prepare(self._directory, reference, spec.image_digest, self.owner, progress, wanted)

    def _furnish(self, mark: _Mark, root: Root, base: str) -> None:
        from sessionctl.backends.bubblewrap import rooting

        stacked = self._stacked(mark)
        assert stacked is not None
        os.mkdir(os.path.dirname(stacked.upper), 0o711)  # its user passes through, where it is mounted
        if base:
            # Until there is a mark, `remove` puts them back: whatever ends this half-way.
            beneath.publish(self._file(mark.session, mark.id, "base"), os.path.relpath(base, self._directory).encode())
            os.rename(os.path.join(base, "upper"), stacked.upper)
        for path in (stacked.scratch,) if base else (stacked.upper, stacked.scratch):
            os.mkdir(path, 0o755)
            if self.owner:
                os.chown(path, *self.owner)
        if not base:
            rooting.furnish(mark.session, root, [stacked.upper, *reversed(stacked.lower)], self.owner)

    def _give_back(self, name: str, id: str) -> None:
        """Puts the files that a sandbox was to begin with back where `create`, which was killed, took them from."""
        try:
            base = os.path.join(self._directory, os.fsdecode(_read(self._file(name, id, "base"))))
        except FileNotFoundError:
            return
        upper = self._file(name, id, "root/upper")
        if os.path.lexists(upper) and not os.path.lexists(os.path.join(base, "upper")):
            os.rename(upper, os.path.join(base, "upper"))

    def _environment(self, mark: _Mark) -> Mapping[str, str]:
        """What commands inside start from."""
        if mark.root is None:
            return profile.environment()
        ours = profile.environment(user=mark.root.user or ("root" if mark.root.uid == 0 else profile.USER))
        # An image may say where its programs are; where the home is, it cannot know.
        found = {**ours, **mark.root.env, **{name: ours[name] for name in ("HOME", "USER", "LOGNAME")}}
        if mark.root.extra:
            from sessionctl.images import extra

            found["PATH"] += f":{extra.BIN}"
        return found

    def _lower(self, mark: _Mark) -> list[str]:
        """The directories of the mark's image, bottom first."""
        return [os.path.join(self._directory, path) for path in mark.root.lower] if mark.root else []

    def _stacked(self, mark: _Mark) -> profile.Root | None:
        if mark.root is None:
            return None
        place = self._file(mark.session, mark.id, "root")
        return profile.Root(
            tuple(self._lower(mark)), f"{place}/upper", f"{place}/scratch", mark.root.uid, mark.root.gid
        )

    def _require_points(self, mark: _Mark, root: profile.Root, resolver: bytes | None) -> None:
        """Makes ready what bwrap mounts upon in an image, and what it needs to look names up."""
        from sessionctl.backends.bubblewrap import rooting

        layers = [root.upper, *reversed(root.lower)]
        for path in root.lower:
            if os.path.realpath(path) != path and not path.startswith(f"{self._directory}/"):
                raise BackendError(f"{path} became a symbolic link: its session cannot run on it")
        points = dict.fromkeys(profile.POINTS, True)
        mounts: list[Mount | MountSpec] = [*mark.workspace.mounts, *mark.made_of.spec.mounts]
        ours = (f"{HOME}/", f"{profile.INTERNAL}/", "/tmp/", "/dev/", "/proc/")
        points |= {each.path: os.path.isdir(each.source) for each in mounts if not each.path.startswith(ours)}
        rooting.require_points(layers, points, self.owner)
        if resolver is not None:
            rooting.write(layers, "etc/resolv.conf", resolver, self.owner)

    # Limits: which cgroups there are is written down before they are made, and as long as they may be.

    def _require_enforced(self, mark: _Mark) -> None:
        """`BackendError` when a limit that must hold cannot: the machine, or who we are, changed since the plan."""
        declared = LimitsSpec.of(mark.made_of.data)
        if declared.enforce == "strict" and declared != LimitsSpec():
            for refusal in _unsupported_limits(declared):
                raise BackendError(f"{refusal.what}: {refusal.why}", hint=refusal.remedy)

    def _limits_of_a_command(self, mark: _Mark) -> dict[str, Any]:
        """What `launching.entering` must know of limits."""
        declared, made = LimitsSpec.of(mark.made_of.data), self._groups(mark.session, mark.id)
        if declared == LimitsSpec() and not made:
            return {}
        from sessionctl.backends.bubblewrap import limits

        return {
            "groups": [group.procs for group in made],
            "rlimits": limits.rlimits(declared, made),
            "processors": limits.processors(declared, made, mark.id, os.sched_getaffinity(0)),
        }

    def _groups(self, name: str, id: str) -> list[Group]:
        try:
            content = _read(self._file(name, id, "groups"))
        except FileNotFoundError:
            return []
        from sessionctl.backends.bubblewrap import limits

        return limits.load(content)

    def _make_groups(self, name: str, id: str, declared: LimitsSpec) -> list[Group]:
        """The cgroups of a sandbox, with the values of `declared`. Those that it has already stay, also unlimited."""
        made = self._groups(name, id)
        if declared == LimitsSpec() and not made:
            return []
        from sessionctl.backends.bubblewrap import limits

        if declared != LimitsSpec():
            wanted = limits.groups(declared, limits.means(), self._project, name, id)
            more = [group for group in wanted if group.limit not in {each.limit for each in made}]
            if more:
                made += more
                beneath.publish(self._file(name, id, "groups"), limits.dump(made))
        limits.make(made, declared)
        return made

    def _limit(self, name: str, id: str, declared: LimitsSpec, life: Life) -> None:
        """Limits a running sandbox to `declared`, with all that runs in it."""
        from sessionctl.backends.bubblewrap import limits

        made = self._make_groups(name, id, declared)
        space = alive.pid_namespace(life.pid)
        if not space:
            raise BackendError(f"the processes of {name} cannot be found", hint=f"sessionctl stop {name}")
        # Again until none is new: one that was being moved may have had a child, which is where it was.
        moved: set[int] = set()
        while new := set(alive.members(space)) - moved:
            limits.take_in(made, new)
            moved |= new

    def _remove_groups(self, name: str, id: str, wait: float = _GROUP_WAIT) -> None:
        made = self._groups(name, id)
        if made:
            from sessionctl.backends.bubblewrap import limits

            limits.remove(made, wait)
        with suppress(FileNotFoundError):
            os.unlink(self._file(name, id, "groups"))

    def _release_groups(self, name: str, id: str, boot: str) -> None:
        """Removes the cgroups of a sandbox that has ended by itself, unless it is just being started or stopped."""
        with self._locked(name) as (_, free):
            if free and self._pid1(name, id, boot) is None:
                self._remove_groups(name, id, wait=0)

    def _spawn(self, mark: _Mark, lock: int, boot: str, groups: Sequence[Group]) -> Life:
        """Starts bwrap, and returns when its pid 1 has become our init, which holds `lock` from then on.

        bwrap itself only waits then: it is ended, so that nobody has to reap it later.
        """
        from sessionctl import process
        from sessionctl.backends.bubblewrap import host

        session = self._session(mark.session)
        home, bwrap = os.path.join(session, "home"), host.locate()
        root = self._stacked(mark)
        sources = self._sources(mark, bwrap, root)
        spec = mark.made_of.spec
        resolver = host.resolver() if spec.network == "host" else None
        if root is not None:
            self._require_points(mark, root, resolver)
        fresh = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with _Descriptors() as fds:
            mounted = [fds.keep(_mounted(mount)) for mount in spec.mounts]
            self._make_mount_points(mark, home, sources, lock)
            words = profile.session(
                mark.session,
                profile.move(home, sources),
                profile.moved(mark.workspace, sources),
                host.layout(),
                self._machine,
                given=profile.given(spec.mounts, [f"/run/{len(sources) + n}" for n in range(len(mounted))])
                if self.owner
                else profile.given(spec.mounts, mounted),
                resolver=resolver,
                root=root and root.moved(sources),
            )
            info = fds.keep(os.open(self._file(mark.session, mark.id, "info"), fresh, 0o600))
            log = fds.keep(os.open(self._file(mark.session, mark.id, "log"), fresh, 0o600))
            ready, says_ready = map(fds.keep, os.pipe())
            data = [fds.keep(_descriptor(word)) for word in words if isinstance(word, bytes)]
            numbers = map(str, data)
            plain = [next(numbers) if isinstance(word, bytes) else word for word in words]
            real = [mount.source for mount in spec.mounts] if self.owner else []
            joined = [group.procs for group in groups]
            command = launching.starting(bwrap, ["--info-fd", str(info), *plain], sources, self.owner, real, joined)
            child = process.spawn(
                command.argv,
                env=command.env,
                stdout=says_ready,
                stderr=log,
                pass_fds=[lock, info, *data, *([] if self.owner else mounted)],
                new_session=True,
            )
            try:
                os.close(fds.release(says_ready))
                if not _said_ready(ready, _START_TIMEOUT):
                    raise BackendError(f"the sandbox of {mark.session} did not start: {_said(log)}")
                return self._require_isolated(_child_pid(_read_fd(info)), boot, spec.network)
            except BaseException:
                child.kill()
                pid = self._keeper(mark.session)
                if pid is not None and (start := alive.start_of(pid)) is not None:
                    alive.end(pid, start)
                raise
            finally:
                child.kill()
                child.wait()

    def _make_mount_points(self, mark: _Mark, home: str, sources: Sequence[str], lock: int) -> None:
        """Makes what is mounted upon in the home and the workspace, which nobody else can reach now.

        Left to bwrap, a link of the agent's would lead it to make directories in the host's file system.
        """
        from sessionctl import process
        from sessionctl.backends.bubblewrap import host

        paths = [mount.path for mount in mark.made_of.spec.mounts]
        for path in paths:
            if path.startswith(f"{HOME}/"):
                try:
                    beneath.make_directory(home, path.removeprefix(f"{HOME}/"), self.owner)
                except OSError as error:
                    raise _unmountable(f"{path}: {error.strerror}", home) from error
        below = [path for path in paths if path.startswith(f"{WORKSPACE}/")]
        if below:
            # By overlayfs itself, in a sandbox that holds the lock too, so that it is never one of two.
            moved = profile.moved(mark.workspace, sources)
            words = profile.making(below, moved, host.layout(), self._machine)
            command = launching.watching(host.locate(), words, sources, self.owner)
            done = process.run(command.argv, env=command.env, stdin=lock, timeout=_START_TIMEOUT, check=False)
            if done.code:
                said = done.stderr.decode("utf-8", "backslashreplace").strip().splitlines()[-1:]
                why = said[0] if said else f"{below[0]}: it was not made within the sandbox (code {done.code})"
                raise _unmountable(why, mark.workspace.upper)

    def _require_isolated(self, pid: int | None, boot: str, network: str) -> Life:
        life = alive.life_of(pid, boot) if pid is not None else None
        if pid is None or life is None or not alive.is_init(pid):
            raise BackendError("the sandbox ended as soon as it was started")
        may_share = ("net",) if network == "host" else ()
        if shared := [space for space in alive.shared_spaces(pid) if space not in may_share]:
            raise BackendError(f"bwrap did not isolate the sandbox from the host: {', '.join(shared)} shared")
        return life

    def _inspection(
        self, mark: _Mark, argv: Sequence[str], env: Mapping[str, str], seen: Sequence[Workspace]
    ) -> Command:
        from sessionctl.backends.bubblewrap import host

        bwrap = host.locate()
        sources = self._sources(mark, bwrap, seen=seen)
        moved = [profile.moved(workspace, sources) for workspace in seen]
        words = profile.inspection(argv, env, moved, host.layout(), self._machine)
        return launching.watching(bwrap, words, sources, self.owner)

    def _sources(
        self, mark: _Mark, bwrap: str, root: profile.Root | None = None, seen: Sequence[Workspace] = ()
    ) -> list[str]:
        """What launch.py must put where the sandboxes' user reaches it; nothing when we are that user."""
        if not self.owner:
            return []
        from sessionctl.backends.bubblewrap import host

        layers: list[str] = []
        if root is not None:
            images = f"{self._directory}/images"
            lower = [path for path in root.lower if not path.startswith(f"{images}/")]
            library = [images] if len(lower) < len(root.lower) else []
            layers = [os.path.dirname(root.upper), *lower, *library]
        used = dict.fromkeys(
            path
            for each in seen or (mark.workspace,)
            for path in (each.upper, *each.lower, *(mount.source for mount in each.mounts))
        )
        inside = self._session(mark.session)
        return [*layers, inside, host.home_of(bwrap), *(path for path in used if not path.startswith(f"{inside}/"))]

    def _inject(
        self, name: str, declaration: Declaration, before: _Mark | None
    ) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Writes the declared files into the home; what was last written of them, and what clashes."""
        files = declaration.data["files"]
        if not files and before is None:
            return {}, ()
        from sessionctl.backends.bubblewrap import injected

        home = os.path.join(self._session(name), "home")
        then = before.made_of.spec.files if before else ()
        return injected.write(home, declaration.spec.files, then, before.files if before else {}, self.owner)

    def _make_directories(self, name: str) -> None:
        session = self._session(name)
        os.makedirs(self._directory, 0o700, exist_ok=True)
        for path in (self._sessions, session, os.path.join(session, "home")):
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
                if self.owner and path.endswith("/home"):
                    os.chown(path, *self.owner)
        if self.owner:
            os.chmod(session, 0o711)  # its user passes through, to work and home

    @contextmanager
    def _locked(self, name: str) -> Iterator[tuple[int, bool]]:
        """The session's lock, and whether it is ours: then also of every process that it is passed on to."""
        fd = os.open(self._lock(name), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            yield fd, _taken(fd)
        finally:
            os.close(fd)

    def _awaited(
        self, target: Observed, lock: int, boot: str, look: Callable[[str, str, str], Life | None]
    ) -> Life | None:
        """What `look` finds of `target`, which somebody who was killed had begun to start; None once `lock` is
        ours, for then it has ended."""
        name = target.session
        others = [each for each in filter(is_id, os.listdir(self._session(name))) if each != target.id]
        deadline = time.monotonic() + _SETTLE_TIMEOUT
        while not _taken(lock):
            life = look(name, target.id, boot)
            if life is not None:
                return life
            if time.monotonic() >= deadline or any(self._life(name, other, boot) for other in others):
                raise BackendError(
                    f"the files of session {name} are in use by another sandbox, or one that is being started",
                    hint=f"sessionctl stop {name}",
                )
            time.sleep(_POLL)
        return None

    def _keeper(self, name: str) -> int | None:
        return alive.keeper(self._lock(name), f"{self._session(name)}/home")

    def _forget_life(self, name: str, id: str) -> None:
        self._remove_groups(name, id)
        for file in ("run", "info"):
            with suppress(FileNotFoundError):
                os.unlink(self._file(name, id, file))

    def _load(self, target: Observed) -> _Mark:
        name, id = self._require_place(target)
        try:
            return _Mark.load(_read(self._file(name, id, "mark")), self._directory)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BackendError(f"session {name} has no ready sandbox {id}", hint="sessionctl apply") from error

    def _require_place(self, target: Observed) -> tuple[str, str]:
        if not is_id(target.id):
            raise BackendError(f"session {target.session} has no sandbox", hint="sessionctl apply")
        return require_name(target.session), target.id

    def _session(self, name: str) -> str:
        return f"{self._sessions}/{name}"

    def _lock(self, name: str) -> str:
        return f"{self._sessions}/{name}/lock"

    def _file(self, name: str, id: str, file: str) -> str:
        return f"{self._sessions}/{name}/{id}/{file}"


def _root(data: Mapping[str, Any]) -> Root:
    from sessionctl.images import Root

    return Root(**{**data, "lower": tuple(data["lower"]), "extra": tuple(data.get("extra", ()))})


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unmountable(why: str, place: str) -> BackendError:
    return BackendError(f"nothing can be mounted at {why}", hint=f"move away what is there, below {place}")


def _unsupported(spec: SessionSpec) -> list[Refusal]:
    refusals = []
    if spec.image != "host":
        from sessionctl import images

        if images.parse(spec.image) is None:
            known = "host, rootfs:DIR, archive:FILE or oci:LAYOUT[:TAG]"
            refusals.append(Refusal("image", f"bubblewrap cannot use {spec.image!a}", known))
    for mount in spec.mounts:
        if mount.path.startswith((f"{HOME}/", f"{WORKSPACE}/")) and os.path.isfile(mount.source):
            why = f"a file cannot be mounted in the home or the workspace ({mount.path})"
            refusals.append(Refusal("mounts", why, "mount its directory, or use `files`"))
    return [*refusals, *_unsupported_limits(spec.limits)]


def _unsupported_limits(declared: LimitsSpec) -> list[Refusal]:
    if declared == LimitsSpec():
        return []
    from sessionctl.backends.bubblewrap import limits

    found = limits.means()
    return limits.unenforced(declared, found.limits, found.missing)


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


def _merged(old: Mapping[str, Any], new: Mapping[str, Any], effects: set[Effect], prefix: str = "") -> dict[str, Any]:
    """`new` in the fields whose change costs one of `effects`, `old` in the others."""
    same_image = flat(old).get("image") == flat(new).get("image") if not prefix else False
    return {
        key: (value if same_image else old[key])
        if key in ("image", "image_digest", "image_outside")
        else old[key]
        if key == "image_extra_digest"
        else _merged(old[key], value, effects, "workspace.")
        if key == "workspace"
        else (value if key == "name" or effect_of(prefix + key) in effects else old[key])
        for key, value in new.items()
    }


def _with_busy(found: Sequence[Observed]) -> list[Observed]:
    populations = alive.populations()
    spaces = [alive.pid_namespace(observed.pid) if observed.pid else "" for observed in found]
    return [
        observed._replace(busy=populations.get(space, 0) > 1) if space else observed
        for observed, space in zip(found, spaces, strict=True)
    ]


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
    lines = _read_fd(log).decode("utf-8", "backslashreplace").strip().splitlines()[-5:]
    return "\n  ".join(lines) or f"it was not ready within {_START_TIMEOUT:g} s"


def _child_pid(info: bytes) -> int | None:
    """The pid in what bwrap wrote; None when it did not come to write all of it."""
    try:
        return int(json.loads(info)["child-pid"])
    except (ValueError, KeyError, TypeError):
        return None


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return _read_fd(fd)
    finally:
        os.close(fd)


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def _read_fd(fd: int) -> bytes:
    os.lseek(fd, 0, os.SEEK_SET)
    parts = []
    while part := os.read(fd, 1 << 16):
        parts.append(part)
    return b"".join(parts)
