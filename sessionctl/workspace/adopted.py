"""A checkout that exists already, as the work of a session: a worktree of the repository, or a clone of it.

What is not as its commit has it is copied into the session's own layer, and so is what is staged. Nothing of the
original is written, and its configuration, which somebody else may have written, decides nothing: its files are looked
at with the base layer's git directory.
"""

from __future__ import annotations

import os
import shutil

from sessionctl import git
from sessionctl.beneath import StrPath
from sessionctl.errors import UsageError
from sessionctl.model import SessionSpec, Workspace
from sessionctl.workspace import bases, frozen, work
from sessionctl.workspace.checkout import chown
from sessionctl.workspace.clone import first_files
from sessionctl.workspace.places import give
from sessionctl.workspace.standing import Owner, Progress, Recipe, Standing


def adopt(
    repository: git.Repository,
    checkout: git.Repository,
    spec: SessionSpec,
    commit: str,
    directory: StrPath,
    *,
    project: str,
    owner: Owner,
    identity: tuple[str, str],
    progress: Progress | None = None,
) -> Standing:
    """The work of `spec`, of mode ``clone``, as it is in `checkout`, at its HEAD `commit`, which `repository` has.

    Staged, changed, untracked and ignored files, and deletions. Made whole or not at all. `GitError`.
    """
    name, declared = spec.name, spec.workspace
    recipe = Recipe(commit, declared.history, declared.submodules, declared.lfs, identity)
    with bases.layer(repository, recipe, directory, project, owner, progress) as base:

        def fill(fresh: str, final: str) -> Standing:
            upper = os.path.join(fresh, "upper")
            base_git = os.path.join(base.tree, ".git")
            asked = os.path.join(fresh, "index")
            shutil.copyfile(os.path.join(base_git, "index"), asked)
            # What the base layer borrows is at another place inside than here.
            env = {
                "GIT_INDEX_FILE": asked,
                "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.path.join(repository.common_dir, "objects"),
            }
            frozen.freeze(checkout, commit, upper, None, progress, asking=(base_git, env))
            for path, content in first_files(commit, declared.branch, "").items():
                place = os.path.join(upper, path)
                os.makedirs(os.path.dirname(place), exist_ok=True)
                with open(place, "xb") as file:
                    file.write(content)
            shutil.copyfile(os.path.join(base_git, "index"), asked)  # git has written what it saw into it
            if _stage(checkout, commit, base_git, env, upper):
                os.rename(asked, os.path.join(upper, ".git", "index"))
            else:
                os.unlink(asked)
            if owner is not None:
                chown(upper, owner)
            give(os.path.join(fresh, "scratch"), 0o700, owner)
            stack = Workspace(
                os.path.join(final, "upper"), (base.tree,), os.path.join(final, "scratch"), base.mounts, commit
            )
            return Standing("clone", recipe, stack, ())

        return work.begin(directory, name, owner, fill)


def _stage(checkout: git.Repository, commit: str, base_git: str, env: dict[str, str], upper: str) -> bool:
    """Puts what is staged in `checkout` into the index that `env` names, its objects into `upper`; whether any is."""
    asked = ("diff-index", "--cached", "--raw", "-z", "--no-renames", "--no-abbrev", commit)
    fields = git.run(checkout.git_dir, *asked).stdout.split(b"\0")[:-1]
    lines, blobs = b"", b""
    for about, path in zip(fields[::2], fields[1::2], strict=True):
        _, mode, _, name, kind = about[1:].split(b" ")
        if kind == b"U":
            raise UsageError(f"{checkout.root} has a conflict in {git.printable(os.fsdecode(path))}", hint="resolve it")
        lines += (b"0 " + name if kind == b"D" else mode + b" " + name) + b"\t" + path + b"\0"
        if kind != b"D" and mode != b"160000":
            blobs += name + b"\n"
    if not lines:
        return False
    git.run(base_git, "update-index", "-z", "--index-info", env=env, input=lines)
    if blobs:
        # Its own copies: no commit of the original holds them.
        # By way of us: told where to write, git makes it in the repository that it reads, and moves it.
        packed = git.run(checkout.git_dir, "pack-objects", "--quiet", "--stdout", input=blobs).stdout
        place = os.path.join(upper, ".git", "objects", "pack")
        os.makedirs(place)
        pack = os.path.join(place, f"pack-{packed[-20:].hex()}.pack")
        with open(pack, "xb") as file:
            file.write(packed)
        git.run(base_git, "index-pack", pack)
    return True
