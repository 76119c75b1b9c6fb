"""Bringing commits home: from a session, whose side runs inside, and from a clone that is taken on.

This module may not move a branch that would lose a commit by it, or that is checked out.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sessionctl.git.finding import Repository
from sessionctl.git.gate import run
from sessionctl.git.names import packed, printable
from sessionctl.git.worktrees import Worktree, elsewhere, follow, head
from sessionctl.model import APART, WORKSPACE

# Git waits for ever to read a pipe; an agent may have put one where it looks first.
_UPLOAD_PACK = f"""
r={APART}
test -d "$r" || r=$1
cd "$r" || exit
if [ -n "$(find -L HEAD packed-refs refs config shallow info -type p 2>/dev/null | head -n 1)" ]; then
    echo "a pipe is in the place of a file of git's" >&2
    exit 1
fi
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_NO_REPLACE_OBJECTS=1 LC_ALL=C
exec git -c "safe.directory=*" -c core.hooksPath=/dev/null -c core.fsmonitor=false \\
    -c core.multiPackIndex=false -c core.commitGraph=false upload-pack --strict "$r"
"""
UPLOAD_PACK = ("sh", "-c", _UPLOAD_PACK, "sh")
"""What a backend's inspecting ``command`` must run for `fetch`; git appends the repository's path."""


_FETCH = (
    *("-c", "transfer.fsckObjects=true", "-c", "fetch.fsckObjects=true", "-c", "fetch.unpackLimit=1"),
    *("-c", "fetch.prune=false", "-c", "fetch.writeCommitGraph=false", "-c", "submodule.recurse=false"),
    *("-c", "protocol.allow=never", "-c", "protocol.file.allow=always", "-c", "core.logAllRefUpdates=always"),
    *("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"),
    *("--no-recurse-submodules", "--no-show-forced-updates", "--refmap="),
)


class Fetched(NamedTuple):
    """What a fetch from a session brought."""

    heads: Mapping[str, str]
    """Commit by branch of the session, as they are in the host repository now (``HEAD``: detached)."""
    moved: tuple[str, ...]
    """Branches of the session that are new or moved since the last fetch."""
    branch: str
    """The host branch that follows the session."""
    commit: str
    """What that branch is at now; empty when it does not exist."""
    followed: bool
    """Whether this fetch made or moved it."""
    reason: str
    """One sentence for people: what was done with the branch, or why it was left alone."""


def fetch(
    repository: Repository,
    project: str,
    name: str,
    upload_pack: Sequence[str],
    env: Mapping[str, str],
    branch: str,
    *,
    detached: bool = False,
    worktree: Worktree | None = None,
    timeout: float | None = 600,
) -> Fetched:
    """Fetches all branches of session `name` into ``refs/sessionctl/<project>/heads/<name>/``.

    `upload_pack` is the host command that runs `UPLOAD_PACK` inside, `env` its environment. The host
    parses the pack protocol and checks every object; it does not touch the session's files. With
    `detached`, the session's HEAD is fetched too, as ``…/<name>/HEAD``. What a ref was at before
    stays in its reflog. The host branch `branch` then follows, if that is a fast-forward and it is
    checked out nowhere but in `worktree`, the session's own, whose index follows too; no commit is lost by it and no
    checkout goes stale. `timeout` in seconds.
    """
    kept = f"refs/sessionctl/{project}/heads/{name}/"
    before = _heads(repository, kept)
    refspecs = [f"+refs/heads/*:{kept}*", "^refs/heads/HEAD", *([f"+HEAD:{kept}HEAD"] if detached else [])]
    run(
        repository.common_dir,
        *_FETCH,
        f"--upload-pack={shlex.join(upload_pack)}",
        f"file://{WORKSPACE}/.git",
        *refspecs,
        env={**env, "GIT_REFLOG_ACTION": f"sessionctl fetch {name}"},
        timeout=timeout,
    )
    after = _heads(repository, kept)
    moved = tuple(sorted(head for head, tip in after.items() if before.get(head) != tip))
    commit, followed, reason = _follow(repository, name, branch, after.get(branch, ""), worktree)
    return Fetched(after, moved, branch, commit, followed, reason)


def take_in(repository: Repository, git_dir: str, commit: str, ref: str) -> None:
    """Brings `commit`, which HEAD of the clone at `git_dir` is, into the repository, as `ref`. `GitError`.

    Every object is checked; nothing of the clone's configuration is used but what `upload-pack` reads of it.
    """
    run(repository.common_dir, *_FETCH, f"file://{git_dir}", f"+{commit}:{ref}", timeout=600)


def _heads(repository: Repository, prefix: str) -> dict[str, str]:
    listed = run(repository.common_dir, "for-each-ref", "--format=%(objectname) %(refname)", prefix).stdout
    return {ref.removeprefix(prefix): tip for ref, tip in packed(listed, (prefix.rstrip("/"),)).items()}


def _follow(
    repository: Repository, name: str, branch: str, new: str, worktree: Worktree | None
) -> tuple[str, bool, str]:
    """Moves the host branch to `new` if nothing can be lost by it: where it is then, whether it moved, and why."""
    ref = f"refs/heads/{branch}"
    common = repository.common_dir
    old = run(common, "rev-parse", "--verify", "--quiet", "--end-of-options", ref, check=False).text()
    if not new:
        return old, False, f"the session has no branch {branch}"
    if old == new:
        return old, False, f"{branch} is up to date"
    if old:
        if run(common, "merge-base", "--is-ancestor", old, new, check=False).code:
            return old, False, f"{branch} was left alone: it has commits that the session's branch has not"
        if place := elsewhere(repository, branch, worktree.tree if worktree else ""):
            return old, False, f"{branch} was left alone: it is checked out in {printable(place)}"
    expected = old or "0" * len(new)
    words = ("update-ref", "-m", f"sessionctl fetch {name}", ref, new, expected)
    done = run(common, *words, check=False)
    if done.code:
        said = printable(done.stderr.decode("utf-8", "backslashreplace").strip())
        return old, False, f"{branch} was left alone: {said}"
    moved = f"{branch} was {'fast-forwarded' if old else 'created'}"
    if worktree is not None and head(worktree) == branch and follow(repository, worktree).at != new:
        moved += "; the index of its worktree was left alone: something is staged there"
    return new, True, moved
