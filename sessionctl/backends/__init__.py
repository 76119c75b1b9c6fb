"""What a backend is. One file (or folder) per backend beside this one, loaded when it is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from sessionctl.beneath import StrPath
from sessionctl.model import Move, Observed, SessionSpec, Workspace

BESIDE = "/.sessionctl/beside"
"""Where an inspection has the second of two workspaces that it sees."""

Progress = Callable[[str], None]
"""Takes a few words for a person who waits."""


def silent(text: str) -> None:
    """The `Progress` that nobody hears."""


class Context(NamedTuple):
    """All that a backend is given."""

    project: str
    """Project id: part of every mark, so that a stranger's sandbox is never taken for ours."""
    directory: StrPath
    """The project's state directory; a session's own files are below ``sessions/<name>/``."""


class Refusal(NamedTuple):
    """Something a backend cannot do here."""

    what: str
    """What was tried, such as ``user namespaces`` or the path of a field, such as ``image``."""
    why: str
    """What was found, with the system's own error."""
    remedy: str = ""
    """What a person can do about it."""


class Finding(NamedTuple):
    """One thing that a backend needs of this machine, looked at."""

    ok: bool
    what: str
    why: str
    """What was found, in the system's own words when it is bad."""
    remedy: str = ""
    """What a person can do. With `ok` it is advice: it works, and could be better."""


class Command(NamedTuple):
    """A program of the host that runs another one inside a sandbox."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    """Its whole environment."""


class Backend(Protocol):
    """Makes, watches and removes sandboxes.

    A backend looks at what is there each time it is asked; it remembers nothing between calls.
    All methods may be called from several threads for different sessions.
    """

    def __init__(self, context: Context) -> None: ...

    @property
    def owner(self) -> tuple[int, int] | None:
        """The host uid and gid that a session's work and home must belong to; None: our own."""

    def probe(self, spec: SessionSpec | None = None) -> Sequence[Refusal]:
        """Why this backend cannot run here; with `spec`, which of its fields it cannot enforce.

        Limits are named (as ``limits.memory``) whether or not they are declared as best effort, but
        for ``limits.wall``, which is not the backend's.

        Empty when it can. Never raises, changes nothing.
        """

    def strikes(self, target: Observed) -> Mapping[str, int]:
        """How often each limit of `target` has struck so far, such as ``{"memory": 1}``.

        Only those that can be counted are there; a count begins anew when the sandbox is started.
        """

    def examine(self) -> Sequence[Finding]:
        """Everything that `probe` looks at without a spec, and what takes longer, what is well too.

        Never raises, changes nothing.
        """

    def observe(self, *, session: str | None = None, deep: bool = False) -> Sequence[Observed]:
        """Everything that bears the project's mark, half-made things too; with `session`, of that one only.

        Read from the sandboxes. With `deep`, `Observed.busy` is looked at as well.
        Raises `BackendError` when it cannot look: not knowing is not the same as nothing there.
        """

    def create(
        self, spec: SessionSpec, workspace: Workspace, progress: Progress = silent, *, base: str = ""
    ) -> Observed:
        """A ready, stopped sandbox for `spec`; its mark is moved into place last.

        `base` is a directory that `freeze` made: it is moved in, and a new sandbox begins with its files.

        A ready one of the session that was made of the same replace digest is returned as it is.
        What a crash left half-made for the session may be used or is left for `remove`.
        The session's own files (its work and home) are never emptied. `progress` hears what takes
        long, such as an image that is unpacked; `ImageError` when that is broken or not what was declared.
        """

    def update(self, target: Observed, spec: SessionSpec) -> Observed:
        """`target` with its in-place fields as in `spec`, and its mark saying so.

        While it is stopped, the fields of effect ``restart`` too. Injected files are three-state:
        one that the agent changed is not overwritten, and then stays unlisted in the mark.
        """

    def start(self, target: Observed) -> Observed:
        """`target`, running, on the same files. Idempotent."""

    def stop(self, target: Observed) -> None:
        """Ends all processes of `target`, keeps its files. Returns when they are gone. Idempotent."""

    def paused(self, target: Observed) -> AbstractContextManager[None]:
        """While it is entered, no process of `target` runs: its files are of one moment. Nothing when it is stopped.

        `BackendError` when they cannot all be paused. Who is killed meanwhile leaves them paused, for `recover`.
        """

    def recover(self) -> None:
        """Lets run what a killed sessionctl has left paused. Only while nobody pauses anything."""

    def freeze(self, target: Observed, place: str, *, move: bool = False) -> bool:
        """Puts the sandbox's own files, which are neither work nor home, at `place`; whether it has any.

        They are copied, with `target` paused or stopped by the caller; or moved, out of one that is stopped and
        removed next. `place` is on the project's file system and not there yet.
        """

    def renamed(self, old: str, new: str) -> None:
        """Makes all sandboxes of session `old` those of `new`, where ``sessions/<old>`` was moved to. Idempotent.

        What runs in them goes on; what it is told of its name may be the old one until it is started again.
        """

    def moved(self, move: Move) -> None:
        """Makes all sandboxes of project ``move.project`` those of ``move.to``, which is this one. Idempotent.

        The repository is elsewhere now; ``move.path`` says where what was in it is. What runs goes on.
        """

    def remove(self, target: Observed) -> None:
        """Removes one stopped sandbox: its mark first, then its files. Absent already is done.

        The session's own files, its work and home, stay: they are the package workspace's.
        """

    def command(
        self,
        target: Observed,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        tty: bool = False,
        inspect: bool = False,
        seen: Sequence[Workspace] = (),
    ) -> Command:
        """The host command that runs `argv` inside `target`; runs nothing itself.

        Its exit status is that of `argv`: 128+n when a signal ended it, 126 or 127 when it could
        not be run or found, 125 when the way inside failed. `env` comes on top of the session's
        plain variables; the values of secret ones are the caller's to find and to give here.
        With `inspect`, `argv` runs with the host's own programs, read-only, without network or the
        session's environment, also while the session is stopped: for reading what an agent wrote.
        It sees the session's workspace and not its home; or the workspaces `seen` instead, which
        may be parts of snapshots, the first in the place of the workspace, a second at `BESIDE`.
        """
