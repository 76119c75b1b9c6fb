"""What is kept of the output of a session's commands: those of `exec` and of `setup`. Reads the journal only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sessionctl.model import names_id
from sessionctl.store import Entry


class Output(NamedTuple):
    """The end of what one command wrote."""

    rowid: int
    """Of its event, as `Entry.rowid`."""
    id: str
    time: float
    """When it began, Unix seconds."""
    event: str
    """``exec`` or ``setup``."""
    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str


def outputs(entries: Iterable[Entry]) -> Iterator[Output]:
    """Of those events that are commands whose output was kept, what was kept."""
    for entry in entries:
        data = entry.data
        if entry.event in ("exec", "setup") and isinstance(data.get("stdout"), str):
            argv = tuple(map(str, data.get("argv", ())))
            code, errors = int(data.get("exit_code", 0)), str(data.get("stderr", ""))
            yield Output(entry.rowid, entry.id, entry.time, entry.event, argv, code, data["stdout"], errors)


def of_command(found: Iterable[Output], id: str) -> list[Output]:
    """Those whose id is `id`, or ends so after its dash."""
    return [each for each in found if names_id(id, each.id)]
