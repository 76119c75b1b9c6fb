"""A saved plan is carried out as it was read, or refused with what has moved."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.command import Repository, git


def test_a_saved_plan_does_what_it_says(repository: Repository, tmp_path: Path) -> None:
    file = tmp_path / "out.plan"
    repository.declare("[sessions.api]\n[sessions.web]\n")
    shown = repository.run("plan", "--out", str(file), "api").out
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not list(repository.root.parent.glob(".sessionctl-*"))
    said = repository.run("apply", "--yes", "--plan", str(file)).out
    assert said.startswith(shown.rstrip()) and "done    api: create" in said
    assert [repository.session(name)["observed"] for name in ("api", "web")] == ["running", "gone"]


def test_a_saved_plan_with_nothing_to_do_does_nothing(repository: Repository, tmp_path: Path) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    repository.run("plan", "--out", str(tmp_path / "p"))
    assert "In sync" in repository.run("apply", "--plan", str(tmp_path / "p")).out


def refused(repository: Repository, file: Path) -> list[str]:
    """What is said of how the world moved since `file` was written."""
    said = repository.run("apply", "--yes", "--plan", str(file), code=3)
    assert said.out == "" and f"sessionctl plan --out {file}" in said.err
    return [line for line in said.err.splitlines() if line[:2] in ("- ", "+ ")]


def test_a_saved_plan_is_refused_when_the_manifest_changed(repository: Repository, tmp_path: Path) -> None:
    file = tmp_path / "p"
    repository.declare('[sessions.api]\nsetup = ["true"]\n')
    repository.run("plan", "--out", str(file))
    repository.declare('[sessions.api]\nsetup = ["touch planted"]\n')
    # The decision is the same, to create it: what it is made of is not.
    assert refused(repository, file) == [
        '- api declared with setup: ["true"]',
        '+ api declared with setup: ["touch planted"]',
    ]
    repository.declare('[sessions.api]\nsetup = ["true"]\n[sessions.web]\n')
    difference = refused(repository, file)
    assert difference[0] == "+ web: create: declared and never made"
    assert all("web" in line or line.startswith("+   ") for line in difference)
    assert repository.session("api")["observed"] == "gone"


def test_a_saved_plan_is_refused_when_the_world_moved(repository: Repository, tmp_path: Path) -> None:
    file = tmp_path / "p"
    repository.declare("[sessions.api]\n")
    repository.run("plan", "--out", str(file))
    before = repository.head
    git(repository.root, "commit", "-q", "--allow-empty", "-m", "second")
    assert refused(repository, file) == [f"-   from {before}", f"+   from {repository.head}"]
    repository.apply()
    assert "- api: create: declared and never made" in refused(repository, file)
    repository.declare('[sessions.api]\ntitle = "x"\n')
    repository.run("plan", "--out", str(file))
    repository.run("stop", "api")
    assert "+ api: start: its files are there, nothing runs" not in refused(repository, file)
    assert any(line.startswith("+ api: start: declared running, stopped by hand") for line in refused(repository, file))


def test_a_file_allows_nothing(repository: Repository, tmp_path: Path) -> None:
    file = tmp_path / "p"
    repository.declare('[sessions.api]\nnetwork = "host"\n')
    repository.run("plan", "--allow-host", "--out", str(file))
    assert "was made with --allow-host" in repository.run("apply", "--yes", "--plan", str(file), code=2).err
    text = json.loads(file.read_text())
    file.write_text(json.dumps({**text, "allow_host": False}))
    assert "+   not allowed" in refused(repository, file)
    file.write_text(json.dumps(text))
    repository.run("apply", "--yes", "--allow-host", "--plan", str(file))
    assert repository.session("api")["network"] == "host"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is no saved plan"),
        ("[]", "is no saved plan"),
        ('{"form": 1, "project": "x", "names": ["../x"]}', "is no saved plan"),
        ('{"form": 9, "project": "x"}', "another release"),
        (None, "another repository"),
    ],
)
def test_what_is_no_plan_of_this_repository_is_refused(
    repository: Repository, tmp_path: Path, content: str | None, words: str
) -> None:
    file = tmp_path / "p"
    repository.declare("[sessions.api]\n")
    repository.run("plan", "--out", str(file))
    if content is None:
        content = json.dumps({**json.loads(file.read_text()), "project": "0" * 64})
    file.write_text(content)
    assert words in repository.run("apply", "--yes", "--plan", str(file), code=2).err
    assert "cannot be read" in repository.run("apply", "--plan", str(tmp_path / "none"), code=2).err
    assert "leave the names away" in repository.run("apply", "--plan", str(file), "api", code=2).err
    assert "cannot be written" in repository.run("plan", "--out", str(tmp_path / "no" / "p"), code=2).err


def test_what_a_saved_plan_says_cannot_steer_a_terminal(repository: Repository, tmp_path: Path) -> None:
    file = tmp_path / "p"
    repository.declare("[sessions.api]\n")
    repository.run("plan", "--out", str(file))
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "decision": ["api: create: \x1b[2J"]}))
    assert "\x1b" not in repository.run("apply", "--yes", "--plan", str(file), code=3).err
