"""What tests of manifests ask of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from sessionctl import manifest
from sessionctl import settings as settings_module
from sessionctl.errors import ManifestError
from sessionctl.manifest import Manifest
from sessionctl.model import SessionSpec

quick = settings(database=None, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""For tests of many examples."""

VALID = b"""\
version = 1
[defaults]
env = { A = "1" }
[sessions.api]
agent = { name = "claude" }
tags = ["a", "b"]
count = 2
files = [{ path = "~/a", content = "x", mode = "0600" }]
metadata."x y" = 'z'
workspace = { branch = "x/{name}", include = [] }
[sessions.b]
network = "none"
workspace.mode = "empty"
"""


def work_tree(place: Path) -> Path:
    """A repository's work tree below `place`, as far as a manifest looks at it."""
    (place / "repo" / ".git").mkdir(parents=True)
    return place / "repo"


def write(root: Path, text: str | bytes) -> Path:
    file = root / "sessions.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def resolve(root: Path, text: str | bytes, *overrides: str) -> Manifest:
    file = write(root, text)
    return manifest.resolve(file, root, settings=settings_module.load(root), overrides=overrides)


def spec(root: Path, keys: str, *overrides: str) -> SessionSpec:
    """The session `api` with these keys."""
    return resolve(root, f"version = 1\n[sessions.api]\n{keys}", *overrides).declared["api"].spec


def problems(root: Path, text: str | bytes, *overrides: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        resolve(root, text, *overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def refusal(root: Path, keys: str) -> str:
    """The one line that says why these keys of the session `api` are refused."""
    (line,) = problems(root, f"version = 1\n[sessions.api]\n{keys}")
    return line
