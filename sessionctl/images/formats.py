"""How images are laid out: OCI image layouts (image-layout.md of the OCI image specification, 1.1), on disk
and as archives, and what ``docker save`` writes. JSON of strangers: every type is looked at, every digest too.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar

from sessionctl import beneath
from sessionctl.errors import ImageError

LARGEST_DOCUMENT = 4 << 20
"""Bytes of an index, manifest or config: registries take no larger ones."""
MOST_LAYERS = 127
"""As many as the usual container engines make."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_TAG = "org.opencontainers.image.ref.name"
_DEPTH = 3
"""Indexes in each other."""

Kind = TypeVar("Kind")
Read = Callable[[str], bytes]
"""The document of that name, of at most `LARGEST_DOCUMENT` bytes; `ImageError` when it is not there."""


class Layer(NamedTuple):
    """One layer of an image, bottom first."""

    name: str
    """Of the file or archive member that holds it."""
    digest: str
    """Of that file, as it is; empty where nothing says it."""
    diff_id: str
    """Of its tar archive."""


class Config(NamedTuple):
    """What an image says of how it is to be used, as far as we do."""

    env: Mapping[str, str]
    user: str
    directory: str


class Content(NamedTuple):
    """What an image consists of."""

    layers: tuple[Layer, ...]
    config: Config


class Layout:
    """An OCI image layout on disk. No link in it is followed."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, name: str) -> bytes:
        try:
            return beneath.read(self.path, name, LARGEST_DOCUMENT)
        except OSError as error:
            raise ImageError(f"{name} of the layout cannot be read: {error.strerror}") from error

    def blob(self, name: str) -> int:
        """A descriptor of the file `name`."""
        from sessionctl.images import open_file

        try:
            for parent in ("blobs", os.path.dirname(name)):
                if os.path.islink(os.path.join(self.path, parent)):
                    raise ImageError(f"{parent} of the layout is a symbolic link")
            return open_file(os.path.join(self.path, name))
        except OSError as error:
            raise ImageError(f"{name} of the layout cannot be read: {error.strerror}") from error


def shown(value: object) -> str:
    """`value`, somebody's JSON, as it may be in a message: escaped and not too long."""
    return ascii(value)[:80]


def chosen(read: Read, tag: str) -> str:
    """The digest of the manifest that the layout's index has for `tag` (empty: its only one) and this machine."""
    index = _document(read("index.json"), "index.json")
    found = [each for each in _descriptors(index, "index.json") if not _is_attestation(each)]
    if tag:
        found = [each for each in found if _annotations(each).get(_TAG) == tag]
    digest = _only(read, found, tag, _DEPTH)
    _blob(read, digest, "the manifest")
    return digest


def _only(read: Read, found: Sequence[Mapping[str, Any]], tag: str, depth: int) -> str:
    here = [each for each in found if _fits(each)]
    if not here:
        wanted = f" with the tag {tag!a}" if tag else ""
        raise ImageError(f"its index has no image{wanted} for linux on {os.uname().machine}")
    digests = {_digest_of(each, "index.json") for each in here}
    if len(digests) > 1:
        tags = ", ".join(sorted({shown(_annotations(each).get(_TAG, "(none)")) for each in here})[:8])
        raise ImageError(f"its index has {len(digests)} images, tagged {tags}", hint="say oci:LAYOUT:TAG")
    (digest,) = digests
    if here[0].get("mediaType") not in _INDEXES:
        return digest
    if not depth:
        raise ImageError("its indexes nest too deeply")
    index = _document(_blob(read, digest, "an index"), "an index")
    return _only(read, [each for each in _descriptors(index, "an index") if not _is_attestation(each)], "", depth - 1)


def oci(read: Read, digest: str) -> Content:
    """What the manifest of that digest says."""
    manifest = _document(_blob(read, digest, "the manifest"), "the manifest")
    config = _digest_of(_field(manifest, "config", dict, "the manifest"), "the manifest's config")
    stored = [_digest_of(each, "the manifest's layers") for each in _list(manifest, "layers", dict, "the manifest")]
    return _content(_blob(read, config, "the config"), [(_blob_name(each), each) for each in stored])


def docker(read: Read) -> Content:
    """What the ``manifest.json`` of an archive says."""
    name = "manifest.json"
    images = _parsed(read(name), name)
    if not isinstance(images, list) or not all(isinstance(image, dict) for image in images) or not images:
        raise ImageError(f"{name} is not a list of images")
    if len(images) > 1:
        tags = [tag for image in images for tag in _tags(image)]
        raise ImageError(f"it holds {len(images)} images: {shown(tags)}", hint="save the one that is wanted")
    config = _field(images[0], "Config", str, name)
    layers = [(normal(each), "") for each in _list(images[0], "Layers", str, name)]
    text = read(normal(config))
    named = re.search(r"[0-9a-f]{64}", config)
    if named and sha256(text).hexdigest() != named.group():
        raise ImageError(f"the config {shown(config)} has another digest than its name says")
    return _content(text, layers)


def _tags(image: Mapping[str, Any]) -> Sequence[object]:
    found = image.get("RepoTags")
    return found if isinstance(found, list) and found else ["(none)"]


def normal(name: str) -> str:
    """`name` of an archive's member, as `Read` takes it."""
    return os.path.normpath(name)


def _content(config: bytes, stored: Sequence[tuple[str, str]]) -> Content:
    what = "the config"
    data = _document(config, what)
    root = _field(data, "rootfs", dict, what)
    diff_ids = _list(root, "diff_ids", str, what)
    if len(diff_ids) != len(stored):
        raise ImageError(f"the config names {len(diff_ids)} layers, the manifest {len(stored)}")
    if not stored or len(stored) > MOST_LAYERS:
        raise ImageError(f"it has {len(stored)} layers; 1 to {MOST_LAYERS} are possible")
    layers = tuple(
        Layer(name, digest, _checked(diff_id, what)) for (name, digest), diff_id in zip(stored, diff_ids, strict=True)
    )
    machine = data.get("architecture")
    if isinstance(machine, str) and machine and machine != _MACHINES.get(os.uname().machine, machine):
        raise ImageError(f"it is made for {shown(machine)}, and this machine is {os.uname().machine}")
    settings = data.get("config")
    return Content(layers, _settings(settings if isinstance(settings, dict) else {}))


def _settings(data: Mapping[str, Any]) -> Config:
    env: dict[str, str] = {}
    for each in _list(data, "Env", str, "the config") if data.get("Env") is not None else ():
        name, equals, value = each.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII) or not _can_be_passed(value):
            raise ImageError(f"the config has {shown(each)} for a variable")
        env[name] = value
    if sum(len(name) + len(value.encode()) for name, value in env.items()) > 32 * 1024:
        raise ImageError("the variables of the config have more than 32 KiB")
    user, directory = (data.get(key) or "" for key in ("User", "WorkingDir"))
    if not isinstance(user, str) or not isinstance(directory, str):
        raise ImageError("User or WorkingDir of the config is no string")
    if not user.isprintable():
        raise ImageError(f"the config has {shown(user)} for a user")
    return Config(env, user, directory)


def _can_be_passed(text: str) -> bool:
    """Whether a process can be given `text`: JSON has halves of characters too, and NUL."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _fits(descriptor: Mapping[str, Any]) -> bool:
    platform = descriptor.get("platform")
    if not isinstance(platform, dict):
        return True
    return (platform.get("os"), platform.get("architecture")) == ("linux", _MACHINES.get(os.uname().machine))


def _is_attestation(descriptor: Mapping[str, Any]) -> bool:
    return "vnd.docker.reference.type" in _annotations(descriptor)


def _annotations(descriptor: Mapping[str, Any]) -> Mapping[str, Any]:
    found = descriptor.get("annotations")
    return found if isinstance(found, dict) else {}


def _descriptors(index: Mapping[str, Any], what: str) -> list[dict[str, Any]]:
    return _list(index, "manifests", dict, what)


def _blob(read: Read, digest: str, what: str) -> bytes:
    content = read(_blob_name(digest))
    if f"sha256:{sha256(content).hexdigest()}" != digest:
        raise ImageError(f"{what} has another digest than {digest}")
    return content


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _digest_of(descriptor: Mapping[str, Any], what: str) -> str:
    return _checked(_field(descriptor, "digest", str, what), what)


def _checked(digest: str, what: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ImageError(f"{what} has {shown(digest)} for a digest; only sha256 is supported")
    return digest


def _document(text: bytes, what: str) -> Mapping[str, Any]:
    data = _parsed(text, what)
    if not isinstance(data, dict):
        raise ImageError(f"{what} is not a JSON object")
    return data


def _parsed(text: bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what} is not JSON: {error}") from None


def _field(data: Mapping[str, Any], key: str, kind: type[Kind], what: str) -> Kind:
    value = data.get(key)
    if not isinstance(value, kind):
        raise ImageError(f"{what} has no {key}, or one of the wrong type")
    return value


def _list(data: Mapping[str, Any], key: str, kind: type[Kind], what: str) -> list[Kind]:
    values = _field(data, key, list, what)
    if not all(isinstance(value, kind) for value in values):
        raise ImageError(f"{key} of {what} holds something of the wrong type")
    return values
