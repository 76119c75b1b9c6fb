"""What is on the disk for each session, in blocks that are taken. Reads what agents wrote, and follows no link."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sessionctl import beneath, trash
from sessionctl.model import is_id

if TYPE_CHECKING:
    from sessionctl.snapshots import Snapshot


class Use(NamedTuple):
    """What a session takes, in bytes on the disk."""

    session: str
    workspace: int
    home: int
    sandbox: int
    """What its sandboxes have of their own: marks and logs, and what was written over an image."""
    snapshots: int
    trash: int
    whole: bool
    """Whether all of it could be read; if not, it is more than this."""

    @property
    def total(self) -> int:
        return self.workspace + self.home + self.sandbox + self.snapshots + self.trash


class Disk(NamedTuple):
    """What a project takes."""

    sessions: tuple[Use, ...]
    bases: int
    """Checkouts that several sessions and snapshots stand on."""
    images: int


_OVERLAYFS = ("scratch/work", "work/scratch/work")
"""What overlayfs locks for itself beside an upper layer, in a session and in a snapshot: it is empty."""


class Meter:
    """Adds up what trees take. A file with several names is counted with the first tree it was found in."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self.whole = True

    def taken(self, *roots: str) -> int:
        """Bytes on the disk below and of `roots` that were not counted yet; of what is not there 0."""
        return sum(map(self._tree, roots))

    def _tree(self, root: str) -> int:
        try:
            total = 512 * os.lstat(root).st_blocks
            for entry in beneath.walk(root):
                self.whole = self.whole and (entry.kind != "unreadable" or entry.path in _OVERLAYFS)
                if entry.ino not in self._seen:
                    self._seen.add(entry.ino)
                    total += 512 * entry.blocks
            return total
        except FileNotFoundError:
            return 0
        except NotADirectoryError:
            return total
        except OSError:
            self.whole = False
            return 0


def measured(directory: str, names: Iterable[str], found: Sequence[Snapshot]) -> Disk:
    """What the sessions `names` take, with their snapshots among `found`, below the state directory `directory`."""
    meter = Meter()
    uses = []
    for name in names:
        place, meter.whole = os.path.join(directory, "sessions", name), True
        inside = sorted(beneath.names(place))
        own = [os.path.join(directory, "snapshots", name, each.id) for each in found if each.session == name]
        trashed = {each.id for each in found if each.session == name and trash.is_trash(each)}
        uses.append(
            Use(
                name,
                meter.taken(os.path.join(place, "work")),
                meter.taken(os.path.join(place, "home")),
                meter.taken(*(os.path.join(place, each) for each in inside if is_id(each) or each == "seed")),
                meter.taken(*(each for each in own if os.path.basename(each) not in trashed)),
                meter.taken(*(each for each in own if os.path.basename(each) in trashed)),
                meter.whole,
            )
        )
    shared = (meter.taken(os.path.join(directory, part)) for part in ("bases", "images"))
    return Disk(tuple(uses), *shared)
