"""What each verb of a plan does. One function per verb; the order and the reasons are the plan's."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence

from sessionctl import git, history, identity, keeping, lifetime, process, secret, workspace
from sessionctl.errors import BackendError, CommandError, ConflictError, GitError
from sessionctl.executor import Made, Step
from sessionctl.model import HAS_BRANCH, Observed, Record, SessionSpec, Workspace
from sessionctl.plan import Action, Lane, Verb, deletes, unclean
from sessionctl.site import Site
from sessionctl.units import parse_duration

OUTPUT_TAIL = 8192
"""Bytes of each stream of a setup command that its event in the journal keeps."""
SETUP_TAIL = 2000
"""Bytes of a failed setup command's output that its error shows."""


def steps(site: Site, operation: str = "") -> Mapping[Verb, Step]:
    """The steps of one execution, by verb. `operation` is what undoes those that take something away."""
    return _Steps(site, operation).table()


class _Steps:
    """Keeps, per session, what one step finds out and a later one of the same lane needs."""

    def __init__(self, site: Site, operation: str) -> None:
        self.site = site
        self.operation = operation
        self.workspaces: dict[str, Workspace] = {}
        self.set_up: dict[str, str] = {}
        self.recorded: dict[str, Record] = {}
        self.rescued: dict[str, str] = {}

    def table(self) -> Mapping[Verb, Step]:
        return {
            "rename": self.rename,
            "prepare": self.prepare,
            "create": self.create,
            "stop": self.stop,
            "start": self.start,
            "setup": self.setup,
            "branch": self.branch,
            "update": self.update,
            "verify": self.verify,
            "rest": self.rest,
            "delete": self.delete,
            "remove": self.remove,
            "rescue": self.rescue,
            "record": self.record,
            "forget": self.forget,
        }

    def rename(self, lane: Lane, action: Action, made: Observed | None) -> Made:
        site = self.site
        identity.rename(site.directory, site.store, site.backend, _renaming(lane))
        return Made(made)

    # --- making ------------------------------------------------------------------------------

    def prepare(self, lane: Lane, action: Action, made: Observed | None) -> Made:
        spec = _spec(lane)
        site = self.site
        owner = site.backend(spec.backend).owner
        if spec.parent and lane.change.kind == "create" and not workspace.is_there(site.directory, spec.name):
            keeping.seed(site, spec, spec.parent)
        commit, base_ref = "", ""
        if spec.workspace.mode in HAS_BRANCH:
            # Existing work stays on its own commit; the plan's is for work that is still to be made.
            commit, base_ref = git.resolve(site.repository, spec.workspace.base)
            commit = lane.base or commit
        prepared = workspace.prepare(
            site.repository,
            spec,
            commit,
            site.directory,
            project=site.repository.project,
            base_ref=base_ref,
            owner=owner,
            identity=git.identity(site.repository),
            localized=self._localized(lane, made),
            progress=site.progress,
        )
        workspace.home(site.directory, spec.name, owner)
        self.workspaces[spec.name] = prepared
        return Made(made)

    def _localized(self, lane: Lane, made: Observed | None) -> bool:
        """Copies the objects the session borrows into its own repository, when its history is to be its own."""
        after = {field.path: field.after for field in lane.change.fields}
        if after.get("workspace.history") != "own" or made is None:
            return False
        backend = self.site.backend(made.backend)
        was_stopped = made.status == "stopped"
        if was_stopped:
            made = backend.start(made)
        try:
            assert made.workspace is not None
            command = backend.command(made, workspace.localize(made.workspace.commit))
            process.run(command.argv, env=command.env)
        finally:
            if was_stopped:
                backend.stop(made)
        return True

    def create(self, lane: Lane, action: Action, made: Observed | None) -> Made:
        spec = _spec(lane)
        progress = self.site.progress
        backend = self.site.backend(spec.backend)
        base = workspace.seed(self.site.directory, spec.name)

        def say(text: str) -> None:
            progress(f"{spec.name}: {text}")

        return Made(backend.create(spec, self.workspaces[spec.name], say, base=base))

    def start(self, lane: Lane, action: Action, made: Observed | None) -> Made:
        target = _one(made)
        return Made(self.site.backend(target.backend).start(target))

    def setup(self, lane: Lane, action: Action, made: Observed | None) -> Made:
        target = _one(made)
        backend = self.site.backend(target.backend)
        spec = _spec(lane)
        secrets = secret.found(spec.env)
        wall = parse_duration(spec.limits.wall) if spec.limits.wall else None
        keep = OUTPUT_TAIL + secret.longest(secrets.values())  # see `Project.exec`
        for line in spec.setup:
            self.site.progress(f"{lane.session}: {line}")
            command = backend.command(target, ("sh", "-c", line), env=secrets)
            began = self.site.clock()
            ended = process.relay(command.argv, env=command.env, timeout=wall, keep=keep, show=False, apart=True)
            streams = (ended.stdout, ended.stderr)
            tails = [secret.masked(s, secrets.values(), skip=max(0, len(s) - OUTPUT_TAIL)) for s in streams]
            self._note_setup(lane.session, line, began, ended, tails)
            if ended.code:
                said = b"".join(tails)[-SETUP_TAIL:].decode("utf-8", "backslashreplace").strip()
                ran_out = f", when its time was up (limits.wall is {spec.limits.wall})" if ended.timed_out else ""
                shown = "".join(f"\n  {git.printable(each)}" for each in said.splitlines())
                raise CommandError(
                    f"setup {line!r} ended with exit code {ended.code}{ran_out}{':' if shown else ''}{shown}",
                    hint=f"try it inside: sessionctl exec {lane.session} -- sh -c {shlex.quote(line)}",
                )
        self.set_up[lane.session] = target.id
        return Made(made)

    def _note_setup(self, name: str, line: str, began: float, ended: process.Relayed, tails: Sequence[bytes]) -> None:
        out, err = (tail.decode("utf-8", "backslashreplace") for tail in tails)
        with self.site.store.writing():
            self.site.store.note(
                name, "setup", time=began, argv=["sh", "-c", line], exit_code=ended.code, stdout=out, stderr=err
            )

    # --- changing ----------------------------------------------------------------------------

    def stop(self, lane: Lane, action: Action, made: Observed | None) -> Made:
        target = _one(action.target)
        self.site.backend(target.backend).stop(target)
        if made is not None and made.id == target.id:
            made = made._replace(status="stopped", pid=None, started_at=None)
        return Made(made)

    def update(self, lane: Lane, action: Action, made: Observed | None) -> Made:
        target = _one(made)
        spec = _spec(lane)
        updated = self.site.backend(target.backend).update(target, spec)
        notes = tuple(f"{path} was changed inside and in the manifest: left as it is" for path in updated.clashes)
        return Made(updated, notes)

    def branch(self, lane: Lane, action: Action, made: Observed | None) -> Made:
        target = _one(made)
        name = _spec(lane).workspace.branch
        if target.status == "running":
            self._branch_inside(target, name)
        else:
            _branch_at_rest(target, name)
        return Made(made)

    def _branch_inside(self, target: Observed, name: str) -> None:
        # By plumbing: no hook, no checkout, index and files stay as they are. An apply that was killed
        # may have come this far: the branch is there, at this commit, or checked out already.
        script = (
            'tip=$(git rev-parse --verify HEAD) || exit; ref="refs/heads/$1"\n'
            '[ "$(git rev-parse --verify --quiet "$ref")" = "$tip" ] || git branch --no-track -- "$1" || exit\n'
            'git symbolic-ref HEAD "$ref"'
        )
        command = self.site.backend(target.backend).command(target, ("sh", "-c", script, "sh", name))
        ended = process.run(command.argv, env=command.env, check=False)
        if ended.code:
            said = git.printable(ended.stderr.decode("utf-8", "backslashreplace").strip())
            raise GitError(f"branch {name} cannot be made in {target.session}: {said}")

    # --- removing ----------------------------------------------------------------------------

    def verify(self, lane: Lane, action: Action, made: Observed | None) -> Made:
        target = _one(action.target)
        reader = self.site.reader
        state = reader.look(target, lane.change.record, "full")
        stays, gone = history.mode_of(target) == "bind", deletes(lane.change)
        if gone:
            state = reader.with_reflogs(target, state)
        home = history.only_here(os.path.join(self.site.directory, "sessions", lane.session, "home"), _injected(target))
        reason = unclean(state, reader.merged(target, state), home, stays=stays, gone=gone)
        if reason:
            raise ConflictError(f"{lane.session} changed since the plan was made: {reason}")
        return Made(made)

    def rest(self, lane: Lane, action: Action, made: Observed | None) -> Made:
        done = self.stop(lane, action, made)
        with self.site.store.writing():
            state = lane.change.record.git if lane.change.record else None
            self.site.store.note(lane.session, "stop", git=state, reason=action.reason)
        return done

    def delete(self, lane: Lane, action: Action, made: Observed | None) -> Made:
        site, backend = self.site, self.site.backend(_one(action.target).backend)
        # The files first: a sandbox that has none is what is left of a prune, whoever finds it.
        workspace.discard(site.directory, lane.session)
        for each in backend.observe(session=lane.session):
            if each.id:
                backend.remove(each)
        return Made(None)

    def remove(self, lane: Lane, action: Action, made: Observed | None) -> Made:
        target = _one(action.target)
        kept = keeping.keep_root(self.site, target, lane.change.record, self.operation)
        self.site.backend(target.backend).remove(target)
        if kept is None:
            return Made(made)
        undo = f"sessionctl undo {self.operation}"
        with self.site.store.writing():
            self.site.store.note(
                lane.session, "rescue", git=kept.git, reason=action.reason, snapshot=kept.id, undo=undo
            )
        return Made(made, (f"what was written in it is kept: {undo}",))

    def rescue(self, lane: Lane, action: Action, made: Observed | None) -> Made:
        target = _one(action.target)
        kept = keeping.put_aside(self.site, target, lane.change.record, self.operation)
        self.rescued[lane.session] = kept.id
        return Made(None)

    # --- remembering -------------------------------------------------------------------------

    def record(self, lane: Lane, action: Action, made: Observed | None) -> Made:
        target = _one(made)
        site, change = self.site, lane.change
        declared = change.declared
        assert declared is not None
        before = change.record if change.record is not None and not change.record.corrupt else None
        again = self.recorded.get(lane.session)
        before = again or before
        born = change.kind == "create" and again is None and not declared.data.get("parent")
        state = site.reader.born(target) if born else site.reader.look(target, before, "changes")
        now = site.clock()
        after = Record(
            session=lane.session,
            sandbox=target.id,
            backend=target.backend,
            last=declared,
            base=target.workspace.commit if target.workspace else "",
            setup=self.set_up.get(lane.session, before.setup if before else ""),
            git=state,
            created_at=before.created_at if before else now,
            # What is started is not idle for as long as it was before: the next apply would stop it again.
            last_active=before.last_active if before and not any(a.verb == "start" for a in lane.actions) else now,
        )
        after = lifetime.counted(after, before, now)
        with site.store.writing():
            if site.store.save(after):
                event = "git" if again else change.kind
                site.store.note(lane.session, event, git=state, reason=change.reason, sandbox=target.id)
        self.recorded[lane.session] = after
        return Made(made)

    def forget(self, lane: Lane, action: Action, made: Observed | None) -> Made:
        with self.site.store.writing():
            state = lane.change.record.git if lane.change.record else None
            if lane.session in self.rescued:
                kept, undo = self.rescued[lane.session], f"sessionctl undo {self.operation}"
                self.site.store.note(lane.session, "prune", git=state, snapshot=kept, undo=undo)
            elif any(each.verb == "delete" for each in lane.actions):
                self.site.store.note(lane.session, "prune", git=state, reason="its files were deleted")
            else:
                self.site.store.note(lane.session, "forget", git=state)
            self.site.store.forget(lane.session)
        workspace.leave(self.site.directory, lane.session)
        return Made(None)


def _branch_at_rest(target: Observed, name: str) -> None:
    """Writes the branch where git would: nothing runs, so the upper layer is ours to write."""
    assert target.workspace is not None
    layers = workspace.layers(target.workspace)
    head = git.read_head(layers)
    if head.error or head.commit is None:
        raise GitError(f"branch {name} cannot be made in {target.session}: {head.error or 'it has no commit yet'}")
    if git.read_ref(layers, f"refs/heads/{name}") not in (None, head.commit):
        raise GitError(f"branch {name} exists in {target.session}, at another commit")
    git.write_branch(layers[0], name, head.commit)


def _renaming(lane: Lane) -> identity.Rename:
    change = lane.change
    seen = (*((change.current,) if change.current else ()), *change.spare)
    backends = [*(each.backend for each in seen), *([change.record.backend] if change.record else [])]
    return identity.Rename(change.renamed, lane.session, tuple(sorted(filter(None, set(backends)))))


def _spec(lane: Lane) -> SessionSpec:
    assert lane.change.declared is not None
    return lane.change.declared.spec


def _one(target: Observed | None) -> Observed:
    if target is None:
        raise BackendError("the step before it made no sandbox")
    return target


def _injected(target: Observed) -> list[Mapping[str, str]]:
    return list(target.made_of.data["files"]) if target.made_of is not None else []
