"""The manifest as a file: made, edited, judged before it is written, and explained."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sessionctl import git
from sessionctl.declared import FILE
from sessionctl.errors import UsageError
from sessionctl.model import require_name

if TYPE_CHECKING:
    from sessionctl.app.sources import Sources


def init(sources: Sources) -> str:
    """Writes a first manifest, with one session; its path. `UsageError` when it is there, or cannot be written."""
    from sessionctl import manifest

    repository = sources.repository
    if sources.named is None and repository.bare:
        raise UsageError("a bare repository has no place for a sessions.toml", hint="name one with --file")
    path = sources.named or os.path.join(repository.root, FILE)
    branch, _ = git.host_head(repository, git.host_refs(repository).tips)
    try:
        with open(path, "x", encoding="utf-8") as opened:
            opened.write(manifest.template(branch))
    except FileExistsError:
        raise UsageError(f"{path} is there already", hint="edit it, or see `sessionctl plan`") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    return path


def add(sources: Sources, name: str, block: Mapping[str, Any]) -> tuple[str, bool]:
    """Declares session `name` in the manifest: its path, and whether the session is there already."""
    from sessionctl import edit, identity
    from sessionctl.app.changing import changing

    if require_name(name) in sources.declared:
        raise UsageError(f"{name} is declared already", hint=f"see `sessionctl show {name}`")
    record = sources.store.record(name)
    known = record is not None and not record.corrupt
    before = edit.block_of(record.last.data) if record is not None and known else {}
    merged = {**before, **block}
    if "workspace" in before and "workspace" in block:
        merged["workspace"] = {**before["workspace"], **block["workspace"]}
    path = os.path.realpath(sources.file)
    with changing(sources):
        text = edit.added(content(path), name, merged)
        require_valid(sources, text)
        identity.replace_manifest(path, text)
    sources.forget_declared()
    return path, known


def resolved(sources: Sources, name: str) -> dict[str, tuple[Any, str]]:
    """Every field of a declared session: its value, and where that came from."""
    from sessionctl import manifest
    from sessionctl.app.looking import unknown
    from sessionctl.model import flat

    found = manifest.resolve(
        sources.file, sources.repository.root, settings=sources.chosen(), overrides=sources.overrides
    )
    if require_name(name) not in found.declared:
        raise unknown(name, found.declared)
    values = flat(found.declared[name].data)
    return {path: (value, found.origins[name].get(path, "built-in")) for path, value in sorted(values.items())}


def content(path: str) -> str:
    """The text of the manifest at `path`, with the line ends that it has."""
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


def require_valid(sources: Sources, text: str) -> None:
    """`ManifestError`, before anything is done, when the manifest would be wrong with `text` in it."""
    from sessionctl import manifest

    manifest.resolve(
        sources.file,
        sources.repository.root,
        settings=sources.chosen(),
        overrides=sources.overrides,
        text=text.replace("\r\n", "\n"),
    )
