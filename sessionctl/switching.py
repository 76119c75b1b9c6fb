"""A session's files exchanged for others, or taken away: what was there moves into a snapshot, nothing is deleted.

What is to happen is written down first, in ``sessions/<name>/switch.json``, and then done step by step;
each step can be done again. Whoever holds the lock next finishes what a crash has left. Only moves within
the state directory: it takes no time and no room, whatever the size.

Decides nothing. Nobody may hold the session's files while they are moved: its sandboxes are stopped first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from sessionctl import beneath, snapshots, workspace
from sessionctl.errors import StoreError
from sessionctl.model import is_name, require_name
from sessionctl.site import Site
from sessionctl.snapshots import PART, PARTS, Snapshot


class Switch(NamedTuple):
    """What happens to a session's files, whole."""

    rescue: Snapshot
    """The snapshot that what is there now becomes; its parts are those that are taken."""
    sources: Mapping[PART, str]
    """Where the new ones are, by part, named from the state directory; a part that is taken and not here goes."""
    standing: Mapping[str, Any] | None
    """What the new work stands on; None: there is no new work."""
    sandboxes: bool
    """Whether the session's sandboxes go too: what they were made of does not fit any more."""
    emptied: tuple[str, str] | None
    """Session and id of the snapshot whose parts are moved out, so that nothing is left of it."""

    @property
    def session(self) -> str:
        return self.rescue.session

    def data(self) -> dict[str, Any]:
        """The JSON form; `from_data` is its inverse."""
        return {**self._asdict(), "rescue": self.rescue.data()}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        emptied = data["emptied"]
        return cls(
            Snapshot.from_data(data["rescue"]),
            data["sources"],
            data["standing"],
            data["sandboxes"],
            (emptied[0], emptied[1]) if emptied else None,
        )


def switch(site: Site, wanted: Switch) -> None:
    """Does `wanted`. Its sandboxes do not run any more."""
    session = os.path.join(site.directory, "sessions", require_name(wanted.session))
    beneath.publish(os.path.join(session, "switch.json"), json.dumps(wanted.data()).encode())
    _finish(site, wanted)


def finish(site: Site) -> None:
    """Finishes every switch that a crash has left half-done. Only under the lock."""
    above = os.path.join(site.directory, "sessions")
    for name in filter(is_name, beneath.names(above)):
        try:
            with open(os.path.join(above, name, "switch.json"), "rb") as file:
                begun = Switch.from_data(json.load(file))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{above}/{name}/switch.json cannot be read: {error}",
                hint="it says what was being done to the session's files; they are in its directory and below"
                f" {site.directory}/snapshots/{name}",
            ) from error
        for observed in site.backend(begun.rescue.backend).observe(session=name):
            if observed.status == "running":
                site.backend(begun.rescue.backend).stop(observed)
        _finish(site, begun)


def _finish(site: Site, wanted: Switch) -> None:
    name, rescue = wanted.session, wanted.rescue
    session = os.path.join(site.directory, "sessions", name)
    kept = snapshots.place(site.directory, name, rescue.id)
    os.makedirs(kept, 0o700, exist_ok=True)
    if wanted.sandboxes:
        backend = site.backend(rescue.backend)
        for observed in backend.observe(session=name):
            # One without an id is files that have no sandbox: those that were moved here before a crash.
            if observed.id and observed.id == rescue.sandbox and "root" in rescue.parts:
                backend.freeze(observed, os.path.join(kept, "root"), move=True)
            backend.remove(observed)
    for part in PARTS:
        if part in rescue.parts:
            _exchange(site.directory, session, kept, part, wanted)
    moved = {part: None for part in rescue.parts if os.path.lexists(os.path.join(kept, part))}
    if moved:
        snapshots.publish(site.directory, kept, rescue._replace(parts=moved))
    else:
        snapshots.remove(site.directory, name, rescue.id)
    if wanted.emptied:
        snapshots.remove(site.directory, *wanted.emptied)
    os.unlink(os.path.join(session, "switch.json"))
    workspace.leave(site.directory, name)


def _exchange(directory: str, session: str, kept: str, part: PART, wanted: Switch) -> None:
    """One part: what is there into the snapshot, the new one in its place. Where its source is gone, it was done."""
    # The sandbox's own files wait where the next sandbox that is made takes them from.
    here = os.path.join(session, "seed", "root") if part == "root" else os.path.join(session, part)
    there = os.path.join(kept, part)
    source = os.path.join(directory, wanted.sources[part]) if part in wanted.sources else ""
    if source and not os.path.lexists(source):
        return
    if os.path.lexists(here) and not os.path.lexists(there):
        os.rename(here, there)
    if part == "work" and wanted.standing is not None:  # else it goes with the last of the session, which has to know
        content = json.dumps(wanted.standing).encode()
        beneath.publish(os.path.join(session, "workspace.json"), content)
    if source:
        os.makedirs(os.path.dirname(here), 0o700, exist_ok=True)
        os.rename(source, here)
