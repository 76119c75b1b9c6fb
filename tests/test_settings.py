"""How the tool works: flags > SESSIONCTL_* > user config > built-in, and what is refused."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sessionctl import declared, settings
from sessionctl.declared import cpus
from sessionctl.errors import UsageError


def refusal(root: Path | None = None, **flags: object) -> str:
    with pytest.raises(UsageError) as caught:
        settings.load(root, flags)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_without_any_word_the_built_in_values_are_used(home: Path) -> None:
    found = settings.load()
    default = Path("/var/lib/sessionctl") if os.geteuid() == 0 else home / "state" / "sessionctl"
    assert (found.state_dir, found.jobs, found.color) == (default, min(8, 2 * cpus()), "auto")
    assert (found.forbid, found.session, found.config) == ((), {}, None)
    assert set(found.origins.values()) == {"built-in"}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("state_dir", ("/config/state", "/variable/state", "/flag/state")),
        ("jobs", (2, 3, 4)),
        ("color", ("never", "always", "auto")),
    ],
)
def test_each_source_overrides_the_one_below_and_is_named(
    config: Path, monkeypatch: pytest.MonkeyPatch, name: str, values: tuple[object, object, object]
) -> None:
    def found(**flags: object) -> tuple[str, str]:
        loaded = settings.load(flags=flags)
        return str(getattr(loaded, name)), loaded.origins[name]

    quoted = values[0] if isinstance(values[0], int) else f'"{values[0]}"'
    config.write_text(f"\n{name} = {quoted}\n")
    assert found() == (str(values[0]), "user config:2")
    monkeypatch.setenv(f"SESSIONCTL_{name.upper()}", str(values[1]))
    assert found() == (str(values[1]), f"SESSIONCTL_{name.upper()}")
    assert found(**{name: values[2]}) == (str(values[2]), f"--{name.replace('_', '-')}")
    assert found(**{name: None}) == (str(values[1]), f"SESSIONCTL_{name.upper()}")


def test_a_relative_xdg_directory_does_not_count(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".config" / "sessionctl").mkdir(parents=True)
    (home / ".config" / "sessionctl" / "config.toml").write_text("jobs = 7")
    monkeypatch.setenv("XDG_CONFIG_HOME", "config")
    assert settings.load().jobs == 7


def test_a_tilde_in_a_state_directory_is_the_home(config: Path, home: Path) -> None:
    config.write_text('state_dir = "~/mine"')
    assert settings.load().state_dir == home / "mine"


def test_hooks_may_apply_only_where_the_user_config_says_so(config: Path) -> None:
    assert not settings.load().hooks.apply
    config.write_text("[hooks]\napply = true\n")
    assert settings.load().hooks.apply
    assert declared.tool().hooks_apply  # and again, from the cache
    assert declared.tool().hooks_apply
    config.write_text("[hooks]\napply = false\n")
    assert not declared.tool().hooks_apply


def test_session_values_and_prohibitions_are_collected(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('forbid = ["workspace.history=shared", "env.A=1"]\n[defaults]\nbackend = "x"\n')
    monkeypatch.setenv("SESSIONCTL_SESSION__WORKSPACE__BASE", "v1")
    found = settings.load()
    assert found.forbid == ("workspace.history=shared", "env.A=1")
    assert found.session == {"SESSIONCTL_SESSION__WORKSPACE__BASE": "v1"}
    assert found.config is not None and found.config.data["defaults"] == {"backend": "x"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SESSIONCTL_JOSB", "3", "SESSIONCTL_JOSB: unknown variable (did you mean 'SESSIONCTL_JOBS'?)"),
        ("sessionctl_jobs", "3", "sessionctl_jobs: unknown variable"),
        ("SESSIONCTL_FORBID", "[]", "SESSIONCTL_FORBID: unknown variable"),
        ("SESSIONCTL_HOOKS", '{"apply": true}', "SESSIONCTL_HOOKS: unknown variable"),
        ("SESSIONCTL_CONFIG", "{}", "SESSIONCTL_CONFIG: unknown variable"),
        ("SESSIONCTL_SESSION", "{}", "SESSIONCTL_SESSION: unknown variable"),
        ("SESSIONCTL_JOBS", "many", "SESSIONCTL_JOBS: should be a valid integer"),
        ("SESSIONCTL_JOBS", "0", "SESSIONCTL_JOBS: should be greater than or equal to 1"),
        ("SESSIONCTL_JOBS", "", "SESSIONCTL_JOBS: should be a valid integer"),
        ("SESSIONCTL_COLOR", "red", "SESSIONCTL_COLOR: expected 'auto', 'always' or 'never'"),
        ("SESSIONCTL_STATE_DIR", "state", "SESSIONCTL_STATE_DIR: 'state' is not an absolute path"),
        ("SESSIONCTL_STATE_DIR", "", "SESSIONCTL_STATE_DIR: '.' is not an absolute path"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    monkeypatch.setenv(name, value)
    assert words in refusal()


def test_a_variable_that_others_read_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in settings.NOT_SETTINGS:
        monkeypatch.setenv(name, "/x")
    assert settings.load().session == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\njosb = 3", ":2: josb: unknown key (did you mean 'jobs'?)"),
        ("session = {}", ":1: session: unknown key"),
        ("origins = {}", ":1: origins: unknown key"),
        ("jobs = true", ":1: jobs: expected a whole number"),
        ("jobs = 1.0", ":1: jobs: expected a whole number"),
        ('color = "red"', ":1: color: expected"),
        ("state_dir = 3", ":1: state_dir:"),
        ('state_dir = "x"', ":1: state_dir: 'x' is not an absolute path"),
        ('state_dir = "/x\\u0000"', ":1: state_dir: holds a NUL character"),
        ('forbid = "x"', ":1: forbid: expected an array"),
        ('forbid = [\n"state"]', ":2: forbid[0]: 'state' is not PATH=VALUE"),
        ('forbid = ["workspace.histry=shared"]', ":1: forbid[0]: 'workspace.histry' is not a field of a session"),
        ("forbid = [1]", ":1: forbid[0]: expected a string"),
        ("[hooks]\napply = 1", ":2: hooks.apply: expected true or false"),
        ("[hooks]\naply = true", ":2: hooks.aply: unknown key (did you mean 'apply'?)"),
        ("jobs = 1\njobs = 1", ":2: is not valid TOML: Cannot overwrite a value"),
    ],
)
def test_a_wrong_user_config_is_named_with_its_line(config: Path, text: str, words: str) -> None:
    config.write_text(text)
    assert refusal().startswith(f"{config}{words}")


def test_everything_wrong_is_said_at_once(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('wat = 1\ncolor = "red"')
    monkeypatch.setenv("SESSIONCTL_WAT", "1")
    monkeypatch.setenv("SESSIONCTL_JOBS", "x")
    assert len(refusal(state_dir="relative").splitlines()) == 5


def test_a_config_that_cannot_be_read_is_an_error_and_not_ignored(config: Path) -> None:
    config.mkdir()
    assert refusal() == f"{config}: cannot be read: Is a directory"


@pytest.mark.parametrize("place", ["", "/state", "/.git/state", "/a/../state"])
def test_the_state_never_lies_in_the_repository(tmp_path: Path, place: str) -> None:
    root = tmp_path / "repo"
    (root / ".git").mkdir(parents=True)
    (tmp_path / "link").symlink_to(root)
    assert "(--state-dir) lies in the repository" in refusal(root, state_dir=f"{root}{place}")
    assert "lies in the repository" in refusal(root, state_dir=f"{tmp_path}/link{place}")
    assert settings.load(root, {"state_dir": f"{root}-state"}).state_dir == Path(f"{root}-state")


def test_the_state_lies_in_no_other_checkout_of_the_repository_either(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True)

    git("init", "main")
    git("-C", "main", "commit", "--allow-empty", "-m", "x")
    git("-C", "main", "worktree", "add", "../linked")
    for place in ("linked/x", "main/.git/x", "main/.git/worktrees/linked/x", "main/x"):
        assert "lies in the repository" in refusal(tmp_path / "linked", state_dir=tmp_path / place)
    git("clone", "--bare", "main", "bare")
    git("-C", "bare", "worktree", "add", "../of-bare")
    for place in ("bare/x", "bare/worktrees/of-bare/x"):
        assert "lies in the repository" in refusal(tmp_path / "of-bare", state_dir=tmp_path / place)
    assert settings.load(tmp_path / "linked", {"state_dir": tmp_path / "x"}).state_dir == tmp_path / "x"
