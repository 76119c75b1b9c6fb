"""Small worlds for the tests of the pure core: declarations, sandboxes, records."""

from __future__ import annotations

from typing import Any, Literal

from sessionctl.model import (
    Declaration,
    FileSpec,
    GitState,
    MountSpec,
    Observed,
    Record,
    SessionSpec,
    Workspace,
    WorkspaceSpec,
)

NAME = "api"
NOW = 1_000_000.0
WORKSPACE = Workspace("/upper", ("/base",), "/scratch", commit="c" * 40)


def declare(**changes: Any) -> Declaration:
    """What is declared for the session `NAME`; `workspace` is given as a dict of what differs."""
    workspace = WorkspaceSpec(**{"branch": f"agents/{NAME}", **changes.pop("workspace", {})})
    return Declaration.of(SessionSpec(name=NAME, workspace=workspace, **changes))


A = declare()
STOPPED = declare(state="stopped")
ENV = declare(env={"A": "1"})
FILES = declare(files=(FileSpec("~/.x", "ab" * 32),))
BRANCH = declare(workspace={"branch": "other"})
INCLUDE = declare(workspace={"include": (".env",)})
IMAGE = declare(image="rootfs:/r")
SETUP = declare(setup=("make deps",))
BASE = declare(workspace={"base": "other"})
PROTECTED = declare(protect=True)
TTL = declare(ttl="7d")
DELETE = declare(on_prune="delete")
RESTS = declare(idle_stop="1h")
RESTS_IMAGE = declare(idle_stop="1h", image="rootfs:/r")
HOST = declare(network="host")
TAKES = declare(
    network="host",
    mounts=(MountSpec("/src", "/data"), MountSpec("/out", "/out", "rw")),
    env={"A": "1", "B": {"from_env": "C"}, "D": {"from_file": "/key"}},
    files=(FileSpec("~/.x", "ab" * 32, source="/x", outside=True), FileSpec("~/.y", "ab" * 32, source="/r/y")),
)
"""Everything that can be taken from the host, and what looks like it."""


def sandbox(
    made_of: Declaration | None,
    status: Literal["running", "stopped", "partial"] = "running",
    id: str = "1",
    **more: Any,
) -> Observed:
    """One sandbox of `NAME`; ids are a digit, so that plans are short to read."""
    workspace = WORKSPACE if made_of is not None else None
    return Observed(NAME, id, "bubblewrap", status, made_of, workspace, **more)


def record(last: Declaration, id: str = "1", **more: Any) -> Record:
    """A record that says that `last` was brought about in sandbox `id`."""
    setup = more.pop("setup", id if last.data["setup"] else "")
    return Record(NAME, id, "bubblewrap", last, base="c" * 40, setup=setup, created_at=1.0, last_active=1.0, **more)


CLEAN = GitState(branch="agents/api", commit="c" * 40, dirty=False, ahead=0, behind=0, unpushed=0)


def git(**changes: Any) -> GitState:
    """A clean state that everything is held of, but for `changes`."""
    return CLEAN._replace(**changes)
