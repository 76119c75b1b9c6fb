"""Git, on the two sides of the wall.

The user's repository is read as files or by git's plumbing, through one gate with a scrubbed
environment. A session's repository is hostile: its HEAD and refs are read as files, and whatever
needs git runs inside an inspection sandbox, on a git directory of our own making that borrows
nothing of the session's but its objects, refs and reflogs. This module may not run git on the host
with a git directory or work tree that an agent can write, make or change workspaces, or print.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from sessionctl import beneath, process
from sessionctl.beneath import StrPath
from sessionctl.errors import CommandError, GitError
from sessionctl.model import WORKSPACE, GitState, sha256

OBJECTS = "/.sessionctl/objects"
"""Where the repository's objects are mounted, read-only, in a sandbox that borrows them."""
BASE = "/.sessionctl/base"
"""Where an inspection sandbox has the base layer of the session, as it was made."""

Inside = Callable[[Sequence[str], bytes], process.Completed]
"""Runs an argv with a standard input in a session's inspection sandbox, to its end."""


# --- the gate ----------------------------------------------------------------------------------

_QUIET = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.attributesFile=/dev/null"),
    *("-c", "protocol.ext.allow=never"),
    *("-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false"),
)
_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_COMMITTER_NAME": "sessionctl",
    "GIT_COMMITTER_EMAIL": "sessionctl@localhost",
}


def run(
    git_dir: str,
    *args: str,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    input: bytes | None = None,
    timeout: float | None = None,
    check: bool = True,
) -> process.Completed:
    """Runs git on a git directory that no agent can write.

    Without hooks, fsmonitor, prompts, the system's or the user's configuration, and without any
    ``GIT_*`` variable of ours, so that it is right inside a git hook too. An explicit git directory
    also means that git asks nobody who owns it: `find_repository` has. With `check`, failure is
    a `GitError`; what git said is made printable.
    """
    argv = ("git", f"--git-dir={git_dir}", *_QUIET, *args)
    # `env` comes first: nothing that a caller passes through may switch the scrubbing off.
    whole = {**process.environment(env), **_ENVIRONMENT}
    try:
        return process.run(argv, env=whole, cwd=cwd, input=input, timeout=timeout, check=check)
    except CommandError as error:
        raise GitError(printable(str(error)), hint=error.hint) from error


def printable(text: str) -> str:
    """`text` without control characters, which an agent may have put there to draw on a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def quoted(path: bytes) -> str:
    """A path for people, as git quotes it: plain when it is plain ASCII, else in quotes with escapes."""
    if re.fullmatch(rb"[ !#-\[\]-~]+", path):
        return path.decode("ascii")
    return '"' + "".join(_ESCAPES.get(b) or (chr(b) if 32 <= b < 127 else f"\\{b:03o}") for b in path) + '"'


_ESCAPES = {ord(c): "\\" + letter for c, letter in zip('\a\b\t\n\v\f\r"\\', 'abtnvfr"\\', strict=True)}


_REF_NAME = re.compile(
    r"refs/(?!.*(?:\.\.|//|@\{|/\.|\.lock(?:/|$)))[^\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]+(?<![/.])", re.DOTALL
)


def is_ref_name(text: str) -> bool:
    """Whether git accepts `text` as the full name of a ref, ``refs/…``."""
    return len(text) <= 1024 and _REF_NAME.fullmatch(text) is not None


# --- the user's repository ---------------------------------------------------------------------


class Repository(NamedTuple):
    """A repository of the host."""

    root: str
    """The top of the checkout it was found from; the repository itself when it is bare."""
    git_dir: str
    """Where this checkout's HEAD is."""
    common_dir: str
    """Where refs and objects are; linked worktrees share it."""
    bare: bool
    project: str
    """Project id: 16 hex digits of the hash of `common_dir`."""
    name: str
    """What people call it, for directory names; not unique."""


def find_repository(start: StrPath) -> Repository:
    """The repository that `start`, or the nearest directory above it, belongs to.

    Reads files only, whatever ``GIT_*`` says; only a repository of another owner makes it ask git for
    ``safe.directory``. `GitError` when there is none, when a ``.git`` leads nowhere or may not be
    read, and when git itself would refuse it because somebody else owns it.
    """
    here = os.path.realpath(start)
    if not os.path.isdir(here):
        hint = f"make it with `git init {shlex.quote(os.fspath(start))}`, or name another one with -C DIR"
        raise GitError(f"{start} is not a directory", hint=hint)
    directory = here
    while True:
        try:
            found = _repository_at(directory)
        except OSError as error:
            raise GitError(f"{error.filename or directory} cannot be read: {error.strerror}") from error
        if found is not None:
            return found
        if directory == "/":
            raise GitError(f"no git repository at {here} or above", hint="run `git init`, or name one with -C DIR")
        directory = os.path.dirname(directory)


def _repository_at(directory: str) -> Repository | None:
    dot = os.path.join(directory, ".git")
    if os.path.isfile(dot):
        pointer = _file(dot, 4096)
        if not pointer.startswith(b"gitdir: "):
            raise GitError(f"{dot} is not what git wrote", hint=f"see `git -C {shlex.quote(directory)} status`")
        git_dir = os.path.realpath(os.path.join(directory, os.fsdecode(pointer[8:].strip(b"\r\n"))))
        if not _is_git_dir(git_dir):
            raise GitError(
                f"{dot} points to {git_dir}, which is not a git directory",
                hint="`git worktree repair`, run in the main checkout, mends a moved worktree",
            )
        return _owned(directory, git_dir, bare=False, also=dot)
    if os.path.isdir(dot) and _is_git_dir(dot):
        return _owned(directory, os.path.realpath(dot), bare=False)
    if _is_git_dir(directory):
        if os.path.basename(directory) == ".git":
            return _owned(os.path.dirname(directory), directory, bare=False)
        return _owned(directory, directory, bare=True)
    return None


def _is_git_dir(path: str) -> bool:
    """Whether git would take `path` for a git directory. `PermissionError` when it may not be looked into."""
    try:
        os.stat(os.path.join(path, "HEAD"), follow_symlinks=False)
        common = _common_dir(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        if os.path.basename(path) == ".git":
            raise
        return False
    return os.path.isdir(os.path.join(common, "objects")) and os.path.isdir(os.path.join(common, "refs"))


def _common_dir(git_dir: str) -> str:
    try:
        shared = _file(os.path.join(git_dir, "commondir"), 4096)
    except FileNotFoundError:
        return git_dir
    return os.path.realpath(os.path.join(git_dir, os.fsdecode(shared.strip(b"\r\n"))))


def _file(path: str, limit: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(limit)


def _owned(root: str, git_dir: str, *, bare: bool, also: str = "") -> Repository:
    """The repository, unless git's own rule (``safe.directory``) would refuse it.

    A repository's configuration names programs that git runs, so one that somebody else can write
    is not read, wherever it was found.
    """
    us = {os.geteuid()}
    if us == {0} and os.environ.get("SUDO_UID", "").isdecimal():
        us.add(int(os.environ["SUDO_UID"]))
    for path in filter(None, (also, root, git_dir)):
        owner = os.stat(path, follow_symlinks=False).st_uid
        if owner not in us and not _declared_safe(root):
            raise GitError(
                f"{path} belongs to another user (uid {owner})",
                hint=f"if you trust it: git config --global --add safe.directory {shlex.quote(root)}",
            )
    common = _common_dir(git_dir)
    # A checkout beside a bare repository (`gitdir: ./.bare`) has no files of its own.
    bare = bare or (git_dir == common and bool(also) and _says_bare(common))
    project = sha256(os.fsencode(common)).hexdigest()[:16]
    base = os.path.basename(common)
    name = os.path.basename(os.path.dirname(common)) if base.startswith(".") else base.removesuffix(".git")
    return Repository(root, git_dir, common, bare, project, name or "repository")


def _declared_safe(root: str) -> bool:
    extra = {"GIT_CEILING_DIRECTORIES": "/", "LC_ALL": "C"}
    if "XDG_CONFIG_HOME" in os.environ:
        extra["XDG_CONFIG_HOME"] = os.environ["XDG_CONFIG_HOME"]
    asked = ("git", "config", "--null", "--type=path", "--get-all", "safe.directory")
    ended = process.run(asked, cwd="/", env=process.environment(extra), check=False)
    safe = False
    for value in os.fsdecode(ended.stdout).split("\0")[:-1]:
        if not value:
            safe = False  # An empty value takes back what came before it.
        elif value in ("*", root) or (value.endswith("/*") and root.startswith(value[:-1])):
            safe = True
    return safe


def _says_bare(common_dir: str) -> bool:
    section = ""
    for line in _file(os.path.join(common_dir, "config"), 1 << 20).decode("utf-8", "replace").lower().splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[core]" and re.fullmatch(r"bare(\s*=\s*(true|yes|on|1))?", line):
            return True
    return False


def identity(repository: Repository) -> tuple[str, str]:
    """The name and e-mail address the user commits with there; empty where none is configured."""
    import configparser

    from git import Repo
    from git.config import GitConfigParser, get_config_path
    from git.exc import GitError as GitPythonError

    # Named file by file: GitPython would otherwise ask GIT_COMMON_DIR, which a hook has set for another repository.
    files = [get_config_path("system"), get_config_path("user"), get_config_path("global")]
    files.append(os.path.join(repository.common_dir, "config"))
    try:
        # The repository is for `includeIf`, by which people keep two identities apart.
        with Repo(repository.git_dir) as repo, GitConfigParser(files, read_only=True, repo=repo) as config:
            name, email = (config.get_value("user", key, default="") for key in ("name", "email"))
    except (OSError, ValueError, configparser.Error, GitPythonError) as error:
        raise GitError(f"git's configuration cannot be read: {error}", hint="try: git config --list") from error
    return str(name), str(email)


def resolve(repository: Repository, base: str) -> tuple[str, str]:
    """The commit that `base` names, and the full name of the ref it was named by, or "".

    An empty `base` is the commit that is checked out. `GitError` when there is no such commit, none
    at all yet, or when the name means several things.
    """
    if any(not c.isprintable() for c in base):
        raise GitError(f"{base!a} does not name a commit")
    name = base or "HEAD"
    found = run(repository.git_dir, "rev-parse", "--verify", "--end-of-options", name + "^{commit}", check=False)
    if b"ambiguous" in found.stderr:
        raise GitError(
            f"{name} is ambiguous in {repository.root}",
            hint="write it in full: refs/heads/NAME or refs/tags/NAME",
        )
    if found.code:
        if name == "HEAD":
            raise _no_commit(repository)
        if not run(repository.git_dir, "for-each-ref", "--count=1").text():
            raise _no_commit(repository)
        raise GitError(f"{name} names no commit of {repository.root}", hint="see `git branch --all` and `git tag`")
    commit = found.text()
    if not _HEX.fullmatch(commit.encode()):
        raise GitError(f"git gave no commit for {name}: {printable(commit)}")
    full_name = ("rev-parse", "--verify", "--symbolic-full-name", "--end-of-options", base)
    ref = run(repository.git_dir, *(full_name if base else ("symbolic-ref", "--quiet", "HEAD")), check=False).text()
    return commit, ref if is_ref_name(ref) else ""


def _no_commit(repository: Repository) -> GitError:
    return GitError(f"{repository.root} has no commit yet", hint='make one: git commit --allow-empty -m "start"')


def has_commit(repository: Repository, commit: str) -> bool:
    """Whether the repository holds that commit."""
    return run(repository.common_dir, "cat-file", "-e", f"{commit}^{{commit}}", check=False).code == 0


def host_count(repository: Repository, commit: str, tip: str) -> int | None:
    """Commits that `tip` has and `commit` has not, by the host repository; None when it lacks one of them."""
    done = run(repository.common_dir, "rev-list", "--count", f"^{commit}", tip, "--", check=False)
    text = done.text()
    return int(text) if not done.code and text.isdecimal() else None


def host_head(repository: Repository, tips: Mapping[str, str]) -> tuple[str, str | None]:
    """The branch that is checked out ("" when detached) and its commit by `tips` (None: it has none yet)."""
    try:
        value = _file(os.path.join(repository.git_dir, "HEAD"), _REF_LIMIT).strip()
    except OSError as error:
        raise GitError(f"{repository.git_dir}/HEAD cannot be read: {error.strerror}") from error
    ref = _symbolic(value)
    if not ref:
        return "", value.decode() if _HEX.fullmatch(value) else None
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
        value = _file(os.path.join(repository.git_dir, "HEAD"), _REF_LIMIT).strip()
        ref = _symbolic(value)
        if not ref:
            return GitState(commit=value.decode() if _HEX.fullmatch(value) else None)
        if not is_ref_name(ref):
            raise GitError(f"{repository.git_dir}/HEAD leads to {quoted(value[:40])}")
        return GitState(ref.removeprefix("refs/heads/"), _host_ref(repository.common_dir, ref))
    except OSError as error:
        raise GitError(f"{error.filename or repository.git_dir} cannot be read: {error.strerror}") from error


def _host_ref(common: str, ref: str) -> str | None:
    """The object name at a full ref name, loose or packed; None when there is no such ref."""
    try:
        value = _file(os.path.join(common, ref), _REF_LIMIT).strip()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        try:
            return _packed(_file(os.path.join(common, "packed-refs"), -1), ("refs/heads",)).get(ref)
        except FileNotFoundError:
            return None
    return value.decode() if _HEX.fullmatch(value) else None


def under_way(repository: Repository) -> str:
    """What git is in the middle of in this checkout, such as ``rebase``; empty: nothing."""
    return next((what for what, mark in _UNDER_WAY if os.path.exists(os.path.join(repository.git_dir, mark))), "")


_UNDER_WAY = (
    ("rebase", "rebase-merge"),
    ("rebase", "rebase-apply"),
    ("merge", "MERGE_HEAD"),
    ("cherry-pick", "CHERRY_PICK_HEAD"),
    ("revert", "REVERT_HEAD"),
    ("bisect", "BISECT_LOG"),
)


class HooksDirectory(NamedTuple):
    """Where git looks for the hooks of a checkout."""

    path: str
    elsewhere: str
    """Where ``core.hooksPath`` was set, such as ``global``, if it leads out of the repository; else empty."""


def hooks_directory(repository: Repository) -> HooksDirectory:
    """Where git looks for the hooks of this checkout, by the user's whole configuration. May not exist."""
    own = os.path.join(repository.common_dir, "hooks")
    asked = ("config", "--null", "--show-scope", "--type=path", "--get", "core.hooksPath")
    extra = {name: os.environ[name] for name in ("XDG_CONFIG_HOME",) if name in os.environ}
    argv = ("git", f"--git-dir={repository.git_dir}", *asked)
    scope, _, path = process.run(argv, env=process.environment(extra), check=False).text().partition("\0")
    if not path:
        return HooksDirectory(own, "")
    # Relative to where hooks run: the top of the checkout, or the repository itself when it is bare.
    path = os.path.join(repository.root, path.removesuffix("\0"))
    same = os.path.realpath(path) == os.path.realpath(own)
    return HooksDirectory(own if same else path, "" if same else scope)


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
            tips = _packed(listed, wanted)
        else:
            # Loose first, then packed: a ref that is packed meanwhile is seen in one of the two.
            loose: dict[str, str] = {}
            for prefix in wanted:
                _loose(common, prefix, loose)
            try:
                tips = _packed(_file(os.path.join(common, "packed-refs"), -1), wanted)
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
                value = _file(entry.path, 4096).strip()
            except FileNotFoundError:
                continue
            if _HEX.fullmatch(value):  # Else symbolic, such as refs/remotes/origin/HEAD: its target is listed too.
                found[name] = value.decode()


def _packed(data: bytes, prefixes: Iterable[str]) -> dict[str, str]:
    starts = tuple(os.fsencode(prefix) + b"/" for prefix in prefixes)
    found: dict[str, str] = {}
    for line in data.splitlines():
        tip, _, ref = line.partition(b" ")
        if ref.startswith(starts) and _HEX.fullmatch(tip):
            found[os.fsdecode(ref)] = tip.decode()
    return found


# --- a session's repository, read as files -----------------------------------------------------

_HEX = re.compile(rb"[0-9a-f]{40}|[0-9a-f]{64}")
_REF_LIMIT = 4096
_PACKED_LIMIT = 16 * 1024 * 1024


class _Unreadable(Exception):
    """Why a session's HEAD says nothing; for `GitState.error`."""


def read_head(layers: Sequence[str]) -> GitState:
    """Branch and commit of the workspace that overlayfs makes of `layers` (top first); nothing else is filled in.

    Reads files, runs nothing, never raises and never waits. Detached: a commit and no branch.
    Otherwise `GitState.error` begins with ``missing`` (there is no repository), ``unborn`` (its branch
    has no commit), ``reftable`` (its refs cannot be read as files) or ``unreadable``.
    """
    try:
        return _head(layers)
    except _Unreadable as error:
        return GitState(error=str(error))
    except FileNotFoundError:
        return GitState(error="missing: the workspace has no git repository")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return GitState(error=printable(f"unreadable: {why}"))


def _head(layers: Sequence[str]) -> GitState:
    value = beneath.read_layered(layers, ".git/HEAD", _REF_LIMIT).rstrip(b"\n")
    branch: str | None = None
    for _ in range(5):  # As deep as git follows symbolic refs.
        if _HEX.fullmatch(value):
            return GitState(branch=branch, commit=value.decode())
        ref = _symbolic(value)
        if ref == "refs/heads/.invalid":
            raise _Unreadable("reftable: the session keeps its refs in a format that is not read as files")
        if not is_ref_name(ref):
            raise _Unreadable(f"unreadable: HEAD leads to {quoted(value[:40])}")
        if branch is None and ref.startswith("refs/heads/"):
            branch = ref.removeprefix("refs/heads/")
        found = _ref(layers, ref)
        if found is None:
            raise _Unreadable(f"unborn: {printable(ref)} has no commit yet")
        value = found
    raise _Unreadable("unreadable: HEAD leads in circles")


def _symbolic(value: bytes) -> str:
    return os.fsdecode(value[4:].strip()) if value.startswith(b"ref:") else ""


def read_ref(layers: Sequence[str], ref: str) -> str | None:
    """The object name at a ref of a session; None when there is no such ref. `GitError` when it cannot be read."""
    try:
        value = _ref(layers, ref)
    except OSError as error:
        raise GitError(f"{ref} cannot be read: {error}") from error
    if value is not None and not _HEX.fullmatch(value):
        raise GitError(f"{ref} is no commit: {printable(os.fsdecode(value))[:100]}")
    return value.decode() if value is not None else None


def _ref(layers: Sequence[str], ref: str) -> bytes | None:
    """What the ref holds, loose or packed; None when there is no such ref."""
    try:
        return beneath.read_layered(layers, ".git/" + ref, _REF_LIMIT).rstrip(b"\n")
    except FileNotFoundError:
        pass
    except OSError:
        # A directory that packing its refs has left empty is no ref; git looks in packed-refs then.
        if not _is_directory(layers, ".git/" + ref):
            raise
    try:
        packed = b"\n" + beneath.read_layered(layers, ".git/packed-refs", _PACKED_LIMIT)
    except FileNotFoundError:
        return None
    at = packed.find(b" " + os.fsencode(ref) + b"\n")
    if at < 0:
        return None
    return packed[packed.rfind(b"\n", 0, at) + 1 : at]


def _is_directory(layers: Sequence[str], path: str) -> bool:
    try:
        beneath.list_layered(layers, path)
    except OSError:
        return False
    return True


def write_branch(upper: str, name: str, commit: str) -> None:
    """Makes branch `name` at `commit` the one that is checked out in the session with this upper layer.

    Only while nothing runs in it. Index and files stay as they are.
    """
    info = os.stat(upper)
    owner = (info.st_uid, info.st_gid)
    beneath.write(upper, f".git/refs/heads/{name}", f"{commit}\n".encode(), 0o644, owner)
    beneath.write(upper, ".git/HEAD", f"ref: refs/heads/{name}\n".encode(), 0o644, owner)


# --- a session's repository, read by git inside ------------------------------------------------

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
for store in "$objects" "$workspace/.git/objects"; do
    if [ -d "$store" ]; then printf '%s\n' "$store"; fi
done >"$g/objects/info/alternates"
if [ -f "$base/.git/shallow" ]; then cp "$base/.git/shallow" "$g/shallow"; fi
"""

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
i=$workspace/.git/index
if [ -f "$i" ] && [ ! -L "$i" ] && [ ! -L "$workspace/.git" ]; then
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

# All that holds a commit that nobody has done away with: every ref, HEAD, all of the stash, other worktrees
# of the session, and the heads that an unfinished merge or rebase has set aside. Reflogs are given as they
# stand in files: git follows no link to a directory of them.
TIPS = r"""
r=$workspace/.git
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

_PATHS_KEPT = 10
_PART_LIMIT = 65536


def script(body: str, commit: str, since: str = "", tip: str = "") -> tuple[str, ...]:
    """What an `Inside` must run: `body`, in which git has the session's objects in a git directory of ours, ``$g``.

    ``$t`` is an empty directory, ``$commit`` what is checked out; `since` and `tip` are there by their names.
    """
    names = "workspace=$1 objects=$2 base=$3 limit=$4 commit=$5 since=$6 tip=$7\n"
    return ("sh", "-c", names + PRIVATE + body, "sh", WORKSPACE, OBJECTS, BASE, str(_PART_LIMIT), commit, since, tip)


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
    if cut and len(data) < _PART_LIMIT:
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
    for about, path in zip(records[::2], records[1::2], strict=len(data) < _PART_LIMIT):
        if not about.startswith(b":") or not path:
            raise ValueError(quoted(about[:100]))
        yield path


def _link_paths(data: bytes) -> Iterable[bytes]:
    if len(data) >= _PART_LIMIT:
        raise ValueError("too many submodules")
    for record in _records(data):
        about, tab, path = record.partition(b"\t")
        if not tab or not about.startswith(b"160000 "):
            raise ValueError(quoted(record[:100]))
        yield path


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


# --- bringing commits home ---------------------------------------------------------------------

# Git waits for ever to read a pipe; an agent may have put one where it looks first.
_UPLOAD_PACK = """
cd "$1" || exit
if [ -n "$(find -L HEAD packed-refs refs config shallow info -type p 2>/dev/null | head -n 1)" ]; then
    echo "a pipe is in the place of a file of git's" >&2
    exit 1
fi
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_NO_REPLACE_OBJECTS=1 LC_ALL=C
exec git -c "safe.directory=*" -c core.hooksPath=/dev/null -c core.fsmonitor=false \\
    -c core.multiPackIndex=false -c core.commitGraph=false upload-pack --strict "$1"
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
    timeout: float | None = 600,
) -> Fetched:
    """Fetches all branches of session `name` into ``refs/sessionctl/<project>/heads/<name>/``.

    `upload_pack` is the host command that runs `UPLOAD_PACK` inside, `env` its environment. The host
    parses the pack protocol and checks every object; it does not touch the session's files. With
    `detached`, the session's HEAD is fetched too, as ``…/<name>/HEAD``. What a ref was at before
    stays in its reflog. The host branch `branch` then follows, if that is a fast-forward and it is
    checked out nowhere; no commit is lost by it and no checkout goes stale. `timeout` in seconds.
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
    commit, followed, reason = _follow(repository, name, branch, after.get(branch, ""))
    return Fetched(after, moved, branch, commit, followed, reason)


def take_in(repository: Repository, git_dir: str, commit: str, ref: str) -> None:
    """Brings `commit`, which HEAD of the clone at `git_dir` is, into the repository, as `ref`. `GitError`.

    Every object is checked; nothing of the clone's configuration is used but what `upload-pack` reads of it.
    """
    run(repository.common_dir, *_FETCH, f"file://{git_dir}", f"+{commit}:{ref}", timeout=600)


def _heads(repository: Repository, prefix: str) -> dict[str, str]:
    listed = run(repository.common_dir, "for-each-ref", "--format=%(objectname) %(refname)", prefix).stdout
    return {ref.removeprefix(prefix): tip for ref, tip in _packed(listed, (prefix.rstrip("/"),)).items()}


def _follow(repository: Repository, name: str, branch: str, new: str) -> tuple[str, bool, str]:
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
        for place in _checkouts(common, ref):
            return old, False, f"{branch} was left alone: it is checked out in {printable(place)}"
    expected = old or "0" * len(new)
    words = ("update-ref", "-m", f"sessionctl fetch {name}", ref, new, expected)
    done = run(common, *words, check=False)
    if done.code:
        said = printable(done.stderr.decode("utf-8", "backslashreplace").strip())
        return old, False, f"{branch} was left alone: {said}"
    return new, True, f"{branch} was {'fast-forwarded' if old else 'created'}"


def _checkouts(common_dir: str, ref: str) -> Iterable[str]:
    place = ""
    for line in os.fsdecode(run(common_dir, "worktree", "list", "--porcelain").stdout).splitlines():
        if line.startswith("worktree "):
            place = line.removeprefix("worktree ")
        elif line == f"branch {ref}":
            yield place
