"""Where services and steps work: everything of one project that they need, as one value."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

from sessionctl import git, history
from sessionctl.backends import Backend
from sessionctl.model import make_id
from sessionctl.store import Store


class Site(NamedTuple):
    """One project: its repository, its state and its backends."""

    repository: git.Repository
    directory: str
    store: Store
    backend: Callable[[str], Backend]
    reader: history.Reader
    clock: Callable[[], float]
    progress: Callable[[str], None]
    """Is told, for people, what takes long."""

    def new_id(self) -> str:
        """An id of now."""
        return make_id(time.strftime("%Y%m%dT%H%M%S", time.gmtime(self.clock())), os.urandom(4))
