"""The git checkouts sessions work on: prepared base layers, and one writable layer per session on top.

A base layer is a whole checkout, made once per commit on the host by git's plumbing, and never
written again. A session's own layer (its upper) begins with a handful of files: HEAD and its
branch. What a session's work stands on is kept beside it, where no sandbox can write. This module
may not run git on anything a session has written, empty a session's work to remake it, or decide
whether something may be removed.

On disk, below the project's state directory::

    bases/<key>/{tree,mark,alternates.N}    bases/<key>.lock
    sessions/<name>/{work/{upper,scratch},home,workspace.json}
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from sessionctl import beneath, git, process
from sessionctl.beneath import StrPath
from sessionctl.errors import GitError, UsageError
from sessionctl.model import Mount, SessionSpec, Workspace, is_id, is_name, require_name

Owner = tuple[int, int] | None
"""The uid and gid that what a sandbox may write must belong to; None: our own."""
Progress = Callable[[str], None]
"""Is told, for people, what takes long."""


# --- what a session's work stands on -----------------------------------------------------------


class Recipe(NamedTuple):
    """All that a base layer is made of. The same recipe gives the same layer."""

    commit: str
    history: str
    submodules: bool
    lfs: bool
    identity: tuple[str, str]
    """Name and e-mail address that commits are made with inside; empty: none."""

    @property
    def key(self) -> str:
        """What the layer's directory is called; the 1 is the version of how layers are made."""
        return hashlib.sha256(json.dumps([1, *self]).encode()).hexdigest()[:24]


class Standing(NamedTuple):
    """What a session's work stands on, as its ``workspace.json`` says."""

    mode: str
    recipe: Recipe | None
    """None where there is no git."""
    workspace: Workspace
    included: tuple[str, ...]
    """Untracked files of the user that were copied in; they are not copied twice."""


def load_standing(directory: StrPath, name: str) -> Standing | None:
    """What the work of session `name` stands on; None when it has no work. `GitError` when it cannot be told."""
    file = os.path.join(directory, "sessions", require_name(name), "workspace.json")
    try:
        with open(file, "rb") as opened:
            data = json.load(opened)
        made_of = data["recipe"]
        recipe = None
        if made_of is not None:
            commit, history, submodules, lfs, (who, address) = made_of
            recipe = Recipe(commit, history, submodules, lfs, (who, address))
        return Standing(
            str(data["mode"]),
            recipe,
            Workspace.from_data(data["workspace"], os.fspath(directory)),
            tuple(data["included"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise GitError(
            f"{file} cannot be read: {error}", hint="its files are untouched; restore or remove it"
        ) from error


def _save_standing(directory: StrPath, name: str, standing: Standing) -> None:
    data = {
        "mode": standing.mode,
        "recipe": standing.recipe,
        "workspace": standing.workspace.data(os.fspath(directory)),
        "included": standing.included,
    }
    beneath.publish(os.path.join(directory, "sessions", name, "workspace.json"), json.dumps(data).encode())


def layers(workspace: Workspace) -> tuple[str, ...]:
    """The directories of `workspace`, top first, as `beneath` and `git.read_head` read them."""
    return (workspace.upper, *reversed(workspace.lower))


def fingerprint(upper: str, limit: int = 20_000) -> str:
    """Changes when anything in `upper` does; opaque. Empty: not looked, there are more than `limit` entries."""
    seen = hashlib.sha256()
    try:
        for number, entry in enumerate(beneath.walk(upper)):
            if number >= limit:
                return ""
            seen.update(repr(entry).encode("utf-8", "surrogatepass"))
    except OSError:
        return ""
    return seen.hexdigest()[:32]


# --- making a session's workspace --------------------------------------------------------------


def prepare(
    repository: git.Repository | None,
    spec: SessionSpec,
    commit: str,
    directory: StrPath,
    *,
    project: str,
    base_ref: str = "",
    owner: Owner = None,
    identity: tuple[str, str] = ("", ""),
    localized: bool = False,
    progress: Progress | None = None,
) -> Workspace:
    """The workspace of `spec`, below the state directory `directory`; made if it is not there yet. Idempotent.

    `commit` and `base_ref` are what `git.resolve` gave for its base. Work that is there is never
    emptied or moved to another commit: it is reused as it is. When its history, submodules or lfs are
    declared differently now, the same work is put on another base layer of the same commit; from
    shared to own history `localize` must have been run inside before, which `localized` confirms.
    Several threads and processes may want the same base layer; one makes it, the others wait.

    Files named by ``workspace.include`` are copied in once each, where nothing is there yet. No
    sandbox may have the workspace mounted while an include or the base layer changes.

    `UsageError` when the mode of existing work was changed; `GitError` when the repository cannot
    give the checkout whole: unborn, shallow, partial, submodules or LFS files that are not there.
    """
    name = require_name(spec.name)
    declared = spec.workspace
    standing = load_standing(directory, name)
    if standing is not None and not os.path.lexists(os.path.join(directory, "sessions", name, "work")):
        standing = None
    if standing is not None and standing.mode != declared.mode:
        raise UsageError(
            f"{name} has work in a workspace of mode {standing.mode}; that cannot become {declared.mode}",
            hint=f"keep mode = {standing.mode!r}, or declare a session of another name and `sessionctl prune {name}`",
        )
    if declared.mode == "empty":
        return (standing or _begin(directory, name, owner, Standing("empty", None, _NOTHING, ()), {})).workspace
    if declared.mode != "clone":
        raise UsageError(f"workspace.mode {declared.mode} is not supported yet", hint="use clone or empty")
    if repository is None:
        raise GitError(
            f"{name} needs a git repository to clone", hint="run `git init`, or set workspace.mode = 'empty'"
        )

    recipe = Recipe(commit, declared.history, declared.submodules, declared.lfs, identity)
    if standing is not None and standing.recipe is not None:
        recipe = recipe._replace(commit=standing.recipe.commit, identity=standing.recipe.identity)
        if standing.recipe.history == "shared" and recipe.history == "own" and not localized:
            raise GitError(f"the work of {name} still borrows objects that its own history has to hold")
    with _base_layer(repository, recipe, directory, project, owner, progress) as base:
        if standing is None:
            stack = Workspace("", (base.tree,), "", base.mounts, recipe.commit)
            first = _first_files(recipe.commit, declared.branch, base_ref)
            standing = _begin(directory, name, owner, Standing("clone", recipe, stack, ()), first)
        elif recipe != standing.recipe:
            stack = standing.workspace._replace(lower=(base.tree,), mounts=base.mounts)
            standing = standing._replace(recipe=recipe, workspace=stack)
            _save_standing(directory, name, standing)
    missing = tuple(path for path in declared.include if path not in standing.included)
    if missing:
        _include(repository, missing, standing.workspace, owner)
        standing = standing._replace(included=standing.included + missing)
        _save_standing(directory, name, standing)
    return standing.workspace


_NOTHING = Workspace("")


def _begin(directory: StrPath, name: str, owner: Owner, standing: Standing, files: dict[str, bytes]) -> Standing:
    """Fresh work that holds `files`, and `standing` with its directories filled in, written down.

    What it stands on is written before the work is moved into place, so that work which is there
    always says what it stands on.
    """
    session = os.path.join(directory, "sessions", name)
    final, fresh = os.path.join(session, "work"), os.path.join(session, "work.new")
    _directories(session, owner)
    if os.path.lexists(final):
        raise GitError(
            f"{final} is there, but not {session}/workspace.json, which says what it stands on",
            hint=f"restore that file; or move {final} away, and {name} begins anew",
        )
    beneath.remove_tree(fresh)
    os.mkdir(fresh, 0o700 if owner is None else 0o711)
    _give(os.path.join(fresh, "upper"), 0o755, owner)
    scratch = ""
    if standing.workspace.lower:
        _give(os.path.join(fresh, "scratch"), 0o700, owner)
        scratch = os.path.join(final, "scratch")
    for path, content in files.items():
        beneath.write(os.path.join(fresh, "upper"), path, content, 0o644, owner)
    stack = standing.workspace._replace(upper=os.path.join(final, "upper"), scratch=scratch)
    standing = standing._replace(workspace=stack)
    _save_standing(directory, name, standing)
    os.rename(fresh, final)
    return standing


def _directories(path: str, owner: Owner) -> None:
    """Our own directories down to `path`. Whoever a sandbox runs as may pass through them, not look."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for new in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(new, 0o700)
            os.chmod(new, 0o700 if owner is None else 0o711)


def _give(path: str, mode: int, owner: Owner) -> None:
    """A new directory at `path` with `mode` that belongs to `owner`."""
    os.mkdir(path, 0o700)
    if owner is not None:
        os.chown(path, *owner)
    os.chmod(path, mode)


def _first_files(commit: str, branch: str, base_ref: str) -> dict[str, bytes]:
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


def home(directory: StrPath, name: str, owner: Owner) -> str:
    """The home directory of session `name`, made if it is not there."""
    session = os.path.join(directory, "sessions", require_name(name))
    _directories(session, owner)
    with contextlib.suppress(FileExistsError):
        _give(os.path.join(session, "home"), 0o700, owner)
    return os.path.join(session, "home")


def discard(directory: StrPath, name: str) -> None:
    """Removes the work and the home of session `name`, and what they stood on. Absent already is done.

    They are moved aside first: what a crash leaves of them is not taken for a session's work again.
    The home is the first, since without the work nobody can say any more what it held. No sandbox may
    have them mounted.
    """
    session = os.path.join(directory, "sessions", require_name(name))
    for part in ("home", "work"):
        beneath.remove_tree(os.path.join(session, f"{part}.discarded"))
        with contextlib.suppress(FileNotFoundError):
            os.rename(os.path.join(session, part), os.path.join(session, f"{part}.discarded"))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(session, "workspace.json"))
    leave(directory, name)


def is_there(directory: StrPath, name: str) -> bool:
    """Whether session `name` has work or a home."""
    session = os.path.join(directory, "sessions", require_name(name))
    return any(os.path.lexists(os.path.join(session, part)) for part in ("work", "home"))


def leave(directory: StrPath, name: str) -> None:
    """Removes what is left of session `name` when it has neither work nor home nor sandbox: a backend's lock."""
    session = os.path.join(directory, "sessions", require_name(name))
    for part in _HALF:
        beneath.remove_tree(os.path.join(session, part))
    if os.path.isdir(session) and not is_there(directory, name) and not any(map(is_id, os.listdir(session))):
        beneath.remove_tree(session)


_HALF = ("work.new", "work.discarded", "home.discarded")


def sweep(directory: StrPath) -> None:
    """Removes what a crash has left half-made or half-removed of sessions and base layers.

    Whole things stay, used or not. Only while nobody else makes or removes any.
    """
    sessions, bases = os.path.join(directory, "sessions"), os.path.join(directory, "bases")
    beneath.sweep(os.fspath(directory))
    for name in filter(is_name, _names(sessions)):
        session = os.path.join(sessions, name)
        for place in (".", "work", *filter(is_id, _names(session))):
            if os.path.isdir(os.path.join(session, place)):
                beneath.sweep(os.path.join(session, place))
        leave(directory, name)
    for key in filter(_KEY.fullmatch, _names(bases)):
        place = os.path.join(bases, key)
        with _locked(place, fcntl.LOCK_EX):
            if os.path.lexists(os.path.join(place, "mark")):
                beneath.sweep(place)
            else:
                _unpin(_pins(place))
                beneath.remove_tree(place)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


# --- files of the user's checkout --------------------------------------------------------------

_INCLUDE_LIMIT = 256 * 1024 * 1024


def _include(repository: git.Repository, paths: Sequence[str], workspace: Workspace, owner: Owner) -> None:
    """Copies untracked files into the upper, where the workspace has nothing of that name."""
    if repository.bare:
        raise GitError(f"{repository.root} is a bare repository: it has no files to include")
    # All are looked at before the first is copied: a refused one leaves nothing behind.
    files = [file for path in paths for file in _files_of(repository.root, path)]
    seen = layers(workspace)
    for file in files:
        if not _is_there(seen, file):
            try:
                mode = os.stat(os.path.join(repository.root, file), follow_symlinks=False).st_mode & 0o777
                beneath.write(workspace.upper, file, beneath.read(repository.root, file, _INCLUDE_LIMIT), mode, owner)
            except OSError as error:
                raise GitError(f"include {git.printable(file)} cannot be copied: {error.strerror}") from error


def _files_of(root: str, path: str) -> list[str]:
    """The regular files that the include `path` names, relative to `root`."""
    parts = path.rstrip("/").split("/")
    if path.startswith("/") or not all(parts) or {"..", ".", ".git"} & set(parts):
        raise UsageError(f"include {path!a} is not a path inside the repository")
    place, mode = root, 0
    for part in parts:
        place = os.path.join(place, part)
        try:
            mode = os.stat(place, follow_symlinks=False).st_mode
        except OSError as error:
            hint = "create it, or remove it from workspace.include"
            raise GitError(f"include {path}: {error.strerror}", hint=hint) from error
        if stat.S_ISLNK(mode):
            raise GitError(f"include {path}: {place} is a symlink", hint="include the file it points to")
    if stat.S_ISREG(mode):
        return ["/".join(parts)]
    if not stat.S_ISDIR(mode):
        raise GitError(f"include {path} is neither a file nor a directory")
    found = [(f"{'/'.join(parts)}/{entry.path}", entry.kind) for entry in beneath.walk(place)]
    for file, kind in found:
        if kind not in ("file", "dir"):
            raise GitError(
                f"include {path}: {git.printable(file)} is no regular file", hint="name the files one by one"
            )
    return [file for file, kind in found if kind == "file"]


def _is_there(seen: Sequence[str], path: str) -> bool:
    try:
        beneath.read_layered(seen, path, 0)
    except FileNotFoundError:
        return False
    except OSError:
        pass  # Too large, a directory, a link, or behind one: the agent's, whatever it is.
    return True


# --- base layers -------------------------------------------------------------------------------


class _Base(NamedTuple):
    tree: str
    mounts: tuple[Mount, ...]


_KEY = re.compile(r"[0-9a-f]{24}")


def _pin(project: str, key: str) -> str:
    return f"refs/sessionctl/{project}/base/{key}"


@contextlib.contextmanager
def _base_layer(
    repository: git.Repository,
    recipe: Recipe,
    directory: StrPath,
    project: str,
    owner: Owner,
    progress: Progress | None,
) -> Iterator[_Base]:
    """The base layer of `recipe`, made if need be; it is not released while the context lasts."""
    place = os.path.join(directory, "bases", recipe.key)
    _directories(os.path.dirname(place), owner)
    with _locked(place, fcntl.LOCK_SH):
        base = _load_base(place)
        if base is not None:
            yield base
            return
    with _locked(place, fcntl.LOCK_EX):
        base = _load_base(place)  # Somebody else may have made it while we waited.
        yield base or _make_base(repository, recipe, place, project, owner, progress)


@contextlib.contextmanager
def _locked(place: str, how: int) -> Iterator[None]:
    # The lock file stays when its base goes: unlinking it would let two hold "the" lock.
    fd = os.open(place + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        os.close(fd)


def _mark(place: str) -> dict[str, list[list[str]]] | None:
    file = os.path.join(place, "mark")
    try:
        with open(file, "rb") as opened:
            data = json.load(opened)
        return {"mounts": data["mounts"], "pins": data["pins"]}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GitError(f"{file} cannot be read: {error}", hint="sessions stand on it: restore the file") from error


def _load_base(place: str) -> _Base | None:
    mark = _mark(place)
    if mark is None:
        return None
    # What hides a borrowed store's own borrowing is named from here: the state directory may be moved.
    mounts = tuple(Mount(os.path.join(place, source), path) for source, path in mark["mounts"])
    return _Base(os.path.join(place, "tree"), mounts)


def _make_base(
    repository: git.Repository, recipe: Recipe, place: str, project: str, owner: Owner, progress: Progress | None
) -> _Base:
    if progress is not None:
        progress(f"checking out {recipe.commit[:12]}")
    beneath.remove_tree(place)  # What a crash has left has no mark: nothing stands on it.
    os.mkdir(place, 0o700)
    os.chmod(place, 0o700 if owner is None else 0o711)
    tree = os.path.join(place, "tree")
    os.mkdir(tree)
    os.chmod(tree, 0o755)
    lent = _Lent(place, _pin(project, recipe.key))
    try:
        source = _Source(repository.common_dir, repository.git_dir)
        _lay(source, recipe.commit, os.path.join(tree, ".git"), tree, recipe, lent)
        if owner is not None:
            _chown(tree, owner)
        # The mark must not survive a power cut that the files do not: every session here stands on them.
        process.run(["sync", "-f", place])
        mounts = [[mount.source.removeprefix(f"{place}/"), mount.path] for mount in lent.mounts]
        mark = {"mounts": mounts, "pins": lent.pins}
        beneath.publish(os.path.join(place, "mark"), json.dumps(mark).encode())
    except BaseException:
        _unpin(lent.pins)
        beneath.remove_tree(place)
        raise
    return _Base(tree, tuple(lent.mounts))


def _pins(place: str) -> list[list[str]]:
    """What keeps the commits of the base layer at `place`, also of one that is not whole."""
    mark = _mark(place)
    if mark is not None:
        return mark["pins"]
    try:
        with open(os.path.join(place, "pins"), "rb") as opened:
            return [json.loads(line) for line in opened.read().split(b"\n")[:-1]]
    except FileNotFoundError:
        return []


def _unpin(pins: Sequence[Sequence[str]]) -> None:
    for git_dir, ref in pins:
        if os.path.isdir(git_dir):  # A repository that is gone has nothing pinned.
            git.run(git_dir, "update-ref", "-d", ref, check=False)


def unused_bases(directory: StrPath, used: Collection[str] = ()) -> tuple[str, ...]:
    """Keys of the base layers that no session stands on, and whose tree is not in `used`.

    `used` are the `lower` directories that sandboxes have mounted: a running one may still be on a
    base that its session has left. `GitError` when a session cannot say what it stands on.
    """
    bases = os.path.join(directory, "bases")
    if not os.path.isdir(bases):
        return ()
    named = {*_lowers(directory), *used}
    keys = [name for name in sorted(os.listdir(bases)) if _KEY.fullmatch(name)]
    return tuple(key for key in keys if os.path.join(bases, key, "tree") not in named)


def release_base(directory: StrPath, key: str) -> bool:
    """Removes a base layer and its pins, unless a session stands on it by now; whether it is gone.

    No sandbox may have it mounted.
    """
    if not _KEY.fullmatch(key):
        raise UsageError(f"{key!a} is not the key of a base layer")
    place = os.path.join(directory, "bases", key)
    with _locked(place, fcntl.LOCK_EX):
        if os.path.join(place, "tree") in _lowers(directory):
            return False
        pins = _pins(place)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(place, "mark"))
        _unpin(pins)
        beneath.remove_tree(place)
    return True


def _lowers(directory: StrPath) -> set[str]:
    sessions = os.path.join(directory, "sessions")
    if not os.path.isdir(sessions):
        return set()
    standings = [load_standing(directory, name) for name in os.listdir(sessions) if is_name(name)]
    return {lower for standing in standings if standing for lower in standing.workspace.lower}


# --- laying out a checkout ---------------------------------------------------------------------


class _Source(NamedTuple):
    """A repository of the host that a checkout is made from."""

    common_dir: str
    git_dir: str


class _Lent:
    """What a base layer takes of the host: pinned commits, and mounted directories that it borrows from."""

    def __init__(self, place: str, pin: str) -> None:
        self.mounts: list[Mount] = []
        self.pins: list[tuple[str, str]] = []
        self._place = place
        self._pin = pin
        self._stores = 0

    def pin(self, git_dir: str, commit: str) -> None:
        """Keeps `commit` from being collected for as long as the base layer is there."""
        self.pins.append((git_dir, self._pin))
        # First: whatever ends this half way, nothing is kept for ever.
        _write(os.path.join(self._place, "pins"), "".join(f"{json.dumps(pin)}\n" for pin in self.pins))
        git.run(git_dir, "update-ref", self._pin, commit)

    def objects(self, store: str) -> str:
        """Lends an object store with all that it borrows from in turn; where it is inside.

        A store that borrows names directories of the host in ``info/alternates``. That file is hidden
        under one that names the places inside, or git would complain of each.
        """
        stores = _object_stores(store)
        paths = [self._lend(found) for found in stores]
        for number, (found, path) in enumerate(zip(stores, paths, strict=True)):
            if os.path.exists(os.path.join(found, "info", "alternates")):
                hiding = os.path.join(self._place, f"alternates.{len(self.mounts)}")
                _write(hiding, "".join(f"{other}\n" for other in paths[1:] if number == 0))
                self.mounts.append(Mount(hiding, f"{path}/info/alternates"))
        return paths[0]

    def _lend(self, store: str) -> str:
        path = f"/.sessionctl/{self._stores}/objects" if self._stores else git.OBJECTS
        self._stores += 1
        self.mounts.append(Mount(store, path))
        return path


def _object_stores(store: str) -> list[str]:
    """`store` and all stores it borrows from, directly or not, that are there."""
    found = [os.path.realpath(store)]
    for here in found:  # Grows while it is walked.
        try:
            with open(os.path.join(here, "info", "alternates"), "rb") as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            if line.startswith(b'"'):
                line = line[1:-1].decode("unicode_escape").encode("latin-1")
            other = os.path.realpath(os.path.join(here, os.fsdecode(line)))
            if line and not line.startswith(b"#") and other not in found and os.path.isdir(other):
                found.append(other)
    return found


def _require_whole(source: str, commit: str) -> None:
    """`GitError` unless all objects of `commit` are there: it may not be fetched, and a partial clone lacks some."""
    if git.run(source, "cat-file", "-e", commit + "^{tree}", check=False).code:
        raise GitError(
            f"commit {commit[:12]} is not in {source}",
            hint="fetch it; a shallow clone needs `git fetch --unshallow`, a submodule `git submodule update --init`",
        )
    packs = [os.path.join(store, "pack") for store in _object_stores(os.path.join(source, "objects"))]
    if any(name.endswith(".promisor") for pack in packs if os.path.isdir(pack) for name in os.listdir(pack)):
        listed = git.run(source, "rev-list", "--objects", "--missing=print", commit)
        missing = sum(line.startswith(b"?") for line in listed.stdout.splitlines())
        if missing:
            raise GitError(
                f"{source} is a partial clone that lacks {missing} objects of commit {commit[:12]}",
                hint="fetch them first: git fetch --refetch --no-filter",
            )


class _Content(NamedTuple):
    """What of a commit's tree decides how it can be checked out."""

    entries: int
    links: tuple[tuple[str, str], ...]
    """Path and commit of each submodule."""
    lfs: bool


def _content_of(source: str, commit: str) -> _Content:
    records = git.run(source, "ls-tree", "-r", "-z", "--full-tree", commit).stdout.split(b"\0")[:-1]
    links = []
    attributes = []
    for record in records:
        if record.startswith(b"160000 "):
            about, _, path = record.partition(b"\t")
            links.append((os.fsdecode(path), about.split(b" ")[2].decode()))
        elif record.endswith((b"\t.gitattributes", b"/.gitattributes")):
            attributes.append(record.split(b" ", 2)[2].partition(b"\t")[0])
    names = b"".join(name + b"\n" for name in attributes)
    texts = git.run(source, "cat-file", "--batch", input=names).stdout if names else b""
    lfs = re.search(rb"^[^#\n]*\sfilter=lfs(?:\s|$)", texts, re.MULTILINE) is not None
    return _Content(len(records), tuple(links), lfs)


def _require_declared(content: _Content, recipe: Recipe) -> None:
    """`GitError` when the checkout would silently lack something, because it was not asked for."""
    if content.links and not recipe.submodules:
        raise GitError(
            f"commit {recipe.commit[:12]} has submodules ({git.printable(content.links[0][0])})",
            hint="set workspace.submodules = true",
        )
    if content.lfs and not recipe.lfs:
        raise GitError(f"commit {recipe.commit[:12]} keeps files in Git LFS", hint="set workspace.lfs = true")
    if content.lfs and not _has_lfs():
        raise GitError("the repository keeps files in Git LFS, and git-lfs was not found", hint="install git-lfs")


def _has_lfs() -> bool:
    return any(os.access(os.path.join(place, "git-lfs"), os.X_OK) for place in os.get_exec_path())


def _lay(source: _Source, commit: str, git_dir: str, tree: str, recipe: Recipe, lent: _Lent) -> None:
    """Checks `commit` of `source` out in `tree`, with a repository of its own at `git_dir`; submodules too."""
    _require_whole(source.common_dir, commit)
    content = _content_of(source.common_dir, commit)
    _require_declared(content, recipe)
    modules = _modules_of(source.common_dir, commit, content.links)
    lent.pin(source.common_dir, commit)

    _skeleton(git_dir, commit, os.path.relpath(tree, git_dir), _config(recipe, content, modules))
    shallow = os.path.join(source.common_dir, "shallow")
    if os.path.exists(shallow):
        _copy(shallow, os.path.join(git_dir, "shallow"))
    own = recipe.history == "own"
    _pack(source.common_dir, commit, git_dir, whole=own)
    store = os.path.join(source.common_dir, "objects")
    alternates = os.path.join(git_dir, "objects", "info", "alternates")
    if not own:
        _write(alternates, _alternate(store))  # Until the checkout is done; then as it is inside.
    git.run(git_dir, f"--work-tree={tree}", *_CHECKOUT, "read-tree", "-m", "-u", commit, cwd=tree)
    inside = "" if own else lent.objects(store)
    for module in modules:
        checkout = os.path.join(tree, module.path)
        inner = os.path.join(git_dir, "modules", module.name)
        origin = _origin_of(source, module)
        _lay(origin, module.commit, inner, checkout, recipe._replace(commit=module.commit), lent)
        _write(os.path.join(checkout, ".git"), f"gitdir: {os.path.relpath(inner, checkout)}\n")
    if content.lfs:
        _checkout_lfs(source.common_dir, git_dir, tree, inside, lent)
    if inside:
        _write(alternates, inside + "\n")
    if content.lfs or content.entries > 1000:
        _settle(os.path.join(git_dir, "index"))


def _skeleton(git_dir: str, commit: str, tree: str, config: str) -> None:
    """An empty repository at `git_dir` for the work tree `tree` (relative to it), detached at `commit`."""
    for part in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "info"):
        os.makedirs(os.path.join(git_dir, part), 0o755)
    worktree = "" if tree == ".." else f"\tworktree = {_config_value(tree)}\n"
    version = 1 if len(commit) == 64 else 0
    core = f"[core]\n\trepositoryformatversion = {version}\n{worktree}"
    extensions = "[extensions]\n\tobjectFormat = sha256\n" if version else ""
    _write(os.path.join(git_dir, "HEAD"), commit + "\n")
    _write(os.path.join(git_dir, "config"), core + config + extensions)


# The index is made on the host, under another uid and outside the overlay. With minimal checks of
# size and whole seconds it is good inside as well, and the first `git status` hashes nothing anew.
# Collecting garbage is the agent's business, never a surprise; an unseen worktree is not garbage.
_CONFIG = """\
\tfilemode = true
\tbare = false
\tlogallrefupdates = true
\tcheckStat = minimal
\ttrustctime = false
[gc]
\tauto = 0
\tworktreePruneExpire = never
[maintenance]
\tauto = false
"""
_LFS_CONFIG = """\
[filter "lfs"]
\tclean = git-lfs clean -- %f
\tsmudge = git-lfs smudge -- %f
\tprocess = git-lfs filter-process
\trequired = true
"""


# The filter of LFS is for inside. Here it would ask a server, one that the repository names, for what is not there.
_CHECKOUT = (
    *("-c", "filter.lfs.process=", "-c", "filter.lfs.smudge=", "-c", "filter.lfs.required=false"),
    *("-c", "checkout.workers=0"),
)


class _Module(NamedTuple):
    """A submodule of a commit."""

    path: str
    commit: str
    name: str
    url: str


def _config(recipe: Recipe, content: _Content, modules: Sequence[_Module]) -> str:
    """The rest of a repository's configuration, from inside its section ``core`` on."""
    who = [
        f"\t{key} = {_config_value(value)}\n"
        for key, value in zip(("name", "email"), recipe.identity, strict=True)
        if value
    ]
    parts = [_CONFIG, *(["[user]\n", *who] if who else []), *([_LFS_CONFIG] if content.lfs else [])]
    for module in modules:
        name = module.name.replace("\\", "\\\\").replace('"', '\\"')
        parts.append(f'[submodule "{name}"]\n\tactive = true\n\turl = {_config_value(module.url)}\n')
    return "".join(parts)


def _config_value(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def _modules_of(source: str, commit: str, links: Sequence[tuple[str, str]]) -> tuple[_Module, ...]:
    """The submodules of `commit`, as its ``.gitmodules`` names them."""
    if not links:
        return ()
    said = git.run(source, "config", f"--blob={commit}:.gitmodules", "--null", "--list", check=False).stdout
    settings = dict(item.split("\n", 1) for item in os.fsdecode(said).split("\0") if "\n" in item)
    names = {
        value: key[10:-5] for key, value in settings.items() if re.fullmatch(r"submodule\..+\.path", key, re.DOTALL)
    }
    modules = []
    for path, pinned in links:
        name = names.get(path, "")
        # The name becomes a path below .git/modules, and anybody may have written it.
        if not name or name.startswith("/") or {"", ".", ".."} & set(name.split("/")) or not name.isprintable():
            raise GitError(f"{git.printable(path)} is a repository in the repository, but no submodule in .gitmodules")
        modules.append(_Module(path, pinned, name, settings.get(f"submodule.{name}.url", "")))
    return tuple(modules)


def _origin_of(source: _Source, module: _Module) -> _Source:
    """The user's own clone of a submodule."""
    for git_dir in (source.git_dir, source.common_dir):
        place = os.path.realpath(os.path.join(git_dir, "modules", module.name))
        if os.path.isdir(os.path.join(place, "objects")):
            return _Source(place, place)
    raise GitError(
        f"submodule {git.printable(module.path)} is not there, and nothing is fetched from elsewhere",
        hint="git submodule update --init --recursive",
    )


def _pack(source: str, commit: str, git_dir: str, *, whole: bool) -> None:
    """The tags that `commit` can reach, and the objects that no borrowing would keep: theirs; all, with `whole`.

    Other tags would show, or need, other branches; and a tag that the user deletes takes its object
    along, but not the commit, which is pinned.
    """
    shape = "--format=%(objectname) %(objecttype)%(*objecttype) %(refname)"
    listed = git.run(source, "for-each-ref", f"--merged={commit}", shape, "refs/tags").stdout
    tags = [line.split(b" ", 2) for line in listed.splitlines()]
    tags = [tag for tag in tags if tag[1] in (b"commit", b"tagcommit")]
    refs = b"".join(b"%s %s\n" % (tag, name) for tag, _, name in sorted(tags, key=lambda tag: tag[2]))
    _write(os.path.join(git_dir, "packed-refs"), b"# pack-refs with: sorted \n" + refs)
    annotated = [tag for tag, kind, _ in tags if kind == b"tagcommit"]
    wanted = [commit.encode(), *annotated] if whole else annotated
    if wanted:
        words = ("pack-objects", "--quiet", "--delta-base-offset", *(["--revs"] if whole else []))
        pack = os.path.join(git_dir, "objects", "pack", "pack")
        git.run(source, *words, pack, input=b"".join(name + b"\n" for name in wanted))


def _checkout_lfs(source: str, git_dir: str, tree: str, inside: str, lent: _Lent) -> None:
    """Puts the files that LFS keeps in the place of their pointers, from what is on this machine."""

    def lfs(storage: str, *words: str) -> str:
        settings = (f"--work-tree={tree}", "-c", f"lfs.storage={storage}")
        return git.run(git_dir, *settings, "lfs", *words, cwd=tree).text()

    storage = os.path.join(source, "lfs")
    objects = os.path.join(storage, "objects")
    if inside:
        if os.path.isdir(objects):  # Where git-lfs looks: beside the objects that are borrowed.
            lent.mounts.append(Mount(objects, f"{os.path.dirname(inside)}/lfs/objects"))
    else:
        storage = os.path.join(git_dir, "lfs")
        for line in lfs(storage, "ls-files", "--long").splitlines():
            kept = os.path.join(line[:2], line[2:4], line[:64])
            if os.path.exists(os.path.join(objects, kept)):
                os.makedirs(os.path.join(storage, "objects", os.path.dirname(kept)), exist_ok=True)
                _copy(os.path.join(objects, kept), os.path.join(storage, "objects", kept))
    lfs(storage, "checkout")
    pointers = [line for line in lfs(storage, "ls-files", "--long").splitlines() if line[65:66] == "-"]
    if pointers:
        raise GitError(
            f"{len(pointers)} files of Git LFS are not on this machine, {git.printable(pointers[0][67:])} for one",
            hint="git lfs fetch",
        )


def _settle(index: str) -> None:
    """Waits until the second in which the index was written is over, and dates it after that.

    Git hashes every file again that is no older than the index, by whole seconds: up to all that a
    fast disk took in the last one, in every session; and what LFS keeps is not what its hash says.
    Other small checkouts are not worth the wait.
    """
    over = int(os.stat(index).st_mtime) + 1.02  # A tick more: the kernel dates files by a coarser clock.
    while (left := over - time.time()) > 0:
        time.sleep(left)
    os.utime(index, (over, over))


def _chown(tree: str, owner: tuple[int, int]) -> None:
    os.chown(tree, *owner)
    for here, directories, files in os.walk(tree):
        for name in (*directories, *files):
            os.chown(os.path.join(here, name), *owner, follow_symlinks=False)


def _alternate(store: str) -> bytes:
    """A line of ``info/alternates``."""
    if "\n" in store:
        escaped = store.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        store = f'"{escaped}"'
    return os.fsencode(store) + b"\n"


def _copy(source: str, target: str) -> None:
    from shutil import copyfile  # Rarely wanted, and slow to import.

    copyfile(source, target)


def _write(path: str, content: str | bytes) -> None:
    with open(path, "wb") as file:
        file.write(os.fsencode(content))
        os.fchmod(file.fileno(), 0o644)
