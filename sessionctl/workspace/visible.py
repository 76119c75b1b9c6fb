"""Mode ``clone`` with ``visible``, and mode ``worktree``: a checkout that is an ordinary directory of the host.

Its git directory lies apart, where only the sandbox sees it in place: an editor, or anybody who runs
git in that directory, finds no repository whose configuration an agent has written: none, or the user's own.
"""

from __future__ import annotations

import os

from sessionctl import beneath, git
from sessionctl.beneath import StrPath
from sessionctl.model import WORKSPACE, Mount, SessionSpec, Workspace, kind_of
from sessionctl.workspace import bases, frozen, places, work, worktree
from sessionctl.workspace.checkout import chown
from sessionctl.workspace.clone import first_files
from sessionctl.workspace.include import include
from sessionctl.workspace.standing import Owner, Progress, Recipe, Standing, save_standing


def prepare(
    repository: git.Repository,
    spec: SessionSpec,
    commit: str,
    directory: StrPath,
    standing: Standing | None,
    *,
    project: str,
    base_ref: str,
    owner: Owner,
    identity: tuple[str, str],
    progress: Progress | None,
) -> Workspace:
    """See `workspace.prepare`; `standing` is what the session's work stands on, when there is any."""
    name, declared = spec.name, spec.workspace
    recipe = Recipe(commit, declared.history, False, declared.lfs, identity)
    kind = kind_of(declared._asdict())
    if standing is None:
        if kind == "worktree":
            worktree.announce(directory)
        first = first_files(commit, declared.branch, base_ref)
        with bases.layer(repository, recipe, directory, project, owner, progress) as base:

            def fill(fresh: str, final: str) -> Standing:
                tree, place = os.path.join(fresh, "tree"), os.path.join(final, "tree")
                if declared.session_dir:
                    places.claim(declared.session_dir, project, name)
                    tree, place = places.new(declared.session_dir, name), os.path.join(declared.session_dir, name)
                    beneath.remove_tree(tree)
                apart = os.path.join(fresh, "repository")
                for made in (tree, apart):
                    os.mkdir(made)
                frozen.copy(base.tree, [".git"], apart)
                frozen.copy(base.tree, (each for each in os.listdir(base.tree) if each != ".git"), tree)
                for path, content in first.items():
                    beneath.write(apart, path, content, 0o644, owner)
                for made in (tree, apart):
                    if owner is not None:
                        chown(made, owner)
                    os.chmod(made, 0o755)
                laid = worktree.mounts if kind == "worktree" else _mounts
                mounts = laid(fresh, final, tree, owner)
                marked = project if declared.session_dir else ""
                return Standing(kind, recipe, Workspace(place, (), "", (*mounts, *base.mounts), commit), (), marked)

            standing = work.begin(directory, name, owner, fill)
    if standing.project:  # in a directory of the user's, under the name that the session had when it was made
        places.settle(declared.session_dir, os.path.basename(standing.workspace.upper))
    missing = tuple(path for path in declared.include if path not in standing.included)
    if missing:
        include(repository, missing, standing.workspace, owner)
        standing = standing._replace(included=standing.included + missing)
        save_standing(directory, name, standing)
    return standing.workspace


def _mounts(fresh: str, final: str, tree: str, owner: Owner) -> tuple[Mount, ...]:
    """Makes what the git directory, which has its place in the work `final`, is mounted on in the files `tree`."""
    places.give(os.path.join(tree, ".git"), 0o755, owner)
    return (Mount(os.path.join(final, "repository", ".git"), f"{WORKSPACE}/.git", True),)
