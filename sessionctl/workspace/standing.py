"""What a session's work stands on, kept beside the work where no sandbox can write. Reads and writes that file only."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

from sessionctl import beneath
from sessionctl.beneath import StrPath
from sessionctl.errors import GitError
from sessionctl.model import APART, WORKSPACE, Workspace, require_name

Owner = tuple[int, int] | None
"""The uid and gid that what a sandbox may write must belong to; None: our own."""
Progress = Callable[[str], None]
"""Is told, for people, what takes long."""


class Recipe(NamedTuple):
    """All that a base layer is made of. The same recipe gives the same layer."""

    commit: str
    history: str
    submodules: bool
    lfs: bool
    identity: tuple[str, str]
    """Name and e-mail address that commits are made with inside; empty: none."""

    @property
    def key(self) -> str:
        """What the layer's directory is called; the 1 is the version of how layers are made."""
        return hashlib.sha256(json.dumps([1, *self]).encode()).hexdigest()[:24]


class Standing(NamedTuple):
    """What a session's work stands on, as its ``workspace.json`` says."""

    mode: str
    recipe: Recipe | None
    """None where there is no git."""
    workspace: Workspace
    included: tuple[str, ...]
    """Untracked files of the user that were copied in; they are not copied twice."""
    project: str = ""
    """The project that the mark of its session directory names; empty when it has none."""

    def data(self, directory: StrPath) -> dict[str, Any]:
        """The JSON form; `from_data` is its inverse. The state directory `directory` may be moved."""
        return {**self._asdict(), "workspace": self.workspace.data(os.fspath(directory))}

    @classmethod
    def from_data(cls, data: Mapping[str, Any], directory: StrPath) -> Self:
        """`ValueError`, `KeyError`, `TypeError` or `IndexError` when that is no standing."""
        made_of = data["recipe"]
        recipe = None
        if made_of is not None:
            commit, history, submodules, lfs, (who, address) = made_of
            recipe = Recipe(commit, history, submodules, lfs, (who, address))
        stack = Workspace.from_data(data["workspace"], os.fspath(directory))
        return cls(str(data["mode"]), recipe, stack, tuple(data["included"]), str(data.get("project", "")))

    def of(self, directory: StrPath, name: str) -> Self:
        """What the same work stands on when it is session `name`'s."""
        sessions = f"{os.fspath(directory)}/sessions/"

        def own(path: str) -> str:
            if not path.startswith(sessions):
                return path
            return f"{sessions}{require_name(name)}/{path.removeprefix(sessions).partition('/')[2]}"

        return self._replace(workspace=self.workspace.moved(own))


def load_standing(directory: StrPath, name: str) -> Standing | None:
    """What the work of session `name` stands on; None when it has no work. `GitError` when it cannot be told."""
    file = os.path.join(directory, "sessions", require_name(name), "workspace.json")
    try:
        with open(file, "rb") as opened:
            return Standing.from_data(json.load(opened), directory)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise GitError(
            f"{file} cannot be read: {error}", hint="its files are untouched; restore or remove it"
        ) from error


def save_standing(directory: StrPath, name: str, standing: Standing) -> None:
    """Writes down what the work of session `name` stands on."""
    content = json.dumps(standing.data(directory)).encode()
    beneath.publish(os.path.join(directory, "sessions", name, "workspace.json"), content)


def layers(workspace: Workspace) -> tuple[str, ...]:
    """The directories of `workspace`, top first, as `beneath` and `git.read_head` read them."""
    return (*written(workspace), *reversed(workspace.lower))


def written(workspace: Workspace) -> tuple[str, ...]:
    """The directories that take what is written inside: the parent of a git directory that lies apart, the upper."""
    places = (f"{WORKSPACE}/.git", APART)
    apart = (mount.source for mount in workspace.mounts if mount.path in places and mount.writable)
    return (*(os.path.dirname(source) for source in apart), workspace.upper)


def fingerprint(*uppers: str, limit: int = 20_000) -> str:
    """Changes when anything in `uppers` does; opaque. Empty: not looked, there are more than `limit` entries."""
    seen = hashlib.sha256()
    try:
        for number, entry in enumerate(entry for upper in uppers for entry in beneath.walk(upper)):
            if number >= limit:
                return ""
            seen.update(repr(entry).encode("utf-8", "surrogatepass"))
    except OSError:
        return ""
    return seen.hexdigest()[:32]
