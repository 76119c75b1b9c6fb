"""Every test has a home, XDG directories and an environment of its own, and a git without the machine's config."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessionctl import beneath
from sessionctl.backends import Context
from sessionctl.backends.bubblewrap import Backend
from tests.command import Repository


@pytest.fixture(autouse=True)
def _own_world(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("GIT_", "SESSIONCTL_", "XDG_")):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("CONFIG", "STATE", "CACHE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    config = "[user]\n\tname = Test Person\n\temail = person@test.invalid\n[init]\n\tdefaultBranch = main\n"
    (home / ".gitconfig").write_text(config)


@pytest.fixture
def home() -> Path:
    """The test's home directory."""
    return Path(os.environ["HOME"])


@pytest.fixture
def config(home: Path) -> Path:
    """Where the user config is, when there is one; its directory is there."""
    directory = home / "config" / "sessionctl"
    directory.mkdir(parents=True)
    return directory / "config.toml"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """A repository whose sandboxes end with the test, in a state directory that root's sandboxes can pass into."""
    refusals = Backend(Context("probe", tmp_path)).probe()
    if refusals:
        text = "; ".join(f"{refusal.what}: {refusal.why}" for refusal in refusals)
        if os.environ.get("CI"):
            pytest.fail(f"the bubblewrap backend must run in CI: {text}")
        pytest.skip(text)
    state = Path(tempfile.mkdtemp(prefix="sessionctl-test-"))
    state.chmod(0o711)
    monkeypatch.setenv("SESSIONCTL_STATE_DIR", str(state))
    made = Repository(tmp_path / "demo")
    yield made
    for directory in state.iterdir():
        backend = Backend(Context("cleanup", directory))
        for observed in backend.observe():
            if observed.id:
                backend.stop(observed)
    beneath.remove_tree(str(state))


@pytest.fixture
def done(repository: Repository) -> Repository:
    """A repository with a session whose one commit was fetched, and whose block is gone: it may be pruned."""
    repository.declare("[sessions.api]\n")
    repository.apply()
    repository.inside("api", "echo work > work; git add work; git commit -qm work")
    repository.run("fetch", "api")
    repository.declare("")
    return repository
