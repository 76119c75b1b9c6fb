"""Backends and agents by name: a module of ours, else an entry point of an installed package.

Nothing is imported before it is named, and only what is a name at all becomes part of a module's.
Entry points are looked up only when the name is none of ours: `importlib.metadata` reads every
installed package. May not know what a backend or an agent does.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib import import_module
from typing import Any, Literal

from sessionctl.errors import UsageError
from sessionctl.model import is_name

Kind = Literal["backends", "agents"]
DEFAULT_BACKEND = "bubblewrap"
"""The one that is asked where nothing names another."""

_ATTRIBUTE = {"backends": "Backend", "agents": "Agent"}
"""What the module of each kind must hold."""


def load(kind: Kind, name: str) -> Any:
    """What the module of that name holds as `Backend` or `Agent`.

    `UsageError` for an unknown name, and for one whose module cannot be imported or holds none.
    """
    if not is_name(name):
        raise _unknown(kind, name)
    target = f"sessionctl.{kind}.{name.replace('-', '_')}"
    try:
        try:
            module: Any = import_module(target)
        except ModuleNotFoundError as error:
            if error.name != target:
                raise
            module = _entry_points(kind)[name].load()
        return getattr(module, _ATTRIBUTE[kind])
    except Exception as error:
        # Importing runs the plugin's own code: whatever that raises, a person must hear which plugin it was.
        if name not in names(kind):
            raise _unknown(kind, name) from None
        raise UsageError(f"the {kind[:-1]} {name!r} cannot be loaded: {type(error).__name__}: {error}") from error


def require(kind: Kind, name: str) -> str:
    """`name` when there is such a backend or agent, else `UsageError` with the nearest one. Imports none."""
    if is_name(name) and (name in _built_in(kind) or name in _entry_points(kind)):
        return name
    raise _unknown(kind, name)


def names(kind: Kind) -> tuple[str, ...]:
    """Every name that `require` accepts, sorted."""
    return tuple(sorted({*_built_in(kind), *_entry_points(kind)}))


def _unknown(kind: Kind, name: str) -> UsageError:
    from difflib import get_close_matches

    known = names(kind)
    near = get_close_matches(name[:64], known, n=1)
    return UsageError(
        f"{name[:64]!a} is not a known {kind[:-1]}",
        hint=f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}",
    )


@lru_cache
def _built_in(kind: Kind) -> frozenset[str]:
    """What our own folder of that kind has: a module each, and those it only lists as `NAMES`."""
    from pkgutil import iter_modules

    folder = import_module(f"sessionctl.{kind}")
    modules = (module.name for module in iter_modules(folder.__path__))
    return frozenset(name.replace("_", "-") for name in modules if not name.startswith("_")) | {
        *getattr(folder, "NAMES", ())
    }


def _entry_points(kind: Kind) -> dict[str, Any]:
    return _installed(kind, tuple(sys.path))


@lru_cache
def _installed(kind: Kind, path: tuple[str, ...]) -> dict[str, Any]:
    """The entry points that packages on `path`, which is `sys.path`, have: looked up once for a thousand sessions."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=f"sessionctl.{kind}") if is_name(point.name)}
