"""The invoke Collection: what `inv sessions.…` does is what the command line does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from invoke.config import Config
from invoke.context import Context
from invoke.exceptions import Exit

from sessionctl import cli
from sessionctl.app import Project
from sessionctl.tasks import sessions
from tests import reference
from tests.command import Repository, Said

_TASKS = """\
from invoke import Collection, task
from sessionctl.tasks import sessions

@task
def both(ctx):
    sessions["exec"](ctx, "api", "echo 'a  b'")
    sessions["exec"](ctx, "api", ["sh", "-c", "exit 4"])

@task(pre=[sessions["apply"]])
def after(ctx):
    print("applied")

ns = Collection(both, after, sessions)
ns.configure(SETTINGS)
"""


def inv(directory: Path, *words: str, code: int = 0, settings: str = "{}", **env: str) -> Said:
    """Runs invoke in `directory`, with a tasks.py that was written there; it must end with `code`."""
    (directory / "tasks.py").write_text(_TASKS.replace("SETTINGS", settings))
    done = subprocess.run(
        [sys.executable, "-m", "invoke", *words],
        cwd=directory,
        env={**os.environ, "NO_COLOR": "1", **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return Said(done.returncode, done.stdout, done.stderr)


def without_ids(text: str) -> str:
    return re.sub(r"\b[0-9a-f]{10,}\b|\b\d{8}T\d{6}\b", "ID", text)


def test_the_same_plan_the_same_records_the_same_codes(repository: Repository, tmp_path: Path) -> None:
    twin = Repository(tmp_path / "twin")
    for each in (repository, twin):
        each.declare('[sessions.api]\ntags = ["x"]\n[sessions.web]\nstate = "stopped"\n')
        (each.root / ".git" / "info" / "exclude").write_text("tasks.py\n")

    def same(*words: str, code: int = 0) -> None:
        by_hand, by_task = (
            repository.run(*words, code=code),
            inv(twin.root, f"sessions.{words[0]}", *words[1:], code=code),
        )
        assert without_ids(by_task.out) == without_ids(by_hand.out) and by_task.err == by_hand.err

    same("plan", "--exit-code", code=3)
    same("verify", code=3)
    same("apply", code=2)  # there is nobody to ask
    same("apply", "--yes")
    same("plan", "--exit-code")
    same("apply", "-y")
    same("status", "nobody", code=2)
    same("ls", "--sort", "wrong", code=2)
    records = [Project(each.root).store.records() for each in (repository, twin)]
    assert records[0].keys() == records[1].keys() == {"api", "web"}
    for name in records[0]:
        one, other = (found[name] for found in records)
        assert (one.last.digests, dict(one.last.data), one.backend, one.git.branch) == (
            *(other.last.digests, dict(other.last.data)),
            *(other.backend, other.git.branch),
        )


def test_a_command_for_inside_keeps_its_words_and_its_code(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    root = repository.root
    assert inv(root, "sessions.exec", "api", "--", "sh", "-c", "echo 'a  b'; exit 7", code=7).out == "a  b\n"
    assert inv(root, "sessions.exec", "-e", "A=-x y", "api", "--", "printenv", "A").out == "-x y\n"
    assert inv(root, "both", code=4).out == "a  b\n"
    inv(root, "sessions.exec", "nobody", "--", "true", code=125)


def test_names_are_options_that_may_be_repeated(repository: Repository) -> None:
    repository.declare("[sessions.api]\n[sessions.db]\n[sessions.web]\n")
    inv(repository.root, "sessions.apply", "--yes", "--name", "api", "--names", "web")
    seen = {name: repository.session(name)["observed"] for name in ("api", "db", "web")}
    assert seen == {"api": "running", "db": "gone", "web": "running"}
    assert inv(repository.root, "sessions.stop", "--name", "api", "--name", "web").out.count("stopped") == 2


def test_a_task_before_another_one_ends_it_when_it_fails(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    assert "applied" not in inv(repository.root, "after", code=2).out
    repository.apply()
    assert inv(repository.root, "after").out.endswith("applied\n")


def test_invokes_configuration_says_where_things_are(repository: Repository, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (repository.root / "other.toml").write_text("version = 1\n[sessions.there]\n")
    settings = {"sessions": {"root": str(repository.root), "file": str(repository.root / "other.toml")}}
    assert "there" in inv(other, "sessions.plan", settings=repr(settings)).out
    repository.declare("[sessions.api]\n")
    assert "api" in inv(other, "sessions.plan", INVOKE_SESSIONS_ROOT=str(repository.root)).out
    said = inv(other, "sessions.plan", settings="{'sessions': {'rot': '.'}}", code=2)
    assert "sessions.rot: unknown setting; there are root, file, state_dir" in said.err


def test_called_from_python_it_follows_the_directory_and_raises_the_code(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.declare("[sessions.api]\n")
    ctx = Context(Config())
    with ctx.cd(str(repository.root)):
        with pytest.raises(Exit) as ended:
            sessions["plan"](ctx, exit_code=True)
        assert ended.value.code == 3
        sessions["plan"](ctx, ["api"])
    assert "Plan: 1 to create." in capsys.readouterr().out
    with pytest.raises(TypeError, match="exitcode"):
        sessions["plan"](ctx, exitcode=True)


def test_told_to_run_nothing_it_shows_the_line_and_runs_nothing(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    said = inv(repository.root, "--dry", "sessions.apply", "-y", "--name", "api")
    assert said.out == "sessionctl apply --yes api\n"
    assert repository.session("api")["observed"] == "gone"


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name not in ("hooks run", "completion")])
def test_each_command_is_a_task_with_its_options_and_its_help(name: str) -> None:
    task = sessions[name.replace(" ", "-")]
    assert (task.body.__doc__ or "").startswith(cli.COMMANDS[name].summary)
    taken = {flag for argument in task.get_arguments() for flag in argument.names}
    actions = reference._actions(cli.command_of(name).options)
    assert {option.lstrip("-") for action in actions for option in action.option_strings} <= taken
    assert {a.dest for a in actions if not a.option_strings and a.nargs != "..."} <= taken
    assert all(argument.help for argument in task.get_arguments())


def test_help_can_be_shown_of_every_task(repository: Repository) -> None:
    assert "sessions.hooks-install" in inv(repository.root, "--list").out
    said = inv(repository.root, "--help", "sessions.apply").out
    assert "Removes nothing that a block was deleted for" in said and "-y, --yes" in said
    inv(repository.root, "--help", "sessions.exec")
