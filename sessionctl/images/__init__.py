"""Images: what a sandbox's file system is made of when it is not the host's own.

Here are their names and digests, which a manifest's resolving needs; `library` unpacks them. Nothing in
an image is ever run here, and nothing in it is believed: archives are somebody else's bytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import NamedTuple

from sessionctl import beneath
from sessionctl.errors import ImageError

HOST = "host"
KINDS = ("rootfs", "archive", "oci")


class Reference(NamedTuple):
    """An image as it is declared: ``rootfs:DIR``, ``archive:FILE`` or ``oci:LAYOUT[:TAG]``."""

    kind: str
    path: str
    tag: str = ""

    def __str__(self) -> str:
        # A slash at the end keeps a colon in the name of a layout from being taken for that of a tag.
        end = f":{self.tag}" if self.tag else "/" if self.kind == "oci" and ":" in os.path.basename(self.path) else ""
        return f"{self.kind}:{self.path}{end}"


class Pinned(NamedTuple):
    """What an image was when it was looked at."""

    digest: str
    inputs: tuple[str, ...]
    """Absolute paths of the files that decide the digest."""


class Root(NamedTuple):
    """What a sandbox's file system is made of."""

    lower: tuple[str, ...]
    """Directories, bottom first; those of the library relative to the state directory."""
    env: Mapping[str, str]
    user: str
    uid: int
    gid: int
    extra: tuple[str, ...] = ()
    """The host's programs that it lacks and that were brought in, in the lowest directory (see extra.py)."""


def parse(text: str) -> Reference | None:
    """The reference that `text` is; None when it is none. What follows the last colon of a layout is its tag."""
    kind, colon, rest = text.partition(":")
    if kind not in KINDS or not colon:
        return None
    path, colon, tag = rest.rpartition(":") if kind == "oci" else (rest, "", "")
    if kind == "oci" and (not colon or "/" in tag):
        path, colon, tag = rest, "", ""
    if not path or (colon and not tag):
        return None
    return Reference(kind, path, tag)


def pin(reference: Reference) -> Pinned:
    """The digest of what `reference`, an absolute path without symbolic links, is now.

    Of an archive it is the SHA-256 of the file; of a layout that of the manifest which its index names; of a
    rootfs it says which directory it is and when names in it last changed: what is below is not looked at.
    `ImageError` when there is no such thing.
    """
    try:
        return _PIN[reference.kind](reference)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error


def _rootfs(reference: Reference) -> Pinned:
    info = os.lstat(reference.path)
    if not stat.S_ISDIR(info.st_mode):
        raise ImageError("is not a directory")
    if not any(os.path.lexists(os.path.join(reference.path, name)) for name in ("bin", "usr")):
        raise ImageError("has neither bin nor usr: it is no root file system")
    return Pinned(f"tree:{info.st_ino}-{info.st_mtime_ns}", (reference.path,))


def _archive(reference: Reference) -> Pinned:
    from hashlib import sha256  # OpenSSL's: four times as fast as the interpreter's own

    fd = open_file(reference.path)
    digest = sha256()
    with open(fd, "rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return Pinned(f"sha256:{digest.hexdigest()}", (reference.path,))


def _oci(reference: Reference) -> Pinned:
    from sessionctl.images import formats

    digest = formats.chosen(formats.Layout(reference.path), reference.tag)
    return Pinned(digest, (os.path.join(reference.path, "index.json"),))


_PIN = {"rootfs": _rootfs, "archive": _archive, "oci": _oci}


def open_file(path: str) -> int:
    """A descriptor of the regular file at `path`, which is no symbolic link; `ImageError` for anything else."""
    fd = os.open(path, beneath.FILE)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise ImageError("is not a regular file")
