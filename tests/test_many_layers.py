"""Images of more layers than a mount takes, and archives that have no end."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sessionctl.errors import ImageError
from sessionctl.images import Reference, flatten, layer, library, pin, tarball
from tests import archives
from tests.archives import Member, directory, entry, file, tar
from tests.command import Repository

View = dict[str, str]
"""What is there: per path the content of a file, or ``/``."""


def changes(number: int, view: View, draw: random.Random) -> list[Member]:
    """The entries of one more layer over `view`, which is what a container then sees."""
    members: list[Member] = []
    for _ in range(6):
        path = f"{draw.choice('abc')}/{draw.choice('xyz')}/{draw.choice('fgh')}"
        top = os.path.dirname(path)
        what = draw.choice(["file", "file", "file", "whiteout", "opaque", "instead"])
        if any(member.name.startswith(top) for member in map(_info, members)):
            continue  # of one thing once in a layer: what comes later would be another story
        below = [each for each in view if each.startswith(f"{top}/")]
        if what == "file":
            members.append(file(path, f"{number}\n".encode()))
            view.pop(top, None)
            view[path] = f"{number}\n"
        elif what == "whiteout" and below:
            gone = draw.choice(below)
            members.append(file(f"{os.path.dirname(gone)}/.wh.{os.path.basename(gone)}"))
            del view[gone]
        elif what == "opaque":
            members += [directory(top), file(f"{top}/.wh..wh..opq"), file(f"{top}/new", b"new\n")]
            for each in (*below, top):
                view.pop(each, None)
            view[f"{top}/new"] = "new\n"
        elif what == "instead":
            members.append(file(top, b"a file now\n"))
            for each in below:
                del view[each]
            view[top] = "a file now\n"
    return members


def _info(member: Member) -> tarfile.TarInfo:
    return member[0] if isinstance(member, tuple) else member


def seen(root: Path) -> View:
    found = {}
    for path, _, names in os.walk(root):
        for name in names:
            place = Path(path) / name
            found[str(place.relative_to(root))] = place.read_text()
    return found


@pytest.mark.parametrize("seed", range(20))
def test_layers_are_one_as_overlayfs_shows_them(tmp_path: Path, seed: int) -> None:
    draw, view, places = random.Random(seed), View(), []
    for number in range(12):
        place = tmp_path / str(number)
        place.mkdir()
        content = tar(changes(number, view, draw))
        layer.unpack(tarball.entries(io.BytesIO(content)), str(place), None, layer.Budget())
        places.append(str(place))
    (tmp_path / "flat").mkdir()
    flatten.flatten(places, str(tmp_path / "flat"), None)
    assert seen(tmp_path / "flat") == view
    assert len(view) > 1


def test_links_stay_links_and_take_no_room(tmp_path: Path) -> None:
    content = tar(
        [
            *(directory("d", 0o751), file("d/a", b"a" * 100_000), entry("d/b", tarfile.LNKTYPE, linkname="d/a")),
            *(entry("d/out", tarfile.SYMTYPE, linkname="/etc/passwd"), entry("d/pipe", tarfile.FIFOTYPE)),
        ]
    )
    for name in ("lower", "flat"):
        (tmp_path / name).mkdir()
    layer.unpack(tarball.entries(io.BytesIO(content)), str(tmp_path / "lower"), None, layer.Budget())
    flatten.flatten([str(tmp_path / "lower")], str(tmp_path / "flat"), None)
    there = tmp_path / "flat/d"
    assert os.stat(there / "a").st_ino == os.stat(there / "b").st_ino == os.stat(tmp_path / "lower/d/a").st_ino
    assert os.readlink(there / "out") == "/etc/passwd" and not (there / "pipe").is_file()
    assert there.stat().st_mode & 0o777 == 0o751


def test_sixty_layers_are_a_session(repository: Repository) -> None:
    """Also where the state directory has a long path: their paths alone are more than a mount takes."""
    deep = Path(os.environ["SESSIONCTL_STATE_DIR"]) / "state-of-a-directory-with-a-rather-long-name" / "and-another"
    deep.mkdir(parents=True)
    for each in (deep, deep.parent):
        each.chmod(0o711)
    base = tar([*archives.programs("sh", "cat", "ls", "rm"), directory("etc")])
    draw, view, layers = random.Random(7), View(), [base]
    for number in range(59):
        layers.append(tar([*changes(number, view, draw), file(f"numbers/{number}", b"")]))
    (repository.root / "image.tar").write_bytes(archives.docker(layers))
    repository.declare('[sessions.api]\nimage = "archive:image.tar"\n')
    variables = {"SESSIONCTL_STATE_DIR": str(deep)}
    repository.run("apply", "--yes", env=variables)

    def inside(script: str) -> str:
        return repository.run("exec", "api", "--", "sh", "-c", script, env=variables).out

    try:
        (found,) = repository.run("images", "--json", env=variables).json["images"]
        assert len(found["layers"]) == 60
        (mark,) = deep.glob("*/sessions/api/*/mark")
        assert len(json.loads(mark.read_text())["root"]["lower"]) <= flatten.MOST
        assert inside("ls /numbers").split() == sorted(str(number) for number in range(59))
        for path, content in view.items():
            assert inside(f"cat /{path}") == content
        assert sorted(inside("for each in /?/?/* /?/?; do test -f $each && echo $each; done; true").split()) == sorted(
            f"/{path}" for path in view
        )
        inside("rm -r /numbers && echo mine > /numbers && cat /numbers")
        assert repository.run("gc", "--dry-run", env=variables).out == "nothing to remove\n"
    finally:
        repository.run("stop", "api", env=variables)


# --- without end -------------------------------------------------------------------------------


def endless(members: Callable[[], Iterator[Member]], path: Path, *, packed: bool = False) -> Reference:
    with (
        gzip.open(path, "wb", 1) if packed else open(path, "wb") as out,
        tarfile.open(fileobj=out, mode="w|") as archive,
    ):
        for member in members():
            info, content = member if isinstance(member, tuple) else (member, b"")
            archive.addfile(info, io.BytesIO(content))
    return Reference("archive", str(path))


def prepared(reference: Reference, state: Path) -> None:
    library.prepare(str(state), reference, pin(reference).digest, None, lambda text: None)


@pytest.mark.parametrize("prefix", ["", "blobs/sha256/"], ids=["a root", "what docker saves"])
def test_too_many_entries_are_refused_where_they_become_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setattr(layer, "MOST_ENTRIES", 500)
    first = [file("manifest.json", b"[]")] if prefix else []
    members = (*first, *(file(f"{prefix}{n}") for n in range(2000)))
    reference = endless(lambda: iter(members), tmp_path / "many.tar")
    with pytest.raises(ImageError, match=rf"entry '{prefix}(49[0-9]|50[0-9])': the image has more than 500 files"):
        prepared(reference, tmp_path / "state")
    assert os.listdir(tmp_path / "state/images") == ["layers"] and not os.listdir(tmp_path / "state/images/layers")


@pytest.mark.parametrize("name", ["zeros", "blobs/sha256/zeros"], ids=["a root", "what docker saves"])
def test_zeros_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Gigabytes that are packed into megabytes: what is counted is what they become."""
    monkeypatch.setattr(layer, "MOST_BYTES", 8 << 20)
    first = [file("manifest.json", b"[]")] if "/" in name else []
    members = (*first, file(name, bytes(32 << 20)))
    reference = endless(lambda: iter(members), tmp_path / "bomb.tar.gz", packed=True)
    assert os.path.getsize(reference.path) < 1 << 20
    with pytest.raises(ImageError, match=rf"entry '{name}': the image has more than 8,388,608 bytes"):
        prepared(reference, tmp_path / "state")


def test_headers_without_an_entry_are_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("file")
    info.pax_headers = {"comment": "x" * 1000}
    header = info.tobuf(tarfile.PAX_FORMAT)[:-512]
    (tmp_path / "headers.tar").write_bytes(header * 100)
    with pytest.raises(ImageError, match="more than 16 headers before entry"):
        prepared(Reference("archive", str(tmp_path / "headers.tar")), tmp_path / "state")
