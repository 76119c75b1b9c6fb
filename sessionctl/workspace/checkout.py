"""Laying out a checkout of the user's repository with git's plumbing, in a repository of its own."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from typing import NamedTuple

from sessionctl import git
from sessionctl.errors import GitError
from sessionctl.model import Mount
from sessionctl.workspace.standing import Recipe


class Source(NamedTuple):
    """A repository of the host that a checkout is made from."""

    common_dir: str
    git_dir: str


class Lent:
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


def lay(source: Source, commit: str, git_dir: str, tree: str, recipe: Recipe, lent: Lent) -> None:
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
        lay(origin, module.commit, inner, checkout, recipe._replace(commit=module.commit), lent)
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


def _origin_of(source: Source, module: _Module) -> Source:
    """The user's own clone of a submodule."""
    for git_dir in (source.git_dir, source.common_dir):
        place = os.path.realpath(os.path.join(git_dir, "modules", module.name))
        if os.path.isdir(os.path.join(place, "objects")):
            return Source(place, place)
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


def _checkout_lfs(source: str, git_dir: str, tree: str, inside: str, lent: Lent) -> None:
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


def chown(tree: str, owner: tuple[int, int]) -> None:
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
