"""The git checkouts sessions work on. Each mode has a module; they share base layers and the session's directories.

A base layer is a whole checkout, made once per commit on the host by git's plumbing, and never
written again. A session's own layer (its upper) begins with a handful of files: HEAD and its
branch. What a session's work stands on is kept beside it, where no sandbox can write. This package
may not run git on anything a session has written, empty a session's work to remake it, or decide
whether something may be removed.

On disk, below the project's state directory::

    bases/<key>/{tree,mark,alternates.N}    bases/<key>.lock
    sessions/<name>/{work/{upper,scratch},home,workspace.json}
"""

from __future__ import annotations

import os
from functools import partial

from sessionctl import git
from sessionctl.beneath import StrPath
from sessionctl.errors import GitError, UsageError
from sessionctl.model import SessionSpec, Workspace, kind_of, require_name
from sessionctl.workspace import bind, clone, visible, work
from sessionctl.workspace.adopted import adopt
from sessionctl.workspace.bases import release as release_base
from sessionctl.workspace.bases import unused as unused_bases
from sessionctl.workspace.clone import localize
from sessionctl.workspace.places import give, sign_anew
from sessionctl.workspace.places import unfit as unfit_session_dir
from sessionctl.workspace.standing import (
    Owner,
    Progress,
    Recipe,
    Standing,
    fingerprint,
    layers,
    load_standing,
    save_standing,
    written,
)
from sessionctl.workspace.work import (
    discard,
    fresh_scratch,
    home,
    is_there,
    leave,
    rename,
    seed,
    session_directory,
    sweep,
)

__all__ = [
    "Owner",
    "Progress",
    "Recipe",
    "Standing",
    "adopt",
    "discard",
    "fingerprint",
    "fresh_scratch",
    "home",
    "is_there",
    "layers",
    "leave",
    "load_standing",
    "localize",
    "prepare",
    "release_base",
    "rename",
    "save_standing",
    "seed",
    "session_directory",
    "sign_anew",
    "sweep",
    "unfit_session_dir",
    "unused_bases",
    "written",
]


def prepare(
    repository: git.Repository | None,
    spec: SessionSpec,
    commit: str,
    directory: StrPath,
    *,
    project: str,
    base_ref: str = "",
    owner: Owner = None,
    identity: tuple[str, str] = ("", ""),
    localized: bool = False,
    progress: Progress | None = None,
) -> Workspace:
    """The workspace of `spec`, below the state directory `directory`; made if it is not there yet. Idempotent.

    `commit` and `base_ref` are what `git.resolve` gave for its base. Work that is there is never
    emptied or moved to another commit: it is reused as it is. When its history, submodules or lfs are
    declared differently now, the same work is put on another base layer of the same commit; from
    shared to own history `localize` must have been run inside before, which `localized` confirms.
    Several threads and processes may want the same base layer; one makes it, the others wait.

    Files named by ``workspace.include`` are copied in once each, where nothing is there yet. No
    sandbox may have the workspace mounted while an include or the base layer changes.

    `UsageError` when the mode of existing work was changed; `GitError` when the repository cannot
    give the checkout whole: unborn, shallow, partial, submodules or LFS files that are not there.
    """
    name = require_name(spec.name)
    kind = kind_of(spec.workspace._asdict())
    standing = load_standing(directory, name)
    if standing is not None and not os.path.lexists(os.path.join(directory, "sessions", name, "work")):
        standing = None
    if standing is not None and standing.mode != kind:
        raise UsageError(
            f"{name} has work in a workspace of mode {standing.mode}; that cannot become {kind}",
            hint=f"declare it as it was, or declare a session of another name and `sessionctl prune {name}`",
        )
    if kind == "empty":
        return (standing or work.begin(directory, name, owner, partial(_empty, owner))).workspace
    if repository is None:
        raise GitError(
            f"{name} needs a git repository to clone", hint="run `git init`, or set workspace.mode = 'empty'"
        )
    if kind == "bind":
        return bind.prepare(repository, name, directory, standing, owner)
    given = (repository, spec, commit, directory, standing)
    if kind in ("visible", "worktree"):
        return visible.prepare(
            *given, project=project, base_ref=base_ref, owner=owner, identity=identity, progress=progress
        )
    return clone.prepare(
        *given,
        project=project,
        base_ref=base_ref,
        owner=owner,
        identity=identity,
        localized=localized,
        progress=progress,
    )


def _empty(owner: Owner, fresh: str, final: str) -> Standing:
    give(os.path.join(fresh, "upper"), 0o755, owner)
    return Standing("empty", None, Workspace(os.path.join(final, "upper")), ())
