"""Git hooks as git calls them: real commits, checkouts, rebases and pushes, and what the history says of them."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sessionctl import hooks
from sessionctl.app import Project
from sessionctl.model import Declaration
from sessionctl.store import Store
from tests.command import Repository, Said, git

RECORDING = tuple(hooks.EVENTS)


@pytest.fixture(autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONCTL_STATE_DIR", str(tmp_path_factory.mktemp("state")))


@pytest.fixture
def plain(tmp_path: Path) -> Repository:
    """A repository without any session."""
    return Repository(tmp_path / "plain")


def call(directory: Path, *args: str, code: int = 0, **env: Any) -> Said:
    """Runs git in `directory`; it must end with `code`."""
    done = subprocess.run(
        ["git", *args], cwd=directory, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return Said(done.returncode, done.stdout, done.stderr)


def history(start: Path) -> list[tuple[Any, ...]]:
    """Event, branch and commit of what the history has of the repository itself."""
    project = Project(start)
    return [(entry.event, entry.branch, entry.commit) for entry in project.log() if not entry.session]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def commit(directory: Path, **env: Any) -> str:
    """Makes a commit about which nothing is said; its name."""
    said = call(directory, "commit", "-q", "--allow-empty", "-m", "more", **env)
    assert (said.out, said.err) == ("", "")
    return call(directory, "rev-parse", "HEAD", **env).out.strip()


# --- what is recorded --------------------------------------------------------------------------


def test_commits_checkouts_and_merges_are_in_the_history_and_nothing_is_printed(plain: Repository) -> None:
    plain.run("hooks", "install")
    first = plain.head
    one = commit(plain.root)
    call(plain.root, "checkout", "-qb", "topic")
    two = commit(plain.root)
    call(plain.root, "checkout", "-q", "main")
    call(plain.root, "merge", "-q", "--ff-only", "topic")
    call(plain.root, "checkout", "-q", "--detach", first)
    assert history(plain.root) == [
        ("commit", "main", one),
        ("checkout", "topic", one),
        ("commit", "topic", two),
        ("checkout", "main", one),
        ("merge", "main", two),
        ("checkout", None, first),
    ]


def test_checking_out_a_file_is_no_event(plain: Repository) -> None:
    plain.run("hooks", "install")
    (plain.root / "a.txt").write_text("changed\n")
    call(plain.root, "checkout", "-q", "--", "a.txt")
    assert history(plain.root) == []


def test_the_log_shows_the_repositorys_own_events(plain: Repository) -> None:
    plain.run("hooks", "install")
    made = commit(plain.root)
    assert f"(repository)  commit    main {made[:10]}" in plain.run("log").out
    (event,) = plain.run("log", "--json").out.splitlines()
    assert '"session": null, "event": "commit", "branch": "main"' in event
    assert f'"checkout": "{plain.root}"' in event


def test_packed_refs_are_read(plain: Repository) -> None:
    plain.run("hooks", "install")
    made = commit(plain.root)
    call(plain.root, "pack-refs", "--all")
    call(plain.root, "checkout", "-q", "-B", "main")
    assert history(plain.root)[-1] == ("checkout", "main", made)


def test_a_linked_worktree_records_its_own_branch_in_the_same_history(plain: Repository) -> None:
    plain.run("hooks", "install")
    linked = plain.root.parent / "linked"
    call(plain.root, "worktree", "add", "-q", "-b", "beside", str(linked))
    made = commit(linked)
    assert history(plain.root) == history(linked) == [("checkout", "beside", plain.head), ("commit", "beside", made)]


def test_installed_from_a_linked_worktree_they_are_the_repositorys(plain: Repository) -> None:
    linked = plain.root.parent / "linked"
    call(plain.root, "worktree", "add", "-q", "-b", "beside", str(linked))
    plain.run("-C", str(linked), "hooks", "install")
    assert history(plain.root) == []
    made = commit(plain.root)
    assert history(linked) == [("commit", "main", made)]


def test_a_rebase_works_and_each_of_its_commits_is_recorded_as_part_of_it(plain: Repository) -> None:
    call(plain.root, "checkout", "-qb", "topic")
    for number in range(2):
        (plain.root / f"{number}.txt").write_text("x\n")
        call(plain.root, "add", "-A")
        call(plain.root, "commit", "-qm", f"{number}")
    call(plain.root, "checkout", "-q", "main")
    commit(plain.root)
    call(plain.root, "checkout", "-q", "topic")
    plain.run("hooks", "install")
    call(plain.root, "rebase", "-q", "--force-rebase", "main")
    entries = list(Project(plain.root).log())
    picked = call(plain.root, "rev-list", "--reverse", "main..topic").out.split()
    assert len(picked) == 2
    assert [entry.commit for entry in entries if entry.event == "commit"] == picked
    assert {entry.data.get("during") for entry in entries if entry.event == "commit"} == {"rebase"}
    assert "during a rebase" in plain.run("log").out


def test_git_dir_and_work_tree_may_be_given_by_the_environment(plain: Repository, tmp_path: Path) -> None:
    plain.run("hooks", "install")
    files = tmp_path / "files"
    files.mkdir()
    given = {"GIT_DIR": str(plain.root / ".git"), "GIT_WORK_TREE": str(files)}
    made = commit(tmp_path, **given)
    assert history(plain.root) == [("commit", "main", made)]
    # Inside another repository, too: that one is not meant.
    other = Repository(tmp_path / "other")
    made = commit(other.root, GIT_DIR=str(plain.root / ".git"), GIT_WORK_TREE=str(other.root))
    assert history(plain.root)[1:] == [("commit", "main", made)]
    assert history(other.root) == []


def test_nothing_of_what_git_said_of_the_repository_is_left_for_programs(plain: Repository) -> None:
    names = call(plain.root, "rev-parse", "--local-env-vars").out.split()
    script = (
        "import os; from sessionctl.cli import main; code = main(['hooks', 'run', 'post-commit']);"
        "print(code, [name for name in os.environ if name.startswith('GIT_')])"
    )
    env = {**os.environ, **dict.fromkeys(names, "x"), "GIT_DIR": str(plain.root / ".git")}
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, cwd=plain.root, env=env, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0 []\n", "")


def test_a_submodule_has_hooks_and_a_history_of_its_own(plain: Repository, tmp_path: Path) -> None:
    source = Repository(tmp_path / "source")
    call(plain.root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(source.root), "sub")
    sub = plain.root / "sub"
    plain.run("-C", str(sub), "hooks", "install")
    made = commit(sub)
    assert history(sub) == [("commit", "main", made)]
    assert history(plain.root) == []


def test_a_bare_repository_has_them_for_its_worktrees(plain: Repository, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    call(tmp_path, "clone", "-q", "--bare", str(plain.root), str(bare))
    plain.run("-C", str(bare), "hooks", "install")
    linked = tmp_path / "linked"
    call(bare, "worktree", "add", "-q", "-b", "beside", str(linked))
    made = commit(linked)
    assert history(bare) == [("checkout", "beside", plain.head), ("commit", "beside", made)]


def test_a_commit_is_made_though_nothing_can_be_recorded(plain: Repository, tmp_path: Path) -> None:
    plain.run("hooks", "install")
    state = tmp_path / "file"
    state.write_text("no directory\n")
    said = call(plain.root, "commit", "-q", "--allow-empty", "-m", "x", SESSIONCTL_STATE_DIR=str(state))
    (line,) = said.err.splitlines()
    assert line.startswith("sessionctl: post-commit: nothing was recorded: ") and str(state) in line
    assert history(plain.root) == []


def test_sessions_on_branches_of_the_repository_are_read_with_it(
    repository: Repository,
) -> None:
    repository.declare("[sessions.api]\n[sessions.web]\n")
    repository.apply()
    store = Store(repository.state)
    record = store.records()["api"]
    data = dict(record.last.data)
    store.save(
        record._replace(
            last=Declaration(record.last.digests, {**data, "workspace": {**data["workspace"], "mode": "worktree"}})
        )
    )
    for name in ("api", "web"):
        # Behind our back, as a process that was left running would: exec itself reads git.
        command = Project(repository.root).backend("bubblewrap")
        (sandbox,) = command.observe(session=name)
        way = command.command(sandbox, ["git", "commit", "-q", "--allow-empty", "-m", "inside"])
        subprocess.run(way.argv, env=dict(way.env), check=True)
    repository.run("hooks", "install")
    commit(repository.root)
    read = [entry.session for entry in Project(repository.root).log() if entry.event == "git"]
    assert read == ["api"]


# --- sessionctl itself is gone -----------------------------------------------------------------


def a_program(directory: Path) -> Path:
    """A `sessionctl` as pip installs one."""
    program = directory / "sessionctl"
    write(program, f"#!{sys.executable}\nimport sys\nfrom sessionctl.cli import main\nsys.exit(main())\n")
    return program


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return a_program(tmp_path / "venv" / "bin")


def installed_by(program: Path, repository: Repository, *words: str) -> None:
    subprocess.run([program, "hooks", "install", *words], cwd=repository.root, check=True, capture_output=True)


def test_a_hook_calls_the_sessionctl_that_installed_it_whatever_is_on_path(plain: Repository, program: Path) -> None:
    installed_by(program, plain)
    made = commit(plain.root, PATH=os.defpath)
    assert history(plain.root) == [("commit", "main", made)]


def test_with_that_one_gone_the_one_on_path_is_called(plain: Repository, program: Path, tmp_path: Path) -> None:
    installed_by(program, plain)
    program.unlink()
    a_program(tmp_path / "elsewhere")
    made = commit(plain.root, PATH=f"{tmp_path / 'elsewhere'}:{os.defpath}")
    assert history(plain.root) == [("commit", "main", made)]


def test_with_none_left_the_commit_is_made_and_one_line_says_why_nothing_was_recorded(
    plain: Repository, program: Path
) -> None:
    installed_by(program, plain, *(f"--{hook}" for hook in hooks.HOOKS))
    program.unlink()
    said = call(plain.root, "commit", "-q", "--allow-empty", "-m", "x", PATH=os.defpath)
    (line,) = said.err.splitlines()
    assert line.startswith(f"sessionctl: post-commit: nothing was recorded: there is no {program}")
    assert history(plain.root) == []
    assert call(plain.root, "checkout", "-q", "-b", "x", PATH=os.defpath).err.count("\n") == 1
    bare = plain.root.parent / "bare.git"
    call(plain.root, "init", "-q", "--bare", str(bare))
    assert "not verified" in call(plain.root, "push", "-q", str(bare), "main", PATH=os.defpath).err


def test_a_program_that_cannot_be_started_is_told_like_one_that_is_gone(plain: Repository, program: Path) -> None:
    installed_by(program, plain)
    program.write_text("#!/nonexistent/python\n")
    said = call(plain.root, "commit", "-q", "--allow-empty", "-m", "x")
    assert "sessionctl: post-commit: nothing was recorded" in said.err


# --- foreign hooks -----------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 7])
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_foreign_hook_runs_before_with_and_after_ours_and_comes_back_as_it_was(
    plain: Repository, code: int, mode: int
) -> None:
    place = plain.root / ".git" / "hooks"
    ran = plain.root.parent / "ran"
    content = {}
    for name in RECORDING:
        write(place / name, f'#!/bin/sh\necho "{name} $*" >>{ran}\nexit {code}\n')
        (place / name).chmod(mode)
        content[name] = ((place / name).read_bytes(), os.lstat(place / name))

    def work() -> list[str]:
        ran.write_text("")
        call(plain.root, "commit", "-q", "--allow-empty", "-m", "x")
        call(plain.root, "checkout", "-q", "main", code=min(code, 1))  # git fails when this hook does
        return ran.read_text().splitlines()

    def expected() -> list[str]:
        return ["post-commit ", f"post-checkout {plain.head} {plain.head} 1"]

    assert work() == expected()
    plain.run("hooks", "install")
    assert work() == expected()
    assert [event for event, _, _ in history(plain.root)] == ["commit", "checkout"]
    plain.run("hooks", "install")  # again changes nothing
    assert work() == expected()
    plain.run("hooks", "uninstall")
    assert work() == expected()
    assert len(history(plain.root)) == 4
    for name, (text, info) in content.items():
        found = os.lstat(place / name)
        assert (place / name).read_bytes() == text
        assert (found.st_mode, found.st_ino, found.st_mtime_ns) == (info.st_mode, info.st_ino, info.st_mtime_ns)
    assert [path.name for path in place.iterdir() if "sessionctl" in path.name] == []


def test_a_foreign_hook_that_git_ignores_is_ignored_and_one_that_is_a_link_stays_one(plain: Repository) -> None:
    place = plain.root / ".git" / "hooks"
    ran = plain.root.parent / "ran"
    write(place / "post-merge", f"#!/bin/sh\necho merge >>{ran}\n")
    (place / "post-merge").chmod(0o644)
    write(plain.root.parent / "shared", f"#!/bin/sh\necho commit >>{ran}\n")
    (place / "post-commit").symlink_to(plain.root.parent / "shared")
    plain.run("hooks", "install")
    commit(plain.root)
    call(plain.root, "checkout", "-qb", "topic", "HEAD~1")
    call(plain.root, "merge", "-q", "--ff-only", "main")
    assert ran.read_text() == "commit\n"
    assert [event for event, _, _ in history(plain.root)] == ["commit", "checkout", "merge"]
    plain.run("hooks", "uninstall")
    assert (place / "post-commit").readlink() == plain.root.parent / "shared"
    assert (place / "post-merge").stat().st_mode & 0o777 == 0o644


def test_who_installs_over_ours_is_not_removed_and_two_foreign_hooks_are_a_conflict(plain: Repository) -> None:
    place = plain.root / ".git" / "hooks"
    write(place / "post-commit", "#!/bin/sh\n# first\n")
    plain.run("hooks", "install")
    write(place / "post-commit", "#!/bin/sh\n# second\n")
    said = plain.run("hooks", "install", code=3)
    assert "was kept from an earlier install" in said.err
    plain.run("hooks", "uninstall")
    assert (place / "post-commit").read_text() == "#!/bin/sh\n# second\n"
    assert (place / "post-commit.before-sessionctl").read_text() == "#!/bin/sh\n# first\n"


# --- where hooks are ---------------------------------------------------------------------------


def test_a_hooks_path_elsewhere_is_refused_unless_it_is_meant(plain: Repository, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    call(plain.root, "config", "--global", "core.hooksPath", str(shared))
    said = plain.run("hooks", "install", code=2)
    assert str(shared) in said.err and "--in-hooks-path" in said.err
    assert not shared.exists()
    assert f"{shared} (core.hooksPath, global)" in plain.run("hooks", "status").out
    plain.run("hooks", "install", "--in-hooks-path")
    made = commit(plain.root)
    assert history(plain.root) == [("commit", "main", made)]
    plain.run("hooks", "uninstall", "--in-hooks-path")
    assert list(shared.iterdir()) == []
    call(plain.root, "config", "--global", "core.hooksPath", os.devnull)
    assert "git runs no hooks" in plain.run("hooks", "install", "--in-hooks-path", code=2).err


def test_a_relative_hooks_path_is_relative_to_the_checkout(plain: Repository) -> None:
    call(plain.root, "config", "core.hooksPath", "tools/hooks")
    plain.run("-C", "src", "hooks", "install", "--in-hooks-path")
    assert (plain.root / "tools/hooks/post-commit").exists()
    made = commit(plain.root)
    assert history(plain.root) == [("commit", "main", made)]
    call(plain.root, "config", "core.hooksPath", ".git/hooks")
    plain.run("hooks", "install")  # that is the repository's own


def test_status_says_what_is_there(plain: Repository) -> None:
    place = plain.root / ".git" / "hooks"
    write(place / "post-commit", "#!/bin/sh\n")
    write(place / "pre-push", "#!/bin/sh\n")
    plain.run("hooks", "install")
    with (place / "post-merge").open("a") as file:
        file.write("# edited\n")
    found = plain.run("hooks", "status", "--json").json
    assert (found["directory"], found["hooks_path"]) == (str(place), None)
    assert {hook["name"]: hook["state"] for hook in found["hooks"]} == {
        "post-commit": "installed",
        "post-checkout": "installed",
        "post-merge": "outdated",
        "pre-push": "foreign",
    }
    assert found["hooks"][0]["kept"] == str(place / "post-commit.before-sessionctl")
    assert "post-merge: installed anew" in plain.run("hooks", "install").out


def test_where_things_are_is_written_into_the_hook(plain: Repository, tmp_path: Path) -> None:
    state = tmp_path / "it's here"
    plain.run("--state-dir", str(state), "hooks", "install")
    made = commit(plain.root)
    assert history(plain.root) == []
    entries = list(Project(plain.root, state_dir=state).log())
    assert [(entry.event, entry.commit) for entry in entries] == [("commit", made)]


# --- apply = true ------------------------------------------------------------------------------


@pytest.fixture
def applying(repository: Repository, config: Path) -> Repository:
    """A repository whose hooks may apply."""
    config.write_text("[hooks]\napply = true\n")
    repository.run("hooks", "install")
    return repository


def more(repository: Repository) -> str:
    """Makes a commit; what was said."""
    return call(repository.root, "commit", "-q", "--allow-empty", "-m", "more").err


def test_a_hook_applies_nothing_unless_the_users_own_config_says_so(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.run("hooks", "install")
    assert more(repository) == ""
    assert repository.session("api")["observed"] == "gone"


def test_a_hook_that_may_makes_and_starts_and_then_says_nothing(applying: Repository) -> None:
    applying.declare("[sessions.api]\n")
    assert more(applying) == "sessionctl: post-commit: api: create\nsessionctl: post-commit: api: start\n"
    assert more(applying) == ""
    applying.run("stop", "api")
    assert more(applying) == "sessionctl: post-commit: api: start\n"
    assert applying.session("api")["observed"] == "running"


def test_a_hook_replaces_restarts_stops_and_removes_nothing(applying: Repository) -> None:
    before = {"api": "", "net": "", "off": "", "env": "", "old": ""}
    applying.declare("".join(f"[sessions.{name}]\n" for name in before))
    more(applying)
    before = {name: applying.session(name)["sandbox"] for name in before}
    applying.declare(
        '[sessions.api]\nworkspace = { history = "own" }\n[sessions.net]\nmounts = [{ source = "src", path = "/x" }]\n'
        '[sessions.off]\nstate = "stopped"\n[sessions.env]\nenv = { A = "1" }\n'
    )
    plan = applying.run("plan", "--allow-host").out
    assert [word in plan for word in ("replace", "restart", "stop", "update", "retained")] == [True] * 5
    assert more(applying) == ""
    assert {name: applying.session(name)["sandbox"] for name in before} == before
    assert {applying.session(name)["observed"] for name in before} == {"running"}
    assert applying.run("plan", "--allow-host").out == plan


def test_what_is_not_trusted_is_refused_and_the_commit_is_made(applying: Repository) -> None:
    applying.declare('[sessions.api]\nnetwork = "host"\n[sessions.web]\n')
    said = more(applying).splitlines()
    assert said[:2] == ["sessionctl: post-commit: web: create", "sessionctl: post-commit: web: start"]
    assert said[2].startswith("sessionctl: post-commit: not applied, because not allowed yet")
    assert applying.session("api")["observed"] == "gone"
    applying.run("hooks", "run", "post-commit", code=5)


def test_a_broken_manifest_is_told_and_the_commit_is_made_and_recorded(applying: Repository) -> None:
    applying.declare("[sessions.api]\nagnt = 1\n")
    assert "agnt" in more(applying)
    assert len(history(applying.root)) == 1


def test_a_hook_does_not_wait_for_another_sessionctl(applying: Repository) -> None:
    more(applying)
    applying.declare("[sessions.api]\n")
    with (applying.state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        began = time.monotonic()
        said = more(applying)
        took = time.monotonic() - began
    assert "another sessionctl is changing" in said and took < 8
    assert applying.session("api")["observed"] == "gone"


def test_in_a_linked_worktree_git_says_much_that_other_repositories_must_not_hear(applying: Repository) -> None:
    linked = applying.root.parent / "linked"
    call(applying.root, "worktree", "add", "-q", "-b", "beside", str(linked))
    (linked / "sessions.toml").write_text("version = 1\n[sessions.api]\n")
    call(linked, "add", "sessions.toml")
    said = call(linked, "commit", "-qm", "declare")  # GIT_DIR and GIT_INDEX_FILE are set for this hook
    assert "api: create" in said.err
    assert call(applying.root, "config", "core.bare").out == "false\n"
    assert call(linked, "status", "--porcelain").out == ""
    assert call(applying.root, "fsck", "--strict").out == ""
    assert applying.inside("api", "git log -1 --format=%s; git status --porcelain").out == "declare\n"


def test_nothing_is_applied_in_the_middle_of_a_rebase(applying: Repository) -> None:
    more(applying)
    more(applying)
    applying.declare("[sessions.api]\n")
    call(applying.root, "rebase", "-q", "-i", "HEAD~1", GIT_SEQUENCE_EDITOR="sed -i s/^pick/edit/")
    assert more(applying) == ""
    assert applying.session("api")["observed"] == "gone"
    call(applying.root, "rebase", "--continue")
    assert "api: create" in more(applying)


# --- pre-push ----------------------------------------------------------------------------------


def test_a_push_is_refused_when_who_asked_for_that_is_not_in_sync(repository: Repository) -> None:
    bare = repository.root.parent / "bare.git"
    git(repository.root, "init", "-q", "--bare", str(bare))
    repository.run("hooks", "install")
    repository.declare("[sessions.api]\n")
    call(repository.root, "push", "-q", str(bare), "main:one")  # not asked for
    repository.run("hooks", "install", "--pre-push")
    said = call(repository.root, "push", "-q", str(bare), "main:two", code=1)
    assert "sessionctl: pre-push: not as declared: api" in said.err
    call(repository.root, "push", "-q", "--no-verify", str(bare), "main:two")
    repository.apply()
    assert call(repository.root, "push", "-q", str(bare), "main:three").err == ""
    (repository.root / "sessions.toml").write_text("version = 2\n")
    call(repository.root, "push", "-q", str(bare), "main:four", code=1)
    (repository.root / "sessions.toml").unlink()
    assert call(repository.root, "push", "-q", str(bare), "main:five").err == ""


def test_a_foreign_pre_push_gets_its_input_and_has_the_first_word(repository: Repository) -> None:
    bare = repository.root.parent / "bare.git"
    git(repository.root, "init", "-q", "--bare", str(bare))
    got = repository.root.parent / "got"
    write(repository.root / ".git/hooks/pre-push", f'#!/bin/sh\necho "$1" >{got}; cat >>{got}; exit 9\n')
    repository.run("hooks", "install", "--pre-push")
    call(repository.root, "push", "-q", str(bare), "main", code=1)
    assert got.read_text().splitlines()[0] == str(bare)
    assert got.read_text().splitlines()[1].startswith(f"refs/heads/main {repository.head} ")
