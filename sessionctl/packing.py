"""A tar archive of the caller's files, for the inside of a session.

Looked through before anything is sent; no link below what was named is followed, and nothing but files,
directories and links is taken.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NamedTuple, Self

from sessionctl import beneath
from sessionctl.errors import SessionctlError, UsageError
from sessionctl.git import quoted
from sessionctl.units import size
from sessionctl.unpacking import Kind

Watcher = Callable[[int, int], None]
"""Is told how many bytes more were copied, and of how many in all; 0 when that is not known."""
_PIECE = 1 << 20


class _Item(NamedTuple):
    path: bytes
    """Below what is copied; empty for itself."""
    info: os.stat_result
    leads: bytes
    """Of links."""


class Source:
    """A file or directory of the host, looked through before anything of it is sent."""

    def __init__(self, kind: Kind, fd: int, items: Sequence[_Item], left_out: list[str]) -> None:
        self.kind = kind
        self.left_out = left_out
        self._fd = fd
        self._items = items
        self.files = sum(not stat.S_ISDIR(each.info.st_mode) for each in items)
        self.size = sum(each.info.st_size for each in items if stat.S_ISREG(each.info.st_mode))

    @classmethod
    def standard_input(cls, most: int) -> Self:
        """What is on standard input, to its end: its size must be known before it is sent."""
        import tempfile

        with tempfile.TemporaryFile() as file:
            while piece := os.read(0, _PIECE):
                file.write(piece)
                if file.tell() > most:
                    raise _over(most)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            fd = os.dup(file.fileno())
        return cls("file", fd, [_Item(b"", os.fstat(fd), b"")], [])

    @classmethod
    def of(cls, local: str, most: int) -> Self:
        try:
            fd = os.open(local, beneath.FILE & ~os.O_NOFOLLOW)
        except OSError as error:
            raise UsageError(f"{local} cannot be read: {error.strerror}") from error
        info = os.fstat(fd)
        if stat.S_ISREG(info.st_mode):
            found = cls("file", fd, [_Item(b"", info, b"")], [])
        elif stat.S_ISDIR(info.st_mode):
            left_out: list[str] = []
            found = cls("directory", fd, list(_listed(fd, info, left_out)), left_out)
        else:
            os.close(fd)
            raise UsageError(f"{local} is neither a file nor a directory", hint="for standard input say -")
        if found.size > most:
            raise _over(most)
        return found

    def archive(self, on: Watcher) -> Generator[bytes, None, None]:
        """A tar archive, in which it is called ``x``; behind it ``whole``, an empty file."""
        from tarfile import DIRTYPE, GNU_FORMAT, SYMTYPE, TarInfo

        try:
            for item in self._items:
                entry = TarInfo("/".join(filter(None, ("x", os.fsdecode(item.path)))))
                entry.mode, entry.mtime = item.info.st_mode & 0o777, int(item.info.st_mtime)
                if stat.S_ISDIR(item.info.st_mode):
                    entry.type, entry.mode = DIRTYPE, entry.mode | 0o700
                elif stat.S_ISLNK(item.info.st_mode):
                    entry.type, entry.linkname = SYMTYPE, os.fsdecode(item.leads)
                else:
                    entry.size = item.info.st_size
                yield entry.tobuf(GNU_FORMAT, "utf-8", "surrogateescape")
                if entry.size:
                    yield from self._content(item, on)
                    yield bytes(-entry.size % 512)
            yield TarInfo("whole").tobuf(GNU_FORMAT)
            yield bytes(1024)
        finally:
            os.close(self._fd)

    def _content(self, item: _Item, on: Watcher) -> Iterator[bytes]:
        fd = _opened(self._fd, item.path) if item.path else os.dup(self._fd)
        try:
            left = item.info.st_size
            while left:
                piece = os.pread(fd, min(_PIECE, left), item.info.st_size - left)
                if not piece:
                    raise SessionctlError(f"{quoted(item.path)} became shorter while it was read: nothing was copied")
                left -= len(piece)
                on(len(piece), self.size)
                yield piece
        finally:
            os.close(fd)


def _over(most: int) -> SessionctlError:
    return SessionctlError(f"it has more than {size(most)}", hint="to copy it anyway, say --max-size")


def _listed(fd: int, info: os.stat_result, left_out: list[str]) -> Iterator[_Item]:
    """Everything in the directory of `fd`, itself first; no link is followed."""
    yield _Item(b"", info, b"")
    for here, directories, files, where in os.fwalk(".", dir_fd=fd, onerror=_raise):
        for name in sorted((*directories, *files)):
            path = os.fsencode(os.path.normpath(os.path.join(here, name)))
            found = os.stat(name, dir_fd=where, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                yield _Item(path, found, os.fsencode(os.readlink(name, dir_fd=where)))
            elif stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
                yield _Item(path, found, b"")
            else:
                left_out.append(f"{quoted(path)}: neither file, directory nor link")


def _raise(error: OSError) -> None:
    raise error


def _opened(fd: int, path: bytes) -> int:
    """The file at `path` below the directory of `fd`, opened without following any link."""
    *parents, name = path.split(b"/")
    here = os.dup(fd)
    try:
        for part in parents:
            inner = os.open(part, beneath.DIRECTORY, dir_fd=here)
            os.close(here)
            here = inner
        return os.open(name, beneath.FILE, dir_fd=here)
    finally:
        os.close(here)
