"""Programs of the host for images that lack them: which, what belongs to them, and a layer that holds it all.

The layer goes below all of an image's own, so that it hides nothing. A program in it is the host's, but for the
path of its loader: that is a copy of the host's, which finds the host's libraries, in the layer too. So it does
not matter which libc the image has, or whether it has one. Nothing is run here.

In the layer::

    /.extra/bin/<name>       the program, or a link to it where its place matters
    /.extra/{ld.so,ld.cache,lib/<name>}
    /usr/lib/git-core, ...   what programs, and /usr/bin/env what scripts look for at a fixed place
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sessionctl import beneath
from sessionctl.errors import ImageError
from sessionctl.images import Pinned, layer, programs

BIN = "/.extra/bin"
"""Where the programs are, for PATH: last, so that the image's own come first."""
_LOADER, _CACHE, _LIBRARIES = "/.extra/ld.so", "/.extra/ld.cache", "/.extra/lib"
# Paths that take the place of others in a file: no longer than /etc/ld.so.cache, and shorter than those of loaders.
_PLACES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_SHOWN = ("/usr/", "/bin/", "/sbin/")
"""What every session without an image sees anyway."""
_BESIDE = {
    "git": ("/usr/lib/git-core", "/usr/libexec/git-core", "/usr/share/git-core/templates"),
    "node": ("/usr/share/nodejs",),
}
"""Per program the directories that it looks for, of those that are there."""
_LOOKED_UP = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")
"""What older releases of glibc load without being asked to, to look up names."""
_PACKAGE = re.compile(r"(/.*?/node_modules/(?:@[^/]+/)?[^/]+)/")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}", re.ASCII)
_FORM = 1


_ENV = "/usr/bin/env"
_SHELLS = ("sh", "bash", "dash")
_INCOMPLETE = re.compile(r"(python|perl|ruby|php|java|lua|tclsh)[0-9.]*")
"""Programs that are nothing without a library of modules, which would have to come along."""


class Program(NamedTuple):
    """A program of the host, found."""

    name: str
    path: str
    """Its real path."""
    beside: tuple[str, ...]
    """Directories that it needs at the same place inside."""
    interpreter: str = ""
    """The name of what runs it, when it is a script."""


def is_name(text: str) -> bool:
    """Whether `text` may name a program: no path, no option."""
    return _NAME.fullmatch(text) is not None


def find(name: str) -> Program:
    """The program `name` of the host. `ImageError` when there is none, or it is where sessions may not look."""
    for place in _PLACES:
        path = os.path.realpath(f"{place}/{name}")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            break
    else:
        where = ", ".join(_PLACES[:4])
        raise ImageError(f"{name!a} is no program of this host", hint=f"looked for in {where}")
    if not path.startswith(_SHOWN):
        raise ImageError(
            f"{name!a} leads to {path}, which is not in /usr", hint="mount its directory instead: see `mounts`"
        )
    package = _PACKAGE.match(path)
    interpreter = _interpreter(path)
    incomplete = interpreter if interpreter not in ("", "node", *_SHELLS) else ""
    incomplete = incomplete or (name if _INCOMPLETE.fullmatch(os.path.basename(path)) else "")
    if incomplete or (interpreter == "node" and not package):
        why = f"is a script for {interpreter}" if interpreter else f"is nothing without the modules of {incomplete}"
        raise ImageError(f"{name!a} {why}, which cannot be brought along", hint="install it in the image")
    beside = [*_BESIDE.get(name, ()), *([package[1]] if package else [])]
    there = tuple(os.path.realpath(each) for each in beside if os.path.isdir(each))
    return Program(name, path, there, interpreter)


def _interpreter(path: str) -> str:
    """The name of what runs the file at `path`; empty when that is the kernel."""
    with open(path, "rb") as file:
        line = file.read(256).split(b"\n", 1)[0]
    words = os.fsdecode(line[2:]).split() if line.startswith(b"#!") else []
    if words[:1] == ["/usr/bin/env"]:
        words = [word for word in words[1:] if not word.startswith("-")]
    return os.path.basename(words[0]) if words else ""


def find_all(names: Sequence[str]) -> list[Program]:
    """The programs `names`, and node where one is written for it. `ImageError` as in `find`."""
    found = {name: find(name) for name in sorted(names)}
    if any(each.interpreter == "node" for each in found.values()):
        found.setdefault("node", find("node"))
    return list(found.values())


def pin(names: Sequence[str]) -> Pinned:
    """What the programs `names` are now: they, their loaders and what is beside them, by size and time of change."""
    from hashlib import sha256

    known: list[object] = [_FORM]
    inputs: list[str] = []
    for found in find_all(names):
        program = programs.load(found.path)
        for path in (found.path, *found.beside, *([program.loader] if program and program.loader else [])):
            info = os.stat(path)
            size = info.st_size if stat.S_ISREG(info.st_mode) else 0
            known.append((found.name, path, size, info.st_mtime_ns))
            inputs.append(path)
    return Pinned(f"sha256:{sha256(json.dumps(known).encode()).hexdigest()}", tuple(dict.fromkeys(inputs)))


def lacking(names: Sequence[str], layers: Sequence[str], path: str) -> tuple[str, ...]:
    """Those of `names`, and of what runs them, that an image of `layers` (top first), whose PATH is `path`, has not."""

    def has(place: str, name: str) -> bool:
        try:
            return beneath.kind_layered(layers, f"{place.strip('/')}/{name}") in ("file", "link")
        except OSError:
            return False  # by way of a link, to another directory of the image, which PATH has too or not

    places = [place for place in path.split(":") if place.strip("/")]
    missing = [name for name in names if not any(has(place, name) for place in places)]
    wanted = [each.name for each in find_all(missing)]
    return tuple(name for name in wanted if not any(has(place, name) for place in places))


def fill(directory: str, names: Sequence[str], owner: layer.Owner, budget: layer.Budget) -> None:
    """Makes `directory`, which is empty, the layer of the programs `names`. `ImageError` when one cannot be brought."""
    _Layer(directory, owner, budget).fill([find(name) for name in names])


def require_seen(names: Sequence[str], layers: Sequence[str]) -> None:
    """`ImageError` when an image, `layers` top first, hides what programs in its lowest one need."""
    wanted = [f"{BIN}/{name}" for name in names] + [each for name in names for each in find(name).beside]
    for path in wanted:
        try:
            there = beneath.kind_layered(layers, path.strip("/"))
        except OSError as error:
            raise ImageError(f"{path} of the host cannot be had in it: {error.strerror}") from error
        if there not in ("file", "link", "dir"):
            raise ImageError(f"{path} of the host cannot be had in it: the image has something else there")


class _Layer:
    """A layer that is being filled."""

    def __init__(self, directory: str, owner: layer.Owner, budget: layer.Budget) -> None:
        self._root, self._owner, self._budget = directory, owner, budget
        self._known: dict[str, str] | None = None
        self._libraries: dict[str, str] = {}
        self._loader = ""

    def fill(self, found: Sequence[Program]) -> None:
        os.chmod(self._root, 0o755)
        for each in found:
            for place in each.beside:
                self._tree(place)
            if any(each.path.startswith(f"{place}/") for place in each.beside):
                self._link(each.path, f"{BIN}/{each.name}")
            else:
                self._file(each.path, f"{BIN}/{each.name}")
        if any(each.interpreter == "node" for each in found):
            self._file(os.path.realpath(_ENV), _ENV)
        if self._loader:
            assert self._known is not None
            for name in _LOOKED_UP:
                if name in self._known:
                    self._libraries.setdefault(name, os.path.realpath(self._known[name]))
            with open(self._loader, "rb") as file:
                self._put(_LOADER, programs.with_cache(file.read(), _CACHE, self._loader), 0o755)
            places = {}
            for name, path in self._libraries.items():
                if path != self._loader:  # which is there already, and would be another one
                    places[name] = f"{_LIBRARIES}/{name}"
                    self._copy(path, places[name], 0o755)
            self._put(_CACHE, programs.cache_of(places), 0o644)
        for path, directories, files in os.walk(self._root):
            for name in (".", *directories, *files):
                if self._owner:
                    os.chown(f"{path}/{name}", *self._owner, follow_symlinks=False)

    def _tree(self, place: str) -> None:
        """All of the directory `place`, at the same place; links in it stay what they are."""
        self._directory(place)
        for path, kind in _walked(place):
            if kind == "dir":
                self._directory(path)
            elif kind == "link":
                target = os.path.realpath(path)
                if target.startswith(f"{place}/"):
                    self._link(os.path.relpath(target, os.path.dirname(path)), path)
                elif os.path.isfile(target) and target.startswith(_SHOWN):
                    self._file(target, path)  # git-core/git is often one to /usr/bin/git
            elif kind == "file":
                self._file(path, path)

    def _file(self, source: str, path: str) -> None:
        """The file `source` at `path`; a program with all that it loads."""
        if not os.stat(source).st_mode & stat.S_IROTH:
            raise ImageError(f"{source} may not be read by everybody, so it is not copied")  # we may be root
        mode = 0o755 if os.access(source, os.X_OK) else 0o644
        program = programs.load(source) if mode == 0o755 else None
        if program is None or not program.loader:
            self._copy(source, path, mode)
            return
        if self._known is None:
            self._known = programs.host_libraries()
        self._libraries.update(programs.libraries(source, self._known))
        self._loader = os.path.realpath(program.loader)
        with open(source, "rb") as file:
            self._put(path, programs.with_loader(file.read(), program, _LOADER), mode)

    def _copy(self, source: str, path: str, mode: int) -> None:
        with open(source, "rb") as file:
            self._put(path, file.read(), mode)

    def _put(self, path: str, content: bytes, mode: int) -> None:
        self._budget.take(len(content), entries=1)
        self._directory(os.path.dirname(path))
        with open(self._root + path, "xb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)

    def _link(self, target: str, path: str) -> None:
        self._budget.take(entries=1)
        self._directory(os.path.dirname(path))
        os.symlink(target, self._root + path)

    def _directory(self, path: str) -> None:
        missing = []
        while not os.path.isdir(self._root + path):
            missing.append(path)
            path = os.path.dirname(path)
        for each in reversed(missing):
            self._budget.take(entries=1)
            os.mkdir(self._root + each, 0o755)
            os.chmod(self._root + each, 0o755)


def _walked(place: str) -> Iterator[tuple[str, str]]:
    """Paths and kinds of what is below the directory `place` of the host, parents first."""
    for path, directories, files in os.walk(place):
        for name in sorted([*directories, *files]):
            each = f"{path}/{name}"
            mode = os.lstat(each).st_mode
            yield each, "link" if stat.S_ISLNK(mode) else "dir" if stat.S_ISDIR(mode) else "file"
