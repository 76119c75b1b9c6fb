"""Files below a directory that an agent may write: no link is followed, nothing outside is touched, nothing blocks."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sessionctl import beneath
from sessionctl.beneath import Unsafe

DEEP = 5000
ROOT = os.geteuid() == 0


def whiteout(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def deep_tree(root: Path) -> None:
    """A chain of `DEEP` directories named ``d`` below `root`: much longer than any path may be."""
    fd = os.open(root, os.O_RDONLY)
    for _ in range(DEEP):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


def listing(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def in_own_mounts(script: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Runs a shell script in user and mount namespaces of its own; skips with the reason where there are none."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    trial = subprocess.run(["unshare", "-Urm", "true"], capture_output=True, text=True, check=False)
    if trial.returncode:
        pytest.skip(trial.stderr.strip())
    return subprocess.run(
        ["unshare", "-Urm", "sh", "-euc", script, "sh", *map(str, args)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Room for a dozen more open files than there are now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name.name) for name in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 12, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of somebody else's, with one file, which must look the same after each test."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "precious").write_text("precious")
    return directory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "root"
    directory.mkdir()
    return directory


class TestRead:
    def test_gives_the_content_of_a_file(self, root: Path) -> None:
        (root / "a").mkdir()
        (root / "a" / "b").write_bytes(b"\0content\n")
        assert beneath.read(str(root), "a/b", 9) == b"\0content\n"

    @pytest.mark.parametrize("path", ["absent", "absent/b", "file/below"])
    def test_what_is_not_there_is_not_found(self, root: Path, path: str) -> None:
        (root / "file").write_text("")
        with pytest.raises(FileNotFoundError) as caught:
            beneath.read(str(root), path, 10)
        assert caught.value.filename == path

    def test_a_link_is_not_followed_at_the_end(self, root: Path, outside: Path) -> None:
        (root / "link").symlink_to(outside / "precious")
        with pytest.raises(Unsafe):
            beneath.read(str(root), "link", 100)

    def test_a_link_is_not_followed_on_the_way(self, root: Path, outside: Path) -> None:
        (root / "link").symlink_to(outside)
        with pytest.raises(Unsafe):
            beneath.read(str(root), "link/precious", 100)

    def test_a_link_is_not_followed_as_the_root(self, root: Path, outside: Path) -> None:
        (root / "link").symlink_to(outside)
        with pytest.raises(Unsafe):
            beneath.read(str(root / "link"), "precious", 100)

    @pytest.mark.parametrize("path", ["", "/etc/passwd", "..", "a/../b", "a//b", "./a", "a/.", "a/", "a\0b", "a\ud800"])
    def test_a_path_that_is_not_plainly_below_is_refused(self, root: Path, path: str) -> None:
        (root / "a").mkdir()
        with pytest.raises(Unsafe):
            beneath.read(str(root), path, 100)

    def test_a_fifo_does_not_block(self, root: Path) -> None:
        os.mkfifo(root / "fifo")
        with pytest.raises(Unsafe):
            beneath.read(str(root), "fifo", 100)

    def test_a_socket_and_a_directory_are_refused(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(root)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
        (root / "directory").mkdir()
        for name in ("socket", "directory"):
            with pytest.raises(Unsafe):
                beneath.read(str(root), name, 100)

    def test_a_file_of_exactly_the_limit_is_read_and_one_byte_more_is_refused(self, root: Path) -> None:
        (root / "file").write_bytes(b"12345")
        assert beneath.read(str(root), "file", 5) == b"12345"
        with pytest.raises(Unsafe):
            beneath.read(str(root), "file", 4)

    def test_no_descriptor_stays_open(self, root: Path, outside: Path) -> None:
        (root / "a").mkdir()
        (root / "a" / "link").symlink_to(outside)
        (root / "a" / "file").write_text("")
        before = os.listdir("/proc/self/fd")
        for path in ("a/file", "a/link", "a/link/x", "a/absent", "b/c"):
            for read in (beneath.read, lambda root, path, limit: beneath.read_layered([root, root], path, limit)):
                try:
                    read(str(root), path, 10)
                except OSError:
                    continue
        assert os.listdir("/proc/self/fd") == before


class TestLayers:
    @pytest.fixture
    def layers(self, tmp_path: Path) -> tuple[Path, Path]:
        top, bottom = tmp_path / "top", tmp_path / "bottom"
        for layer in (top, bottom):
            (layer / "dir").mkdir(parents=True)
        return top, bottom

    def read(self, layers: tuple[Path, Path], path: str) -> bytes:
        return beneath.read_layered([str(layer) for layer in layers], path, 100)

    def names(self, layers: tuple[Path, Path], path: str) -> list[str]:
        return beneath.list_layered([str(layer) for layer in layers], path)

    def test_the_upper_file_wins(self, layers: tuple[Path, Path]) -> None:
        for layer in layers:
            (layer / "dir" / "file").write_text(layer.name)
        assert self.read(layers, "dir/file") == b"top"

    def test_a_file_is_found_in_the_lower_layer(self, layers: tuple[Path, Path]) -> None:
        (layers[1] / "dir" / "file").write_text("bottom")
        assert self.read(layers, "dir/file") == b"bottom"

    def test_a_whiteout_hides_a_file_and_a_directory(self, layers: tuple[Path, Path]) -> None:
        top, bottom = layers
        (bottom / "dir" / "file").write_text("")
        (bottom / "gone").mkdir()
        (bottom / "gone" / "file").write_text("")
        whiteout(top / "dir" / "file")
        whiteout(top / "gone")
        for path in ("dir/file", "gone/file"):
            with pytest.raises(FileNotFoundError):
                self.read(layers, path)
        assert self.names(layers, "dir") == []
        with pytest.raises(FileNotFoundError):
            self.names(layers, "gone")

    def test_an_opaque_directory_hides_what_is_below_it(self, layers: tuple[Path, Path]) -> None:
        top, bottom = layers
        for path in ("dir/file", "dir/inner/file"):
            (bottom / path).parent.mkdir(exist_ok=True)
            (bottom / path).write_text("")
        (top / "dir" / "inner").mkdir()
        assert self.names(layers, "dir/inner") == ["file"]
        os.setxattr(top / "dir", "user.overlay.opaque", b"y")
        for path in ("dir/file", "dir/inner/file"):
            with pytest.raises(FileNotFoundError):
                self.read(layers, path)
        assert self.names(layers, "dir") == ["inner"]
        assert self.names(layers, "dir/inner") == []

    def test_a_file_in_the_place_of_a_directory_hides_it(self, layers: tuple[Path, Path]) -> None:
        top, bottom = layers
        (bottom / "sub").mkdir()
        (bottom / "sub" / "file").write_text("")
        (top / "sub").write_text("")
        with pytest.raises(FileNotFoundError):
            self.read(layers, "sub/file")
        with pytest.raises(FileNotFoundError):
            self.names(layers, "sub")

    def test_a_link_in_an_upper_layer_is_refused_not_looked_through(
        self, layers: tuple[Path, Path], outside: Path
    ) -> None:
        top, bottom = layers
        (bottom / "precious").mkdir()
        (bottom / "precious" / "precious").write_text("")
        (top / "precious").symlink_to(outside)
        with pytest.raises(Unsafe):
            self.read(layers, "precious/precious")
        with pytest.raises(Unsafe):
            self.names(layers, "precious")

    def test_names_of_all_layers_are_merged(self, layers: tuple[Path, Path]) -> None:
        top, bottom = layers
        for path in (top / "dir" / "b", top / "dir" / "c", bottom / "dir" / "a", bottom / "dir" / "b"):
            path.write_text("")
        assert self.names(layers, "dir") == ["a", "b", "c"]

    def test_a_directory_with_too_many_names_is_refused(self, layers: tuple[Path, Path]) -> None:
        for name in "abc":
            (layers[0] / "dir" / name).write_text("")
        with pytest.raises(Unsafe):
            beneath.list_layered([str(layers[0])], "dir", limit=2)

    def test_is_what_the_kernel_shows(self, tmp_path: Path) -> None:
        for name in ("upper", "work", "merged", "lower/a/b", "lower/c", "lower/e", "lower/f/g"):
            (tmp_path / name).mkdir(parents=True)
        for name in ("a/one", "a/two", "a/b/three", "c/four", "d", "e/five", "f/g/six"):
            (tmp_path / "lower" / name).write_text(name)
        ended = in_own_mounts(
            """
            cd "$1"
            mount -t overlay overlay -o userxattr,lowerdir=lower,upperdir=upper,workdir=work merged
            cd merged
            rm a/one; echo new > a/two
            rm -r c; mkdir c; echo new > c/seven
            rm d; mkdir d; echo new > d/eight
            rm -r e; echo new > e
            rm -r a/b; mv f/g/six f/six
            find . -mindepth 1 -printf '%y %P\\n'
            """,
            tmp_path,
        )
        if "mount" in ended.stderr:
            pytest.skip(ended.stderr.strip())
        assert ended.returncode == 0, ended.stderr
        shown = {path: kind for kind, path in (line.split() for line in ended.stdout.splitlines())}
        layers = [str(tmp_path / "upper"), str(tmp_path / "lower")]
        assert "f" in shown and "a/b" not in shown

        def ours(directory: str) -> Iterator[tuple[str, str]]:
            # overlayfs itself has no name for the top; "a", "c" and so on do
            for name in beneath.list_layered(layers, directory):
                path = f"{directory}/{name}"
                try:
                    beneath.read_layered(layers, path, 100)
                except Unsafe:
                    yield path, "d"
                    yield from ours(path)
                else:
                    yield path, "f"

        for top in ("a", "c", "d", "f"):
            assert dict(ours(top)) == {path: kind for path, kind in shown.items() if path.startswith(top + "/")}
        assert beneath.read_layered(layers, "e", 100) == b"new\n"
        assert beneath.read_layered(layers, "a/two", 100) == b"new\n"
        for path in ("a/one", "c/four", "e/five", "a/b/three", "f/g/six"):
            with pytest.raises(FileNotFoundError):
                beneath.read_layered(layers, path, 100)


class TestWalk:
    def test_gives_everything_depth_first_and_sorted(self, root: Path) -> None:
        for directory in ("b", "b/y", "a"):
            (root / directory).mkdir()
        for file in ("b/y/1", "b/x", "c"):
            (root / file).write_text("12")
        assert [entry.path for entry in beneath.walk(str(root))] == ["a", "b", "b/x", "b/y", "b/y/1", "c"]

    def test_tells_size_times_inode_and_blocks(self, root: Path) -> None:
        (root / "file").write_text("123")
        [entry] = beneath.walk(str(root))
        info = (root / "file").stat()
        assert entry == ("file", "file", 3, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_blocks)

    def test_tells_kinds_and_follows_no_link(self, root: Path, outside: Path) -> None:
        (root / "dir").mkdir()
        (root / "file").write_text("")
        (root / "link").symlink_to(outside)
        os.mkfifo(root / "fifo")
        whiteout(root / "gone")
        assert {entry.path: entry.kind for entry in beneath.walk(str(root))} == {
            "dir": "dir",
            "fifo": "other",
            "file": "file",
            "gone": "whiteout",
            "link": "link",
        }

    @pytest.mark.parametrize("mode", [0o000, 0o400, 0o100])
    def test_says_which_directories_it_cannot_look_into_and_goes_on(self, root: Path, mode: int) -> None:
        for name in ("shut", "shut/inner", "z"):
            (root / name).mkdir()
        (root / "shut").chmod(mode)
        kinds = {entry.path: entry.kind for entry in beneath.walk(str(root))}
        (root / "shut").chmod(0o700)
        if ROOT:
            assert kinds == {"shut": "dir", "shut/inner": "dir", "z": "dir"}
        else:
            assert kinds == {"shut": "unreadable", "z": "dir"}

    def test_names_may_be_any_bytes(self, root: Path) -> None:
        name = b"\xff \n\x1b"
        (root / os.fsdecode(name)).mkdir()
        (root / os.fsdecode(name) / "x").write_text("")
        assert [os.fsencode(entry.path) for entry in beneath.walk(str(root))] == [name, name + b"/x"]

    @pytest.mark.usefixtures("few_descriptors")
    def test_depth_is_no_obstacle(self, root: Path) -> None:
        deep_tree(root)
        (root / "z").write_text("")
        paths = [entry.path for entry in beneath.walk(str(root))]
        assert paths[-2:] == ["/".join("d" * DEEP), "z"]
        beneath.remove_tree(str(root))

    def test_what_vanishes_meanwhile_is_left_out(self, root: Path) -> None:
        for name in ("a", "a/b", "a/b/c", "a/d", "e"):
            (root / name).mkdir()
        seen = []
        for entry in beneath.walk(str(root)):
            seen.append(entry.path)
            if entry.path == "a/b/c":
                shutil.rmtree(root / "a")
        assert seen == ["a", "a/b", "a/b/c", "e"]

    def test_a_directory_moved_out_meanwhile_does_not_lead_out(self, root: Path, outside: Path) -> None:
        for name in ("a", "a/b", "a/c"):
            (root / name).mkdir()
        walk = beneath.walk(str(root))
        assert [next(walk).path for _ in range(2)] == ["a", "a/b"]
        (root / "a" / "b").rename(outside / "b")
        with pytest.raises(Unsafe):
            list(walk)
        (outside / "b").rmdir()

    def test_a_root_that_is_not_there_is_an_error_not_empty(self, root: Path) -> None:
        with pytest.raises(FileNotFoundError):
            list(beneath.walk(str(root / "absent")))


class TestWrite:
    def test_makes_the_file_and_its_parents_with_their_modes_whatever_the_umask(self, root: Path) -> None:
        before = os.umask(0o077)
        try:
            beneath.write(str(root), "a/b/file", b"content", 0o664)
        finally:
            os.umask(before)
        assert (root / "a/b/file").read_bytes() == b"content"
        assert [stat.S_IMODE((root / path).stat().st_mode) for path in ("a", "a/b", "a/b/file")] == [
            0o755,
            0o755,
            0o664,
        ]

    def test_replaces_a_file_and_leaves_nothing_beside_it(self, root: Path) -> None:
        (root / "file").write_text("before")
        inode = (root / "file").stat().st_ino
        beneath.write(str(root), "file", b"after", 0o600)
        assert (root / "file").read_text() == "after"
        assert (root / "file").stat().st_ino != inode
        assert listing(root) == ["file"]

    def test_replaces_a_link_and_does_not_write_through_it(self, root: Path, outside: Path) -> None:
        (root / "link").symlink_to(outside / "precious")
        beneath.write(str(root), "link", b"new", 0o600)
        assert (outside / "precious").read_text() == "precious"
        assert not (root / "link").is_symlink()
        assert (root / "link").read_text() == "new"

    @pytest.mark.parametrize("path", ["link/file", "link/new/file"])
    def test_a_link_on_the_way_is_refused(self, root: Path, outside: Path, path: str) -> None:
        (root / "link").symlink_to(outside)
        with pytest.raises(Unsafe):
            beneath.write(str(root), path, b"", 0o600)
        assert listing(outside) == ["precious"]

    @pytest.mark.parametrize("path", ["", "/tmp/x", "../x", "a/../../x"])
    def test_a_path_that_leads_out_is_refused(self, root: Path, path: str) -> None:
        with pytest.raises(Unsafe):
            beneath.write(str(root), path, b"", 0o600)
        assert listing(root) == []

    def test_nothing_is_left_behind_when_it_fails(self, root: Path) -> None:
        (root / "directory").mkdir()
        with pytest.raises(IsADirectoryError):
            beneath.write(str(root), "directory", b"", 0o600)
        assert listing(root) == ["directory"]

    def test_file_and_new_parents_belong_to_the_owner(self, root: Path) -> None:
        owner = (12345, 12346) if ROOT else (os.geteuid(), os.getegid())
        (root / "old").mkdir()
        beneath.write(str(root), "old/new/file", b"", 0o4755, owner)
        for path in ("old/new", "old/new/file"):
            assert ((root / path).stat().st_uid, (root / path).stat().st_gid) == owner
        assert (root / "old").stat().st_uid == os.geteuid()
        assert stat.S_IMODE((root / "old/new/file").stat().st_mode) == 0o4755


class TestPublish:
    def test_moves_the_whole_file_into_place(self, root: Path) -> None:
        (root / "mark").write_text("before")
        before = (root / "mark").open()
        beneath.publish(str(root / "mark"), b"after")
        with before:
            assert before.read() == "before"
        assert (root / "mark").read_text() == "after"
        assert stat.S_IMODE((root / "mark").stat().st_mode) == 0o600
        assert listing(root) == ["mark"]

    def test_keeps_what_was_there_when_there_is_no_room(self, root: Path) -> None:
        (root / "mark").write_text("before")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                beneath.publish(str(root / "mark"), b"x" * 8192)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (root / "mark").read_text() == "before"
        assert listing(root) == ["mark"]


class TestRemoveTree:
    def test_removes_a_tree(self, root: Path) -> None:
        for name in ("a", "a/b", "c"):
            (root / name).mkdir()
        (root / "a/b/file").write_text("")
        os.mkfifo(root / "c/fifo")
        whiteout(root / "c/gone")
        beneath.remove_tree(str(root))
        assert not root.exists()

    def test_absent_is_done(self, root: Path) -> None:
        beneath.remove_tree(str(root / "absent"))
        beneath.remove_tree(str(root / "absent/file"))
        assert listing(root) == []

    def test_removes_links_and_not_what_they_lead_to(self, root: Path, outside: Path) -> None:
        (root / "tree").mkdir()
        (root / "tree/link").symlink_to(outside)
        (root / "link").symlink_to(outside)
        beneath.remove_tree(str(root / "tree"))
        beneath.remove_tree(str(root / "link"))
        beneath.remove_tree(str(outside / "precious") + "x")
        assert listing(root) == []
        assert listing(outside) == ["precious"]

    @pytest.mark.parametrize("mode", [0o000, 0o100, 0o444, 0o555])
    def test_modes_are_no_obstacle(self, root: Path, mode: int) -> None:
        for name in ("work", "work/below", "work/below/inner"):
            (root / name).mkdir()
        (root / "work/below/inner/file").write_text("")
        for name in ("work/below/inner", "work/below", "work"):
            (root / name).chmod(mode)
        beneath.remove_tree(str(root / "work"))
        assert listing(root) == []

    def test_names_may_be_any_bytes(self, root: Path) -> None:
        (root / "tree").mkdir()
        for name in (b"\xff", b"-rf", b"new\nline", b"x" * 255):
            (root / "tree" / os.fsdecode(name)).mkdir()
        beneath.remove_tree(str(root / "tree"))
        assert listing(root) == []

    @pytest.mark.usefixtures("few_descriptors")
    def test_depth_is_no_obstacle(self, root: Path) -> None:
        deep_tree(root)
        beneath.remove_tree(str(root))
        assert not root.exists()

    def test_a_link_put_in_the_place_of_a_directory_meanwhile_is_not_followed(
        self, root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (root / "tree/victim").mkdir(parents=True)
        unlink: Callable[..., None] = os.unlink
        swapped = []

        def unlink_then_swap(name: str, *, dir_fd: int | None = None) -> None:
            try:
                unlink(name, dir_fd=dir_fd)
            except IsADirectoryError:
                if name == "victim":
                    (root / "tree/victim").rmdir()
                    (root / "tree/victim").symlink_to(outside)
                    swapped.append(name)
                raise

        monkeypatch.setattr(os, "unlink", unlink_then_swap)
        beneath.remove_tree(str(root / "tree"))
        assert swapped == ["victim"]
        assert not (root / "tree").exists()
        assert listing(outside) == ["precious"]

    def test_a_directory_moved_out_meanwhile_does_not_lead_out(
        self, root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (root / "tree/victim").mkdir(parents=True)
        (root / "tree/victim/file").write_text("")
        unlink: Callable[..., None] = os.unlink

        def unlink_then_move(name: str, *, dir_fd: int | None = None) -> None:
            unlink(name, dir_fd=dir_fd)
            (root / "tree/victim").rename(outside / "victim")

        monkeypatch.setattr(os, "unlink", unlink_then_move)
        with pytest.raises(Unsafe):
            beneath.remove_tree(str(root / "tree"))
        monkeypatch.undo()
        assert listing(outside) == ["precious", "victim"]

    def test_a_process_that_keeps_writing_is_an_error_not_an_endless_loop(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (root / "tree/busy").mkdir(parents=True)
        rmdir: Callable[..., None] = os.rmdir

        def write_then_rmdir(name: str, *, dir_fd: int | None = None) -> None:
            (root / "tree/busy/file").write_text("")
            rmdir(name, dir_fd=dir_fd)

        monkeypatch.setattr(os, "rmdir", write_then_rmdir)
        with pytest.raises(OSError, match="keeps writing") as caught:
            beneath.remove_tree(str(root / "tree"))
        assert caught.value.filename == str(root / "tree/busy")

    def test_what_cannot_go_is_named(self) -> None:
        with pytest.raises(PermissionError) as caught:
            beneath.remove_tree("/proc/self/fdinfo")  # nobody at all may remove this one
        assert caught.value.errno == errno.EPERM
        assert caught.value.filename == "/proc/self/fdinfo"

    @pytest.mark.parametrize("path", ["/", "", ".", "a/..", "a/."])
    def test_a_path_without_a_name_is_refused(self, path: str) -> None:
        with pytest.raises(Unsafe):
            beneath.remove_tree(path)

    def test_what_is_mounted_below_is_not_entered(self, root: Path) -> None:
        (root / "tree/mounted").mkdir(parents=True)
        script = f"""
import sys
from pathlib import Path
from sessionctl import beneath
try:
    beneath.remove_tree({str(root / "tree")!r})
except beneath.Unsafe as error:
    print(error.filename, Path(error.filename, "file").exists())
"""
        ended = in_own_mounts(
            """mount -t tmpfs tmpfs "$1"; touch "$1/file"; exec "$2" -c "$3" """,
            root / "tree/mounted",
            sys.executable,
            script,
        )
        assert ended.stdout == f"{root / 'tree/mounted'} True\n", ended.stderr
