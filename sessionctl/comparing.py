"""What became of a session's files: its workspace or a snapshot of it against its base or a snapshot.

Both sides become trees of a git repository that is made for one command in an inspection sandbox: its
configuration and objects are ours and the base layer's, and nothing of the session's but plain files is read. No
commit, index, attribute or object that an agent has made can change what is shown. Decides and writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sessionctl import beneath, git, process
from sessionctl.backends import BESIDE
from sessionctl.errors import GitError, UsageError
from sessionctl.model import APART, WORKSPACE, Mount, Observed, Workspace, is_within
from sessionctl.units import size
from sessionctl.workspace import Standing, load_standing

if TYPE_CHECKING:
    from sessionctl.site import Site
    from sessionctl.snapshots import Snapshot

_LARGE = 64 << 20
"""Bytes of a file that is not looked into: all that is compared is held in memory."""
_MOST = 512 << 20
"""Bytes of all files that are looked into."""
_PATCH = 32 << 20
"""Bytes of a patch that are kept."""
_LIST = 8 << 20
"""Bytes of the list of files that are kept."""
_TIMEOUT = 300.0


class Changed(NamedTuple):
    """One file that differs."""

    path: bytes
    status: str
    """``A`` added, ``D`` deleted, ``M`` modified, ``T`` of another type."""
    added: int | None
    """Lines; None when its content is not text."""
    removed: int | None


class Difference(NamedTuple):
    """What differs."""

    session: str
    before: str
    """For people: what it is compared with."""
    after: str
    files: tuple[Changed, ...]
    patch: bytes
    """As git writes patches, but for what was cut off."""
    cut: bool
    """Whether the list of files or the patch is longer than what is kept of it."""
    notes: tuple[str, ...]
    """For people: what was not looked into, and why."""


class _Side(NamedTuple):
    """One of the two that are compared."""

    shown: str
    workspace: Workspace | None
    """None: the commit that the session began with, or nothing when it has no git."""
    written: tuple[str, ...] = ()
    """Paths that may differ from the base layer."""
    large: tuple[str, ...] = ()
    """Those of them that are not looked into."""
    notes: tuple[str, ...] = ()


def difference(site: Site, target: Observed, chosen: Sequence[Snapshot] = (), *, ignored: bool = False) -> Difference:
    """What differs from the base of the session in `target` to its workspace; from the first of `chosen`; or from
    the first to the second.

    With `ignored`, files that its ``.gitignore`` names as well. `GitError` when it cannot be told.
    """
    name = target.session
    standing = load_standing(site.directory, name)
    if target.workspace is None or standing is None:
        raise UsageError(f"{name} has no whole sandbox", hint="run `sessionctl apply`")
    if standing.mode == "bind":
        raise UsageError(f"{name} works in your own checkout", hint="run `git diff` there")
    sides = [_of_snapshot(site, each) for each in chosen]
    if len(sides) < 2:
        sides.append(_side("now", _with_base(standing, site.directory)))
    if len(sides) < 2:
        commit = standing.workspace.commit
        sides.insert(0, _Side(f"base {commit[:10]}" if commit else "nothing", None))
    return _compared(site, target, sides[0], sides[1], ignored=ignored)


def _of_snapshot(site: Site, snapshot: Snapshot) -> _Side:
    if "work" not in snapshot.parts or snapshot.standing is None:
        raise UsageError(f"snapshot {snapshot.id} holds no workspace")
    standing = Standing.from_data(snapshot.standing, site.directory).of(site.directory, snapshot.session)
    work = os.path.join(site.directory, "sessions", snapshot.session, "work")
    kept = os.path.join(site.directory, "snapshots", snapshot.session, snapshot.id, "work")

    def moved(path: str) -> str:
        return kept + path[len(work) :] if is_within(path, work) else path

    seen = _with_base(standing, site.directory).moved(moved)
    return _side(f"snapshot {snapshot.id}", seen)


def _with_base(standing: Standing, directory: str) -> Workspace:
    """Its workspace, with the base layer where an inspection has it, also when that is not a layer of it."""
    stack = standing.workspace
    if stack.lower or standing.recipe is None:
        return stack
    base = os.path.join(directory, "bases", standing.recipe.key, "tree")
    return stack._replace(mounts=(*stack.mounts, Mount(base, git.BASE)))


def _side(shown: str, seen: Workspace) -> _Side:
    written, large, notes = [], [], []
    total = 0
    try:
        for layer in (*seen.lower[1:], seen.upper):
            for entry in beneath.walk(layer):
                path = entry.path
                if path == ".git" or path.startswith(".git/"):
                    continue
                if git.blocking((entry,)):
                    raise GitError(f"{git.printable(path)} is no file: git would wait for it")
                written.append(path)
                if path.endswith("/.git"):
                    notes.append(f"{git.printable(path[:-5])}: a repository of its own, shown by its commit")
                if entry.kind == "file" and entry.size > _LARGE:
                    large.append(path)
                    notes.append(f"{git.printable(path)}: {size(entry.size)} are not looked into")
                elif entry.kind == "file":
                    total += entry.size
    except OSError as error:
        raise GitError(f"{error.filename or seen.upper} cannot be read: {error.strerror}") from error
    if total > _MOST:
        raise GitError(
            f"{size(total)} of files were written, more than the {size(_MOST)} that are looked into",
            hint="copy them out: sessionctl cp NAME:/workspace DIRECTORY",
        )
    outside = [path for path in written if "/.git/" not in f"/{path}/"]
    return _Side(shown, seen, tuple(outside), tuple(large), tuple(notes))


# --- git, inside -------------------------------------------------------------------------------

# The objects of the repository and the base layer are nobody's to write; an object of the session's own store
# could hold something else than its name says. `add` begins with the index that the base layer was made with,
# where that is the same: without what was written since, it holds what need not be read again.
_COMPARE = r"""
for store in "$objects" "$base/.git/objects"; do
    if [ -d "$store" ]; then printf '%s\n' "$store"; fi
done >"$g/objects/info/alternates"
mkdir "$g/refs"
if [ -z "$commit" ]; then echo ref: refs/heads/none >"$g/HEAD"; fi
git config core.bigFileThreshold 16m
git config core.compression 1
git config advice.addEmbeddedRepo false
tree() {
    export GIT_INDEX_FILE="$t/index.$1"
    head -c "$4" >"$t/written"
    head -c "$5" >"$t/spared"
    if [ "$3" = pristine ] && [ -f "$base/.git/index" ]; then
        cp "$base/.git/index" "$GIT_INDEX_FILE"
        git update-index -z --force-remove --stdin <"$t/written"
    fi
    cd "$2"
    GIT_WORK_TREE=$2 git add -A $ignored --ignore-errors --pathspec-from-file="$t/spared" --pathspec-file-nul >&2 || :
    cd "$t"
    git write-tree >"$t/tree.$1"
}
cat >"$t/input"
exec <"$t/input"
if [ -n "$one" ]; then tree 1 "$one" "$pristine" "$w1" "$s1"
elif [ -n "$commit" ]; then git rev-parse --verify "$commit^{tree}" >"$t/tree.1"
else git mktree </dev/null >"$t/tree.1"; fi
tree 2 "$workspace" pristine "$w2" "$s2"
cd "$t"
unset GIT_WORK_TREE
for part in --raw --numstat -p; do
    git diff-tree -r --no-renames --no-ext-diff --no-textconv $part $(test $part = -p || echo -z) \
        "$(cat tree.1)" "$(cat tree.2)" | head -c $(test $part = -p && echo $patch || echo $limit) >part
    wc -c <part
    mv part "part$part"
done
cat part--raw part--numstat part-p
"""


def _compared(site: Site, target: Observed, one: _Side, two: _Side, *, ignored: bool) -> Difference:
    assert two.workspace is not None
    commit = two.workspace.commit
    shares = one.workspace is not None and one.workspace.lower[:1] == two.workspace.lower[:1] != ()
    lists = [_listed(each) for side in (one, two) for each in (side.written, _spared(side))]
    words: Mapping[str, Any] = {
        "workspace": WORKSPACE,
        "objects": git.OBJECTS,
        "apart": APART,
        "base": git.BASE,
        "commit": commit,
        "one": BESIDE if one.workspace is not None else "",
        "pristine": "pristine" if shares else "anew",
        "ignored": "--force" if ignored else "--all",
        "limit": _LIST,
        "patch": _PATCH,
        **dict(zip(("w1", "s1", "w2", "s2"), map(len, lists), strict=True)),
    }
    names = "".join(f"{name}=${{{number}}}\n" for number, name in enumerate(words, start=1))
    argv = ("sh", "-c", names + git.PRIVATE + _COMPARE, "sh", *map(str, words.values()))
    seen = tuple(side.workspace for side in (two, one) if side.workspace is not None)
    command = site.backend(target.backend).command(target, argv, inspect=True, seen=seen)
    done = process.run(command.argv, env=command.env, input=b"".join(lists), timeout=_TIMEOUT, check=False)
    said = [git.printable(each) for each in done.stderr.decode("utf-8", "backslashreplace").splitlines()]
    if done.code:
        raise GitError(f"git inside: {'; '.join(said[-3:]) or f'exit code {done.code}'}")
    try:
        raw, counts, patch = _sections(done.stdout)
        files = tuple(_files(raw, counts))
    except ValueError as error:
        raise GitError(f"git inside answered nonsense: {error}") from error
    cut = len(patch) >= _PATCH or len(raw) >= _LIST or len(counts) >= _LIST
    notes = (*one.notes, *two.notes, *(each for each in said if each.startswith(("error:", "fatal:"))))
    return Difference(target.session, one.shown, two.shown, files, patch, cut, tuple(dict.fromkeys(notes)))


def _listed(paths: Sequence[str]) -> bytes:
    return b"".join(os.fsencode(path) + b"\0" for path in paths)


def _spared(side: _Side) -> tuple[str, ...]:
    """Pathspecs of all but what is not looked into."""
    return () if side.workspace is None else (".", *(f":(exclude,literal){path}" for path in side.large))


def _sections(output: bytes) -> tuple[bytes, bytes, bytes]:
    *sizes, rest = output.split(b"\n", 3)
    if len(sizes) != 3 or not all(each.strip().isdigit() for each in sizes):
        raise ValueError("no sizes")
    one, two, three = map(int, sizes)
    if one + two + three != len(rest):
        raise ValueError("sizes do not add up")
    return rest[:one], rest[one : one + two], rest[one + two :]


def _files(raw: bytes, counts: bytes) -> Iterator[Changed]:
    """The files of both lists; one that was cut off is left out."""
    lines: dict[bytes, tuple[bytes, bytes]] = {}
    for record in counts.split(b"\0")[:-1]:
        added, removed, path = record.split(b"\t", 2)
        lines[path] = (added, removed)
    fields = raw.split(b"\0")[:-1]
    for about, path in zip(fields[::2], fields[1::2], strict=False):
        if not about.startswith(b":") or not path:
            raise ValueError(git.quoted(about[:100]))
        added, removed = lines.get(path, (b"-", b"-"))
        yield Changed(path, about.rpartition(b" ")[2][:1].decode("ascii", "replace"), _count(added), _count(removed))


def _count(text: bytes) -> int | None:
    return int(text) if text.isdigit() else None
