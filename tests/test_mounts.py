"""What of the host may be mounted: refused in the plan, each with its reason."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sessionctl import mounts
from sessionctl.model import MountSpec


def why(source: object, **ours: str) -> str:
    """The reason that `source` is refused; empty when it is not."""
    found = mounts.refusals([MountSpec(str(source), "/data")], {path: what for what, path in ours.items()}, {})
    return found[0].removeprefix(f"mounts./data: {source} ") if found else ""


def test_directories_and_files_may_be_mounted(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert why(tmp_path) == "" and why(tmp_path / "file") == ""


@pytest.mark.parametrize("source", ["/", "/proc", "/proc/self", "/sys/kernel", "/dev", "/dev/null"])
def test_the_hosts_root_and_kernel_may_not(source: str) -> None:
    assert why(source) in ("is all of the host", *(f"is a part of {place}" for place in ("/proc", "/sys", "/dev")))


def test_what_is_ours_may_not_be_seen_from_any_side(tmp_path: Path) -> None:
    ours = tmp_path / "state"
    (ours / "sessions").mkdir(parents=True)
    (tmp_path / "state2").mkdir()
    assert why(ours, state=str(ours)) == "is or holds state"
    assert why(tmp_path, state=str(ours)) == "is or holds state"
    assert why(ours / "sessions", state=str(ours)) == "lies in state"
    assert why(tmp_path / "state2", state=str(ours)) == ""


def test_what_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert why(tmp_path / "socket") == "is neither a directory nor a regular file"
    assert why(tmp_path / "fifo") == "is neither a directory nor a regular file"
    assert why(tmp_path / "missing") == "cannot be used: No such file or directory"
    assert "symbolic link" in why(tmp_path / "link")


def test_what_another_user_cannot_use_is_said(tmp_path: Path) -> None:
    def said(mode: str, bits: int, owner: tuple[int, int] | None) -> list[str]:
        tmp_path.chmod(bits)
        return mounts.warnings([MountSpec(str(tmp_path), "/data", mode)], owner)

    stranger, group, user = (300_000, 300_000), (300_000, os.getegid()), (os.geteuid(), 300_000)
    cannot = "uid 300000, which root's sandboxes run as, cannot"
    assert said("rw", 0o700, None) == []
    assert said("ro", 0o755, stranger) == []
    assert said("ro", 0o750, stranger) == [f"{cannot} read {tmp_path}"]
    assert said("rw", 0o755, stranger) == [f"{cannot} write {tmp_path}"]
    assert said("rw", 0o757, stranger) == []
    assert said("rw", 0o770, group) == []
    assert said("rw", 0o700, user) == []
