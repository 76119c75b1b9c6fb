"""Pages say what is so: their commands are run, what they generate is fresh, and their tables are complete."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from invoke.collection import Collection

import tasks
from sessionctl import beneath, cli, errors, model, process
from tests import reference
from tests.pages import PAGES, ROOT, World, agree, blocks, known_tests, play, require_sandboxes, scratch_world

PLAYED = [page for page in PAGES if re.search(r"^```(sh|console)$", page.read_text(), re.M)]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A scratch repository in which sandboxes can be made."""
    require_sandboxes(tmp_path)
    with scratch_world(tmp_path) as made:
        yield made


# --- commands ----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PLAYED, ids=named)
def test_what_a_page_shows_is_what_its_commands_print(page: Path, world: World) -> None:
    def check(where: str, shown: str, printed: str) -> str:
        assert agree(shown, printed), f"{where}\n{printed}\nwrite it: python -m tests.pages {page.relative_to(ROOT)}"
        return shown

    assert play(page, world, check) == page.read_text()


def test_output_that_differs_is_told() -> None:
    """The comparison is lenient where it must be, and nowhere else."""
    assert agree("api  0a1b2c3d4e  3s ago\n", "api   ffffffffff  12s ago\n")
    assert agree("...\nlast\n", "first\nsecond\nlast\n")
    assert agree("error: ... is wrong\n", "error: /some/path is wrong\n")
    assert not agree("Plan: 1 to create.\n", "Plan: 2 to create.\n")
    assert not agree("one\n", "one\ntwo\n")
    assert not agree("one\n", "")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_each_index_has_every_page_with_a_line_and_each_backend_has_a_page() -> None:
    for index in (ROOT / "docs" / "README.md", ROOT / "docs" / "decisions" / "README.md"):
        listed = re.findall(r"^- \[.+?\]\(([^/)]+\.md)\)", index.read_text(), re.M)
        assert sorted(listed) == sorted(page.name for page in index.parent.glob("*.md") if page != index)
    modules = (ROOT / "sessionctl" / "backends").glob("[a-z]*")
    assert [each.stem for each in modules if not (ROOT / "docs" / f"{each.stem}.md").exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_no_page_names_a_path_of_the_machine_it_was_written_on(page: Path) -> None:
    text = page.read_text()
    assert [word for word in ("/tmp/", "/root/", str(ROOT), "pytest-of") if word in text] == []


# --- the README and CI -------------------------------------------------------------------------


def marked(name: str) -> str:
    """The command of the README that follows the marker `name`."""
    found = re.search(rf"^<!-- {name} -->\n```bash\n(.+)\n```$", (ROOT / "README.md").read_text(), re.M)
    assert found is not None
    return found[1]


def test_the_quickstart_command_runs_the_example() -> None:
    assert marked("the quickstart command").endswith(" && .venv/bin/python examples/quickstart/run.py")


def test_ci_runs_the_test_command_of_the_readme() -> None:
    said = subprocess.run([ROOT / ".ci/run", "--show"], capture_output=True, text=True, check=True).stdout
    assert said == marked("the test command") + "\n"


# --- CONTRIBUTING.md ---------------------------------------------------------------------------

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def test_contributing_names_tasks_that_there_are() -> None:
    named = set(re.findall(r"\binvoke ([a-z][a-z-]*)", CONTRIBUTING))
    assert {"test", "lint", "docs", "schema"} <= named <= set(Collection.from_module(tasks).task_names)


def test_contributing_names_every_module_and_no_other() -> None:
    house = CONTRIBUTING.partition("\n## The house\n")[2].partition("\n## ")[0]
    package, backend = ROOT / "sessionctl", ROOT / "sessionctl" / "backends" / "bubblewrap"
    modules = {path.stem for folder in (package, backend) for path in folder.glob("*.py") if path.stem[0] != "_"}
    # What stands for two words is named by the first; testing is for who writes a backend.
    assert modules - {"testing", "launching"} <= set(re.findall(r"`([a-z_]+)[`.]", house))
    assert all((package / f"{path}").exists() for path in re.findall(r"`(backends/[a-z]+)`", house))


# --- what is generated -------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_generated_parts_are_fresh(page: Path) -> None:
    assert page.read_text() == reference.filled(page.read_text()), "write them: python -m tests.reference"


def test_every_key_and_every_command_has_its_place() -> None:
    keys = (ROOT / "docs/manifest.md").read_text()
    assert all(f"| `{path}` |" in keys for path in reference.fields())
    plain = {path.replace("[]", "") for path in reference.fields()}
    assert {path for path in model.EFFECT if path not in plain} == {"image.source"}
    commands = (ROOT / "docs/commands.md").read_text()
    assert all(f"\n### {name}\n" in commands for name in cli.COMMANDS)


# --- docs/manifest.md --------------------------------------------------------------------------


def test_every_key_has_an_example_that_is_valid(world: World) -> None:
    used: set[str] = set()
    for block in blocks((ROOT / "docs/manifest.md").read_text()):
        if block.kind == "toml" and not block.name:
            (world.project / "sessions.toml").write_text(block.text)
            said = world.run("sessionctl validate")
            # What the machine cannot do is not the manifest's fault; what it says must be.
            assert said.returncode == 0, f"docs/manifest.md:{block.line}: {said.stdout}"
            used |= set(re.findall(r"(?:^|[{,] |\. ?)([a-z_]+) =", block.text, re.M))
    assert {path.rpartition(".")[2] for path in reference.fields()} - {"workspace"} <= used


# --- docs/commands.md --------------------------------------------------------------------------


def test_every_exit_code_is_explained() -> None:
    text = (ROOT / "docs/commands.md").read_text()
    codes = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.M)} == codes
    assert f"{process.TIMED_OUT} when time ran out" in text
    assert f"{cli.CANNOT_RUN} when\nsessionctl itself failed" in text


# --- docs/json.md ------------------------------------------------------------------------------

_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
_MANIFEST = """\
version = 1
[sessions.api]
agent = "claude"
title = "API"
metadata = { ticket = "ABC-1" }
setup = ["true"]
env = { A = "1" }
files = [{ path = "~/.tool", content = "x" }]
mounts = [{ source = "src", path = "/data" }]
workspace = { base = "main" }
[sessions.bare]
state = "stopped"
workspace = { mode = "empty" }
"""


def table(section: str) -> dict[str, set[str]]:
    """The types that docs/json.md allows for each key of the documents that `section` is about."""
    text = re.split(r"^## ", (ROOT / "docs/json.md").read_text(), flags=re.M)
    (found,) = [part for part in text if part.startswith(f"{section}\n")]
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \|", found, re.M)
    return {key: set(types.split(" or ")) for key, types in rows}


def everything(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All named values of a document, by their paths as the tables spell them."""
    if isinstance(value, dict):
        for name, inner in value.items():
            below = f"{path}.{name}".removeprefix(".")
            yield below, inner
            yield from everything(inner, below)
    elif isinstance(value, list):
        for inner in value:
            yield from everything(inner, f"{path}[]")


def check(section: str, *documents: Any, more: Mapping[str, set[str]] | None = None) -> None:
    """Everything in `documents` is in the table with its type, and everything in the table is in one of them."""
    described = {**table(section), **(more or {})}
    patterns = {key: re.compile(re.escape(key).replace(r"\*", ".+")) for key in described}
    seen: set[str] = set()
    for path, value in (found for document in documents for found in everything(document)):
        key = max((key for key, pattern in patterns.items() if pattern.fullmatch(path)), key=len, default=None)
        assert key is not None, f"{section}: {path} is not described"
        kind = "null" if value is None else _TYPES[type(value)]
        assert kind in described[key] or "any" in described[key], f"{section}: {path} is {kind}"
        seen.add(key)
    assert set(described) - seen == set(), f"{section}: described, and not seen"


def test_json_documents_are_as_described(world: World) -> None:
    def said(command: str, code: int = 0) -> Any:
        done = world.run(f"sessionctl {command} 2>/dev/null")
        assert done.returncode == code, f"{command}: exit code {done.returncode}\n{done.stdout}"
        return json.loads(done.stdout)

    def lines(command: str) -> list[Any]:
        return [json.loads(line) for line in world.run(f"sessionctl {command}").stdout.splitlines()]

    (world.project / "sessions.toml").write_text(_MANIFEST)
    check("validate", said("validate --json"))
    check("show", said("show api --json"))
    check("doctor", said("doctor --json"))
    first = said("plan --json")
    check("trust", said("trust --show --json", 5))
    world.run("sessionctl trust --yes && sessionctl apply --yes")
    check("exec", said("exec --json api -- sh -c 'echo 1 >file; git add .; git commit -qm x; exit 3'", 3))
    ended = said("exec --json api -- sh -c 'kill -9 $$'", 137)
    assert (ended["exit_code"], ended["signal"]) == (137, 9)
    check("fetch", said("fetch api --json"))
    world.run("sessionctl exec api -- sh -c 'head -c 99 /dev/zero >zero' && sessionctl cp README.md api:")
    check("diff", said("diff api --json"))
    check("logs", *lines("logs api --json"))
    world.run("sessionctl stop api && sessionctl start api")
    check("ls", said("ls --json"))
    check("ls --disk", said("ls --disk --json"))
    world.run("mkdir -p root/bin && tar -C root -cf a.tar . && cp a.tar b.tar && echo >> b.tar")
    for image in ("a", "b"):
        text = f'version = 1\n[sessions.image]\nimage = "archive:{image}.tar"\nstate = "stopped"\n'
        (world.project / "sessions.toml").write_text(text)
        world.run("sessionctl apply --yes")
    check("images", said("images --json"))
    # The snapshot of what was written in the first image holds on to it.
    assert json.loads(world.run("sessionctl gc --dry-run --json").stdout)["images"] == []
    (kept,) = Path(world.env["SESSIONCTL_STATE_DIR"]).glob("**/snapshots/image")
    beneath.remove_tree(str(kept))
    spent = {"snapshots": [{"id": "x", "session": "api", "size": 1, "reason": "x"}], "bases": ["x"]}
    check("gc", said("gc --dry-run --json"), spent)
    (world.project / "sessions.toml").write_text(_MANIFEST)

    status = said("status api --json")
    of_session = {key.partition("[].")[2]: types for key, types in table("ls").items() if "[]." in key}
    check("status", {**status, "events": []}, more=of_session)
    assert status["events"] == lines("log -n 5 --json api")

    # A change in place, and one that is blocked.
    (world.project / "sessions.toml").write_text(_MANIFEST.replace('"main"', '"HEAD"').replace('"1"', '"2"'))
    check("plan", first, said("plan --json"), said("prune --dry-run --json"))
    world.run("printf '#!/bin/sh' >.git/hooks/post-commit && sessionctl hooks install")
    check("hooks", said("hooks status --json"), {"hooks_path": "global"})
    world.run("git commit -q --allow-empty -m x && mkdir .git/rebase-merge && git commit -q --allow-empty -m y")
    world.run("sessionctl rename bare empty")
    check("log", *lines("log --json"))


def test_the_security_page_names_tests_that_there_are() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| (\d+) \|", page, re.MULTILINE)
    assert rows == [str(number) for number in range(1, 21)]
    promises = page.partition("\n## What is promised\n")[2].partition("\n## ")[0].splitlines()
    assert [row for row in promises[4:] if row.startswith("| ") and "`test_" not in row] == []
    named = set(re.findall(r"`(test_[a-z_.A-Z0-9]+)`", page))
    there = known_tests()
    assert len(named) > 40 and named <= there, sorted(named - there)
