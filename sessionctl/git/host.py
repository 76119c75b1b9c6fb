"""Refs and HEAD of the user's repository, read as files: what every command asks, so no program is started.

Only where refs are kept as reftables, which no file tells, git is asked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from sessionctl.errors import GitError
from sessionctl.git.finding import Repository, read
from sessionctl.git.gate import run
from sessionctl.git.names import OBJECT_NAME, REF_LIMIT, is_ref_name, packed, quoted, symbolic
from sessionctl.model import GitState, sha256


class HostRefs(NamedTuple):
    """What the user's repository has of its own, or has fetched: the commits that are not lost with a session."""

    tips: Mapping[str, str]
    """Object name by full ref name: branches, remote branches, tags, and what sessionctl pinned or fetched."""
    fingerprint: str
    """Changes when any of them does; opaque."""


def host_refs(repository: Repository) -> HostRefs:
    """The refs of the user's repository, read as files: a fraction of a millisecond for a hundred refs."""
    common = repository.common_dir
    wanted = ("refs/heads", "refs/remotes", "refs/tags", "refs/sessionctl")
    try:
        if os.path.isdir(os.path.join(common, "reftable")):
            listed = run(common, "for-each-ref", "--format=%(objectname) %(refname)", *wanted).stdout
            tips = packed(listed, wanted)
        else:
            # Loose first, then packed: a ref that is packed meanwhile is seen in one of the two.
            loose: dict[str, str] = {}
            for prefix in wanted:
                _loose(common, prefix, loose)
            try:
                tips = packed(read(os.path.join(common, "packed-refs"), -1), wanted)
            except FileNotFoundError:
                tips = {}
            tips.update(loose)
    except OSError as error:
        raise GitError(f"{error.filename} cannot be read: {error.strerror}") from error
    seen = "".join(f"{tip} {ref}\n" for ref, tip in sorted(tips.items()))
    return HostRefs(tips, sha256(os.fsencode(seen)).hexdigest()[:32])


def _loose(common: str, prefix: str, found: dict[str, str]) -> None:
    try:
        with os.scandir(os.path.join(common, prefix)) as listed:
            entries = list(listed)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        name = f"{prefix}/{entry.name}"
        if entry.is_dir():
            _loose(common, name, found)
        elif not entry.name.endswith(".lock"):
            try:
                value = read(entry.path, 4096).strip()
            except FileNotFoundError:
                continue
            if OBJECT_NAME.fullmatch(
                value
            ):  # Else symbolic, such as refs/remotes/origin/HEAD: its target is listed too.
                found[name] = value.decode()


def host_head(repository: Repository, tips: Mapping[str, str]) -> tuple[str, str | None]:
    """The branch that is checked out ("" when detached) and its commit by `tips` (None: it has none yet)."""
    try:
        value = read(os.path.join(repository.git_dir, "HEAD"), REF_LIMIT).strip()
    except OSError as error:
        raise GitError(f"{repository.git_dir}/HEAD cannot be read: {error.strerror}") from error
    ref = symbolic(value)
    if not ref:
        return "", value.decode() if OBJECT_NAME.fullmatch(value) else None
    return ref.removeprefix("refs/heads/"), tips.get(ref)


def host_state(repository: Repository) -> GitState:
    """Branch and commit that this checkout of the user's repository is at; nothing else is filled in.

    Detached: a commit and no branch; unborn: a branch and no commit. Reads two or three files, however many
    refs there are. `GitError` when they cannot be read.
    """
    try:
        if os.path.isdir(os.path.join(repository.common_dir, "reftable")):
            ref = run(repository.git_dir, "symbolic-ref", "--quiet", "HEAD", check=False).text()
            commit = run(repository.git_dir, "rev-parse", "--verify", "--quiet", "HEAD", check=False).text()
            return GitState(ref.removeprefix("refs/heads/") or None, commit or None)
        value = read(os.path.join(repository.git_dir, "HEAD"), REF_LIMIT).strip()
        ref = symbolic(value)
        if not ref:
            return GitState(commit=value.decode() if OBJECT_NAME.fullmatch(value) else None)
        if not is_ref_name(ref):
            raise GitError(f"{repository.git_dir}/HEAD leads to {quoted(value[:40])}")
        return GitState(ref.removeprefix("refs/heads/"), ref_of_host(repository.common_dir, ref))
    except OSError as error:
        raise GitError(f"{error.filename or repository.git_dir} cannot be read: {error.strerror}") from error


def ref_of_host(common: str, ref: str) -> str | None:
    """The object name at a full ref name, loose or packed; None when there is no such ref."""
    try:
        value = read(os.path.join(common, ref), REF_LIMIT).strip()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        try:
            return packed(read(os.path.join(common, "packed-refs"), -1), ("refs/heads",)).get(ref)
        except FileNotFoundError:
            return None
    return value.decode() if OBJECT_NAME.fullmatch(value) else None


def under_way(repository: Repository) -> str:
    """What git is in the middle of in this checkout, such as ``rebase``; empty: nothing."""
    return next((what for what, mark in UNDER_WAY if os.path.exists(os.path.join(repository.git_dir, mark))), "")


UNDER_WAY = (
    ("rebase", "rebase-merge"),
    ("rebase", "rebase-apply"),
    ("merge", "MERGE_HEAD"),
    ("cherry-pick", "CHERRY_PICK_HEAD"),
    ("revert", "REVERT_HEAD"),
    ("bisect", "BISECT_LOG"),
)
"""What git may be in the middle of, and the name in a checkout's git directory that tells."""
