"""Pages of documentation as programs: their commands are run, and the output they show is compared.

In a page, in order, in one scratch repository:

- ```` ```sh ```` is run by bash up to the first failure; it must succeed, its output is not looked at.
- ```` ```console ```` holds commands, one on each line that begins with ``$ ``, and their output. Each must
  succeed (``; echo $?`` shows a code) and print that. ``...`` stands for anything on a line, or for any lines.
- ```` ```toml NAME ````, or any other kind with a NAME, is written to the file NAME.
- ``<!-- sh`` ... ``-->`` is run like ``sh``, and not shown.
- The files beside the page of an example are in the repository from the beginning.

All other blocks are not run. ``python -m tests.pages [PAGE...]`` writes the output that differs into the
pages. Ids, times, durations and the width of columns are not compared.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from sessionctl import beneath
from sessionctl.app import Project
from sessionctl.backends import Context
from sessionctl.backends.bubblewrap import Backend

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*/README.md")],
    key=lambda page: (len(page.relative_to(ROOT).parts), page),
)
HOME = "/home/ada"
"""What pages call the home directory of the scratch world."""
_TIMEOUT = 120.0


class Block(NamedTuple):
    """A part of a page that is more than prose."""

    kind: str
    """``sh``, ``console``, ``toml``, ..."""
    name: str
    """What follows the kind on its line."""
    text: str
    line: int
    """Of its first line of text; 1-based."""


_BLOCK = re.compile(
    r"^```(?P<kind>[a-z]+)(?: (?P<name>\S+))?\n(?P<text>.*?)^```$|^<!-- sh\n(?P<hidden>.*?)^-->$", re.M | re.S
)


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, and its hidden commands."""
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 2
        if found["hidden"] is not None:
            yield Block("sh", "", found["hidden"], line)
        else:
            yield Block(found["kind"], found["name"] or "", found["text"], line)


class World(NamedTuple):
    """A scratch repository with a user, a home and a state directory of its own."""

    home: Path
    project: Path
    env: Mapping[str, str]

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """`script`, run by bash in the repository; standard output and standard error together."""
        return subprocess.run(
            ["bash", "-uc", script],
            cwd=self.project,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )


_PROJECT = """
git init -q -b main .
git config --global user.name Ada && git config --global user.email ada@example.invalid
mkdir src && echo 'def main():\n    return "hello"' >src/app.py
printf '.env\n__pycache__/\n' >.gitignore && echo '# Project' >README.md
git add . && git commit -qm 'A beginning' && echo 'TOKEN=1' >.env
"""


@contextmanager
def scratch_world(place: Path) -> Iterator[World]:
    """A world in the directory `place`; when it is left, nothing of it runs any more and its state is gone."""
    home, programs, state = place / "ada", place / "bin", place / "ada" / "state"
    project = home / "project"
    project.mkdir(parents=True)
    programs.mkdir()
    for name, module in (("sessionctl", "-m sessionctl "), ("invoke", "-m invoke "), ("python3", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module}"$@"\n')
        program.chmod(0o755)
    env = {
        "PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}",
        "HOME": str(home),
        "SESSIONCTL_STATE_DIR": str(state),
        "PYTHONPATH": str(ROOT),  # these sources, whatever else is installed
        "PYTHONDONTWRITEBYTECODE": "1",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_DATE": "2026-11-21T12:00:00Z",
        "GIT_COMMITTER_DATE": "2026-11-21T12:00:00Z",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "TERM": "dumb",
        "COLUMNS": "80",
    }
    world = World(home, project, env)
    made = world.run(f"set -e\n{_PROJECT}")
    assert made.returncode == 0, made.stdout
    try:
        yield world
    finally:
        end_sandboxes(project, state)
        beneath.remove_tree(str(state))


def require_sandboxes(place: Path) -> None:
    """Skips the test, with the backend's own words, where no sandbox can be made below `place`; in CI it fails."""
    refusals = Backend(Context("probe", place)).probe()
    if refusals:
        text = "; ".join(f"{refusal.what}: {refusal.why}" for refusal in refusals)
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"sandboxes cannot be made: {text}")


def end_sandboxes(project: Path, state: Path) -> None:
    """Ends every sandbox of the repository `project` that has its state in `state`."""
    backend = Project(project, state_dir=state).backend("bubblewrap")
    for observed in backend.observe():
        if observed.status == "running":
            backend.stop(observed)


def play(page: Path, world: World, check: Callable[[str, str, str], str]) -> str:
    """Runs the page in `world`; its text, with what `check` gave for the output of each console command.

    `check` gets the place and the command, what the page shows, and what was printed.
    """
    text = page.read_text()
    if page.parent.parent == ROOT / "examples":
        for file in page.parent.iterdir():
            if file.is_file() and file != page:
                shutil.copy(file, world.project)
    parts: list[str] = []
    at = 0
    for found, block in zip(_BLOCK.finditer(text), blocks(text), strict=True):
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if block.name:
            (world.project / block.name).write_text(block.text)
        elif block.kind == "sh":
            done = world.run(f"set -e\n{block.text}")
            assert done.returncode == 0, f"{where}: exit code {done.returncode}\n{block.text}\n{done.stdout}"
        elif block.kind == "console":
            parts.append(text[at : found.start("text")])
            parts.append(_console(block, where, world, check))
            at = found.end("text")
    return "".join([*parts, text[at:]])


def _console(block: Block, where: str, world: World, check: Callable[[str, str, str], str]) -> str:
    parts = []
    for part in re.split(r"^(?=\$ )", block.text, flags=re.M)[1:]:
        command, _, shown = part.partition("\n")
        done = world.run(command[2:])
        assert done.returncode == 0, f"{where}: exit code {done.returncode}\n{command}\n{done.stdout}"
        printed = "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())
        printed = printed.replace(str(world.home), HOME)
        parts.append(f"{command}\n{check(f'{where}: {command}', shown, printed)}")
    return "".join(parts)


# Longest first: an id holds digits that would else be taken for something shorter.
_VARIES = (
    (re.compile(r"\b\d{8}T\d{6}-[0-9a-f]{8}\b"), "ID"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "TIME"),
    (re.compile(r"\b[0-9a-f]{7,64}\b"), "HASH"),
    (re.compile(r'(?<=pid )\d+|(?<="pid": )\d+|(?<="duration_s": )[\d.]+'), "NUMBER"),
    (re.compile(r"\b\d+s\b"), "DURATION"),
    (re.compile(r" {2,}"), "  "),
)


def agree(shown: str, printed: str) -> bool:
    """Whether a page that shows `shown` is right when `printed` was printed."""
    for pattern, instead in _VARIES:
        shown, printed = pattern.sub(instead, shown), pattern.sub(instead, printed)
    wanted = ""
    for line in shown.splitlines(keepends=True):
        wanted += r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line).replace(r"\.\.\.", ".*")
    return re.fullmatch(wanted, printed) is not None


def known_tests() -> set[str]:
    """Every test as pages name it: ``test_module.test_function``, ``test_module.TestClass.test_method``."""
    there = set()
    for file in (ROOT / "tests").glob("test_*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                there.add(f"{file.stem}.{node.name}")
            if isinstance(node, ast.ClassDef):
                there |= {f"{file.stem}.{node.name}.{x.name}" for x in node.body if isinstance(x, ast.FunctionDef)}
    return there


def rewrite(page: Path) -> bool:
    """Writes into `page` what its commands print, where that is not what it shows; whether anything was written."""
    place = Path(tempfile.mkdtemp(prefix="sessionctl-pages-"))
    try:
        with scratch_world(place) as world:
            text = play(page, world, lambda where, shown, printed: shown if agree(shown, printed) else printed)
    finally:
        shutil.rmtree(place)
    if text == page.read_text():
        return False
    page.write_text(text)
    return True


if __name__ == "__main__":
    for each in map(Path.resolve, map(Path, sys.argv[1:])) if sys.argv[1:] else PAGES:
        if rewrite(each):
            print(f"wrote {each.relative_to(ROOT)}")
