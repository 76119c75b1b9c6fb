"""Commits that the host has in another form: squashed into one of its own, rebased, or picked.

What commits change is compared, and whole trees. The session's are read by git inside, by its objects and configuration
of ours; the host's on the host. Equal is what changes the same files in the same way, to the byte; where in a file does
not count, as in git-patch-id(1). What could not be compared, or is too much, is merged nowhere. Decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from sessionctl import git, process
from sessionctl.errors import CommandError, GitError
from sessionctl.model import GitState, Merged

MOST = 200
"""Commits of a session that are compared; with more, none are."""
_RANGES = 20
"""Up to so many commits, whatever was done up to any of them is compared too, and not only up to the tips."""
_SINCE = 2000
"""The newest commits of the host, since the session began, that they are compared with."""
_LIMIT = 64 << 20
"""Bytes of all changes together that are read from inside."""

_FORMAT = "--no-commit-header --format='%H %T %P'"
_LIST = f'git rev-list --max-count={MOST + 1} {_FORMAT} --ignore-missing --all "$@" --stdin <"$t/known"\n'

# Whatever is configured, on both sides the same bytes come out. Without a work tree no attributes are read.
_DIFF = (
    *("-c", "core.bare=true", "-c", "core.quotePath=true", "diff-tree", "--stdin", "--always", "--root", "-r"),
    *("--no-renames", "--ignore-submodules=none", "--no-relative", "-O/dev/null"),
)
_FILES = (*_DIFF, "--name-status")
_PATCH = (
    *(*_DIFF, "-p", "--binary", "--full-index", "--no-ext-diff", "--no-textconv", "--no-color", "-U3"),
    *("--diff-algorithm=myers", "--no-indent-heuristic", "--inter-hunk-context=0", "--submodule=short"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)
_CHANGES = f"""
mkdir "$g/refs"
unset GIT_WORK_TREE
cd "$t"
cat >questions
for how in "{" ".join(_FILES)}" "{" ".join(_PATCH)}"; do
    git $how <questions | head -c {_LIMIT} >answer
    wc -c <answer
    mv answer "answer.${{#how}}"
done
cat "answer.{len(" ".join(_FILES))}" "answer.{len(" ".join(_PATCH))}"
"""


class _Commit(NamedTuple):
    id: str
    tree: str
    parents: tuple[str, ...]


class _Change(NamedTuple):
    """What one commit, or several together, change."""

    files: frozenset[bytes]
    """Their names and whether they come, go or change; empty when nothing is changed."""
    patch: str
    """Hash of how."""


def look(inside: git.Inside, repository: git.Repository, state: GitState, base: str, kept: Collection[str]) -> Merged:
    """What of the ``state.unpushed`` commits is in the host's repository in another form.

    `base` is the commit that the session was made from, `kept` what refs of the host are at.
    """
    try:
        return _looked(inside, repository, state, base, kept)
    except (CommandError, GitError, ValueError):
        return Merged()


def _looked(
    inside: git.Inside, repository: git.Repository, state: GitState, base: str, kept: Collection[str]
) -> Merged:
    assert state.commit is not None
    known = "".join(f"^{tip}\n" for tip in {base, *kept})
    listed = _said(inside(git.script(git.TIPS + _LIST, state.commit), known.encode()))
    own = {each.id: each for each in _commits(listed)}
    if len(own) != state.unpushed or len(own) > MOST:
        return Merged()
    spans = _spans(own)
    boundary = {parent for each in own.values() for parent in each.parents} - own.keys()
    since = "".join([*(f"{tip}\n" for tip in sorted(set(kept))), *(f"^{each}\n" for each in sorted(boundary))])
    words = ("rev-list", "--no-commit-header", "--format=%H %T %P", f"--max-count={_SINCE}", "--ignore-missing")
    host = list(_commits(git.run(repository.common_dir, *words, "--stdin", input=since.encode()).stdout))

    alone = [(each.id, *each.parents) for each in own.values() if len(each.parents) < 2]
    asked = [*alone, *spans]
    changes = dict(zip(asked, _changed_inside(inside, state.commit, asked), strict=True))
    patches = _patches_on_host(repository, host, {change.files for change in changes.values() if change.files})
    trees = {each.tree: each.id for each in reversed(host)}

    held: dict[str, str] = {}
    for each in own.values():
        if each.tree in trees:
            held |= dict.fromkeys(_above(each.id, own), trees[each.tree])
    for span in spans:
        if changes[span].patch in patches:
            held |= dict.fromkeys(_above(span[0], own), patches[changes[span].patch])
    for single in alone:
        if changes[single].patch in patches:
            held.setdefault(single[0], patches[changes[single].patch])
    # What was rebased inside may be on another branch as it was before.
    again = {changes[single].patch: held[single[0]] for single in alone if single[0] in held and changes[single].files}
    for single in alone:
        if changes[single].patch in again:
            held.setdefault(single[0], again[changes[single].patch])
    return Merged(len(held), tuple(sorted(set(held.values()))))


def _spans(own: Mapping[str, _Commit]) -> list[tuple[str, str]]:
    """The commits up to which all changes are compared together, each with a commit that they begin after."""
    tips = own.keys() - {parent for each in own.values() for parent in each.parents}
    ends = sorted(own if len(own) <= _RANGES else tips)
    return [
        (end, start)
        for end in ends
        for start in sorted({parent for each in _above(end, own) for parent in own[each].parents} - own.keys())
    ]


def _above(commit: str, own: Mapping[str, _Commit]) -> set[str]:
    """`commit` and its ancestors among `own`."""
    found: set[str] = set()
    pending = [commit]
    while pending:
        each = pending.pop()
        if each in own and each not in found:
            found.add(each)
            pending += own[each].parents
    return found


def _changed_inside(inside: git.Inside, commit: str, asked: Sequence[tuple[str, ...]]) -> list[_Change]:
    """What each of `asked`, a commit and what it is compared with, changes."""
    answer = _said(inside(git.script(_CHANGES, commit), _questions(asked)))
    first, second, rest = answer.split(b"\n", 2)
    if int(first) + int(second) != len(rest) or _LIMIT in (int(first), int(second)):
        raise ValueError("cut off")
    return list(_changes(rest[: int(first)], rest[int(first) :], asked))


def _patches_on_host(
    repository: git.Repository, host: Sequence[_Commit], wanted: Collection[frozenset[bytes]]
) -> dict[str, str]:
    """The commit of `host` by the hash of how it changes files, of those that change the same files as one `wanted`."""
    asked = [(each.id, *each.parents) for each in host if len(each.parents) < 2]
    if not wanted or not asked:
        return {}
    files = git.run(repository.common_dir, *_FILES, input=_questions(asked)).stdout
    same = [each for each, lines in zip(asked, _answers(files, asked), strict=True) if frozenset(lines) in wanted]
    if not same:
        return {}
    files, patches = (git.run(repository.common_dir, *how, input=_questions(same)).stdout for how in (_FILES, _PATCH))
    found = zip(same, _changes(files, patches, same), strict=True)
    return {change.patch: each[0] for each, change in found if change.files}


def _questions(asked: Iterable[Sequence[str]]) -> bytes:
    return "".join(f"{' '.join(each)}\n" for each in asked).encode()


def _changes(files: bytes, patches: bytes, asked: Sequence[Sequence[str]]) -> Iterator[_Change]:
    for names, lines in zip(_answers(files, asked), _answers(patches, asked), strict=True):
        yield _Change(frozenset(names), _hash(lines) if names else "")


def _answers(output: bytes, asked: Sequence[Sequence[str]]) -> Iterator[list[bytes]]:
    """The lines that answer each of `asked`. `ValueError` unless they are all there, in order.

    Nothing that an agent can have written is a line that consists of a commit's name: lines of files begin with a
    sign, names of files with what became of them, and those of binary patches have other lengths.
    """
    lines = output.split(b"\n")
    if lines.pop():
        raise ValueError("cut off")
    heads = [at for at, line in enumerate(lines) if _NAME.fullmatch(line)]
    if [lines[at].decode() for at in heads] != [each[0] for each in asked] or heads[:1] not in ([], [0]):
        raise ValueError("not what was asked")
    for at, end in zip(heads, [*heads[1:], len(lines)], strict=True):
        yield lines[at + 1 : end]


_NAME = re.compile(rb"[0-9a-f]{40}|[0-9a-f]{64}")


def _hash(lines: Iterable[bytes]) -> str:
    digest = sha256()
    for line in lines:
        if not line.startswith(b"index "):
            digest.update(b"@@\n" if line.startswith(b"@@ ") else line + b"\n")
    return digest.hexdigest()


def _commits(output: bytes) -> Iterator[_Commit]:
    for line in output.decode("ascii").splitlines():
        id, tree, *parents = words = line.rstrip(" ").split(" ")
        if not all(_NAME.fullmatch(word.encode()) for word in words):
            raise ValueError("no commit")
        yield _Commit(id, tree, tuple(parents))


def _said(done: process.Completed) -> bytes:
    if done.code:
        raise ValueError("git failed inside")
    return done.stdout
