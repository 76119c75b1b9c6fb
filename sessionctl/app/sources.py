"""Where the services look: all that one project consists of, each opened or read when it is first asked for.

Services take `Sources`; steps, which may change things only while the lock is held, take the `Site` that it makes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from sessionctl import git, plugins
from sessionctl.backends import Backend, Context, Refusal
from sessionctl.beneath import StrPath
from sessionctl.declared import Resolved, Tool, find, resolve, tool
from sessionctl.errors import SessionctlError, UsageError
from sessionctl.model import Declaration, is_within
from sessionctl.store import Store

if TYPE_CHECKING:
    from sessionctl.history import Reader
    from sessionctl.settings import Settings
    from sessionctl.site import Site

LOCK_WAIT = 10.0
"""Seconds to wait for another sessionctl that is changing the same project."""


def silent(text: str) -> None:
    """The `progress` of what is done without telling."""


def _in(repository: git.Repository, start: str) -> str:
    """`start`; from the checkout of a session, which the repository leads to from elsewhere, its top."""
    return start if is_within(os.path.realpath(start), repository.root.rstrip("/")) else repository.root


class Sources:
    """One repository, its manifest, the tool's settings, the state that is kept of it, and its backends.

    `start` is a directory in the repository, `file` the manifest that was named, `flags` what of the tool's settings
    was given, `overrides` ``KEY=VALUE`` settings for every session.
    """

    def __init__(
        self,
        start: StrPath,
        file: StrPath | None = None,
        flags: Mapping[str, str | int] | None = None,
        overrides: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.repository = git.find_repository(start)
        self.named = os.fspath(file) if file is not None else None
        """The manifest that was named; None: the nearest one."""
        self.flags = dict(flags or {})
        self.overrides = tuple(overrides)
        self.clock = clock
        self._start = _in(self.repository, os.fspath(start))
        self._backends: dict[str, Backend] = {}
        self._probed: dict[str, Sequence[Refusal]] = {}

    # --- what is declared --------------------------------------------------------------------

    @cached_property
    def file(self) -> str:
        """The manifest. `UsageError` when there is none."""
        return self.named if self.named is not None else find(self._start, self.repository.root)

    @cached_property
    def _resolved(self) -> Resolved:
        return resolve(self.file, self.repository.root, flags=self.flags, overrides=self.overrides)

    @property
    def declared(self) -> Mapping[str, Declaration]:
        """What the manifest declares, by name."""
        return self._resolved.declared

    @property
    def declared_if_any(self) -> Mapping[str, Declaration]:
        """As `declared`; nothing where that cannot be read.

        A session that runs can be looked at and entered whatever became of the manifest.
        """
        try:
            return self.declared
        except SessionctlError:
            return {}

    @property
    def declared_if_read(self) -> Mapping[str, Declaration]:
        """As `declared`, if somebody asked for that before; else nothing."""
        return self.declared if "_resolved" in self.__dict__ else {}

    def forget_declared(self) -> None:
        """The manifest may have changed: it is read again when it is asked for next."""
        self.__dict__.pop("_resolved", None)

    @cached_property
    def settings(self) -> Tool:
        """How the tool itself works. Needs no manifest."""
        return tool(self.flags, self.repository.root)

    def chosen(self) -> Settings:
        """All of the user's own configuration, read anew; for those who read the manifest themselves."""
        from sessionctl import settings

        return settings.load(self.repository.root, self.flags)

    # --- what is kept ------------------------------------------------------------------------

    @cached_property
    def directory(self) -> str:
        """All state of this project. May not exist yet.

        `UsageError` when it does not, and there is that of a repository which was moved here.
        """
        if not os.path.isdir(self.place):
            from sessionctl import moving

            left = moving.left_behind(self.place, self.repository)
            if left:
                raise UsageError(moving.told(left), hint="take them along: sessionctl adopt --project")
        return self.place

    @property
    def place(self) -> str:
        """Where `directory` is, whatever is there."""
        return os.path.join(self.settings.state_dir, f"{self.repository.name}-{self.repository.project[:12]}")

    def inside(self, *parts: str) -> str:
        """A path in `directory`."""
        return os.path.join(self.directory, *parts)

    @cached_property
    def store(self) -> Store:
        """The project's records and its journal."""
        return Store(self.directory)

    # --- what is there -----------------------------------------------------------------------

    def backend(self, name: str) -> Backend:
        """The backend of that name, for this project."""
        if name not in self._backends:
            self._backends[name] = plugins.load("backends", name)(Context(self.repository.project, self.directory))
        return self._backends[name]

    def probe(self, backend: str) -> Sequence[Refusal]:
        """What the backend of that name cannot do here at all; asked once."""
        if backend not in self._probed:
            self._probed[backend] = self.backend(backend).probe()
        return self._probed[backend]

    @cached_property
    def reader(self) -> Reader:
        """What reads the git state of sessions, from outside and safely."""
        from sessionctl.history import Reader

        return Reader(self.repository, self.backend, self.clock)

    def forget_readings(self) -> None:
        """The repository may have changed: what `reader` remembers of it does not hold any more."""
        self.__dict__.pop("reader", None)

    def site(self, progress: Callable[[str], None] = silent) -> Site:
        """What steps work on. `progress` is told what takes long."""
        from sessionctl.site import Site

        return Site(self.repository, self.directory, self.store, self.backend, self.reader, self.clock, progress)
