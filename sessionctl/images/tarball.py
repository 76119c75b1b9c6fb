"""Tar archives of strangers, read once from front to back.

Why not `tarfile`: it takes as much memory as a header asks for, gives sparse files the size they claim, and
takes a cut archive for a whole one. Understood are ustar, GNU long names and pax (POSIX.1-2017), the formats
that image builders write; whatever else an entry is, the archive is refused and the entry is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from sessionctl.errors import ImageError
from sessionctl.images.streams import Section, Stream

_BLOCK = 512
_MOST_HEADERS = 16
"""Of those that only describe the next entry: each may be as long as this."""
_LONGEST_HEADER = 64 * 1024
"""Bytes of a pax header or long name: a path has at most 4,096."""

Kind = Literal["file", "directory", "symlink", "hardlink", "fifo", "device"]
_KINDS: dict[bytes, Kind] = {
    **dict.fromkeys((b"0", b"\0", b"7"), "file"),
    **dict.fromkeys((b"3", b"4"), "device"),
    b"1": "hardlink",
    b"2": "symlink",
    b"5": "directory",
    b"6": "fifo",
}


class Entry(NamedTuple):
    """One thing in an archive."""

    path: bytes
    """As the archive has it."""
    kind: Kind
    mode: int
    mtime: int
    target: bytes
    """Of links."""
    size: int
    content: Section
    """Of files; to be read before the next entry is asked for."""


def shown(path: bytes) -> str:
    """`path` for people, in quotes and escaped."""
    text = ascii(path.decode("utf-8", "surrogateescape"))
    return text if len(text) <= 120 else f"{text[:100]}...{text[-16:]}"


def entries(stream: Stream, *, digested: bool = False) -> Iterator[Entry]:
    """The entries of the tar archive `stream`, in order. `ImageError` as soon as something is wrong with it.

    When it is `digested`, the caller knows otherwise that it is whole: it may end without a mark, after an entry's
    content, as the layers of ``umoci insert`` (0.4.7) do.
    """
    extra: dict[bytes, bytes] = {}
    headers = 0
    while True:
        header = _at_most(stream, _BLOCK)
        if digested and not header and not extra:
            return
        if len(header) < _BLOCK:
            raise _cut_short()
        if not any(header):
            return
        _require_checksum(header)
        kind, size = header[156:157], _number(header[124:136])
        path = header[:100].split(b"\0", 1)[0]
        if header[257:263] == b"ustar\0" and header[345]:
            path = header[345:500].split(b"\0", 1)[0] + b"/" + path
        if kind in b"LKxgX":
            headers += 1
            if headers > _MOST_HEADERS:
                raise ImageError(f"there are more than {_MOST_HEADERS} headers before entry {shown(path)}")
            if not 0 <= size <= _LONGEST_HEADER:
                raise ImageError(f"the header before entry {shown(path)} has {size} bytes")
            body = _exactly(stream, size)
            _exactly(stream, -size % _BLOCK)
            if kind == b"L":
                extra[b"path"] = body.rstrip(b"\0")
            elif kind == b"K":
                extra[b"linkpath"] = body.rstrip(b"\0")
            elif kind != b"g":  # a global one says nothing of a single entry that we would use
                extra.update(_records(body))
            continue
        path = extra.get(b"path", path)
        if kind == b"S" or any(key.startswith(b"GNU.sparse.") for key in extra):
            raise ImageError(f"entry {shown(path)} is a sparse file", hint="pack it without --sparse")
        found = _KINDS.get(kind)
        if found is None:
            raise ImageError(f"entry {shown(path)} is of the unknown type {kind!a}")
        if found == "file" and kind != b"7" and path.endswith(b"/"):
            found = "directory"  # before POSIX there was no type for them
        if b"size" in extra:
            size = _decimal(extra[b"size"])
        if size < 0:
            raise ImageError(f"entry {shown(path)} has a negative size")
        size = size if found == "file" else 0
        content = Section(stream, size)
        mtime = _decimal(extra[b"mtime"]) if b"mtime" in extra else _number(header[136:148])
        target = extra.get(b"linkpath", header[157:257].split(b"\0", 1)[0])
        yield Entry(path, found, _number(header[100:108]) & 0o7777, mtime, target, size, content)
        try:
            content.skip()
        except ImageError as error:
            raise ImageError(f"entry {shown(path)}: {error}", hint=error.hint) from error
        padding = -size % _BLOCK
        if len(_at_most(stream, padding)) < padding and not digested:
            raise _cut_short()
        extra, headers = {}, 0


def _exactly(stream: Stream, size: int) -> bytes:
    data = _at_most(stream, size)
    if len(data) < size:
        raise _cut_short()
    return data


def _at_most(stream: Stream, size: int) -> bytes:
    """The next `size` bytes; fewer where it ends."""
    parts = []
    while size and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _cut_short() -> ImageError:
    return ImageError("the archive is cut short")


def _require_checksum(header: bytes) -> None:
    try:
        if sum(header[:148]) + sum(header[156:]) + 8 * 32 == _number(header[148:156]):
            return
    except ImageError:
        pass
    raise ImageError("it is no tar archive, or a broken one: a header's checksum is wrong")


def _number(field: bytes) -> int:
    """A number in octal digits, or (GNU) in binary when its first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big") - (
            1 << 8 * len(field) - 1 if field[0] & 0x40 else 0
        )
    digits = field.split(b"\0", 1)[0].strip()
    if not digits.isdigit() and digits:
        raise ImageError("a header holds something else than a number where one must be")
    try:
        return int(digits or b"0", 8)
    except ValueError:
        raise ImageError("a header holds something else than a number where one must be") from None


def _decimal(text: bytes) -> int:
    """A pax number, without its fraction."""
    whole = text.split(b".", 1)[0]
    if not whole.removeprefix(b"-").isdigit() or len(whole) > 20:
        raise ImageError(f"a pax header has {text[:40]!a} where a number must be")
    return int(whole)


def _records(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a pax header: ``LENGTH KEY=VALUE\\n``, the length that of all of it."""
    while body:
        digits, space, _ = body[:8].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record, body = body[:length], body[length:]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not space or not equals or len(record) != length or not record.endswith(b"\n"):
            raise ImageError("a pax header is broken")
        yield key, value
