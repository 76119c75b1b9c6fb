"""Files of the caller's, made of an archive that an agent may have shaped.

Everything is made in a directory of its own beside its place, and moved there when it is whole. Every name is
looked up from the descriptor of a directory that was made here; no link is followed, none that leads out of what
is copied is made, and nothing but files, directories and such links is.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Literal, NamedTuple

from sessionctl import beneath
from sessionctl.errors import ImageError, SessionctlError, UsageError
from sessionctl.git import quoted
from sessionctl.images import tarball
from sessionctl.images.streams import Stream
from sessionctl.units import size

MOST_FILES = 1_000_000
"""Files and directories of one copy."""
_TOP = "x"
"""What a copy is called until it is in its place."""

Kind = Literal["file", "directory"]
Watcher = Callable[[int], None]
"""Is told how many bytes more were copied."""


class Received(NamedTuple):
    """What an archive has become."""

    files: int
    """Files and links."""
    size: int
    """Bytes of content."""
    left_out: tuple[str, ...]
    """For people: what was not copied, and why."""


def receive(
    stream: Stream, kind: Kind, path: str, *, most: int, on: Watcher, finish: Callable[[], Sequence[str]]
) -> Received:
    """Makes what the tar archive `stream` holds: one file, or what is in a directory, at `path`.

    As `cp` would: a file takes the place of a file, a directory is merged into one that is there. Before anything
    that is there changes, all of it has arrived, and `finish` has said what was left out, or raised.
    `SessionctlError` when it has more than `most` bytes, is no archive of that kind, or cannot be placed; `OSError`
    for what the file system says. Nothing is half done then.
    """
    parent, name = os.path.split(path)
    with _beside(parent or ".", name, kind) as (above, made):
        with _whole():
            received = _unpacked(stream, kind, made, most, on)
        received = received._replace(left_out=(*received.left_out, *finish()))
        _settle(above, name, made, kind, path)
    return received


def stream_file(stream: Stream, fd: int, *, most: int, on: Watcher) -> Received:
    """Writes the one file that the archive `stream` holds to the descriptor `fd`."""
    with _whole():
        for entry in _entries(stream, "file", most):
            while piece := entry.content.read():
                beneath.write_all(fd, piece)
                on(len(piece))
            return Received(1, entry.size, ())
    raise _foreign()


def require_room(above: int, name: str, kind: Kind, path: str) -> None:
    """`UsageError` when what is called `name` in the directory `above` cannot be replaced by something of `kind`."""
    try:
        info = os.stat(name, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return
    if kind == "directory" and not stat.S_ISDIR(info.st_mode):
        raise UsageError(f"{path} is there and is no directory", hint="name another place, or move it away")
    if kind == "file" and stat.S_ISDIR(info.st_mode):
        raise UsageError(f"{path} is a directory, which a file cannot replace")
    if kind == "file" and stat.S_ISLNK(info.st_mode):
        with suppress(FileNotFoundError):
            info = os.stat(name, dir_fd=above)
            if stat.S_ISREG(info.st_mode):
                return  # the link itself is replaced
    if kind == "file" and not stat.S_ISREG(info.st_mode) and not stat.S_ISLNK(info.st_mode):
        raise UsageError(f"{path} is no regular file, and is not replaced", hint="for standard output say -")


@contextmanager
def _beside(parent: str, name: str, kind: Kind) -> Iterator[tuple[int, int]]:
    """Descriptors of the directory `parent`, which has room for `name`, and of one made in it that goes afterwards."""
    try:
        above = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{parent} is not a directory", hint="make it first") from error
    try:
        require_room(above, name, kind, os.path.join(parent, name))
        _sweep(above)
        temporary, made = _made(above)
        try:
            yield above, made
        finally:
            try:
                beneath.remove_tree(os.path.join(f"/proc/self/fd/{above}", temporary))
            finally:
                os.close(made)
    finally:
        os.close(above)


def _made(above: int) -> tuple[str, int]:
    """The name of a new directory in `above`, and a descriptor of it: while that is open, `_sweep` leaves it alone."""
    while True:
        temporary = beneath.temporary()
        os.mkdir(temporary, 0o700, dir_fd=above)
        with suppress(FileNotFoundError):  # swept before it was locked
            made = os.open(temporary, beneath.DIRECTORY, dir_fd=above)
            with suppress(OSError):  # a file system without locks: nothing is swept there either
                fcntl.flock(made, fcntl.LOCK_EX)
            if os.fstat(made).st_nlink:
                return temporary, made
            os.close(made)


def _sweep(above: int) -> None:
    """Removes from the directory `above` what copies of ours that were killed have left there."""
    for name in filter(beneath.is_temporary, os.listdir(above)):
        try:
            left = os.open(name, beneath.DIRECTORY, dir_fd=above)
        except OSError:
            continue  # none of ours
        try:
            if os.fstat(left).st_uid == os.geteuid():
                fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                beneath.remove_tree(os.path.join(f"/proc/self/fd/{above}", name))
        except OSError:
            pass  # somebody is copying; or it is in nobody's way
        finally:
            os.close(left)


def _foreign() -> SessionctlError:
    return SessionctlError("what came out of the session is no archive of what was asked for")


def _entries(stream: Stream, kind: Kind, most: int) -> Iterator[tarball.Entry]:
    """The entries of `stream`, which have not more than `most` bytes together."""
    total = 0
    for number, entry in enumerate(tarball.entries(stream)):
        total += entry.size
        if total > most:
            raise SessionctlError(f"it has more than {size(most)}", hint="to copy it anyway, say --max-size")
        if number > MOST_FILES:
            raise SessionctlError(f"it has more than {MOST_FILES:,} files and directories")
        if kind == "file" and (entry.kind != "file" or number):
            raise _foreign()
        yield entry


@contextmanager
def _whole() -> Iterator[None]:
    """What is wrong with an archive, in words for this one."""
    try:
        yield
    except ImageError as error:
        raise SessionctlError(f"what came out of the session is no whole archive: {error}") from error


def _unpacked(stream: Stream, kind: Kind, made: int, most: int, on: Watcher) -> Received:
    with closing(_Tree(made, on)) as tree:
        for entry in _entries(stream, kind, most):
            parts = [part for part in entry.path.split(b"/") if part not in (b"", b".")]
            if b".." in parts or entry.path.startswith(b"/") or (kind == "file" and len(parts) != 1):
                raise _foreign()
            tree.make(entry, [_TOP.encode(), *parts] if kind == "directory" else [_TOP.encode()])
    try:
        os.stat(_TOP, dir_fd=made, follow_symlinks=False)
    except FileNotFoundError:
        raise _foreign() from None
    return Received(tree.files, tree.size, tuple(tree.left_out))


class _Tree:
    """A directory that is filled; the last directory that was used in it stays open."""

    def __init__(self, root: int, on: Watcher) -> None:
        self._root = root
        self._on = on
        self._last: tuple[list[bytes], int] = ([], os.dup(root))
        self.files = self.size = 0
        self.left_out: list[str] = []

    def close(self) -> None:
        os.close(self._last[1])

    def make(self, entry: tarball.Entry, parts: list[bytes]) -> None:
        *parents, name = parts
        shown = quoted(b"/".join(parts[1:]) or name)
        if b".git" in parts[1:]:
            # Whoever calls git beside it would run what the agent has configured.
            if parts.index(b".git") == len(parents):
                self.left_out.append(f"{shown}: the agent's repository, whose configuration git here would follow")
            return
        fd = self._directory(parents)
        if entry.kind == "directory":
            os.mkdir(name, entry.mode & 0o777 | 0o700, dir_fd=fd)
        elif entry.kind == "file":
            self._write(entry, name, fd)
        elif entry.kind == "symlink":
            if _leads_out(entry.target, len(parents) - 1):
                self.left_out.append(f"{shown}: the link leads to {quoted(entry.target)}, out of what is copied")
                return
            os.symlink(entry.target, name, dir_fd=fd)
            self.files += 1
        else:
            what = "pipe" if entry.kind == "fifo" else entry.kind
            self.left_out.append(f"{shown}: a {what} is not copied")

    def _directory(self, parts: list[bytes]) -> int:
        if self._last[0] != parts:
            fd = os.dup(self._root)
            for part in parts:
                inner = os.open(part, beneath.DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = inner
            os.close(self._last[1])
            self._last = (parts, fd)
        return self._last[1]

    def _write(self, entry: tarball.Entry, name: bytes, fd: int) -> None:
        # The kernel takes off what our umask says, and nobody gets a setuid bit.
        file = os.open(name, beneath.NEW, entry.mode & 0o777, dir_fd=fd)
        try:
            while piece := entry.content.read():
                if piece.count(0) == len(piece):
                    os.lseek(file, len(piece), os.SEEK_CUR)  # a hole: the archive has none
                else:
                    beneath.write_all(file, piece)
                self._on(len(piece))
            os.ftruncate(file, entry.size)
        finally:
            os.close(file)
        self.files += 1
        self.size += entry.size


def _leads_out(target: bytes, depth: int) -> bool:
    """Whether a link to `target`, in a directory `depth` levels below the root, may lead out of that root.

    What goes up after it went down may: where it went down can be a link itself.
    """
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    up = 0
    while up < len(parts) and parts[up] == b"..":
        up += 1
    return target.startswith(b"/") or up > depth or b".." in parts[up:]


# --- into its place ----------------------------------------------------------------------------


def _settle(above: int, name: str, made: int, kind: Kind, path: str) -> None:
    """Moves what is in `made` to `name` in `above`."""
    if kind == "directory" and beneath.is_directory(name, above):
        old, new = (os.open(each, beneath.DIRECTORY, dir_fd=fd) for each, fd in ((name, above), (_TOP, made)))
        try:
            _require_mergeable(new, old, path)
            _merge(new, old)
        finally:
            os.close(old)
            os.close(new)
    else:
        os.rename(_TOP, name, src_dir_fd=made, dst_dir_fd=above)


def _require_mergeable(new: int, old: int, path: str) -> None:
    """`UsageError` when something in `new` cannot take the place of what is in `old`."""
    for name in os.listdir(new):
        where = os.path.join(path, name)
        require_room(old, name, "directory" if beneath.is_directory(name, new) else "file", where)
        if beneath.is_directory(name, new) and beneath.is_directory(name, old):
            with _both(name, new, old) as (inner, there):
                _require_mergeable(inner, there, where)


def _merge(new: int, old: int) -> None:
    for name in os.listdir(new):
        if beneath.is_directory(name, new) and beneath.is_directory(name, old):
            with _both(name, new, old) as (inner, there):
                _merge(inner, there)
        else:
            os.rename(name, name, src_dir_fd=new, dst_dir_fd=old)


@contextmanager
def _both(name: str, new: int, old: int) -> Iterator[tuple[int, int]]:
    inner = os.open(name, beneath.DIRECTORY, dir_fd=new)
    try:
        there = os.open(name, beneath.DIRECTORY, dir_fd=old)
        try:
            yield inner, there
        finally:
            os.close(there)
    finally:
        os.close(inner)
