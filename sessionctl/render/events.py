"""What happened: events of the journal, and what commands wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sessionctl.render.text import Paint, moment, plain, printable

if TYPE_CHECKING:
    from sessionctl.outputs import Output
    from sessionctl.store import Entry

LIMITS = {
    "memory": "a process was killed, because the session's memory was used up",
    "pids": "a process could not be started, because the session had as many as it may",
    "wall": "it was ended, because its time was up",
}
"""What a limit that struck did."""


def event_data(entry: Entry) -> dict[str, Any]:
    """The JSON form of one event of the journal."""
    return {
        "id": entry.id,
        "time": moment(entry.time),
        "session": entry.session or None,
        "event": entry.event,
        "branch": entry.branch,
        "commit": entry.commit,
        "dirty": entry.dirty,
        "ahead": entry.ahead,
        "behind": entry.behind,
        **entry.data,
    }


def event_text(entry: Entry, paint: Paint) -> str:
    """One event on one line."""
    where = f"{printable(entry.branch or '(detached)')} {entry.commit[:10]}" if entry.commit else ""
    detail = where
    if entry.event == "exec":
        import shlex

        words = printable(shlex.join(map(str, entry.data.get("argv", []))))
        words = words if len(words) < 80 else f"{words[:77]}..."
        limit = f", {entry.data['limit']} limit" if entry.data.get("limit") else ""
        detail = f"[{entry.data.get('exit_code')}{limit}] {words}  {paint('dim', where)}"
    elif entry.data.get("undo"):
        undo = paint("dim", f"to undo: {printable(str(entry.data['undo']))}")
        detail = f"{where}  {undo}".lstrip()
    elif entry.data.get("snapshot"):
        detail = f"{printable(str(entry.data['snapshot']))}  {printable(str(entry.data.get('message', '')))}".rstrip()
    elif entry.data.get("reason"):
        detail = f"{printable(str(entry.data['reason']))}  {paint('dim', where)}"
    when, event = paint("dim", moment(entry.time) or ""), paint("bold", f"{entry.event:8}")
    if entry.data.get("during"):
        detail += f"  during a {printable(str(entry.data['during']))}"
    return f"{when}  {entry.session or '(repository)'}  {event}  {detail}".rstrip()


def output_data(output: Output) -> dict[str, Any]:
    """The JSON form of what one command wrote."""
    fields = output._asdict()
    del fields["rowid"], fields["code"]
    return {**fields, "time": moment(output.time), "argv": list(output.argv), "exit_code": output.code}


def output_lines(output: Output, paint: Paint) -> Iterator[str]:
    """What one command wrote, after a line that says which and how it ended."""
    import shlex

    words = printable(shlex.join(output.argv))
    words = words if len(words) < 80 else f"{words[:77]}..."
    yield paint("dim", f"== {moment(output.time)}  {output.id}  {output.event}  [{output.code}] {words}")
    for text in (output.stdout, output.stderr):
        if text:
            yield from plain(text).removesuffix("\n").split("\n")
