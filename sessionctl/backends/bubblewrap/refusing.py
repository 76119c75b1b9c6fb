"""Which fields of a declaration bubblewrap cannot keep to here. Nothing is tried, and nothing changed."""

from __future__ import annotations

import os

from sessionctl.backends import Refusal
from sessionctl.model import HOME, WORKSPACE, LimitsSpec, SessionSpec


def unsupported(spec: SessionSpec) -> list[Refusal]:
    """Why `spec` cannot be a sandbox here."""
    refusals = []
    if spec.image != "host":
        from sessionctl import images

        if images.parse(spec.image) is None:
            known = "host, rootfs:DIR, archive:FILE or oci:LAYOUT[:TAG]"
            refusals.append(Refusal("image", f"bubblewrap cannot use {spec.image!a}", known))
    for mount in spec.mounts:
        if mount.path.startswith((f"{HOME}/", f"{WORKSPACE}/")) and os.path.isfile(mount.source):
            why = f"a file cannot be mounted in the home or the workspace ({mount.path})"
            refusals.append(Refusal("mounts", why, "mount its directory, or use `files`"))
    return [*refusals, *unenforceable(spec.limits)]


def unenforceable(declared: LimitsSpec) -> list[Refusal]:
    """The limits that cannot be held here."""
    if declared == LimitsSpec():
        return []
    from sessionctl.backends.bubblewrap import limits

    found = limits.means()
    return limits.unenforced(declared, found.limits, found.missing)
