"""A session that is called otherwise is the same session: renamed, not destroyed and made again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sessionctl import Project, edit
from sessionctl.errors import ConflictError, UsageError
from sessionctl.model import SessionSpec, WorkspaceSpec
from tests.command import Repository, git

TEXT = """\
version = 1
# before
[defaults]  # d
title = "[sessions.api]"

[sessions.api]   # the api
tags = ["a"]     # a
["sessions".'api'.env]
A = "api"
[[ sessions . api . files ]]
path = "~/.x"
content = "x"
[sessions.api-2]
"""


# --- the text of the manifest ------------------------------------------------------------------


def test_a_block_is_renamed_and_all_else_stays() -> None:
    found = edit.renamed(TEXT, "api", "web")
    changed = [(a, b) for a, b in zip(TEXT.splitlines(), found.splitlines(), strict=True) if a != b]
    assert changed == [
        ("[sessions.api]   # the api", "[sessions.web]   # the api"),
        ("[\"sessions\".'api'.env]", '["sessions".web.env]'),
        ("[[ sessions . api . files ]]", "[[ sessions . web . files ]]"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "version = 1\nsessions.api.title = 'x'\n",
        "version = 1\n[sessions]\napi = {}\n",
        "version = 1\n[sessions.api]\ntitle = '''\n[sessions.api]\n'''\n",
    ],
)
def test_what_cannot_be_renamed_safely_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be renamed by a program") as caught:
        edit.renamed(text, "api", "web")
    assert 'renamed_from = "api"' in caught.value.hint


# --- renaming ----------------------------------------------------------------------------------


def test_rename_keeps_work_home_history_branch_and_what_runs(repository: Repository) -> None:
    repository.declare('# one\n[sessions.api]  # two\nworkspace = { branch = "mine" }\n[sessions.other]\n')
    repository.apply()
    repository.inside("api", "echo u > untracked; echo i > .env; echo h > ~/h; git commit -q --allow-empty -m two")
    repository.inside("api", "sleep 1000 >/dev/null 2>&1 &")
    before = repository.session("api")
    repository.run("rename", "api", "web")
    assert (repository.root / "sessions.toml").read_text() == (
        'version = 1\n# one\n[sessions.web]  # two\nworkspace = { branch = "mine" }\n[sessions.other]\n'
    )
    after = repository.session("web")
    kept = ("pid", "sandbox", "commit", "branch", "created_at", "base", "unpushed", "dirty")
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    assert [each["name"] for each in repository.run("ls", "--all", "--json").json["sessions"]] == ["other", "web"]
    repository.run("plan", "--exit-code")
    assert repository.inside("web", "cat untracked .env ~/h; pgrep -c sleep").out == "u\ni\nh\n1\n"
    repository.run("stop", "web")
    repository.run("start", "web")
    assert repository.inside("web", "cat untracked ~/h; hostname").out == "u\nh\nweb\n"
    repository.run("fetch", "web")
    assert git(repository.root, "rev-parse", "mine") == before["commit"]
    log = repository.run("log", "web").out.splitlines()
    assert "api  create" in log[0] and "is web now" not in "\n".join(log)
    assert "is web now" in repository.run("log", "api").out.splitlines()[-1]


def test_the_default_branch_follows_the_name_at_the_same_commit(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    repository.inside("api", "git commit -q --allow-empty -m mine")
    tip = repository.session("api")["commit"]
    repository.run("rename", "api", "web")
    assert repository.session("web")["branch"] == "agents/api"
    (change,) = repository.run("plan", "--json").json["changes"]
    assert (change["kind"], [field["path"] for field in change["fields"]]) == ("update", ["workspace.branch"])
    repository.apply()
    session = repository.session("web")
    assert (session["branch"], session["commit"]) == ("agents/web", tip)
    assert repository.inside("web", "git rev-parse agents/api").out.strip() == tip


def test_renamed_from_is_an_action_of_the_plan(repository: Repository) -> None:
    repository.declare('[sessions.api]\nworkspace = { branch = "mine" }\n[sessions.other]\n')
    repository.apply()
    repository.inside("api", "echo u > untracked")
    before = repository.session("api")
    web = 'workspace = { branch = "mine" }\n[sessions.other]\n'
    repository.declare(f'[sessions.web]\nrenamed_from = "api"\n{web}renamed_from = "never"\n')
    plan = repository.run("plan", "--json", "--exit-code", code=3).json
    ((change,), kind) = plan["changes"], plan["changes"][0]["kind"]
    assert (kind, [each["verb"] for each in change["actions"]]) == ("rename", ["rename", "record"])
    assert repository.session("api")["pid"] == before["pid"], "a plan changes nothing"
    repository.apply()
    repository.run("plan", "--exit-code")
    after = repository.session("web")
    assert (after["pid"], after["sandbox"]) == (before["pid"], before["sandbox"])
    assert repository.inside("web", "cat untracked").out == "u\n"
    repository.declare(f"[sessions.web]\n{web}")
    repository.run("plan", "--exit-code")


def test_renamed_from_with_other_changes_is_one_lane(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    repository.inside("api", "echo u > untracked; echo h > ~/h")
    repository.declare('[sessions.web]\nrenamed_from = "api"\nsetup = ["touch made"]\nenv = { A = "1" }\n')
    repository.apply()
    repository.run("plan", "--exit-code")
    assert repository.inside("web", 'cat untracked ~/h; ls made; echo "$A"').out == "u\nh\nmade\n1\n"
    assert os.listdir(repository.state / "sessions") == ["web"]


def test_prune_does_not_take_what_is_to_be_renamed(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    repository.declare('[sessions.web]\nrenamed_from = "api"\n')
    repository.run("prune", "--yes", "--idle", "0s")
    assert repository.session("api")["observed"] == "running"


def test_two_that_could_be_meant_are_left_alone(repository: Repository) -> None:
    repository.declare("[sessions.api]\n[sessions.web]\n")
    repository.apply()
    pids = [repository.session(name)["pid"] for name in ("api", "web")]
    repository.declare('[sessions.web]\nrenamed_from = "api"\n')
    (change,) = [each for each in repository.run("plan", "--json").json["changes"] if each["session"] == "web"]
    assert change["kind"] == "conflict" and "renamed_from is api, but both are there" in change["reason"]
    repository.apply("--force", code=3)
    assert [repository.session(name)["pid"] for name in ("api", "web")] == pids


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ('[sessions.web]\nrenamed_from = "api"\n[sessions.api]\n', "api is declared too"),
        ('[sessions.a]\nrenamed_from = "x"\n[sessions.b]\nrenamed_from = "x"\n', "both a and b would be x"),
        ('[sessions.a]\nrenamed_from = "x"\ncount = 2\n', "cannot be beside count"),
        ('[sessions.a]\nrenamed_from = "../x"\n', "is not a session name"),
    ],
)
def test_an_old_name_that_cannot_be_is_an_error(repository: Repository, block: str, words: str) -> None:
    repository.declare(block)
    assert words in repository.run("validate", code=2).err


def test_rename_refuses_what_is_taken_or_unknown_and_changes_nothing(repository: Repository) -> None:
    repository.declare("[sessions.api]\n[sessions.gone]\n")
    repository.apply()
    repository.declare("[sessions.api]\n[sessions.new]\n")
    before = (repository.root / "sessions.toml").read_text()
    for words, said in {
        ("api", "new"): "new is taken: the manifest declares it",
        ("api", "gone"): "gone is taken: there is a record of it; there is a sandbox of it",
        ("nope", "x"): "there is no session nope",
        ("api", "api"): "is called so already",
        ("api", "../x"): "is not a session name",
    }.items():
        assert said in repository.run("rename", *words, code=2).err
    assert (repository.root / "sessions.toml").read_text() == before
    (repository.state / "sessions" / "left" / "work" / "upper").mkdir(parents=True)
    (repository.state / "sessions" / "left" / "work" / "upper" / "file").touch()
    assert "left is taken: there is a sandbox of it, half made" in repository.run("rename", "api", "left", code=2).err
    repository.declare("[sessions]\napi = {}\n")
    assert "cannot be renamed by a program" in repository.run("rename", "api", "web", code=2).err
    repository.declare('[sessions.api]\n[sessions.x]\nworkspace = { branch = "agents/web" }\n')
    assert "would be the branch of both" in repository.run("rename", "api", "web", code=2).err
    repository.declare("[sessions.n]\ncount = 2\n")
    repository.apply()
    assert "n-1 is one of a count" in repository.run("rename", "n-1", "m", code=2).err
    assert not (repository.state / "renames").exists()


def test_a_retained_session_is_renamed_and_the_manifest_left(repository: Repository) -> None:
    repository.declare("[sessions.api]\n[sessions.x]\n")
    repository.apply()
    repository.declare("[sessions.x]\n")
    text = (repository.root / "sessions.toml").read_text()
    repository.run("rename", "api", "kept")
    assert (repository.root / "sessions.toml").read_text() == text
    session = repository.session("kept")
    assert (session["declared"], session["stray"], session["branch"]) == (False, False, "agents/api")


def test_trust_goes_with_the_name(repository: Repository) -> None:
    repository.declare('[sessions.api]\nnetwork = "host"\nstate = "stopped"\n')
    repository.run("trust", "--yes")
    repository.run("rename", "api", "web")
    assert "web: create" in repository.apply().out
    repository.declare('[sessions.back]\nnetwork = "host"\nrenamed_from = "web"\nstate = "stopped"\n')
    repository.apply()
    assert "not trusted" not in repository.run("trust", "--show").out


def test_an_unfinished_rename_stops_a_plan_and_apply_finishes_it(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    state = repository.state
    (state / "renames").mkdir()
    manifest = Path(repository.root / "sessions.toml").resolve()
    (state / "renames" / "web").write_text(f'["api", "web", ["bubblewrap"], "{manifest}"]')
    with pytest.raises(ConflictError, match="just being renamed to web"):
        Project(repository.root).plan()
    assert "finish it: sessionctl rename api web" in repository.run("plan", code=3).err
    repository.apply()
    assert repository.session("web")["branch"] == "agents/web"
    assert "[sessions.web]" in manifest.read_text()
    repository.run("plan", "--exit-code")


# --- adding ------------------------------------------------------------------------------------


def test_add_writes_a_block_at_the_end(repository: Repository) -> None:
    text = "version = 1\n# one\n[sessions.api]  # two"
    (repository.root / "sessions.toml").write_text(text)
    said = repository.run("add", "web", "--agent", "claude", "--title", 'a "b"', "--base", "HEAD", "--branch", "w/b")
    assert said.out == "added web to sessions.toml; next: sessionctl plan\n"
    assert (repository.root / "sessions.toml").read_text() == (
        f'{text}\n\n[sessions.web]\nagent = "claude"\ntitle = "a \\"b\\""\n'
        'workspace = {branch = "w/b", base = "HEAD"}\n'
    )
    assert repository.run("show", "web", "--json").json["title"]["value"] == 'a "b"'
    repository.run("add", "plain")
    assert (repository.root / "sessions.toml").read_text().endswith("\n\n[sessions.plain]\n")
    repository.run("plan")


def test_add_refuses_what_would_be_wrong_and_writes_nothing(repository: Repository) -> None:
    for text, words, said in (
        ("[sessions.api]\n", ("api",), "api is declared already"),
        ("[sessions.api]\n", ("x", "--agent", "nobody"), "sessions.x.agent"),
        ("[sessions.api]\n", ("x", "--branch", "agents/api"), "would be the branch of both"),
        ("[sessions.api]\n", ("../x",), "is not a session name"),
        ("sessions = { api = {} }\n", ("x",), "add it by hand:  [sessions.x]"),
    ):
        repository.declare(text)
        assert said in repository.run("add", *words, code=2).err
        assert (repository.root / "sessions.toml").read_text() == f"version = 1\n{text}"
    (repository.root / "sessions.toml").unlink()
    assert "sessionctl init" in repository.run("add", "x", code=2).err


BLOCK = """
agent = "claude"
title = "t"
tags = ["a", "b"]
metadata = { "with space" = "v" }
protect = true
setup = ["true"]
env = { A = "\\u007f\\n1", B = { from_env = "X" } }
files = [{ path = "~/.a", content = "c\\n", mode = "0600" }, { path = "~/.b", source = "a.txt" }]
mounts = [{ source = "../data", path = "/data" }]
network = "host"
limits = { wall = "2h" }
workspace = { branch = "mine", include = [".env"], history = "own" }
"""


@pytest.mark.parametrize("block", ["", BLOCK, 'workspace = { mode = "empty" }\nstate = "stopped"\n'])
def test_what_was_declared_once_is_added_as_it_was(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, block: str
) -> None:
    monkeypatch.setenv("X", "1")
    (repository.root.parent / "data").mkdir()
    (repository.root / ".env").write_text("")
    repository.declare(f"[sessions.api]\n{block}[sessions.other]\n")
    repository.apply("--allow-host")
    before = repository.session("api")
    repository.declare("[sessions.other]\n")
    assert "as it was declared last" in repository.run("add", "api").out
    repository.run("plan", "--exit-code")
    assert repository.session("api")["pid"] == before["pid"]


def test_a_block_says_what_was_declared_and_not_what_was_found() -> None:
    spec = SessionSpec("api", image="rootfs:/r", image_digest="ab" * 32, image_outside=True, renamed_from="web")
    assert edit.block_of(spec._replace(workspace=WorkspaceSpec(branch="agents/api")).data()) == {"image": "rootfs:/r"}


def test_the_manifest_stays_whose_it_was(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    manifest = repository.root / "sessions.toml"
    manifest.chmod(0o640)
    (repository.root / "real.toml").write_text(manifest.read_text())
    (repository.root / "real.toml").chmod(0o640)
    manifest.unlink()
    manifest.symlink_to("real.toml")
    if os.geteuid() == 0:
        os.chown(repository.root / "real.toml", 1234, 1234)
    owner = (repository.root / "real.toml").stat().st_uid
    repository.run("add", "web")
    info = (repository.root / "real.toml").stat()
    assert manifest.is_symlink() and (info.st_uid, info.st_mode & 0o777) == (owner, 0o640)
    assert sorted(each.name for each in repository.root.glob(".s*")) == []


# --- adopting ----------------------------------------------------------------------------------


def lose(repository: Repository) -> None:
    """The records are lost, and nothing else."""
    (repository.state / "state.db").unlink()


def test_a_stray_is_adopted_as_it_is(repository: Repository) -> None:
    repository.declare('[sessions.api]\ntitle = "t"\n')
    repository.apply()
    repository.inside("api", "echo u > untracked; git commit -q --allow-empty -m mine")
    before = repository.session("api")
    lose(repository)
    repository.declare("")
    assert repository.session("api")["stray"]
    assert repository.run("adopt", "api").out == "api is a session now, running; next: sessionctl add api\n"
    after = repository.session("api")
    kept = ("pid", "sandbox", "branch", "commit", "base", "ahead", "unpushed", "title")
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    assert (after["stray"], after["declared"], after["dirty"]) == (False, False, True)
    assert "a stray" in repository.run("log", "api").out
    repository.run("add", "api")
    repository.run("plan", "--exit-code")
    assert repository.inside("api", "cat untracked").out == "u\n"


def test_what_is_no_stray_is_not_adopted(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    assert "there is a record of it" in repository.run("adopt", "api", code=2).err
    assert "there is no session nope" in repository.run("adopt", "nope", code=2).err
    assert "is not a session name" in repository.run("adopt", "../x", code=2).err


def test_what_is_not_clearly_one_of_ours_is_listed_and_left(repository: Repository) -> None:
    repository.declare("[sessions.half]\n[sessions.two]\n[sessions.other]\n")
    repository.apply()
    repository.run("stop", "half", "two", "other")
    state = repository.state / "sessions"
    ids = {name: repository.session(name)["sandbox"] for name in ("half", "two", "other")}
    lose(repository)
    (state / "half" / ids["half"] / "mark").unlink()
    second = f"20990101T000000-{0:08x}"
    (state / "two" / second).mkdir()
    mark = state / "other" / ids["other"] / "mark"
    mark.write_text(mark.read_text().replace('"project": "', '"project": "0'))
    repository.declare("")
    for name, words in {
        "half": [f"bubblewrap {ids['half']}: half made"],
        "two": [f"bubblewrap {ids['two']}: stopped", f"bubblewrap {second}: half made"],
        "other": [f"bubblewrap {ids['other']}: its mark says project"],
    }.items():
        before = repository.files(state)
        said = repository.run("adopt", name, code=3).err
        assert all(each in said for each in words), said
        assert repository.files(state) == before
        assert repository.session(name)["created_at"] is None, "there is a record of it"
