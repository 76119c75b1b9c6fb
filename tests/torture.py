"""``python -m tests.torture [--seed N] [--operations N] [--minutes N]``: nothing is lost, whatever is done to sessions.

Random operations on five sessions, their forks, and what they are renamed to: an agent's work inside, every command
that takes something away, kill -9 of sandboxes and of sessionctl itself. Beside it stands a model: every byte that was
in a workspace, a home or a snapshot before a command ran. After it, each is in place under the same name, or in a
snapshot that can be brought back, by the command that the log names. What an agent deletes itself is its own affair,
what it deletes in a snapshot is not. Now and then the way back is really taken, and compared byte for byte.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from sessionctl import Project, cli, snapshots, workspace
from sessionctl.backends import Context
from sessionctl.backends.bubblewrap import Backend
from tests.bench.lab import lab
from tests.command import Repository, Said, git
from tests.leftovers import Watch, descendants, sandboxes

ROOT = Path(__file__).parents[1]
SESSIONS = ("s0", "s1", "s2", "s3", "s4")
_MODES = {"s2": 'mode = "worktree"', "s3": 'mode = "empty"', "s4": "visible = true"}
"""Of the sessions that do not work in the usual mode. A session's mode does not change."""
_MOST = 9
"""Sessions at a time, forks too: more only take longer."""
_MOMENTS = 160
"""A command that is to be killed is so before its last moment, mostly."""
_KILLED = 0.3
"""The part of commands that are."""

_OURS = ("home/.injected", "/setup.log", ".git/HEAD", ".git/logs/")
"""Parts of the paths of what sessionctl, or a setup that it runs, writes as declared: no work of the agent's."""


class Item(NamedTuple):
    """Something that must not be lost."""

    session: str
    part: str
    path: str
    content: str
    """A digest of it; for a link, where it leads."""


class Held(NamedTuple):
    """All that there is at some time."""

    in_place: frozenset[Item]
    kept: frozenset[Item]
    """In snapshots that can be brought back."""
    commits: frozenset[str]
    """In the host repository."""


class Lost(AssertionError):
    """A promise was broken."""


class Step(NamedTuple):
    """What was done, for people."""

    number: int
    words: tuple[str, ...]
    killed_at: int
    said: Said


class Files:
    """Reads trees whatever their modes; a file that did not change is not read again."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], str] = {}

    def contents(self, root: str) -> dict[str, str]:
        """What is in every file and link below `root`, by path; nothing when there is no such directory."""
        return dict(self._below(root, "")) if os.path.isdir(root) else {}

    def _below(self, directory: str, prefix: str) -> Iterator[tuple[str, str]]:
        with _unlocked(directory, 0o700):
            for entry in list(os.scandir(directory)):
                path = f"{prefix}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    yield from self._below(entry.path, path)
                elif entry.is_symlink():
                    yield path, f"-> {os.readlink(entry.path)}"
                elif entry.is_file(follow_symlinks=False):
                    yield path, self._digest(entry.path)

    def _digest(self, path: str) -> str:
        info = os.lstat(path)
        key = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        if key not in self._known:
            with _unlocked(path, 0o600), open(path, "rb") as file:
                self._known[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._known[key]


@contextlib.contextmanager
def _unlocked(path: str, mode: int) -> Iterator[None]:
    """While it is entered, `path` can be read, although its mode keeps its owner out."""
    before = stat.S_IMODE(os.lstat(path).st_mode)
    locked = os.geteuid() != 0 and before & mode != mode
    if locked:
        os.chmod(path, before | mode)
    try:
        yield
    finally:
        if locked:
            os.chmod(path, before)


@contextlib.contextmanager
def _captured(fd: int) -> Iterator[io.StringIO]:
    """What is written to the descriptor `fd` meanwhile, here and by what is started; it is there at the end."""
    stream = sys.stdout if fd == 1 else sys.stderr
    said = io.StringIO()
    stream.flush()
    kept = os.dup(fd)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), fd)
            redirect = contextlib.redirect_stdout if fd == 1 else contextlib.redirect_stderr
            with open(fd, "w", encoding="utf-8", closefd=False) as into, redirect(into):
                try:
                    yield said
                finally:
                    into.flush()
                    file.seek(0)
                    said.write(file.read().decode("utf-8", "backslashreplace"))
    finally:
        os.dup2(kept, fd)
        os.close(kept)


class Torture:
    """One run: sessions in `repository`, and the chance that decides what becomes of them."""

    def __init__(self, repository: Repository, watch: Watch, seed: int) -> None:
        self.repository = repository
        self.watch = watch
        self.chance = random.Random(seed)
        self.seed = seed
        self.steps: list[Step] = []
        self.counted: dict[str, int] = {}
        self._files = Files()
        self._fresh = 0
        self.declared: dict[str, str] = {}
        """The block of each declared session."""

    @property
    def state(self) -> str:
        """The project's state directory, which may not be there yet."""
        return Project(self.repository.root).directory

    # --- running ---------------------------------------------------------------------------------

    def begin(self, names: Sequence[str] = SESSIONS) -> None:
        """Makes sessions, by default the five."""
        self.declared = dict.fromkeys(names, "")
        self._declare()
        self._run(("trust", "--yes"))
        self.command("apply", "--yes")
        for name in names:
            self.inside(name, "echo begin > work; echo mine > ~/mine; echo secret > .env")

    def go_on(self) -> None:
        """One operation, and everything that must hold after it."""
        name, operation = self.chance.choice(self._operations())
        self.counted[name] = self.counted.get(name, 0) + 1
        operation()

    def _operations(self) -> Sequence[tuple[str, Callable[[], None]]]:
        agent, keep, take, change = 5, 2, 2, 1
        of: list[tuple[int, Callable[[], None]]] = [
            (agent * 2, self.work),
            (keep * 2, self.snapshot),
            (take * 2, self.restore),
            (take, self.restore_one_part),
            (change, self.fork),
            (change, self.discard),
            (take * 2, self.undo),
            (take, self.prune),
            (change, self.rename),
            (change, self.stop),
            (change, self.start),
            (change, self.kill_a_sandbox),
            (take * 2, self.apply),
            (change, self.fetch),
            (change, self.move_on),
            (change, self.forget),
            (change, self.inspect),
        ]
        return [(do.__name__, do) for weight, do in of for _ in range(weight)]

    def command(self, *words: str, expected: Sequence[int] = (0,), may_die: bool = False) -> Said:
        """Runs sessionctl, which may be killed at some moment of it; then looks whether anything is lost."""
        before = self.held()
        at = self.chance.randrange(1, _MOMENTS) if may_die and self.chance.random() < _KILLED else 0
        said = self._killed(at, words) if at else self._run(words)
        self._done(words, said, at)
        if said.code == -signal.SIGKILL:
            # Whoever comes next finishes what was begun.
            self._done(("apply", "--yes"), self._run(("apply", "--yes")))
            expected = (0, 3)
        if self.steps[-1].said.code not in expected:
            raise Lost(self._told(f"it ended with {self.steps[-1].said.code}"))
        self.require(before, self._renamed(words), touched=words[1] if words[0] == "exec" else "")
        return said

    def _done(self, words: Sequence[str], said: Said, at: int = 0) -> None:
        self.steps.append(Step(len(self.steps), tuple(words), at, said))

    def _run(self, words: Sequence[str]) -> Said:
        """In this process: a start of Python less, a hundred times a minute."""
        with contextlib.chdir(self.repository.root), _captured(1) as out, _captured(2) as err:
            code = cli.main(words)
        return Said(code, out.getvalue(), err.getvalue())

    def _killed(self, moment: int, words: Sequence[str]) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "tests.killed", str(moment), *words],
            cwd=self.repository.root,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path))},
            timeout=120,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def inside(self, name: str, script: str) -> None:
        """What an agent does; a part of it may fail."""
        self.command("exec", name, "--", "sh", "-c", script, expected=range(256))

    # --- what must hold --------------------------------------------------------------------------

    def held(self) -> Held:
        return Held(frozenset(self._in_place()), frozenset(self._kept()), self._commits())

    def _in_place(self) -> Iterator[Item]:
        above = Path(self.state) / "sessions"
        for name in sorted(os.listdir(above)) if above.is_dir() else []:
            for part in ("work", "home"):
                for path, content in self._files.contents(str(above / name / part)).items():
                    yield from _item(name, part, path, content)

    def _kept(self) -> Iterator[Item]:
        """What is in snapshots that a person can bring back: those that are listed, and those in the trash."""
        undoable = {each.id for each in snapshots.operations(self.state) if each.undone is None}
        for each in snapshots.all_of(self.state):
            if each.corrupt or (each.discarded and each.discarded not in undoable):
                continue
            for part in each.parts:
                where = os.path.join(snapshots.place(self.state, each.session, each.id), part)
                for path, content in self._files.contents(where).items():
                    yield from _item(each.session, part, path, content)

    def _commits(self) -> frozenset[str]:
        """All commits that a ref of the host repository leads to, or led to as its reflog says, without our pins."""
        pins = "refs/sessionctl/*/base/*"
        return frozenset(git(self.repository.root, "rev-list", f"--exclude={pins}", "--all", "--reflog").split())

    def _renamed(self, words: Sequence[str]) -> dict[str, str]:
        """What sessions may be called after a command."""
        if words[0] == "rename":
            return {words[1]: words[2]}
        if words[0] == "undo":
            for each in snapshots.operations(self.state):
                if each.id == words[-1] and each.verb == "rename":
                    return {each.sessions[0]: each.data["old"]}
        return {}

    def require(self, before: Held, renamed: Mapping[str, str] = MappingProxyType({}), touched: str = "") -> None:
        """Nothing of `before` is gone, but what the agent in session `touched` may have removed there."""
        after = self.held()
        there = after.in_place | after.kept
        removed = {item for item in before.in_place if item.session == touched}
        missing = [
            item
            for item in before.kept | before.in_place - removed
            if item not in there and item._replace(session=renamed.get(item.session, item.session)) not in there
        ]
        if missing:
            shown = "\n".join(map(str, sorted(missing)[:10]))
            raise Lost(self._told(f"{len(missing)} lost:\n{shown}"))
        if gone := before.commits - after.commits:
            raise Lost(self._told(f"commits of the host repository that nothing leads to: {sorted(gone)[:10]}"))
        self._require_named()
        self._require_ground()
        self._require_worktrees()
        if strays := self.watch.strays(self.repository):
            raise Lost(self._told(f"left behind: {strays}"))

    def _require_named(self) -> None:
        """All that was put aside, or into the trash, comes back by a command that the log names."""
        listed = {each["id"] for each in self._run(("undo", "--list", "--json")).json["operations"]}
        said = {json.loads(line).get("undo") for line in self._run(("log", "--json")).out.splitlines()}
        for each in snapshots.all_of(self.state):
            if each.corrupt:
                raise Lost(self._told(f"snapshot {each.id} of {each.session}: {each.corrupt}"))
            operation = each.discarded or each.operation
            if not operation and each.by == "person":
                continue
            if operation not in listed:
                raise Lost(self._told(f"{each.id} of {each.session} belongs to no operation"))
            if f"sessionctl undo {operation}" not in said:
                raise Lost(self._told(f"the log does not say: sessionctl undo {operation}"))

    def _require_ground(self) -> None:
        """What sessions and snapshots stand on is there, whole, and the host repository keeps its commit."""
        directory = Path(self.state)
        ground = {layer for each in snapshots.all_of(self.state) for layer in each.lower}
        for name in self.there():
            standing = workspace.load_standing(self.state, name)
            if standing is not None and standing.recipe is not None:
                ground.add(f"bases/{standing.recipe.key}/tree")
        for layer in ground:
            place = (directory / layer).parent
            if not (place / "mark").exists() or not (place / "tree").is_dir():
                raise Lost(self._told(f"{layer} is gone, and something stands on it"))
            for repository, ref in json.loads((place / "mark").read_text())["pins"]:
                git(Path(repository), "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")

    def _require_worktrees(self) -> None:
        """Git on the host has a worktree for each session that is one, and for no other."""
        if (Path(self.state) / "unfinished").exists():
            return  # the next command finishes what a killed one has left
        wanted = set()
        for name in self.there():
            standing = workspace.load_standing(self.state, name)
            if standing is not None and standing.mode == "worktree" and os.path.isdir(standing.workspace.upper):
                wanted.add(standing.workspace.upper)
        listed = git(self.repository.root, "worktree", "list", "--porcelain").split("\n\n")
        there = {each.splitlines()[0].removeprefix("worktree ") for each in listed if "\nlocked session " in each}
        if there != wanted:
            raise Lost(self._told(f"git's worktrees are {sorted(there)}, and not {sorted(wanted)}"))

    def _told(self, what: str) -> str:
        shown = "\n".join(
            f"{step.number:4} {' '.join(step.words)}{f'  (killed at {step.killed_at})' if step.killed_at else ''}"
            f" -> {step.said.code}"
            for step in self.steps[-12:]
        )
        last = self.steps[-1].said if self.steps else Said(0, "", "")
        return f"{what}\nseed {self.seed}, step {len(self.steps)}:\n{shown}\n{last.out}{last.err}"

    def _same(self, session: str, part: str, wanted: dict[str, str]) -> None:
        """Requires that `part` of a session is what is `wanted`, byte for byte."""
        there = self._files.contents(str(Path(self.state) / "sessions" / session / part))
        differ = {path for path, _ in {*there.items()} ^ {*wanted.items()} if not _is_ours(part, path)}
        if differ:
            raise Lost(self._told(f"{part} of {session} is not what it was: {sorted(differ)[:10]}"))

    # --- who is there ----------------------------------------------------------------------------

    def there(self) -> list[str]:
        """The sessions whose files are there."""
        above = Path(self.state) / "sessions"
        return sorted(name for name in os.listdir(above) if (above / name / "workspace.json").exists())

    def _one(self) -> str:
        there = self.there()
        if not there:
            self.declared.update(dict.fromkeys(SESSIONS[:2], ""))
            self._declare()
            self.command("apply", "--yes")
            there = self.there()
        return self.chance.choice(there)

    def _new(self, letter: str) -> str:
        self._fresh += 1
        return f"{letter}{self._fresh}"

    def _snapshot_of(self, name: str | None = None) -> snapshots.Snapshot | None:
        """By chance, one that can be used. Ids have chance of their own, and no say in it: time has."""
        found = snapshots.all_of(self.state) if name is None else snapshots.of_session(self.state, name)
        usable = sorted((each for each in found if not each.corrupt and not each.discarded), key=lambda s: s.made_at)
        return self.chance.choice(usable) if usable else None

    # --- the agent -------------------------------------------------------------------------------

    def work(self) -> None:
        """An agent does something in its session, or does not get in because that is stopped."""
        number = self.chance.randrange(1 << 30)
        file = self.chance.choice(
            ("a.txt", "src/main.py", "deep/er/file", ".env", "x.log", "$HOME/talk", "naïve\tname")
        )
        scripts = (
            f'mkdir -p "$(dirname "{file}")"; echo {number} > "{file}"',
            f'mkdir -p "$(dirname "{file}")"; echo {number} >> "{file}"',
            f'rm -rf "{file}"',
            f'rm -rf "$(dirname "{file}")"/*r*',
            f"mkdir -p d{number % 5}/e; echo {number} > d{number % 5}/e/f; ln -sf e/f d{number % 5}/link",
            f"echo {number} > hard; rm -f other; ln hard other",
            f"echo {number} > locked{number % 3}; chmod 000 locked{number % 3}",
            f"mkdir -p shut{number % 3}; echo {number} > shut{number % 3}/in; chmod 000 shut{number % 3}",
            f"chmod 755 shut{number % 3}; mv shut{number % 3} moved{number}",
            f"echo {number} > c; git add -A; git commit -qm {number}",
            f"git checkout -q -b b{number}; git commit -q --allow-empty -m {number}",
            "git checkout -q main",
            f"echo {number} >> a.txt; git stash -q",
            "git stash pop -q",
            "git reset -q --hard HEAD~1",
            f"truncate -s {number % 5000000} hole; echo {number} >> hole",
            f"mkfifo pipe{number % 2}",
        )
        self.inside(self._one(), self.chance.choice(scripts))

    # --- keeping and bringing back ---------------------------------------------------------------

    def snapshot(self) -> None:
        self.command("snapshot", self._one(), "-m", str(len(self.steps)), may_die=True)

    def restore(self) -> None:
        """A session of which there is a snapshot, living or gone, is brought back to it whole."""
        chosen = self._snapshot_of()
        if chosen is None:
            return
        where = snapshots.place(self.state, chosen.session, chosen.id)
        wanted = {part: self._files.contents(os.path.join(where, part)) for part in ("work", "home")}
        code = self.command("restore", "--yes", chosen.session, chosen.id, expected=(0, 2), may_die=True).code
        if code == 0:
            for part in {"work", "home"} & chosen.parts.keys():
                self._same(chosen.session, part, wanted[part])

    def restore_one_part(self) -> None:
        name = self._one()
        chosen = self._snapshot_of(name)
        if chosen is not None:
            only = self.chance.choice(("workspace", "agent", "sandbox"))
            self.command("restore", "--yes", "--only", only, name, chosen.id, expected=(0, 2), may_die=True)

    def fork(self) -> None:
        if len(self.there()) >= _MOST:
            return
        name = self._one()
        chosen = self._snapshot_of(name) if self.chance.random() < 0.5 else None
        words = ("--from", chosen.id) if chosen is not None else ()
        self.command("fork", *words, name, self._new("f"), expected=(0, 2), may_die=True)

    def discard(self) -> None:
        chosen = self._snapshot_of()
        if chosen is not None:
            self.command("discard", chosen.session, chosen.id, may_die=True)

    def undo(self) -> None:
        """Some operation is undone, mostly the last one; what it had put aside is there again."""
        state = self.state
        found = [each for each in snapshots.operations(state) if each.undone is None]
        if not found:
            return
        chosen = found[-1] if self.chance.random() < 0.7 else self.chance.choice(found)
        rescues = {
            (each.session, part): self._files.contents(
                os.path.join(snapshots.place(state, each.session, each.id), part)
            )
            for each in snapshots.all_of(state)
            for part in each.parts
            if each.operation == chosen.id and each.by == "rescue" and part != "root"
        }
        said = self.command("undo", chosen.id, expected=(0, 1, 2), may_die=True)
        if said.code == 0 and chosen.verb != "rename":
            for (name, part), wanted in rescues.items():
                self._same(name, part, wanted)
        if said.code == 1 and "not brought back" not in said.out:
            raise Lost(self._told("it does not say what was not brought back"))
        self._read_manifest()

    # --- changing --------------------------------------------------------------------------------

    def prune(self) -> None:
        """Sessions lose their blocks; one has brought its work home, so that it may go."""
        name = self._one()
        if self.chance.random() < 0.8:
            self.command("start", name, expected=(0, 1, 2, 3))
            self.inside(name, "chmod -R u+rwX .; git stash clear; git add -A -f; git commit -qm all; rm -rf ~/*")
            self.command("fetch", name, expected=(0, 1, 2), may_die=True)
        self.declared.pop(name, None)
        self._declare()
        self.command("prune", "--yes", "--idle", "0s", expected=(0, 1, 3), may_die=True)

    def apply(self) -> None:
        """The manifest is another one: sessions come, change and are not declared any more."""
        for name in {*self.declared, *SESSIONS}:
            if self.chance.random() < 0.25:
                self.declared.pop(name, None)
            elif name in self.declared or self.chance.random() < 0.5:
                self.declared[name] = self._block()
        self._declare()
        self.command("apply", "--yes", expected=(0, 3), may_die=True)

    def _block(self) -> str:
        chance = self.chance
        lines = [
            f'state = "{chance.choice(["running", "running", "running", "stopped"])}"',
            f'env = {{ A = "{chance.randrange(3)}" }}',
            f'setup = ["echo {chance.randrange(3)} > setup.log"]',
        ]
        if chance.random() < 0.5:
            lines.append(f'files = [{{ path = "~/.injected", content = "{chance.randrange(3)}" }}]')
        if chance.random() < 0.1:
            lines.append("protect = true")
        return "\n".join(lines) + "\n"

    def _declare(self) -> None:
        blocks = []
        for name, block in sorted(self.declared.items()):
            mode = f"workspace = {{ {_MODES[name]} }}\n" if name in _MODES else ""
            blocks.append(f"[sessions.{name}]\n{block}{mode}")
        self.repository.declare("".join(blocks))

    def _read_manifest(self) -> None:
        """A rename has changed the manifest."""
        import tomllib

        there = tomllib.loads((self.repository.root / "sessions.toml").read_text()).get("sessions", {})
        if there.keys() != self.declared.keys():
            self.declared = {name: self.declared.get(name, "") for name in there}
            self._declare()

    def rename(self) -> None:
        name = self._one()
        if name in _MODES:  # or its block would have to remember its mode
            return
        self.command("rename", name, self._new("r"), expected=(0, 2), may_die=True)
        self._read_manifest()

    def stop(self) -> None:
        self.command("stop", self._one(), expected=(0, 2), may_die=True)

    def start(self) -> None:
        self.command("start", self._one(), expected=(0, 2, 5), may_die=True)

    def fetch(self) -> None:
        self.command("fetch", self._one(), expected=(0, 1, 2), may_die=True)

    def kill_a_sandbox(self) -> None:
        """The first process of a sandbox is killed, as by a machine that has no memory left."""
        before = self.held()
        running = {name: pid for pid, (name, _) in sandboxes(self.repository).items()}
        if running:
            name = self.chance.choice(sorted(running))
            os.kill(running[name], signal.SIGKILL)
            until = time.monotonic() + 30
            while running[name] in descendants() and time.monotonic() < until:
                time.sleep(0.005)
            self._done(("kill -9", name), Said(0, "", ""))
            self.require(before)

    # --- the user's own repository ---------------------------------------------------------------

    def move_on(self) -> None:
        """The user commits; what sessions stand on is not what new ones do."""
        root = self.repository.root
        (root / f"user{len(self.steps)}").write_text("user\n")
        git(root, "add", "-A", ".", ":!sessions.toml")
        git(root, "commit", "-qm", "user")
        self._done(("git commit",), Said(0, "", ""))

    def forget(self) -> None:
        """The user goes back, removes the branches of agents, and has git collect what nothing leads to."""
        before = self.held()
        root = self.repository.root
        git(root, "reset", "-q", "--hard", git(root, "rev-list", "--max-parents=0", "HEAD"))
        for line in git(
            root, "for-each-ref", "--format=%(refname:short) %(worktreepath)", "refs/heads/agents"
        ).splitlines():
            branch, _, checked_out = line.partition(" ")
            if not checked_out:
                git(root, "branch", "-qD", branch)
        git(root, "reflog", "expire", "--expire=now", "--all")
        git(root, "gc", "-q", "--prune=now")
        self._done(("git gc --prune=now",), Said(0, "", ""))
        self.require(before._replace(commits=frozenset()))

    def inspect(self) -> None:
        """Every object that a session's refs, index and stashes lead to is there."""
        name = self._one()
        if _MODES.get(name) == 'mode = "empty"' or (Path(self.state) / "sessions" / name / "work/tree").exists():
            return
        self.command("start", name, expected=(0, 2))
        said = self.command("exec", name, "--", "git", "fsck", "--connectivity-only", expected=range(256))
        if "not a git repository" not in said.err and said.code:
            raise Lost(self._told(f"git fsck says {said.code}"))


def _item(session: str, part: str, path: str, content: str) -> Iterator[Item]:
    if not _is_ours(part, path):
        yield Item(session, part, path, content)


def _is_ours(part: str, path: str) -> bool:
    return part + path == "work/tree/.git" or path.startswith("/scratch/") or any(each in part + path for each in _OURS)


def run(repository: Repository, seed: int, operations: int, *, until: float = float("inf")) -> Torture:
    """`operations` of the run that `seed` decides, or what time allows of them. `Lost` when a promise is broken."""
    with Watch() as watch:
        made = Torture(repository, watch, seed)
        made.begin()
        while operations and time.monotonic() < until:
            made.go_on()
            operations -= 1
        end(repository)
        return made


def end(repository: Repository) -> None:
    """Ends every sandbox, so that nothing of the run is left."""
    backend = Backend(Context("torture", repository.state))
    for observed in backend.observe():
        if observed.id:
            backend.stop(observed)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="See that nothing is ever lost.")
    parser.add_argument("--seed", type=int, help="which run (default: another one each time)")
    parser.add_argument("--operations", type=int, default=300, help="how many, in each run (default: 300)")
    parser.add_argument("--minutes", type=float, help="new runs for this long")
    args = parser.parse_args(argv)
    until = time.monotonic() + args.minutes * 60 if args.minutes else float("inf")
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 31)
    while True:
        began = time.monotonic()
        print(f"seed {seed}: ", end="", flush=True)
        with lab(lambda doing: None) as place:
            try:
                made = run(Repository(place.place / "demo"), seed, args.operations, until=until)
            except Lost as lost:
                print(f"{lost}\nagain: python -m tests.torture --seed {seed} --operations {args.operations}")
                return 1
        killed = sum(step.said.code == -signal.SIGKILL for step in made.steps)
        counted = ", ".join(f"{count} {name}" for name, count in sorted(made.counted.items()))
        print(
            f"nothing lost; {len(made.steps)} commands, {killed} killed, {time.monotonic() - began:.0f} s ({counted})"
        )
        seed += 1
        if args.minutes is None or time.monotonic() > until:
            return 0


if __name__ == "__main__":
    sys.exit(main())
