"""What is judged of a session as a whole, and of sessions together. Pure: each function yields what is wrong.

A layer may say for many sessions what means nothing for some. Said beside what takes its meaning, it is
refused; said elsewhere, it is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sessionctl import images
from sessionctl.errors import Problem
from sessionctl.manifest.layers import BUILT_IN, Layer, Rank, Value
from sessionctl.manifest.rules import is_below, is_branch
from sessionctl.manifest.wording import quoted
from sessionctl.model import HAS_BRANCH, HOME, MountSpec, SessionSpec, kind_of

MOST_SESSIONS = 10_000
ENV_BYTES = 96 * 1024
"""Of all variables of a session together: the kernel's room for arguments is shared with the command."""

MEANINGLESS: Mapping[str, tuple[str, ...]] = {
    "clone": ("session_dir",),
    "visible": ("submodules",),
    "worktree": ("submodules", "visible"),
    "overlay": ("base", "include", "submodules", "visible", "session_dir"),
    "bind": ("branch", "base", "include", "history", "submodules", "lfs", "visible", "session_dir"),
    "empty": ("branch", "base", "include", "history", "submodules", "lfs", "visible", "session_dir"),
}
"""Per kind of workspace (`model.kind_of`) the keys of its table that say nothing there."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "mounts": ("ro", "rw"),
    "env": ("from_env", "from_file"),
    "files": ("outside",),
}
"""What a prohibition may say of a field that has many entries: any entry of that kind."""


# --- what means nothing ------------------------------------------------------------------------


def meaningless(name: str, values: Layer) -> Iterator[Problem]:
    """What the session `name` says beside a workspace in which it has no meaning."""
    kind, decides = _workspace(values)
    said = {"visible": "visible = true", "clone": "visible = false"}.get(kind, f"mode {kind}")
    for key in MEANINGLESS[kind]:
        given = values[f"workspace.{key}"]
        if given.source.rank != Rank.BUILT_IN and given.source.rank >= decides.source.rank:
            yield given.problem(f"has no meaning with {said}, which {name} has")


def without_image(name: str, values: Layer) -> Iterator[Problem]:
    """The same of programs that would be brought into an image, and there is none."""
    given, image = values["image_extra"], values["image"]
    # Defaults are for those that have one.
    if given.value and image.value == images.HOST and given.source.rank >= max(image.source.rank, Rank.BLOCK):
        yield given.problem(f"has no meaning without an image, and {name} has none: it sees the host's programs")


def meaningful(values: Layer) -> Layer:
    """`values` with the built-in ones for all that has no meaning."""
    kind, _ = _workspace(values)
    dropped = [f"workspace.{key}" for key in MEANINGLESS[kind]]
    if values["image"].value == images.HOST and values["image_extra"].value:
        dropped.append("image_extra")
    found = {**values, **{path: BUILT_IN[path] for path in dropped}}
    if kind not in HAS_BRANCH:
        found["workspace.branch"] = BUILT_IN["workspace.branch"]._replace(value="")
    return found


def _workspace(values: Layer) -> tuple[str, Value]:
    """The kind of workspace that a session has, and which value decides that."""
    mode, visible = values["workspace.mode"], values["workspace.visible"]
    kind = kind_of({"mode": mode.value, "visible": visible.value and mode.value == "clone"})
    return kind, visible if kind == "visible" else mode


# --- one session -------------------------------------------------------------------------------


def too_large(values: Layer) -> Iterator[Problem]:
    """Finds variables that would leave a command no room."""
    sizes = {path: _length(value.value) for path, value in values.items() if path.startswith("env.")}
    total = sum(len(path) - 2 + size for path, size in sizes.items())
    if total > ENV_BYTES:
        largest = values[max(sizes, key=lambda path: sizes[path])]
        yield largest.problem(f"all variables together have {total} bytes; at most {ENV_BYTES} are possible")


def _length(variable: Any) -> int:
    return len(variable.encode()) if isinstance(variable, str) else 0


def miscounted(values: Layer) -> Iterator[Problem]:
    """What a session may not say when it is many."""
    branch, renamed = values["workspace.branch"], values["renamed_from"]
    if "count" not in values:
        return
    if branch.value and "{name}" not in branch.value:
        yield branch.problem("must hold {name}, because count is given")
    if renamed.value:
        yield renamed.problem("cannot be beside count")


def hidden(files: Value, mounts: Iterable[MountSpec]) -> Iterator[Problem]:
    """What is injected and would be hidden by what is mounted."""
    for number, table in enumerate(files.value):
        for mount in mounts:
            if is_below(f"{HOME}/{table.path[2:]}/", mount.path):
                message = f"{quoted(table.path)} would be hidden by what is mounted at {quoted(mount.path)}"
                yield files.problem(message, number, "path")


# --- all of them -------------------------------------------------------------------------------


def too_many(sessions: Iterable[Layer]) -> Iterator[Problem]:
    total = sum(values["count"].value if "count" in values else 1 for values in sessions)
    if total > MOST_SESSIONS:
        yield Problem("sessions", f"declares {total} sessions; at most {MOST_SESSIONS} are possible")


def bad_branch(branch: str, value: Value) -> Iterator[Problem]:
    """With a session's name in it, what was a branch can be too long for one."""
    if not is_branch(branch):
        yield value.problem(f"{quoted(branch)} is not a branch name that git accepts")


def clashing_branches(branches: Mapping[str, tuple[str, Value]]) -> Iterator[Problem]:
    """Git keeps a branch as a file: `a` and `a/b` cannot both exist in the repository they land in.

    `branches` says of each whose it is, and where that is said.
    """
    for branch, (name, value) in branches.items():
        for at, char in enumerate(branch):
            if char == "/" and branch[:at] in branches:
                owners = f"the branches of {branches[branch[:at]][0]} and {name}"
                both = f"{quoted(branch[:at])} and {quoted(branch)}"
                yield value.problem(f"git cannot have both {both}, {owners}")


def clashing_names(renamed: Mapping[str, Value], declared: Mapping[str, object]) -> Iterator[Problem]:
    """A session can have been called what no other one is called or was called."""
    was: dict[str, str] = {}
    for name, value in renamed.items():
        old = value.value
        if old and old in declared:
            yield value.problem(f"{old} is declared too, so {name} cannot be it")
        elif old and old in was:
            yield value.problem(f"both {was[old]} and {name} would be {old}")
        elif old:
            was[old] = name


# --- what the user forbids ---------------------------------------------------------------------


def forbidden(spec: SessionSpec, fields: Mapping[str, Any], entry: str) -> Iterator[str]:
    """The paths at which `spec`, whose fields are `fields` (`model.flat`), is what `entry`, ``PATH=VALUE``, forbids."""
    path, _, text = entry.partition("=")
    if path not in fields:
        yield from _of_kind(spec, path, text)
    elif text in _texts(fields[path]):
        yield path


def _of_kind(spec: SessionSpec, field: str, kind: str) -> Iterator[str]:
    """The paths of the entries of `field` that are of `kind`, one of `KINDS`."""
    if field == "mounts":
        yield from (f"mounts.{mount.path}" for mount in spec.mounts if mount.mode == kind)
    elif field == "env":
        yield from (f"env.{name}" for name, value in spec.env.items() if not isinstance(value, str) and kind in value)
    elif field == "files":
        yield from (f"files.{file.path}" for file in spec.files if file.outside)


def _texts(value: Any) -> list[str]:
    """`value` as a prohibition may name it: each element of a list, and booleans as TOML writes them."""
    if isinstance(value, list):
        return [str(item) for item in value]
    return [str(value).lower() if isinstance(value, bool) else str(value)]
