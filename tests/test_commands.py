"""Commands that help pages, docs and the README name are such as there are, and work."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sessionctl import cli
from sessionctl.errors import SessionctlError
from tests.pages import PAGES, ROOT, World, blocks, require_sandboxes, scratch_world
from tests.person import answering

# --- the examples of each command --------------------------------------------------------------

_MANIFEST = """\
cat >sessions.toml <<'TOML'
version = 1
[defaults]
workspace = { base = "main" }
[sessions.api]
tags = ["backend"]
[sessions.web]
TOML
"""
_MADE = f"{_MANIFEST}sessionctl apply --yes\n"
_KEPT = f"{_MADE}sessionctl snapshot api -m kept\n"
_SECRET = "sed -i 's/tags = .*/env = { A = { from_env = \"HOME\" } }/' sessions.toml\n"
BEFORE: Mapping[str, str] = {
    "init": "",
    "validate": _MANIFEST,
    "schema": "",
    "add": f"{_MADE}sed -i '/sessions.api/,/tags/d' sessions.toml; git tag v1.2\n",
    # Without its block and its record, what is there of a session is a stray.
    "adopt": f"{_MADE}sed -i '/sessions.api/,/tags/d' sessions.toml; rm $SESSIONCTL_STATE_DIR/*/state.db*\n"
    "git worktree add -q ../project-fix\n",
    "trust": _MANIFEST + _SECRET,
    "apply": _MANIFEST,
    "prune": f"{_MADE}echo '[sessions.old-api]' >>sessions.toml; sessionctl apply -y; sed -i '$d' sessions.toml\n",
    "verify": f"{_MADE}git init -q --bare ../origin && git remote add origin ../origin && git push -qu origin main\n",
    "path": _MANIFEST.replace('main" }', 'main", visible = true }') + "sessionctl trust -y; sessionctl apply --yes\n",
    "exec": "printf 'import unittest\\nclass T(unittest.TestCase):\\n  def test(self): pass\\n' >test_app.py\n"
    f"git add . && git commit -qm 'A test'\n{_MADE}",
    "restore": _KEPT,
    "fork": _KEPT,
    "discard": _KEPT,
    "undo": f"{_KEPT}sessionctl restore -y api\n",
    "snapshots": _KEPT,
    "cp": f"{_MADE}mkdir data; sessionctl exec api -- sh -c 'echo >report.md; echo >~/.bash_history'\n",
    "diff": _KEPT,
    "logs": f"{_MADE}sessionctl exec api -- echo hello\n",
    "start": f"{_MADE}sessionctl stop api\n",
    "hooks uninstall": "sessionctl hooks install\n",
    "hooks install": "",
    "hooks status": "",
    "hooks run": "",
    "show": _MANIFEST,
    "ls": _MANIFEST,
    "images": _MANIFEST,
    "gc": _MANIFEST,
    "completion": "",
    "doctor": "",
}
"""What was done before; `_MADE` for all others."""
_STUBS = {"jq": "cat >/dev/null", "code": '[ -d "$1" ]'}
"""Programs of other people that examples hand things to."""
_INSTEAD = {
    "sessionctl adopt --project": "(mv $PWD $PWD.moved && cd $PWD.moved && sessionctl adopt --project)"
    " && mv $PWD.moved $PWD && cd $PWD && sessionctl adopt --project",
    "sessionctl apply --plan api.plan": "sessionctl plan --out api.plan api && sessionctl apply --plan api.plan",
    "sessionctl log -f --json": "timeout 3 sessionctl log -f --json; [ $? = 124 ]",
    "sessionctl completion fish | source": "sessionctl completion fish",
}
"""What is run for examples that need another one, never end, or are for another shell."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    require_sandboxes(tmp_path)
    with scratch_world(tmp_path) as made:
        for name, script in _STUBS.items():
            program = tmp_path / "bin" / name
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        yield made


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_example_of_a_command_works(name: str, world: World) -> None:
    type = answering(world)
    code, said = type(f"set -e\n{BEFORE.get(name, _MADE)}")
    assert code == 0, said
    for line in map(str.strip, cli.command_of(name).examples.splitlines()):
        if "1f3a9c04" in line:
            # A command or a snapshot, of which there is one.
            listed = json.loads(type(f"sessionctl {'logs' if name == 'logs' else 'snapshots'} api --json")[1])
            (one,) = listed.get("snapshots", [listed])
            line = line.replace("1f3a9c04", one["id"].rpartition("-")[2])
        code, said = type(_INSTEAD.get(line, line))
        assert code == 0, f"$ {line}\n{said}"


# --- commands in prose -------------------------------------------------------------------------


class _Strict(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        # In a sentence, arguments may be missing or be placeholders; options have to be there all the same.
        if not re.search(r"^the following arguments are required|: invalid choice: '[A-Z]+'", message):
            raise SessionctlError(message)


def wrong_with(words: list[str]) -> str:
    """Why `words` are no command line, as far as options and commands go; empty when they are one."""
    at = cli.command_at(words)
    if not words[at:]:
        return ""
    name = cli.named(words[at:])
    if name not in cli.COMMANDS:
        return "" if any(each.startswith(f"{name} ") for each in cli.COMMANDS) else f"there is no {name}"
    parser = _Strict()
    cli.global_options(parser, argparse.Namespace())
    cli.command_of(name).options(parser)
    try:
        parser.parse_known_args([*words[:at]])
        _, unknown = parser.parse_known_args(words[at + len(name.split()) :])
    except SessionctlError as error:
        return str(error)
    return (
        f"{name} has no {' '.join(each for each in unknown if each.startswith('-'))}"
        if any(each.startswith("-") for each in unknown)
        else ""
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_sentences_are_such_as_there_are(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for code in re.findall(r"`(sessionctl [a-z-][^`]*)`", prose):
        words = shlex.split(code.replace("\\|", "|").replace("...", "").partition("|")[0].partition("&&")[0])[1:]
        assert wrong_with(words) == "", f"{page.name}: {code}"


def test_what_is_no_command_is_told() -> None:
    assert wrong_with(["aply"]) == "there is no aply"
    assert wrong_with(["apply", "--ys"]) == "apply has no --ys"
    assert wrong_with(["--color", "pink", "ls"]) != ""
    assert wrong_with(["exec"]) == wrong_with(["hooks"]) == wrong_with(["-C", "DIR", "apply", "-y", "NAME"]) == ""


# --- blocks that are not played ----------------------------------------------------------------

RUN_BY = {
    "README.md": {
        "python3 -m venv .venv && . .venv/bin/activate && pip install -q .": "tests/test_newcomer.py",
        "cd ~/project && sessionctl init": "tests/test_newcomer.py",
        "sessionctl apply": "tests/test_newcomer.py",
        "sessionctl exec agent -- bash": "tests/test_newcomer.py",
        "python3 -m venv .venv && .venv/bin/pip install -q -e . && .venv/bin/python examples/quickstart/run.py": (
            "tests/test_examples.py"
        ),
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[dev]' && .venv/bin/python -m pytest -q -n auto": (
            ".ci/run"
        ),
    },
    "CONTRIBUTING.md": {
        "python3 -m venv .venv": ".ci/run",
        ".venv/bin/pip install -e '.[dev]'": ".ci/run",
        ".venv/bin/invoke --list": "tests/test_commands.py",
        ".venv/bin/invoke test": "tests/test_commands.py",
        ".venv/bin/invoke test --only fetch": "tests/test_commands.py",
        ".venv/bin/invoke lint": "tests/test_commands.py",
        ".ci/run": ".ci/run",
    },
    "docs/hooks.md": {
        "source <(sessionctl completion bash)": "tests/test_commands.py",
        "sessionctl completion fish | source": "tests/test_commands.py",
    },
    "docs/speed.md": {"python -m tests.bench [--quick] [--json] [NAME...]": "tests/test_bench.py"},
    "examples/quickstart/README.md": {
        "python examples/quickstart/run.py": "tests/test_examples.py",
        "python examples/quickstart/run.py DIR": "tests/test_examples.py",
        "python examples/quickstart/run.py DIR --keep": "tests/test_examples.py",
    },
}
"""Commands in blocks that pages do not play, and what runs them. docs/commands.md has its own test, above."""
_COMMAND = re.compile(r"(sessionctl|python3?|source|cd|git|invoke|pip|\.venv/bin/\S+|\.ci/run)( |$)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_a_page_does_not_play_are_run_elsewhere(page: Path) -> None:
    name = str(page.relative_to(ROOT))
    if name == "docs/commands.md":
        return
    lines = [
        re.split(r"\s{2,}", line.strip())[0]
        for block in blocks(page.read_text())
        if block.kind in ("bash", "text") and not block.name
        for line in block.text.splitlines()
    ]
    said = [line for line in lines if _COMMAND.match(line)]
    assert said == list(RUN_BY.get(name, {})), "no test runs these: see RUN_BY"
    assert all((ROOT / test).exists() for test in RUN_BY.get(name, {}).values())


def test_the_tasks_that_contributing_names_run_what_it_says() -> None:
    def invoke(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "invoke", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert {"test", "lint", "docs", "schema"} <= set(re.findall(r"^  (\S+)", invoke("--list"), re.M))
    assert "-m pytest -q -n auto" in invoke("--dry", "test")
    assert "-k 'fetch'" in invoke("--dry", "test", "--only", "fetch")
    assert [line.partition(" -m ")[2].rstrip("\x1b[0m") for line in invoke("--dry", "lint").splitlines()] == [
        "ruff check .",
        "ruff format --check .",
        "mypy",
    ]
