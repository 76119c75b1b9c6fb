"""What git is told inside an inspection sandbox, where it may read what an agent wrote.

It works in a git directory of our own making that borrows nothing of the session's but its objects, refs and
reflogs. This module may not run anything itself, or believe what comes back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from sessionctl import process
from sessionctl.errors import CommandError
from sessionctl.model import APART, WORKSPACE

OBJECTS = "/.sessionctl/objects"
"""Where the repository's objects are mounted, read-only, in a sandbox that borrows them."""
BASE = "/.sessionctl/base"
"""Where an inspection sandbox has the base layer of the session, as it was made."""

Inside = Callable[[Sequence[str], bytes], process.Completed]
"""Runs an argv with a standard input in a session's inspection sandbox, to its end."""


# A git directory of our own for the session's files. Of the session's it uses objects, refs and
# reflogs; configuration, index, attributes, excludes, hooks, grafts and replacements are ours or
# none, and neither commit graph nor multi-pack index of an agent's making is believed.
PRIVATE = r"""
set -eu
umask 077
unset CDPATH ENV BASH_ENV
t=$(mktemp -d /tmp/sessionctl.XXXXXX)
g=$t/git
export GIT_DIR="$g" GIT_WORK_TREE="$workspace" HOME="$t" XDG_CONFIG_HOME="$t" LC_ALL=C
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_ATTR_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0
export GIT_OPTIONAL_LOCKS=0 GIT_NO_REPLACE_OBJECTS=1 GIT_NO_LAZY_FETCH=1
mkdir -p "$g/objects/info" "$g/info"
printf '%s\n' "$commit" >"$g/HEAD"
{
    printf '[core]\n\tbare = false\n\tcheckStat = minimal\n\ttrustctime = false\n\tfsmonitor = false\n'
    printf '\tuntrackedCache = false\n\tcommitGraph = false\n\tmultiPackIndex = false\n'
    printf '\thooksPath = /dev/null\n\tattributesFile = /dev/null\n\texcludesFile = /dev/null\n'
    case ${#commit} in
    64) printf '\trepositoryFormatVersion = 1\n[extensions]\n\tobjectFormat = sha256\n' ;;
    *) printf '\trepositoryFormatVersion = 0\n' ;;
    esac
} >"$g/config"
r=$apart
if [ ! -d "$r" ]; then r=$workspace/.git; fi
for store in "$objects" "$r/objects"; do
    if [ -d "$store" ]; then printf '%s\n' "$store"; fi
done >"$g/objects/info/alternates"
if [ -f "$base/.git/shallow" ]; then cp "$base/.git/shallow" "$g/shallow"; fi
"""


# All that holds a commit that nobody has done away with: every ref, HEAD, all of the stash, other worktrees
# of the session, and the heads that an unfinished merge or rebase has set aside. Reflogs are given as they
# stand in files: git follows no link to a directory of them.
TIPS = r"""
for part in refs packed-refs worktrees; do
    if [ -e "$r/$part" ]; then ln -s "$r/$part" "$g/$part"; fi
done
cat >"$t/known"
named() { sed -n 's/^\([0-9a-f]\{40,64\}\) \([0-9a-f]\{40,64\}\) .*/\1\n\2/p' "$1" | grep -v '^0*$' >>"$t/known" || :; }
if [ -f "$r/logs/refs/stash" ]; then named "$r/logs/refs/stash"; fi
set --
for f in MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD rebase-merge/orig-head rebase-apply/orig-head; do
    if [ -f "$r/$f" ] && [ ! -L "$r/$f" ]; then
        set -- "$@" $(head -c 4096 "$r/$f" | sed -n 's/^\([0-9a-f]\{40,64\}\)$/\1/p')
    fi
done
"""
"""A part of a `script`: behind it ``--all "$@" --stdin <"$t/known"`` are all of these, but for what it was given."""


PART_LIMIT = 65536
"""Bytes that are kept of each part of an answer; a `script` has them as ``$limit``."""


def script(body: str, commit: str, since: str = "", tip: str = "") -> tuple[str, ...]:
    """What an `Inside` must run: `body`, in which git has the session's objects in a git directory of ours, ``$g``.

    ``$r`` is the session's repository, ``$t`` an empty directory, ``$commit`` what is checked out; `since` and `tip`
    are there by their names.
    """
    names = "workspace=$1 objects=$2 apart=$3 base=$4 limit=$5 commit=$6 since=$7 tip=$8\n"
    words = (WORKSPACE, OBJECTS, APART, BASE, str(PART_LIMIT), commit, since, tip)
    return ("sh", "-c", names + PRIVATE + body, "sh", *words)


# What has done away with commits keeps them here for a while.
_REFLOGS = r"""
find "$r/logs" "$r"/worktrees/*/logs -type f -exec cat {} + 2>/dev/null | head -c 67108864 >"$t/log" || :
[ "$(wc -c <"$t/log")" -lt 67108864 ]
named "$t/log"
if [ -f "$r/ORIG_HEAD" ]; then sed -n '1s/^\([0-9a-f]\{40,64\}\)$/\1/p' "$r/ORIG_HEAD" >>"$t/known"; fi
"""

_COUNT = r"""
count() { git rev-list --count "$@" || echo -; }
count "$since..$commit"
if [ -n "$tip" ] && git cat-file -e "$tip^{commit}" 2>/dev/null; then count "$commit..$tip"; else echo -; fi
count --ignore-missing --all "$@" --stdin <"$t/known"
"""


def count(
    inside: Inside,
    commit: str,
    base: str,
    base_tip: str | None,
    host_tips: Iterable[str],
    *,
    reflogs: bool = False,
) -> tuple[int | None, int | None, int | None]:
    """Commits ahead of `base`, behind `base_tip`, and unpushed: on any ref, HEAD, stash or worktree of the session
    and reachable from neither `base` nor any of `host_tips`.

    With `reflogs`, those count too that were amended, rebased or reset away, and that git still has.
    None for each that is not known: `base_tip` is None or not among the session's objects, git failed.
    """
    known = "".join(f"^{tip}\n" for tip in {base, *host_tips})
    try:
        body = f"{TIPS}{_REFLOGS if reflogs else ''}{_COUNT}"
        done = inside(script(body, commit, base, base_tip or ""), known.encode())
    except CommandError:
        return None, None, None
    lines = done.stdout.split(b"\n")
    if done.code or len(lines) != 4:
        return None, None, None
    ahead, behind, unpushed = (int(text) if re.fullmatch(rb"\d{1,12}", text) else None for text in lines[:3])
    return ahead, behind, unpushed
