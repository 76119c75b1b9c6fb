"""What sessions that are to be made or changed need and cannot have here; and the commits that they start from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from sessionctl import git, mounts
from sessionctl.backends import Refusal
from sessionctl.declared import cache_directory, config_file
from sessionctl.diff import Change
from sessionctl.errors import GitError, UsageError
from sessionctl.model import HAS_BRANCH, WORKSPACE, Declaration, MountSpec, Record, SessionSpec, World

if TYPE_CHECKING:
    from sessionctl.app.sources import Sources


class Judged(NamedTuple):
    """What is known of one session that is to be made or changed."""

    refused: tuple[str, ...] = ()
    unenforced: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()
    base: str = ""
    """The commit that it starts from; empty when it has none, or has its work already."""


def with_refusals(sources: Sources, world: World, changes: Sequence[Change]) -> World:
    """`world` with what is known of the sessions of `changes`, each of which is declared."""
    here = _Here(sources)
    judged = {
        change.session: _judged(here, world, change, change.declared.spec)
        for change in changes
        if change.declared is not None
    }
    return world._replace(
        refused={name: each.refused for name, each in judged.items() if each.refused},
        warned={name: each.warned for name, each in judged.items() if each.warned},
        unenforced={name: each.unenforced for name, each in judged.items() if each.unenforced},
        bases={name: each.base for name, each in judged.items() if each.base},
    )


class _Here:
    """What is the same for all sessions of one plan: found out once, when the first of them needs it."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self._bases: dict[str, str] = {}

    def base(self, declared: str) -> str:
        """The commit that a declared base is now. `GitError` when it is none."""
        if declared not in self._bases:
            self._bases[declared] = git.resolve(self.sources.repository, declared)[0]
        return self._bases[declared]

    @cached_property
    def checked_out(self) -> dict[str, str]:
        """By branch, a checkout of the repository that is on it."""
        from sessionctl.git import worktrees

        return {branch: place for place, branch in reversed(worktrees.checkouts(self.sources.repository))}

    @cached_property
    def found_programs(self) -> tuple[str, ...]:
        """The settings by which git runs programs out of a checkout."""
        return git.runs_what_it_finds(self.sources.repository)

    @cached_property
    def ours(self) -> dict[str, str]:
        """What no session may have mounted, by its real path."""
        repository = self.sources.repository
        return {
            os.path.realpath(self.sources.settings.state_dir): "the state directory",
            os.path.realpath(repository.common_dir): "the repository's git directory",
            os.path.realpath(repository.git_dir): "the repository's git directory",
        }

    @cached_property
    def read_only(self) -> dict[str, str]:
        """What no session may write, by its real path: all that decides what sessions are."""
        root, named = self.sources.repository.root, os.path.abspath(self.sources.file)
        kept = {
            os.path.realpath(root): "the repository's root",
            os.path.join(os.path.realpath(os.path.dirname(named)), os.path.basename(named)): "the manifest",
            os.path.realpath(named): "the manifest",
            os.path.realpath(os.path.dirname(config_file())): "your own configuration",
            os.path.realpath(cache_directory()): "the cache of manifests",
        }
        for name, declaration in self.sources.declared.items():
            kept |= {os.path.realpath(path): f"a file that goes into {name}" for path in _going_in(declaration, root)}
        return kept


def _going_in(declaration: Declaration, root: str) -> list[str]:
    """The files of the host that are copied into a session."""
    files = [each["source"] for each in declaration.data["files"] if each["source"] and not each.get("outside")]
    return files + [os.path.join(root, path) for path in declaration.data["workspace"]["include"]]


def _judged(here: _Here, world: World, change: Change, spec: SessionSpec) -> Judged:
    sources = here.sources
    unenforced: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()
    base = ""
    try:
        backend = sources.backend(spec.backend)
        refusals = [_said(refusal) for refusal in sources.probe(spec.backend)]
        cannot, borne = _borne(spec, backend.probe(spec))
        unenforced = tuple(f"{refusal.what}: {refusal.why}" for refusal in borne)
        refusals += [_said(refusal) for refusal in cannot]
        unfit = _unfit(here, spec)
        refusals += unfit
        if not unfit:
            warned = tuple(mounts.warnings(spec.mounts, backend.owner))
        if change.kind in ("create", "recreate"):
            refusals += _workspace(here, spec, backend.owner)
            if spec.workspace.mode in HAS_BRANCH:
                declared = here.base(spec.workspace.base)
                # What an overlay shows belongs to the commit that is checked out.
                goes_on = (
                    _continued(sources.repository, change.record)
                    if spec.workspace.mode in ("clone", "worktree")
                    else ""
                )
                base = goes_on or declared
        if change.kind == "create" and spec.parent:
            refusals += parent_refused(spec.name, spec.parent, sources.declared, world)
    except (GitError, UsageError) as error:
        refusals = [error.with_hint]
    return Judged(tuple(refusals), unenforced, warned, base)


def _said(refusal: Refusal) -> str:
    return f"{refusal.what}: {refusal.why}{f' ({refusal.remedy})' if refusal.remedy else ''}"


def _borne(spec: SessionSpec, cannot: Iterable[Refusal]) -> tuple[list[Refusal], list[Refusal]]:
    """`cannot` in two: why there can be no such session, and what it does without, because it is declared so."""
    stands: list[Refusal] = []
    borne: list[Refusal] = []
    lenient = spec.limits.enforce == "best-effort"
    for refusal in cannot:
        (borne if lenient and refusal.what.startswith("limits.") else stands).append(refusal)
    return stands, borne


def _unfit(here: _Here, spec: SessionSpec) -> list[str]:
    """What of the host the session may not have as a mount or as its image."""
    writes = any(mount.mode == "rw" for mount in spec.mounts)
    found = mounts.refusals(spec.mounts, here.ours, here.read_only if writes else {})
    if spec.image.startswith("rootfs:"):
        tree = spec.image.removeprefix("rootfs:")
        why = mounts.unfit(tree, here.ours)
        found += [f"image: {tree} {why}"] if why else []
    return found


def _workspace(here: _Here, spec: SessionSpec, owner: tuple[int, int] | None) -> list[str]:
    """Why the workspace of a session that is to be made cannot be had here."""
    declared, repository = spec.workspace, here.sources.repository
    if declared.mode in ("bind", "overlay") and repository.bare:
        return [f"workspace.mode: {repository.root} is a bare repository: it has no checkout"]
    found = _worktree(here, declared.branch) if declared.mode == "worktree" else []
    if declared.mode == "bind":
        return mounts.warnings([MountSpec(repository.root, WORKSPACE, "rw")], owner)
    if not declared.session_dir:
        return found
    from sessionctl import workspace

    why = mounts.hidden(declared.session_dir, here.ours)
    why = why or workspace.unfit_session_dir(declared.session_dir, repository.project, spec.name)
    return [*found, *([f"workspace.session_dir: {declared.session_dir} {why}"] if why else [])]


def _worktree(here: _Here, branch: str) -> list[str]:
    """Why no session can be a worktree of the repository on `branch`."""
    if os.path.isdir(os.path.join(here.sources.repository.common_dir, "reftable")):
        return ["workspace.mode: worktree needs refs that are files, and this repository keeps them as reftables"]
    found = []
    if place := here.checked_out.get(branch, ""):
        found.append(
            f"workspace.branch: {branch} is checked out in {git.printable(place)}, and git has it in one place only"
        )
    for key in here.found_programs:
        found.append(
            f"workspace.mode: git would run what the agent wrote: {git.printable(key)} names a program in the worktree"
            " (give it an absolute path, or use mode clone)"
        )
    return found


def _continued(repository: git.Repository, record: Record | None) -> str:
    """Where a session whose files are gone goes on: at its last commit, if that came to the host, else its base."""
    for commit in (record.git.commit, record.base) if record is not None else ():
        if commit and git.has_commit(repository, commit):
            return commit
    return ""


def parent_refused(name: str, parent: str, declared: Mapping[str, Declaration], world: World) -> list[str]:
    """Why `name` cannot be made as a copy of `parent`. Pure."""
    if any(each.session == parent and each.status != "partial" for each in world.observed):
        return []
    if parent not in declared:
        return [f"parent: there is no session {parent}"]
    seen, above = [name], parent
    while above in declared and declared[above].data.get("parent"):
        if above in seen:
            return [f"parent: {' → '.join([*seen, above])} leads in a circle"]
        seen.append(above)
        above = declared[above].data["parent"]
    return []
