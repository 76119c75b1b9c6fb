"""Programs of the host in images that lack them: from the manifest to a commit made inside."""

from __future__ import annotations

import os
import shutil
import struct
import tarfile
from pathlib import Path

import pytest

from sessionctl.errors import ImageError
from sessionctl.images import extra, layer, programs
from tests.archives import Member, directory, entry, file, tar
from tests.command import Repository

HAS_NODE = shutil.which("node", path="/usr/local/bin:/usr/bin") is not None
APPLETS = ("sh", "cat", "ls", "env", "id")


def busybox(*more: Member) -> bytes:
    """A root with no libc at all."""
    found = shutil.which("busybox")
    if found is None or programs.load(found) is None or programs.load(found).loader:  # type: ignore[union-attr]
        pytest.skip("there is no static busybox here")
    links = [entry(f"bin/{name}", tarfile.SYMTYPE, linkname="busybox") for name in APPLETS]
    return tar(
        [
            *(directory("bin"), directory("etc"), file("bin/busybox", Path(found).read_bytes(), 0o755)),
            *(*links, *more),
        ]
    )


def declare(repository: Repository, image: bytes, names: str, name: str = "image.tar") -> None:
    (repository.root / name).write_bytes(image)
    repository.declare(f'[sessions.api]\nimage = "archive:{name}"\nimage_extra = [{names}]\n')


def test_git_of_the_host_commits_in_an_image_without_a_libc(repository: Repository) -> None:
    declare(repository, busybox(), '"git"')
    repository.apply()
    said = repository.inside(
        "api", "git status --porcelain && echo b > b && git add b && git commit -qm two && git log"
    )
    assert "two" in said.out and "first" in said.out
    assert repository.run("fetch", "api").code == 0
    # What git runs of its own, and what it copies from, is there too.
    repository.inside("api", "git init -q /tmp/new && test -s /tmp/new/.git/info/exclude")
    assert "usage" in repository.inside("api", "git remote-https", code=1).err
    assert repository.inside("api", "echo $PATH").out.endswith(":/.extra/bin\n")
    assert repository.run("plan", "--exit-code").out.startswith("In sync")
    shown = repository.run("status", "api").out
    assert "with git of the host" in shown
    assert repository.session("api")["image_extra"] == ["git"]


@pytest.mark.skipif(not HAS_NODE, reason="the host has no node in /usr")
def test_node_knows_its_own_path_and_brings_packages_along(repository: Repository) -> None:
    names = '"npm"' if shutil.which("npm", path="/usr/bin") else '"node"'
    declare(repository, busybox(), names)
    repository.apply()
    script = 'require("child_process").execFileSync(process.execPath, ["-p", "40+2"]) + process.execPath'
    assert repository.inside("api", f"node -p '{script}'").out == "42\n/.extra/bin/node\n"
    if names == '"npm"':
        assert repository.inside("api", "npm --version").out[0].isdigit()


def test_the_image_s_own_program_is_left_alone(repository: Repository) -> None:
    own = file("bin/git", b"#!/bin/sh\necho its own\n", 0o755)
    declare(repository, busybox(own), '"git"')
    repository.apply()
    assert repository.inside("api", "git").out == "its own\n"
    assert [each["source"][:8] for each in repository.run("images", "--json").json["images"]] == ["archive:"]
    repository.inside("api", "test -e /.extra", code=1)


def test_what_is_brought_in_is_part_of_the_session_and_is_collected(repository: Repository) -> None:
    declare(repository, busybox(), '"git"')
    repository.apply()
    repository.inside("api", "echo kept > ~/kept")
    sources = {each["source"]: each["users"] for each in repository.run("images", "--json").json["images"]}
    assert sources["host:git"] == ["api"]
    with (repository.root / "sessions.toml").open("a") as manifest:
        manifest.write('title = "another"\n')
    repository.apply()
    assert repository.run("plan", "--exit-code").out.startswith("In sync")
    repository.inside("api", "git --version")
    assert repository.run("gc", "--dry-run").out == "nothing to remove\n"

    declare(repository, busybox(), "")
    (change,) = repository.run("plan", "--json").json["changes"]
    assert change["kind"] == "replace"
    assert {field["path"] for field in change["fields"]} == {"title", "image_extra", "image_extra.digest"}
    repository.apply()
    assert repository.inside("api", "cat ~/kept; git", code=127).out == "kept\n"


def test_agents_cannot_change_what_other_sessions_are_given(repository: Repository) -> None:
    (repository.root / "image.tar").write_bytes(busybox())
    same = 'image = "archive:image.tar"\nimage_extra = ["git"]\n'
    repository.declare(f"[sessions.a]\n{same}[sessions.b]\n{same}")
    repository.apply()
    repository.inside("a", "echo evil > /.extra/bin/git && cat /.extra/bin/git")
    assert repository.inside("b", "git --version").out.startswith("git version")


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (
            '"no-such-program"',
            "sessions.toml:4: sessions.api.image_extra: 'no-such-program' is no program of this host",
        ),
        ('"../sh"', "'../sh' is not the name of a program"),
        ('"git", "git"', "names 'git' twice"),
        ('"python3"', "'python3' is nothing without the modules of python3"),
    ],
)
def test_what_cannot_be_brought_is_said_by_plan(repository: Repository, names: str, why: str) -> None:
    declare(repository, busybox(), names)
    assert why in repository.run("plan", code=2).err


def test_without_an_image_it_means_nothing(repository: Repository) -> None:
    repository.declare('[sessions.api]\nimage_extra = ["git"]\n')
    assert "has no meaning without an image" in repository.run("plan", code=2).err
    for block in ("", 'image = "host"\n'):
        repository.declare(f'[defaults]\nimage_extra = ["git"]\n[sessions.api]\n{block}')
        assert repository.run("show", "api", "--json").json["image_extra"]["value"] == []


def test_an_image_in_whose_way_it_would_be_is_refused(repository: Repository) -> None:
    hiding = [directory("usr"), entry("usr/lib", tarfile.SYMTYPE, linkname="/elsewhere")]
    declare(repository, busybox(*hiding), '"git"')
    said = repository.apply(code=1)
    assert "git-core of the host cannot be had in it" in said.out + said.err
    assert not list((repository.state / "sessions/api").glob("*/mark"))


def test_a_loader_that_is_not_glibc_s_is_refused() -> None:
    with pytest.raises(ImageError, match="not the loader of glibc"):
        programs.with_cache(b"\x7fELF" + bytes(100), "/.extra/ld.cache", "/lib/ld-musl-x86_64.so.1")


def test_the_cache_is_one_that_is_read_again(tmp_path: Path) -> None:
    names = ["libz.so.1", "libc.so.6", "libfoo.so.10", "libfoo.so.9", "lib2.so", "liba.so"]
    (tmp_path / "cache").write_bytes(programs.cache_of({name: f"/.extra/lib/{name}" for name in names}))
    found = programs.host_libraries(str(tmp_path / "cache"))
    assert found == {name: f"/.extra/lib/{name}" for name in names}
    # The loader searches by halves: numbers are above letters, and in order of their values.
    assert list(found) == ["lib2.so", "libz.so.1", "libfoo.so.10", "libfoo.so.9", "libc.so.6", "liba.so"]


def test_a_broken_program_is_named(tmp_path: Path) -> None:
    machine = {"x86_64": 62, "aarch64": 183}[os.uname().machine]
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 9, 0, 0, 0)
    )
    (tmp_path / "broken").write_bytes(header)
    with pytest.raises(ImageError, match="broken is a broken program"):
        programs.load(str(tmp_path / "broken"))
    (tmp_path / "other").write_bytes(header.replace(struct.pack("<H", machine), struct.pack("<H", 40), 1))
    with pytest.raises(ImageError, match="no program of this machine"):
        programs.load(str(tmp_path / "other"))


def test_what_not_everybody_may_read_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root could, and the agent would have it."""
    (tmp_path / "usr").mkdir()
    secret = tmp_path / "usr" / "tool"
    secret.write_text("#!/bin/sh\n")
    secret.chmod(0o751)
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "link").symlink_to(secret)
    (tmp_path / "layer").mkdir()
    monkeypatch.setattr(extra, "find", lambda name: extra.Program(name, str(secret), ()))
    with pytest.raises(ImageError, match="tool may not be read by everybody"):
        extra.fill(str(tmp_path / "layer"), ["tool"], None, layer.Budget())
    # Nor is what a link leads to outside of /usr.
    monkeypatch.setattr(extra, "find", lambda name: extra.Program(name, "/bin/true", (str(tmp_path / "beside"),)))
    extra.fill(str(tmp_path / "layer"), ["true"], None, layer.Budget())
    assert not os.path.lexists(f"{tmp_path}/layer{tmp_path}/beside/link")


def test_only_what_is_lacking_is_brought(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/git").write_text("x")
    (tmp_path / "bin").symlink_to("usr/bin")
    assert extra.lacking(["git"], [str(tmp_path)], "/bin:/usr/bin") == ()
    assert extra.lacking(["git"], [str(tmp_path)], "/usr/local/bin") == ("git",)
