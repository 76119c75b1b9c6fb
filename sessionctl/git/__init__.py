"""Git, on the two sides of the wall.

The user's repository is read as files (`finding`, `host`) or by git's plumbing (`resolving`, `fetching`), through
one `gate` with a scrubbed environment; `configured` has what the user's configuration says, `worktrees` which of its
worktrees are sessions. A session's repository is hostile: its HEAD and refs are read as files (`heads`), and whatever
needs git runs inside an inspection sandbox (`inspecting`, `status`). `names` tells what is a name in either.

This package may not run git on the host with a git directory or work tree that an agent can write, make or change
workspaces, or print.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sessionctl.git.finding import Repository, find_repository
from sessionctl.git.gate import run
from sessionctl.git.heads import read_head, read_ref, write_branch
from sessionctl.git.host import HostRefs, host_head, host_refs, host_state, under_way
from sessionctl.git.names import is_ref_name, printable, quoted

if TYPE_CHECKING:
    from sessionctl.git.configured import HooksDirectory, hooks_directory, identity, runs_what_it_finds
    from sessionctl.git.fetching import UPLOAD_PACK, Fetched, fetch, take_in
    from sessionctl.git.inspecting import BASE, OBJECTS, PRIVATE, TIPS, Inside, count, script
    from sessionctl.git.resolving import has_commit, host_count, resolve
    from sessionctl.git.status import blocking, full_status

_LATER = {
    "configured": ("HooksDirectory", "hooks_directory", "identity", "runs_what_it_finds"),
    "fetching": ("UPLOAD_PACK", "Fetched", "fetch", "take_in"),
    "inspecting": ("BASE", "OBJECTS", "PRIVATE", "TIPS", "Inside", "count", "script"),
    "resolving": ("has_commit", "host_count", "resolve"),
    "status": ("blocking", "full_status"),
}
"""The module of each name that most commands do without: imported when it is asked for."""

__all__ = [
    "BASE",
    "OBJECTS",
    "PRIVATE",
    "TIPS",
    "UPLOAD_PACK",
    "Fetched",
    "HooksDirectory",
    "HostRefs",
    "Inside",
    "Repository",
    "blocking",
    "count",
    "fetch",
    "find_repository",
    "full_status",
    "has_commit",
    "hooks_directory",
    "host_count",
    "host_head",
    "host_refs",
    "host_state",
    "identity",
    "is_ref_name",
    "printable",
    "quoted",
    "read_head",
    "read_ref",
    "resolve",
    "run",
    "runs_what_it_finds",
    "script",
    "take_in",
    "under_way",
    "write_branch",
]


def __getattr__(name: str) -> Any:
    for module, names in _LATER.items():
        if name in names:
            from importlib import import_module

            value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
