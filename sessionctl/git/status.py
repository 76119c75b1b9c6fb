"""Whether a workspace holds anything that no commit does, asked of git inside, and its answer judged."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from sessionctl import beneath
from sessionctl.errors import CommandError
from sessionctl.git.inspecting import PART_LIMIT, Inside, script
from sessionctl.git.names import printable, quoted
from sessionctl.model import GitState

# Every path of the upper is taken out of the pristine index, so that it comes back without stat
# data and is compared by content. What lies in the base layer alone cannot have been touched.
# The session's own index is compared with the commit as well: it may hold what no file does.
_STATUS = r"""
mkdir "$g/refs"
if [ -f "$base/.git/index" ]; then cp "$base/.git/index" "$g/index"; fi
git update-index -z --force-remove --stdin
git read-tree -m "$commit"
cd "$workspace"
git status --porcelain=v2 -z --no-renames --untracked-files=all --ignored=matching --ignore-submodules=all >"$t/status"
: >"$t/staged"
i=$r/index
if [ -f "$i" ] && [ ! -L "$i" ] && [ ! -L "$r" ]; then
    GIT_INDEX_FILE=$i git diff-index --cached --raw -z --no-renames --ignore-submodules=none "$commit" >"$t/staged" ||
        echo "the session's index cannot be read" >&2
fi
git ls-files -z --stage | tr '\0\n' '\n\0' | { grep '^160000 ' || :; } | tr '\0\n' '\n\0' >"$t/links"
for part in status staged links; do
    head -c "$limit" "$t/$part" >"$t/part"
    wc -c <"$t/part"
    mv "$t/part" "$t/$part"
done
cat "$t/status" "$t/staged" "$t/links"
"""


_PATHS_KEPT = 10


def full_status(
    inside: Inside, head: GitState, upper_paths: Sequence[str], frozen: Sequence[str] = ()
) -> tuple[bool | None, tuple[str, ...], str]:
    """Whether the workspace holds anything that no commit does, the first ten such paths, and why not known.

    `head` is what `read_head` gave, `upper_paths` everything in the session's upper, relative to it, and
    `frozen` everything in a layer between it and the base layer, which was there before the session was:
    that alone makes nothing dirty.
    Counts as dirty: changed, staged, deleted, untracked and ignored files, and repositories nested
    in the tree. None when git failed, said anything unexpected, or when a submodule was worked in.
    A file kept by LFS that the agent changed is dirty although committed: no commit holds its content.

    Nothing of the session's configuration, index or excludes can hide a file. Only of a session whose
    processes are stopped is the answer final.
    """
    if not upper_paths:
        return False, (), ""
    if head.commit is None:
        return None, (), head.error or "no commit is checked out"
    paths = [os.fsencode(path) for path in upper_paths]
    compared = {*paths, *map(os.fsencode, frozen)}
    nested = [path for path in paths if b"/.git/" in path or path.endswith(b"/.git")]
    outside = [path for path in paths if path != b".git" and not path.startswith(b".git/")]
    try:
        listed = sorted(path for path in compared if not _GIT_PATH.search(path))
        done = inside(script(_STATUS, head.commit), b"".join(path + b"\0" for path in listed))
        said = printable(done.stderr.decode("utf-8", "backslashreplace").strip()[:500])
        if done.code:
            return None, (), f"git status inside: {said or f'exit code {done.code}'}"
        status, staged, links = _sections(done.stdout)
        shown = _touched(_status_paths(status), outside) if frozen else _status_paths(status)
        found = [*shown, *_raw_paths(staged), *nested]
        submodules = tuple(_link_paths(links))
    except CommandError as error:
        return None, (), printable(f"git status inside: {error}")
    except ValueError as error:
        return None, (), printable(f"git status inside answered nonsense: {error}")
    within = tuple(path + b"/" for path in submodules)
    found += [path for path in outside if path in submodules or path.startswith(within)]
    changes = tuple(quoted(path) for path in sorted(set(found))[:_PATHS_KEPT])
    if changes:
        return True, changes, ""
    if said:
        return None, (), f"git status inside: {said}"
    directories = {path.rpartition(b"/")[0] for path in paths}
    written = (path for path in paths if path.startswith(b".git/modules/") and path not in directories)
    if not all(path.endswith(b"/index") for path in written):
        return None, (), "a submodule's repository was written to; it is not looked into"
    return False, (), ""


_GIT_PATH = re.compile(rb"(^|/)\.git(/|$)")


def blocking(entries: Iterable[beneath.Entry]) -> str:
    """The path of the first file that git reads in every directory and that is a pipe, or the like: git would wait
    for somebody to write to it. Empty when there is none."""
    special = (each.path for each in entries if each.kind == "other")
    return next((path for path in special if os.path.basename(path) in (".gitignore", ".gitattributes")), "")


def _touched(shown: Iterable[bytes], written: Sequence[bytes]) -> list[bytes]:
    """Those of `shown`, where a directory ends in ``/``, that are among `written` or hold something that is."""
    plain = set(written)
    above = {path[:at] for path in written for at, char in enumerate(path) if char == 0x2F}
    return [path for path in shown if path.rstrip(b"/") in (above if path.endswith(b"/") else plain)]


def _sections(output: bytes) -> tuple[bytes, bytes, bytes]:
    *sizes, rest = output.split(b"\n", 3)
    if len(sizes) != 3 or not all(size.strip().isdigit() for size in sizes):
        raise ValueError("no sizes")
    one, two, three = (int(size) for size in sizes)
    if one + two + three != len(rest):
        raise ValueError("sizes do not add up")
    return rest[:one], rest[one : one + two], rest[one + two :]


def _records(data: bytes) -> list[bytes]:
    """The records that end in NUL; one that was cut off is left out."""
    *whole, cut = data.split(b"\0")
    if cut and len(data) < PART_LIMIT:
        raise ValueError("a path without end")
    return whole


_FIELDS = {b"1": 8, b"u": 10, b"?": 1, b"!": 1}


def _status_paths(data: bytes) -> Iterable[bytes]:
    for record in _records(data):
        fields = record.split(b" ", _FIELDS.get(record[:1], 0))
        if len(fields) < 2 or not fields[-1]:
            raise ValueError(quoted(record[:100]))
        yield fields[-1]


def _raw_paths(data: bytes) -> Iterable[bytes]:
    records = _records(data)
    for about, path in zip(records[::2], records[1::2], strict=len(data) < PART_LIMIT):
        if not about.startswith(b":") or not path:
            raise ValueError(quoted(about[:100]))
        yield path


def _link_paths(data: bytes) -> Iterable[bytes]:
    if len(data) >= PART_LIMIT:
        raise ValueError("too many submodules")
    for record in _records(data):
        about, tab, path = record.partition(b"\t")
        if not tab or not about.startswith(b"160000 "):
            raise ValueError(quoted(record[:100]))
        yield path
