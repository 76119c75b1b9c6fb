"""Which sessions there are and what they are called: renamed, and taken on or along with the lock held."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import closing
from typing import TYPE_CHECKING

from sessionctl import identity, lifetime, plugins
from sessionctl.app import changing, declaring, looking
from sessionctl.app.sources import LOCK_WAIT, Sources
from sessionctl.backends import Context
from sessionctl.beneath import StrPath
from sessionctl.errors import ConflictError, UsageError
from sessionctl.model import Move, Observed, Record, SessionSpec, WorkspaceSpec, World, kind_of, require_name
from sessionctl.plugins import DEFAULT_BACKEND
from sessionctl.store import Store

if TYPE_CHECKING:
    from sessionctl.adopting import Adopted


def rename(sources: Sources, old: str, new: str) -> str:
    """Renames a session, declared or not, and its block; the manifest that was edited, or nothing."""
    if require_name(old) == require_name(new):
        raise UsageError(f"{old} is called so already")
    for what in identity.pending(sources.directory):
        if (what.old, what.new) == (old, new):
            changing.recover(sources)
            return what.manifest
    changing.recover(sources)
    with changing.changing(sources):
        world, declared = looking.world(sources), sources.declared_if_any
        backends = require_whole(old, world, declared)
        require_free(new, world, declared, is_there=os.path.lexists(sources.inside("sessions", new)))
        manifest = _manifest_to_edit(sources, old, new)
        changing.begun(sources, "rename", [new], old=old)
        what = identity.Rename(old, new, backends, manifest)
        identity.rename(sources.directory, sources.store, sources.backend, what)
    sources.forget_declared()
    return manifest


def require_whole(name: str, world: World, declared: Collection[str]) -> tuple[str, ...]:
    """The backends of session `name`; `UsageError` when there is none, or nobody knows what it is. Pure."""
    here = {o.session for o in world.observed} | world.records.keys() | set(declared)
    if name not in here:
        raise looking.unknown(name, here)
    seen = [o.backend for o in world.observed if o.session == name]
    record = world.records.get(name)
    if record is None and seen and name not in declared:
        raise UsageError(f"{name} is a stray", hint=f"sessionctl adopt {name}")
    if record is not None and record.corrupt:
        raise UsageError(f"the record of {name} is corrupt: {record.corrupt}", hint="sessionctl apply makes it anew")
    return tuple(sorted({*seen, *([record.backend] if record is not None and record.backend else [])}))


def require_free(name: str, world: World, declared: Collection[str], *, is_there: bool) -> None:
    """`UsageError` when anything is called `name`; `is_there`: whether a directory is. Pure."""
    taken_by = [
        *(["the manifest declares it"] if name in declared else []),
        *(["there is a record of it"] if name in world.records else []),
        *(f"there is a sandbox of it, {o.id or 'half made'}" for o in world.observed if o.session == name),
    ]
    if taken_by or is_there:
        raise UsageError(f"{name} is taken: {'; '.join(taken_by) or 'its directory is there'}")


def _manifest_to_edit(sources: Sources, old: str, new: str) -> str:
    """The real path of the manifest, when it has a block of `old` that can become `new`'s; else nothing."""
    if old not in sources.declared_if_any:
        return ""
    from sessionctl import edit

    path = os.path.realpath(sources.file)
    text = declaring.content(path)
    if not edit.declares(text, old):
        raise UsageError(f"{old} is one of a count", hint="rename the block that has the count, by hand")
    declaring.require_valid(sources, edit.renamed(text, old, new))
    return path


def adopt(sources: Sources, name: str) -> None:
    """Takes on a stray: a sandbox that bears our mark and that no record knows. It is left as it is, and recorded."""
    require_name(name)
    with changing.changing(sources):
        target = require_stray(name, looking.world(sources))
        assert target.made_of is not None
        state, now = sources.reader.look(target, None, "full"), sources.clock()
        base = target.workspace.commit if target.workspace is not None else ""
        record = Record(name, target.id, target.backend, target.made_of, base, "", state, now, now)
        with sources.store.writing():
            sources.store.save(lifetime.counted(record, None, now))
            sources.store.note(name, "adopt", git=state, reason="a stray", sandbox=target.id)


def require_stray(name: str, world: World) -> Observed:
    """The sandbox `name`, which no record knows and which is whole. Pure, or `UsageError`, or `ConflictError`."""
    found = [o for o in world.observed if o.session == name]
    if name in world.records:
        raise UsageError(f"{name} is no stray: there is a record of it", hint=f"sessionctl status {name}")
    if not found:
        raise looking.unknown(name, {o.session for o in world.observed} - world.records.keys())
    if len(found) > 1 or found[0].made_of is None or found[0].status == "partial" or found[0].drift:
        raise ConflictError(
            "\n".join([f"what {name} is cannot be told:", *(_described(each) for each in found)]),
            hint="nothing was done; what is not yours, or not whole, stays where it is",
        )
    if found[0].made_of.data["name"] != name:
        raise ConflictError(f"the sandbox of {name} was made for {found[0].made_of.data['name']}")
    return found[0]


def _described(observed: Observed) -> str:
    why = observed.drift or ("half made" if observed.made_of is None else observed.status)
    return f"  {observed.backend} {observed.id or '(no sandbox, only files)'}: {why}"


def adopt_project(sources: Sources, before: str) -> str:
    """Takes along the sessions that this repository had where it was before it was moved; where that was."""
    from sessionctl import moving, workspace

    repository = sources.repository
    left = moving.chosen(sources.place, repository, before)
    kept = Store(left.directory)
    with closing(kept), kept.lock(LOCK_WAIT):
        of = sorted({record.backend for record in kept.records().values() if record.backend} | {DEFAULT_BACKEND})
        context = Context(repository.project, left.directory)
        marks = [plugins.load("backends", name)(context).moved for name in of]

        def directories(move: Move) -> None:
            workspace.sign_anew(left.directory, move.project, move.to)

        def records(move: Move) -> None:
            with kept.writing():
                for record in kept.records().values():
                    if record.last is not None and not record.corrupt:
                        kept.save(record._replace(last=record.last.moved(move.path)))

        move = moving.take_along(left, sources.place, repository, [directories, records, *marks])
    with sources.store.writing():
        for name in sources.store.records():
            sources.store.note(name, "adopt", reason=f"the repository was in {move.before}")
    return move.before


def adopt_checkout(sources: Sources, name: str, path: StrPath, progress: Callable[[str], None]) -> Adopted:
    """Makes session `name` of a worktree of the repository, or a clone of it, at `path`: a copy, stopped."""
    from sessionctl import adopting, workspace

    with changing.changing(sources):
        here = [o.session for o in looking.world(sources).observed]
        if require_name(name) in here or sources.store.record(name) or workspace.is_there(sources.directory, name):
            raise UsageError(f"there is a session {name} already", hint="choose another name")
        declared = sources.declared_if_any.get(name)
        spec = SessionSpec(name, workspace=WorkspaceSpec(branch=f"agents/{name}"))
        spec = declared.spec if declared is not None else spec
        kind = kind_of(spec.workspace._asdict())
        if kind != "clone":
            raise UsageError(f"{name} is declared with a workspace of another mode than clone ({kind})")
        ours = {os.path.realpath(sources.settings.state_dir): "the state directory"}
        checkout = adopting.require_clear(sources.repository, path, ours)
        _, adopted = adopting.adopt(sources.site(progress), spec, checkout)
    return adopted
