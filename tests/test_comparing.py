"""`diff`: what became of a session's files, whatever its repository says."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sessionctl import Project, comparing
from sessionctl.errors import GitError
from tests.command import Repository

WORK = """
echo committed >>a.txt; git commit -qam one
echo staged >staged; git add staged
echo loose >loose; echo hidden >x.log; rm src/main.py
"""
DONE = {"a.txt": ("M", 1, 0), "staged": ("A", 1, 0), "loose": ("A", 1, 0), "src/main.py": ("D", 0, 1)}


@pytest.fixture
def api(repository: Repository) -> Repository:
    """A repository with a session that runs."""
    repository.declare("[sessions.api]\n")
    repository.apply()
    return repository


def changed(repository: Repository, *words: str) -> dict[str, tuple[str, int | None, int | None]]:
    """What `diff --json` says: status, lines added and removed of each file."""
    found: Any = repository.run("diff", "--json", *words).json
    assert found["truncated"] is False
    return {each["path"]: (each["status"], each["added"], each["removed"]) for each in found["files"]}


@pytest.mark.parametrize("workspace", ["{}", "{ visible = true }", '{ mode = "overlay" }', '{ history = "own" }'])
def test_everything_that_became_of_the_files(repository: Repository, workspace: str) -> None:
    repository.declare(f"[sessions.api]\nworkspace = {workspace}\n")
    repository.apply("--allow-host")
    assert "nothing differs" in repository.run("diff", "api").err or "overlay" in workspace
    repository.inside("api", WORK)
    found = changed(repository, "api")
    found.pop("sessions.toml", None)  # of the user's own checkout, in mode overlay
    assert found == DONE
    assert "x.log" in changed(repository, "api", "--ignored")
    repository.run("stop", "api")
    assert {path: found for path, found in changed(repository, "api").items() if path != "sessions.toml"} == DONE


def test_a_patch_can_be_applied(api: Repository, tmp_path: Path) -> None:
    api.inside("api", WORK)
    patch = tmp_path / "patch"
    patch.write_text(api.run("diff", "api").out)
    subprocess.run(["git", "apply", "--index", str(patch)], cwd=api.root, check=True)
    assert (api.root / "a.txt").read_text() == "a\ncommitted\n"
    assert not (api.root / "src" / "main.py").exists() and (api.root / "loose").read_text() == "loose\n"


def test_against_a_snapshot_and_from_one_to_another(api: Repository) -> None:
    def snapshot() -> str:
        return str(api.run("snapshot", "api", "--json").json["id"])

    api.inside("api", WORK)
    one = snapshot()
    api.inside("api", "git commit -qam two; rm loose; echo more >>a.txt; echo late >late")
    two = snapshot()
    api.inside("api", "rm late; mkdir -p src; printf 'print(1)\\n' >src/main.py")
    since = {"loose": ("D", 0, 1), "a.txt": ("M", 1, 0)}
    assert changed(api, "api", "--snapshot", one, two) == {**since, "late": ("A", 1, 0)}
    assert changed(api, "api", "--snapshot", one) == {**since, "src/main.py": ("A", 1, 0)}
    assert changed(api, "api", "--snapshot", two, one)["late"] == ("D", 0, 1)
    assert changed(api, "api", "--snapshot", one.rpartition("-")[2], one) == {}
    assert "no snapshot 'nope'" in api.run("diff", "api", "--snapshot", "nope", code=2).err
    assert "one snapshot, or two" in api.run("diff", "api", "--snapshot", one, two, one, code=2).err


def test_a_session_without_git_is_compared_with_nothing(repository: Repository) -> None:
    repository.declare('[sessions.api]\nworkspace = { mode = "empty" }\n')
    repository.apply()
    assert changed(repository, "api") == {}
    repository.inside("api", "mkdir d; echo x >d/x")
    assert changed(repository, "api") == {"d/x": ("A", 1, 0)}
    assert repository.run("diff", "--stat", "api").out == "A +1 -0  d/x\n"


def test_the_users_own_checkout_is_the_users_to_compare(repository: Repository) -> None:
    if not os.geteuid():
        pytest.skip("root's sandboxes cannot write root's checkout")
    repository.declare('[sessions.api]\nworkspace = { mode = "bind" }\n')
    repository.apply("--allow-host")
    assert "run `git diff` there" in repository.run("diff", "api", code=2).err


def test_nothing_an_agent_configures_hides_or_forges_anything(api: Repository, tmp_path: Path) -> None:
    """Its index, its attributes, its drivers and an object that is not what its name says."""
    out = tmp_path / "outside"
    out.mkdir()
    for path in (tmp_path, out):
        path.chmod(0o777)
    api.inside(
        "api",
        f"""
        git config diff.external "touch {out}/ran"; git config diff.x.textconv "touch {out}/ran; echo same"
        git config diff.x.command "touch {out}/ran"; git config filter.x.clean "touch {out}/ran; cat"
        git config core.fsmonitor "touch {out}/ran"; git config core.pager "touch {out}/ran"
        git config core.worktree /tmp; git config core.ignoreStat true
        printf '* diff=x filter=x\\na.txt -diff\\n' >.git/info/attributes; printf 'loose\\n' >.git/info/exclude
        git update-index --assume-unchanged a.txt; git update-index --skip-worktree src/main.py
        touch -r a.txt stamp; printf 'b\\n' >a.txt; touch -r stamp a.txt; rm stamp
        echo evil >loose; echo changed >src/main.py
        real=$(git hash-object -w --no-filters loose); fake=$(echo fine | git hash-object -w --stdin)
        p() {{ echo .git/objects/$(echo $1 | cut -c1-2)/$(echo $1 | cut -c3-); }}; chmod u+w $(p $real)
        cp -f $(p $fake) $(p $real)
        """,
    )
    assert changed(api, "api") == {"a.txt": ("M", 1, 1), "loose": ("A", 1, 0), "src/main.py": ("M", 1, 1)}
    said = api.run("diff", "api").out
    assert "+evil" in said and "fine" not in said and "-a\n+b\n" in said
    assert list(out.iterdir()) == []


def test_what_is_in_the_way_of_git_is_said(api: Repository) -> None:
    api.inside("api", "mkdir sub; git init -q sub; echo x >sub/x; mkfifo pipe; echo y >y; truncate -s 70M large")
    said = api.run("diff", "api", "--json")
    assert [each["path"] for each in said.json["files"]][-1] == "y"
    assert "sub: a repository of its own" in said.err and "large: 70 MiB are not looked into" in said.err
    api.inside("api", "rm .gitignore; mkfifo .gitignore")
    assert ".gitignore is no file" in api.run("diff", "api", code=1).err


def test_too_much_is_not_compared_and_what_is_cut_off_is_said(api: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    api.inside("api", "seq 1000 >many; mkdir d; for i in $(seq 50); do echo $i >d/$i; done")
    for name, value in (("_PATCH", 1000), ("_LIST", 1000)):
        with monkeypatch.context() as patch:
            patch.setattr(comparing, name, value)
            found = Project(api.root).diff("api")
        assert found.cut and found.files
    assert not Project(api.root).diff("api").cut
    monkeypatch.setattr(comparing, "_MOST", 1000)
    with pytest.raises(GitError, match=r"of files were written, more than the 1\.0 KiB that are looked into"):
        Project(api.root).diff("api")


def test_what_is_in_git_directories_is_not_compared(api: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    api.inside("api", "head -c 100000 /dev/urandom >.git/large; mkfifo .git/info/attributes; echo x >x")
    monkeypatch.setattr(comparing, "_MOST", 10_000)
    assert [each.path for each in Project(api.root).diff("api").files] == [b"x"]


def test_a_snapshot_without_a_workspace_is_compared_with_nothing(api: Repository) -> None:
    id = api.run("snapshot", "api", "--json").json["id"]
    file = api.state / "snapshots" / "api" / id / "snapshot.json"
    data = json.loads(file.read_text())
    del data["parts"]["work"]
    file.write_text(json.dumps(data))
    assert f"snapshot {id} holds no workspace" in api.run("diff", "api", "--snapshot", id, code=2).err


def test_what_an_agent_wrote_cannot_steer_the_terminal(api: Repository) -> None:
    api.inside("api", "printf '\\033]0;x\\007\\033[2J\\302\\233m\\r\\n' >evil; printf x >\"$(printf 'n\\033[31m')\"")
    for words in (["diff", "api"], ["diff", "api", "--stat"], ["diff", "api", "--color", "always", "--json"]):
        said = api.run(*words)
        assert "\x1b" not in said.out + said.err and "\x9b" not in said.out + said.err, words
    assert "+\\x1b]0;x\\x07\\x1b[2J\\x9bm\\r" in api.run("diff", "api").out
    painted = api.run("diff", "api", "--color", "always").out
    assert "\x1b[32m+\\x1b]0;x" in painted


def test_a_terminal_gets_colours_and_a_pager(api: Repository, tmp_path: Path) -> None:
    api.inside("api", "seq 200 >many")
    pager = tmp_path / "pager"
    pager.write_text(f'#!/bin/sh\ncat >"{tmp_path}/paged"\n')
    pager.chmod(0o755 | stat.S_IXUSR)
    import pty

    master, terminal = pty.openpty()
    env = {**os.environ, "PAGER": str(pager), "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-m", "sessionctl", "diff", "api"], cwd=api.root, env=env, stdout=terminal
    ) as child:
        os.close(terminal)
        assert child.wait(60) == 0
    os.close(master)
    paged = (tmp_path / "paged").read_text()
    assert "\x1b[32m+200\x1b[0m" in paged


# --- logs --------------------------------------------------------------------------------------


def test_the_output_of_commands_and_of_setup_is_kept_and_shown(repository: Repository) -> None:
    repository.declare('[sessions.api]\nsetup = ["echo set up; echo loudly >&2"]\n')
    repository.apply()
    repository.inside("api", "echo one; echo two >&2; exit 3", code=3)
    repository.run("exec", "--no-record", "api", "--", "echo", "never kept")
    said = repository.run("logs", "api").out.splitlines()
    assert [line for line in said if not line.startswith("==")] == ["set up", "loudly", "one", "two"]
    heads = [line.split("  ")[2:] for line in said if line.startswith("==")]
    assert heads[0] == ["setup", "[0] sh -c 'echo set up; echo loudly >&2'"] and heads[1][1].startswith("[3] sh -c")
    assert repository.run("logs", "api", "--tail", "1").out == "two\n"
    found = [json.loads(line) for line in repository.run("logs", "api", "--json").out.splitlines()]
    assert [(each["event"], each["exit_code"], each["stdout"]) for each in found] == [
        ("setup", 0, "set up\n"),
        ("exec", 3, "one\n"),
    ]
    for id in (found[1]["id"], found[1]["id"].rpartition("-")[2]):
        assert repository.run("logs", "api", "--exec", id).out.splitlines()[1:] == ["one", "two"]
    assert "no output of a command 'nope'" in repository.run("logs", "api", "--exec", "nope", code=2).err
    assert "there is no session nope" in repository.run("logs", "nope", code=2).err


def test_sequences_are_taken_out_of_what_is_shown(api: Repository) -> None:
    script = (
        r"printf '\033[1;31mred\033[0m\033]0;title\007 \033]8;;http://x\033\\link\033(B\n'; printf 'gone\rback\r\n'"
    )
    api.inside("api", script + r"; printf 'left \033 \302\233 \342\200\256\n'")
    shown = api.run("logs", "api").out.split("\n", 1)[1]
    assert shown == "red link\ngone\nback\nleft \\x1b \\x9b \\u202e\n"


def test_what_comes_later_follows(api: Repository) -> None:
    api.inside("api", "echo first")
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "sessionctl", "logs", "-f", "api"], cwd=api.root, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        try:
            assert [child.stdout.readline().split(" ")[0] for _ in range(2)] == ["==", "first\n"]
            api.inside("api", "echo second")
            assert [child.stdout.readline().split(" ")[0] for _ in range(2)] == ["==", "second\n"]
        finally:
            child.kill()
