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

from sessionctl import git
from sessionctl.beneath import StrPath
from sessionctl.errors import GitError, UsageError
from sessionctl.model import SessionSpec, Workspace, require_name
from sessionctl.workspace import clone
from sessionctl.workspace.bases import release as release_base
from sessionctl.workspace.bases import unused as unused_bases
from sessionctl.workspace.clone import localize
from sessionctl.workspace.standing import (
    Owner,
    Progress,
    Recipe,
    Standing,
    fingerprint,
    layers,
    load_standing,
    save_standing,
)
from sessionctl.workspace.work import (
    begin,
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
    "sweep",
    "unused_bases",
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
    declared = spec.workspace
    standing = load_standing(directory, name)
    if standing is not None and not os.path.lexists(os.path.join(directory, "sessions", name, "work")):
        standing = None
    if standing is not None and standing.mode != declared.mode:
        raise UsageError(
            f"{name} has work in a workspace of mode {standing.mode}; that cannot become {declared.mode}",
            hint=f"keep mode = {standing.mode!r}, or declare a session of another name and `sessionctl prune {name}`",
        )
    if declared.mode == "empty":
        return (standing or begin(directory, name, owner, Standing("empty", None, Workspace(""), ()), {})).workspace
    if declared.mode != "clone":
        raise UsageError(f"workspace.mode {declared.mode} is not supported yet", hint="use clone or empty")
    if repository is None:
        raise GitError(
            f"{name} needs a git repository to clone", hint="run `git init`, or set workspace.mode = 'empty'"
        )

    return clone.prepare(
        repository,
        spec,
        commit,
        directory,
        standing,
        project=project,
        base_ref=base_ref,
        owner=owner,
        identity=identity,
        localized=localized,
        progress=progress,
    )
