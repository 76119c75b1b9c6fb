"""Every error that reaches a person: what happened, where, and what to do next.

Each has the exit code it ends the command with. Library code raises; only ``cli`` catches.
"""

from collections.abc import Sequence
from typing import NamedTuple

OK = 0
FAILED = 1
USAGE = 2
CHANGES = 3
LOCKED = 4
UNTRUSTED = 5
INTERRUPTED = 130


class SessionctlError(Exception):
    """Something failed. `str()` is one sentence; `hint` says what to do, and may be empty."""

    exit_code = FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def with_hint(self) -> str:
        """What it says, and behind it in brackets what to do: for where there is room for one sentence."""
        return f"{self} ({self.hint})" if self.hint else str(self)


class UsageError(SessionctlError):
    """What was asked for makes no sense: a flag, a name, a directory."""

    exit_code = USAGE


class Problem(NamedTuple):
    """One thing wrong with a manifest."""

    path: str
    """Key path, such as ``sessions.api.workspace.branch``; empty for the file as a whole."""
    message: str
    line: int = 0
    """1-based line in the file; 0 when no line can be named."""
    hint: str = ""


class ManifestError(SessionctlError):
    """The manifest is wrong, in one or more places."""

    exit_code = USAGE

    def __init__(
        self, file: str, problems: Sequence[Problem], *, hint: str = "edit it, then: sessionctl validate"
    ) -> None:
        super().__init__("\n".join(self._line(file, problem) for problem in problems), hint=hint)
        self.file = file
        self.problems = tuple(problems)

    @staticmethod
    def _line(file: str, problem: Problem) -> str:
        place = f"{file}:{problem.line}" if problem.line else file
        key = f" {problem.path}:" if problem.path else ""
        hint = f" ({problem.hint})" if problem.hint else ""
        return f"{place}:{key} {problem.message}{hint}"


class ConflictError(SessionctlError):
    """What is there is not what was last written, or the world moved since the plan was approved."""

    exit_code = CHANGES


class LockedError(SessionctlError):
    """Another sessionctl is changing this project's sandboxes."""

    exit_code = LOCKED


class UntrustedError(SessionctlError):
    """The manifest would take something from the host that it has not been trusted with."""

    exit_code = UNTRUSTED


class CommandError(SessionctlError):
    """A program that sessionctl ran failed, was killed or was not found. Names a line to paste."""


class GitError(SessionctlError):
    """Git, or a repository, did not do what was needed."""


class BackendError(SessionctlError):
    """A backend could not do what its protocol promises."""


class ImageError(SessionctlError):
    """An image cannot be read, is broken or hostile, or is not the one that was declared."""


class StoreError(SessionctlError):
    """The state directory or its database cannot be used."""
