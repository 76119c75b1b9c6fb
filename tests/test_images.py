"""Images: what is unpacked is what the archive says, and nothing that it must not say gets anywhere."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import stat
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessionctl import beneath, images
from sessionctl.errors import ImageError
from sessionctl.images import Reference, Root, layer, library, streams, tarball
from tests import archives
from tests.archives import directory, entry, file, tar

ROOT = os.geteuid() == 0
OWNER = (300_000, 300_000) if ROOT else None


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory, with nothing else in what holds it."""
    place = tmp_path / "outside" / "state"
    place.mkdir(parents=True)
    return place


def kept(tmp_path: Path, content: bytes) -> Reference:
    (tmp_path / "image.tar").write_bytes(content)
    return Reference("archive", str(tmp_path / "image.tar"))


def prepare(state: Path, reference: Reference) -> Root:
    return library.prepare(str(state), reference, images.pin(reference).digest, OWNER, lambda text: None)


def layers(state: Path, root: Root) -> list[str]:
    """The directories of `root`, top first."""
    return [str(state / path) for path in reversed(root.lower)]


def tree(state: Path, root: Root) -> Path:
    (only,) = layers(state, root)
    return Path(only)


def refused(tmp_path: Path, state: Path, reference: Reference) -> str:
    """Why an image is refused; of it nothing may be left, and nothing may be anywhere else."""
    before = everything(tmp_path)
    with pytest.raises(ImageError) as caught:
        prepare(state, reference)
    assert everything(tmp_path) - before <= {f"{state}/images", f"{state}/images/layers"}
    assert str(caught.value).startswith(f"{reference}: ")
    return str(caught.value).removeprefix(f"{reference}: ")


def everything(place: Path) -> set[str]:
    return {f"{above}/{name}" for above, names, files in os.walk(place) for name in (*names, *files)}


# --- what is meant -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rootfs:d", ("rootfs", "d", "")),
        ("rootfs:a:b", ("rootfs", "a:b", "")),
        ("archive:/x.tar", ("archive", "/x.tar", "")),
        ("oci:l", ("oci", "l", "")),
        ("oci:l:v1", ("oci", "l", "v1")),
        ("oci:a:b/l", ("oci", "a:b/l", "")),
        ("oci:a:b/l:v1", ("oci", "a:b/l", "v1")),
        ("oci:/a/b:c/", ("oci", "/a/b:c/", "")),
        ("oci:l:", None),
        ("oci::v1", None),
        ("rootfs:", None),
        ("host", None),
        ("debian:12", None),
    ],
)
def test_references(text: str, expected: tuple[str, str, str] | None) -> None:
    assert images.parse(text) == (None if expected is None else Reference(*expected))


def test_a_layout_with_a_colon_in_its_name_is_not_taken_for_a_tag() -> None:
    reference = Reference("oci", "/a/b:c")
    assert images.parse(str(reference)) == reference._replace(path="/a/b:c/")


def test_what_is_no_image_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for reference, why in (
        (Reference("rootfs", str(tmp_path / "empty")), "has neither bin nor usr"),
        (Reference("rootfs", str(tmp_path / "missing")), "No such file"),
        (Reference("archive", str(tmp_path / "empty")), "is not a regular file"),
        (Reference("archive", "/dev/null"), "is not a regular file"),
        (Reference("oci", str(tmp_path / "empty")), "index.json of the layout cannot be read"),
    ):
        with pytest.raises(ImageError, match=why):
            images.pin(reference)


def test_a_rootfs_is_another_when_its_directory_changes(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    reference = Reference("rootfs", str(tmp_path))
    before = images.pin(reference)
    assert images.pin(reference) == before
    os.utime(tmp_path, ns=(0, 1))
    assert images.pin(reference).digest != before.digest


# --- one layer ---------------------------------------------------------------------------------


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_root_is_as_its_archive_says(tmp_path: Path, state: Path, format: int, pack: type[bytes]) -> None:
    long = "/".join(["long" * 20] * 2)
    members: list[archives.Member] = [
        directory("./"),
        directory("./tmp", 0o1777),
        file("./usr/bin/su", b"#!su", 0o4755),
        file(f"{long}/f", b"x" * 100_000, 0o000),
        entry("usr/lib", tarfile.SYMTYPE, linkname="/../../nowhere"),
        entry("usr/bin/sudo", tarfile.LNKTYPE, linkname="./usr/bin/su"),
        entry("run/fifo", tarfile.FIFOTYPE, mode=0o600),
        entry("dev/sda", tarfile.BLKTYPE, devmajor=8),
        file("été", b"e"),
        file("twice", b"1"),
        file("twice", b"2"),
    ]
    found = tree(state, prepare(state, kept(tmp_path, pack(tar(members, format)))))

    assert (found / "usr/bin/su").read_bytes() == b"#!su"
    assert stat.filemode((found / "usr/bin/su").stat().st_mode) == "-rwxr-xr-x"
    assert (found / "usr/bin/su").samefile(found / "usr/bin/sudo")
    assert (found / "usr/bin/su").stat().st_mtime == 1_000_000_000
    assert (found / long / "f").stat().st_size == 100_000
    assert stat.S_IMODE((found / long / "f").stat().st_mode) == 0o400
    assert stat.S_IMODE((found / "tmp").stat().st_mode) == 0o1777
    assert os.readlink(found / "usr/lib") == "/../../nowhere"
    assert stat.S_ISFIFO((found / "run/fifo").stat().st_mode)
    assert (found / "twice").read_bytes() == b"2" and (found / "été").read_bytes() == b"e"
    assert not (found / "dev").exists()
    owners = {(os.lstat(path).st_uid, os.lstat(path).st_gid) for path in everything(found)}
    assert owners == {OWNER or (os.geteuid(), os.getegid())}


def test_unpacked_once(tmp_path: Path, state: Path) -> None:
    reference = kept(tmp_path, tar([file("bin/a")]))
    first = tree(state, prepare(state, reference)).stat()
    again = tree(state, prepare(state, reference)).stat()
    assert (first.st_ino, first.st_ctime_ns) == (again.st_ino, again.st_ctime_ns)


def test_progress_is_said_while_it_goes_on(tmp_path: Path, state: Path) -> None:
    reference = kept(tmp_path, tar([file("bin/a", b"x")]))
    said: list[str] = []
    library.prepare(str(state), reference, images.pin(reference).digest, OWNER, said.append)
    assert said and said[0].startswith("image.tar is ")


SPARSE = b"S"
HOSTILE: dict[str, tuple[list[archives.Member], str]] = {
    "dots": ([file("a/../../x")], "entry 'a/../../x': 'a/../../x' leads out of the image"),
    "absolute": ([file("/etc/x")], "entry '/etc/x': '/etc/x' is an absolute path"),
    "below a link": (
        [entry("a", tarfile.SYMTYPE, linkname="/tmp"), file("a/x")],
        "entry 'a/x': lies below 'a', which is a link or a file",
    ),
    "below a file": ([file("a"), file("a/x")], "entry 'a/x': lies below 'a', which is a link or a file"),
    "a link out": (
        [entry("a", tarfile.LNKTYPE, linkname="../../../etc/passwd")],
        "entry 'a': '../../../etc/passwd' leads out of the image",
    ),
    "a link to the host": ([entry("a", tarfile.LNKTYPE, linkname="/etc/passwd")], "entry 'a': '/etc/passwd' is an abs"),
    "a link through a link": (
        [entry("l", tarfile.SYMTYPE, linkname="/etc"), entry("a", tarfile.LNKTYPE, linkname="l/passwd")],
        "entry 'a': is a hard link to 'l/passwd', which is no file of its layer",
    ),
    "a link to nothing": ([entry("a", tarfile.LNKTYPE, linkname="b")], "entry 'a': is a hard link to 'b', which is no"),
    "a link to a directory": (
        [directory("d"), entry("a", tarfile.LNKTYPE, linkname="d")],
        "entry 'a': is a hard link to 'd', which is no",
    ),
    "a device": ([entry("sda", tarfile.BLKTYPE, devmajor=8)], "entry 'sda': is a device"),
    "a forged whiteout": ([entry("a", tarfile.CHRTYPE)], "entry 'a': is a device"),
    "a directory replaced": ([file("d/x"), file("d")], "entry 'd': stands where an earlier entry made a directory"),
    "a root that is a file": ([file(".")], "entry '.': the root must be a directory"),
    "a whiteout of nothing": ([file("a/.wh...")], "entry 'a/.wh...': is a whiteout of nothing"),
    "deep": ([file("d/" * 200 + "x")], "lies in more than 128 directories"),
    "long": ([file("d" * 300)], "cannot be made: File name too long"),
    "an unknown type": ([entry("v", b"V")], "entry 'v' is of the unknown type b'V'"),
    "sparse": ([entry("s", SPARSE)], "entry 's' is a sparse file"),
    "pax sparse": (
        [entry("s", tarfile.REGTYPE, pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})],
        "entry 's' is a sparse file",
    ),
    "escapes": ([file("/\x1b]0;x\x07")], r"entry '/\x1b]0;x\x07': "),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_entries_are_named_and_refused(tmp_path: Path, state: Path, name: str) -> None:
    members, why = HOSTILE[name]
    # What comes before it is fine, and must be gone all the same.
    assert why in refused(tmp_path, state, kept(tmp_path, tar([file("bin/a", b"a"), *members])))


def test_a_header_may_claim_what_it_likes(tmp_path: Path, state: Path) -> None:
    bomb = entry("bomb", tarfile.REGTYPE, size=1 << 62)
    why = refused(tmp_path, state, kept(tmp_path, bomb.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    assert why == f"entry 'bomb': the image has more than {64 << 30:,} bytes"
    header = entry("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=1 << 40)
    assert "has 1099511627776 bytes" in refused(
        tmp_path, state, kept(tmp_path, header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    )


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_header_before_an_entry_has_no_negative_size(
    tmp_path: Path, state: Path, pack: Callable[[bytes], bytes]
) -> None:
    """Reading that many bytes would be reading all there are, at once."""
    header = entry("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=-5).tobuf(tarfile.GNU_FORMAT)
    why = refused(tmp_path, state, kept(tmp_path, pack(header + bytes(1 << 20))))
    assert why == "the header before entry '././@LongLink' has -5 bytes"


def test_extended_attributes_are_taken_off(tmp_path: Path, state: Path) -> None:
    forged = {"SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.security.capability": "x"}
    members: list[archives.Member]
    members = [entry("etc", tarfile.DIRTYPE, mode=0o755, pax_headers=forged), file("bin/a", pax_headers=forged)]
    found = tree(state, prepare(state, kept(tmp_path, tar(members))))
    assert os.listxattr(found / "etc") == [] == os.listxattr(found / "bin/a")


@pytest.mark.parametrize(
    ("budget", "why"),
    [
        (layer.Budget(entries=9), "entry 'd/9': the image has more than 9 files and directories"),
        (layer.Budget(size=4096), "entry 'd/3': the image has more than 4,096 bytes"),
    ],
)
def test_entries_and_bytes_are_counted(tmp_path: Path, budget: layer.Budget, why: str) -> None:
    members = [file(f"d/{number}", b"x" * 600) for number in range(1, 20)]
    source = streams.Hashed(io.BytesIO(tar(members)), budget.take)
    with pytest.raises(ImageError) as caught:
        layer.unpack(tarball.entries(source), str(tmp_path), OWNER, budget)
    assert str(caught.value) == why


def test_parents_that_no_entry_names_are_counted_too(tmp_path: Path) -> None:
    members = [file("/".join(f"{n}{deep}" for deep in range(50)) + "/x") for n in range(3)]
    with pytest.raises(ImageError, match="more than 120 files"):
        layer.unpack(tarball.entries(io.BytesIO(tar(members))), str(tmp_path), OWNER, layer.Budget(entries=120))


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_cut_short_anywhere_it_is_refused(tmp_path: Path, state: Path, pack: type[bytes]) -> None:
    whole = pack(tar([file("bin/a", os.urandom(700)), file("bin/b", b"b")])[: 6 * 512])
    for size in range(0, len(whole) - (512 if pack is bytes else 0), 97):
        assert "cut short" in refused(tmp_path, state, kept(tmp_path, whole[:size]))


@pytest.mark.parametrize("padding", [0, 100, 511])
def test_a_layer_whose_digest_is_known_may_end_without_a_mark(tmp_path: Path, state: Path, padding: int) -> None:
    """As ``umoci insert`` writes them: nothing after the last content, or not even what fills its last block."""
    whole = tar([file("bin/a", b"a" * 512), file("bin/b", b"b")])[: 4 * 512]
    found = tree(state, prepare(state, kept(tmp_path, archives.docker([whole[:-511] + bytes(padding)]))))
    assert (found / "bin/b").read_bytes() == b"b"


@pytest.mark.parametrize("cut", [1, 511, 512 + 511, 1500])
def test_a_layer_that_ends_within_an_entry_is_cut_short(tmp_path: Path, state: Path, cut: int) -> None:
    whole = tar([file("bin/a", b"a" * 512), file("bin/b", b"b" * 512)])[: 4 * 512]
    assert "cut short" in refused(tmp_path, state, kept(tmp_path, archives.docker([whole[:-cut]])))


def test_any_bytes_are_an_image_or_an_error(tmp_path: Path, state: Path) -> None:
    """Archives with a few bytes changed: nothing but `ImageError` may come of them, and nothing may get out."""
    chance = random.Random(3)
    layers = [tar([directory("bin"), file("bin/a", b"a"), entry("l", tarfile.SYMTYPE, linkname="a")])]
    samples = [archives.docker(layers), tar([file(p, c) for p, c in archives.layout(layers).items()]), *layers]
    outcomes = set()
    for number in range(400):
        sample = bytearray(samples[number % 3])
        for _ in range(chance.randint(1, 4)):
            sample[chance.randrange(len(sample))] = chance.choice((0, 0xFF, chance.randrange(256)))
        try:
            prepare(state, kept(tmp_path, bytes(sample)))
            outcomes.add("made")
        except ImageError:
            outcomes.add("refused")
        assert set(os.listdir(tmp_path)) == {"image.tar", "outside"} and os.listdir(tmp_path / "outside") == ["state"]
        assert not [name for name in os.listdir(state / "images") if name.startswith(".sessionctl-")]
    assert outcomes == {"made", "refused"}


def test_compressions_that_are_not_supported_are_named(tmp_path: Path, state: Path) -> None:
    assert "compressed with xz" in refused(tmp_path, state, kept(tmp_path, b"\xfd7zXZ\0" + bytes(600)))


def test_zstd(tmp_path: Path, state: Path) -> None:
    zstd = pytest.importorskip("backports.zstd", reason="zstd needs Python 3.14 or sessionctl[images]")
    packed = zstd.compress(tar([file("bin/a", b"a" * 5_000_000)]))
    found = tree(state, prepare(state, kept(tmp_path, packed)))
    assert (found / "bin/a").stat().st_size == 5_000_000
    assert "cut short" in refused(tmp_path, state, kept(tmp_path, packed[: len(packed) // 2]))


def test_without_the_library_for_zstd_the_remedy_is_named(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImageError) as caught:
        prepare(state, kept(tmp_path, b"\x28\xb5\x2f\xfd" + bytes(600)))
    assert caught.value.hint == "pip install 'sessionctl[images]'"


# --- several layers ----------------------------------------------------------------------------

BOTTOM = tar([file("gone", b"1"), file("dir/a", b"1"), file("again/a", b"1"), file("opaque/a", b"1"), file("kept/a")])
TOP = tar(
    [
        file(".wh.gone"),
        file("dir/.wh.a"),
        file("again/b", b"2"),
        file(".wh.again"),
        file("opaque/.wh..wh..opq"),
        file("opaque/b", b"2"),
        file("kept/.wh..wh.plnk"),
    ]
)
MERGED = {
    "gone": None,
    "dir": "dir",
    "dir/a": None,
    "again/a": None,
    "again/b": "file",
    "opaque/a": None,
    "opaque/b": "file",
    "kept/a": "file",
    "kept/.wh..wh.plnk": None,
}


@pytest.mark.parametrize("form", ["docker", "oci", "oci archive", "gzip of docker"])
def test_layers_hide_what_they_say(tmp_path: Path, state: Path, form: str) -> None:
    parts = [BOTTOM, TOP]
    settings: dict[str, Any] = {"Env": ["A=1", "PATH=/x"], "User": "7:8", "WorkingDir": "/srv"}
    if form == "oci":
        place = archives.lay(tmp_path / "outside/layout", archives.layout(parts, **settings))
        reference = Reference("oci", str(place))
    else:
        content = archives.docker(parts, **settings)
        if form == "oci archive":
            content = tar([file(path, body) for path, body in archives.layout(parts, **settings).items()])
        reference = kept(tmp_path, gzip.compress(content) if form == "gzip of docker" else content)
    root = prepare(state, reference)
    assert {path: beneath.kind_layered(layers(state, root), path) for path in MERGED} == MERGED
    assert (dict(root.env), root.uid, root.gid) == ({"A": "1", "PATH": "/x"}, 7, 8)
    assert library.listing(str(state))[0].config.directory == "/srv"


def test_a_whiteout_before_what_is_made_anew_hides_the_old_content(tmp_path: Path, state: Path) -> None:
    tops: list[list[archives.Member]]
    tops = [[file(".wh.dir"), directory("dir"), file("dir/b")], [file(".wh.dir"), file("dir/b")]]
    for top in tops:
        root = prepare(state, kept(tmp_path, archives.docker([BOTTOM, tar(top)])))
        assert beneath.list_layered(layers(state, root), "dir") == ["b"]


def test_an_opaque_root_hides_all_layers_below(tmp_path: Path, state: Path) -> None:
    root = prepare(state, kept(tmp_path, archives.docker([BOTTOM, tar([file(".wh..wh..opq"), file("new")])])))
    assert len(root.lower) == 1 and beneath.kind_layered(layers(state, root), "new") == "file"


def test_layers_are_shared_however_they_are_packed_and_stacked_once(tmp_path: Path, state: Path) -> None:
    place = archives.lay(tmp_path / "outside/layout", archives.layout([BOTTOM, TOP]))
    first = prepare(state, Reference("oci", str(place), "demo"))
    again = prepare(state, kept(tmp_path, archives.docker([BOTTOM, TOP, BOTTOM])))
    assert set(again.lower) == set(first.lower) and again.lower == tuple(reversed(first.lower))
    assert len(os.listdir(state / "images/layers")) == 2


def test_an_image_names_its_user_in_its_own_passwd(tmp_path: Path, state: Path) -> None:
    etc = tar([file("etc/passwd", b"bad\nweb:x:33:34::/:/bin/sh\nweb:x:99:99::/:\n"), file("etc/group", b"g:x:5:\n")])
    for user, expected in {
        "web": ("web", 33, 34),
        "web:g": ("web", 33, 5),
        "33": ("web", 33, 34),
        "": ("", 0, 0),
    }.items():
        root = prepare(state, kept(tmp_path, archives.docker([etc], User=user)))
        assert (root.user, root.uid, root.gid) == expected
    for user in ("who", "web:who", "99999999999"):
        with pytest.raises(ImageError, match=r"its (user|group)"):
            prepare(state, kept(tmp_path, archives.docker([etc], User=user)))


def test_accounts_that_none_can_have_are_passed_over(tmp_path: Path, state: Path) -> None:
    long = b"9" * 5000
    passwd = b"a:x:%b:0::/:\nb:x:0:%b::/:\nc\0d:x:7:7::/:\nweb:x:33:34::/:\n" % (long, long)
    etc = tar([file("etc/passwd", passwd), file("etc/group", b"g:x:%b:\n" % long)])
    assert prepare(state, kept(tmp_path, archives.docker([etc], User="web"))).uid == 33
    assert prepare(state, kept(tmp_path, archives.docker([etc], User="7"))).user == ""
    for user in ("a", "b", "web:g", long.decode(), f"0:{long.decode()}"):
        with pytest.raises(ImageError, match=r"its (user|group) '[a-z9']+ is not in its") as caught:
            prepare(state, kept(tmp_path, archives.docker([etc], User=user)))
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"Env": ["A=\ud800"]}, r"the config has 'A=\ud800' for a variable"),
        ({"Env": ["A=\0"]}, r"the config has 'A=\x00' for a variable"),
        ({"User": "a\0b"}, r"the config has 'a\x00b' for a user"),
        ({"User": "\x1b[2J"}, r"the config has '\x1b[2J' for a user"),
        ({"User": "\ud800"}, r"the config has '\ud800' for a user"),
    ],
)
def test_what_no_process_can_be_given_is_refused(
    tmp_path: Path, state: Path, settings: dict[str, Any], why: str
) -> None:
    assert refused(tmp_path, state, kept(tmp_path, archives.docker([BOTTOM], **settings))) == why


def _altered(blobs: archives.Blobs, old: bytes, new: bytes) -> archives.Blobs:
    assert any(old in body for body in blobs.values())
    return {path: body.replace(old, new) for path, body in blobs.items()}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda blobs: {**blobs, "index.json": b"{"}, "index.json is not JSON"),
        (lambda blobs: {**blobs, "index.json": b"[" * 100_000}, "index.json is not JSON"),
        (lambda blobs: {**blobs, "index.json": b"[]"}, "index.json is not a JSON object"),
        (
            lambda blobs: {**blobs, "index.json": b'{"manifests": 1}'},
            "index.json has no manifests, or",
        ),
        (lambda blobs: {**blobs, "index.json": b'{"manifests": [{"digest": "sha256:../../x"}]}'}, "for a digest"),
        (lambda blobs: {**blobs, "index.json": b'{"manifests": []}'}, "its index has no image"),
        (
            lambda blobs: _altered(blobs, b'"schemaVersion": 2, "config"', b'"schemaVersion": 3, "config"'),
            "the manifest has",
        ),
        (lambda blobs: _altered(blobs, b'"type": "layers"', b'"type": "layerz"'), "the config has another digest"),
        (lambda blobs: _altered(blobs, _packed(TOP), _packed(BOTTOM)), "not what the config says: its digest differs"),
        (
            lambda blobs: _altered(blobs, _packed(TOP), _packed(TOP, 0)),
            "not what the manifest says: its digest differs",
        ),
    ],
)
def test_a_layout_that_is_not_what_its_digests_say_is_refused(
    tmp_path: Path, state: Path, change: Callable[[archives.Blobs], archives.Blobs], why: str
) -> None:
    place = archives.lay(tmp_path / "outside/layout", change(archives.layout([TOP], _packed)))
    reference = Reference("oci", str(place))
    with pytest.raises(ImageError) as caught:
        prepare(state, reference)
    assert why in str(caught.value)
    assert not (state / "images").exists() or os.listdir(state / "images") == ["layers"]
    assert not (state / "images").exists() or os.listdir(state / "images/layers") == []


def _packed(data: bytes, level: int = 9) -> bytes:
    """gzip without a time in it."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=level, mtime=0) as file:
        file.write(data)
    return out.getvalue()


def test_a_layer_that_is_not_what_the_config_says_is_refused(tmp_path: Path, state: Path) -> None:
    whole = archives.docker([BOTTOM])
    forged = whole.replace(b"kept/a", b"KEPT/a")
    assert forged != whole
    why = refused(tmp_path, state, kept(tmp_path, _resummed(forged)))
    assert why.startswith("layer sha256:") and why.endswith("its digest differs")


def _resummed(archive: bytes) -> bytes:
    """A docker archive whose only layer was altered, with that layer's own checksums mended."""
    blocks = bytearray(archive)
    at = blocks.index(b"KEPT/a")
    header = blocks[at : at + 512]
    header[148:156] = b" " * 8
    blocks[at + 148 : at + 156] = b"%06o\0 " % sum(header)
    return bytes(blocks)


def test_the_tag_chooses(tmp_path: Path, state: Path) -> None:
    one, two = archives.layout([BOTTOM]), archives.layout([TOP])
    manifests = {"v1": _manifest(one), "v2": _manifest(two)}
    place = archives.lay(tmp_path / "outside/layout", {**one, **two, "index.json": archives.index(manifests)})
    assert images.pin(Reference("oci", str(place), "v2")).digest == archives.digest(manifests["v2"])
    with pytest.raises(ImageError, match=r"2 images, tagged 'v1', 'v2'") as caught:
        images.pin(Reference("oci", str(place)))
    assert caught.value.hint == "say oci:LAYOUT:TAG"
    with pytest.raises(ImageError, match=r"no image with the tag 'v3'"):
        images.pin(Reference("oci", str(place), "v3"))


def test_an_index_of_several_machines_gives_that_of_this_one(tmp_path: Path) -> None:
    one, two = archives.layout([BOTTOM]), archives.layout([TOP])
    here = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    inner = json.dumps(
        {
            "manifests": [
                {"digest": archives.digest(_manifest(one)), "platform": {"os": "linux", "architecture": "s390x"}},
                {"digest": archives.digest(_manifest(two)), "platform": {"os": "linux", "architecture": here}},
            ]
        }
    ).encode()
    outer = archives.index({"v1": inner}, mediaType="application/vnd.oci.image.index.v1+json")
    blob = {f"blobs/sha256/{archives.digest(inner)[7:]}": inner}
    place = archives.lay(tmp_path, {**one, **two, **blob, "index.json": outer})
    assert images.pin(Reference("oci", str(place), "v1")).digest == archives.digest(_manifest(two))


def _manifest(blobs: archives.Blobs) -> bytes:
    (found,) = [body for body in blobs.values() if body.startswith(b'{"schemaVersion": 2, "config"')]
    return found


def test_links_in_a_layout_are_not_followed(tmp_path: Path, state: Path) -> None:
    blobs = archives.layout([BOTTOM])
    place = archives.lay(tmp_path / "outside/layout", blobs)
    (place / "index.json").rename(tmp_path / "index.json")
    (place / "index.json").symlink_to(tmp_path / "index.json")
    with pytest.raises(ImageError, match=r"index.json of the layout cannot be read"):
        prepare(state, Reference("oci", str(place)))


def test_a_docker_archive_of_several_images_is_refused(tmp_path: Path, state: Path) -> None:
    manifest = b'[{"RepoTags": ["a:1"]}, {"RepoTags": ["b:1"]}]'
    assert "holds 2 images: ['a:1', 'b:1']" in refused(
        tmp_path, state, kept(tmp_path, tar([file("manifest.json", manifest)]))
    )


@pytest.mark.parametrize("tags", [5, "a:1", {"a": 1}, [], None])
def test_tags_that_are_no_list_are_none(tmp_path: Path, state: Path, tags: object) -> None:
    manifest = json.dumps([{"RepoTags": tags}, {}]).encode()
    assert "holds 2 images: ['(none)', '(none)']" in refused(
        tmp_path, state, kept(tmp_path, tar([file("manifest.json", manifest)]))
    )


def test_what_is_wrong_is_said_in_a_line_however_long_its_names(tmp_path: Path, state: Path) -> None:
    manifest = json.dumps([{"Config": "c" * 9000, "Layers": ["l" * 9000]}]).encode()
    why = refused(tmp_path, state, kept(tmp_path, tar([file("manifest.json", manifest)])))
    assert why.endswith("is missing in it, or too large") and len(why) < 200


def test_what_changed_since_it_was_looked_at_is_refused(tmp_path: Path, state: Path) -> None:
    for content in (tar([file("bin/a")]), archives.docker([BOTTOM])):
        reference = kept(tmp_path, content)
        before = images.pin(reference).digest
        kept(tmp_path, content + bytes(512))
        with pytest.raises(ImageError, match="has changed since the plan was made"):
            library.prepare(str(state), reference, before, OWNER, lambda text: None)
        assert os.listdir(state / "images/layers") == []


# --- what stays on the disk --------------------------------------------------------------------


def test_interrupted_it_leaves_nothing_that_counts(tmp_path: Path, state: Path) -> None:
    reference = kept(tmp_path, tar([file("bin/a", b"a")]))

    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.prepare(str(state), reference, images.pin(reference).digest, OWNER, interrupt)
    assert everything(state) <= {f"{state}/images", f"{state}/images/layers"}


def test_what_a_crash_left_is_swept_and_what_is_whole_is_used(tmp_path: Path, state: Path) -> None:
    root = prepare(state, kept(tmp_path, archives.docker([BOTTOM, TOP])))
    for description in (state / "images").glob("*.json"):
        description.unlink()  # killed after the layers, before the image was said to be there
    before = {path: os.stat(path).st_ino for path in layers(state, root)}
    left = state / "images" / beneath.temporary()
    (left / "half").mkdir(parents=True)
    library.sweep(str(state))
    assert not left.exists()
    root = prepare(state, kept(tmp_path, archives.docker([BOTTOM, TOP])))
    assert {path: os.stat(path).st_ino for path in layers(state, root)} == before


def test_a_layer_goes_with_the_last_image_that_has_it(tmp_path: Path, state: Path) -> None:
    prepare(state, kept(tmp_path, archives.docker([BOTTOM])))
    prepare(state, kept(tmp_path, archives.docker([BOTTOM, TOP])))
    one, two = sorted(library.listing(str(state)), key=lambda image: len(image.layers))
    assert library.loose(str(state), [one, two]) == []
    assert library.loose(str(state), [one]) == [two.layers[1]]
    library.remove(str(state), [two.digest], library.loose(str(state), [one]))
    assert library.listing(str(state)) == [one] and os.listdir(state / "images/layers") == list(one.layers)


def test_corrupt_descriptions_are_unpacked_again(tmp_path: Path, state: Path) -> None:
    reference = kept(tmp_path, tar([file("bin/a")]))
    prepare(state, reference)
    (description,) = (state / "images").glob("*.json")
    for text in ("", "{}", '{"form": 99}', description.read_text().replace('"layers": [', '"layers": ["../../x", ')):
        description.write_text(text)
        assert library.listing(str(state)) == []
        assert (tree(state, prepare(state, reference)) / "bin/a").exists()
