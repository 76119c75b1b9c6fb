"""Sessions that are worktrees of the repository: what git on the host shows of them, and what it does not run."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sessionctl.cli import main
from tests.command import Repository, git
from tests.leftovers import Watch
from tests.test_crash import calm, killed, moments
from tests.test_hostile import ATTACKS, listing

DECLARED = '[sessions.{0}]\nworkspace = {{ mode = "worktree"{1} }}\n'


def declare(repository: Repository, *names: str, more: str = "") -> None:
    repository.declare("".join(DECLARED.format(name, more) for name in names))


def make(repository: Repository, *names: str, more: str = "") -> None:
    declare(repository, *names, more=more)
    repository.apply("--allow-host")


def tree(repository: Repository, name: str = "api") -> Path:
    return Path(repository.run("path", name).out.strip())


def host(place: Path, *words: str) -> str:
    """Runs git on the host in the files of a session, as a person does; as root they belong to the sandboxes' user."""
    return git(place, "-c", "safe.directory=*", *words)


def listed(repository: Repository) -> dict[str, str]:
    """By path, the branch of each linked worktree; ``detached`` where there is none."""
    found = {}
    for block in git(repository.root, "worktree", "list", "--porcelain").split("\n\n")[1:]:
        lines = block.splitlines()
        branch = next((line for line in lines if line.startswith("branch ")), "detached")
        assert any(line.startswith("locked") for line in lines), block
        found[lines[0].removeprefix("worktree ")] = branch.removeprefix("branch refs/heads/")
    return found


def expected(repository: Repository, **branches: str) -> bool:
    return listed(repository) == {str(tree(repository, name)): branch for name, branch in branches.items()}


def test_git_lists_a_session_and_its_branch_follows_a_fetch(repository: Repository) -> None:
    make(repository, "api")
    place = tree(repository)
    assert expected(repository, api="agents/api")
    assert host(place, "status", "--short", "--branch") == "## agents/api"
    assert repository.inside("api", "git status --short --branch").out == "## agents/api\n"
    assert repository.session("api")["workspace"] == "worktree"

    repository.inside("api", "echo b >a.txt && git commit -qam second && echo c >new")
    assert host(place, "status", "--short") == "M a.txt\n?? new"
    repository.run("fetch", "api")
    assert host(place, "status", "--short") == "?? new"
    assert host(place, "log", "-1", "--format=%s") == "second"
    # Nothing was written in it but what git on the host writes itself.
    assert repository.inside("api", "git status --short; cat .git").out == "?? new\ngitdir: /.sessionctl/repository\n"

    (place / "by-hand").write_text("from an editor\n")
    assert repository.inside("api", "cat by-hand").out == "from an editor\n"


def test_a_fetch_that_was_killed_before_the_index_followed_is_finished(repository: Repository) -> None:
    make(repository, "api")
    repository.inside("api", "echo b >a.txt && git commit -qam second")
    repository.run("fetch", "api")
    place = tree(repository)
    git(repository.root, "update-ref", "refs/heads/agents/api", "agents/api~1")
    assert host(place, "status", "--short") == "M  a.txt"
    repository.run("stop", "api")
    assert host(place, "status", "--short") == "M a.txt"


def test_nothing_inside_reaches_what_git_on_the_host_reads(repository: Repository) -> None:
    make(repository, "api")
    place = tree(repository)
    admin = Path((place / ".git").read_text().removeprefix("gitdir: ").strip())
    before = listing(admin)
    for script in (
        "rm -f .git",
        "mv .git x",
        "echo gitdir: /tmp >.git",
        "ln -sf /tmp .git",
        "mv x .git",
        "umount .git",
    ):
        assert repository.run("exec", "api", "--", "sh", "-c", script, code=None).code, script
    look = f"ls -d {admin} 2>&1; find / -xdev -name commondir 2>/dev/null || :"
    seen = repository.inside("api", look).out
    assert "No such file" in seen and len(seen.splitlines()) == 1
    assert repository.inside("api", "git worktree list").out.count("\n") == 1
    repository.inside(
        "api", "git config core.fsmonitor false; git commit -q --allow-empty -m x; git stash -q; git gc -q"
    )
    assert listing(admin) == before
    assert (place / ".git").read_text() == f"gitdir: {admin}\n"


def test_nothing_that_an_agent_plants_is_run_by_git_on_the_host(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    (outside / "victim").touch()
    (outside / "objects").mkdir()
    names = {f"a{number}": attack for number, attack in enumerate(ATTACKS.values())}
    make(repository, *names)
    before = listing(outside)
    monkeypatch.chdir(repository.root)
    for name, attack in names.items():
        plant = f"({attack.plant}\n); ({attack.plant.replace('.git/', '/.sessionctl/repository/')}\n)"
        repository.run("exec", "-e", f"OUT={outside}", name, "--", "sh", "-c", plant, code=None)
    calm("stop", *names)  # what changes all the time, too
    acted = []
    for name in names:
        place = repository.state / "sessions" / name / "work" / "tree"
        for fetched in (False, True):
            if fetched:
                main(["fetch", name])
            for words in (("status",), ("diff", "HEAD"), ("log", "-1", "-p"), ("stash", "list"), ("add", "-A", "-n")):
                command = ("git", "-c", "safe.directory=*", *words)
                subprocess.run(command, cwd=place, capture_output=True, timeout=60, check=False)
        if listing(outside) != before:
            acted.append(name)
            (outside / "ran").unlink()
    assert [ATTACKS[list(ATTACKS)[int(name[1:])]] for name in acted] == []


def test_a_submodule_of_an_agents_would_be_run_by_git_that_looks_into_it(
    repository: Repository, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    make(repository, "api")
    place = tree(repository)
    repository.inside(
        "api",
        "git init -q sub; git -C sub commit -q --allow-empty -m x\n"
        f"git -C sub config core.fsmonitor 'touch {ran}; false'\n"
        "git add sub; git commit -qm sub",
    )
    repository.run("fetch", "api")
    host(place, "status")
    assert not ran.exists()
    if os.geteuid():  # root's git has nothing to do with a repository of the sandboxes' user
        host(place, "update-index", "--no-skip-worktree", "sub")
        host(place, "status")
        assert ran.exists()


def test_the_list_is_that_of_the_sessions_whatever_becomes_of_them(repository: Repository) -> None:
    make(repository, "api", "web")
    repository.run("rename", "api", "core")
    assert expected(repository, core="agents/api", web="agents/web")
    before = (tree(repository, "core") / ".git").read_bytes()
    repository.run("fork", "core", "a-twin")
    assert expected(repository, core="agents/api", web="agents/web", **{"a-twin": "agents/a-twin"})
    assert (tree(repository, "core") / ".git").read_bytes() == before

    repository.run("snapshot", "core")
    repository.inside("core", "echo lost >a.txt; git commit -qam lost")
    repository.run("restore", "core", "--yes")
    assert expected(repository, core="agents/api", web="agents/web", **{"a-twin": "agents/a-twin"})
    assert host(tree(repository, "core"), "status", "--short") == ""

    for name in ("core", "web", "a-twin"):
        repository.run("stop", name)
    repository.declare("")
    repository.run("prune", "--yes", "--idle", "0s")
    assert listed(repository) == {}
    assert not (repository.root / ".git" / "worktrees").exists()
    repository.run("undo")
    assert expected(repository, core="agents/api", web="agents/web", **{"a-twin": "agents/a-twin"})
    assert host(tree(repository, "a-twin"), "status", "--short", "--branch") == "## agents/a-twin"


def test_a_branch_that_is_declared_anew_is_checked_out(repository: Repository) -> None:
    make(repository, "api")
    make(repository, "api", more=', branch = "work/api"')
    assert expected(repository, api="work/api")
    repository.inside("api", "git commit -q --allow-empty -m second")
    repository.run("fetch", "api")
    assert host(tree(repository), "log", "-1", "--format=%s") == "second"

    host(tree(repository), "checkout", "-q", "-b", "mine")
    make(repository, "api", more=', branch = "again/api"')
    assert expected(repository, api="mine")  # where a person has put it


def test_what_a_person_has_begun_in_it_stays(repository: Repository) -> None:
    make(repository, "api", "web")
    place = tree(repository)
    (place / "mine").write_text("x\n")
    host(place, "add", "mine")
    repository.inside("api", "git commit -q --allow-empty -m second; echo b >a.txt; git commit -qam third")
    assert "something is staged there" in repository.run("fetch", "api").out
    assert "A  mine" in host(place, "status", "--short").splitlines()
    host(place, "reset", "-q")
    assert host(place, "status", "--short") == "?? mine"

    (place / "mine").unlink()
    detached = git(repository.root, "commit-tree", "-m", "of no branch", "agents/api^{tree}", "-p", "agents/api")
    admin = Path((place / ".git").read_text().removeprefix("gitdir: ").strip())
    host(place, "checkout", "-q", "--detach", detached)
    for name in ("api", "web"):
        repository.run("stop", name)
    repository.declare("")
    repository.run("prune", "--yes", "--idle", "0s")
    assert repository.run("ls", "--all", "--json").json["sessions"] == []
    assert sorted(each.name for each in admin.parent.iterdir()) == [admin.name]
    assert detached in git(repository.root, "worktree", "list", "--porcelain")
    git(repository.root, "worktree", "prune")  # which git does by itself, after three months
    assert not admin.exists()


@pytest.mark.parametrize(
    ("prepared", "said"),
    [
        (["checkout", "-q", "-b", "agents/api"], "agents/api is checked out in"),
        (["config", "core.hooksPath", ".husky"], "core.hookspath names a program in the worktree"),
        (["config", "filter.x.clean", "./tools/clean %f"], "filter.x.clean names a program in the worktree"),
        (["config", "core.fsmonitor", ".git/hooks/query"], "core.fsmonitor names a program in the worktree"),
    ],
)
def test_where_it_would_not_be_safe_it_is_refused(repository: Repository, prepared: list[str], said: str) -> None:
    git(repository.root, *prepared)
    declare(repository, "api")
    refused = repository.apply("--allow-host", code=2)
    assert said in refused.out
    assert not (repository.root / ".git" / "worktrees").exists()


def test_programs_of_ones_own_are_no_reason_to_refuse(repository: Repository) -> None:
    for key, value in {
        "core.hooksPath": str(repository.root / "hooks"),
        "core.fsmonitor": "true",
        "filter.lfs.clean": "git-lfs clean -- %f",
        "diff.x.textconv": "/usr/bin/cat",
    }.items():
        git(repository.root, "config", key, value)
    make(repository, "api")
    assert expected(repository, api="agents/api")


def test_a_manifest_that_an_agent_wrote_is_not_the_projects(repository: Repository, tmp_path: Path) -> None:
    make(repository, "api", more=f', session_dir = "{tmp_path / "trees"}"')
    place = tree(repository)
    assert place == tmp_path / "trees" / "api"
    repository.inside("api", "printf 'version = 1\\n[sessions.evil]\\n' >sessions.toml; mkdir d; cp sessions.toml d")
    for directory in (place, place / "d"):
        shown = json.loads(repository.run("-C", str(directory), "ls", "--json").out)
        assert [each["name"] for each in shown["sessions"]] == ["api"]
    repository.run("-C", str(place), "plan", "--exit-code")
    assert "checkout of a session" in repository.run("adopt", "copy", str(place), code=2).err


@pytest.mark.parametrize("mode", ['mode = "worktree"', "visible = true"])
def test_nor_is_it_in_a_directory_of_the_repository(repository: Repository, mode: str) -> None:
    repository.declare(f'[sessions.api]\nworkspace = {{ {mode}, session_dir = "trees" }}\n')
    repository.apply("--allow-host")
    repository.inside("api", "printf 'version = 1\\n[sessions.evil]\\n' >sessions.toml")
    repository.run("-C", str(tree(repository)), "plan", "--exit-code")


def test_files_that_are_not_to_be_found_are_no_reason_to_forget_a_worktree(
    repository: Repository, tmp_path: Path
) -> None:
    repository.declare(DECLARED.format("api", f', session_dir = "{tmp_path / "trees"}"') + "[sessions.web]\n")
    repository.apply("--allow-host")
    repository.run("stop", "api")
    (tmp_path / "trees").rename(tmp_path / "unmounted")
    repository.run("stop", "web")
    assert sorted(listed(repository).values()) == ["agents/api"]
    (tmp_path / "unmounted").rename(tmp_path / "trees")
    repository.run("start", "api")
    assert host(tree(repository), "status", "--short", "--branch") == "## agents/api"


def test_worktrees_of_others_are_not_touched(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(repository.root, "worktree", "add", "-q", "-b", "sessionctl-api", str(tmp_path / "sessionctl-api"))
    make(repository, "api")
    mine = (repository.root / ".git" / "worktrees" / "sessionctl-api", repository.root / ".git" / "worktrees")
    before = listing(mine[0])
    first = tree(repository)
    other = tmp_path / "state"
    other.mkdir(0o711)
    tmp_path.chmod(0o711)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("SESSIONCTL_STATE_DIR", str(other))
        declare(repository, "web")
        repository.apply("--allow-host")
        repository.run("stop", "web")
        repository.declare("")
        repository.run("prune", "--yes", "--idle", "0s")
    assert listing(mine[0]) == before
    assert sorted(os.listdir(mine[1])) == ["sessionctl-api", "sessionctl-api-1"]
    assert host(first, "status", "--short", "--branch") == "## agents/api"


def test_a_repository_that_was_moved_has_them_again(repository: Repository, tmp_path: Path) -> None:
    make(repository, "api")
    repository.run("stop", "api")
    repository.root = repository.root.rename(tmp_path / "moved")
    repository.run("adopt", "--project")
    repository.run("start", "api")
    assert expected(repository, api="agents/api")
    assert host(tree(repository), "status", "--short", "--branch") == "## agents/api"


def _made(repository: Repository, round: int) -> None:
    declare(repository, f"s{round}")


def _renamed(repository: Repository, round: int) -> None:
    repository.declare(f'[sessions.s{round}]\nrenamed_from = "{f"s{round - 1}" if round else "api"}"\n'
                       f'workspace = {{ mode = "worktree", branch = "b{round}" }}\n')  # fmt: skip


@pytest.mark.parametrize("edit", [_made, _renamed])
def test_killed_at_any_moment_the_next_apply_lists_them(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, edit: Callable[[Repository, int], None]
) -> None:
    monkeypatch.chdir(repository.root)
    make(repository, "api")
    repository.run("trust", "--yes")
    with Watch() as watch:
        for round, moment in enumerate(moments(19)):
            edit(repository, round)
            calm("trust", "--yes")
            came = killed(moment)
            print(f"{edit.__name__}: killed at {moment}: {came}")
            calm("apply", "--yes")
            assert watch.strays(repository) == []
            names = [each["name"] for each in repository.run("ls", "--all", "--json").json["sessions"]]
            assert sorted(listed(repository)) == sorted(str(tree(repository, name)) for name in names)
            host(tree(repository, f"s{round}"), "status")
            if not came:
                break
