"""What the package git promises: the right answer about a repository, and none of an agent's code run to get it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessionctl import beneath, git, process, workspace
from sessionctl.errors import CommandError, GitError
from sessionctl.model import GitState, Workspace
from tests.checkouts import ROOT, World, reachable_world, repository, sh


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with reachable_world(tmp_path) as made:
        yield made


def head_of(work: Workspace) -> GitState:
    return git.read_head(workspace.layers(work))


# --- finding the user's repository -------------------------------------------------------------


def test_a_repository_is_found_from_anywhere_in_it(tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo")
    assert (repo.root, repo.git_dir, repo.common_dir) == (*[str(tmp_path / "repo")], *[str(tmp_path / "repo/.git")] * 2)
    assert not repo.bare and repo.name == "repo" and len(repo.project) == 16
    for place in ("src", ".git", "."):
        assert git.find_repository(tmp_path / "repo" / place) == repo
    (tmp_path / "link").symlink_to(tmp_path / "repo/src")
    assert git.find_repository(tmp_path / "link") == repo


def test_worktrees_share_a_project_and_clones_do_not(tmp_path: Path) -> None:
    repo = repository(
        tmp_path / "repo", "git worktree add -q ../linked; git clone -q . ../clone; git clone -q --bare . ../x.git"
    )
    linked = git.find_repository(tmp_path / "linked/src")
    assert (linked.root, linked.project, linked.name) == (str(tmp_path / "linked"), repo.project, "repo")
    assert linked.git_dir == str(tmp_path / "repo/.git/worktrees/linked")
    assert git.find_repository(tmp_path / "clone").project != repo.project
    bare = git.find_repository(tmp_path / "x.git/refs")
    assert bare.bare and bare.root == bare.git_dir == str(tmp_path / "x.git") and bare.name == "x"


def test_a_checkout_beside_its_bare_repository(tmp_path: Path) -> None:
    repository(tmp_path / "repo", "git clone -q --bare . ../top/.bare; echo 'gitdir: ./.bare' >../top/.git")
    sh(tmp_path / "top", "git worktree add -q main")
    assert git.find_repository(tmp_path / "top").bare
    linked = git.find_repository(tmp_path / "top/main")
    assert not linked.bare and linked.name == "top" and linked.common_dir == str(tmp_path / "top/.bare")


def test_no_repository_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(GitError, match="no git repository") as none:
        git.find_repository(tmp_path)
    assert "git init" in none.value.hint
    with pytest.raises(GitError, match="not a directory"):
        git.find_repository(tmp_path / "missing")
    (tmp_path / ".git").mkdir()  # Git looks further up as well.
    with pytest.raises(GitError, match="no git repository"):
        git.find_repository(tmp_path)


@pytest.mark.parametrize("content", ["gitdir: ../gone\n", "nonsense", "", "gitdir: /dev/null\n"])
def test_a_pointer_that_leads_nowhere_is_not_passed_over(tmp_path: Path, content: str) -> None:
    repository(tmp_path / "outer", "mkdir inner")
    (tmp_path / "outer/inner/.git").write_text(content)
    with pytest.raises(GitError, match=r"inner/\.git"):
        git.find_repository(tmp_path / "outer/inner")


@pytest.mark.skipif(ROOT, reason="root may read everything")
def test_a_git_directory_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo")
    Path(repo.git_dir).chmod(0)
    try:
        with pytest.raises(GitError, match=r"\.git.*Permission denied"):
            git.find_repository(tmp_path / "repo")
    finally:
        Path(repo.git_dir).chmod(0o700)


@pytest.mark.skipif(not ROOT, reason="only root can make a repository of somebody else")
def test_a_repository_of_somebody_else_is_refused_as_git_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = repository(tmp_path / "repo")
    os.chown(repo.root, 300000, 300000)
    with pytest.raises(CommandError, match="dubious ownership"):  # Control: so does git.
        sh(repo.root, "git status")
    with pytest.raises(GitError, match="another user") as refused:
        git.find_repository(Path(repo.root))
    monkeypatch.setenv("SUDO_UID", "300000")
    assert git.find_repository(Path(repo.root)) == repo
    monkeypatch.delenv("SUDO_UID")
    sh(tmp_path, refused.value.hint.partition(": ")[2])
    assert git.find_repository(Path(repo.root)) == repo
    sh(tmp_path, "git config --global --add safe.directory ''")
    with pytest.raises(GitError, match="another user"):
        git.find_repository(Path(repo.root))


def test_finding_reading_and_refs_start_no_program(tmp_path: Path) -> None:
    top = "git clone -q --bare . ../top/.bare; echo 'gitdir: ./.bare' >../top/.git"
    repo = repository(tmp_path / "repo", f"git worktree add -q ../linked; git pack-refs --all; git tag t; {top}")
    code = f"""
import sys, pathlib
from sessionctl import git
sys.addaudithook(lambda event, args: (_ for _ in ()).throw(SystemExit(event)) if event == "subprocess.Popen" else None)
for root in ({repo.root!r}, {str(tmp_path / "linked")!r}, {str(tmp_path / "top")!r}):
    repo = git.find_repository(pathlib.Path(root))
    assert git.host_refs(repo).tips
    assert git.read_head([{repo.root!r}]).commit
assert "git" not in sys.modules
"""
    process.run([sys.executable, "-c", code], cwd=Path(git.__file__).parents[2])


# --- naming a commit ---------------------------------------------------------------------------


def test_a_base_is_resolved_to_a_commit_and_the_ref_it_was_named_by(tmp_path: Path) -> None:
    script = """
        git tag -am x v1; git branch topic; git update-ref refs/remotes/origin/next HEAD
        git commit -q --allow-empty -m 2
    """
    repo = repository(tmp_path / "repo", script)
    head, before = sh(repo.root, "git rev-parse HEAD HEAD~").split()
    assert git.resolve(repo, "") == (head, "refs/heads/main")
    assert git.resolve(repo, "main") == (head, "refs/heads/main")
    assert git.resolve(repo, "v1") == (before, "refs/tags/v1")
    assert git.resolve(repo, "origin/next") == (before, "refs/remotes/origin/next")
    for unnamed in ("main~1", before, before[:10]):
        assert git.resolve(repo, unnamed) == (before, "")
    sh(repo.root, "git checkout -q --detach topic")
    assert git.resolve(repo, "") == (before, "")
    sh(repo.root, "git worktree add -q ../linked topic")
    assert git.resolve(git.find_repository(tmp_path / "linked"), "") == (before, "refs/heads/topic")


@pytest.mark.parametrize(
    "base", ["nope", "--all", "-x", "main..topic", "HEAD:a", "a\0b", "a\nb", "\x1b[2J", "main^{tree}", "0" * 40]
)
def test_what_names_no_commit_is_refused(tmp_path: Path, base: str) -> None:
    repo = repository(tmp_path / "repo", "git branch topic")
    with pytest.raises(GitError) as refused:
        git.resolve(repo, base)
    assert str(refused.value).isprintable()


def test_an_ambiguous_name_is_refused_and_the_full_one_is_not(tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", "git tag main; git commit -q --allow-empty -m 2")
    with pytest.raises(GitError, match="ambiguous") as refused:
        git.resolve(repo, "main")
    assert "refs/heads/NAME" in refused.value.hint
    assert git.resolve(repo, "refs/heads/main")[1] == "refs/heads/main"


def test_a_repository_without_a_commit_is_refused(tmp_path: Path) -> None:
    sh(tmp_path, "git init -q repo")
    with pytest.raises(GitError, match="no commit yet") as refused:
        git.resolve(git.find_repository(tmp_path / "repo"), "")
    assert "git commit" in refused.value.hint


def test_the_identity_is_what_the_user_commits_with_there(tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo")
    assert git.identity(repo) == ("Test Person", "person@test.invalid")
    sh(repo.root, "git config user.email 'here@test.invalid'")
    assert git.identity(repo) == ("Test Person", "here@test.invalid")
    sh(
        repo.root,
        "git config --global --unset user.name; git config --unset user.email; git config --global --unset user.email",
    )
    assert git.identity(repo) == ("", "")


def test_host_refs_are_what_git_lists(tmp_path: Path) -> None:
    script = """
        git tag light; git tag -am x v1; git branch a/b; git update-ref refs/remotes/origin/main HEAD
        git symbolic-ref refs/remotes/origin/HEAD refs/remotes/origin/main; git pack-refs --all
        git commit -q --allow-empty -m 2; git branch a/c
        git update-ref refs/sessionctl/p/heads/s/x HEAD; git update-ref refs/other/x HEAD
    """
    repo = repository(tmp_path / "repo", script)
    prefixes = "refs/heads refs/remotes refs/tags refs/sessionctl"
    listed = f"git for-each-ref --format='%(refname) %(objectname)' {prefixes} | grep -v origin/HEAD"
    refs = git.host_refs(repo)
    assert dict(refs.tips) == dict(line.split() for line in sh(repo.root, listed).splitlines())
    assert git.host_refs(repo) == refs
    sh(repo.root, "git pack-refs --all")
    assert git.host_refs(repo) == refs
    sh(repo.root, "git branch -q -f a/c HEAD~")
    assert git.host_refs(repo).fingerprint != refs.fingerprint


# --- reading a session's HEAD ------------------------------------------------------------------

ONE, TWO = "1" * 40, "2" * 64


def layer(root: Path, **files: str | bytes | None) -> str:
    """A layer whose ``.git`` holds `files`; None: a directory. ``__`` in a name stands for a slash."""
    (root / ".git").mkdir(parents=True)
    for name, content in files.items():
        path = root / ".git" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(root)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"HEAD": "ref: refs/heads/a/b\n", "refs__heads__a__b": ONE + "\n"}, GitState(branch="a/b", commit=ONE)),
        (
            {"HEAD": "ref: refs/heads/a\n", "packed-refs": f"# x\n{TWO} refs/heads/aa\n{ONE} refs/heads/a\n"},
            GitState(branch="a", commit=ONE),
        ),
        (
            {"HEAD": "ref: refs/heads/a", "packed-refs": f"{ONE} refs/heads/a\n", "refs__heads__a": None},
            GitState(branch="a", commit=ONE),
        ),
        (
            {"HEAD": "ref: refs/heads/a\n", "refs__heads__a": TWO, "packed-refs": f"{ONE} refs/heads/a\n"},
            GitState(branch="a", commit=TWO),
        ),
        (
            {"HEAD": "ref: refs/heads/a\n", "refs__heads__a": "ref: refs/heads/b\n", "refs__heads__b": ONE},
            GitState(branch="a", commit=ONE),
        ),
        ({"HEAD": ONE + "\n"}, GitState(commit=ONE)),
        ({"HEAD": "ref: refs/other/x\n", "refs__other__x": ONE}, GitState(commit=ONE)),
    ],
    ids=["loose", "packed", "packed-beside-directory", "loose-wins", "symbolic", "detached", "no-branch"],
)
def test_head_is_read_as_git_would(tmp_path: Path, files: dict[str, str | None], expected: GitState) -> None:
    assert git.read_head([layer(tmp_path / "upper", **files)]) == expected


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({}, "missing"),
        ({"HEAD": "ref: refs/heads/a\n"}, "unborn: refs/heads/a"),
        ({"HEAD": "ref: refs/heads/.invalid\n"}, "reftable"),
        ({"HEAD": "ref: refs/heads/../../../../etc/passwd\n"}, "unreadable"),
        ({"HEAD": "ref: /etc/passwd\n"}, "unreadable"),
        ({"HEAD": "ref: refs/heads/\x1b]0;evil\x07\n"}, "unreadable"),
        ({"HEAD": b"ref: refs/heads/\xff\xfe\n"}, "unreadable"),
        ({"HEAD": b"\xff" * 4000}, "unreadable"),
        ({"HEAD": ONE * 10000}, "unreadable"),
        ({"HEAD": ""}, "unreadable"),
        ({"HEAD": None}, "unreadable"),
        ({"HEAD": ONE[:39]}, "unreadable"),
        ({"HEAD": "ref: refs/heads/a\0b\n"}, "unreadable"),
        ({"HEAD": "ref: refs/heads/a\n", "refs__heads__a": "ref: refs/heads/a\n"}, "unreadable: HEAD leads in circles"),
        ({"HEAD": "ref: refs/heads/a\n", "refs__heads__a": "nonsense"}, "unreadable"),
        ({"HEAD": "ref: refs/heads/a\n", "packed-refs": "xyz refs/heads/a\n"}, "unreadable"),
        ({"HEAD": "ref: refs/heads/a\n", "packed-refs": None}, "unreadable"),
    ],
)
def test_a_head_that_cannot_be_read_says_why(tmp_path: Path, files: dict[str, str | None], error: str) -> None:
    state = git.read_head([layer(tmp_path / "upper", **files)])
    assert state.error.startswith(error) and state.error.isprintable() and len(state.error) < 400
    assert state == GitState(error=state.error)


@pytest.mark.parametrize("plant", ["link", "file", "fifo-head", "link-head", "link-refs", "gitfile"])
def test_what_an_agent_plants_in_the_place_of_its_repository_is_not_followed(tmp_path: Path, plant: str) -> None:
    real = layer(tmp_path / "host", HEAD="ref: refs/heads/a\n", refs__heads__a=ONE)
    root = tmp_path / "upper"
    if plant in ("link", "file", "gitfile"):
        root.mkdir()
    else:
        layer(root, HEAD="ref: refs/heads/a\n", refs__tags=None)
    if plant == "link":
        (root / ".git").symlink_to(Path(real, ".git"))
    elif plant == "file":
        (root / ".git").write_text("x")
    elif plant == "gitfile":
        (root / ".git").write_text(f"gitdir: {real}/.git\n")
    elif plant == "link-refs":
        (root / ".git/refs/heads").symlink_to(Path(real, ".git/refs/heads"))
    else:
        (root / ".git/HEAD").unlink()
        if plant == "fifo-head":
            os.mkfifo(root / ".git/HEAD")
        else:
            (root / ".git/HEAD").symlink_to(Path(real, ".git/HEAD"))
    state = git.read_head([str(root), real] if plant in ("file", "gitfile") else [str(root)])
    assert state.error and state.commit is None and state.branch is None


def test_head_follows_what_the_agent_does(world: World) -> None:
    repo = repository(world.place / "repo", "git branch other")
    work = world.prepare(repo)
    base = work.commit
    assert head_of(work) == GitState(branch="agents/api", commit=base)

    def tip() -> str:
        return world.agent(work, "git rev-parse HEAD")

    world.agent(work, "git commit -q --allow-empty -m 2")
    assert head_of(work) == GitState(branch="agents/api", commit=tip()) and tip() != base
    world.agent(work, "git pack-refs --all; git gc -q")
    assert head_of(work) == GitState(branch="agents/api", commit=tip())
    world.agent(work, "git switch -qc feature/x")
    assert head_of(work) == GitState(branch="feature/x", commit=tip())
    world.agent(work, "git checkout -q --detach HEAD~")
    assert head_of(work) == GitState(commit=base)
    world.agent(work, "git checkout -q --orphan fresh")
    assert head_of(work).error.startswith("unborn: refs/heads/fresh")
    world.agent(work, "rm -rf .git")
    assert head_of(work).error.startswith("missing")
    world.agent(work, "git init -q; git add a; git -c user.name=x -c user.email=x commit -qm anew")
    assert head_of(work).commit == tip()


# --- the full status ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("true", ()),
        ("git status; git log; git stash list", ()),
        ("echo more >>a; git commit -qam 2; git gc -q; git switch -qc x", ()),
        ("touch a src/b; chmod 600 a; cp a t; mv t a", ()),
        ("git checkout -q --detach HEAD; git branch -q -D agents/api", ()),
        ("echo ONE >a", ("a",)),
        ("touch -r a /tmp/t; echo eno >a; touch -r /tmp/t a", ("a",)),
        ("rm a", ("a",)),
        ("rm -r src", ("src/b",)),
        ("rm -r src; echo x >src", ("src", "src/b")),
        ("chmod +x a", ("a",)),
        ("rm a; ln -s src/b a", ("a",)),
        ("echo x >new", ("new",)),
        ("mkdir -p d/e; echo x >d/e/f", ("d/e/f",)),
        ("echo x >.env; echo .env >.git/info/exclude", (".env",)),
        ("mkdir o; echo x >o/f; echo o >.gitignore; git add .gitignore; git commit -qm i", ("o/",)),
        ("echo x >new; git add new", ("new",)),
        ("echo two >a; git add a; echo one >a", ("a",)),
        ("git rm -q --cached a", ("a",)),
        ("echo x >>a; git add a; rm -f .git/index", ("a",)),
        ("echo x >>a; git update-index --assume-unchanged a", ("a",)),
        ("echo x >>a; git update-index --skip-worktree a", ("a",)),
        ("git commit -q --allow-empty -m 2; echo x >>a; git stash -q; git stash apply -q", ("a",)),
        ("git init -q nested; echo x >nested/f", ("nested/", "nested/.git/HEAD")),
        ("cd src; git init -q; git add b; git -c user.name=x -c user.email=x commit -qm hidden", ("src/.git",)),
        (
            "git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),s; mkdir s; git commit -qm s; echo x >s/f",
            ("s", "s/f"),
        ),
        (r"""printf x >"$(printf 'n\nl \033[2J \344"')" """, ('"n\\nl \\033[2J \\344\\""',)),
        ("seq 100 | while read n; do echo x >f$n; done", ("f1", "f10", "f100")),
    ],
)
def test_whatever_no_commit_holds_makes_a_session_dirty(world: World, script: str, expected: tuple[str, ...]) -> None:
    repo = repository(world.place / "repo", "git branch other")
    work = world.prepare(repo)
    world.agent(work, f"({script}) >/dev/null 2>&1")
    dirty, changes, error = world.status(work)
    assert error == "" and dirty == bool(expected)
    assert set(expected) <= set(changes) and len(changes) <= 10


HIDING = {
    "config worktree": "git config core.worktree /tmp",
    "sparse": "git config core.sparseCheckout true; echo /src/ >.git/info/sparse-checkout; git read-tree -m HEAD",
    "include": "git config include.path /workspace/evil; printf '[core]\\n\\tworktree=/tmp\\n' >evil",
    "untracked": "git config status.showUntrackedFiles no; git config core.untrackedCache true",
    "exclude": "git config core.excludesFile /workspace/ex; echo '*' >ex; echo '*' >.git/info/exclude",
    "filter": "git config filter.f.clean 'git show HEAD:a'; echo 'a filter=f' >.git/info/attributes",
    "tracked filter": "git config filter.f.clean 'git show HEAD:a'; echo 'a filter=f' >.gitattributes",
    "fsmonitor": "git config core.fsmonitor true; git update-index --fsmonitor 2>/dev/null || true",
    "index": "cp /dev/null .git/index",
    "index link": "rm .git/index; ln -s /dev/zero .git/index",
    "index fifo": "rm .git/index; mkfifo .git/index",
    "grafts": "git rev-parse HEAD >.git/info/grafts; git rev-parse HEAD >.git/shallow",
    "replace": "git add a; t=$(git write-tree); git reset -q; git replace $(git rev-parse HEAD^{tree}) $t",
    "env": "printf 'export GIT_DIR=/tmp\\n' >~/.profile; git config --global core.worktree /tmp",
    "bare": "git config core.bare true",
    "format": "printf '[core]\\n\\trepositoryFormatVersion = 99\\n[extensions]\\n\\tnonsense = true\\n' >>.git/config",
    "commondir": "mkdir c; cp -r .git/refs .git/objects .git/config c; echo ../c >.git/commondir",
    "autocrlf": "git config core.autocrlf true; git config core.ignoreStat true; git config core.fileMode false",
}


@pytest.mark.parametrize("hide", HIDING.values(), ids=HIDING)
def test_nothing_an_agent_plants_hides_its_work(world: World, hide: str) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    world.agent(work, f"git status -s; touch -r a /tmp/t; echo eno >a; touch -r /tmp/t a; {hide}")
    dirty, changes, error = world.status(work)
    assert dirty is True and "a" in changes and error == ""


def test_a_session_whose_git_is_broken_is_unknown_not_clean(world: World) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo, history="own")
    for broken, said in (
        ("echo 1111111111111111111111111111111111111111 >.git/refs/heads/agents/api", "git status inside"),
        ("rm -rf .git/objects; mkdir .git/objects; git init -q 2>/dev/null", "git status inside"),
        ("echo nonsense >.git/HEAD", "unreadable"),
        ("rm -rf .git", "missing"),
    ):
        world.agent(work, broken)
        dirty, changes, error = world.status(work)
        assert (dirty, changes) == (None, ()) and error.startswith(said) and "\x1b" not in error


def test_a_directory_that_may_not_be_looked_into_is_unknown(world: World) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    world.agent(work, "mkdir d; echo x >d/f; chmod 0 d")
    assert world.status(work)[0] is not False


def test_a_workspace_without_anything_has_nothing_to_lose(world: World) -> None:
    work = world.prepare(None, mode="empty")
    assert world.status(work) == (False, (), "")
    world.agent(work, "echo x >f")
    assert world.status(work)[0] is None


def test_a_repository_of_the_agents_own_in_an_empty_workspace_is_read_too(world: World) -> None:
    work = world.prepare(None, mode="empty")
    world.agent(work, "git init -q; echo x >f; git add f; git -c user.name=x -c user.email=x commit -qm x")
    assert world.status(work) == (False, (), "")
    world.agent(work, "echo y >f")
    assert world.status(work) == (True, ("f",), "")


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"0\n0\n",
        b"x\n0\n0\n",
        b"5\n0\n0\n? a\0",
        b"4\n0\n0\nevil",
        b"4\n0\n0\nX a\0",
        b"3\n0\n0\n? \0",
        b"0\n4\n0\nab\0c",
        b"0\n0\n2\nx\0",
        b"-1\n0\n0\n",
    ],
)
def test_an_answer_that_makes_no_sense_is_unknown(output: bytes) -> None:
    def inside(argv: object, stdin: bytes) -> process.Completed:
        return process.Completed((), 0, output, b"")

    dirty, changes, error = git.full_status(inside, GitState(commit=ONE), ["a"])
    assert dirty is None and changes == () and error


@pytest.mark.parametrize("output", [b"", b"1\n2\n", b"1\n2\n3\n4\n", b"-1\n-\nx\n", b"1e3\n\xb2\n" + b"9" * 99 + b"\n"])
def test_a_count_that_makes_no_sense_is_unknown(output: bytes) -> None:
    def inside(argv: object, stdin: bytes) -> process.Completed:
        return process.Completed((), 0, output, b"")

    assert git.count(inside, ONE, ONE, None, []) == (None, None, None)


def test_a_very_long_answer_is_cut(world: World) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    world.agent(work, f"mkdir d; cd d; seq -f '{'x' * 200}%g' 1000 | xargs touch")
    dirty, changes, _ = world.status(work)
    assert dirty and len(changes) == 10


# --- counting ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("true", (0, 0, 0)),
        ("$commit x; $commit y", (2, 0, 2)),
        ("git switch -qc side; $commit x; git switch -q -", (0, 0, 1)),
        ("$commit x; git reset -q --hard HEAD~", (0, 0, 0)),
        ("echo x >>a; git stash -q", (0, 0, 2)),
        ('for n in 1 2 3; do echo $n >>a; GIT_COMMITTER_DATE="@$n +0000" git stash -q; done', (0, 0, 6)),
        ("git checkout -q --detach; $commit x; git checkout -q agents/api; rm -r .git/logs", (0, 0, 0)),
        ("git checkout -q --detach; $commit x; rm -r .git/logs", (1, 0, 1)),
        ("$commit x; git tag t; git reset -q --hard HEAD~; rm -r .git/logs .git/ORIG_HEAD", (0, 0, 1)),
        (
            "git worktree add -q w 2>/dev/null; cd w; git checkout -q --detach; $commit x; rm -rf ../.git/logs",
            (0, 0, 1),
        ),
        ("$commit x; git pack-refs --all; git gc -q", (1, 0, 1)),
        ("git update-ref refs/notes/x $(git commit-tree -m n HEAD^{tree})", (0, 0, 1)),
        (
            "git config transfer.hideRefs refs; $commit x; git commit-graph write 2>/dev/null",
            (1, 0, 1),
        ),
        ("$commit x; git replace --graft HEAD 2>/dev/null; git rev-parse HEAD >.git/shallow", (1, 0, 2)),
        ("echo 1111111111111111111111111111111111111111 >.git/refs/heads/gone; $commit x", (1, 0, 1)),
        ("git checkout -q $(git rev-parse main)", (0, 0, 0)),
    ],
)
def test_commits_are_counted_wherever_they_are(world: World, script: str, expected: tuple[int, int, int]) -> None:
    repo = repository(world.place / "repo", "git tag -am x v1; git branch other")
    work = world.prepare(repo)
    world.agent(work, f"commit='git commit -q --allow-empty -m'; {script}")
    head = head_of(work)
    assert head.commit
    tips = git.host_refs(repo).tips.values()
    assert git.count(world.inside(work), head.commit, work.commit, work.commit, tips) == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("true", 0),
        ("$commit x; git reset -q --hard HEAD~", 1),
        ("$commit x; git reset -q --hard HEAD~; rm -r .git/logs", 1),
        ("$commit x; git commit -q --allow-empty --amend -m y; git commit -q --allow-empty --amend -m z", 3),
        ("git worktree add -q --detach w; cd w; $commit x; git reset -q --hard HEAD~; rm -rf ../.git/logs", 1),
        ("rm -rf .git/logs; mkfifo .git/logs", 0),
        ("mkdir -p .git/logs; truncate -s 70M .git/logs/x", None),
    ],
)
def test_what_was_done_away_with_is_counted_where_it_counts(world: World, script: str, expected: int | None) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    world.agent(work, f"commit='git commit -q --allow-empty -m'; {script}")
    head = head_of(work)
    assert head.commit
    tips = git.host_refs(repo).tips.values()
    assert git.count(world.inside(work), head.commit, work.commit, None, tips, reflogs=True)[2] == expected


def test_a_forged_commit_graph_hides_nothing(world: World) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    world.agent(work, "git commit -q --allow-empty -m x; git commit-graph write --reachable --no-progress")
    head = head_of(work)
    assert head.commit
    graph = Path(work.upper, ".git/objects/info/commit-graph")
    forged = bytearray(graph.read_bytes())
    chunks = {
        bytes(forged[at : at + 4]): int.from_bytes(forged[at + 4 : at + 12]) for at in range(8, 8 + 12 * forged[6], 12)
    }
    order = sorted((work.commit, head.commit))  # As the chunk of names has them; a row of data is 20+4+4+8 bytes.
    parent = chunks[b"CDAT"] + 36 * order.index(work.commit) + 20
    forged[parent : parent + 4] = order.index(head.commit).to_bytes(4)  # The base's parent is the session's commit.
    graph.unlink()
    graph.write_bytes(forged)
    graph.chmod(0o644)
    assert world.agent(work, "git rev-list --count HEAD --not main") == "0"  # Control: git believes it.
    assert git.count(world.inside(work), head.commit, work.commit, None, []) == (1, None, 1)


def test_behind_counts_what_the_base_has_gained(world: World) -> None:
    repo = repository(world.place / "repo")
    work, own = world.prepare(repo), world.prepare(repo, "own", history="own")
    sh(repo.root, "git commit -q --allow-empty -m 2; git commit -q --allow-empty -m 3")
    refs = git.host_refs(repo)
    tip = refs.tips["refs/heads/main"]
    assert git.count(world.inside(work), work.commit, work.commit, tip, refs.tips.values()) == (0, 2, 0)
    assert git.count(world.inside(own), own.commit, own.commit, tip, refs.tips.values()) == (0, None, 0)


def test_what_cannot_be_counted_is_unknown(world: World) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    assert git.count(world.inside(work), work.commit, ONE, None, [work.commit]) == (None, None, 0)
    world.agent(
        work,
        "commit='git commit -q --allow-empty -m'; $commit 2; o=$(git rev-parse HEAD | cut -c1-2); $commit 3;"
        "rm -f .git/objects/$o/*",
    )
    head = head_of(work)
    assert head.commit and git.count(world.inside(work), head.commit, work.commit, None, [work.commit]) == (
        None,
        None,
        None,
    )


# --- fetching ----------------------------------------------------------------------------------


def test_commits_come_home_and_the_branch_follows(world: World) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    world.agent(work, "echo 2 >a; git commit -qam 2; git branch side")
    first = world.agent(work, "git rev-parse HEAD")
    fetched = world.fetch(repo, work)
    assert dict(fetched.heads) == {"agents/api": first, "side": first, "main": work.commit}
    assert (fetched.commit, fetched.followed, fetched.reason) == (first, True, "agents/api was created")
    assert sh(repo.root, "git rev-parse agents/api; git show agents/api:a; git fsck") == f"{first}\n2"
    world.agent(work, "git commit -q --allow-empty -m 3")
    fetched = world.fetch(repo, work)
    assert fetched.moved == ("agents/api",) and fetched.reason == "agents/api was fast-forwarded"
    assert sh(repo.root, "git log --format=%s agents/api") == "3\n2\nfirst"
    assert sh(repo.root, "git reflog --format=%gs agents/api") == "sessionctl fetch api\nsessionctl fetch api"
    again = world.fetch(repo, work)
    assert again.moved == () and not again.followed and "up to date" in again.reason
    assert sh(repo.root, "ls .git; git status --porcelain; git tag").split() == sorted(
        {*(entry.name for entry in Path(repo.git_dir).iterdir())} - {"FETCH_HEAD"}
    )


def test_a_branch_that_would_lose_commits_is_left_alone(world: World) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    world.agent(work, "git commit -q --allow-empty -m 2")
    old = world.fetch(repo, work).commit
    world.agent(work, "git commit -q --amend --allow-empty -m rewritten")
    fetched = world.fetch(repo, work)
    assert (fetched.commit, fetched.followed) == (old, False) and "has commits" in fetched.reason
    kept = f"refs/sessionctl/{repo.project}/heads/api/agents/api"
    assert sh(repo.root, f"git log -1 --format=%s {kept}; git log -1 --format=%s {kept}@{{1}}") == "rewritten\n2", (
        "kept in its reflog"
    )


def test_a_branch_that_is_checked_out_is_left_alone(world: World) -> None:
    repo = repository(world.place / "repo", "git worktree add -q ../linked -b agents/api")
    work = world.prepare(repo)
    world.agent(work, "echo 2 >a; git commit -qam 2")
    fetched = world.fetch(repo, work)
    assert not fetched.followed and f"{world.place}/linked" in fetched.reason
    assert sh(world.place / "linked", "git status --porcelain; git log --format=%s") == "first"


def test_a_detached_head_is_fetched_too(world: World) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    world.agent(
        work, "git checkout -q --detach; git commit -q --allow-empty -m loose; git update-ref refs/heads/HEAD main"
    )
    fetched = world.fetch(repo, work, detached=True)
    assert fetched.heads["HEAD"] == head_of(work).commit
    tips = git.host_refs(repo).tips.values()
    assert git.count(world.inside(work), fetched.heads["HEAD"], work.commit, None, tips) == (1, None, 0)


def test_a_branch_that_the_agent_deleted_stays_fetched(world: World) -> None:
    repo = repository(world.place / "repo", "git config fetch.prune true")
    work = world.prepare(repo)
    world.agent(work, "git switch -qc side; git commit -q --allow-empty -m 2; git switch -q agents/api")
    side = world.fetch(repo, work).heads["side"]
    world.agent(work, "git branch -q -D side")
    assert world.fetch(repo, work).heads["side"] == side


def test_refs_come_only_where_the_sessions_belong(world: World) -> None:
    repo = repository(
        world.place / "repo", "git config remote.origin.url x; git config fetch.prune true; git branch keep"
    )
    work = world.prepare(repo)
    script = """
        git commit -q --allow-empty -m 2; git tag evil; git update-ref refs/remotes/origin/main HEAD
        git update-ref refs/stash HEAD
        git branch -f main HEAD; git branch keep; mkdir -p .git/refs/heads/x
        git rev-parse HEAD >'.git/refs/heads/x/..evil'
        git rev-parse HEAD >'.git/refs/heads/a b'
    """
    world.agent(work, script)
    before = sh(repo.root, "git for-each-ref refs/heads refs/tags refs/remotes refs/stash")
    world.fetch(repo, work)
    after = sh(repo.root, "git for-each-ref refs/heads refs/tags refs/remotes refs/stash")
    assert set(after.splitlines()) - set(before.splitlines()) == {
        f"{head_of(work).commit} commit\trefs/heads/agents/api"
    }
    assert set(before.splitlines()) <= set(after.splitlines())
    ours = sh(repo.root, "git for-each-ref --format='%(refname)' refs/sessionctl").splitlines()
    assert [ref.split("/", 5)[5] for ref in ours if "/heads/" in ref] == ["agents/api", "keep", "main"]


def test_malformed_objects_are_not_let_in(world: World) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    evil = "blob=$(echo x | git hash-object -w --stdin); t=$(printf '100644 blob %s\\t.git\\n' $blob | git mktree)"
    world.agent(work, f"{evil}; git update-ref refs/heads/evil $(git commit-tree -m evil $t)")
    evil_tip = world.agent(work, "git rev-parse evil")
    with pytest.raises(GitError, match="hasDotgit"):
        world.fetch(repo, work)
    with pytest.raises(CommandError):
        sh(repo.root, f"git cat-file -e {evil_tip}")


def test_what_the_other_side_says_cannot_draw_on_the_terminal(world: World) -> None:
    repo = repository(world.place / "repo")
    talk = ["sh", "-c", r"printf '\033]0;owned\007 no\n' >&2; exit 1", "sh"]
    with pytest.raises(GitError) as failed:
        git.fetch(repo, repo.project, "api", talk, process.environment(), "agents/api")
    assert "\\x1b]0;owned\\x07" in str(failed.value) and "\x1b" not in str(failed.value)


# --- an agent that attacks ---------------------------------------------------------------------


def test_nothing_an_agent_plants_runs_on_the_host(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = world.place / "ran"
    ran.mkdir(mode=0o777)
    ran.chmod(0o777)
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    planted = "".join(
        f"git config {key} {shlex.quote(f'touch {ran}/{key}; cat {tail}')}\n"
        for key, tail in {
            "core.fsmonitor": "</dev/null",
            "filter.evil.clean": "",
            "filter.evil.smudge": "",
            "diff.external": "</dev/null",
            "diff.evil.textconv": "",
            "core.sshCommand": "",
            "core.pager": "",
            "core.editor": "",
            "uploadpack.packObjectsHook": "",
            "alias.upload-pack": "",
            "credential.helper": "",
            "gpg.program": "",
        }.items()
    )
    hooks = " ".join(
        ("post-index-change", "reference-transaction", "post-checkout", "pre-commit", "post-commit", "pre-push")
    )
    script = f"""
        echo new >>a; git commit -qam work; echo dirty >>a
        mkdir -p .git/hooks
        for hook in {hooks}; do
            printf '#!/bin/sh\\ntouch {ran}/%s\\n' $hook >.git/hooks/$hook; chmod +x .git/hooks/$hook
        done
        {planted}
        git config alias.status '!touch {ran}/alias'; git config include.path /workspace/more
        printf '[core]\\n\\tsshCommand = touch {ran}/include\\n' >more
        echo 'a filter=evil diff=evil' >.gitattributes; echo '*' >.git/info/exclude
        echo {world.place}/repo/.git/objects >>.git/objects/info/alternates || :
        printf '%s\\n' /.sessionctl/objects /etc >.git/objects/info/alternates
        git -c core.fsmonitor=false update-index --assume-unchanged a 2>/dev/null || :
    """
    process.run(world.argv(work, ["sh", "-euc", script]))
    head = head_of(work)
    assert head.branch == "agents/api" and head.commit
    dirty, changes, _ = world.status(work)
    assert dirty and {"a", ".gitattributes", "more"} <= set(changes)
    ahead, _, unpushed = git.count(
        world.inside(work), head.commit, work.commit, None, git.host_refs(repo).tips.values()
    )
    assert (ahead, unpushed) == (1, 1)
    assert world.fetch(repo, work).commit == head.commit
    assert workspace.fingerprint(work.upper)
    assert sorted(entry.name for entry in ran.iterdir()) == []
    assert sh(repo.root, "git show agents/api:a; git status --porcelain; git fsck") == "one\nnew"

    # Control: what a tool does that simply asks git about the agent's files. Here it stays in the test's directory.
    copy = world.place / "naive"
    sh(
        world.place,
        f"cp -r {work.lower[0]} {copy}; cp -r {work.upper}/. {copy}; chown -R $(id -u):$(id -g) {copy}",
    )
    (copy / ".git/objects/info/alternates").write_text(repo.git_dir + "/objects\n")
    subprocess.run(["git", "update-index", "--no-assume-unchanged", "a"], cwd=copy, check=False, capture_output=True)
    subprocess.run(["git", "status"], cwd=copy, check=False, capture_output=True)
    subprocess.run(["git", "diff"], cwd=copy, check=False, capture_output=True)
    assert {"core.fsmonitor", "filter.evil.clean", "diff.external", "post-index-change"} <= {
        e.name for e in ran.iterdir()
    }


def test_reading_heads_is_cheap(tmp_path: Path) -> None:
    root = layer(tmp_path / "upper", HEAD="ref: refs/heads/agents/api\n", refs__heads__agents__api=ONE)
    below = layer(tmp_path / "lower", HEAD=ONE)
    best = min(_timed(lambda: git.read_head([root, below])) for _ in range(20))
    spawned = min(_timed(lambda: process.run(["true"])) for _ in range(5))
    assert best * 4 < spawned, "a reading is to cost a fraction of starting any program"


def _timed(action: object) -> float:
    assert callable(action)
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def test_walking_a_hostile_upper_is_what_feeds_the_status(world: World) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    world.agent(work, "p=.; for i in $(seq 300); do mkdir d; cd d; done; echo x >deep")
    dirty, changes, _ = world.status(work)
    assert dirty and changes == ("d/" * 300 + "deep",)
    assert sum(1 for entry in beneath.walk(work.upper) if entry.kind == "dir") > 300
