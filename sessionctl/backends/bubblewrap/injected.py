"""The files a manifest puts into a session's home: last written, actual, declared.

What an agent made of a file is never overwritten. This module may not touch anything but regular
files below the home it is given, and follows no link there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sessionctl import beneath
from sessionctl.errors import BackendError
from sessionctl.model import FileSpec

_LIMIT = 64 << 20
"""Bytes of a file of the agent's that are read, to tell whether it is still what was written."""
_NO_DIGEST = "not a readable file"


class Written(NamedTuple):
    """What a session's home holds of its manifest's files."""

    files: Mapping[str, str]
    """Per path, as declared, the SHA-256 of what was written last."""
    clashes: tuple[str, ...]
    """Paths changed both by the agent and in the manifest: not written."""


def write(
    home: str,
    declared: Sequence[FileSpec],
    before: Sequence[FileSpec],
    last: Mapping[str, str],
    owner: tuple[int, int] | None,
) -> Written:
    """Brings `home` up to `declared`. `before` is what was declared when `last` was written.

    Everything is read and decided before the first file is written. `BackendError` when a source
    cannot be read or is not what the plan was made of.
    """
    modes = {file.path: file.mode for file in before}
    wanted, clashes, files = [], [], {}
    for file in declared:
        then = last.get(file.path)
        actual = _digest(home, file.path)
        news = (file.sha256, file.mode) != (then, modes.get(file.path))
        if news and actual in (then, file.sha256):
            wanted.append((file, _content(file)))
        elif news:
            clashes.append(file.path)
        if not news or file.path not in clashes:
            files[file.path] = file.sha256
        elif then is not None:
            files[file.path] = then
    for file, content in wanted:
        try:
            beneath.write(home, _relative(file.path), content, int(file.mode, 8), owner)
        except OSError as error:
            raise BackendError(f"{file.path} cannot be written into the sandbox's home: {error.strerror}") from error
    return Written(files, tuple(clashes))


def _digest(home: str, path: str) -> str | None:
    """Of what is at `path` now; None when nothing is."""
    try:
        return hashlib.sha256(beneath.read(home, _relative(path), _LIMIT)).hexdigest()
    except FileNotFoundError:
        return None
    except OSError:
        return _NO_DIGEST  # a link, a directory, unreadable: whatever the agent made of it


def _content(file: FileSpec) -> bytes:
    if not file.source:
        content = file.content.encode()
    else:
        try:
            with open(file.source, "rb") as opened:
                content = opened.read()
        except OSError as error:
            raise BackendError(f"{file.source} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise BackendError(
            f"{file.source or file.path} has changed since the plan was made", hint="run the plan again, and look at it"
        )
    return content


def _relative(path: str) -> str:
    if not path.startswith("~/"):
        raise BackendError(f"{path!r} is not below the sandbox's home", hint="a file's path begins with ~/")
    return path[2:]
