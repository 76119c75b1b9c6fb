"""Files of sessions: what was copied, and what differs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sessionctl.render.text import Paint, printable, safe_block
from sessionctl.units import size

if TYPE_CHECKING:
    from sessionctl.comparing import Difference
    from sessionctl.copying import Copied


def copied_text(copied: Copied) -> str:
    """What was copied, on one line."""
    files = f"{copied.files} {'file' if copied.files == 1 else 'files'}"
    return f"{printable(copied.source)} -> {printable(copied.target)}: {files}, {size(copied.size)}"


def difference_data(found: Difference) -> dict[str, Any]:
    """The JSON form of a comparison."""
    return {
        "session": found.session,
        "from": found.before,
        "to": found.after,
        "files": [
            {
                "path": os.fsdecode(each.path),
                "status": each.status,
                "added": each.added,
                "removed": each.removed,
            }
            for each in found.files
        ],
        "truncated": found.cut,
        "not_compared": list(found.notes),
    }


def stat_text(found: Difference, paint: Paint) -> str:
    """A line for each file that differs."""
    from sessionctl.git import quoted

    width = max(len(str(each.added if each.added is not None else "-")) for each in found.files)
    less = max(len(str(each.removed if each.removed is not None else "-")) for each in found.files)
    lines = []
    for each in found.files:
        added, removed = ("-" if count is None else str(count) for count in (each.added, each.removed))
        counts = f"{paint('green', f'+{added:<{width}}')} {paint('red', f'-{removed:<{less}}')}"
        lines.append(f"{each.status} {counts}  {quoted(each.path)}")
    return "\n".join(lines)


_PATCH_COLOURS = (("+++", "bold"), ("---", "bold"), ("+", "green"), ("-", "red"), ("@@", "yellow"), ("diff ", "bold"))


def patch_text(found: Difference, paint: Paint) -> str:
    """The patch, with nothing in it that could steer a terminal."""
    lines = found.patch.decode("utf-8", "backslashreplace").removesuffix("\n").split("\n")
    return "\n".join(
        paint(next((colour for start, colour in _PATCH_COLOURS if line.startswith(start)), ""), safe_block(line))
        for line in lines
    )
