"""The directory that a store is in: ours alone to write, made when something is first written."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from sessionctl.errors import StoreError

UNFINISHED = "unfinished"
"""Beside the store, a file that is there while anything is changed, and after that was killed or failed."""
REMEDY = "make it yours to read and write, or name another directory with --state-dir"


def has_directory(directory: str) -> bool:
    """Whether the directory is there; `StoreError` when it is not ours alone to write."""
    try:
        info = os.stat(directory)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"{directory} cannot be used: {error.strerror}", hint=REMEDY) from error
    if not stat.S_ISDIR(info.st_mode):
        raise StoreError(f"{directory} is not a directory", hint=REMEDY)
    if info.st_uid != os.geteuid():
        raise StoreError(f"{directory} belongs to uid {info.st_uid}, not to {os.geteuid()}", hint=REMEDY)
    if info.st_mode & 0o022:
        raise StoreError(
            f"{directory} can be written by others (mode {stat.S_IMODE(info.st_mode):04o})",
            hint=f"when nobody has: chmod go-w {directory}",
        )
    return True


def require_directory(directory: str) -> None:
    """The directory, made where it is missing, with its parents: 0700, and as root traversable,
    because sandboxes that run as another user lie below it."""
    if has_directory(directory):
        return
    mode = 0o711 if os.geteuid() == 0 else 0o700
    try:
        for path in reversed(_missing(directory)):
            with suppress(FileExistsError):
                os.mkdir(path, mode)
                os.chmod(path, mode)  # whatever the umask
    except OSError as error:
        raise StoreError(f"{directory} cannot be made: {error.strerror}", hint=REMEDY) from error
    has_directory(directory)


def _missing(path: str) -> list[str]:
    """`path` and the directories above it that are not there, lowest first."""
    missing = []
    while not os.path.exists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing
