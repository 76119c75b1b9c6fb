"""Trees are copied byte for byte, whatever an agent made of them, and a digest tells any two apart."""

from __future__ import annotations

import os
import random
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sessionctl import beneath, trees
from sessionctl.beneath import Unsafe


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One of everything that an agent can make without rights."""
    root = tmp_path / "tree"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "file").write_bytes(b"content")
    (root / "empty").write_bytes(b"")
    (root / "large").write_bytes(random.Random(1).randbytes(3 << 20))
    os.link(root / "file", root / "sub" / "hard")
    (root / "link").symlink_to("/etc/passwd")
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    os.mknod(root / "whiteout", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    Path(os.fsdecode(bytes(root) + b"/\xff\n\x1b[2J")).write_bytes(b"a name")
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"in the middle")
    (root / "setuid").write_bytes(b"x")
    (root / "setuid").chmod(0o4755)
    os.setxattr(root / "sub", "user.overlay.opaque", b"y")
    os.setxattr(root / "file", "user.note", b"\0binary")
    here = os.open(root, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{here}/socket")  # the path of a socket has at most 107 bytes
    os.close(here)
    locked = root / "locked"
    locked.mkdir()
    (locked / "secret").write_bytes(b"s")
    (locked / "secret").chmod(0)
    for number, path in enumerate(sorted(root.rglob("*"))):
        os.utime(path, ns=(number, 1_000_000_007 * number), follow_symlinks=False)
    locked.chmod(0)
    return root


def modes(root: Path) -> dict[str, int]:
    return {entry.path: os.lstat(root / entry.path).st_mode for entry in beneath.walk(str(root))}


def test_a_copy_is_the_same_tree(tree: Path, tmp_path: Path) -> None:
    before = modes(tree)
    first = trees.copy(str(tree), str(tmp_path / "copy"))
    assert first == trees.measure(str(tree)) == trees.measure(str(tmp_path / "copy"))
    assert modes(tree) == before
    copy = tmp_path / "copy"
    assert (copy / "large").read_bytes() == (tree / "large").read_bytes()
    assert os.readlink(copy / "link") == "/etc/passwd"
    assert (copy / "file").stat().st_ino == (copy / "sub" / "hard").stat().st_ino
    assert (copy / "sparse").stat().st_size == 1 << 40
    assert (copy / "sparse").stat().st_blocks < 100_000
    assert os.getxattr(copy / "sub", "user.overlay.opaque") == b"y"
    assert stat.S_IMODE((copy / "setuid").stat().st_mode) == 0o4755
    assert stat.S_IMODE((copy / "locked").stat().st_mode) == 0
    assert (copy / "link").lstat().st_mtime_ns == (tree / "link").lstat().st_mtime_ns
    beneath.remove_tree(str(copy))
    beneath.remove_tree(str(tree))


def _append(root: Path) -> None:
    with (root / "file").open("ab") as file:
        file.write(b"!")


def _flip(root: Path) -> None:
    info = (root / "file").stat()
    (root / "file").write_bytes(b"CONTENT")
    os.utime(root / "file", ns=(info.st_atime_ns, info.st_mtime_ns))


def _retarget(root: Path) -> None:
    info = (root / "link").lstat()
    (root / "link").unlink()
    (root / "link").symlink_to("/etc/shadow")
    os.utime(root / "link", ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)


CHANGES: dict[str, Callable[[Path], object]] = {
    "longer": _append,
    "other content": _flip,
    "another target": _retarget,
    "mode": lambda root: (root / "file").chmod(0o600),
    "time": lambda root: os.utime(root / "file", ns=(0, 1)),
    "attribute": lambda root: os.setxattr(root / "file", "user.note", b"other"),
    "opaque": lambda root: os.removexattr(root / "sub", "user.overlay.opaque"),
    "gone": lambda root: (root / "empty").unlink(),
    "new": lambda root: (root / "new").touch(),
    "renamed": lambda root: (root / "empty").rename(root / "empty2"),
    "no whiteout": lambda root: (root / "whiteout").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_any_change_changes_the_digest(tree: Path, change: Callable[[Path], object]) -> None:
    before = trees.measure(str(tree)).digest
    change(tree)
    assert trees.measure(str(tree)).digest != before
    beneath.remove_tree(str(tree))


def test_zeros_may_be_stored_as_a_hole(tmp_path: Path) -> None:
    for name in ("zeros", "hole"):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "file").open("wb") as file:
            file.write(bytes(3 << 20) if name == "zeros" else b"")
            file.truncate(3 << 20)
        os.utime(tmp_path / name / "file", (1, 1))
        os.utime(tmp_path / name, (1, 1))
    assert trees.measure(str(tmp_path / "zeros")).digest == trees.measure(str(tmp_path / "hole")).digest


def test_a_tree_of_any_depth_takes_few_descriptors(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    os.mkdir("deep", dir_fd=fd)
    inner = os.open("deep", os.O_RDONLY, dir_fd=fd)
    for _ in range(1100):
        os.mkdir("d", dir_fd=inner)
        below = os.open("d", os.O_RDONLY, dir_fd=inner)
        os.close(inner)
        inner = below
    os.close(inner)
    os.close(fd)
    made = trees.copy(str(tmp_path / "deep"), str(tmp_path / "copy"))
    assert made == trees.measure(str(tmp_path / "copy"))
    beneath.remove_tree(str(tmp_path / "deep"))
    beneath.remove_tree(str(tmp_path / "copy"))


def test_what_cannot_be_copied_is_named_and_modes_are_as_before(tree: Path, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can make a device")
    (tree / "sub" / "deep").mkdir()
    os.mknod(tree / "sub" / "deep" / "null", stat.S_IFCHR, os.makedev(1, 3))
    before = modes(tree)
    with pytest.raises(Unsafe) as raised:
        trees.copy(str(tree), str(tmp_path / "copy"))
    assert raised.value.filename == str(tree / "sub" / "deep" / "null")
    assert modes(tree) == before


def test_a_link_is_no_root(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(Unsafe):
        trees.measure(str(tmp_path / "link"))


def test_an_existing_target_is_not_written_into(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    with pytest.raises(FileExistsError):
        trees.copy(str(tree), str(tmp_path / "copy"))
    assert list((tmp_path / "copy").iterdir()) == []
    beneath.remove_tree(str(tree))


def test_how_far_it_came_is_told_in_bytes(tree: Path) -> None:
    read: list[int] = []
    assert trees.measure(str(tree), on=read.append).size == sum(read) > 3 << 20
    beneath.remove_tree(str(tree))
