"""Images that nobody would make: unpacked, or refused in a sentence; no traceback, no hang, nothing beside them."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sessionctl import images
from sessionctl.errors import ImageError
from sessionctl.images import Reference, library
from tests import archives
from tests.hanging import soon
from tests.test_fuzz import FUZZ


def _packed(content: bytes) -> bytes:
    """gzip without a time in it."""
    return gzip.compress(content, mtime=0)


# --- archives ----------------------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        *("bin", "bin/sh", "etc/passwd", "etc/group", "./a", "a/b/c", "dev/null", "..", "../x", "/abs", "", "/", "a/"),
        *(".wh.a", "a/.wh..wh..opq", ".wh.", "a/.wh...", "x" * 101, "x" * 300, "ä\udcff", "a\n\x1b"),
        *("manifest.json", "index.json"),
    ]
)
KINDS = st.sampled_from([b"0", b"1", b"2", b"3", b"5", b"6", b"7", b"S", b"V"])
CONTENTS = st.sampled_from([b"", b"x", b"root:x:0:0::/:/bin/sh\n", b"a:x:" + b"9" * 5000 + b":0\n", b"y" * 600])
PAX = st.dictionaries(
    st.sampled_from(["path", "linkpath", "size", "mtime", "uid", "GNU.sparse.name", "SCHILY.xattr.user.x", ""]),
    st.one_of(NAMES, st.integers(-(2**70), 2**70).map(str), st.text(max_size=9)),
    max_size=3,
)
FIELDS = {"mode": (100, 8), "size": (124, 12), "mtime": (136, 12)}
"""Where a header has its numbers, and how many bytes each."""
NUMBERS = st.one_of(
    st.integers(0, 0o7777777).map(lambda number: b"%011o\0" % number),
    st.sampled_from([b"\xff" * 12, b"\x80" + b"\0" * 10 + b"\7", b"\x80" + b"\xff" * 11, b"9" * 12, b" " * 12]),
    st.binary(min_size=12, max_size=12),
)


def _record(key: str, value: str) -> bytes:
    """A record of a pax header: its length counts its own digits."""
    text = f" {key}={value}\n".encode("utf-8", "surrogateescape")
    length = len(text) + 1
    while length != len(text) + len(str(length)):
        length = len(text) + len(str(length))
    return str(length).encode() + text


@st.composite
def entries(draw: st.DrawFn) -> bytes:
    """A header and what follows it, mostly with the right checksum."""
    if draw(st.integers(0, 3)) == 0:
        records = b"".join(_record(key, value) for key, value in draw(PAX).items())
        content = draw(st.sampled_from([records, records[:-1], b"0 a=b\n", b"99 a=b\n"]))
        info = archives.entry("pax", draw(st.sampled_from([b"x", b"g", b"L", b"K", b"X"])))
    else:
        content = draw(CONTENTS)
        info = archives.entry(draw(NAMES), draw(KINDS))
        info.linkname = draw(NAMES)
    info.size = len(content)
    *_, header = _blocks(info.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape"))
    field = draw(st.sampled_from([None, None, *FIELDS]))
    if field:
        at, width = FIELDS[field]
        header = header[:at] + draw(NUMBERS)[:width] + header[at + width :]
    if draw(st.integers(0, 9)):
        unsigned = header[:148] + b" " * 8 + header[156:]
        header = header[:148] + b"%06o\0 " % sum(unsigned) + header[156:]
    return header + content + bytes(-len(content) % 512)


def _blocks(content: bytes) -> list[bytes]:
    return [content[at : at + 512] for at in range(0, len(content), 512)]


ROOTS = st.tuples(st.lists(entries(), max_size=5), st.sampled_from([bytes(1024), b"", bytes(100)])).map(
    lambda parts: b"".join(parts[0]) + parts[1]
)

ACCOUNTS = st.lists(
    st.sampled_from(
        ["root:x:0:0::/:", "a:x:1:1::/:", "a\0b:x:3:3::/:", f"n:x:{'9' * 5000}:0::/:", "b:x:2:", ":x:5:5:", "c"]
    ),
    max_size=4,
).map(
    lambda lines: archives.tar(
        [archives.file(f"etc/{name}", "\n".join(lines).encode()) for name in ("passwd", "group")]
    )
)
"""Whole archives, of which only the content is odd."""

# --- documents ---------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(["\ud800", "a\0b", "9" * 5000]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=3,
)
USERS = st.sampled_from(
    ["root", "0:0", "a", "1:a", "3", "9", "0:b", "9:9", "٣", "a\0b", "9" * 5000, f"0:{'9' * 5000}"],
)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "Env": JSON | st.lists(st.text(max_size=5).map("A={}".format) | st.just("B=\ud800"), max_size=2),
        "User": st.one_of(USERS, USERS, JSON),
        "WorkingDir": JSON | st.just("/srv"),
    },
)


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """`document` with one place in it gone, there twice, or something else."""
    place = draw(st.sampled_from(list(_places(document))))
    how = draw(st.sampled_from(["gone", "twice", "else", "else"]))
    if not place:
        return draw(JSON)
    copy = json.loads(json.dumps(document))
    *above, last = place
    holder: Any = copy
    for key in above:
        holder = holder[key]
    if how == "gone":
        del holder[last]
    elif how == "twice" and isinstance(holder, list):
        holder.append(holder[last])
    else:
        holder[last] = draw(JSON)
    return copy


def _places(document: Any) -> Iterator[tuple[Any, ...]]:
    yield ()
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield from ((key, *below) for below in _places(value))


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, bytes]:
    """The files of an image layout, perhaps one that ``docker save`` wrote. At most one of its documents is changed,
    and whatever is a digest is the right one."""
    layers = draw(st.lists(st.one_of(ACCOUNTS, ACCOUNTS, ROOTS), min_size=1, max_size=2))
    packed = [_packed(each) if draw(st.booleans()) else each for each in layers]
    wrong = draw(st.sampled_from(["config", "manifest", "index", "saved", "", "", ""]))

    def written(name: str, document: Any) -> bytes:
        return json.dumps(draw(changed(document)) if name == wrong else document).encode()

    blobs = [written("config", json.loads(archives.config(layers, **draw(SETTINGS)))), *packed]
    manifest = {
        "config": {"digest": archives.digest(blobs[0])},
        "layers": [{"digest": archives.digest(each)} for each in packed],
    }
    blobs.append(written("manifest", manifest))
    names = [f"blobs/sha256/{archives.digest(each)[7:]}" for each in blobs]
    index = written("index", json.loads(archives.index({"demo": blobs[-1]})))
    files = {**dict(zip(names, blobs, strict=True)), "index.json": index}
    if wrong == "saved" or draw(st.booleans()):
        saved = {"Config": names[0], "RepoTags": ["demo:1"], "Layers": names[1:-1]}
        files["manifest.json"] = written("saved", draw(st.sampled_from([[saved], [saved, saved]])))
    return files


# --- both --------------------------------------------------------------------------------------


def _unpack(place: Path, reference: Reference) -> None:
    """Unpacks `reference` below `place`, or has it refused."""
    owner = (300_000, 300_000) if os.geteuid() == 0 else None
    try:
        with soon():
            digest = images.pin(reference).digest
            root = library.prepare(str(place / "state"), reference, digest, owner, lambda text: None)
    except ImageError as error:
        assert 0 < len(str(error)) < 1000, "what is said of it is as long as it likes"
    else:
        for text in (root.user, *root.env.values()):
            assert b"\0" not in os.fsencode(text), "no process can be given this"
    assert {each.name for each in place.iterdir()} <= {"image", "state"}, "something was written beside it"


@given(content=ROOTS | st.binary(max_size=700), packed=st.booleans())
@FUZZ
def test_an_archive_of_any_entries(tmp_path: Path, content: bytes, packed: bool) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as place:
        Path(place, "image").write_bytes(_packed(content) if packed else content)
        _unpack(Path(place), Reference("archive", f"{place}/image"))


@given(files=layouts(), saved=st.booleans())
@FUZZ
def test_an_image_of_any_documents(tmp_path: Path, files: dict[str, bytes], saved: bool) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as place:
        if saved:
            Path(place, "image").write_bytes(archives.tar([archives.file(*each) for each in files.items()]))
        else:
            archives.lay(Path(place, "image"), files)
        _unpack(Path(place), Reference("archive" if saved else "oci", f"{place}/image"))
