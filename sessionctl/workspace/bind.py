"""Mode ``bind``: the user's own checkout. It is not ours: nothing here writes, moves or removes any of it."""

from __future__ import annotations

import os

from sessionctl import git
from sessionctl.beneath import StrPath
from sessionctl.errors import GitError
from sessionctl.model import WORKSPACE, Mount, Workspace, is_within
from sessionctl.workspace import work
from sessionctl.workspace.standing import Owner, Standing

_MANIFEST = "sessions.toml"


def prepare(
    repository: git.Repository, name: str, directory: StrPath, standing: Standing | None, owner: Owner
) -> Workspace:
    """The checkout as a workspace. What decides what runs on the host is read-only in it: its git directories,
    with hooks and configuration, and the manifest."""
    if standing is None:
        stack = Workspace(repository.root, (), "", _guarded(repository))
        standing = work.begin(directory, name, owner, lambda fresh, final: Standing("bind", None, stack, ()))
    return standing.workspace


def _guarded(repository: git.Repository) -> tuple[Mount, ...]:
    if repository.bare:
        raise GitError(f"{repository.root} is a bare repository: it has no files to work on")
    places = [os.path.join(repository.root, ".git"), repository.common_dir, repository.git_dir]
    manifest = os.path.join(repository.root, _MANIFEST)
    if os.path.lexists(manifest):
        places.append(manifest)
    mounts: list[Mount] = []
    for place in places:
        if os.path.islink(place):
            raise GitError(f"{place} is a symbolic link, which the agent could exchange", hint="use mode = 'clone'")
        if not any(is_within(place, mount.source) for mount in mounts):
            path = f"{WORKSPACE}{place[len(repository.root) :]}" if is_within(place, repository.root) else place
            mounts.append(Mount(place, path))
    return tuple(mounts)
