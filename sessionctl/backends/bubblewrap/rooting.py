"""What a sandbox made of an image needs in it before bwrap may mount anything there.

bwrap makes mount points that are missing, and follows links while the host's file system is still in reach:
an image, or an agent in its writable layer, could lead it there. So they are made here, in the layer that
takes the writes and while nothing runs on it, and no link is followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sessionctl import beneath
from sessionctl.backends.bubblewrap import profile
from sessionctl.errors import BackendError
from sessionctl.images import Root
from sessionctl.model import HOME

_LIMIT = 1 << 20
_APT = b'# No account but one is here, so none to download as.\nAPT::Sandbox::User "root";\n'
_SETTLED = ("hostname", "hosts", "gitconfig")
"""Files of /etc that are the sandbox's, whatever the image has."""


def furnish(name: str, root: Root, layers: Sequence[str], owner: tuple[int, int] | None) -> None:
    """Writes into the first of `layers` (top first) what of /etc is the sandbox's own, and who its user is."""
    require_points(layers, {"/etc": True}, owner)
    contents = profile.etc(name)
    files = {f"etc/{file}": contents[file] for file in _SETTLED}
    for file in ("passwd", "group"):
        before = _content(layers, f"etc/{file}")
        number = root.uid if file == "passwd" else root.gid
        if not any(line.split(b":")[2:3] == [str(number).encode()] for line in before.splitlines()):
            line = f"{user(root)}:x:{root.uid}:{root.gid}:{name}:{HOME}:/bin/sh\n"
            line = line if file == "passwd" else f"{user(root)}:x:{root.gid}:\n"
            end = b"" if not before or before.endswith(b"\n") else b"\n"
            files[f"etc/{file}"] = before + end + line.encode()
    if _kind(layers, "etc/apt/apt.conf.d") == "dir":
        files["etc/apt/apt.conf.d/00sessionctl"] = _APT
    for path, content in files.items():
        write(layers, path, content, owner)


def user(root: Root) -> str:
    """The name of who runs in it."""
    return root.user or ("root" if root.uid == 0 else profile.USER)


def write(layers: Sequence[str], path: str, content: bytes, owner: tuple[int, int] | None) -> None:
    """Puts a file of `content` at `path` into the first of `layers`; `BackendError` when a link is on the way."""
    try:
        if beneath.kind_layered(layers, path) == "dir":
            raise BackendError(f"the image has a directory at /{path}, where a file of the sandbox belongs")
        beneath.write(layers[0], path, content, 0o644, owner)
    except OSError as error:
        raise BackendError(f"/{path} cannot be written in the image: {error.strerror}") from error


def require_points(layers: Sequence[str], points: Mapping[str, bool], owner: tuple[int, int] | None) -> None:
    """Makes what is mounted upon where it is missing, in the first of `layers` (top first).

    `points`: paths inside, and whether a directory is mounted there. `BackendError` for a link or something
    else that is there in its place.
    """
    for point, directory in points.items():
        path = point.removeprefix("/")
        kind = _kind(layers, path)
        if kind not in (None, "dir" if directory else "file"):
            what = "a symbolic link" if kind == "link" else "something else"
            raise BackendError(f"nothing can be mounted at {point}: the image, or the agent, has {what} there")
        if kind is None:
            try:
                if directory:
                    beneath.make_directory(layers[0], path, owner)
                else:
                    beneath.write(layers[0], path, b"", 0o644, owner)
            except OSError as error:
                raise BackendError(f"nothing can be mounted at {point}: {error.strerror}") from error


def _kind(layers: Sequence[str], path: str) -> str | None:
    try:
        return beneath.kind_layered(layers, path)
    except OSError as error:
        raise BackendError(f"/{path} of the image cannot be used: {error.strerror}") from error


def _content(layers: Sequence[str], path: str) -> bytes:
    try:
        return beneath.read_layered(layers, path, _LIMIT)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise BackendError(f"/{path} of the image cannot be read: {error.strerror}") from error
