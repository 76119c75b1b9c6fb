"""How git writes names: of objects, refs and paths. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

OBJECT_NAME = re.compile(rb"[0-9a-f]{40}|[0-9a-f]{64}")
REF_LIMIT = 4096
"""Bytes of HEAD, or of a ref in a file of its own, that are looked at."""


_REF_NAME = re.compile(
    r"refs/(?!.*(?:\.\.|//|@\{|/\.|\.lock(?:/|$)))[^\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]+(?<![/.])", re.DOTALL
)


def is_ref_name(text: str) -> bool:
    """Whether git accepts `text` as the full name of a ref, ``refs/…``."""
    return len(text) <= 1024 and _REF_NAME.fullmatch(text) is not None


def symbolic(value: bytes) -> str:
    """The ref that a symbolic ref leads to, as its file has it (``ref: NAME``); empty when it is none."""
    return os.fsdecode(value[4:].strip()) if value.startswith(b"ref:") else ""


def packed(data: bytes, prefixes: Iterable[str]) -> dict[str, str]:
    """Object name by ref below `prefixes`, from lines of ``OBJECT REF``, as ``packed-refs`` has them."""
    starts = tuple(os.fsencode(prefix) + b"/" for prefix in prefixes)
    found: dict[str, str] = {}
    for line in data.splitlines():
        tip, _, ref = line.partition(b" ")
        if ref.startswith(starts) and OBJECT_NAME.fullmatch(tip):
            found[os.fsdecode(ref)] = tip.decode()
    return found


def printable(text: str) -> str:
    """`text` without control characters, which an agent may have put there to draw on a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def quoted(path: bytes) -> str:
    """A path for people, as git quotes it: plain when it is plain ASCII, else in quotes with escapes."""
    if re.fullmatch(rb"[ !#-\[\]-~]+", path):
        return path.decode("ascii")
    return '"' + "".join(_ESCAPES.get(b) or (chr(b) if 32 <= b < 127 else f"\\{b:03o}") for b in path) + '"'


_ESCAPES = {ord(c): "\\" + letter for c, letter in zip('\a\b\t\n\v\f\r"\\', 'abtnvfr"\\', strict=True)}
