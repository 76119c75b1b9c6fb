"""The Python API: whole, typed, silent, and what the other doors are made of."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import sessionctl
from sessionctl import Project, SessionctlError, render
from tests import signatures
from tests.command import Repository, Said
from tests.pages import ROOT

EXAMPLE = ROOT / "examples" / "python" / "apply.py"
PACKAGE = ROOT / "sessionctl"


# --- three doors, one thing --------------------------------------------------------------------


def without_ids(text: str, root: Path) -> str:
    return re.sub(r"\b[0-9a-f]{10,}\b|\b\d{8}T\d{6}\b|\d{4}-\d\d-\d\dT[\d:.]+Z", "ID", text.replace(str(root), "ROOT"))


def by_hand(repository: Repository, *names: str) -> Said:
    return repository.run("apply", "--yes", *names, code=None)


def by_task(repository: Repository, *names: str) -> Said:
    (repository.root / "tasks.py").write_text(
        "from invoke import Collection\nfrom sessionctl.tasks import sessions\nns = Collection(sessions)\n"
    )
    words = [word for name in names for word in ("--name", name)]
    return run(repository, "-m", "invoke", "sessions.apply", "--yes", *words)


def by_python(repository: Repository, *names: str) -> Said:
    return run(repository, str(EXAMPLE), *names)


def run(repository: Repository, *words: str) -> Said:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=repository.root,
        env={**os.environ, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Said(done.returncode, done.stdout, done.stderr)


DOORS: tuple[Callable[..., Said], ...] = (by_hand, by_task, by_python)
STORIES: dict[str, list[tuple[str, tuple[str, ...], int]]] = {
    "made, changed, in sync": [
        ('[sessions.api]\ntags = ["x"]\n[sessions.web]\nstate = "stopped"\n', (), 0),
        ('[sessions.api]\nenv = { A = "1" }\n[sessions.web]\n', (), 0),
        ('[sessions.api]\nenv = { A = "1" }\n[sessions.web]\n', (), 0),
    ],
    "one of two": [("[sessions.api]\n[sessions.web]\n", ("web",), 0)],
    "setup fails": [('[sessions.api]\nsetup = ["exit 3"]\n[sessions.web]\n', (), 1)],
    "a wrong manifest": [('[sessions.api]\nagnt = "claude"\n', (), 2)],
    "no such session": [("[sessions.api]\n", ("apy",), 2)],
    "cannot be had": [('[sessions.api]\nworkspace = { base = "nothing" }\n[sessions.web]\n', (), 2)],
    "settled when it was made": [
        ('[sessions.api]\nworkspace = { base = "main" }\n', (), 0),
        ('[sessions.api]\nworkspace = { base = "other" }\n[sessions.web]\n', (), 3),
    ],
    "not trusted": [('[sessions.api]\nenv = { A = { from_env = "HOME" } }\n[sessions.web]\n', (), 5)],
}


def kept(repository: Repository) -> tuple[Any, ...]:
    """What is known of the sessions afterwards, but for ids and times."""
    project = Project(repository.root)
    records = {
        name: (record.last, record.backend, record.git.branch, bool(record.sandbox), bool(record.setup))
        for name, record in project.store.records().items()
    }
    events = sorted(
        (event.session, event.event, without_ids(str(event.data.get("reason")), repository.root))
        for event in project.log()
    )
    return records, events, [(each.name, each.status) for each in project.sessions()]


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_three_doors_say_do_and_end_the_same(
    story: list[tuple[str, tuple[str, ...], int]], repository: Repository, tmp_path: Path
) -> None:
    twins = [repository, Repository(tmp_path / "task" / "demo"), Repository(tmp_path / "python" / "demo")]
    for twin in twins:
        (twin.root / ".git" / "info" / "exclude").write_text("tasks.py\n")
        subprocess.run(["git", "branch", "other"], cwd=twin.root, check=True)
    for manifest, names, code in story:
        said = []
        for door, twin in zip(DOORS, twins, strict=True):
            twin.declare(manifest)
            answer = door(twin, *names)
            assert answer.code == code, f"{door.__name__}\n{answer.out}\n{answer.err}"
            said.append(without_ids(answer.out, twin.root))
        assert said[0] == said[1] == said[2]
        assert "Plan:" in said[0] or "In sync:" in said[0] or code == 2
    if code != 2 or "agnt" not in manifest:
        assert kept(twins[0]) == kept(twins[1]) == kept(twins[2])


# --- what it promises --------------------------------------------------------------------------


def test_every_public_name_is_there_and_has_a_description() -> None:
    for name in sessionctl.__all__:
        value = getattr(sessionctl, name)
        assert name == "__version__" or inspect.getdoc(value), name
    assert set(sessionctl.__all__) <= set(dir(sessionctl))
    with pytest.raises(AttributeError, match="'nothing'"):
        sessionctl.nothing  # noqa: B018


@pytest.mark.parametrize("module", [sessionctl, render], ids=lambda module: module.__name__)
def test_types_are_known_of_every_public_name(module: ModuleType) -> None:
    """What type checkers see is what is there."""
    assert module.__file__
    tree = ast.parse(Path(module.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        (str(node.module).removeprefix(f"{module.__name__}."), alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {(home, name) for home, names in module._HOMES.items() for name in names}
    assert all(getattr(module, name) is not None for name in module.__all__)


def test_the_page_describes_every_public_name_and_each_part_of_it() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    for name in sessionctl.__all__:
        assert f"`{name}`" in page or f"### {name}" in page, name
    for member in signatures.members("app", "Project"):
        assert member.text, f"Project.{member.name} has no docstring"
        assert f"`{member.signature}`" in page
    for module in re.findall(r"^\| `sessionctl\.([a-z.]+)` \|", page, re.M):
        assert (PACKAGE / f"{module}.py").exists() or (PACKAGE / module / "__init__.py").exists()


def test_it_says_nothing_and_asks_nothing(repository: Repository, capfd: pytest.CaptureFixture[str]) -> None:
    repository.declare("[sessions.api]\n")
    project = Project(repository.root)
    outcomes = project.apply(project.plan())
    run = project.exec("api", ["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (run.code, run.stdout, run.stderr) == (3, b"out\n", b"err\n")
    project.snapshot("api", "here")
    project.restore("api")
    project.stop("api")
    with pytest.raises(SessionctlError, match="is stopped"):
        project.exec("api", ["true"])
    assert {outcome.result for outcome in outcomes} == {"done"}
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_had_is_not_carried_out_in_part(repository: Repository) -> None:
    repository.declare('[sessions.api]\nworkspace = { base = "nothing" }\n[sessions.web]\n')
    project = Project(repository.root)
    plan = project.plan()
    with pytest.raises(sessionctl.UsageError, match="api: nothing names no commit"):
        project.apply(plan)
    assert plan.exit_code() == 2
    assert [each.status for each in project.sessions()] == ["gone", "gone"]


def test_an_interrupted_apply_ends_with_130(repository: Repository) -> None:
    repository.declare("[sessions.api]\n[sessions.web]\n")
    project = Project(repository.root, jobs=1)
    plan, interrupted = project.plan(), threading.Event()
    outcomes = project.apply(plan, on=lambda lane, action, result: interrupted.set(), interrupted=interrupted)
    assert [outcome.result for outcome in outcomes].count("done") == 1
    assert plan.exit_code(outcome.result for outcome in outcomes) == 130


def test_init_writes_a_manifest_once(repository: Repository) -> None:
    project = Project(repository.root)
    path = project.init()
    assert path == str(repository.root / "sessions.toml")
    assert list(project.declared) == ["agent"]
    with pytest.raises(sessionctl.UsageError, match="is there already"):
        project.init()


# --- no door does what it cannot ---------------------------------------------------------------

_PRESENTING = {"cli", "errors", "render", "units", "hooks"}
"""What the command line may import whole: itself, codes, text for people, and the module for git hooks."""
_BESIDE = {("doctor", "machine")}
"""Functions that docs/python.md names beside the public names."""


_PAGER = PACKAGE / "cli" / "paging.py"
"""It starts a program of the user's: what a program that has this API would do its own way."""


@pytest.mark.parametrize("path", sorted({*(PACKAGE / "cli").glob("*.py")} - {_PAGER}), ids=lambda path: path.stem)
def test_the_command_line_works_through_public_names_only(path: Path) -> None:
    public = {(home, name) for home, names in sessionctl._HOMES.items() for name in names}
    text = path.read_text()
    page = (ROOT / "docs" / "python.md").read_text()
    tree = ast.parse(text)
    for_types = [inner for node in tree.body if isinstance(node, ast.If) for inner in ast.walk(node)]
    for node in ast.walk(tree):
        if node in for_types or not isinstance(node, ast.ImportFrom) or not str(node.module).startswith("sessionctl"):
            continue
        home = str(node.module).partition(".")[2].partition(".")[0]
        for name in (alias.name for alias in node.names):
            if home in _PRESENTING or (not home and name in {*_PRESENTING, *sessionctl.__all__}):
                continue
            if home:
                assert (home, name) in public, f"{path.name}: {home}.{name}"
                continue
            used = set(re.findall(rf"\b{name}\.([a-z_]+)", text))
            assert used and {(name, each) for each in used} <= _BESIDE, f"{path.name}: {name}: {used}"
            assert all(f"`sessionctl.{name}.{each}" in page for each in used)
