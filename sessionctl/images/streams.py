"""Bytes on their way out of an image: decompressed, hashed and counted, a piece at a time.

A stream is whatever has ``read(n)``: at most n bytes, none at its end. Nothing here holds more than one
piece, however large what it comes from claims or turns out to be.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Protocol, cast

from sessionctl.errors import ImageError

PIECE = 1 << 20
"""Bytes that are read at a time."""

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x04\x22\x4d\x18": "lz4"}


class Stream(Protocol):
    """Bytes to be read once."""

    def read(self, size: int, /) -> bytes: ...


class Hashed:
    """`source`, with the SHA-256 of what was read of it."""

    def __init__(self, source: Stream, spent: Callable[[int], None] = lambda size: None) -> None:
        self._source, self._hash, self._spent = source, sha256(), spent

    def read(self, size: int = PIECE, /) -> bytes:
        data = self._source.read(size)
        self._spent(len(data))
        self._hash.update(data)
        return data

    def finish(self) -> str:
        """Reads what is left; ``sha256:`` and the digest of all of it."""
        while self.read():
            pass
        return f"sha256:{self._hash.hexdigest()}"


class Section:
    """The next `size` bytes of `source`; `ImageError` when there are fewer."""

    def __init__(self, source: Stream, size: int) -> None:
        self._source, self.left = source, size

    def read(self, size: int = PIECE, /) -> bytes:
        data = self._source.read(min(size, self.left))
        if self.left and size and not data:
            raise ImageError("the archive is cut short")
        self.left -= len(data)
        return data

    def skip(self) -> None:
        """Reads what is left of it."""
        while self.left:
            self.read()


class _Rejoined:
    def __init__(self, head: bytes, rest: Stream) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int = PIECE, /) -> bytes:
        if not self._head:
            return self._rest.read(size)
        data, self._head = self._head[:size], self._head[size:]
        return data


class _Checked:
    """What a decompressor gives, its errors in our words."""

    def __init__(self, source: Stream, name: str, errors: tuple[type[BaseException], ...]) -> None:
        self._source, self._name, self._errors = source, name, errors

    def read(self, size: int = PIECE, /) -> bytes:
        try:
            return self._source.read(size)
        except EOFError:
            raise ImageError(f"the {self._name} stream is cut short") from None
        except self._errors as error:
            raise ImageError(f"the {self._name} stream is broken: {error}") from None


def decompressed(source: Stream) -> Stream:
    """What `source` holds: it may be gzip or zstd. `ImageError` for other compressions."""
    head = b""
    while len(head) < 6 and (more := source.read(6 - len(head))):
        head += more
    whole = _Rejoined(head, source)
    if head.startswith(_GZIP):
        import gzip

        opened = gzip.GzipFile(fileobj=cast("Any", whole), mode="rb")
        return _Checked(opened, "gzip", (OSError, zlib.error))
    if head.startswith(_ZSTD):
        zstd = _zstd()
        return _Checked(zstd.ZstdFile(whole, "rb"), "zstd", (OSError, zstd.ZstdError))
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise ImageError(f"it is compressed with {name}, which is not supported", hint="use gzip or zstd")
    return whole


def _zstd() -> Any:
    from importlib import import_module

    for name in ("compression.zstd", "backports.zstd"):  # the first is there from Python 3.14 on
        try:
            return import_module(name)
        except ImportError:
            continue
    raise ImageError("it is compressed with zstd, which needs a library", hint="pip install 'sessionctl[images]'")
