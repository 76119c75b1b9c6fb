"""Whole trees that an agent may have written: copied byte for byte, measured, and told apart by a digest.

What is copied: names of any bytes, contents with their holes, modes, times, owners (as root), symbolic links
as links, hard links among themselves, FIFOs and sockets as names, and overlayfs' whiteouts and
``user.*`` attributes, so that the copy of an upper layer is an upper layer. Nothing is followed and nothing
blocks. Trees of any depth take a handful of descriptors. Nobody may write in a tree while it is read here:
a change that is noticed is an error. This module may not know what a tree is for.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sessionctl import beneath
from sessionctl.beneath import Unsafe

_CHUNK = 1 << 20

Watcher = Callable[[int], None]
"""Is told how many bytes more were read."""


class Measure(NamedTuple):
    """What a tree consists of."""

    digest: str
    """SHA-256, in hex, over path, kind, mode, time of change, attributes and content of everything in it."""
    files: int
    """Names that are no directories."""
    size: int
    """Bytes of content, holes left out."""


def measure(root: str, *, without: str = "", on: Watcher | None = None) -> Measure:
    """The measure of the tree at `root`, all of it read, but for the name `without` in `root` itself.

    `OSError` names what cannot be read.
    """
    return _Pass(root, None, without, on).run()


def copy(root: str, target: str, *, without: str = "", on: Watcher | None = None) -> Measure:
    """Copies the tree at `root` to `target`, which must not be there, and gives its measure; see `measure`.

    `target` stands in a directory that no agent can write. When this fails, what was made of it stays, for
    `beneath.remove_tree`. `OSError` names what cannot be read or written.
    """
    return _Pass(root, target, without, on).run()


class _Place(NamedTuple):
    """A directory that is being read."""

    name: str
    identity: tuple[int, int]
    info: os.stat_result
    unlocked: bool
    """Whether its mode kept us out, and was changed until we are through with it."""
    pending: list[str]
    """Names in it that are still to do, last first."""
    attributes: dict[str, bytes]


_Content = tuple[dict[str, bytes], bytes]
"""Attributes of a file, and the digest of what it holds."""


class _Pass:
    """One pass over a tree: reads it, and writes the copy beside it when there is to be one."""

    def __init__(self, root: str, target: str | None, without: str, on: Watcher | None) -> None:
        self._root = root
        self._target = target
        self._without = without
        self._on = on or (lambda read: None)
        self._digest = hashlib.sha256()
        self._files = 0
        self._size = 0
        self._links: dict[tuple[int, int], tuple[str, _Content | None]] = {}
        """Of each file with several names the first of them, and what it holds."""
        self._as_root = os.geteuid() == 0
        self._source = -1
        self._copy = -1
        """The directories that are open now: where is read, and where is written."""
        self._copied: list[tuple[int, int]] = []

    def run(self) -> Measure:
        self._source = beneath.open_root(self._root)
        prefix = ""
        places: list[_Place] = []
        try:
            if self._target is not None:
                os.mkdir(self._target, 0o700)
                self._copy = beneath.open_root(self._target)
            places.append(self._entered("", "", unlocked=False))
            while True:
                place = places[-1]
                if place.pending:
                    name = place.pending.pop()
                    info = os.stat(name, dir_fd=self._source, follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        unlocked = self._down(prefix, name)
                        places.append(self._entered(name, prefix + name, unlocked=unlocked))
                        prefix += name + "/"
                    else:
                        self._leaf(prefix + name, name, info)
                    continue
                places.pop()
                if not places:
                    self._finish(place, self._source, self._copy)
                    return Measure(self._digest.hexdigest(), self._files, self._size)
                prefix = prefix[: -len(place.name) - 1]
                self._up(place, places[-1], prefix + place.name)
        except OSError as error:
            # The system names the last component, `Unsafe` all of them below the root.
            name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
            shown = name if isinstance(error, Unsafe) or os.path.isabs(name) else prefix + name
            raise type(error)(error.errno, error.strerror, os.path.join(self._root, shown)) from error
        finally:
            self._relock(places)
            for fd in (self._source, self._copy):
                if fd >= 0:
                    os.close(fd)

    # --- directories -----------------------------------------------------------------------------

    def _entered(self, name: str, path: str, *, unlocked: bool) -> _Place:
        """The directory that was just opened; its line is written first, its names follow in order."""
        info = os.fstat(self._source)
        if unlocked:
            info = self._locked_info
        with os.scandir(self._source) as entries:
            names = sorted((entry.name for entry in entries if path or entry.name != self._without), reverse=True)
        attributes = _attributes(self._source)
        self._line(path, info, attributes)
        if self._copy >= 0:
            self._copied.append(beneath.identity(self._copy))
        return _Place(name, beneath.identity(self._source), info, unlocked, names, attributes)

    def _down(self, prefix: str, name: str) -> bool:
        """Opens the directory `name`, and makes its copy; whether its mode had to be changed for that."""
        unlocked = False
        try:
            inner = os.open(name, beneath.DIRECTORY, dir_fd=self._source)
            try:
                os.stat(".", dir_fd=inner)
            except PermissionError:
                os.close(inner)
                raise
        except PermissionError:
            inner, self._locked_info = _unlocked(name, self._source)
            unlocked = True
        os.close(self._source)
        self._source = inner
        if self._copy >= 0:
            os.mkdir(name, 0o700, dir_fd=self._copy)
            made = os.open(name, beneath.DIRECTORY, dir_fd=self._copy)
            os.close(self._copy)
            self._copy = made
        return unlocked

    _locked_info: os.stat_result

    def _up(self, place: _Place, above: _Place, path: str) -> None:
        """Leaves `place` for the directory above it."""
        # There is no way up out of a directory that is locked again: its mode comes after.
        left, made = os.dup(self._source), os.dup(self._copy) if self._copy >= 0 else -1
        try:
            self._source = beneath.ascend(self._source, above.identity, path)
            if made >= 0:
                self._copied.pop()
                self._copy = beneath.ascend(self._copy, self._copied[-1], path)
            self._finish(place, left, made)
        finally:
            os.close(left)
            if made >= 0:
                os.close(made)

    def _finish(self, place: _Place, source: int, made: int) -> None:
        """Locks a directory again, and gives its copy attributes, mode and times: nothing more is written in it."""
        if place.unlocked:
            os.fchmod(source, stat.S_IMODE(place.info.st_mode))
        if made >= 0:
            _dress(made, place.info, place.attributes, owned=self._as_root)

    def _relock(self, places: list[_Place]) -> None:
        """After a failure: gives the directories that we are in the modes they had, as far as there is a way up."""
        for place in reversed(places):
            try:
                above = os.open("..", beneath.DIRECTORY, dir_fd=self._source)
                if place.unlocked:
                    os.fchmod(self._source, stat.S_IMODE(place.info.st_mode))
                os.close(self._source)
                self._source = above
            except OSError:
                return

    # --- everything else -------------------------------------------------------------------------

    def _leaf(self, path: str, name: str, info: os.stat_result) -> None:
        self._files += 1
        if stat.S_ISREG(info.st_mode) and info.st_nlink > 1:
            self._linked(path, name, info)
        elif stat.S_ISREG(info.st_mode):
            self._line(path, info, *self._file(path, name, info))
        elif stat.S_ISLNK(info.st_mode):
            leads = os.readlink(os.fsencode(name), dir_fd=self._source)
            self._line(path, info, {}, leads)
            if self._copy >= 0:
                os.symlink(leads, os.fsencode(name), dir_fd=self._copy)
                self._undress(name, info)
        elif beneath.is_whiteout(info) or stat.S_ISFIFO(info.st_mode) or stat.S_ISSOCK(info.st_mode):
            self._line(path, info, {})
            if self._copy >= 0:
                os.mknod(name, stat.S_IFMT(info.st_mode) | 0o600, 0, dir_fd=self._copy)
                self._undress(name, info)
        else:
            raise Unsafe(errno.EINVAL, "a device cannot be copied", path)

    def _linked(self, path: str, name: str, info: os.stat_result) -> None:
        """A file with several names: read once, and one file in the copy too, as far as its path can be used."""
        inode = (info.st_dev, info.st_ino)
        first, known = self._links.get(inode, ("", None))
        if known is not None and self._copy >= 0:
            try:
                os.link(f"{self._target}/{first}", name, dst_dir_fd=self._copy, follow_symlinks=False)
            except OSError:
                known = None  # too long, or below a directory that is locked by now
        if known is None:
            known = self._file(path, name, info)
            self._links[inode] = (path, known)
        self._line(path, info, *known)

    def _file(self, path: str, name: str, info: os.stat_result) -> _Content:
        source = _opened(name, self._source)
        made = -1
        try:
            attributes = _attributes(source)
            content = hashlib.sha256()
            if self._copy >= 0:
                made = os.open(name, beneath.NEW, 0o600, dir_fd=self._copy)
            for start, data in _extents(source, info.st_size):
                content.update(b"%d+%d:" % (start, len(data)))
                content.update(data)
                self._size += len(data)
                self._on(len(data))
                if made >= 0:
                    _write(made, data, start)
            if made >= 0:
                os.ftruncate(made, info.st_size)
                _dress(made, info, attributes, owned=self._as_root)
            after = os.fstat(source)
            if (after.st_size, after.st_mtime_ns) != (info.st_size, info.st_mtime_ns):
                raise Unsafe(errno.ESTALE, "was written to while it was being read", path)
            return attributes, content.digest()
        finally:
            os.close(source)
            if made >= 0:
                os.close(made)

    def _undress(self, name: str, info: os.stat_result) -> None:
        """Owner, mode and time of what cannot be opened."""
        if self._as_root:
            os.chown(name, info.st_uid, info.st_gid, dir_fd=self._copy, follow_symlinks=False)
        if not stat.S_ISLNK(info.st_mode):
            # What is there is what was just made: nobody else writes here.
            os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=self._copy)
        os.utime(name, ns=(info.st_mtime_ns, info.st_mtime_ns), dir_fd=self._copy, follow_symlinks=False)

    # --- the digest ------------------------------------------------------------------------------

    def _line(self, path: str, info: os.stat_result, attributes: dict[str, bytes], content: bytes = b"") -> None:
        kind = stat.S_IFMT(info.st_mode)
        size = info.st_size if kind == stat.S_IFREG else 0
        about = (kind, stat.S_IMODE(info.st_mode), size, info.st_mtime_ns, sorted(attributes.items()))
        for part in (os.fsencode(path), repr(about).encode(), content):
            self._digest.update(b"%d:" % len(part))
            self._digest.update(part)


def _opened(name: str, directory: int) -> int:
    """The file `name`, opened for reading also where its mode keeps its owner out."""
    try:
        return os.open(name, beneath.FILE, dir_fd=directory)
    except PermissionError:
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            mode = stat.S_IMODE(os.fstat(handle).st_mode)
            # An O_PATH descriptor takes no fchmod; its name in /proc is this inode and no other.
            os.chmod(f"/proc/self/fd/{handle}", mode | 0o400)
            try:
                return os.open(f"/proc/self/fd/{handle}", beneath.FILE & ~os.O_NOFOLLOW)
            finally:
                os.chmod(f"/proc/self/fd/{handle}", mode)
        finally:
            os.close(handle)


def _unlocked(name: str, directory: int) -> tuple[int, os.stat_result]:
    """The directory `name`, opened after its mode was changed so that its owner may look into it; and how it was."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        before = os.fstat(handle)
        os.chmod(f"/proc/self/fd/{handle}", stat.S_IMODE(before.st_mode) | 0o700)
        return os.open(".", beneath.DIRECTORY, dir_fd=handle), before
    finally:
        os.close(handle)


def _extents(fd: int, size: int) -> Iterator[tuple[int, bytes]]:
    """The parts of a file that hold data, in order, at most `_CHUNK` bytes at a time, each with where it starts.

    Cut at multiples of `_CHUNK`, and zeros left out where they fill such a part: a copy may be stored in other
    extents than what it is a copy of, and has the same digest.
    """
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # nothing but a hole is left
            raise
        start = at - at % _CHUNK
        data = os.pread(fd, _CHUNK, start)
        if not data:
            return
        if data.count(0) != len(data):
            yield start, data
        at = start + len(data)


def _write(fd: int, data: bytes, start: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, start)
        view, start = view[written:], start + written


def _attributes(fd: int) -> dict[str, bytes]:
    """The ``user.*`` attributes: overlayfs keeps its own among them; others are the host's business."""
    try:
        return {name: os.getxattr(fd, name) for name in os.listxattr(fd) if name.startswith("user.")}
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise


def _dress(fd: int, info: os.stat_result, attributes: dict[str, bytes], *, owned: bool) -> None:
    for name, value in attributes.items():
        os.setxattr(fd, name, value)
    if owned:
        os.fchown(fd, info.st_uid, info.st_gid)
    os.fchmod(fd, stat.S_IMODE(info.st_mode))  # after the owner, who takes setuid bits away
    os.utime(fd, ns=(info.st_mtime_ns, info.st_mtime_ns))
