"""Many layers made one, so that no image has more than a mount takes.

mount(2) takes 4,096 bytes of options, which name every layer, and each costs time whenever a name is looked up. So the
lowest of a long stack become one directory that shows what they would show together. Its files are those of the layers
(hard links): it takes no room but for directories. Nothing is run, and no link is followed.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence

from sessionctl import beneath
from sessionctl.images.layer import OPAQUE, Owner

MOST = 16
"""Layers of an image that are mounted. With them, paths of 200 bytes fit into the options."""


def split(layers: Sequence[str]) -> tuple[list[str], list[str]]:
    """Which of `layers`, bottom first, are to become one, and those that stay. None when they are few."""
    cut = len(layers) - MOST + 1 if len(layers) > MOST else 0
    return list(layers[:cut]), list(layers[cut:])


def flatten(layers: Sequence[str], directory: str, owner: Owner) -> None:
    """Makes `directory`, which is empty, what overlayfs would show of the directories `layers`, bottom first.

    It is for the bottom of a stack: nothing in it hides anything below it. On the same file system as they. `OSError`.
    """
    target = os.open(directory, beneath.DIRECTORY)
    try:
        for each in layers:
            source = os.open(each, beneath.DIRECTORY)
            try:
                _lay(source, target, owner)
            finally:
                os.close(source)
    finally:
        os.close(target)


def _lay(source: int, target: int, owner: Owner) -> None:
    """Puts what the directory `source` has over what is in `target`."""
    info = os.fstat(source)
    os.fchmod(target, stat.S_IMODE(info.st_mode))
    if owner:
        os.fchown(target, *owner)
    for name in os.listdir(source):
        above = os.stat(name, dir_fd=source, follow_symlinks=False)
        if not stat.S_ISDIR(above.st_mode):
            _clear(name, target)
            if not stat.S_ISCHR(above.st_mode):  # a whiteout: that was all that it says
                os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
            continue
        inner = os.open(name, beneath.DIRECTORY, dir_fd=source)
        try:
            if _is_opaque(inner) or not beneath.is_directory(name, target):
                _clear(name, target)
                os.mkdir(name, 0o700, dir_fd=target)
            below = os.open(name, beneath.DIRECTORY, dir_fd=target)
            try:
                _lay(inner, below, owner)
            finally:
                os.close(below)
        finally:
            os.close(inner)


def _clear(name: str, fd: int) -> None:
    if beneath.is_directory(name, fd):
        shutil.rmtree(name, dir_fd=fd)
    else:
        try:
            os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            return


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, OPAQUE) == b"y"
    except OSError:
        return False
