"""Edits of a manifest's text, as its author would make them: comments, order and blanks stay.

Pure. A line is changed only where a session is named, and what came out is compared with what was wanted as TOML:
a text that is laid out otherwise is refused with the place, and not half edited.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sessionctl.errors import UsageError
from sessionctl.model import SessionSpec, WorkspaceSpec

if TYPE_CHECKING:
    from tomlkit.items import Item

_HEADER = r"^([ \t]*\[\[?[ \t]*(?:sessions|\"sessions\"|'sessions')[ \t]*\.[ \t]*)(?:{0}|\"{0}\"|'{0}')(?=[ \t]*[.\]])"


_NOT_DECLARED = ("name", "renamed_from", "image_digest", "image_outside", "image_extra_digest")
"""Keys of a declaration that a block does not have: what was found when it was resolved, and what it was called."""


def declares(text: str, name: str) -> bool:
    """Whether the valid manifest `text` has a block for `name`."""
    return name in tomllib.loads(text).get("sessions", {})


def renamed(text: str, old: str, new: str) -> str:
    """`text` with the block of session `old` as that of `new`. `UsageError` when that takes a person."""
    wanted = tomllib.loads(text)
    wanted["sessions"] = {new if name == old else name: block for name, block in wanted["sessions"].items()}
    found = re.sub(_HEADER.format(re.escape(old)), rf"\g<1>{new}", text, flags=re.M)
    return _require(
        found,
        wanted,
        f"the block of {old} cannot be renamed by a program",
        f'rename its key to {new} by hand, add renamed_from = "{old}" to it, and run: sessionctl apply',
    )


def added(text: str, name: str, block: Mapping[str, Any]) -> str:
    """`text` with a block for session `name` at its end; `block`: what JSON can hold but null. `UsageError`."""
    import tomlkit

    wanted = tomllib.loads(text)
    wanted["sessions"] = {**wanted.get("sessions", {}), name: dict(block)}
    lines = [f"[sessions.{name}]"]
    for key, value in block.items():
        line = tomlkit.document()
        line.add(key, _item(value))
        lines.append(tomlkit.dumps(line).rstrip("\n"))
    gap = "" if not text.strip() else "\n" if text.endswith("\n") else "\n\n"
    return _require(
        text + gap + "\n".join(lines) + "\n",
        wanted,
        f"a block for {name} cannot be added by a program",
        "add it by hand:  " + "  ".join(lines),
    )


def _item(value: Any) -> Item:
    """`value` on one line."""
    import tomlkit

    if isinstance(value, Mapping):
        table = tomlkit.inline_table()
        for key, inner in value.items():
            table.add(key, _item(inner))
        return table
    if isinstance(value, list):
        array = tomlkit.array()
        for inner in value:
            array.append(_item(inner))
        return array
    item: Item = tomlkit.item(value)
    return item


def block_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """The block that declares the session whose JSON form is `data`, where all defaults are the built-in ones."""
    plain = SessionSpec(name=data["name"], workspace=WorkspaceSpec(branch=f"agents/{data['name']}")).data()
    if data["workspace"]["mode"] == "empty":
        plain["workspace"]["branch"] = ""
    block: dict[str, Any] = {}
    for key, value in data.items():
        if key in ("workspace", "limits"):
            value = {inner: each for inner, each in value.items() if each != plain[key].get(inner)}
        elif key == "files":
            value = [_file(file) for file in value]
        if value != plain.get(key) and value not in ({}, []) and key not in _NOT_DECLARED:
            block[key] = value
    return block


def _file(data: Mapping[str, Any]) -> dict[str, str]:
    origin = {"source": data["source"]} if data["source"] else {"content": data["content"]}
    return {"path": data["path"], **origin, "mode": data["mode"]}


def _require(text: str, wanted: Mapping[str, Any], message: str, hint: str) -> str:
    try:
        if tomllib.loads(text) == wanted:
            return text
    except ValueError:
        pass
    raise UsageError(message, hint=hint)
