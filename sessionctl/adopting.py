"""Taking on a worktree or a clone that exists on the host, made by hand or by another tool, as a session.

It is copied: the original stays as it is, and is the user's to remove. What it is must be clear before anything is
made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from sessionctl import git, lifetime, workspace
from sessionctl.beneath import StrPath
from sessionctl.errors import ConflictError, GitError, UsageError
from sessionctl.model import Declaration, Record, SessionSpec, is_within
from sessionctl.mounts import hidden
from sessionctl.site import Site


class Adopted(NamedTuple):
    """What became of a checkout."""

    path: str
    """Its real path: it was not touched."""
    commit: str
    branch: str
    """What was checked out in it; empty when no branch was."""
    left: tuple[str, ...]
    """What only it has still, in words."""


def require_clear(host: git.Repository, path: StrPath, ours: Mapping[str, str]) -> git.Repository:
    """The checkout at `path`, when that is a whole one of the same project as `host`; `ours` as for `mounts.hidden`.

    `UsageError` when there is none; `ConflictError`, with a list, when it cannot be copied as it is.
    """
    real = os.path.realpath(path)
    why = hidden(real, ours)
    if why:
        raise UsageError(f"{real} {why}")
    found = git.find_repository(real)
    if not is_within(real, found.root.rstrip("/")):
        raise UsageError(f"{real} is the checkout of a session", hint="see sessionctl fork")
    if found.bare:
        raise UsageError(f"{found.root} is a bare repository: it has no files to take on")
    if found.root != real:
        raise UsageError(f"{real} is a part of the checkout {found.root}", hint="name all of it")
    reasons = []
    if what := git.under_way(found):
        reasons.append(f"a {what} is under way in it: finish or abort that")
    listed = git.run(found.git_dir, "ls-files", "-z", "-t", "--unmerged", "--cached").stdout.split(b"\0")
    if any(line.startswith(b"S ") for line in listed):
        reasons.append("it is a sparse checkout, which lacks files on purpose: git sparse-checkout disable")
    if any(line.startswith(b"M ") for line in listed):
        reasons.append("it has files with conflicts: resolve them")
    if found.common_dir != host.common_dir:
        roots = git.run(found.git_dir, "rev-list", "--max-parents=0", "HEAD", check=False).text().split()
        if not any(git.has_commit(host, root) for root in roots):
            reasons.append(f"it has no commit in common with {host.root}: it is no clone of this repository")
        if os.path.exists(os.path.join(found.common_dir, "shallow")):
            reasons.append("it is a shallow clone, whose history is cut off: git fetch --unshallow")
    if reasons:
        raise ConflictError("\n".join([f"{real} cannot be taken on:", *(f"  {each}" for each in reasons)]))
    return found


def adopt(site: Site, spec: SessionSpec, checkout: git.Repository) -> tuple[Record, Adopted]:
    """Makes session `spec`, which has nothing yet, with the work in `checkout`: stopped, and with a sandbox."""
    name, host = spec.name, site.repository
    commit, ref = git.resolve(checkout, "")
    if checkout.common_dir != host.common_dir:
        git.take_in(host, checkout.common_dir, commit, f"refs/sessionctl/{host.project}/heads/{name}/HEAD")
    now = site.clock()
    backend = site.backend(spec.backend)
    record = Record(name, "", spec.backend, Declaration.of(spec), commit, created_at=now, last_active=now)
    record = lifetime.counted(record, None, now)
    # First of all: whatever ends this half-way, it is known whose the files are.
    site.store.save(record)
    try:
        standing = workspace.adopt(
            host,
            checkout,
            spec,
            commit,
            site.directory,
            project=host.project,
            owner=backend.owner,
            identity=git.identity(checkout),
            progress=site.progress,
        )
        workspace.home(site.directory, name, backend.owner)
        target = backend.create(spec, standing.workspace, site.progress)
    except BaseException:
        workspace.discard(site.directory, name)
        site.store.forget(name)
        raise
    state = site.reader.look(target, record, "full")
    record = record._replace(sandbox=target.id, git=state)
    with site.store.writing():
        site.store.save(record)
        site.store.note(name, "adopt", git=state, reason=f"the checkout {checkout.root}", sandbox=target.id)
    branch = ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else ""
    return record, Adopted(checkout.root, commit, branch, _left(host, checkout))


def _left(host: git.Repository, checkout: git.Repository) -> tuple[str, ...]:
    """What else `checkout`, when it is a clone, has of its own."""
    if checkout.common_dir == host.common_dir:
        return ()
    try:
        shape = "--format=%(objectname) %(refname)"
        listed = git.run(checkout.git_dir, "for-each-ref", shape, "refs/heads", "refs/stash").text().splitlines()
    except GitError as error:
        return (str(error),)
    found = []
    for line in listed:
        commit, _, ref = line.partition(" ")
        if not git.has_commit(host, commit):
            what = "stashed changes" if ref == "refs/stash" else f"branch {git.printable(ref[11:])}"
            found.append(what)
    return tuple(found)
