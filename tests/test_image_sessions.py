"""Sessions on images, as a person uses them: from the manifest to the program inside, and back to an empty disk."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sessionctl import beneath
from sessionctl.images import layer, tarball
from tests import archives
from tests.archives import directory, entry, file, tar
from tests.command import Repository, undo_of

ROOT = os.geteuid() == 0


@pytest.fixture
def host(repository: Repository) -> Iterator[Path]:
    """A directory outside of the repository that root's sandboxes can pass into."""
    place = Path(os.environ["SESSIONCTL_STATE_DIR"]).with_suffix(".host")
    place.mkdir(mode=0o755)
    yield place
    beneath.remove_tree(str(place))


@pytest.fixture(scope="session")
def base() -> bytes:
    """The layer that all images here begin with: a shell and a few programs, from the host."""
    return tar([*archives.programs("sh", "cat", "id", "ls", "chown", "rm", "mv", "ln"), directory("etc")])


def placed(repository: Repository, content: bytes, name: str = "image.tar") -> str:
    """An archive in the repository, where no leave is needed for it."""
    beneath.publish(str(repository.root / name), content)
    return f"archive:{name}"


def declare(repository: Repository, image: str, more: str = "") -> None:
    repository.declare(f'[sessions.api]\nimage = "{image}"\n{more}')


def state(repository: Repository) -> list[str]:
    return sorted(os.listdir(repository.state / "images" / "layers"))


def test_a_session_runs_on_an_image(repository: Repository, base: bytes) -> None:
    top = tar([file("srv/data", b"from above\n"), file("etc/passwd", b"web:x:33:33::/srv:/bin/sh\n")])
    settings: dict[str, Any] = {
        "Env": ["GREETING=hi", "HOME=/srv", "PATH=/usr/bin:/bin"],
        "User": "web",
        "WorkingDir": "/srv",
    }
    declare(repository, placed(repository, archives.docker([base, top], **settings)))
    repository.apply()

    said = repository.inside("api", 'id -un; id -u; pwd; cat /srv/data; echo "$GREETING $HOME $PATH"; cat a.txt')
    assert said.out.splitlines() == [
        *("web", "33", "/workspace", "from above", "hi /home/agent /usr/bin:/bin", "a"),
    ]
    # It may write what it finds, and nothing that it writes gets into the image.
    repository.inside(
        "api", "echo new > /srv/data && rm /bin/ls && echo x > /etc/x && chown 7:7 /srv/data && cat /srv/data"
    )
    assert repository.inside("api", "ls", code=127).err
    (root,) = (repository.state / "sessions/api").glob("*/root/upper")
    assert (root / "srv/data").read_text() == "new\n"
    found = [repository.state / "images/layers" / each / "srv/data" for each in state(repository)]
    assert [path.read_text() for path in found if path.exists()] == ["from above\n"]
    # The host's own git reads the work, though the image has none.
    repository.inside("api", "echo b > b.txt")
    assert repository.run("status", "api", "--json").json["dirty"] is True
    assert repository.run("verify").out


def test_nothing_of_the_host_but_the_image_is_there(repository: Repository, base: bytes) -> None:
    declare(repository, placed(repository, base))
    repository.apply()
    with tarfile.open(fileobj=io.BytesIO(base)) as archive:
        ours = {member.name.split("/")[0] for member in archive}
    found = set(repository.inside("api", "ls /").out.split())
    assert found == ours | {"dev", "etc", "home", "proc", "tmp", "workspace"}
    assert "Read-only" in repository.inside("api", "echo x > /.sessionctl/x", code=2).err
    assert repository.inside("api", "ls /home/agent /tmp").out.split() == ["/home/agent:", "/tmp:"]


def test_a_changed_image_is_replaced_and_work_and_home_are_kept(repository: Repository, base: bytes) -> None:
    declare(repository, placed(repository, archives.docker([base, tar([file("version", b"1\n")])])))
    repository.apply()
    repository.inside("api", "echo mine > mine.txt; echo mine > ~/mine; echo lost > /etc/lost")
    before = repository.session("api")

    assert repository.run("plan", "--exit-code").out.startswith("In sync")
    placed(repository, archives.docker([base, tar([file("version", b"2\n")])]))
    plan = repository.run("plan", "--exit-code", "--json", code=3).json
    (change,) = plan["changes"]
    assert change["kind"] == "replace" and [field["path"] for field in change["fields"]] == ["image"]
    repository.apply()

    assert repository.inside("api", "cat /version mine.txt ~/mine").out == "2\nmine\nmine\n"
    assert repository.inside("api", "cat /etc/lost", code=1).err
    after = repository.session("api")
    assert after["sandbox"] != before["sandbox"] and after["image_digest"] != before["image_digest"]
    assert len(list((repository.state / "sessions/api").glob("*/mark"))) == 1

    # The same image from elsewhere is no other sandbox.
    blobs = archives.layout([base, tar([file("version", b"2\n")])])
    archives.lay(repository.root / "layout", blobs)
    declare(repository, "oci:layout:demo")
    repository.apply()
    kept = repository.session("api")
    (repository.root / "layout").rename(repository.root / "moved")
    declare(repository, "oci:moved")
    (change,) = repository.run("plan", "--json").json["changes"]
    assert change["kind"] == "update" and [field["path"] for field in change["fields"]] == ["image.source"]
    repository.apply()
    assert repository.session("api")["sandbox"] == kept["sandbox"]
    assert repository.run("plan", "--exit-code").out.startswith("In sync")

    declare(repository, "host")
    repository.apply()
    assert repository.inside("api", "cat mine.txt ~/mine; test -e /version", code=1).out == "mine\nmine\n"


def test_images_are_listed_and_collected(repository: Repository, base: bytes) -> None:
    assert repository.run("gc", "--yes").out == "nothing to remove\n"
    old = placed(repository, archives.docker([base, tar([file("old")])]))
    new = placed(repository, archives.docker([base, tar([file("new")])]), "new.tar")
    declare(repository, old)
    repository.apply()
    declare(repository, new)
    assert [each["users"] for each in repository.run("images", "--json").json["images"]] == [["api"]]
    assert repository.run("gc", "--dry-run").out == "nothing to remove\n"  # the sandbox still stands on it
    repository.apply()

    first, second = repository.run("images", "--json").json["images"]
    # What was installed over the old one can be brought back, which needs it.
    assert (first["users"], second["users"]) == (["api (snapshot)"], ["api"])
    assert repository.run("gc", "--dry-run").out == "nothing to remove\n"
    beneath.remove_tree(str(repository.state / "snapshots"))
    first, second = repository.run("images", "--json").json["images"]
    assert (first["users"], second["users"]) == ([], ["api"])
    assert set(first["layers"]) & set(second["layers"])
    assert repository.run("gc", code=2).err.startswith("error: nothing was done")
    seen = repository.run("gc", "--dry-run", "--json").json
    assert [each["digest"] for each in seen["images"]] == [first["digest"]]
    assert seen["layers"] == [first["layers"][1]] and seen["kept"] is None
    assert len(repository.run("images", "--json").json["images"]) == 2

    repository.run("gc", "--yes")
    assert [each["digest"] for each in repository.run("images", "--json").json["images"]] == [second["digest"]]
    assert state(repository) == sorted(second["layers"])
    assert repository.inside("api", "ls /new").out == "/new\n"
    # A retained session keeps its image, and one that cannot be read keeps all.
    repository.declare("")
    assert repository.run("gc", "--dry-run").out == "nothing to remove\n"
    (mark,) = (repository.state / "sessions/api").glob("*/mark")
    mark.write_text("?")
    assert repository.run("gc", "--yes", code=3).out.startswith("nothing is removed: a sandbox of api cannot be read")
    assert state(repository) == sorted(second["layers"])


def test_an_image_outside_of_the_repository_needs_leave(repository: Repository, base: bytes, host: Path) -> None:
    (host / "image.tar").write_bytes(base)
    (repository.root / "link.tar").symlink_to(host / "image.tar")
    for image in (f"archive:{host}/image.tar", "archive:link.tar"):
        declare(repository, image)
        said = repository.run("apply", "--yes", code=5)
        assert f"api would take from the host: image: archive:{host}/image.tar" in said.err
        assert not list(Path(os.environ["SESSIONCTL_STATE_DIR"]).glob("*/images"))
    repository.apply("--allow-host")
    repository.apply()
    assert repository.inside("api", "cat a.txt").out == "a\n"


def test_a_rootfs_is_used_where_it_is_and_never_written(repository: Repository, base: bytes, host: Path) -> None:
    layer.unpack(tarball.entries(io.BytesIO(base)), str(host), None, layer.Budget())
    declare(repository, f"rootfs:{host}")
    repository.apply("--allow-host")
    before = repository.files(host)
    assert repository.inside("api", "echo x > /etc/new && cat /etc/new /etc/hostname").out == "x\napi\n"
    assert repository.files(host) == before
    assert repository.run("images", "--json").json["images"] == []
    os.utime(host)
    assert repository.run("plan", "--exit-code", code=3).out.startswith("± api")


@pytest.mark.parametrize("killed", [False, True], ids=["replaced", "mended"])
def test_what_was_installed_over_an_image_that_is_gone_is_kept(
    repository: Repository, base: bytes, host: Path, killed: bool
) -> None:
    """A directory that was moved away, or is not mounted: the sandbox was taken for half made, and removed for good."""
    for version in ("one", "two"):
        (host / version).mkdir()
        layer.unpack(tarball.entries(io.BytesIO(base)), str(host / version), None, layer.Budget())
    declare(repository, f"rootfs:{host}/one")
    repository.apply("--allow-host")
    repository.inside("api", "echo mine > /etc/installed")
    repository.run("stop", "api")
    (host / "one").rename(host / "elsewhere")
    if killed:
        repository.declare("")
        (repository.state / "unfinished").touch()
        repository.apply()
        assert repository.session("api")["observed"] == "partial"
        (host / "elsewhere").rename(host / "one")
        repository.run("start", "api")
    else:
        declare(repository, f"rootfs:{host}/two")
        said = repository.apply("--allow-host").out
        assert "recorded, but its image is gone" in said
        repository.inside("api", "ls /etc/installed", code=2)
        (host / "elsewhere").rename(host / "one")
        repository.run(*undo_of(repository, "rescue"))
    assert repository.inside("api", "cat /etc/installed").out == "mine\n"


@pytest.mark.parametrize("path", ["/", "STATE", "GIT"])
def test_a_rootfs_that_no_session_may_see_is_refused(repository: Repository, path: str) -> None:
    place = {"STATE": os.environ["SESSIONCTL_STATE_DIR"], "GIT": str(repository.root.parent)}.get(path, path)
    if path != "/":
        (Path(place) / "bin").mkdir()
    declare(repository, f"rootfs:{place}")
    assert "cannot be done here: image: " in repository.run("apply", "--yes", "--allow-host", code=2).out


def test_a_broken_image_is_refused_and_the_next_apply_goes_on(repository: Repository, base: bytes) -> None:
    declare(repository, placed(repository, tar([file("bin/a"), file("../../escaped")])))
    said = repository.run("apply", "--yes", code=1)
    assert "entry '../../escaped': '../../escaped' leads out of the image" in said.out
    assert not list(repository.state.rglob("escaped")) and state(repository) == []
    assert not list((repository.state / "sessions/api").glob("*/mark"))
    placed(repository, base)
    repository.apply()
    assert repository.inside("api", "cat a.txt").out == "a\n"
    placed(repository, b"")
    assert repository.run("apply", "--yes", code=1).out.count("cut short") == 1
    assert repository.inside("api", "cat a.txt").out == "a\n"  # the one before goes on


def test_a_manifest_says_what_is_wrong_with_an_image(repository: Repository) -> None:
    for image, why in (
        ("archive:none.tar", "sessions.api.image: 'archive:none.tar' cannot be read: No such file or directory"),
        ("oci:src", "index.json of the layout cannot be read"),
        ("archive:.git/config", "lies inside .git"),
        ("debian:12", "is not supported yet: nothing is fetched from a registry"),
        ("tarball:x y", "is no image (expected host, rootfs:DIR, archive:FILE or oci:LAYOUT[:TAG])"),
    ):
        declare(repository, image)
        assert why in repository.run("plan", code=2).err


# --- links that lead out of an image -----------------------------------------------------------


@pytest.mark.parametrize("point", ["etc", "home", "workspace", "tmp", "proc", ".sessionctl"])
def test_a_link_in_the_place_of_a_mount_point_leads_nowhere(
    repository: Repository, base: bytes, host: Path, point: str
) -> None:
    host.chmod(0o777)
    # Where bwrap has the host's file system while it sets a sandbox up.
    members = [entry(point, tarfile.SYMTYPE, linkname=f"/oldroot{host}")]
    with_link = archives.docker(
        [base.replace(b"etc/", b"srv/", 1) if False else base, tar([file(f".wh.{point}")]), tar(members)]
    )
    declare(repository, placed(repository, with_link))
    said = repository.run("apply", "--yes", code=1)
    assert f"/{point}" in said.out and "symbolic link" in said.out
    assert list(host.iterdir()) == []


def test_an_agent_cannot_lead_the_next_start_out(repository: Repository, base: bytes, host: Path) -> None:
    host.chmod(0o777)
    declare(repository, placed(repository, base))
    repository.apply()
    repository.inside("api", f"mv /home /home2 && ln -s /oldroot{host} /home")
    repository.run("stop", "api")
    assert "a symbolic link is on the way" in repository.run("start", "api", code=1).err
    assert list(host.iterdir()) == []
    (upper,) = (repository.state / "sessions/api").glob("*/root/upper")
    (upper / "home").unlink()
    repository.run("start", "api")
    assert repository.inside("api", "cat a.txt").out == "a\n"


# --- images that other tools made --------------------------------------------------------------


@pytest.mark.skipif(not (shutil.which("umoci") and shutil.which("busybox")), reason="umoci or busybox is missing here")
def test_a_layout_made_by_umoci(repository: Repository, tmp_path: Path) -> None:
    def umoci(*args: str) -> None:
        done = subprocess.run(["umoci", *args], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    rootless = [] if ROOT else ["--rootless"]
    umoci("init", "--layout", "made")
    umoci("new", "--image", "made:v1")
    umoci("unpack", *rootless, "--image", "made:v1", "bundle")
    root = tmp_path / "bundle/rootfs"
    (root / "bin").mkdir()
    shutil.copy(str(shutil.which("busybox")), root / "bin/busybox")
    for name in ("sh", "cat", "ls"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "data/old").mkdir(parents=True)
    (root / "data/old/a").touch()
    (root / "data/gone").touch()
    umoci("repack", "--refresh-bundle", "--image", "made:v1", "bundle")
    shutil.rmtree(root / "data/old")
    (root / "data/gone").unlink()
    (root / "data/old").mkdir()
    (root / "data/old/b").touch()
    umoci("repack", "--refresh-bundle", "--image", "made:v2", "bundle")
    shutil.copytree(tmp_path / "made", repository.root / "made")

    declare(repository, "oci:made:v2")
    repository.apply()
    assert repository.inside("api", "ls /data /data/old").out.split() == ["/data:", "old", "/data/old:", "b"]
    declare(repository, "oci:made:v1")
    repository.apply()
    assert repository.inside("api", "ls /data /data/old").out.split() == ["/data:", "gone", "old", "/data/old:", "a"]
    assert len(state(repository)) == 2


@pytest.mark.skipif(not shutil.which("dpkg-deb") or not shutil.which("dpkg"), reason="dpkg is missing here")
def test_a_package_is_installed_inside(repository: Repository, tmp_path: Path, base: bytes) -> None:
    package = tmp_path / "package"
    archives.lay(
        package,
        {
            "DEBIAN/control": b"Package: greeting\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n",
            "usr/share/greeting/text": b"hello\n",
        },
    )
    (package / "DEBIAN").chmod(0o755)
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", str(package), str(repository.root / "greeting.deb")],
        check=True,
        capture_output=True,
    )
    # Of these dpkg asks whether they are there; what it does itself needs no more than dpkg-deb and tar.
    tools = archives.programs("dpkg", "dpkg-deb", "dpkg-split", "tar", "rm", "sh", "cat", "ldconfig")
    admin: list[archives.Member] = [
        file("var/lib/dpkg/status"),
        directory("var/lib/dpkg/info"),
        directory("var/lib/dpkg/updates"),
    ]
    tools.append(file("bin/start-stop-daemon", b"#!/bin/sh\n", 0o755))
    declare(
        repository,
        placed(repository, tar([*tools, *admin, directory("etc")])),
        'env = { PATH = "/bin:/sbin" }\nworkspace = { include = ["greeting.deb"] }\n',
    )
    repository.apply()
    repository.inside("api", "dpkg --force-bad-path -i greeting.deb")
    assert repository.inside("api", "cat /usr/share/greeting/text").out == "hello\n"


def test_killed_while_it_unpacks_the_next_apply_converges(repository: Repository, base: bytes) -> None:
    many = tar([file(f"many/{number}", b"x" * 100) for number in range(20_000)])
    declare(repository, placed(repository, archives.docker([base, many])))
    command = [sys.executable, "-m", "sessionctl", "apply", "--yes"]
    for _ in range(2):
        with subprocess.Popen(command, cwd=repository.root, stdout=subprocess.DEVNULL) as running:
            state_dir = Path(os.environ["SESSIONCTL_STATE_DIR"])
            until = time.monotonic() + 60
            while not list(state_dir.glob("*/images/.sessionctl-*/many")):
                assert running.poll() is None and time.monotonic() < until, "it was too fast, or never came so far"
                time.sleep(0.001)
            running.kill()
        assert len(state(repository)) == 1
    repository.apply()
    assert len(os.listdir(repository.state / "images")) == 2  # the description, and the layers
    assert repository.inside("api", "cat /many/19999").out == "x" * 100


def test_directories_and_files_are_mounted_in_an_image_and_no_link_is_followed(
    repository: Repository, base: bytes, host: Path
) -> None:
    host.chmod(0o777)
    mounts = 'mounts = [{ source = "src", path = "/opt/src" }, { source = "a.txt", path = "/opt/a" }]\n'
    image = placed(repository, archives.docker([base, tar([file("opt/other")])]))
    declare(repository, image, mounts)
    repository.apply("--allow-host")
    assert repository.inside("api", "cat /opt/a /opt/src/main.py; ls /opt").out.split("\n")[:2] == [
        "a",
        "print('hello')",
    ]

    link = entry("opt/a", tarfile.SYMTYPE, linkname=f"/oldroot{host}/made")
    declare(repository, placed(repository, archives.docker([base, tar([link])])), mounts)
    assert "nothing can be mounted at /opt/a" in repository.apply("--allow-host", code=1).out
    assert list(host.iterdir()) == []


def test_undo_after_replace_what_was_installed_comes_back_with_a_snapshot_a_fork_and_undo(
    repository: Repository, base: bytes
) -> None:
    declare(repository, placed(repository, base, "a.tar"))
    repository.apply()
    repository.inside("api", "echo one > /etc/installed; echo w > work")
    repository.run("snapshot", "api")
    repository.inside("api", "rm /etc/installed; echo two > /etc/other")
    repository.run("restore", "api", "--yes")
    assert repository.inside("api", "cat /etc/installed; ls /etc/other 2>&1 | cat; cat work").out.startswith("one\n")
    repository.inside("api", "ls /etc/other", code=2)
    repository.run("restore", "api", "--yes", "--only", "workspace")
    assert repository.inside("api", "cat /etc/installed").out == "one\n"
    repository.run("fork", "api", "try")
    assert repository.inside("try", "cat /etc/installed work").out == "one\nw\n"
    repository.run("plan", "--exit-code")
    # Another image: what was installed goes, and is kept.
    declare(repository, placed(repository, base + tar([file("etc/new", b"new")]), "b.tar"))
    said = repository.apply().out
    repository.inside("api", "ls /etc/installed", code=2)
    repository.inside("api", "echo later > work")
    undo = undo_of(repository, "rescue")
    assert f"sessionctl {' '.join(undo)}" in said
    repository.run(*undo)
    assert repository.inside("api", "cat /etc/installed work").out == "one\nlater\n"
    assert "replace" in repository.run("plan").out
    repository.declare("")
    assert repository.run("gc", "--dry-run", "--json").json["images"] == []
