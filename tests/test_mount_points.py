"""Mounts below the workspace: made where an agent may write, and yet led nowhere by it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessionctl import process
from sessionctl.backends.bubblewrap import host, launching, profile
from sessionctl.errors import BackendError
from sessionctl.model import MountSpec, Observed, Workspace
from sessionctl.testing import Bench, spec
from tests.command import Repository
from tests.test_bubblewrap import ROOT, _Contract, layered, own, upper


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with _Contract().bench(tmp_path) as bench:
        yield bench


@pytest.fixture
def outside(bench: Bench, tmp_path: Path) -> Path:
    """A directory of the host, which the sandboxes' user may write."""
    place = (tmp_path / "outside").resolve()
    place.mkdir()
    (place / "file").write_text("of the host\n")
    own(bench, place, place / "file")
    return place


def prepared(bench: Bench, script: str) -> Observed:
    """A stopped session whose agent ran `script` in its workspace."""
    target = bench.backend.start(bench.backend.create(spec(), layered(bench)))
    bench.output(target, script)
    bench.backend.stop(target)
    return target


def mounted(bench: Bench, source: Path, *paths: str) -> Observed:
    """The session, started with `source` at each of `paths`."""
    mounts = tuple(MountSpec(str(source), path, "rw") for path in paths)
    return bench.backend.start(bench.backend.update(bench.backend.observe()[0], spec(mounts=mounts)))


@pytest.mark.parametrize(
    ("script", "path"),
    [
        ("true", "/workspace/new"),
        ("true", "/workspace/a b/-c/$(d)/*/é"),
        ("mkdir -p mine/empty; echo x > mine/file", "/workspace/mine/empty"),
        ("rm deleted", "/workspace/deleted/below"),
        ("mkdir -m 700 closed", "/workspace/closed/below"),
    ],
)
def test_a_place_is_made_and_the_workspace_is_as_it_was(bench: Bench, outside: Path, script: str, path: str) -> None:
    prepared(bench, script)
    target = mounted(bench, outside, path)
    assert bench.run(target, "cat", f"{path}/file").text() == "of the host"
    assert bench.run(target, "touch", f"{path}/written").code == 0 and (outside / "written").exists()
    assert bench.output(target, "cat kept") == "from below"
    assert not list((upper(target) / path.removeprefix("/workspace/")).iterdir()), "nothing of it is in the workspace"
    bench.backend.stop(target)
    assert bench.run(mounted(bench, outside, path), "cat", f"{path}/file").code == 0
    bench.backend.stop(target)
    assert bench.run(mounted(bench, outside), "ls", "-A", path).text() == ""


def test_in_a_workspace_without_layers_too(bench: Bench, outside: Path) -> None:
    target = bench.backend.create(spec(mounts=(MountSpec(str(outside), "/workspace/a/b"),)), bench.workspace())
    target = bench.backend.start(target)
    assert bench.output(target, "cat a/b/file file") == "of the host\nas it was made"


@pytest.mark.parametrize(
    ("script", "path", "why"),
    [
        (
            "mkdir full; echo x > full/mine",
            "/workspace/full",
            "/workspace/full: it is not empty, and what it holds would",
        ),
        ("ln -s /usr link", "/workspace/link", "/workspace/link: a symbolic link is on the way"),
        ("ln -s . link", "/workspace/link/below", "/workspace/link/below: a symbolic link is on the way"),
        ("ln -s nowhere link", "/workspace/link", "a symbolic link is on the way"),
        ("true", "/workspace/kept", "/workspace/kept: ./kept is no directory"),
        ("true", "/workspace/kept/below", "below: ./kept is no directory"),
        ("mkdir closed; chmod 000 closed", "/workspace/closed/below", "below: ./closed cannot be entered"),
        ("mkfifo fifo", "/workspace/fifo", "./fifo is no directory"),
    ],
)
def test_where_something_is_nothing_is_mounted_and_nothing_is_lost(
    bench: Bench, outside: Path, script: str, path: str, why: str
) -> None:
    target = prepared(bench, script)
    before = sorted(os.listdir(upper(target)))
    with pytest.raises(BackendError, match=r"nothing can be mounted at ") as caught:
        mounted(bench, outside, "/workspace/first", path)
    assert why in str(caught.value) and str(upper(target)) in caught.value.hint
    assert bench.backend.observe()[0].status == "stopped"
    assert sorted(os.listdir(upper(target))) == sorted([*before, "first"])
    assert bench.output(mounted(bench, outside, "/workspace/first"), "cat first/file") == "of the host"


def test_a_link_of_the_agents_leads_no_mount_elsewhere(bench: Bench, outside: Path, tmp_path: Path) -> None:
    victim = (tmp_path / "victim").resolve()
    victim.mkdir()
    own(bench, victim)
    target = prepared(bench, "true")
    places = [str(upper(target)), str(victim), str(outside), host.home_of(host.locate())]
    sources = places if ROOT else []
    work, elsewhere, source = (profile.move(path, sources) for path in places[:3])
    (upper(target) / "cache").symlink_to(f"/oldroot{elsewhere}")
    words = ["--unshare-user", "--ro-bind", "/usr", "/usr", "--bind", work, "/workspace"]
    naive = [*words, "--ro-bind", source, "/workspace/cache/sub", "/usr/bin/true"]
    command = launching.watching(host.locate(), naive, sources, bench.backend.owner)
    process.run(command.argv, env=command.env, check=False)
    assert os.listdir(victim) == ["sub"], "the attack works"

    (victim / "sub").rmdir()
    with pytest.raises(BackendError, match="a symbolic link is on the way"):
        mounted(bench, outside, "/workspace/cache/sub")
    assert os.listdir(victim) == []


def test_what_makes_the_place_is_never_one_of_two(bench: Bench, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the session's lock for as long as it lives, whatever becomes of who started it."""
    prepared(bench, "true")
    monkeypatch.setattr(profile, "_MAKING", "readlink /proc/self/fd/0 >&2; exit 1")
    with pytest.raises(BackendError, match=r"sessions/api/lock|/lock$"):
        mounted(bench, outside, "/workspace/new")


def test_a_file_cannot_be_mounted_in_the_workspace(bench: Bench, outside: Path) -> None:
    wrong = spec(mounts=(MountSpec(str(outside / "file"), "/workspace/file"),))
    assert [refusal.what for refusal in bench.backend.probe(wrong)] == ["mounts"]


def test_layers_that_mount_would_cut_short_are_refused_here_too() -> None:
    layers = tuple(f"/somewhere/{'x' * 100}/{n}" for n in range(40))
    with pytest.raises(BackendError, match="42 layers"):
        profile.making(["/workspace/x"], Workspace("/u", layers, "/s"), profile.Layout((), ()), "x86_64")


def test_declared_changed_and_pruned(repository: Repository, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "set").write_text("numbers\n")
    for path in (data, tmp_path):
        path.chmod(0o755)
    declare = '[sessions.api]\nmounts = [{{ source = "{}", path = "/workspace/{}" }}]\n'
    repository.declare(declare.format(data, "src/data"))
    repository.apply("--allow-host")
    assert repository.inside("api", "cat src/data/set; cat src/main.py").out == "numbers\nprint('hello')\n"
    assert repository.run("status", "api", "--json").json["dirty"] is False
    repository.declare(declare.format(data, "other"))
    assert "restart" in repository.run("plan").out
    repository.apply("--allow-host")
    assert repository.inside("api", "cat other/set; ls src").out == "numbers\ndata\nmain.py\n"
    repository.declare(declare.format(data, "src"))
    failed = repository.apply("--allow-host", code=1).out
    assert "nothing can be mounted at /workspace/src: it is not empty" in failed
    repository.declare("")
    repository.run("prune", "--yes", "--idle", "0s")
    assert list((repository.state / "sessions").iterdir()) == []
    assert (data / "set").read_text() == "numbers\n"
