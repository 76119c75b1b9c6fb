"""Files below a directory that an agent may write: hostile names, links, modes and depths.

Nothing here follows a symlink, leaves the directory it was given, or blocks: components are opened
one by one, relative to the directory before. The parents of a root are ours and trusted; the root
itself must be a directory, not a link to one. What is only for directories of our own, which no agent can
write, says so. This module may not interpret what it reads, run a program, or know what a session is.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Literal, NamedTuple

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a directory is opened."""
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""How a file is opened to be read: a FIFO opens without a writer, and one the agent holds a lease on fails at once."""
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a file is made."""
_RETRIES = 100
_TEMPORARY = re.compile(r"\.sessionctl-[0-9a-f]{16}")

StrPath = str | os.PathLike[str]
"""A path as callers give it. Not `pathlib`: importing that costs half as much as starting Python."""
Kind = Literal["file", "dir", "link", "whiteout", "other", "unreadable"]


class Unsafe(OSError):
    """Something is there that must not be used: a symlink, a device, too large, a path that leads out."""


class _Hidden(FileNotFoundError):
    """Not there, and what is there instead hides whatever lower layers hold."""


class Entry(NamedTuple):
    """One name that `walk` found."""

    path: str
    """Relative to the root; bytes that are not UTF-8 are surrogate escapes."""
    kind: Kind
    """``whiteout``: overlayfs hides the name. ``unreadable``: a directory that may not be looked into,
    or (then all numbers are 0) a name that may not be looked at."""
    size: int
    mtime_ns: int
    ctime_ns: int
    ino: int
    blocks: int
    """Of 512 bytes, that it takes on the disk."""


# --- reading -----------------------------------------------------------------------------------


def read(root: str, path: str, limit: int) -> bytes:
    """The content of the regular file at `path` below `root`.

    `FileNotFoundError` when there is none; `Unsafe` when a component is a symlink, when it is not a
    regular file, or has more than `limit` bytes; any other `OSError` as the system gave it.
    """
    *parents, name = _parts(path)
    fds = [open_root(root)]
    try:
        _descend(fds, parents, path)
        return _content(name, fds[-1], limit, path)
    finally:
        _close(fds)


def read_layered(layers: Sequence[str], path: str, limit: int) -> bytes:
    """Like `read`, of the directory that overlayfs (``userxattr``) would make of `layers`, top first.

    ``userxattr`` excludes redirects and metacopy, so whiteouts and opaque directories are all there is.
    """
    *parents, name = _parts(path)
    for root in layers:
        fds = [open_root(root)]
        try:
            _descend(fds, parents, path)
            return _content(name, fds[-1], limit, path)
        except _Hidden:
            raise
        except FileNotFoundError:
            if _opaque(fds):
                break
        finally:
            _close(fds)
    raise _absent(path)


def list_layered(layers: Sequence[str], path: str, limit: int = 10_000) -> list[str]:
    """The names in the directory at `path` that overlayfs would make of `layers`, sorted.

    `FileNotFoundError` when no directory is there; `Unsafe` for a symlink on the way and for more
    than `limit` names.
    """
    parts = _parts(path)
    seen: dict[str, bool] = {}
    found = False
    for root in layers:
        fds = [open_root(root)]
        try:
            _descend(fds, parts, path)
            found = True
            with os.scandir(fds[-1]) as entries:
                for entry in entries:
                    if entry.name not in seen:
                        plain = (
                            entry.is_file(follow_symlinks=False)
                            or entry.is_dir(follow_symlinks=False)
                            or entry.is_symlink()
                        )
                        seen[entry.name] = plain or not is_whiteout(entry.stat(follow_symlinks=False))
                        if len(seen) > limit:
                            raise Unsafe(errno.EFBIG, f"has more than {limit} names", path)
            if _opaque(fds):
                break
        except _Hidden:
            break
        except FileNotFoundError:
            if _opaque(fds):
                break
        finally:
            _close(fds)
    if not found:
        raise _absent(path)
    return sorted(name for name, shown in seen.items() if shown)


def kind_layered(layers: Sequence[str], path: str) -> Kind | None:
    """What is at `path` in the directory that overlayfs would make of `layers`, top first; None: nothing.

    `Unsafe` when a symlink is on the way. A link at `path` itself is a ``link``.
    """
    *parents, name = _parts(path)
    for root in layers:
        fds = [open_root(root)]
        try:
            _descend(fds, parents, path)
            info = os.stat(name, dir_fd=fds[-1], follow_symlinks=False)
            return None if is_whiteout(info) else _KINDS.get(stat.S_IFMT(info.st_mode), "other")
        except _Hidden:
            return None
        except FileNotFoundError:
            if _opaque(fds):
                return None
        finally:
            _close(fds)
    return None


def names(directory: StrPath) -> list[str]:
    """The names in `directory`, one of our own, in no order; none when it is not there. `OSError`."""
    try:
        return os.listdir(os.fspath(directory))
    except FileNotFoundError:
        return []


def walk(root: str) -> Iterator[Entry]:
    """Everything below `root`, depth first, the names of each directory sorted, links not followed.

    What vanishes meanwhile is left out. Holds two file descriptors at most, at any depth. An `OSError`
    when `root` itself cannot be read, and `Unsafe` when a directory was moved while it was being
    walked: not to know is not the same as nothing there.
    """
    fd = open_root(root)
    try:
        frames = [_Frame.of("", fd)]
        prefix = ""
        while True:
            frame = frames[-1]
            if not frame.pending:
                frames.pop()
                if not frames:
                    return
                prefix = prefix[: -len(frame.name) - 1]
                fd = ascend(fd, frames[-1].identity, prefix + frame.name)
                continue
            name, info = frame.pending.pop()
            if info is None or not stat.S_ISDIR(info.st_mode):
                yield _entry(prefix + name, info)
                continue
            try:
                inner = os.open(name, DIRECTORY, dir_fd=fd)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    yield _entry(prefix + name, info, readable=False)
                continue
            try:
                # Without search permission nothing in it can be looked at, and there is no way back up.
                os.stat(".", dir_fd=inner)
                entered = _Frame.of(name, inner)
            except OSError:
                os.close(inner)
                yield _entry(prefix + name, info, readable=False)
                continue
            os.close(fd)
            fd = inner
            frames.append(entered)
            yield _entry(prefix + name, info)
            prefix += name + "/"
    finally:
        os.close(fd)


class _Frame(NamedTuple):
    """A directory that is being walked: what it is, and what of it is still to do, last first."""

    name: str
    identity: tuple[int, int]
    pending: list[tuple[str, os.stat_result | None]]

    @classmethod
    def of(cls, name: str, fd: int) -> _Frame:
        pending: list[tuple[str, os.stat_result | None]] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    pending.append((entry.name, entry.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue
                except OSError:
                    pending.append((entry.name, None))
        pending.sort(key=itemgetter(0), reverse=True)
        return cls(name, identity(fd), pending)


def _entry(path: str, info: os.stat_result | None, *, readable: bool = True) -> Entry:
    if info is None:
        return Entry(path, "unreadable", 0, 0, 0, 0, 0)
    kind = _KINDS.get(stat.S_IFMT(info.st_mode), "other") if readable else "unreadable"
    if is_whiteout(info):
        kind = "whiteout"
    return Entry(path, kind, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_blocks)


_KINDS: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link"}


# --- writing -----------------------------------------------------------------------------------


def write(root: str, path: str, data: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Puts a file of `data` at `path` below `root`, whole or not at all.

    Missing parents are made (0755). What is at the final name, a symlink too, is replaced. File and
    new parents belong to `owner` (uid, gid) when it is given. `Unsafe` when a parent is a symlink.
    Until it is whole, it is beside `root`: a crash leaves nothing where an agent would come upon it.
    """
    *parents, name = _parts(path)
    fds = [os.open(os.path.dirname(root) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        fds.append(open_root(root))
        _make(fds, parents, path, owner)
        _place(fds[-1], name, data, mode, owner=owner, beside=fds[0])
    finally:
        _close(fds)


def make_directory(root: str, path: str, owner: tuple[int, int] | None = None) -> None:
    """Makes the directory `path` below `root`, and its parents, where they are not there (0755).

    What is made belongs to `owner` (uid, gid) when it is given. `Unsafe` when a component is a symlink.
    """
    fds = [open_root(root)]
    try:
        _make(fds, _parts(path), path, owner)
    finally:
        _close(fds)


def _make(fds: list[int], parts: Sequence[str], path: str, owner: tuple[int, int] | None) -> None:
    """As `_descend`, and makes what is missing."""
    for part in parts:
        try:
            os.mkdir(part, 0o700, dir_fd=fds[-1])
        except FileExistsError:
            fds.append(_directory(part, fds[-1], path))
        else:
            fds.append(_directory(part, fds[-1], path))
            if owner is not None:
                os.fchown(fds[-1], *owner)
            os.fchmod(fds[-1], 0o755)


def publish(path: str, data: bytes, mode: int = 0o600) -> None:
    """Puts a file of our own at `path`: whole or not at all, also across a power cut.

    Only for directories no agent can write.
    """
    parent, name = os.path.split(path)
    directory = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _place(directory, name, data, mode, sync=True)
        os.fsync(directory)
    finally:
        os.close(directory)


def sync_directory(directory: str) -> None:
    """Returns when the disk holds which names are in `directory`, one of our own; not what is in them."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_filesystem(directory: str) -> None:
    """Returns when the disk holds all of the file system of `directory`, one of our own; `OSError` if it cannot."""
    import ctypes  # Only who makes something large pays for it.

    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), directory)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Writes `data` to `fd`, however few bytes the system takes at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def temporary() -> str:
    """A name for what is not whole yet. `sweep` takes away what a crash has left of such."""
    return f".sessionctl-{os.urandom(8).hex()}"


def is_temporary(name: str) -> bool:
    """Whether `name` is one that `temporary` may have given."""
    return bool(_TEMPORARY.fullmatch(name))


def sweep(directory: str) -> None:
    """Removes what a crash has left half-written in `directory`, one of our own. Only while nobody writes there."""
    with os.scandir(directory) as entries:
        left = [entry.path for entry in entries if is_temporary(entry.name)]
    for path in left:
        remove_tree(path)


def _place(
    directory: int,
    name: str,
    data: bytes,
    mode: int,
    *,
    owner: tuple[int, int] | None = None,
    sync: bool = False,
    beside: int | None = None,
) -> None:
    """A temporary file, filled, then moved to `name`; nothing stays of it when that fails.

    It is made in `beside`, a directory of the same file system; None: where it will be.
    """
    filled = temporary()
    place = directory if beside is None else beside
    fd = os.open(filled, NEW, 0o600, dir_fd=place)
    try:
        try:
            write_all(fd, data)
            if owner is not None:
                os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(filled, name, src_dir_fd=place, dst_dir_fd=directory)
    except BaseException:
        os.unlink(filled, dir_fd=place)
        raise


# --- removing ----------------------------------------------------------------------------------


def remove_tree(path: str) -> None:
    """Removes what is at `path`, with everything below it. Absent already is done.

    Modes are no obstacle as long as the owner is us. Links are removed, never followed, also ones
    that appear meanwhile; other file systems are not entered. Holds three file descriptors at most,
    at any depth. An `OSError` that names the first thing that cannot go; what went before it is gone.
    """
    parent, name = os.path.split(path.rstrip("/"))
    if name in ("", ".", ".."):
        raise Unsafe(errno.EINVAL, "cannot be removed as a tree", path)
    pending: list[list[str]] = [[name]]
    try:
        _remove(parent or ".", pending)
    except OSError as error:
        shown = "/".join([parent, *(names[-1] for names in pending if names)])
        raise type(error)(error.errno, error.strerror, shown) from error


def _remove(parent: str, pending: list[list[str]]) -> None:
    """Removes the names in `pending`: one list per directory on the way down, the current name last."""
    try:
        fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        above: list[tuple[int, int]] = []
        device = os.fstat(fd).st_dev
        retries = _RETRIES
        while True:
            names = pending[-1]
            if names:
                try:
                    os.unlink(names[-1], dir_fd=fd)
                except FileNotFoundError:
                    pass
                except IsADirectoryError:
                    try:
                        inner = _unlocked(names[-1], fd, device)
                    except (FileNotFoundError, NotADirectoryError):
                        retries = _again(retries)
                        continue
                    above.append(identity(fd))
                    os.close(fd)
                    fd = inner
                    pending.append(os.listdir(fd))
                    continue
                names.pop()
                continue
            if not above:
                return
            pending.pop()
            fd = ascend(fd, above.pop(), pending[-1][-1])
            try:
                os.rmdir(pending[-1][-1], dir_fd=fd)
            except FileNotFoundError:
                pass
            except OSError as error:
                # Something was put into it, or in its place, meanwhile: look at that name once more.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
                retries = _again(retries)
                continue
            pending[-1].pop()
    finally:
        os.close(fd)


def _again(retries: int) -> int:
    """One retry less; an `OSError` when there are none left."""
    if not retries:
        raise OSError(errno.EBUSY, "something keeps writing here while it is removed")
    return retries - 1


def _unlocked(name: str, fd: int, device: int) -> int:
    """The directory `name` in `fd`, opened, and made ours to read, write and search."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        info = os.fstat(handle)
        if info.st_dev != device:
            raise Unsafe(errno.EXDEV, "another file system is mounted here", name)
        if info.st_mode & 0o700 != 0o700:
            # An O_PATH descriptor takes no fchmod; its name in /proc is this inode and no other.
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
        return os.open(".", DIRECTORY, dir_fd=handle)
    finally:
        os.close(handle)


# --- the steps ---------------------------------------------------------------------------------


def _parts(path: str) -> list[str]:
    """The components of `path`; `Unsafe` when it is not plainly one below a directory."""
    parts = path.split("/")
    if "\0" in path or not {"", ".", ".."}.isdisjoint(parts):
        raise Unsafe(errno.EINVAL, "is not a path below a directory", path)
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise Unsafe(errno.EILSEQ, "is not a file name", path) from None
    return parts


def open_root(root: str) -> int:
    """The directory at `root`, opened; `Unsafe` when it is none, or a link to one."""
    try:
        return os.open(root, DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Unsafe(error.errno, "is not a directory, or is a link to one", root) from None
        raise


def _descend(fds: list[int], parts: Sequence[str], path: str) -> None:
    """Opens the directories `parts`, one in the other, onto the end of `fds`, which the caller closes."""
    for part in parts:
        fds.append(_directory(part, fds[-1], path))


def _directory(name: str, fd: int, path: str) -> int:
    try:
        return os.open(name, DIRECTORY, dir_fd=fd)
    except OSError as error:
        raise _explained(error, name, fd, path, hides=True) from None


def _content(name: str, fd: int, limit: int, path: str) -> bytes:
    try:
        file = os.open(name, FILE, dir_fd=fd)
    except OSError as error:
        raise _explained(error, name, fd, path, hides=False) from None
    try:
        info = os.fstat(file)
        if not stat.S_ISREG(info.st_mode):
            raise Unsafe(errno.EINVAL, "is not a regular file", path)
        content = b""
        # One byte more than there should be: it may be growing.
        while len(content) <= limit and (chunk := os.read(file, min(info.st_size, limit) + 1)):
            content += chunk
        if len(content) > limit:
            raise Unsafe(errno.EFBIG, f"has more than {limit} bytes", path)
        return content
    finally:
        os.close(file)


def _explained(error: OSError, name: str, fd: int, path: str, *, hides: bool) -> OSError:
    """Why `name` could not be opened; `hides`: a directory was wanted, so anything else hides one."""
    if error.errno == errno.ENOENT:
        return _absent(path)
    try:
        info = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError as unknown:
        return type(unknown)(unknown.errno, unknown.strerror, path)
    if stat.S_ISLNK(info.st_mode):
        return Unsafe(errno.ELOOP, "a symbolic link is on the way", path)
    if is_whiteout(info) or (hides and not stat.S_ISDIR(info.st_mode)):
        return _Hidden(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if not hides and not stat.S_ISREG(info.st_mode):
        return Unsafe(errno.EINVAL, "is not a regular file", path)
    return type(error)(error.errno, error.strerror, path)


def _absent(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def ascend(fd: int, above: tuple[int, int], path: str) -> int:
    """The directory above `fd`, which is closed. ``..`` is believed only when it is the one we came
    from: an agent may have moved `fd`, and then `Unsafe` is raised and `fd` stays open."""
    upper = os.open("..", DIRECTORY, dir_fd=fd)
    if identity(upper) != above:
        os.close(upper)
        raise Unsafe(errno.ESTALE, "was moved while it was being read", path)
    os.close(fd)
    return upper


def identity(fd: int) -> tuple[int, int]:
    """What tells the file of `fd` from all others of this machine."""
    info = os.fstat(fd)
    return info.st_dev, info.st_ino


def _opaque(fds: Sequence[int]) -> bool:
    """Whether one of the directories on the way hides what lower layers hold; the root never does."""
    for fd in fds[1:]:
        try:
            if os.getxattr(fd, "user.overlay.opaque") == b"y":
                return True
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                raise
    return False


def is_directory(name: str, fd: int) -> bool:
    """Whether `name` in the directory `fd` is a directory, and no link to one."""
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def is_whiteout(info: os.stat_result) -> bool:
    """Whether this is what overlayfs hides a name of a lower layer with."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
