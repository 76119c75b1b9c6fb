"""What people and programs read: plans, tables, progress, JSON. A module for each thing that is shown.

Turns values into text and asks nothing of the world but whether a stream is a terminal. All text that
an agent could have written passes `printable`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sessionctl.render.checks import checks_text as checks_text
    from sessionctl.render.events import LIMITS as LIMITS
    from sessionctl.render.events import event_data as event_data
    from sessionctl.render.events import event_text as event_text
    from sessionctl.render.events import output_data as output_data
    from sessionctl.render.events import output_lines as output_lines
    from sessionctl.render.files import copied_text as copied_text
    from sessionctl.render.files import difference_data as difference_data
    from sessionctl.render.files import patch_text as patch_text
    from sessionctl.render.files import stat_text as stat_text
    from sessionctl.render.plans import outcomes_text as outcomes_text
    from sessionctl.render.plans import plan_data as plan_data
    from sessionctl.render.plans import plan_text as plan_text
    from sessionctl.render.plans import takings_data as takings_data
    from sessionctl.render.plans import takings_text as takings_text
    from sessionctl.render.progress import Copying as Copying
    from sessionctl.render.progress import Progress as Progress
    from sessionctl.render.sessions import session_data as session_data
    from sessionctl.render.sessions import sessions_json as sessions_json
    from sessionctl.render.sessions import sessions_text as sessions_text
    from sessionctl.render.sessions import status_text as status_text
    from sessionctl.render.sessions import tree_text as tree_text
    from sessionctl.render.snapshots import operations_text as operations_text
    from sessionctl.render.snapshots import snapshot_data as snapshot_data
    from sessionctl.render.snapshots import snapshots_text as snapshots_text
    from sessionctl.render.states import git_data as git_data
    from sessionctl.render.storage import disk_data as disk_data
    from sessionctl.render.storage import disk_text as disk_text
    from sessionctl.render.storage import garbage_data as garbage_data
    from sessionctl.render.storage import garbage_text as garbage_text
    from sessionctl.render.storage import images_data as images_data
    from sessionctl.render.storage import images_text as images_text
    from sessionctl.render.text import PLAIN as PLAIN
    from sessionctl.render.text import Paint as Paint
    from sessionctl.render.text import as_json as as_json
    from sessionctl.render.text import moment as moment
    from sessionctl.render.text import plain as plain
    from sessionctl.render.text import printable as printable
    from sessionctl.render.text import safe_block as safe_block
    from sessionctl.render.text import table as table

_HOMES = {
    "checks": ("checks_text",),
    "events": (
        "LIMITS",
        "event_data",
        "event_text",
        "output_data",
        "output_lines",
    ),
    "files": (
        "copied_text",
        "difference_data",
        "patch_text",
        "stat_text",
    ),
    "plans": (
        "outcomes_text",
        "plan_data",
        "plan_text",
        "takings_data",
        "takings_text",
    ),
    "progress": (
        "Copying",
        "Progress",
    ),
    "sessions": (
        "session_data",
        "sessions_json",
        "sessions_text",
        "status_text",
        "tree_text",
    ),
    "snapshots": (
        "operations_text",
        "snapshot_data",
        "snapshots_text",
    ),
    "states": ("git_data",),
    "storage": (
        "disk_data",
        "disk_text",
        "garbage_data",
        "garbage_text",
        "images_data",
        "images_text",
    ),
    "text": (
        "PLAIN",
        "Paint",
        "as_json",
        "moment",
        "plain",
        "printable",
        "safe_block",
        "table",
    ),
}
"""The module of each name. Imported when asked for: no command shows all of it."""

__all__ = [name for names in _HOMES.values() for name in names]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"sessionctl.render.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
