"""What a person said sessions may take from the host: a repository's manifest is somebody else's code.

Kept per session as the very lines that `plan.taken` gives, in one file of the project's state directory: no
sandbox ever sees that, so what is audited cannot edit the audit. Values of secrets are in no such line.
This module reads and writes that file. It may not decide what is done about what was not trusted: that is the plan's.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sessionctl import beneath
from sessionctl.errors import StoreError, UntrustedError
from sessionctl.model import is_name
from sessionctl.plan import secrets_taken, taken

FILE = "trusted"
_FORM = 1
_LIMIT = 64 << 20
"""Bytes of the file: 10,000 sessions with all that they could take."""

Lines = Mapping[str, frozenset[str]]
"""By session, lines as `plan.taken` gives them."""


class Trust(NamedTuple):
    """All that was said."""

    trusted: Lines = {}  # noqa: RUF012  (nobody writes to a mapping of a value)
    revoked: Lines = {}  # noqa: RUF012
    """What was taken back: that a sandbox was made with it before does not allow it any more."""

    def trusting(self, lines: Lines) -> Trust:
        """The same after a person trusted just `lines` for their sessions: what else was trusted for them is not."""
        return self._with({**self.trusted, **lines}, _without(self.revoked, lines))

    def granting(self, lines: Lines) -> Trust:
        """The same after a person allowed `lines` for one apply: nothing is trusted for it, or counts as revoked."""
        return self._with(self.trusted, _without(self.revoked, lines))

    def revoking(self, names: Iterable[str], held: Lines) -> Trust:
        """The same after a person took back all that was trusted for `names`, and what their sandboxes hold of it."""
        names = set(names)
        gone = {name: self.trusted.get(name, frozenset()) | held.get(name, frozenset()) for name in names}
        trusted = {name: lines for name, lines in self.trusted.items() if name not in names}
        return self._with(
            trusted,
            {n: self.revoked.get(n, frozenset()) | gone.get(n, frozenset()) for n in self.revoked.keys() | names},
        )

    def renamed(self, old: str, new: str) -> Trust:
        """The same, with what is said of session `old` said of `new`."""

        def moved(lines: Lines) -> Lines:
            rest = {name: each for name, each in lines.items() if name != old}
            return {**rest, new: lines[old]} if old in lines else lines

        return Trust(moved(self.trusted), moved(self.revoked))

    def _with(self, trusted: Lines, revoked: Lines) -> Trust:
        return Trust(*({name: lines for name, lines in each.items() if lines} for each in (trusted, revoked)))


def _without(lines: Lines, gone: Lines) -> Lines:
    return {name: each - gone.get(name, frozenset()) for name, each in lines.items()}


def load(directory: str) -> Trust:
    """What was said for the project whose state directory is `directory`; nothing when nothing was.

    `StoreError` when it cannot be read or others could have written it: nothing is trusted by mistake.
    """
    path = os.path.join(directory, FILE)
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o022:
                raise StoreError(f"{path} is not a file that only you can write", hint=_REMEDY.format(path))
            content = file.read(_LIMIT)
    except FileNotFoundError:
        return Trust()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}", hint=_REMEDY.format(path)) from error
    try:
        data = json.loads(content)
        if data["form"] != _FORM:
            raise ValueError(f"it is of form {data['form']!a}, this release knows {_FORM}")
        return Trust(_lines(data["trusted"]), _lines(data["revoked"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is damaged: {error}", hint=_REMEDY.format(path)) from error


_REMEDY = "nothing is trusted then; move it away (mv {0} {0}.bad) and run: sessionctl trust"


def _lines(data: Any) -> Lines:
    found = {name: frozenset(lines) for name, lines in data.items()}
    if not all(is_name(name) and all(isinstance(line, str) for line in lines) for name, lines in found.items()):
        raise ValueError("it holds what is no line of a session")
    return found


def save(directory: str, trust: Trust) -> None:
    """Writes `trust` for the project in `directory`, which is there: whole or not at all, mode 0600."""
    data = {
        "form": _FORM,
        **{
            kind: {name: sorted(lines) for name, lines in sorted(each.items())}
            for kind, each in trust._asdict().items()
        },
    }
    try:
        beneath.publish(os.path.join(directory, FILE), json.dumps(data, indent=1).encode())
    except OSError as error:
        raise StoreError(f"{directory}/{FILE} cannot be written: {error.strerror}") from error


# --- what a person is shown --------------------------------------------------------------------


class Taking(NamedTuple):
    """What one session takes, beside what was said of it."""

    session: str
    declared: bool
    lines: tuple[str, ...]
    """What the manifest would have it take now, in the manifest's order."""
    trusted: frozenset[str]
    """What was trusted last for it."""

    @property
    def new(self) -> tuple[str, ...]:
        return tuple(line for line in self.lines if line not in self.trusted)

    @property
    def gone(self) -> tuple[str, ...]:
        """What was trusted, and is not taken any more."""
        return tuple(sorted(self.trusted.difference(self.lines)))


def takings(declared: Mapping[str, Mapping[str, Any]], trust: Trust, names: Iterable[str] = ()) -> tuple[Taking, ...]:
    """Every session that takes something or is trusted with something, in order of the names; of `names` only, if any.

    `declared`: the JSON forms of the declarations.
    """
    chosen = set(names) or declared.keys() | trust.trusted.keys()
    found = (
        Taking(
            name,
            name in declared,
            taken(declared[name]) if name in declared else (),
            trust.trusted.get(name, frozenset()),
        )
        for name in sorted(chosen)
    )
    return tuple(each for each in found if each.lines or each.trusted)


# --- using what was allowed --------------------------------------------------------------------


def require_kept(directory: str, name: str, data: Mapping[str, Any], *, but: Iterable[str] | None = None) -> None:
    """`UntrustedError` when the sandbox of session `name`, made of `data`, would be given again what was revoked.

    With `but`, variables of a command: only secrets are taken then, and none of those.
    """
    revoked = load(directory).revoked.get(name)
    if not revoked:
        return
    lines = taken(data) if but is None else secrets_taken(data, but)
    found = [line for line in lines if line in revoked]
    if found:
        raise UntrustedError(
            "\n".join(f"{name} would take from the host what was revoked: {line}" for line in found),
            hint=f"if that is meant: sessionctl trust {name}",
        )
