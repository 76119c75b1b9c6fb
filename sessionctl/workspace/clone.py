"""Modes ``clone`` and ``overlay``: a writable layer over a base layer that others share.

In mode ``overlay`` a frozen copy of what the user's checkout has beside its commit lies between the two.
"""

from __future__ import annotations

import os

from sessionctl import beneath, git
from sessionctl.beneath import StrPath
from sessionctl.errors import GitError, UsageError
from sessionctl.model import SessionSpec, Workspace
from sessionctl.workspace import bases, frozen, work
from sessionctl.workspace.include import include
from sessionctl.workspace.places import give
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
    localized: bool,
    progress: Progress | None,
) -> Workspace:
    """See `workspace.prepare`; `standing` is what the session's work stands on, when there is any."""
    name, declared = spec.name, spec.workspace
    recipe = Recipe(commit, declared.history, declared.submodules, declared.lfs, identity)
    if standing is not None and standing.recipe is not None:
        recipe = recipe._replace(commit=standing.recipe.commit, identity=standing.recipe.identity)
        if standing.recipe.history == "shared" and recipe.history == "own" and not localized:
            raise GitError(f"the work of {name} still borrows objects that its own history has to hold")
    with bases.layer(repository, recipe, directory, project, owner, progress) as base:
        if standing is None:
            first = first_files(recipe.commit, declared.branch, base_ref)

            def fill(fresh: str, final: str) -> Standing:
                give(os.path.join(fresh, "upper"), 0o755, owner)
                give(os.path.join(fresh, "scratch"), 0o700, owner)
                lower = [base.tree]
                if declared.mode == "overlay":
                    frozen.freeze(repository, recipe.commit, os.path.join(fresh, "frozen"), owner, progress)
                    lower.append(os.path.join(final, "frozen"))
                for path, content in first.items():
                    beneath.write(os.path.join(fresh, "upper"), path, content, 0o644, owner)
                upper, scratch = os.path.join(final, "upper"), os.path.join(final, "scratch")
                stack = Workspace(upper, tuple(lower), scratch, base.mounts, recipe.commit)
                return Standing(declared.mode, recipe, stack, ())

            standing = work.begin(directory, name, owner, fill)
        elif recipe != standing.recipe:
            stack = standing.workspace._replace(lower=(base.tree, *standing.workspace.lower[1:]), mounts=base.mounts)
            standing = standing._replace(recipe=recipe, workspace=stack)
            save_standing(directory, name, standing)
    missing = tuple(path for path in declared.include if path not in standing.included)
    if missing:
        include(repository, missing, standing.workspace, owner)
        standing = standing._replace(included=standing.included + missing)
        save_standing(directory, name, standing)
    return standing.workspace


def first_files(commit: str, branch: str, base_ref: str) -> dict[str, bytes]:
    """What makes a base layer a session's own checkout: HEAD on its branch, and the name of its base.

    The base keeps its name (``main``, ``origin/main``), so that `git diff main` says what the session
    did, unless the session's branch needs a directory of that name.
    """
    ref = f"refs/heads/{branch}"
    if not git.is_ref_name(ref) or branch.startswith("-") or branch == "HEAD":
        raise UsageError(f"{branch!a} is not a branch name that git accepts")
    tip = commit.encode() + b"\n"
    files = {".git/HEAD": f"ref: {ref}\n".encode(), f".git/{ref}": tip}
    apart = not f"{ref}/".startswith(f"{base_ref}/") and not base_ref.startswith(f"{ref}/")
    if base_ref.startswith(("refs/heads/", "refs/remotes/")) and git.is_ref_name(base_ref) and apart:
        files[f".git/{base_ref}"] = tip
    return files


def localize(base: str) -> tuple[str, ...]:
    """What must be run inside a session, as its agent, before its shared history becomes its own.

    It packs whatever the session's refs, reflogs and index reach beyond the commit `base` into the
    session's own objects, so that only what a base layer with own history holds is borrowed.
    """
    return ("sh", "-c", _LOCALIZE, "sh", base)


_LOCALIZE = """
cd /workspace && echo "^$1" |
git pack-objects --quiet --non-empty --all --reflog --indexed-objects --revs .git/objects/pack/pack >/dev/null
"""
