"""Sandboxes made by bubblewrap, on the host's own programs or on an image: no daemon, no root.

On disk, below the project's state directory::

    sessions/<name>/home         the session's home, the agent's to write
    sessions/<name>/lock         kept locked by the sandbox that has the session's files mounted
    sessions/<name>/<id>/mark    what the sandbox was made of; written last, removed first
    sessions/<name>/<id>/info    bwrap's own words on what it started; there while it may run
    sessions/<name>/<id>/run     its pid 1, with the proof that it is the one
    sessions/<name>/<id>/groups  the cgroups it has, when it has limits; there while they may be
    sessions/<name>/<id>/paused  there while its processes are paused
    sessions/<name>/<id>/root    what was written over its image; there when it has one
    sessions/<name>/<id>/base    where that came from, until there is a mark
    sessions/<name>/<id>/log     what bwrap complained about at the last start

A sandbox is a directory with a mark. It runs when its pid 1 lives, and that is asked of the kernel
each time. Nothing in <id> can be reached from inside.

As root, bwrap and everything in a sandbox run as `OWNER`: a process of the host's uid 0 owns the
kernel's settings, whatever namespaces and capabilities say (/proc/sys/kernel/core_pattern).

Here is what can be asked of a sandbox. What is where on disk is `places`, what a sandbox was made of `marks`, whether
it lives `lives` and `alive`, what is seen of it `observing`; `starting` runs bwrap, with the words of `profile` and
the scripts of `launching`; `stacking` and `rooting` are for images, `grouping` and `limits` for limits. `refusing` and
`host` say what cannot be had.

This package may not decide what should exist or run, and may not remove a session's work or home.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from sessionctl import beneath, trees
from sessionctl.backends import Command, Context, Finding, Progress, Refusal, silent
from sessionctl.backends.bubblewrap import alive, grouping, lives, marks, observing
from sessionctl.backends.bubblewrap.marks import Mark
from sessionctl.backends.bubblewrap.places import OWNER, Places, write
from sessionctl.errors import BackendError
from sessionctl.model import (
    Declaration,
    Effect,
    LimitsSpec,
    Move,
    Observed,
    SessionSpec,
    Workspace,
    is_id,
    make_id,
    require_name,
)

__all__ = ["OWNER", "Backend"]


class Backend:
    """The `sessionctl.backends.Backend` of bubblewrap."""

    def __init__(self, context: Context) -> None:
        self._places = Places(context.project, os.fspath(context.directory))

    @property
    def owner(self) -> tuple[int, int] | None:
        return self._places.owner

    # --- what is there ---------------------------------------------------------------------------

    def probe(self, spec: SessionSpec | None = None) -> Sequence[Refusal]:
        """With `spec`, its fields alone, and nothing is tried; without, see `examine`."""
        if spec is not None:
            from sessionctl.backends.bubblewrap import refusing

            return refusing.unsupported(spec)
        return [Refusal(f.what, f.why, f.remedy) for f in self._examine(entering=False) if not f.ok]

    def examine(self) -> Sequence[Finding]:
        return self._examine(entering=True)

    def _examine(self, *, entering: bool) -> Sequence[Finding]:
        """Tried once per process: some 20 ms, and 40 with `entering`."""
        from sessionctl.backends.bubblewrap import host

        return host.examine(self._places.directory, self._places.owner, entering=entering)

    def strikes(self, target: Observed) -> Mapping[str, int]:
        made = grouping.groups(self._places, *self._places.require(target))
        if not made:
            return {}
        from sessionctl.backends.bubblewrap import limits

        return limits.strikes(made)

    def observe(self, *, session: str | None = None, deep: bool = False) -> Sequence[Observed]:
        boot = alive.boot_id()
        try:
            names = [require_name(session)] if session is not None else observing.sessions(self._places)
            found = [observed for name in names for observed in observing.of_session(self._places, name, boot)]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise BackendError(f"{error.filename or self._places.sessions} cannot be read: {error.strerror}") from error
        return observing.with_busy(found) if deep else found

    # --- what is changed -------------------------------------------------------------------------

    def create(
        self, spec: SessionSpec, workspace: Workspace, progress: Progress = silent, *, base: str = ""
    ) -> Observed:
        places = self._places
        name = require_name(spec.name)
        declaration = Declaration.of(spec)
        boot = alive.boot_id()
        places.make_directories(name)
        last: Observed | None = None
        for observed in observing.of_session(places, name, boot):
            if observed.status != "partial" and observed.made_of is not None and not observed.drift:
                if observed.made_of.digests.replace == declaration.digests.replace:
                    return observed
                last = observed
        from sessionctl.backends.bubblewrap import stacking

        root = stacking.unpacked(places, spec, progress)
        before = marks.require(places, last) if last else None
        written = self._inject(name, declaration, before)
        id = make_id(time.strftime("%Y%m%dT%H%M%S", time.gmtime()), os.urandom(4))
        os.mkdir(os.path.join(places.session(name), id), 0o700)
        mark = Mark(places.project, name, id, time.time(), declaration, workspace, *written, root=root)
        if root is not None:
            stacking.furnish(places, mark, root, base)
        marks.publish(places, name, id, mark)
        with suppress(FileNotFoundError):
            os.unlink(places.file(name, id, "base"))
        return observing.observe(places, name, id, boot)

    def update(self, target: Observed, spec: SessionSpec) -> Observed:
        places = self._places
        mark = marks.require(places, target)
        boot = alive.boot_id()
        life = lives.whole(places, target.session, target.id, boot)
        effects: set[Effect] = {"in-place"} if life else {"in-place", "restart"}
        before = mark.made_of.spec.data()  # a mark of an earlier release lacks what came later
        declaration = Declaration.of(SessionSpec.from_data(marks.merged(before, spec.data(), effects)))
        declared = LimitsSpec.of(declaration.data)
        if life is not None and declared != LimitsSpec.of(mark.made_of.data):
            grouping.require_enforced(mark._replace(made_of=declaration))
            grouping.limit(places, target.session, target.id, declared, life)
        files, clashes = self._inject(target.session, declaration, mark)
        mark = mark._replace(made_of=declaration, files=files, clashes=clashes)
        marks.publish(places, target.session, target.id, mark)
        return observing.observe(places, target.session, target.id, boot)

    def start(self, target: Observed) -> Observed:
        places = self._places
        mark = marks.require(places, target)
        boot = alive.boot_id()
        life = lives.whole(places, target.session, target.id, boot)
        if life is None:
            from sessionctl.backends.bubblewrap import starting

            grouping.require_enforced(mark)
            places.make_directories(target.session)  # a prune that was killed may have taken the home
            with places.locked(target.session) as (lock, free):
                if not free:
                    life = lives.awaited(places, target, lock, boot, lives.whole)
                if life is None:
                    # Who holds the lock knows that no sandbox of the session lives, whatever was left behind.
                    for id in filter(is_id, os.listdir(places.session(target.session))):
                        lives.forget(places, target.session, id)
                    made = grouping.make(places, mark.session, mark.id, LimitsSpec.of(mark.made_of.data))
                    life = starting.spawn(places, mark, lock, boot, made)
        lives.write_down(places, target.session, target.id, life)
        return observing.observe(places, target.session, target.id, boot)

    def stop(self, target: Observed) -> None:
        places = self._places
        name, id = places.require(target)
        boot = alive.boot_id()
        life = lives.pid1(places, name, id, boot)
        if life is None and os.path.exists(places.file(name, id, "info")):
            with places.locked(name) as (lock, free):
                life = None if free else lives.awaited(places, target, lock, boot, lives.pid1)
        if life is not None:
            alive.end(life.pid, life.start)
        lives.forget(places, name, id)

    @contextmanager
    def paused(self, target: Observed) -> Iterator[None]:
        places = self._places
        name, id = places.require(target)
        life = lives.whole(places, name, id, alive.boot_id())
        if life is None:
            yield
            return
        from sessionctl.backends.bubblewrap import pausing

        write(places.file(name, id, "paused"), b"")
        with pausing.paused(life.pid, name):
            yield
        os.unlink(places.file(name, id, "paused"))

    def recover(self) -> None:
        boot = alive.boot_id()
        for observed in self.observe():
            file = self._places.file(observed.session, observed.id, "paused")
            if observed.id and os.path.exists(file):
                life = lives.whole(self._places, observed.session, observed.id, boot)
                if life is not None:
                    from sessionctl.backends.bubblewrap import pausing

                    pausing.let_go(life.pid)
                os.unlink(file)

    def freeze(self, target: Observed, place: str, *, move: bool = False) -> bool:
        own = self._places.file(*self._places.require(target), "root")
        if not os.path.lexists(own):
            return False  # all that is written in it is in its work and its home
        if move:
            os.rename(own, place)
        else:
            os.mkdir(place, 0o700)
            trees.copy(os.path.join(own, "upper"), os.path.join(place, "upper"))
        return True

    def renamed(self, old: str, new: str) -> None:
        places = self._places
        for id in filter(is_id, os.listdir(places.session(require_name(new)))):
            try:
                mark = marks.load(places, new, id)
            except marks.UNUSABLE:
                continue  # half made, whatever it is called
            if mark.session == old and mark.project == places.project:
                stack = mark.workspace.renamed(places.directory, old, new)
                mark = mark._replace(session=new, made_of=mark.made_of.called(new), workspace=stack)
                marks.publish(places, new, id, mark)

    def moved(self, move: Move) -> None:
        # Not what `observe` calls whole: a workspace that was moved is not where its mark says.
        for name, id in ((each.session, each.id) for each in self.observe() if each.id):
            try:
                mark = marks.load(self._places, name, id)
            except marks.UNUSABLE:
                continue  # half made, wherever it is
            if mark.project == move.project:
                stack, made_of = mark.workspace.moved(move.path), mark.made_of.moved(move.path)
                mark = mark._replace(project=move.to, workspace=stack, made_of=made_of)
                marks.publish(self._places, name, id, mark)

    def remove(self, target: Observed) -> None:
        places = self._places
        if not target.id:
            return  # only the session's own files are there, and they are not ours
        name, id = places.require(target)
        observed = observing.observe(places, name, id, alive.boot_id())
        if observed.status == "running":
            raise BackendError(f"sandbox {id} of session {name} is running", hint=f"sessionctl stop {name}")
        self.stop(observed)  # a partial one is nobody's: nothing that still runs in it may stay behind
        if not os.path.lexists(places.file(name, id, "mark")):
            from sessionctl.backends.bubblewrap import stacking

            stacking.give_back(places, name, id)
        with suppress(FileNotFoundError):
            os.unlink(places.file(name, id, "mark"))
        try:
            beneath.remove_tree(os.path.join(places.session(name), id))
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
        places = self._places
        if not argv:
            raise BackendError("there is no command to run")
        mark = marks.require(places, target)
        if inspect:
            from sessionctl.backends.bubblewrap import starting

            return starting.inspection(places, mark, argv, env or {}, seen or (mark.workspace,))
        life = lives.whole(places, target.session, target.id, alive.boot_id())
        if life is None:
            raise BackendError(f"session {target.session} is not running", hint=f"sessionctl start {target.session}")
        from sessionctl.backends.bubblewrap import launching

        terminal = {"TERM": os.environ.get("TERM", "xterm-256color")} if tty else {}
        plain = {name: value for name, value in mark.made_of.data["env"].items() if isinstance(value, str)}
        variables = {**self._environment(mark), **terminal, **plain, **(env or {})}
        return launching.entering(
            argv,
            variables,
            life.pid,
            life.start,
            tty=tty,
            machine=os.uname().machine,
            owner=places.owner,
            host_network=mark.made_of.data["network"] == "host",
            alone=mark.root is not None,
            **grouping.of_a_command(places, mark),
        )

    def _environment(self, mark: Mark) -> Mapping[str, str]:
        """What commands inside start from."""
        if mark.root is None:
            from sessionctl.backends.bubblewrap import profile

            return profile.environment()
        from sessionctl.backends.bubblewrap import stacking

        return stacking.environment(mark.root)

    def _inject(
        self, name: str, declaration: Declaration, before: Mark | None
    ) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Writes the declared files into the home; what was last written of them, and what clashes."""
        files = declaration.data["files"]
        if not files and before is None:
            return {}, ()
        from sessionctl.backends.bubblewrap import injected

        home = os.path.join(self._places.session(name), "home")
        then = before.made_of.spec.files if before else ()
        return injected.write(home, declaration.spec.files, then, before.files if before else {}, self._places.owner)
