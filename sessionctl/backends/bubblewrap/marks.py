"""What a sandbox was made of, as its mark says: written last, removed first."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from sessionctl import beneath
from sessionctl.backends.bubblewrap.places import Places, read
from sessionctl.errors import BackendError
from sessionctl.model import Declaration, Digests, Effect, Observed, Workspace, effect_of, flat

if TYPE_CHECKING:
    from sessionctl.images import Root

FORM = 2
"""Version of the mark's form: 2 for sandboxes with an image, which an earlier release would run on the host's root."""
UNUSABLE = (FileNotFoundError, ValueError, KeyError, TypeError)
"""What `load` raises when a sandbox has no mark, or what it has is none."""


class Mark(NamedTuple):
    """What a sandbox was made of."""

    project: str
    session: str
    id: str
    created_at: float
    made_of: Declaration
    workspace: Workspace
    files: Mapping[str, str]
    """Per injected file the SHA-256 of what was last written."""
    clashes: tuple[str, ...]
    form: int = 1
    root: Root | None = None
    """What an image gives; None: the host's programs."""

    def dump(self, directory: str) -> bytes:
        data = {
            **self._asdict(),
            "form": FORM if self.root else 1,
            "root": self.root and self.root._asdict(),
            "made_of": {"digests": list(self.made_of.digests), "data": self.made_of.data},
            "workspace": self.workspace.data(directory),
        }
        return json.dumps(data, indent=1).encode()

    @classmethod
    def of(cls, text: bytes, directory: str) -> Mark:
        """`ValueError`, `KeyError` or `TypeError` when `text` is no mark."""
        data = json.loads(text)
        made_of = Declaration(Digests(*data["made_of"]["digests"]), data["made_of"]["data"])
        workspace = Workspace.from_data(data["workspace"], directory)
        known = {name: data[name] for name in cls._fields if name != "root"}
        root = _root(data["root"]) if data.get("root") else None
        return cls(
            **{**known, "made_of": made_of, "workspace": workspace, "clashes": tuple(data["clashes"]), "root": root}
        )

    def lower(self, directory: str) -> list[str]:
        """The directories of its image, bottom first."""
        return [os.path.join(directory, path) for path in self.root.lower] if self.root else []


def _root(data: Mapping[str, Any]) -> Root:
    from sessionctl.images import Root

    return Root(**{**data, "lower": tuple(data["lower"]), "extra": tuple(data.get("extra", ()))})


def load(places: Places, name: str, id: str) -> Mark:
    """The mark of a sandbox; `UNUSABLE` where there is none to go by."""
    return Mark.of(read(places.file(name, id, "mark")), places.directory)


def require(places: Places, target: Observed) -> Mark:
    """The mark of a sandbox that must be ready; `BackendError` when it is not."""
    name, id = places.require(target)
    try:
        return load(places, name, id)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackendError(f"session {name} has no ready sandbox {id}", hint="sessionctl apply") from error


def publish(places: Places, name: str, id: str, mark: Mark) -> None:
    """Moves `mark` into its place: from then on the sandbox is what it says."""
    beneath.publish(places.file(name, id, "mark"), mark.dump(places.directory))


def merged(old: Mapping[str, Any], new: Mapping[str, Any], effects: set[Effect], prefix: str = "") -> dict[str, Any]:
    """`new` in the fields whose change costs one of `effects`, `old` in the others."""
    same_image = flat(old).get("image") == flat(new).get("image") if not prefix else False
    return {
        key: (value if same_image else old[key])
        if key in ("image", "image_digest", "image_outside")
        else old[key]
        if key == "image_extra_digest"
        else merged(old[key], value, effects, "workspace.")
        if key == "workspace"
        else (value if key == "name" or effect_of(prefix + key) in effects else old[key])
        for key, value in new.items()
    }
