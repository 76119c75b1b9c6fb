"""The fast path: the same answer, sooner; never an old one, and never from a file that is not ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import sessionctl
from sessionctl import declared, manifest, model, settings
from sessionctl.declared import Resolved
from sessionctl.errors import ManifestError, UsageError

TEXT = """\
version = 1
[sessions.api]
title = "old"
files = [{ path = "~/a", source = "injected" }]
workspace.include = [".env"]
[sessions.b]
count = 2
"""
HEAVY = ("pydantic", "pydantic_settings", "tomlkit", "git", "tomllib")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a manifest that depends on everything a manifest can depend on."""
    root = tmp_path / "repo"
    (root / ".git").mkdir(parents=True)
    (root / "sessions.toml").write_text(TEXT)
    (root / "injected").write_text("old")
    (root / ".env").write_text("A=1")
    return root


def resolve(root: Path, *overrides: str, **flags: object) -> Resolved:
    return declared.resolve(root / "sessions.toml", root, flags=flags, overrides=overrides)


def kept(home: Path) -> list[Path]:
    return sorted((home / "cache" / "sessionctl").glob("*"))


def settle(home: Path, ask: Callable[[], object]) -> Path:
    """Asks until the answer is kept: files just written are too young to be relied on. Where it is kept."""
    deadline = time.monotonic() + 20
    before = kept(home)
    while kept(home) == before:
        assert time.monotonic() < deadline, "never kept"
        ask()
    (new,) = set(kept(home)) - set(before)
    return new


def heavy_imports(root: Path) -> list[str]:
    """What of `HEAVY` a process imports that asks once. Checks that its answer is ours."""
    code = (
        "import sys; root = sys.argv[1]\n"
        "from sessionctl import declared\n"
        "found = declared.resolve(root + '/sessions.toml', root, flags={}, overrides=())\n"
        f"loaded = [name for name in {HEAVY} if name in sys.modules]\n"
        "import json; print(json.dumps([loaded, found.settings, found.declared]))"
    )
    done = subprocess.run([sys.executable, "-c", code, root], capture_output=True, text=True, check=True)
    loaded, tool, found = json.loads(done.stdout)
    assert tool == list(resolve(root).settings)
    assert found == json.loads(json.dumps(resolve(root).declared))
    return list(loaded)


def test_the_answer_is_that_of_manifest_and_settings_kept_or_not(root: Path, home: Path) -> None:
    chosen = settings.load(root, {"jobs": 3})
    found = manifest.resolve(root / "sessions.toml", root, settings=chosen)
    month = 30 * 86400
    expected = Resolved(declared.Tool(str(chosen.state_dir), 3, "auto", trash_expiry=month), found.declared)
    assert resolve(root, jobs=3) == expected
    settle(home, lambda: resolve(root, jobs=3))
    assert resolve(root, jobs=3) == expected
    assert list(resolve(root, jobs=3).declared) == ["api", "b-1", "b-2"]


def test_a_kept_answer_needs_none_of_the_slow_modules(root: Path, home: Path) -> None:
    assert "pydantic" in heavy_imports(root)
    (home / "cache" / "sessionctl").rename(home / "old")
    settle(home, lambda: resolve(root))
    assert heavy_imports(root) == []


def _everything_below(*directories: Path) -> dict[Path, tuple[int, int, int]]:
    found = {}
    for directory in directories:
        for path in [directory, *directory.rglob("*")]:
            info = path.lstat()
            found[path] = (info.st_ino, info.st_mtime_ns, info.st_ctime_ns)
    return found


def test_a_kept_answer_writes_nothing(root: Path, home: Path) -> None:
    settle(home, lambda: resolve(root))
    before = _everything_below(root, home)
    resolve(root)
    heavy_imports(root)
    assert _everything_below(root, home) == before


def test_what_is_kept_is_for_its_owner_alone(root: Path, home: Path) -> None:
    file = settle(home, lambda: resolve(root))
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


# --- nothing old -------------------------------------------------------------------------------


def _write(path: str, content: str) -> Callable[[Path, Path, pytest.MonkeyPatch], None]:
    def change(root: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = Path(path.format(root=root, home=home))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    return change


def _same_times(root: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `rsync --inplace --times` writes."""
    info = (root / "injected").stat()
    (root / "injected").write_text("new")
    os.utime(root / "injected", ns=(info.st_atime_ns, info.st_mtime_ns))


def _other_file_of_that_name(root: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = (root / "injected").stat()
    (root / "other").write_text("new")
    os.utime(root / "other", ns=(info.st_atime_ns, info.st_mtime_ns))
    (root / "other").rename(root / "injected")


def _variable(name: str, value: str) -> Callable[[Path, Path, pytest.MonkeyPatch], None]:
    return lambda root, home, monkeypatch: monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_write("{root}/sessions.toml", TEXT.replace("old", "new")), id="manifest, same size"),
        pytest.param(_write("{root}/injected", "newer"), id="injected file"),
        pytest.param(_same_times, id="injected file, same size and times"),
        pytest.param(_other_file_of_that_name, id="injected file replaced"),
        pytest.param(_write("{home}/config/sessionctl/config.toml", '[defaults]\nagent = "pi"\n'), id="user config"),
        pytest.param(_variable("SESSIONCTL_SESSION__AGENT", "pi"), id="session variable"),
        pytest.param(_variable("SESSIONCTL_JOBS", "1"), id="tool variable"),
        pytest.param(_variable("XDG_STATE_HOME", "/elsewhere"), id="state home")
        if os.geteuid() != 0
        else pytest.param(_variable("SESSIONCTL_STATE_DIR", "/elsewhere"), id="state directory"),
    ],
)  # fmt: skip
def test_a_change_of_anything_it_depends_on_is_seen(
    root: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path, Path, pytest.MonkeyPatch], None],
) -> None:
    settle(home, lambda: resolve(root))
    before = resolve(root)
    change(root, home, monkeypatch)
    after = resolve(root)
    assert after != before
    chosen = settings.load(root)
    assert after.declared == manifest.resolve(root / "sessions.toml", root, settings=chosen).declared
    assert after.settings[:3] == (str(chosen.state_dir), chosen.jobs, chosen.color)
    assert after.settings[3:] == before.settings[3:]


def test_a_user_config_that_goes_is_seen(root: Path, home: Path, config: Path) -> None:
    config.write_text("jobs = 1")
    settle(home, lambda: resolve(root))
    assert resolve(root).settings.jobs == 1
    config.unlink()
    assert resolve(root).settings.jobs != 1


def test_flags_and_overrides_are_part_of_the_question(root: Path, home: Path) -> None:
    settle(home, lambda: resolve(root))
    assert resolve(root, color="never").settings.color == "never"
    assert resolve(root, "title=flag").declared["api"].spec.title == "flag"
    assert resolve(root, "title=other").declared["api"].spec.title == "other"
    assert resolve(root, color=None) == resolve(root)


def test_a_new_release_and_a_new_normaliser_ask_again(root: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = settle(home, lambda: resolve(root))
    for module, name, value in ((sessionctl, "__version__", "99"), (model, "NORMALISER", 99)):
        before = file.stat().st_ino
        resolve(root)
        assert file.stat().st_ino == before
        monkeypatch.setattr(module, name, value)
        resolve(root)
        assert file.stat().st_ino != before


def test_what_comes_to_need_trust_or_goes_is_refused_at_once(root: Path, home: Path, tmp_path: Path) -> None:
    settle(home, lambda: resolve(root))
    (tmp_path / "secret").write_text("old")
    (root / "injected").rename(root / "moved")
    with pytest.raises(ManifestError, match="No such file"):
        resolve(root)
    (root / "injected").symlink_to("moved")
    assert resolve(root).declared["api"].spec.files[0].source == f"{root}/moved"
    (root / ".env").unlink()
    with pytest.raises(ManifestError, match="does not exist"):
        resolve(root)


def test_of_what_is_mounted_or_secret_only_where_it_leads_is_kept(root: Path, home: Path, tmp_path: Path) -> None:
    manifest = root / "sessions.toml"
    manifest.write_text(
        'version = 1\n[sessions.api]\nmounts = [{ source = "link", path = "/a" }]\n'
        'env = { A = { from_env = "TOKEN" }, B = { from_file = "../key" } }\n'
    )
    (root / "link").symlink_to("one")
    (tmp_path / "key").write_text("s3cr3t")
    file = settle(home, lambda: resolve(root))
    assert "s3cr3t" not in file.read_text()
    (tmp_path / "key").write_text("a longer secret")
    (root / "one").mkdir(exist_ok=True)
    assert resolve(root).declared["api"].spec.mounts[0].source == f"{root}/one"
    assert heavy_imports(root) == [], "it asked again because of what it has no business with"
    (root / "link").unlink()
    (root / "link").symlink_to("two")
    assert resolve(root).declared["api"].spec.mounts[0].source == f"{root}/two"


def test_an_answer_from_files_that_are_still_being_written_is_not_kept(root: Path, home: Path) -> None:
    settle(home, lambda: resolve(root))
    (root / "injected").write_text("new")
    os.utime(root / "injected", ns=(time.time_ns() + 10**12, time.time_ns() + 10**12))
    before = kept(home)[0].stat().st_ino
    resolve(root)
    assert kept(home)[0].stat().st_ino == before


def test_an_error_is_never_kept(root: Path, home: Path) -> None:
    (root / "sessions.toml").write_text("version = 2")
    for _ in range(3):
        with pytest.raises(ManifestError):
            resolve(root)
    assert kept(home) == []
    with pytest.raises(UsageError, match="relative"):
        resolve(root, state_dir="relative")


# --- a cache is no authority -------------------------------------------------------------------


@given(st.binary(max_size=60), st.integers(0, 3000), st.booleans())
@hypothesis_settings(
    database=None, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_in_the_cache_cost_time_only(root: Path, home: Path, piece: bytes, at: int, whole: bool) -> None:
    expected = resolve(root)
    (file,) = kept(home) or [settle(home, lambda: resolve(root))]
    content = file.read_bytes()
    file.write_bytes(piece if whole else content[:at] + piece + content[at + len(piece) :])
    assert resolve(root) == expected


def _instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def spoil(file: Path) -> None:
        file.unlink()
        make(file)

    return spoil


_SPOILED: dict[str, Callable[[Path], object]] = {
    "absent": Path.unlink,
    "a directory": _instead(Path.mkdir),
    "a link": lambda file: file.symlink_to(file.rename(f"{file}.moved")),
    "a FIFO": _instead(os.mkfifo),
    "writable": lambda file: file.chmod(0o666),
    "in a writable directory": lambda file: file.parent.chmod(0o777),
}
if os.geteuid() == 0:  # nobody else can give a file away
    _SPOILED["another user's"] = lambda file: os.chown(file, 12345, 12345)
    _SPOILED["in another user's directory"] = lambda file: os.chown(file.parent, 12345, 12345)


@pytest.mark.parametrize("spoil", _SPOILED)
def test_a_cache_that_others_could_have_written_is_not_believed(root: Path, home: Path, spoil: str) -> None:
    file = settle(home, lambda: resolve(root))
    assert heavy_imports(root) == []
    _SPOILED[spoil](file)
    assert "pydantic" in heavy_imports(root)


def test_a_cache_that_cannot_be_written_is_no_error(root: Path, home: Path) -> None:
    (home / "cache").write_text("in the way")
    assert resolve(root) == resolve(root)


def test_each_manifest_has_an_answer_of_its_own(root: Path, home: Path) -> None:
    other = root / "other"
    other.mkdir()
    (other / "sessions.toml").write_text("version = 1\n[sessions.other]\n")
    first = settle(home, lambda: resolve(root))
    second = settle(home, lambda: declared.resolve(other / "sessions.toml", root, flags={}, overrides=()))
    assert first != second
    assert list(declared.resolve(other / "sessions.toml", root, flags={}, overrides=()).declared) == ["other"]
    assert list(resolve(root).declared) == ["api", "b-1", "b-2"]


# --- how the tool works ------------------------------------------------------------------------


def test_how_the_tool_works_needs_no_manifest(root: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "sessions.toml").unlink()
    settle(home, lambda: declared.tool({"jobs": 2}, root))
    assert declared.tool({"jobs": 2}, root).jobs == 2
    assert declared.tool({"jobs": 3}, root).jobs == 3
    monkeypatch.setenv("SESSIONCTL_COLOR", "never")
    assert declared.tool({"jobs": 2}, root).color == "never"
    with pytest.raises(UsageError, match="lies in the repository"):
        declared.tool({"state_dir": str(root / "x")}, root)
    assert declared.tool({"state_dir": str(root / "x")}).state_dir == str(root / "x")
