"""TOML files, read strictly, with the line of every key.

tomllib says what a document means and not where it says it. The locator walks text that tomllib has
accepted, so it may assume that the text is valid and needs to tell keys from values and no more.
May not judge what a key means.
"""

# a file is opened by the flags that a hostile one needs.

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, NamedTuple

from sessionctl.errors import ManifestError, Problem

Key = tuple[str | int, ...]
"""Where a value is: names of tables and keys, numbers of array elements from 0."""

LIMIT = 1024 * 1024
"""Bytes that a document may have."""
DEPTH = 50
"""Keys that may be joined by dots. tomllib takes time with the square of it: 16,000 take 4 s."""


class Document(NamedTuple):
    """A TOML file that was read."""

    label: str
    """What to call it in messages."""
    data: Mapping[str, Any]
    lines: Mapping[Key, int]

    def line(self, key: Key) -> int:
        """The 1-based line of `key`, or of the nearest thing around it; 0 when nothing of it is there."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key, 0)


def load_document(path: str, label: str) -> Document:
    """The document at `path`. `ManifestError` that calls it `label` when it cannot be read or is not TOML."""
    return parse_document(_text(path, label), label)


def parse_document(text: str, label: str) -> Document:
    """The document whose text is `text`. `ManifestError` that calls it `label` when it is not TOML."""
    long = _LONG_KEY.search(text)
    if long:
        raise _wrong(label, f"joins more than {DEPTH} keys by dots", text.count("\n", 0, long.start()) + 1)
    try:
        return Document(label, tomllib.loads(text), locate(text))
    except RecursionError:
        raise _wrong(label, "nests too deeply") from None
    except ValueError as error:
        message, line = _place(str(error), text)
        raise _wrong(label, f"is not valid TOML: {message}", line) from error


def _text(path: str, label: str) -> str:
    try:
        # A FIFO would wait for a writer without O_NONBLOCK.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise _wrong(label, "is not a regular file")
            content = file.read(LIMIT + 1) if info.st_size <= LIMIT else b"." * (LIMIT + 1)
    except OSError as error:
        wrong = [Problem("", f"cannot be read: {error.strerror}")]
        missing = isinstance(error, FileNotFoundError)
        hint = f"name one that is there, or make it: sessionctl --file {shlex.quote(label)} init" if missing else ""
        raise ManifestError(label, wrong, hint=hint) from error
    if len(content) > LIMIT:
        raise _wrong(label, f"is larger than {LIMIT // 1024} KiB")
    try:
        return content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise _wrong(label, "is not UTF-8", content.count(b"\n", 0, error.start) + 1) from None


def _wrong(label: str, message: str, line: int = 0) -> ManifestError:
    return ManifestError(label, [Problem("", message, line)])


def _place(message: str, text: str) -> tuple[str, int]:
    """tomllib's message without its place, and the line of it."""
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", message, re.DOTALL)
    if found is None:
        return message, 0
    return found[1], int(found[2]) if found[2] else max(1, len(text.splitlines()))


def dotted(key: Key) -> str:
    """`key` for people: ``sessions.api.files[0].path``. What is not a bare key is quoted, escaped and cut."""
    shown = ""
    for part in key:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            cut = part if len(part) <= 80 else part[:77] + "..."
            shown += ("." if shown else "") + (part if cut is part and _BARE.fullmatch(part) else json.dumps(cut))
    return shown


# --- the locator -------------------------------------------------------------------------------

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"[ \t\n]*(?:#[^\n]*[ \t\n]*)*")
_STRING = re.compile(
    r'"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"{3,5}'
    r"|'''[^']*(?:'(?!'')[^']*)*'{3,5}"
    r'|"[^"\\\n]*(?:\\.[^"\\\n]*)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
# Up to two quotes may stand before the three that end a multi-line string. No possessive groups:
# before Python 3.11.5 they match wrongly.
_PLAIN = re.compile(r"[^,\]}#\n]*")
_LONG_KEY = re.compile(rf"""(?<![\w"'-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){{{DEPTH}}}""")


def locate(text: str) -> dict[Key, int]:
    r"""The 1-based line of every table, key and array element of `text`: valid TOML with ``\n`` for newlines.

    A table is where its header is, or where it is first mentioned when it has none.
    """
    return _Locator(text).lines


class _Locator:
    """A walk over a document from its beginning to its end. Methods take a position and return the next."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.newlines = [found.start() for found in re.finditer("\n", text)]
        self.lines: dict[Key, int] = {}
        self.elements: dict[Key, int] = {}
        """How many ``[[tables]]`` an array has so far."""
        table: Key = ()
        position = self.gap(0)
        while position < len(text):
            if text[position] == "[":
                table, position = self.header(position)
            else:
                position = self.pair(position, table)
            position = self.gap(position)

    def line(self, position: int) -> int:
        return bisect_right(self.newlines, position - 1) + 1

    def gap(self, position: int) -> int:
        found = _GAP.match(self.text, position)
        return found.end() if found else position

    def blank(self, position: int) -> int:
        found = _BLANK.match(self.text, position)
        return found.end() if found else position

    def header(self, start: int) -> tuple[Key, int]:
        line = self.line(start)
        brackets = 2 if self.text.startswith("[[", start) else 1
        parts, position = self.key(start + brackets)
        table: Key = ()
        for number, part in enumerate(parts):
            table = (*table, part)
            self.lines.setdefault(table, line)
            if table in self.elements and (brackets == 1 or number < len(parts) - 1):
                table = (*table, self.elements[table] - 1)
        if brackets == 2:
            count = self.elements.get(table, 0)
            self.elements[table] = count + 1
            table = (*table, count)
        self.lines[table] = line
        return table, position + brackets

    def pair(self, start: int, table: Key) -> int:
        line = self.line(start)
        parts, position = self.key(start)
        for part in parts:
            table = (*table, part)
            self.lines.setdefault(table, line)
        return self.value(self.blank(position + 1), table)

    def key(self, position: int) -> tuple[list[str], int]:
        """A dotted key, and the position of what follows it (``=`` or ``]``)."""
        parts = []
        while True:
            position = self.blank(position)
            quoted = self.text[position] in "\"'"
            found = (_STRING if quoted else _BARE).match(self.text, position)
            assert found is not None, "tomllib accepted this key"
            word = found[0]
            parts.append(next(iter(tomllib.loads(f"{word} = 0"))) if quoted else word)
            position = self.blank(found.end())
            if self.text[position] != ".":
                return parts, position
            position += 1

    def value(self, position: int, key: Key) -> int:
        opening = self.text[position]
        if opening == "[":
            return self.array(position + 1, key)
        if opening == "{":
            return self.inline(position + 1, key)
        found = (_STRING if opening in "\"'" else _PLAIN).match(self.text, position)
        assert found is not None, "tomllib accepted this value"
        return found.end()

    def array(self, position: int, key: Key) -> int:
        number = 0
        position = self.gap(position)
        while self.text[position] != "]":
            element = (*key, number)
            self.lines[element] = self.line(position)
            position = self.separator(self.value(position, element))
            number += 1
        return position + 1

    def inline(self, position: int, key: Key) -> int:
        position = self.gap(position)
        while self.text[position] != "}":
            position = self.separator(self.pair(position, key))
        return position + 1

    def separator(self, position: int) -> int:
        """The position after a comma, if there is one."""
        position = self.gap(position)
        return self.gap(position + 1) if self.text[position] == "," else position
