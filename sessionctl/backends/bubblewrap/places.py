"""Where a project's sandboxes are on disk, who owns them, and the lock of each session.

Nothing here is an agent's to write but the homes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sessionctl.errors import BackendError
from sessionctl.model import Observed, is_id, require_name

OWNER = 300_000
"""Host uid and gid of root's sandboxes: no account's."""


class Places:
    """Where the sandboxes of one project are; the package's docstring says what is there."""

    def __init__(self, project: str, directory: str) -> None:
        self.project = project
        self.directory = directory
        self.sessions = f"{directory}/sessions"

    @property
    def owner(self) -> tuple[int, int] | None:
        """The host uid and gid of everything in a sandbox; None: our own."""
        return (OWNER, OWNER) if os.geteuid() == 0 else None

    def session(self, name: str) -> str:
        """The directory of a session."""
        return f"{self.sessions}/{name}"

    def lock(self, name: str) -> str:
        """The file that is kept locked while the session's files are mounted."""
        return f"{self.sessions}/{name}/lock"

    def file(self, name: str, id: str, file: str) -> str:
        """A file of a sandbox, such as its ``mark``."""
        return f"{self.sessions}/{name}/{id}/{file}"

    def require(self, target: Observed) -> tuple[str, str]:
        """The session's name and the sandbox's id; `BackendError` when `target` has no sandbox."""
        if not is_id(target.id):
            raise BackendError(f"session {target.session} has no sandbox", hint="sessionctl apply")
        return require_name(target.session), target.id

    def make_directories(self, name: str) -> None:
        """Makes what is missing of the session's directory and its home."""
        session = self.session(name)
        os.makedirs(self.directory, 0o700, exist_ok=True)
        for path in (self.sessions, session, os.path.join(session, "home")):
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
                if self.owner and path.endswith("/home"):
                    os.chown(path, *self.owner)
        if self.owner:
            os.chmod(session, 0o711)  # its user passes through, to work and home

    @contextmanager
    def locked(self, name: str) -> Iterator[tuple[int, bool]]:
        """The session's lock, and whether it is ours: then also of every process that it is passed on to."""
        fd = os.open(self.lock(name), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            yield fd, taken(fd)
        finally:
            os.close(fd)


def taken(lock: int) -> bool:
    """Whether the lock is ours now; does not wait."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read(path: str) -> bytes:
    """All of a file of ours, which is no link."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return read_fd(fd)
    finally:
        os.close(fd)


def write(path: str, content: bytes) -> None:
    """Writes a file of ours, neither synced nor moved into place: for what is worth nothing after a power cut."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def read_fd(fd: int) -> bytes:
    """All of an open file."""
    os.lseek(fd, 0, os.SEEK_SET)
    parts = []
    while part := os.read(fd, 1 << 16):
        parts.append(part)
    return b"".join(parts)
