"""Declare, plan and apply isolated sessions of AI coding agents on a git repository.

What a program imports is here: `Project`, and the values and errors it answers with. docs/python.md describes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sessionctl.app import Project as Project
    from sessionctl.app.looking import Session as Session
    from sessionctl.app.using import Run as Run
    from sessionctl.diff import Change as Change
    from sessionctl.diff import FieldChange as FieldChange
    from sessionctl.doctor import Check as Check
    from sessionctl.errors import BackendError as BackendError
    from sessionctl.errors import CommandError as CommandError
    from sessionctl.errors import ConflictError as ConflictError
    from sessionctl.errors import GitError as GitError
    from sessionctl.errors import ImageError as ImageError
    from sessionctl.errors import LockedError as LockedError
    from sessionctl.errors import ManifestError as ManifestError
    from sessionctl.errors import Problem as Problem
    from sessionctl.errors import SessionctlError as SessionctlError
    from sessionctl.errors import StoreError as StoreError
    from sessionctl.errors import UntrustedError as UntrustedError
    from sessionctl.errors import UsageError as UsageError
    from sessionctl.executor import Outcome as Outcome
    from sessionctl.garbage import Garbage as Garbage
    from sessionctl.garbage import Use as Use
    from sessionctl.git.fetching import Fetched as Fetched
    from sessionctl.keeping import Undone as Undone
    from sessionctl.manifest import schema as schema
    from sessionctl.model import Declaration as Declaration
    from sessionctl.model import GitState as GitState
    from sessionctl.model import Observed as Observed
    from sessionctl.model import Record as Record
    from sessionctl.plan import Action as Action
    from sessionctl.plan import Lane as Lane
    from sessionctl.plan import Plan as Plan
    from sessionctl.plan import Policy as Policy
    from sessionctl.render.plans import outcomes_text as outcomes_text
    from sessionctl.render.plans import plan_text as plan_text
    from sessionctl.snapshots import Operation as Operation
    from sessionctl.snapshots import Snapshot as Snapshot
    from sessionctl.store.journal import Entry as Entry
    from sessionctl.trust import Taking as Taking

__version__ = "0.1.0"

_HOMES = {
    "app": ("Project",),
    "app.looking": ("Session",),
    "app.using": ("Run",),
    "diff": ("Change", "FieldChange"),
    "doctor": ("Check",),
    "errors": (
        "BackendError",
        "CommandError",
        "ConflictError",
        "GitError",
        "ImageError",
        "LockedError",
        "ManifestError",
        "Problem",
        "SessionctlError",
        "StoreError",
        "UntrustedError",
        "UsageError",
    ),
    "executor": ("Outcome",),
    "garbage": ("Garbage", "Use"),
    "git.fetching": ("Fetched",),
    "keeping": ("Undone",),
    "manifest": ("schema",),
    "model": ("Declaration", "GitState", "Observed", "Record"),
    "plan": ("Action", "Lane", "Plan", "Policy"),
    "render.plans": ("outcomes_text", "plan_text"),
    "snapshots": ("Operation", "Snapshot"),
    "store.journal": ("Entry",),
    "trust": ("Taking",),
}
"""The module of each name. Imported when asked for: `import sessionctl` is on the way of every command line."""

__all__ = ["__version__", *(name for names in _HOMES.values() for name in names)]  # noqa: PLE0604  (strings, all)


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"sessionctl.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
