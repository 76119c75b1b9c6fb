"""What a manifest names on the host: files, includes, mounts, secrets."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from sessionctl import manifest
from sessionctl import settings as settings_module
from sessionctl.errors import UntrustedError
from sessionctl.model import FileSpec
from sessionctl.plan import taken
from tests import manifests
from tests.manifests import refusal, resolve, spec


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return manifests.work_tree(tmp_path)


def source(root: Path, path: str) -> FileSpec:
    return spec(root, f'files = [{{ path = "~/a", source = {json.dumps(path)} }}]').files[0]


def test_a_source_is_found_from_the_manifest_and_named_by_its_real_path(root: Path) -> None:
    (root / "sub").mkdir()
    (root / "sub" / "real").write_bytes(b"\x00\xff")
    (root / "link").symlink_to("sub/real")
    for path in ("sub/real", "link", str(root / "link"), "sub/../link"):
        assert source(root, path) == FileSpec("~/a", hashlib.sha256(b"\x00\xff").hexdigest(), source=f"{root}/sub/real")
    moved = root / "sub" / "sessions.toml"
    moved.write_text('version = 1\n[sessions.api]\nfiles = [{ path = "~/a", source = "real" }]')
    found = manifest.resolve(moved, root, settings=settings_module.load(root))
    assert found.declared["api"].spec.files[0].source == f"{root}/sub/real"
    assert found.origins["api"]["files.~/a"] == "sub/sessions.toml:3"
    assert found.inputs == (f"{root}/sub/real",)


def test_a_source_outside_of_the_repository_needs_trust(root: Path, home: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    (home / "key").write_text("s")
    (root / "link").symlink_to(secret)
    (root / "dir").symlink_to(tmp_path)
    for path, real in {
        **dict.fromkeys(("../secret", str(secret), "link", "dir/secret"), str(secret)),
        "~/key": f"{home}/key",
    }.items():
        found = source(root, path)
        assert (found.source, found.outside) == (real, True)
        assert taken(spec(root, f'files = [{{ path = "~/a", source = "{path}" }}]').data()) == (f"files.~/a: {real}",)
    (root / "inside").write_text("s")
    assert not source(root, "inside").outside


def test_what_is_wrong_is_said_before_what_needs_trust(root: Path) -> None:
    (root / "out").symlink_to("/etc/passwd")
    assert "unknown key" in refusal(root, 'workspace.include = ["out"]\nzzz = 1')


def test_what_is_named_on_the_host_is_named_by_where_it_leads(root: Path, home: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to("../elsewhere")
    found = resolve(
        root,
        'version = 1\n[sessions.api]\nmounts = [{ source = "link/a", path = "/a" },'
        ' { source = "~", path = "/b" }]\nenv = { K = { from_file = "link" } }\n',
    )
    api = found.declared["api"].spec
    assert [mount.source for mount in api.mounts] == [f"{tmp_path}/elsewhere/a", str(home)]
    assert api.env == {"K": {"from_file": f"{tmp_path}/elsewhere"}}
    assert set(found.links) == {f"{root}/link/a", str(home), f"{root}/link"} and found.inputs == ()
    assert found.origins["api"]["mounts./b"] == "sessions.toml:3"


@pytest.mark.parametrize(
    ("mounts", "words"),
    [
        ('[{ source = "a" }]', "mounts[0].path: is missing"),
        ('[{ path = "/a" }]', "mounts[0].source: is missing"),
        ('[{ source = "", path = "/a" }]', "mounts[0].source"),
        ('[{ source = "a", path = "a" }]', "is not an absolute path"),
        ('[{ source = "a", path = "/a/../etc" }]', "is not an absolute path"),
        ('[{ source = "a", path = "/a/" }]', "is not an absolute path"),
        ('[{ source = "a", path = "//a" }]', "is not an absolute path"),
        ('[{ source = "a", path = "/" }]', "is the sandbox's own; choose"),
        ('[{ source = "a", path = "/home" }]', "is the sandbox's own; choose"),
        ('[{ source = "a", path = "/home/agent" }]', "is the sandbox's own; choose"),
        ('[{ source = "a", path = "/tmp" }]', "is the sandbox's own; choose"),
        ('[{ source = "a", path = "/proc/x" }]', "as all of /proc is"),
        ('[{ source = "a", path = "/sys" }]', "as all of /sys is"),
        ('[{ source = "a", path = "/dev/shm" }]', "as all of /dev is"),
        ('[{ source = "a", path = "/etc/ssl" }]', "as all of /etc is"),
        ('[{ source = "a", path = "/usr" }]', "as all of /usr is"),
        ('[{ source = "a", path = "/bin" }]', "as all of /bin is"),
        ('[{ source = "a", path = "/.sessionctl/init" }]', "as all of /.sessionctl is"),
        ('[{ source = "a", path = "/workspace" }]', "is the sandbox's own; choose"),
        ('[{ source = "a", path = "/workspace/.GIT/hooks" }]', "lies inside .git"),
        ('[{ source = "a", path = "/workspace/.GIT/hooks" }]', "lies inside .git"),
        (f'[{{ source = "a", path = "/{"a/" * 600}b" }}]', "is longer than 1024"),
        ('[{ source = "a", path = "/a\\u0007" }]', "control character"),
        ('[{ source = "a\\u0000", path = "/a" }]', "control character"),
        ('[{ source = "a", path = "/a", mode = "wr" }]', "expected 'ro' or 'rw'"),
        ('[{ source = "a", path = "/a" }, { source = "b", path = "/a" }]', "names '/a' twice"),
        (
            '[{ source = "a", path = "/a/b/c" }, { source = "b", path = "/a" }]',
            "'/a/b/c' lies below another mount, '/a'",
        ),
    ],
)
def test_a_mount_that_cannot_be(root: Path, mounts: str, words: str) -> None:
    assert words in refusal(root, f"mounts = {mounts}")


def test_a_file_that_a_mount_would_hide_is_refused(root: Path) -> None:
    files = 'files = [{ path = "~/.c/a", content = "" }]'
    line = refusal(root, f'{files}\nmounts = [{{ source = "a", path = "/home/agent/.c" }}]')
    assert line.startswith("sessions.toml:3: sessions.api.files[0].path: '~/.c/a' would be hidden")
    assert spec(root, f'{files}\nmounts = [{{ source = "a", path = "/home/agent/.ca" }}]')


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{}", "env.A: needs either from_env or from_file"),
        ('{ from_env = "A", from_file = "a" }', "env.A: needs either from_env or from_file"),
        ('{ from_env = "" }', "env.A.from_env: is not the name of an environment variable"),
        ('{ from_env = "A=B" }', "env.A.from_env: is not the name of an environment variable"),
        ('{ from_file = "" }', "env.A.from_file"),
        ('{ from_envv = "A" }', "env.A.from_envv: unknown key (did you mean 'from_env'?)"),
        ("1", "env.A: expected a string (put it in quotes)"),
    ],
)
def test_a_variable_that_cannot_be(root: Path, value: str, words: str) -> None:
    line = refusal(root, f"env = {{ A = {value} }}")
    assert line.startswith("sessions.toml:3: sessions.api.") and words in line


def test_the_users_own_word_needs_no_trust(root: Path, home: Path, config: Path) -> None:
    (home / "key").write_text("s")
    (config.parent / "near").write_text("n")
    config.write_text('[defaults]\nfiles = [{ path = "~/a", source = "~/key" }, { path = "~/b", source = "near" }]')
    assert [Path(file.source).name for file in spec(root, "").files] == ["key", "near"]


@pytest.mark.parametrize("path", [".git/config", "sub/.git/config", "link"])
def test_nothing_is_taken_from_git(root: Path, path: str) -> None:
    (root / "sub" / ".git").mkdir(parents=True)
    for file in (root / ".git" / "config", root / "sub" / ".git" / "config"):
        file.write_text("x")
    (root / "link").symlink_to(".git/config")
    assert "lies inside .git" in refusal(root, f'files = [{{ path = "~/a", source = "{path}" }}]')
    assert "lies inside .git" in refusal(root, f'workspace.include = ["{path}"]')


def test_a_source_is_a_regular_file_of_at_most_16_mib(root: Path) -> None:
    def said(path: str) -> str:
        return refusal(root, f'files = [{{ path = "~/a", source = "{path}" }}]')

    (root / "dir").mkdir()
    os.mkfifo(root / "fifo")
    with (root / "large").open("wb") as sparse:
        sparse.truncate(16 * 1024 * 1024 + 1)
    assert "cannot be read: No such file" in said("nothing")
    assert "cannot be read" in said("dir")
    assert "cannot be read" in said("fifo")
    assert "cannot be read" in said("large")
    os.truncate(root / "large", 16 * 1024 * 1024)
    assert source(root, "large").sha256 == hashlib.sha256(bytes(16 * 1024 * 1024)).hexdigest()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ('[{ path = "~/a" }]', "needs either source or content"),
        ('[{ path = "~/a", source = "" }]', "files[0].source"),
        ('[{ content = "" }]', "files[0].path: is missing"),
        ('[{ path = "~/../a", content = "" }]', "is not a path below ~/"),
        ('[{ path = "~/a//b", content = "" }]', "is not a path below ~/"),
        ('[{ path = "~/", content = "" }]', "is not a path below ~/"),
        (f'[{{ path = "~/{"a/" * 600}b", content = "" }}]', "is longer than 1024 characters"),
        ('[{ path = "~/a\\u0000", content = "" }]', "holds a control character"),
        ('[{ path = "~/a", content = "" }, { path = "~/a", content = "" }]', "names '~/a' twice"),
        ('[{ path = "~/a/b/c", content = "" }, { path = "~/a", content = "" }]', "'~/a/b/c' lies below"),
        ('[{ path = "~/a", content = "", mode = "600" }]', "four octal digits"),
        ('[{ path = "~/a", content = "", mode = "2755" }]', "four octal digits"),
        ('[{ path = "~/a", content = "", mode = 0o600 }]', "expected a string (put it in quotes)"),
    ],
)
def test_a_file_that_cannot_be_injected(root: Path, files: str, words: str) -> None:
    assert words in refusal(root, f"files = {files}")


def test_an_include_is_a_file_of_the_repository(root: Path, tmp_path: Path) -> None:
    (root / "dir").mkdir()
    (root / "dir" / "a").write_text("")
    (root / "link").symlink_to("dir/a")
    (tmp_path / "secret").write_text("")
    (root / "out").symlink_to(tmp_path / "secret")
    found = resolve(root, 'version = 1\n[sessions.api]\nworkspace.include = ["dir/a", "link"]')
    assert found.declared["api"].spec.workspace.include == ("dir/a", "link")
    assert found.inputs == (f"{root}/dir/a", f"{root}/link")
    for include, words in {
        "/etc/passwd": "is not a relative path",
        "../secret": "is not a relative path",
        "./dir/a": "is not a relative path",
        "dir": "is not a regular file",
        "nothing": "does not exist",
        ".GIT/config": "lies inside .git",
    }.items():
        line = refusal(root, f'workspace.include = ["dir/a", "{include}"]')
        assert "sessions.api.workspace.include[1]" in line and words in line
    with pytest.raises(UntrustedError, match=r"include\[0\]: 'out' leads outside"):
        spec(root, 'workspace.include = ["out"]')
