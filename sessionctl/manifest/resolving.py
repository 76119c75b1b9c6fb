"""A manifest, resolved: what every session is, and where each value of it was said."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sessionctl.beneath import StrPath
from sessionctl.errors import ManifestError, Problem, UntrustedError, UsageError
from sessionctl.locate import Document, load_document, parse_document
from sessionctl.manifest import judging, layers
from sessionctl.manifest.declaring import Declarations, Origins
from sessionctl.manifest.host import Findings, Host
from sessionctl.manifest.layers import Layer, Rank, Source
from sessionctl.manifest.reading import MOST_PROBLEMS, read
from sessionctl.manifest.rules import is_below
from sessionctl.manifest.tables import ManifestFile
from sessionctl.model import Declaration

if TYPE_CHECKING:
    from sessionctl.settings import Settings


class Manifest(NamedTuple):
    """A manifest, resolved."""

    declared: dict[str, Declaration]
    """By name, in the order of the file."""
    origins: dict[str, Origins]
    """By name."""
    inputs: tuple[str, ...]
    """Absolute paths of the files besides the manifest and the user config that this depends on."""
    links: tuple[str, ...] = ()
    """Absolute paths of which it depends on where they lead, and not on what is there."""


def resolve(
    file: StrPath, root: StrPath, *, settings: Settings, overrides: Sequence[str] = (), text: str | None = None
) -> Manifest:
    """The sessions that the manifest `file` of the repository at `root` declares, or would with `text` in it.

    `overrides` are ``KEY=VALUE``. `ManifestError` with everything that is wrong in the manifest;
    `UsageError` for the other layers; `UntrustedError` when it would take files from outside of the repository.
    """
    path = os.path.abspath(file)
    label = os.path.relpath(path, root) if is_below(path, os.path.abspath(root)) else path
    document = load_document(path, label) if text is None else parse_document(text, label)
    manifest, problems = read(document)
    sessions = _merged(manifest, document, os.path.dirname(path), settings, overrides)

    findings = Findings(problems, [])
    host = Host(os.path.realpath(root), findings)
    declarations = Declarations(host, findings, settings.forbid)
    if too_many := [*judging.too_many(sessions.values())]:
        problems += too_many
        sessions = {}  # no more is said of them
    for name, values in sessions.items():
        declarations.add(name, values, document.line(("sessions", name)))
    problems += judging.clashing_branches(declarations.branches)
    renamed = {name: values["renamed_from"] for name, values in sessions.items()}
    problems += judging.clashing_names(renamed, declarations.declared)
    _require_in_order(label, findings)
    return Manifest(declarations.declared, declarations.origins, tuple(host.inputs), tuple(host.links))


def _merged(
    manifest: ManifestFile, document: Document, directory: str, settings: Settings, overrides: Sequence[str]
) -> dict[str, Layer]:
    """What all layers together say of each session."""
    faults: list[str] = []
    user = layers.of_user(settings, faults)
    above = layers.of_overrides(settings, overrides, directory, faults)
    if faults:
        raise UsageError("\n".join(faults))
    shared = Source(Rank.DEFAULTS, document.label, directory, document, ours=False)
    own = shared._replace(rank=Rank.BLOCK)
    below = {**layers.BUILT_IN, **user, **layers.layer(manifest.defaults, shared, ("defaults",))}
    return {
        name: {**below, **layers.layer(table, own, ("sessions", name)), **above}
        for name, table in manifest.sessions.items()
    }


def _require_in_order(label: str, findings: Findings) -> None:
    """Raises what was found: each thing once, those with a line first, in the order of the file."""
    if findings.problems:
        found = sorted(dict.fromkeys(findings.problems), key=lambda problem: problem.line or sys.maxsize)
        more = [Problem("", "and more of these")] if len(found) > MOST_PROBLEMS else []
        raise ManifestError(label, found[:MOST_PROBLEMS] + more)
    if findings.untrusted:
        raise UntrustedError(
            str(ManifestError(label, list(dict.fromkeys(findings.untrusted)))),
            hint="what is included must lie in the repository; `files` and `mounts` can reach outside of it",
        )
