"""Declare, plan and apply isolated sessions of AI coding agents on a git repository.

The Python API is `Project`; see sessionctl.app.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sessionctl.app import Project as Project

__version__ = "0.1.0"
__all__ = ["Project", "__version__"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: `import sessionctl` is on the way to every answer of the command line.
    if name == "Project":
        from sessionctl.app import Project

        return Project
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
