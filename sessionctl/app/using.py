"""Using one session: commands in it, its processes stopped and started, its commits fetched."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from sessionctl import git, process, secret, trust
from sessionctl.app import looking, remembering
from sessionctl.errors import UsageError
from sessionctl.model import LimitsSpec, Observed, require_name
from sessionctl.units import parse_duration

if TYPE_CHECKING:
    from sessionctl.app.sources import Sources

TAIL = 8192
"""Bytes of each stream of an exec that its event in the journal keeps."""
CAPTURE = 1 << 20
"""Bytes of each stream that `exec` returns."""


class Run(NamedTuple):
    """What became of one exec."""

    code: int
    """Exit code as a shell gives it: 128+n for signal n, 124 when time ran out."""
    duration: float
    """Seconds."""
    stdout: bytes
    """The last `CAPTURE` bytes."""
    stderr: bytes
    truncated: bool
    limit: str | None = None
    """``memory``, ``pids`` or ``wall`` when that limit of the session struck while it ran, as far as it is known."""

    @property
    def signal(self) -> int | None:
        """The signal that ended it, as far as an exit code can tell."""
        return self.code - 128 if self.code > 128 else None


# --- commands ----------------------------------------------------------------------------------


def run(
    sources: Sources,
    name: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    private: Collection[str],
    timeout: float | None,
    stdin: int | None,
    tty: bool,
    show: bool,
    keep_output: bool,
) -> Run:
    """Runs `argv` inside session `name` and records it; the parameters are those of `Project.exec`."""
    target, record = looking.sandbox(sources, name)
    if not argv:
        raise UsageError("no command to run", hint=f"say one after two dashes: sessionctl exec {name} -- bash")
    if target.status != "running":
        raise UsageError(f"{name} is stopped", hint=f"run `sessionctl start {name}`")
    assert target.made_of is not None
    trust.require_kept(sources.directory, name, target.made_of.data, but=env)
    declared = target.made_of.data["env"]
    variables = {**secret.found(declared, but=env), **env}
    secrets = [variables[each] for each in variables.keys() & {*secret.names(declared), *private}]
    backend = sources.backend(target.backend)
    remembering.note(sources, target, record, "head")
    command = backend.command(target, argv, env=variables, tty=tty)
    began, clock = sources.clock(), time.monotonic()
    limits = LimitsSpec.of(target.made_of.data)
    wall = parse_duration(limits.wall) if limits.wall else None
    least = min((seconds for seconds in (timeout, wall) if seconds is not None), default=None)
    # One longest secret more than is wanted: what the kept part begins in the middle of can be told then.
    keep = CAPTURE + secret.longest(secrets)
    before = backend.strikes(target)
    ended = process.relay(command.argv, env=command.env, stdin=stdin, timeout=least, keep=keep, show=show)
    duration = time.monotonic() - clock
    limit = _struck(before, backend.strikes(target), by_wall=ended.timed_out and least == wall)
    streams = (ended.stdout, ended.stderr)
    out, err = (secret.masked(s, secrets, skip=max(0, len(s) - CAPTURE)) for s in streams)
    truncated = ended.truncated or any(len(s) > CAPTURE for s in streams)
    done = Run(ended.code, duration, out, err, truncated, limit)
    with sources.store.writing():
        record = sources.store.record(name)
        state = remembering.look(sources, target, record, "changes")
        tails = {"stdout": _tail(done.stdout), "stderr": _tail(done.stderr)} if keep_output else {}
        sources.store.note(
            name,
            "exec",
            time=began,
            git=state,
            argv=[os.fsdecode(secret.masked(os.fsencode(word), secrets)) for word in argv],
            exit_code=done.code,
            duration_s=round(done.duration, 3),
            timed_out=ended.timed_out,
            limit=done.limit,
            **tails,
        )
        if record is not None and not record.corrupt:
            remembering.remember(sources, record, state, last_active=sources.clock())
    return done


def _struck(before: Mapping[str, int], after: Mapping[str, int], *, by_wall: bool) -> str | None:
    """The limit that struck a command: how often each did `before` and `after` it. Pure."""
    if by_wall:
        return "wall"
    return next((limit for limit in ("memory", "pids") if after.get(limit, 0) > before.get(limit, 0)), None)


def _tail(stream: bytes) -> str:
    return stream[-TAIL:].decode("utf-8", "backslashreplace")


# --- processes ---------------------------------------------------------------------------------


def start(sources: Sources, name: str) -> bool:
    """Starts the processes of a session again; whether it did not run already."""
    from sessionctl import keeping, workspace
    from sessionctl.app.changing import changing

    if not workspace.is_there(sources.directory, require_name(name)):
        looking.sandbox(sources, name)
    with changing(sources):
        keeping.revive(sources.site(), name)
        target, record = looking.sandbox(sources, name)
        if target.status == "running":
            return False
        _started(sources, target)
        remembering.note_by_hand(sources, target, record, "start", stopped_at=None)
        return True


def stop(sources: Sources, name: str) -> bool:
    """Ends all processes of a session, keeps its files; whether it ran."""
    from sessionctl.app.changing import changing

    looking.sandbox(sources, name)
    with changing(sources):
        target, record = looking.sandbox(sources, name)
        if target.status != "running":
            return False
        sources.backend(target.backend).stop(target)
        remembering.note_by_hand(sources, target, record, "stop", stopped_at=sources.clock())
        return True


@contextmanager
def running(sources: Sources, name: str) -> Iterator[None]:
    """While it is entered, session `name` runs; one that was stopped is stopped again."""
    from sessionctl.app.changing import changing

    if looking.sandbox(sources, name)[0].status == "running":
        yield
        return
    with changing(sources):
        target, _ = looking.sandbox(sources, name)
        if target.status == "running":
            yield
            return
        target = _started(sources, target)
        try:
            yield
        finally:
            sources.backend(target.backend).stop(target)


def _started(sources: Sources, target: Observed) -> Observed:
    if target.made_of is not None:
        trust.require_kept(sources.directory, target.session, target.made_of.data)
    return sources.backend(target.backend).start(target)


# --- commits -----------------------------------------------------------------------------------


def fetch(sources: Sources, name: str) -> git.Fetched:
    """Brings the session's commits into the host repository, and its branch along if that is a fast-forward."""
    target, record = looking.sandbox(sources, name)
    if target.workspace is None or not target.workspace.commit:
        raise UsageError(f"{name} has no git repository to fetch from")
    command = sources.backend(target.backend).command(target, git.UPLOAD_PACK, inspect=True)
    assert target.made_of is not None
    head = sources.reader.look(target, record, "head")
    worktree = None
    if target.made_of.data["workspace"]["mode"] == "worktree":
        from sessionctl.workspace.worktree import of_session

        worktree = of_session(sources.repository, sources.directory, name)
    fetched = git.fetch(
        sources.repository,
        sources.repository.project,
        name,
        command.argv,
        command.env,
        target.made_of.data["workspace"]["branch"],
        detached=head.branch is None and head.commit is not None,
        worktree=worktree,
    )
    # The copy of the base branch that a session begins with is not news.
    moved = tuple(each for each in fetched.moved if _is_news(each, fetched, target.workspace.commit))
    sources.forget_readings()
    with sources.store.writing():
        state = remembering.note(sources, target, record, "counts")
        fetched = fetched._replace(moved=moved)
        sources.store.note(name, "fetch", git=state, moved=list(moved), branch_moved=fetched.followed)
    return fetched


def _is_news(head: str, fetched: git.Fetched, base: str) -> bool:
    return head == fetched.branch or fetched.heads[head] != base
