"""What all that is shown is made of: text that steers no terminal, colours, tables, times, JSON."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

_CODES = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}


def printable(text: str) -> str:
    """`text` with everything that could steer a terminal shown as an escape: on one line, and only itself."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def safe_block(text: str) -> str:
    """As `printable`, but newlines and tabs stay."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])|\x9b[0-?]*[ -/]*[@-~]"
)
"""A whole escape sequence of a terminal (ECMA-48)."""


def plain(text: str) -> str:
    """`text` without the sequences that steer a terminal; what is left of such, and a line written over, is shown."""
    return safe_block(_SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))


class Paint:
    """Colours for one stream: none unless it is a terminal, or `choice` says always."""

    def __init__(self, stream: TextIO | None, choice: str = "auto") -> None:
        dumb = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        plain = dumb or stream is None or not stream.isatty()
        self.on = choice == "always" or (choice == "auto" and not plain)

    def __call__(self, colour: str, text: str) -> str:
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self.on and colour and text else text


PLAIN = Paint(None)


def table(heads: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]], paint: Paint) -> str:
    """Columns as wide as their content; a cell is its text and its colour."""
    texts = [[text for text, _ in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *texts, strict=True)]
    line = "  ".join(f"{{:{width}}}" for width in widths)
    lines = [paint("dim", line.format(*heads).rstrip())]
    if not paint.on:
        lines += [line.format(*row).rstrip() for row in texts]
        return "\n".join(lines)
    for row in rows:
        cells = (
            paint(colour, text) + " " * (width - len(text)) for (text, colour), width in zip(row, widths, strict=True)
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def moment(seconds: float | None) -> str | None:
    """Unix time as RFC 3339 in UTC, to the millisecond."""
    if seconds is None:
        return None
    import time

    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def as_json(data: Mapping[str, Any] | Sequence[Any]) -> str:
    """One JSON document; what is no valid Unicode (names an agent chose) is escaped."""
    return json.dumps(data, indent=2, ensure_ascii=True)
