"""Directories of our own, and those that belong to whom sandboxes run as."""

from __future__ import annotations

import contextlib
import os

from sessionctl.workspace.standing import Owner


def directories(path: str, owner: Owner) -> None:
    """Our own directories down to `path`. Whoever a sandbox runs as may pass through them, not look."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for new in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(new, 0o700)
            os.chmod(new, 0o700 if owner is None else 0o711)


def give(path: str, mode: int, owner: Owner) -> None:
    """A new directory at `path` with `mode` that belongs to `owner`."""
    os.mkdir(path, 0o700)
    if owner is not None:
        os.chown(path, *owner)
    os.chmod(path, mode)
