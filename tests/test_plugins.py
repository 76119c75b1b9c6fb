"""Backends and agents by name, ours and those of entry points."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessionctl import plugins
from sessionctl.errors import UsageError
from tests import manifests
from tests.manifests import spec


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return manifests.work_tree(tmp_path)


def test_an_entry_point_adds_a_backend(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site"
    (package / "demo-1.dist-info").mkdir(parents=True)
    (package / "demo-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1\n")
    (package / "demo-1.dist-info" / "entry_points.txt").write_text(
        "[sessionctl.backends]\ndemo = sessionctl_demo\nbroken = sessionctl_demo_absent\n"
        "[sessionctl.agents]\nmine = sessionctl_demo\n"
    )
    (package / "sessionctl_demo.py").write_text("class Backend: pass\n")
    with pytest.raises(UsageError, match="'demo' is not a known backend"):
        plugins.load("backends", "demo")
    monkeypatch.syspath_prepend(package)
    assert plugins.load("backends", "demo").__module__ == "sessionctl_demo"
    assert "demo" in plugins.names("backends") and "bubblewrap" in plugins.names("backends")
    assert "mine" in plugins.names("agents") and "claude" in plugins.names("agents")
    assert spec(root, 'backend = "demo"\nagent = "mine"').backend == "demo"
    with pytest.raises(UsageError, match="'broken' cannot be loaded: ModuleNotFoundError"):
        plugins.load("backends", "broken")


@pytest.mark.parametrize("name", ["..", "a.b", "_x", "os", "", "bubblewrap.entry", "BUBBLEWRAP"])
def test_a_name_never_leads_to_another_module(name: str) -> None:
    with pytest.raises(UsageError, match="is not a known backend"):
        plugins.load("backends", name)
