"""One layer of an image, from a tar archive into a directory that overlayfs can stack.

Every name is looked up from the descriptor of a directory that was made here, and no link is followed: an
archive cannot reach outside of its directory. What it would have to be trusted for is refused, with the
entry named, or taken off where images could not do without: see `unpack`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable

from sessionctl import beneath
from sessionctl.errors import ImageError
from sessionctl.images.streams import PIECE
from sessionctl.images.tarball import Entry, shown

MOST_ENTRIES = 800_000
"""Files and directories of an image, all layers together."""
MOST_BYTES = 64 << 30
"""Bytes of an image, all layers together."""
_LONGEST_PATH = 4096
_DEEPEST = 128
"""Directories in each other: each costs a descriptor while it is open."""
_LATEST = 1 << 33
_WHITEOUT = b".wh."
OPAQUE = "user.overlay.opaque"

Owner = tuple[int, int] | None


class Budget:
    """What an image may still take of the disk; `ImageError` when that is used up."""

    def __init__(self, entries: int = 0, size: int = 0) -> None:
        self._entries, self._bytes = entries or MOST_ENTRIES, size or MOST_BYTES
        self.entries = self.bytes = 0
        """What it took so far."""

    def take(self, size: int = 0, entries: int = 0) -> None:
        self.entries += entries
        self.bytes += size
        if self.entries > self._entries:
            raise ImageError(f"the image has more than {self._entries:,} files and directories")
        self.require(0)

    def entry(self, path: bytes) -> None:
        """Takes one for the entry `path`, which the error names."""
        try:
            self.take(entries=1)
        except ImageError as error:
            raise ImageError(f"entry {shown(path)}: {error}") from None

    def require(self, size: int) -> None:
        if self.bytes + size > self._bytes:
            raise ImageError(f"the image has more than {self._bytes:,} bytes")


def unpack(
    found: Iterable[Entry], directory: str, owner: Owner, budget: Budget, said: Callable[[], None] = lambda: None
) -> None:
    """Makes of the entries `found` the content of `directory`, which is empty. `said` is called per entry.

    Everything belongs to `owner` (None: to us), who may read all of it and write its directories whatever
    their modes say. Setuid and setgid bits and extended attributes are taken off: inside they have no effect,
    and outside they must have none. Devices below /dev are left out, for every sandbox has its own /dev.
    Whiteouts become what overlayfs (``userxattr``) takes for them. `ImageError` that names the first entry
    that is refused or cannot be made; what was made before it is there.
    """
    with _Tree(directory, owner, budget) as tree:
        for entry in found:
            try:
                said()
                tree.make(entry)
            except ImageError as error:
                raise ImageError(f"entry {shown(entry.path)}: {error}", hint=error.hint) from error
            except OSError as error:
                raise ImageError(f"entry {shown(entry.path)} cannot be made: {error.strerror}") from error


class _Tree:
    """A directory that is filled, with the last directory that was used in it open, and all above that."""

    def __init__(self, directory: str, owner: Owner, budget: Budget) -> None:
        self._owner, self._budget = owner, budget
        self._open: list[tuple[bytes, int]] = [(b"", os.open(directory, beneath.DIRECTORY))]
        self._settle(self._open[0][1], 0o755)

    def __enter__(self) -> _Tree:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._open:
            os.close(each[1])

    def make(self, entry: Entry) -> None:
        parts = _parts(entry.path)
        if not parts:
            if entry.kind != "directory":
                raise ImageError("the root must be a directory")
            self._settle(self._open[0][1], _directory_mode(entry.mode))
            return
        *parents, name = parts
        if entry.kind == "device":
            if parts[0] == b"dev":
                return
            raise ImageError("is a device, which an image may have below /dev only")
        self._budget.take(entries=1)
        fd = self._directory(parents)
        if name.startswith(_WHITEOUT):
            self._hide(name.removeprefix(_WHITEOUT), fd)
        elif entry.kind == "directory":
            self._make_directory(name, fd, _directory_mode(entry.mode))
        else:
            self._clear(name, fd)
            self._make_other(entry, name, fd)

    def _make_other(self, entry: Entry, name: bytes, fd: int) -> None:
        if entry.kind == "file":
            self._write(entry, name, fd)
        elif entry.kind == "hardlink":
            self._link(entry, name)
            return
        elif entry.kind == "symlink":
            if not entry.target or b"\0" in entry.target:
                raise ImageError("is a symbolic link to nothing")
            os.symlink(entry.target, name, dir_fd=fd)
        else:
            os.mkfifo(name, entry.mode & 0o777, dir_fd=fd)
        if self._owner:
            os.chown(name, *self._owner, dir_fd=fd, follow_symlinks=False)
        when = min(max(entry.mtime, 0), _LATEST)
        os.utime(name, (when, when), dir_fd=fd, follow_symlinks=False)

    def _write(self, entry: Entry, name: bytes, fd: int) -> None:
        self._budget.require(entry.size)
        file = os.open(name, beneath.NEW, 0o600, dir_fd=fd)
        try:
            while piece := entry.content.read(PIECE):
                beneath.write_all(file, piece)
            os.fchmod(file, entry.mode & 0o777 | 0o400)
        finally:
            os.close(file)

    def _link(self, entry: Entry, name: bytes) -> None:
        parts = _parts(entry.target)
        nowhere = ImageError(f"is a hard link to {shown(entry.target)}, which is no file of its layer")
        if not parts:
            raise nowhere
        # Looked up on its own: the directory of the entry itself stays open.
        *parents, old = parts
        fd = os.dup(self._open[0][1])
        try:
            for part in parents:
                inner = os.open(part, beneath.DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = inner
            mode = os.stat(old, dir_fd=fd, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode) or stat.S_ISCHR(mode):
                raise nowhere
            os.link(old, name, src_dir_fd=fd, dst_dir_fd=self._open[-1][1], follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise nowhere from None
            raise
        finally:
            os.close(fd)

    def _hide(self, name: bytes, fd: int) -> None:
        """What a whiteout says: lower layers' `name` is not there, or (``.wh..opq``) nothing of theirs in `fd`."""
        if name == _WHITEOUT + b".opq":
            os.setxattr(fd, OPAQUE, b"y")
            return
        if name.startswith(_WHITEOUT):
            return  # what else aufs keeps for itself
        if name in (b"", b".", b".."):
            raise ImageError("is a whiteout of nothing")
        kind = _kind(name, fd)
        if kind == stat.S_IFDIR:
            self._hide_below(name, fd)  # made anew in the same layer
        elif kind is None:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=fd)

    def _hide_below(self, name: bytes, fd: int) -> None:
        inner = os.open(name, beneath.DIRECTORY, dir_fd=fd)
        try:
            os.setxattr(inner, OPAQUE, b"y")
        finally:
            os.close(inner)

    def _directory(self, parts: list[bytes]) -> int:
        """The directory `parts`, made where it is missing."""
        if len(parts) > _DEEPEST:
            raise ImageError(f"lies in more than {_DEEPEST} directories")
        same = 0
        while same < len(parts) and same + 1 < len(self._open) and self._open[same + 1][0] == parts[same]:
            same += 1
        while len(self._open) > same + 1:
            os.close(self._open.pop()[1])
        for part in parts[same:]:
            fd = self._open[-1][1]
            if _kind(part, fd) in (None, stat.S_IFCHR):
                self._budget.take(entries=1)
                self._make_directory(part, fd, 0o755)
            try:
                self._open.append((part, os.open(part, beneath.DIRECTORY, dir_fd=fd)))
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    raise ImageError(f"lies below {shown(part)}, which is a link or a file") from None
                raise
        return self._open[-1][1]

    def _make_directory(self, name: bytes, fd: int, mode: int) -> None:
        kind = _kind(name, fd)
        if kind != stat.S_IFDIR:
            self._clear(name, fd)
            os.mkdir(name, 0o700, dir_fd=fd)
        inner = os.open(name, beneath.DIRECTORY, dir_fd=fd)
        try:
            if kind == stat.S_IFCHR:
                os.setxattr(inner, OPAQUE, b"y")  # a whiteout: what lower layers have is hidden all the same
            self._settle(inner, mode)
        finally:
            os.close(inner)

    def _settle(self, fd: int, mode: int) -> None:
        if self._owner:
            os.fchown(fd, *self._owner)
        os.fchmod(fd, mode)

    def _clear(self, name: bytes, fd: int) -> None:
        """Takes away what an earlier entry of the layer made at `name`."""
        kind = _kind(name, fd)
        if kind == stat.S_IFDIR:
            try:
                os.rmdir(name, dir_fd=fd)
            except OSError:
                raise ImageError("stands where an earlier entry made a directory that is not empty") from None
        elif kind is not None:
            os.unlink(name, dir_fd=fd)


def _parts(path: bytes) -> list[bytes]:
    """The components of `path`, none for the root itself; `ImageError` when it is not plainly one below it."""
    if path.startswith(b"/"):
        raise ImageError(f"{shown(path)} is an absolute path")
    if len(path) > _LONGEST_PATH or b"\0" in path or not path:
        raise ImageError("has a name that no file can have")
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ImageError(f"{shown(path)} leads out of the image")
    return parts


def _kind(name: bytes, fd: int) -> int | None:
    """The type of what is at `name`, as `stat.S_IFMT`; None when nothing is. A character device is a whiteout."""
    try:
        return stat.S_IFMT(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None


def _directory_mode(mode: int) -> int:
    return mode & 0o1777 | 0o700
