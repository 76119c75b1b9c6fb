"""Running sessionctl as a person does: a process in a repository, its output and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple


class Said(NamedTuple):
    """What a command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def git(directory: Path, *args: str) -> str:
    """Runs git in `directory`; what it printed."""
    done = subprocess.run(["git", *args], cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Repository:
    """A repository with a manifest, in which sessionctl is called."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True)
        git(root, "init", "-q")
        (root / "a.txt").write_text("a\n")
        (root / "src").mkdir()
        (root / "src" / "main.py").write_text("print('hello')\n")
        (root / ".gitignore").write_text("*.log\n.env\n")
        git(root, "add", "-A")
        git(root, "commit", "-qm", "first")

    @property
    def head(self) -> str:
        return git(self.root, "rev-parse", "HEAD")

    @property
    def state(self) -> Path:
        """The state directory of this project."""
        (found,) = Path(os.environ["SESSIONCTL_STATE_DIR"]).glob(f"{self.root.name}-*")
        return found

    def declare(self, text: str) -> None:
        """Writes the manifest: `text` after its version line."""
        (self.root / "sessions.toml").write_text(f"version = 1\n{text}")

    def run(self, *args: str, code: int | None = 0, stdin: str = "", env: dict[str, str] | None = None) -> Said:
        """Runs ``sessionctl`` with `args`; it must end with `code` (None: any) and without a traceback."""
        done = subprocess.run(
            [sys.executable, "-m", "sessionctl", *args],
            cwd=self.root,
            input=stdin,
            capture_output=True,
            text=True,
            env={**os.environ, **(env or {})},
            timeout=120,
            check=False,
        )
        said = Said(done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in said.err, said.err
        assert code is None or said.code == code, f"{args}: {said.code}\n{said.out}\n{said.err}"
        return said

    def apply(self, *args: str, code: int = 0) -> Said:
        return self.run("apply", "--yes", *args, code=code)

    def inside(self, name: str, script: str, code: int = 0) -> Said:
        """Runs a shell script in session `name`."""
        return self.run("exec", name, "--", "sh", "-c", script, code=code)

    def session(self, name: str) -> dict[str, Any]:
        """What `ls` says of a session."""
        (found,) = [each for each in self.run("ls", "--all", "--json").json["sessions"] if each["name"] == name]
        return dict(found)

    def files(self, *roots: Path) -> dict[str, tuple[int, int, int]]:
        """Every path below `roots` with its times and size: equal when nothing was written."""
        found = {}
        for root in roots:
            for directory, _, names in os.walk(root):
                for name in (".", *names):
                    info = os.lstat(os.path.join(directory, name))
                    found[f"{directory}/{name}"] = (info.st_mtime_ns, info.st_ctime_ns, info.st_size)
        return found


def undo_of(repository: Repository, event: str) -> list[str]:
    """The words of the command that the log names for undoing the last `event`."""
    events = [json.loads(line) for line in repository.run("log", "--json").out.splitlines()]
    named = [each["undo"] for each in events if each["event"] == event and "undo" in each]
    program, *words = str(named[-1]).split()
    assert program == "sessionctl"
    return words
