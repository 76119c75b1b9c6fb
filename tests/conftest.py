"""Every test has a home, XDG directories and an environment of its own, and a git without the machine's config."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_world(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("GIT_", "SESSIONCTL_", "XDG_")):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("CONFIG", "STATE", "CACHE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    (home / ".gitconfig").write_text("[user]\n\tname = Test Person\n\temail = person@test.invalid\n[init]\n\tdefaultBranch = main\n")


@pytest.fixture
def home() -> Path:
    """The test's home directory."""
    return Path(os.environ["HOME"])
