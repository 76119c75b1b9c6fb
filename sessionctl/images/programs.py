"""Programs of the host, as files: what they load, and how they are made to load it from a place of their own.

Reads ELF files and the linker's cache, and makes both. Nothing is run: `ldd` would run what it looks at. This
module may not write anything.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sessionctl.errors import ImageError

CACHE = b"/etc/ld.so.cache"
"""Where glibc's loader looks for the directory of each library."""
_MAGIC = b"glibc-ld.so.cache1.1"
_MACHINES = {62: ("x86_64", 0x0303), 183: ("aarch64", 0x0A03)}
"""Of each number in ELF headers the machine, and what its libraries' entries in the cache say."""
_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3
_NEEDED, _STRINGS, _RPATH, _RUNPATH = 1, 5, 15, 29
_LIMIT = 1 << 20
"""Bytes of headers and of a table of names; those of the largest programs have some 10 KiB."""


class Program(NamedTuple):
    """What an ELF file says that it needs."""

    machine: str
    loader: str
    """The absolute path of its loader; empty when it is static, or a library."""
    loader_at: tuple[int, int]
    """Where in the file that is: offset and size."""
    needed: tuple[str, ...]
    runpath: tuple[str, ...]


def load(path: str) -> Program | None:
    """The program or library at `path`; None when it is no ELF file of 64 bits. `ImageError` for a broken one."""
    with open(path, "rb") as file:
        header = file.read(64)
        if header[:6] != b"\x7fELF\x02\x01" or len(header) < 64:
            return None
        try:
            return _parse(file.fileno(), header, path)
        except (struct.error, ValueError, IndexError, UnicodeDecodeError) as error:
            raise ImageError(f"{path} is a broken program: {error}") from error


def _parse(fd: int, header: bytes, path: str) -> Program:
    (number,) = struct.unpack_from("<H", header, 18)
    (offset,) = struct.unpack_from("<Q", header, 32)
    size, count = struct.unpack_from("<HH", header, 54)
    machine = _MACHINES.get(number, ("", 0))[0]
    if machine != os.uname().machine:
        raise ImageError(f"{path} is no program of this machine ({os.uname().machine})")
    table = os.pread(fd, min(size * count, _LIMIT), offset)
    # Of each segment: type, offset in the file, address, size in the file.
    segments = [struct.unpack_from("<I4xQQ8xQ", table, size * n) for n in range(count)]
    at = next(((start, length) for kind, start, _, length in segments if kind == _INTERPRETER), (0, 0))
    loader = os.pread(fd, min(at[1], 4096), at[0]).split(b"\0", 1)[0].decode()
    dynamic = next(
        (os.pread(fd, min(length, _LIMIT), start) for kind, start, _, length in segments if kind == _DYNAMIC), b""
    )
    tags = list(struct.iter_unpack("<qQ", dynamic[: len(dynamic) // 16 * 16]))
    address = next((value for tag, value in tags if tag == _STRINGS), None)
    names = b""
    for kind, start, where, length in segments if address is not None else ():
        if kind == _LOAD and where <= address < where + length:
            names = os.pread(fd, min(length - (address - where), 64 << 20), start + address - where)

    def said(*wanted: int) -> tuple[str, ...]:
        return tuple(names[value : names.index(b"\0", value)].decode() for tag, value in tags if tag in wanted)

    origin = os.path.dirname(path)
    runpath = [part for text in said(_RPATH, _RUNPATH) for part in text.split(":") if part]
    places = (re.sub(r"\$\{ORIGIN\}|\$ORIGIN\b", origin.replace("\\", r"\\"), part) for part in runpath)
    return Program(machine, loader, at, said(_NEEDED), tuple(os.path.normpath(place) for place in places))


def libraries(path: str, known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each library that the program at `path` loads, as name and path; `known` is the host's (`host_libraries`).

    `ImageError` when one is not there. The loader is not among them.
    """
    seen: set[str] = set()
    pending = [path]
    while pending:
        program = load(pending.pop())
        for name in program.needed if program is not None else ():
            if name in seen:
                continue
            seen.add(name)
            assert program is not None
            found = [f"{place}/{name}" for place in program.runpath if os.path.isfile(f"{place}/{name}")]
            found += [known[name]] if name in known else []
            if not found:
                raise ImageError(f"{path} needs {name}, which is not on this host")
            yield name, os.path.realpath(found[0])
            pending.append(os.path.realpath(found[0]))


def host_libraries(cache: str = os.fsdecode(CACHE)) -> dict[str, str]:
    """The host's libraries for this machine by name, as its linker's cache lists them. `ImageError` without one."""
    try:
        with open(cache, "rb") as file:
            content = file.read(64 << 20)
        start = content.index(_MAGIC)  # after the entries of an older form, where there are some
        (count,) = struct.unpack_from("<I", content, start + 20)
        entries = [struct.unpack_from("<iIIIQ", content, start + 48 + 24 * n) for n in range(count)]
    except (OSError, ValueError, struct.error):
        why = "its libc is not glibc, or ldconfig was not run"
        raise ImageError(f"programs of this host cannot be brought into an image: {why} ({cache})") from None

    def text(offset: int) -> str:
        return os.fsdecode(content[start + offset : content.index(b"\0", start + offset)])

    found: dict[str, str] = {}
    for flags, key, value, _, capabilities in entries:
        # Those for some processors only have others beside them, for all.
        if flags == _flags() and not capabilities:
            found.setdefault(text(key), text(value))
    return found


def cache_of(paths: Mapping[str, str]) -> bytes:
    """A linker's cache that says where the libraries are: `paths` by name."""
    names = sorted(paths, key=_order, reverse=True)
    strings, offsets, start = b"", [], 48 + 24 * len(names)
    for name in names:
        for word in (name, paths[name]):
            offsets.append(start + len(strings))
            strings += os.fsencode(word) + b"\0"
    entries = [
        struct.pack("<iIIIQ", _flags(), key, value, 0, 0)
        for key, value in zip(offsets[::2], offsets[1::2], strict=True)
    ]
    return struct.pack("<20sIIB3xI12x", _MAGIC, len(names), len(strings), 2, 0) + b"".join(entries) + strings


def _order(name: str) -> list[tuple[int, int]]:
    """As the loader compares names when it searches: numbers in them as numbers, and above all letters."""
    return [(1, int(part)) if part.isdigit() else (0, ord(part)) for part in re.findall(r"\d+|\D", name, re.ASCII)]


def _flags() -> int:
    return next(flags for machine, flags in _MACHINES.values() if machine == os.uname().machine)


def with_loader(content: bytes, program: Program, loader: str) -> bytes:
    """`program`, whose bytes are `content`, loaded by `loader`."""
    at, size = program.loader_at
    return _exchanged(content, at, size, loader.encode(), program.loader)


def with_cache(content: bytes, cache: str, name: str) -> bytes:
    """The loader whose bytes are `content`, looking into `cache`. `ImageError` when it is not glibc's."""
    at = content.find(CACHE + b"\0")
    if at < 0 or content.find(CACHE + b"\0", at + 1) >= 0:
        raise ImageError(f"{name} is not the loader of glibc, and only that can be brought into an image")
    return _exchanged(content, at, len(CACHE) + 1, cache.encode(), name)


def _exchanged(content: bytes, at: int, size: int, text: bytes, what: str) -> bytes:
    if len(text) >= size:
        raise ImageError(f"{what} has no room for another path in it")
    return content[:at] + text + bytes(size - len(text)) + content[at + size :]
