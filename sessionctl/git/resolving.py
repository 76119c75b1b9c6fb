"""Which commits the user's repository has, and which one a name means, by git."""

from __future__ import annotations

from sessionctl.errors import GitError
from sessionctl.git.finding import Repository
from sessionctl.git.gate import run
from sessionctl.git.names import OBJECT_NAME, is_ref_name, printable


def resolve(repository: Repository, base: str) -> tuple[str, str]:
    """The commit that `base` names, and the full name of the ref it was named by, or "".

    An empty `base` is the commit that is checked out. `GitError` when there is no such commit, none
    at all yet, or when the name means several things.
    """
    if any(not c.isprintable() for c in base):
        raise GitError(f"{base!a} does not name a commit")
    name = base or "HEAD"
    found = run(repository.git_dir, "rev-parse", "--verify", "--end-of-options", name + "^{commit}", check=False)
    if b"ambiguous" in found.stderr:
        raise GitError(
            f"{name} is ambiguous in {repository.root}",
            hint="write it in full: refs/heads/NAME or refs/tags/NAME",
        )
    if found.code:
        if name == "HEAD":
            raise _no_commit(repository)
        if not run(repository.git_dir, "for-each-ref", "--count=1").text():
            raise _no_commit(repository)
        raise GitError(f"{name} names no commit of {repository.root}", hint="see `git branch --all` and `git tag`")
    commit = found.text()
    if not OBJECT_NAME.fullmatch(commit.encode()):
        raise GitError(f"git gave no commit for {name}: {printable(commit)}")
    full_name = ("rev-parse", "--verify", "--symbolic-full-name", "--end-of-options", base)
    ref = run(repository.git_dir, *(full_name if base else ("symbolic-ref", "--quiet", "HEAD")), check=False).text()
    return commit, ref if is_ref_name(ref) else ""


def _no_commit(repository: Repository) -> GitError:
    return GitError(f"{repository.root} has no commit yet", hint='make one: git commit --allow-empty -m "start"')


def has_commit(repository: Repository, commit: str) -> bool:
    """Whether the repository holds that commit."""
    return run(repository.common_dir, "cat-file", "-e", f"{commit}^{{commit}}", check=False).code == 0


def host_count(repository: Repository, commit: str, tip: str) -> int | None:
    """Commits that `tip` has and `commit` has not, by the host repository; None when it lacks one of them."""
    done = run(repository.common_dir, "rev-list", "--count", f"^{commit}", tip, "--", check=False)
    text = done.text()
    return int(text) if not done.code and text.isdecimal() else None
