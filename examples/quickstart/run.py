"""Plays the main job of sessionctl on a repository made for it, as one would type it in a terminal.

Every command line is printed before it is run. Everything it makes, state included, is in one directory.
At its end the sessions are stopped and that directory is removed, unless `--keep` is given.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

MANIFEST = """\
version = 1

[defaults]
workspace = { base = "main" }

[sessions.api]
agent = "claude"
title = "Rewrite of the API"
tags = ["backend"]
env = { LOG_LEVEL = "debug" }
setup = ["git config pull.rebase true"]

[sessions.docs]
agent = "claude"
files = [{ path = "~/.config/style.txt", content = "Short sentences.\\n" }]

[sessions.audit]
agent = "codex"
workspace = { history = "own" }
state = "stopped"
"""


class Terminal:
    """Runs command lines in the demo repository, each after it was shown."""

    def __init__(self, place: Path) -> None:
        self.repository = place / "repository"
        self.state = place / "state"
        self.repository.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "SESSIONCTL_"))}
        # Where there is no identity, git would refuse to commit.
        author = {"GIT_AUTHOR_NAME": "You", "GIT_AUTHOR_EMAIL": "you@example.invalid"}
        committer = {"GIT_COMMITTER_NAME": "You", "GIT_COMMITTER_EMAIL": "you@example.invalid"}
        self._env = {**kept, **author, **committer, "SESSIONCTL_STATE_DIR": str(self.state)}

    def say(self, text: str) -> None:
        print(f"\n# {text}", flush=True)

    def type(self, line: str, ends_with: int = 0) -> None:
        """Shows `line` and runs it. `SystemExit` when it ends with any other code than `ends_with`."""
        print(f"$ {line}", flush=True)
        words = shlex.split(line)
        argv = [sys.executable, "-m", *words] if words[0] == "sessionctl" else words
        if (code := self.run(argv)) != ends_with:
            raise SystemExit(f"that ended with exit code {code}, and not with {ends_with}: see above")

    def write(self, name: str, text: str) -> None:
        """Shows `text` and makes it the content of a file of the repository."""
        print(f"$ cat {name}\n{text}", end="", flush=True)
        path = self.repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, argv: Sequence[str], *, quiet: bool = False) -> int:
        """The exit code of `argv`."""
        null = subprocess.DEVNULL
        out = null if quiet else None
        try:
            return subprocess.run(
                argv, cwd=self.repository, env=self._env, stdin=null, stdout=out, stderr=out, check=False
            ).returncode
        except FileNotFoundError:
            raise SystemExit(f"{argv[0]} was not found") from None


def play(terminal: Terminal) -> None:
    """The whole story, from an empty directory to a merged branch."""
    terminal.say("A repository, as you may have one.")
    terminal.type("git init -q -b main")
    terminal.write("src/app.py", 'def greeting():\n    return "hello"\n')
    terminal.type("git add .")
    terminal.type("git commit -q -m 'A beginning'")

    terminal.say("Three sessions are declared. Can this machine run them?")
    terminal.write("sessions.toml", MANIFEST)
    terminal.type("sessionctl doctor")

    terminal.say("What would be done is said first.")
    terminal.type("sessionctl plan")
    terminal.type("sessionctl apply --yes")
    terminal.type("sessionctl ls")

    terminal.say("Each has its own checkout on its own branch. Work in one of them:")
    terminal.type("""sessionctl exec api -- sh -c 'pwd; git branch --show-current; echo "LOG_LEVEL is $LOG_LEVEL"'""")
    terminal.type("""sessionctl exec api -- sh -c 'sed -i s/hello/hi/ src/app.py && git commit -qam "Say hi"'""")
    terminal.type("sessionctl exec docs -- cat /home/agent/.config/style.txt")
    terminal.type("sessionctl ls")

    terminal.say("Nothing of it is in the repository, until it is fetched.")
    terminal.type("git log --oneline --all -- src")
    terminal.type("sessionctl fetch api")
    terminal.type("git merge -q --ff-only agents/api")
    terminal.type("git log --oneline")

    terminal.say("Declare something else. The plan says what it costs; 3 is: something would change.")
    terminal.write("sessions.toml", MANIFEST.replace('"debug"', '"info"').partition("[sessions.audit]")[0])
    terminal.type("sessionctl plan --exit-code", ends_with=3)
    terminal.type("sessionctl apply --yes")

    terminal.say("The block of audit is gone, and audit is not: only prune removes, and only what holds no work.")
    terminal.type("sessionctl ls")
    terminal.type("sessionctl prune --idle 0s --yes")
    terminal.type("sessionctl verify")


def clean_up(terminal: Terminal, place: Path) -> None:
    """Ends all sandboxes, and removes the directory with everything in it."""
    terminal.say("That was all. The sessions are stopped, and everything is removed.")
    for session in terminal.state.glob("*/sessions/*"):
        # One that has no sandbox any more cannot be stopped, and need not be.
        terminal.run([sys.executable, "-m", "sessionctl", "stop", session.name], quiet=True)
        # overlayfs leaves a directory that not even its owner may look into.
        with suppress(FileNotFoundError, PermissionError):
            session.joinpath("work", "scratch", "work").chmod(0o700)
    shutil.rmtree(place)


def main() -> None:
    parser = argparse.ArgumentParser(description="Play the main job of sessionctl on a repository made for it.")
    parser.add_argument("directory", nargs="?", type=Path, help="a new directory for it (default: a temporary one)")
    parser.add_argument("--keep", action="store_true", help="leave the sessions running and the directory there")
    args = parser.parse_args()
    if args.directory is None:
        place = Path(tempfile.mkdtemp(prefix="sessionctl-quickstart-"))
    else:
        place = args.directory.absolute()
        place.mkdir(parents=True)
    terminal = Terminal(place)
    try:
        play(terminal)
    except BaseException:
        clean_up(terminal, place)
        raise
    if not args.keep:
        clean_up(terminal, place)
        return
    terminal.say("That was all, and it is still there. To go on:")
    print(f"$ cd {shlex.quote(str(terminal.repository))}")
    print(f"$ export SESSIONCTL_STATE_DIR={shlex.quote(str(terminal.state))}")
    print("# To end it: `sessionctl stop api docs`, and remove the directory.")


if __name__ == "__main__":
    main()
