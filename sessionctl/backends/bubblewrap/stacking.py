"""The file system of a sandbox with an image: what it is made of, below what is written over it.

Images are unpacked by `images.library`, whose directories are mounted as they are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from sessionctl import beneath
from sessionctl.backends import Progress
from sessionctl.backends.bubblewrap import profile, rooting
from sessionctl.backends.bubblewrap.marks import Mark
from sessionctl.backends.bubblewrap.places import Places, read
from sessionctl.errors import BackendError
from sessionctl.images import Root
from sessionctl.model import HOME, Mount, MountSpec, SessionSpec


def unpacked(places: Places, spec: SessionSpec, progress: Progress) -> Root | None:
    """What the image of `spec` gives, unpacked; None when that is the host's own programs."""
    if spec.image == "host":
        return None
    from sessionctl import images
    from sessionctl.images import library

    wanted = None
    if spec.image_extra:
        wanted = library.Extra(spec.image_extra, spec.image_extra_digest, profile.PATH)
    reference = images.parse(spec.image)
    if reference is None or not spec.image_digest:
        raise BackendError(f"{spec.image!a} is no image that was resolved", hint="sessionctl plan")
    return library.prepare(places.directory, reference, spec.image_digest, places.owner, progress, wanted)


def furnish(places: Places, mark: Mark, root: Root, base: str) -> None:
    """Makes what is written over an image: anew, or of the files that `freeze` put at `base`."""
    stacked = stack(places, mark)
    assert stacked is not None
    os.mkdir(os.path.dirname(stacked.upper), 0o711)  # its user passes through, where it is mounted
    if base:
        # Until there is a mark, `remove` puts them back: whatever ends this half-way.
        beneath.publish(places.file(mark.session, mark.id, "base"), os.path.relpath(base, places.directory).encode())
        os.rename(os.path.join(base, "upper"), stacked.upper)
    for path in (stacked.scratch,) if base else (stacked.upper, stacked.scratch):
        os.mkdir(path, 0o755)
        if places.owner:
            os.chown(path, *places.owner)
    if not base:
        rooting.furnish(mark.session, root, [stacked.upper, *reversed(stacked.lower)], places.owner)


def give_back(places: Places, name: str, id: str) -> None:
    """Puts the files that a sandbox was to begin with back where `create`, which was killed, took them from."""
    try:
        base = os.path.join(places.directory, os.fsdecode(read(places.file(name, id, "base"))))
    except FileNotFoundError:
        return
    upper = places.file(name, id, "root/upper")
    if os.path.lexists(upper) and not os.path.lexists(os.path.join(base, "upper")):
        os.rename(upper, os.path.join(base, "upper"))


def environment(root: Root) -> Mapping[str, str]:
    """What commands inside start from."""
    ours = profile.environment(user=rooting.user(root))
    # An image may say where its programs are; where the home is, it cannot know.
    found = {**ours, **root.env, **{name: ours[name] for name in ("HOME", "USER", "LOGNAME")}}
    if root.extra:
        from sessionctl.images import extra

        found["PATH"] += f":{extra.BIN}"
    return found


def stack(places: Places, mark: Mark) -> profile.Root | None:
    """The layers that are mounted as the sandbox's root; None: it has the host's programs."""
    if mark.root is None:
        return None
    place = places.file(mark.session, mark.id, "root")
    return profile.Root(
        tuple(mark.lower(places.directory)), f"{place}/upper", f"{place}/scratch", mark.root.uid, mark.root.gid
    )


def require_points(places: Places, mark: Mark, root: profile.Root, resolver: bytes | None) -> None:
    """Makes ready what bwrap mounts upon in an image, and what it needs to look names up."""
    layers = [root.upper, *reversed(root.lower)]
    for path in root.lower:
        if os.path.realpath(path) != path and not path.startswith(f"{places.directory}/"):
            raise BackendError(f"{path} became a symbolic link: its session cannot run on it")
    points = dict.fromkeys(profile.POINTS, True)
    mounts: list[Mount | MountSpec] = [*mark.workspace.mounts, *mark.made_of.spec.mounts]
    ours = (f"{HOME}/", f"{profile.INTERNAL}/", "/tmp/", "/dev/", "/proc/")
    points |= {each.path: os.path.isdir(each.source) for each in mounts if not each.path.startswith(ours)}
    rooting.require_points(layers, points, places.owner)
    if resolver is not None:
        rooting.write(layers, "etc/resolv.conf", resolver, places.owner)
