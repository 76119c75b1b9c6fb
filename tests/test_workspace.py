"""What the package workspace promises: whole checkouts, nothing of the host in them, no work ever emptied."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from sessionctl import beneath, git, process, workspace
from sessionctl.errors import CommandError, GitError, SessionctlError, UsageError
from sessionctl.model import SessionSpec, Workspace, WorkspaceSpec
from tests.checkouts import OWNER, World, reachable_world, repository, sh


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with reachable_world(tmp_path) as made:
        yield made


def everything(root: str) -> dict[str, tuple[int, ...]]:
    """Every entry below `root`, with what would tell that it was written."""
    return {e.path: (e.ino, e.size, e.mtime_ns, e.ctime_ns) for e in beneath.walk(root)}


# --- a session's checkout ----------------------------------------------------------------------


def test_a_checkout_is_clean_and_on_its_branch(world: World) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    assert world.agent(work, "git status --porcelain --ignored; git branch --show-current") == "agents/api"
    assert world.agent(work, "git log --format=%s; cat a src/b; git fsck") == "first\none\ntwo"
    assert (
        world.agent(work, "git commit -q --allow-empty -m x; git log -1 --format='%an %ae'")
        == "Agent agent@test.invalid"
    )
    assert work.commit == git.resolve(repo, "")[0]


def test_odd_names_links_and_modes_come_out_as_committed(world: World) -> None:
    script = r"""
        mkdir d; echo x >d/run; chmod +x d/run; ln -s ../a d/link; ln -s /nowhere dangling
        echo 1 >Readme; echo 2 >README; echo 3 >"$(printf 'new\nline \303\244 "q')"; echo 4 >-x; : >empty
        git add -A; git commit -qm odd
    """
    repo = repository(world.place / "repo", script)
    work = world.prepare(repo)
    assert world.agent(work, "git status --porcelain") == ""
    assert world.agent(work, "git ls-files -s") == sh(repo.root, "git ls-files -s")
    assert world.agent(work, "test -x d/run; readlink d/link dangling; cat Readme README ./-x") == (
        "../a\n/nowhere\n1\n2\n4"
    )


def test_a_commit_without_files_is_a_workspace_too(world: World) -> None:
    repo = repository(world.place / "repo", "git rm -qr . && git commit -qm gone")
    work = world.prepare(repo)
    assert world.agent(work, "git status --porcelain; ls") == ""
    assert world.status(work) == (False, (), "")


def test_the_base_keeps_its_name_inside(world: World) -> None:
    repo = repository(world.place / "repo", "git update-ref refs/remotes/origin/next HEAD && git tag v1")
    changed = "echo 3 >>a; git commit -qam x; git diff --name-only "
    assert world.agent(world.prepare(repo, "one"), changed + "main") == "a"
    assert world.agent(world.prepare(repo, "two", base="origin/next"), changed + "origin/next") == "a"
    assert world.agent(world.prepare(repo, "three", base="v1"), changed + "v1") == "a"


def test_a_branch_below_or_above_the_name_of_its_base_wins(world: World) -> None:
    repo = repository(world.place / "repo", "git branch agents/x/y")
    below = world.prepare(repo, "below", branch="main/topic")
    above = world.prepare(repo, "above", base="agents/x/y", branch="agents/x")
    assert world.agent(below, "git branch --format='%(refname:short)'") == "main/topic"
    assert world.agent(above, "git branch --format='%(refname:short)'") == "agents/x"


@pytest.mark.parametrize(
    "branch", ["", "-x", "HEAD", "a..b", "a b", "a.lock", "/a", "a/", "a//b", "@{x", "a\n", "a/.b"]
)
def test_a_branch_name_that_git_refuses_is_refused(world: World, branch: str) -> None:
    repo = repository(world.place / "repo")
    with pytest.raises(UsageError, match="branch name"):
        world.prepare(repo, branch=branch)
    assert not (world.state / "sessions" / "api" / "work").exists()


def test_work_is_reused_as_it_is_and_nothing_is_written(world: World) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    world.agent(work, "echo mine >new; rm a; echo more >>src/b; git switch -qc elsewhere")
    before = everything(str(world.state / "sessions" / "api"))
    sh(repo.root, "git commit -q --allow-empty -m moved")
    assert world.prepare(repo) == work
    assert everything(str(world.state / "sessions" / "api")) == before
    assert world.agent(work, "git branch --show-current; ls; cat new") == "elsewhere\nnew\nsrc\nmine"


def test_work_whose_files_are_gone_begins_anew(world: World) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    world.agent(work, "echo mine >new")
    beneath.remove_tree(str(Path(work.upper).parent))
    assert world.agent(world.prepare(repo), "ls; git status --porcelain") == "a\nsrc"


def test_work_that_cannot_say_what_it_stands_on_is_left_alone(world: World) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    world.agent(work, "echo mine >new")
    standing = world.state / "sessions" / "api" / "workspace.json"
    for spoil in (standing.unlink, lambda: standing.write_text("{}"), lambda: standing.write_bytes(b"\xff")):
        spoil()
        with pytest.raises(GitError, match=r"workspace\.json"):
            world.prepare(repo)
        assert Path(work.upper, "new").read_text() == "mine\n"


def test_what_a_crash_left_half_made_is_made_again(world: World) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    base = Path(work.lower[0]).parent
    workspace.discard(world.state, "api")
    (base / "mark").unlink()
    (base / "tree" / "a").write_text("half")
    fresh = world.state / "sessions" / "api" / "work.new"
    fresh.mkdir(parents=True)
    (fresh / "junk").touch()
    assert world.agent(world.prepare(repo), "git status --porcelain; cat a; ls") == "one\na\nsrc"
    assert not fresh.exists()


def test_the_mode_of_a_session_with_work_cannot_change(world: World) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    with pytest.raises(UsageError, match="mode clone"):
        world.prepare(repo, mode="empty")
    assert world.prepare(repo) == work


def test_an_empty_workspace_needs_no_repository(world: World) -> None:
    work = world.prepare(None, mode="empty")
    assert work.lower == () and work.commit == ""
    assert world.agent(work, "ls -A; echo x >f; cat f") == "x"
    assert world.prepare(None, mode="empty") == work
    assert Path(work.upper, "f").read_text() == "x\n"


def test_what_sandboxes_write_belongs_to_whom_they_run_as(world: World) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    home = workspace.home(world.state, "api", OWNER)
    expected = OWNER or (os.getuid(), os.getgid())
    for root in (work.lower[0], work.upper, work.scratch, str(home)):
        for path in (root, *(f"{root}/{entry.path}" for entry in beneath.walk(root))):
            info = Path(path).lstat()
            assert (info.st_uid, info.st_gid) == expected, path
    for ours in (world.state / "sessions" / "api", Path(work.lower[0]).parent):
        assert ours.stat().st_uid == os.getuid()
        assert ours.stat().st_mode & 0o777 == (0o711 if OWNER else 0o700)
    assert (world.state / "sessions" / "api" / "workspace.json").stat().st_mode & 0o777 == 0o600


# --- many sessions -----------------------------------------------------------------------------


def _prepare_one(state: Path, root: str, number: int) -> str:
    repo = git.find_repository(Path(root))
    told: list[str] = []
    spec = SessionSpec(f"s{number}", workspace=WorkspaceSpec(branch=f"agents/s{number}"))
    commit, ref = git.resolve(repo, "")
    work = workspace.prepare(
        repo, spec, commit, state, project=repo.project, base_ref=ref, owner=OWNER, progress=told.append
    )
    assert Path(work.lower[0], "a").read_text() == "one\n"
    return " ".join(told)


def test_sessions_that_want_one_base_at_once_share_it(world: World) -> None:
    repo = repository(
        world.place / "repo", "for i in $(seq 200); do echo $i >f$i; done; git add -A; git commit -qm many"
    )
    with get_context("spawn").Pool(2) as processes, ThreadPoolExecutor(4) as threads:
        there = processes.starmap_async(_prepare_one, [(world.state, repo.root, number) for number in range(4)])
        here = [threads.submit(_prepare_one, world.state, repo.root, number) for number in range(4, 12)]
        told = [*there.get(timeout=60), *(future.result(timeout=60) for future in here)]
    assert sorted(told) == [*[""] * 11, f"checking out {git.resolve(repo, '')[0][:12]}"]
    assert len([entry for entry in (world.state / "bases").iterdir() if entry.is_dir()]) == 1


def test_a_further_session_costs_a_few_small_files(world: World) -> None:
    repo = repository(world.place / "repo", "head -c 3000000 /dev/urandom >big; git add big; git commit -qm big")
    world.prepare(repo, "first")
    work = world.prepare(repo, "second")
    written = [entry for entry in beneath.walk(str(world.state / "sessions" / "second")) if entry.kind == "file"]
    assert sum(entry.size for entry in written) < 4096 and len(written) <= 5
    assert work.lower == world.prepare(repo, "first").lower


def test_sessions_do_not_see_each_other_and_never_write_the_base(world: World) -> None:
    repo = repository(world.place / "repo")
    one, two = world.prepare(repo, "one"), world.prepare(repo, "two")
    base = everything(one.lower[0])
    host = sh(repo.root, "git for-each-ref; cat .git/config; git count-objects")
    world.agent(
        one, "echo x >>a; git add -A; git commit -qm x; git tag mine; git config a.b c; git gc -q; git repack -adq"
    )
    assert world.agent(two, "git status --porcelain; git tag; git log --format=%s; git config a.b || :") == "first"
    assert everything(one.lower[0]) == base
    assert sh(repo.root, "git for-each-ref; cat .git/config; git count-objects") == host


def test_the_first_status_of_a_large_checkout_hashes_nothing(world: World) -> None:
    repo = repository(
        world.place / "repo", "for i in $(seq 1100); do echo $i >f$i; done; git add -A; git commit -qm many"
    )
    work = world.prepare(repo)
    # Lists what its stat data alone does not prove unchanged; and no file is as young as the index.
    assert world.agent(work, "git diff-files --name-only; find . -name 'f*' -newer .git/index") == ""
    index = int(Path(work.lower[0], ".git", "index").stat().st_mtime)
    assert max(int(path.stat().st_mtime) for path in Path(work.lower[0]).glob("f*")) < index


# --- what of the host is inside ----------------------------------------------------------------


def test_nothing_inside_names_the_host_or_its_remotes(world: World) -> None:
    script = """
        git remote add origin https://me:s3cret@example.invalid/x.git; git config user.email private@test.invalid
        git config filter.evil.smudge 'cat'; git branch other
    """
    repo = repository(world.place / "repo", script)
    work = world.prepare(repo)
    for root in (*work.lower, work.upper):
        for entry in beneath.walk(root):
            if entry.kind == "file":
                content = beneath.read(root, entry.path, 1 << 20)
                for secret in (os.fsencode(world.place), b"s3cret", b"private", b"evil", b"origin"):
                    assert secret not in content, entry.path
    assert world.agent(work, "git remote; git branch -a --format='%(refname:short)'") == "agents/api\nmain"


def test_hooks_templates_and_filters_of_the_host_do_not_run(world: World, home: Path) -> None:
    template = world.place / "template" / "hooks"
    template.mkdir(parents=True)
    ran = world.place / "ran"
    for hook in ("post-checkout", "reference-transaction", "post-index-change"):
        (template / hook).write_text(f"#!/bin/sh\necho {hook} >>{ran}\n")
        (template / hook).chmod(0o755)
    script = "echo '* filter=evil' >.gitattributes; git add -A; git commit -qm attributes"
    repo = repository(world.place / "repo", script)
    smudge = f"\"sh -c 'echo smudge >>{ran}; cat'\""
    sh(repo.root, f"cp {template}/* .git/hooks/; git config filter.evil.smudge {smudge}")
    sh(home, f"git config --global init.templateDir {template.parent}; git config --global core.hooksPath {template}")
    sh(home, f"git config --global filter.evil.smudge {smudge}")
    work = world.prepare(repo)
    world.fetch(repo, work)
    assert not ran.exists()
    assert not Path(work.lower[0], ".git", "hooks").exists()
    sh(world.place, f"git clone -q {repo.root} control")  # Control: an ordinary clone runs all of them.
    assert {"post-checkout", "smudge"} <= set(ran.read_text().split())


def test_it_works_inside_a_hook_of_another_repository(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    other = repository(world.place / "other")
    repo = repository(world.place / "repo", "echo this >a; git commit -qam this")
    before = everything(other.root)
    for name, value in {"DIR": other.git_dir, "INDEX_FILE": other.git_dir + "/index", "WORK_TREE": other.root}.items():
        monkeypatch.setenv(f"GIT_{name}", value)
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", other.git_dir + "/objects")
    assert git.find_repository(Path(repo.root)) == repo
    work = world.prepare(repo)
    assert world.agent(work, "git status --porcelain; cat a") == "this"
    world.fetch(repo, work)
    assert everything(other.root) == before


def test_tags_of_the_history_are_there_and_those_of_other_branches_are_not(world: World) -> None:
    script = """
        git tag -am one v1; git tag light; git commit -q --allow-empty -m second
        git switch -qc other; git commit -q --allow-empty -m other; git tag -am two v2; git switch -q main
    """
    repo = repository(world.place / "repo", script)
    for history in ("shared", "own"):
        work = world.prepare(repo, history, history=history)
        assert world.agent(work, "git tag; git describe") == "light\nv1\n" + sh(repo.root, "git describe")


def test_what_a_session_borrows_outlives_a_gc_of_the_host(world: World) -> None:
    repo = repository(world.place / "repo", "git commit -q --allow-empty -m doomed; git tag -am one v1")
    work = world.prepare(repo)
    collect = "git reflog expire --expire=now --all; git gc -q --prune=now"
    sh(repo.root, f"git reset -q --hard HEAD~; git tag -d v1 >/dev/null; {collect}")
    assert world.agent(work, "git fsck --full; git describe; git log --format=%s") == "v1\ndoomed\nfirst"
    workspace.discard(world.state, "api")
    (key,) = workspace.unused_bases(world.state)
    assert workspace.release_base(world.state, key)
    sh(repo.root, collect)
    with pytest.raises(CommandError):  # Control: it was the pin that kept it.
        sh(repo.root, f"git cat-file -e {work.commit}")


# --- history = own -----------------------------------------------------------------------------

SECRET = "git switch -qc other; echo secret >s; git add s; git commit -qm other; git switch -q main"


def test_own_history_holds_the_branch_and_nothing_else(world: World) -> None:
    repo = repository(world.place / "repo", SECRET + "; echo 2 >a; git commit -qam 2")
    work = world.prepare(repo, history="own")
    assert work.mounts == ()
    assert world.agent(work, "git fsck --full --strict; git log --format=%s; git status --porcelain") == "2\nfirst"
    other = sh(repo.root, "git rev-parse other other^{tree} other:s").split()
    for name in other:
        with pytest.raises(CommandError):
            world.agent(work, f"git cat-file -e {name}")
        assert world.agent(world.prepare(repo, "control"), f"git cat-file -t {name}")  # Control: shared has them.


def test_own_history_can_become_shared(world: World) -> None:
    repo = repository(world.place / "repo", "git branch other")
    work = world.prepare(repo, history="own")
    world.agent(work, "echo mine >m; git add m; git commit -qm mine; git gc -q; echo u >u")
    shared = world.prepare(repo, history="shared")
    assert shared.upper == work.upper and shared.mounts != ()
    assert world.agent(shared, "git fsck --full; git log --format=%s; git status --porcelain") == "mine\nfirst\n?? u"


def test_shared_history_becomes_own_once_its_objects_were_brought_home(world: World) -> None:
    third = "git switch -qc third; echo staged >t; git add t; git commit -qm third; git switch -q main"
    repo = repository(world.place / "repo", f"{SECRET}; {third}")
    work = world.prepare(repo)
    # What the session has of other branches is reached by a reflog, and by its index, alone.
    other, blob = sh(repo.root, "git rev-parse other third:t").split()
    world.agent(work, f"git reset -q --hard {other}; git reset -q --hard main")
    world.agent(work, f"git update-index --add --cacheinfo 100644,{blob},x; echo mine >m; git add m; echo u >u")
    with pytest.raises(GitError, match="borrows"):
        world.prepare(repo, history="own")
    assert world.prepare(repo) == work
    process.run(world.argv(work, workspace.localize(work.commit)))
    own = world.prepare(repo, history="own", localized=True)
    assert own.upper == work.upper and own.mounts == ()
    assert world.agent(own, "git fsck --full; git status --porcelain; git show :x; git show agents/api@{1}:s") == (
        "A  m\nAD x\n?? u\nstaged\nsecret"
    )
    assert workspace.unused_bases(world.state) == (Path(work.lower[0]).parent.name,)


# --- sources -----------------------------------------------------------------------------------


def test_linked_worktrees_and_bare_repositories(world: World) -> None:
    repo = repository(world.place / "repo", "git worktree add -q ../linked -b topic; git clone -q --bare . ../bare.git")
    sh(world.place / "linked", "echo t >a; git commit -qam topic")
    linked, bare = git.find_repository(world.place / "linked"), git.find_repository(world.place / "bare.git")
    assert linked.project == repo.project and not linked.bare and bare.bare
    assert (
        world.agent(world.prepare(linked, "one"), "git status --porcelain; cat a; git log --format=%s")
        == "t\ntopic\nfirst"
    )
    assert world.agent(world.prepare(bare, "two"), "git status --porcelain; cat a") == "one"


def test_stores_that_borrow_from_others_are_all_there_and_git_is_content(world: World) -> None:
    repository(world.place / "first")
    sh(world.place, "git clone -qs first second; cd second; echo 2 >a; git commit -qam 2")
    sh(world.place, "git clone -qs second third; cd third; echo 3 >a; git commit -qam 3")
    Path(world.place / "third/.git/objects/info/alternates").write_text("# nested\n../../../second/.git/objects\n")
    third = git.find_repository(world.place / "third")
    work = world.prepare(third)
    assert world.agent(work, "git fsck --full; git log --format=%s; git status --porcelain") == "3\n2\nfirst"
    world.agent(work, "echo 4 >a; git commit -qam 4")
    assert world.status(work) == (False, (), "")
    assert world.fetch(third, work).followed
    own = world.prepare(third, "own", history="own")
    assert own.mounts == () and world.agent(own, "git fsck --full; git log --format=%s") == "3\n2\nfirst"


def test_sha256_repositories(world: World) -> None:
    repo = repository(world.place / "repo", "git tag -am one v1", options="--object-format=sha256")
    for history in ("shared", "own"):
        work = world.prepare(repo, history, history=history)
        assert len(work.commit) == 64
        assert world.agent(work, "git fsck; git describe; echo 2 >a; git commit -qam 2; git status --porcelain") == "v1"
        assert world.status(work) == (False, (), "")
        assert world.fetch(repo, work, history).followed


def test_a_shallow_source_gives_what_it_has(world: World) -> None:
    repository(world.place / "repo", "for i in 1 2 3; do echo $i >a; git commit -qam $i; done")
    sh(world.place, f"git clone -q --depth 2 file://{world.place}/repo shallow")
    repo = git.find_repository(world.place / "shallow")
    for history in ("shared", "own"):
        work = world.prepare(repo, history, history=history)
        assert world.agent(work, "git fsck; git status --porcelain; git log --format=%s; cat a") == "3\n2\n3"
        world.agent(work, "echo x >a; git commit -qam x")
        head = git.read_head(workspace.layers(work))
        assert head.commit and git.count(world.inside(work), head.commit, work.commit, None, []) == (1, None, 1)
        assert world.fetch(repo, work, history).followed
    absent = sh(world.place / "repo", "git rev-parse HEAD~3")
    spec = SessionSpec("absent", workspace=WorkspaceSpec(branch="x"))
    with pytest.raises(GitError, match="is not in") as refused:
        workspace.prepare(repo, spec, absent, world.state, project=repo.project)
    assert "--unshallow" in refused.value.hint


def test_a_partial_clone_is_refused_while_it_lacks_objects(world: World) -> None:
    repository(world.place / "repo", "echo 2 >a; git commit -qam 2; git config uploadpack.allowFilter true")
    sh(world.place, f"git clone -q --filter=blob:none file://{world.place}/repo partial")
    repo = git.find_repository(world.place / "partial")
    before = everything(repo.common_dir + "/objects")
    for history in ("shared", "own"):
        with pytest.raises(GitError, match="partial clone that lacks 1 objects"):
            world.prepare(repo, history=history)
    assert everything(repo.common_dir + "/objects") == before, "nothing may be fetched behind the user's back"
    assert not list((world.state / "bases").glob("*/"))
    sh(repo.root, "git fetch -q --refetch --no-filter")
    assert world.agent(world.prepare(repo), "git fsck; git status --porcelain; git show HEAD~:a") == "one"


# --- submodules and LFS ------------------------------------------------------------------------

ALLOW = "git -c protocol.file.allow=always"


def with_submodule(place: Path) -> git.Repository:
    """A repository with submodule `lib/sub`, which has one of its own, `deep`."""
    repository(place / "deep")
    repository(place / "sub", f"{ALLOW} submodule --quiet add {place}/deep deep; git commit -qm deep")
    add = f"{ALLOW} submodule --quiet add {place}/sub lib/sub; {ALLOW} submodule --quiet update --init --recursive"
    return repository(place / "repo", f"{add}; git commit -qm sub")


def test_submodules_are_refused_unless_asked_for(world: World) -> None:
    repo = with_submodule(world.place)
    with pytest.raises(GitError, match="lib/sub") as refused:
        world.prepare(repo)
    assert refused.value.hint == "set workspace.submodules = true"
    assert not list((world.state / "bases").glob("*/"))
    assert "refs/sessionctl" not in sh(repo.root, "git for-each-ref")


@pytest.mark.parametrize("history", ["shared", "own"])
def test_submodules_are_checked_out_whole(world: World, history: str) -> None:
    repo = with_submodule(world.place)
    work = world.prepare(repo, submodules=True, history=history)
    assert (history == "own") == (work.mounts == ())
    assert world.agent(work, "git status --porcelain; git submodule status --recursive | cut -c1") == " \n "
    assert world.agent(
        work, "git -C lib/sub fsck; cat lib/sub/a lib/sub/deep/src/b; git -C lib/sub/deep log --format=%s"
    ) == ("one\ntwo\nfirst")
    assert world.status(work) == (False, (), "")
    world.agent(work, "echo x >>lib/sub/deep/a")
    dirty, changes, _ = world.status(work)
    assert dirty and "lib/sub/deep/a" in changes


def test_a_submodule_that_was_worked_in_is_never_called_clean(world: World) -> None:
    repo = with_submodule(world.place)
    work = world.prepare(repo, submodules=True)
    world.agent(work, "cd lib/sub; git commit -q --allow-empty -m only-here; git checkout -q HEAD~")
    assert world.agent(work, "git status --porcelain") == ""  # Control: git itself sees nothing.
    assert world.status(work)[0] is None


def test_submodules_work_from_a_linked_worktree_and_as_a_source(world: World) -> None:
    repo = with_submodule(world.place)
    sh(repo.root, f"git worktree add -q ../linked; cd ../linked; {ALLOW} submodule --quiet update --init --recursive")
    linked = world.prepare(git.find_repository(world.place / "linked"), "linked", submodules=True)
    assert world.agent(linked, "git status --porcelain; cat lib/sub/a") == "one"
    sub = git.find_repository(Path(repo.root, "lib/sub/src"))
    assert sub.common_dir.endswith("/.git/modules/lib/sub")
    assert world.agent(world.prepare(sub, "sub", submodules=True), "git status --porcelain; cat deep/a") == "one"


def test_a_submodule_that_is_not_on_this_machine_is_refused(world: World) -> None:
    repo = with_submodule(world.place)
    sh(
        repo.root,
        "cd lib/sub; echo 2 >a; git commit -qam 2; cd ../..; git commit -qam moved; rm -r lib/sub; rm -r .git/modules",
    )
    with pytest.raises(GitError, match="lib/sub is not there") as refused:
        world.prepare(repo, submodules=True)
    assert "submodule update --init" in refused.value.hint
    sh(repo.root, f"git clone -q --bare {world.place}/sub .git/modules/lib/sub")
    with pytest.raises(GitError, match=r"is not in .*modules/lib/sub"):
        world.prepare(repo, submodules=True)


@pytest.mark.parametrize("name", ["../../evil", "/abs", "a/../../b", ".."])
def test_a_submodule_name_that_leads_elsewhere_is_refused(world: World, name: str) -> None:
    repo = repository(world.place / "repo")
    link = f"git update-index --add --cacheinfo 160000,{'1' * 40},sub; git add .gitmodules; git commit -qm link"
    Path(repo.root, ".gitmodules").write_text(f'[submodule "{name}"]\n\tpath = sub\n\turl = x\n')
    sh(repo.root, link)
    with pytest.raises(GitError, match=r"no submodule in \.gitmodules"):
        world.prepare(repo, submodules=True)


def with_lfs(place: Path) -> git.Repository:
    """A repository whose ``big.bin`` is kept by LFS, in two versions."""
    assert shutil.which("git-lfs"), "these tests need git-lfs"
    script = """
        git lfs install --local >/dev/null; git lfs track '*.bin' >/dev/null
        seq 10000 >big.bin; git add -A; git commit -qm 'big one'; seq 20000 >big.bin; git commit -qam 'big two'
    """
    return repository(place / "repo", script)


def test_lfs_is_refused_unless_asked_for(world: World) -> None:
    repo = with_lfs(world.place)
    with pytest.raises(GitError, match="Git LFS") as refused:
        world.prepare(repo)
    assert refused.value.hint == "set workspace.lfs = true"


@pytest.mark.parametrize("history", ["shared", "own"])
def test_lfs_files_are_real_and_clean(world: World, history: str) -> None:
    repo = with_lfs(world.place)
    before = sh(repo.root, "ls -A .git; cat .git/config; ls -AR .git/hooks .git/lfs/objects")
    work = world.prepare(repo, lfs=True, history=history)
    assert world.agent(
        work, "git status --porcelain; tail -n1 big.bin; rm big.bin; git checkout -q big.bin; wc -l <big.bin"
    ) == ("20000\n20000")
    assert sh(repo.root, "ls -A .git; cat .git/config; ls -AR .git/hooks .git/lfs/objects") == before
    assert not Path(work.lower[0], ".git", "hooks").exists()
    if history == "shared":  # What else LFS keeps on the host can be borrowed too.
        assert world.agent(work, "git checkout -q HEAD~; wc -l <big.bin; git status --porcelain") == "10000"


def test_a_changed_lfs_file_is_dirty_even_when_committed(world: World) -> None:
    repo = with_lfs(world.place)
    work = world.prepare(repo, lfs=True)
    assert world.status(work) == (False, (), "")
    world.agent(work, "seq 5 >big.bin; git commit -qam smaller; git status --porcelain")
    assert world.status(work)[:2] == (True, ("big.bin",)), "its content is in no commit, and would be lost"


@pytest.mark.parametrize("history", ["shared", "own"])
def test_lfs_files_that_are_not_on_this_machine_are_refused(world: World, history: str) -> None:
    repo = with_lfs(world.place)
    shutil.rmtree(Path(repo.root, ".git/lfs/objects"))
    with pytest.raises(GitError, match=r"1 files of Git LFS are not on this machine, big\.bin") as refused:
        world.prepare(repo, lfs=True, history=history)
    assert refused.value.hint == "git lfs fetch"


# --- include -----------------------------------------------------------------------------------


def test_includes_are_copied_once_and_never_over_something(world: World) -> None:
    repo = repository(
        world.place / "repo", "echo local >.env; chmod 600 .env; mkdir -p cache/x; echo c >cache/x/y; echo host >a"
    )
    work = world.prepare(repo, include=(".env", "cache", "a"))
    assert world.agent(work, "cat .env cache/x/y a; stat -c %a .env") == "local\nc\none\n600"
    world.agent(work, "echo mine >.env; rm -r cache")
    sh(repo.root, "echo later >late; echo other >.env")
    again = world.prepare(repo, include=(".env", "cache", "a", "late"))
    assert again == work
    assert world.agent(work, "cat .env late; ls -A") == "mine\nlater\n.env\n.git\na\nlate\nsrc"


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "/etc/hostname",
        "link",
        "dir/link",
        "linked/inside",
        "dir",
        "missing",
        "pipe",
        ".git/config",
        "",
        "x/../a",
    ],
)
def test_an_include_that_leads_out_or_is_no_file_is_refused(world: World, path: str) -> None:
    (world.place / "outside").write_text("secret")
    script = """
        ln -s ../outside link; mkdir dir in; ln -s ../../outside dir/link; echo x >in/inside; ln -s in linked
        mkfifo pipe; echo f >fine
    """
    repo = repository(world.place / "repo", script)
    with pytest.raises(SessionctlError, match="include"):
        world.prepare(repo, include=("fine", path))
    work = world.prepare(repo)
    assert world.agent(work, "ls -A") == ".git\na\nsrc", "nothing is left of a refused one"


def test_an_include_does_not_follow_links_that_the_agent_planted(world: World) -> None:
    repo = repository(world.place / "repo", "mkdir cfg; echo new >cfg/f")
    work = world.prepare(repo)
    target = world.place / "target"
    target.mkdir(mode=0o777)
    target.chmod(0o777)
    world.agent(work, f"ln -s {target} cfg")
    world.prepare(repo, include=("cfg",))
    assert list(target.iterdir()) == []
    world.agent(work, "rm cfg; echo x >cfg")
    sh(repo.root, "mkdir other; echo x >other/f; mkdir cfg/sub; echo x >cfg/sub/f")
    with pytest.raises(GitError, match="cfg/sub/f cannot be copied"):
        world.prepare(repo, include=("other", "cfg/sub"))


# --- the end -----------------------------------------------------------------------------------


def test_discard_takes_work_and_home_whatever_the_agent_did_to_them(world: World) -> None:
    repo = repository(world.place / "repo")
    work = world.prepare(repo)
    home = Path(workspace.home(world.state, "api", OWNER))
    assert Path(workspace.home(world.state, "api", OWNER)) == home and home.stat().st_mode & 0o777 == 0o700
    world.agent(work, "mkdir -p d/e; chmod 0 d/e d; rm -r src; ln -s / root")
    sandbox = world.state / "sessions" / "api" / "20260101T000000-00000000"
    sandbox.mkdir()
    workspace.discard(world.state, "api")
    assert [entry.name for entry in (world.state / "sessions" / "api").iterdir()] == [sandbox.name]
    sandbox.rmdir()
    workspace.discard(world.state, "api")
    assert list((world.state / "sessions").iterdir()) == []


def test_a_base_is_kept_while_a_session_or_a_sandbox_stands_on_it(world: World) -> None:
    repo = repository(world.place / "repo")
    one = world.prepare(repo, "one")
    sh(repo.root, "git commit -q --allow-empty -m next")
    two = world.prepare(repo, "two")
    assert one.lower != two.lower and workspace.unused_bases(world.state) == ()
    workspace.discard(world.state, "one")
    key = Path(one.lower[0]).parent.name
    assert workspace.unused_bases(world.state, used=one.lower) == ()
    assert workspace.unused_bases(world.state) == (key,)
    assert not workspace.release_base(world.state, Path(two.lower[0]).parent.name)
    assert workspace.release_base(world.state, key) and workspace.release_base(world.state, key)
    assert not Path(one.lower[0]).exists()
    assert (
        sh(repo.root, "git for-each-ref --format='%(refname:lstrip=4)' refs/sessionctl")
        == Path(two.lower[0]).parent.name
    )
    assert world.agent(two, "git status --porcelain; git log --format=%s") == "next\nfirst"


def test_no_base_is_unused_while_one_session_cannot_say_what_it_stands_on(world: World) -> None:
    repo = repository(world.place / "repo")
    world.prepare(repo)
    (world.state / "sessions" / "api" / "workspace.json").write_text("?")
    with pytest.raises(GitError, match=r"workspace\.json"):
        workspace.unused_bases(world.state)


def test_a_fingerprint_moves_with_every_change_and_only_then(world: World) -> None:
    work = world.prepare(repository(world.place / "repo"))
    seen = [workspace.fingerprint(work.upper)]
    for script in ("echo x >new", "chmod +x new", "touch new", "mv new newer", "rm a", "mkdir d", "ln -s x l"):
        world.agent(work, script)
        assert workspace.fingerprint(work.upper) not in seen
        seen.append(workspace.fingerprint(work.upper))
    assert workspace.fingerprint(work.upper) == seen[-1]
    assert workspace.fingerprint(work.upper, limit=3) == ""
    assert workspace.fingerprint(work.upper + ".gone") == ""


def test_standing_survives_being_written_down(world: World) -> None:
    work: Workspace = world.prepare(repository(world.place / "repo", "echo l >local"), include=("local",))
    standing = workspace.load_standing(world.state, "api")
    assert standing is not None and standing.recipe is not None
    assert standing.workspace == work and standing.included == ("local",)
    assert Path(work.lower[0]).parent.name == standing.recipe.key
    assert workspace.load_standing(world.state, "other") is None
