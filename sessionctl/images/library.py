"""Images as they are unpacked below a project's state directory: each layer once, whoever uses it.

On disk::

    images/<digest>.json     what an image consists of; written last, removed first
    images/layers/<digest>   one layer, ready to be stacked by overlayfs; whole when it has this name

Layers are named by the digest of their tar archive, so that images share them however they were packed.
Nothing that runs sees these directories but read-only. This module may not decide what goes.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import Any, NamedTuple

from sessionctl import beneath
from sessionctl.errors import ImageError
from sessionctl.images import Reference, Root, extra, flatten, formats, layer, open_file, pin, streams, tarball
from sessionctl.images.formats import Config, Content, Layer

Owner = tuple[int, int] | None
Progress = Callable[[str], None]

_FORM = 1
_OFTEN = 0.25
"""Seconds between two words of progress."""
_DOCUMENTS = 64 << 20
"""Bytes of all small files of an archive that are kept while it is read."""
_PASSWD = 1 << 20
_NAME = re.compile(r"[0-9a-f]{32}", re.ASCII)
# Half of a digest is enough for one, and twice as many layers fit into the 4,096 bytes that mount(2) takes.
# In what `docker save` and image layouts consist of; anything else at the top is a file of a root file system.
_PARTS_OF_ARCHIVES = re.compile(
    rb"manifest\.json|index\.json|oci-layout|repositories|blobs(/.*)?|[0-9a-f]{64}(/.*|\.json|\.tar)?"
)
_UNPACKING = threading.Lock()


class Kept(NamedTuple):
    """An image in the library."""

    digest: str
    source: str
    """What it was unpacked from first."""
    layers: tuple[str, ...]
    """Their names, bottom first."""
    config: Config
    made_at: float
    flat: str = ""
    """The name of a directory that is the lowest of many layers together; empty when they are few."""
    part_of: str = ""
    """Of programs of the host: the digest of all that were declared, of which an image had some itself."""

    @property
    def directories(self) -> tuple[str, ...]:
        """All that it has in the library."""
        return (*self.layers, self.flat) if self.flat else self.layers

    @property
    def declared(self) -> str:
        """The digest that the sessions have in their declarations which use it."""
        return self.part_of or self.digest


class Extra(NamedTuple):
    """Programs of the host that are wanted in an image."""

    names: tuple[str, ...]
    digest: str
    """What they were when they were declared (`extra.pin`)."""
    path: str
    """Where programs are looked for in an image that does not say."""


def prepare(
    directory: str,
    reference: Reference,
    digest: str,
    owner: Owner,
    progress: Progress,
    programs: Extra | None = None,
) -> Root:
    """The root that `reference` gives, unpacked below the state directory `directory` if it is not yet.

    Those of `programs` that the image has not are in it too, below all that is the image's.
    `ImageError` when it is not what `digest` says any more, broken or refused; then nothing of it stays
    but layers that are whole.
    """
    try:
        if reference.kind == "rootfs":
            if pin(reference).digest != digest:
                raise _changed()
            return _with_programs(directory, _rooted(directory, (reference.path,), Config({}, "", "")), owner, programs)
        with _UNPACKING:
            kept = _load(directory, digest)
            if kept is None or not all(os.path.isdir(_layer(directory, each)) for each in kept.directories):
                kept = _Unpacking(directory, reference, digest, owner, progress).run()
        stack = _stacked(directory, kept.layers)
        if kept.flat:
            stack = [kept.flat, *flatten.split(stack)[1]]
        lower = tuple(f"images/layers/{each}" for each in stack)
        return _with_programs(directory, _rooted(directory, lower, kept.config), owner, programs)
    except ImageError as error:
        raise ImageError(f"{reference}: {error}", hint=error.hint) from error


def _with_programs(directory: str, root: Root, owner: Owner, wanted: Extra | None) -> Root:
    """`root` over a layer with those of the programs `wanted` that it lacks."""
    if wanted is None:
        return root
    layers = [os.path.join(directory, path) for path in reversed(root.lower)]
    names = extra.lacking(wanted.names, layers, root.env.get("PATH", wanted.path))
    if not names:
        return root
    digest = f"sha256:{sha256(json.dumps([wanted.digest, *names]).encode()).hexdigest()}"
    name = _hex(digest)
    with _UNPACKING:
        if not os.path.isdir(_layer(directory, name)):
            if extra.pin(wanted.names).digest != wanted.digest:
                raise ImageError(
                    f"{', '.join(wanted.names)} of the host changed since the plan was made",
                    hint="run the plan again, and look at it",
                )
            _make_directories(directory, owner)
            try:
                with _new(directory, name) as place:
                    extra.fill(place, names, owner, layer.Budget())
            except OSError as error:
                what = f"{error.filename or names[0]}: {error.strerror}"
                raise ImageError(f"programs of the host cannot be copied: {what}") from error
        if _load(directory, digest) is None:
            config = Config({}, "", "")
            _describe(
                directory, Kept(digest, f"host:{','.join(names)}", (name,), config, time.time(), part_of=wanted.digest)
            )
    extra.require_seen(names, [*layers, _layer(directory, name)])
    return root._replace(lower=(f"images/layers/{name}", *root.lower), extra=names)


def listing(directory: str) -> list[Kept]:
    """All images of the library, in order of their sources. What cannot be read is none."""
    names = beneath.names(_images(directory))
    found = [_load(directory, f"sha256:{name[:-5]}") for name in names if name.endswith(".json")]
    return sorted((kept for kept in found if kept), key=lambda kept: (kept.source, kept.digest))


def size(directory: str, layers: Collection[str]) -> int:
    """Bytes that `layers` take on the disk, those counted once that share files."""
    seen: dict[int, int] = {}
    for each in set(layers):
        for entry in _walked(_layer(directory, each)):
            info = entry.stat(follow_symlinks=False)
            seen[info.st_ino] = 512 * info.st_blocks
    return sum(seen.values())


def _walked(directory: str) -> Iterator[os.DirEntry[str]]:
    pending = [directory]
    while pending:
        with suppress(FileNotFoundError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)


def loose(directory: str, kept: Collection[Kept]) -> list[str]:
    """The layers that none of the images `kept` has."""
    held = {each for image in kept for each in image.directories}
    return sorted(name for name in beneath.names(_layers(directory)) if _NAME.fullmatch(name) and name not in held)


def remove(directory: str, images: Collection[str], layers: Collection[str]) -> None:
    """Takes away the images of these digests, and then `layers`. Absent already is done."""
    for digest in images:
        with suppress(FileNotFoundError):
            os.unlink(_description(directory, digest))
    for each in layers:
        # Under another name first: half removed, it must not be taken for one.
        going = f"{_images(directory)}/{beneath.temporary()}"
        with suppress(FileNotFoundError):
            os.rename(_layer(directory, each), going)
            beneath.remove_tree(going)


def sweep(directory: str) -> None:
    """Removes what a crash has left half unpacked. Only while nobody unpacks."""
    with suppress(FileNotFoundError):
        beneath.sweep(_images(directory))


# --- unpacking ---------------------------------------------------------------------------------


class _Unpacking:
    """One image on its way into the library."""

    def __init__(self, directory: str, reference: Reference, digest: str, owner: Owner, progress: Progress) -> None:
        self.directory, self.reference, self.digest, self.owner = directory, reference, digest, owner
        self.progress = progress
        self.budget = layer.Budget()
        self.said = 0.0

    def run(self) -> Kept:
        _make_directories(self.directory, self.owner)
        try:
            layers, config = self._layout() if self.reference.kind == "oci" else self._archive()
        except OSError as error:
            raise ImageError(f"cannot be unpacked: {error.strerror}") from error
        flat = self._flat(layers)
        kept = Kept(self.digest, str(self.reference), tuple(layers), config, time.time(), flat)
        _describe(self.directory, kept)
        return kept

    def _flat(self, layers: list[str]) -> str:
        """The name of the directory that the lowest of `layers` become; empty when all of them can be mounted."""
        many, _ = flatten.split(_stacked(self.directory, layers))
        if not many:
            return ""
        name = _hex(f"sha256:{sha256(json.dumps(['flat', many]).encode()).hexdigest()}")
        if not os.path.isdir(_layer(self.directory, name)):
            self.progress(f"{os.path.basename(self.reference.path)}: {len(many)} layers become one")
            try:
                with _new(self.directory, name) as place:
                    flatten.flatten([_layer(self.directory, each) for each in many], place, self.owner)
            except OSError as error:
                raise ImageError(f"its {len(many)} lowest layers cannot become one: {error.strerror}") from error
        return name

    # Where the layers come from.

    def _layout(self) -> tuple[list[str], Config]:
        layout = formats.Layout(self.reference.path)
        content = formats.oci(layout, self.digest)
        for each in content.layers:
            if not self._is_there(each):
                with open(layout.blob(each.name), "rb", buffering=0) as file:
                    self._layer(each, file)
        return [_hex(each.diff_id) for each in content.layers], content.config

    def _archive(self) -> tuple[list[str], Config]:
        with open(open_file(self.reference.path), "rb", buffering=0) as file:
            content = self._survey(file)
            file.seek(0)
            raw = streams.Hashed(file)
            if content is None:
                # A root file system: as nothing says what its layer should be, it is named by the archive.
                name = _hex(self.digest)
                if not os.path.isdir(_layer(self.directory, name)):
                    with _new(self.directory, name) as place:
                        self._fill(place, streams.Hashed(streams.decompressed(raw), self.budget.take))
                        self._require_unchanged(raw)
                return [name], Config({}, "", "")
            wanted = {each.name: each for each in content.layers if not self._is_there(each)}
            for entry in tarball.entries(streams.decompressed(raw)) if wanted else ():
                name = _member(entry)
                if entry.kind == "file" and name in wanted:
                    self._layer(wanted.pop(name), entry.content)
            missing = [each.name for each in wanted.values() if not self._is_there(each)]
            if missing:
                raise ImageError(f"the layer {formats.shown(missing[0])} is missing")
        return [_hex(each.diff_id) for each in content.layers], content.config

    def _survey(self, file: Any) -> Content | None:
        """What the archive says that it consists of; None when it is a root file system itself."""
        raw = streams.Hashed(file)
        documents: dict[str, bytes] = {}
        links: dict[str, str] = {}
        room, budget = _DOCUMENTS, layer.Budget()
        for entry in tarball.entries(streams.Hashed(streams.decompressed(raw), budget.take)):
            self._say("is looked at")
            name = _member(entry)
            budget.entry(entry.path)
            if not _PARTS_OF_ARCHIVES.fullmatch(os.fsencode(name)) and name != ".":
                return None
            if entry.kind == "file" and entry.size <= min(formats.LARGEST_DOCUMENT, room):
                documents[name] = _whole(entry.content)
                room -= entry.size
            elif entry.kind in ("symlink", "hardlink"):
                above = os.path.dirname(name) if entry.kind == "symlink" else ""
                links[name] = os.path.normpath(os.path.join(above, os.fsdecode(entry.target)))
        self._require_unchanged(raw)
        if "manifest.json" not in documents and "index.json" not in documents:
            return None

        def read(name: str) -> bytes:
            try:
                return documents[name]
            except KeyError:
                raise ImageError(f"{formats.shown(name)} is missing in it, or too large") from None

        content = formats.docker(read) if "manifest.json" in documents else formats.oci(read, formats.chosen(read, ""))
        # Older releases of docker save a layer that two images have once, and a link to it.
        return content._replace(
            layers=tuple(each._replace(name=links.get(each.name, each.name)) for each in content.layers)
        )

    # One layer.

    def _is_there(self, each: Layer) -> bool:
        return os.path.isdir(_layer(self.directory, _hex(each.diff_id)))

    def _layer(self, each: Layer, stored: streams.Stream) -> None:
        """Unpacks `stored`, which is the file or member that holds the layer."""
        raw = streams.Hashed(stored)
        with _new(self.directory, _hex(each.diff_id)) as place:
            tar = streams.Hashed(streams.decompressed(raw), self.budget.take)
            try:
                self._fill(place, tar, digested=True)
                if tar.finish() != each.diff_id:
                    raise ImageError("it is not what the config says: its digest differs")
                if each.digest and raw.finish() != each.digest:
                    raise ImageError("it is not what the manifest says: its digest differs")
            except ImageError as error:
                raise ImageError(f"layer {each.diff_id[:19]}: {error}", hint=error.hint) from error

    def _fill(self, place: str, tar: streams.Hashed, *, digested: bool = False) -> None:
        layer.unpack(
            tarball.entries(tar, digested=digested), place, self.owner, self.budget, lambda: self._say("is unpacked")
        )
        tar.finish()

    def _require_unchanged(self, raw: streams.Hashed) -> None:
        if raw.finish() != self.digest:
            raise _changed()

    def _say(self, what: str) -> None:
        now = time.monotonic()
        if now - self.said >= _OFTEN:
            self.said = now
            size = f" ({self.budget.entries:,} files, {self.budget.bytes >> 20:,} MiB)" if self.budget.entries else ""
            self.progress(f"{os.path.basename(self.reference.path)} {what}{size}")


def _make_directories(directory: str, owner: Owner) -> None:
    for path in (directory, _images(directory), _layers(directory)):
        os.makedirs(path, 0o700, exist_ok=True)
    if owner:
        for path in (_images(directory), _layers(directory)):
            os.chmod(path, 0o711)  # the sandboxes' user passes through, to the layers


@contextmanager
def _new(directory: str, name: str) -> Iterator[str]:
    """A directory to be filled, which becomes the layer `name` when nothing is raised."""
    place = f"{_images(directory)}/{beneath.temporary()}"
    os.mkdir(place, 0o700)
    try:
        yield place
        beneath.sync_filesystem(place)  # before it has the name of one that is whole
        os.rename(place, _layer(directory, name))
    finally:
        beneath.remove_tree(place)


def _describe(directory: str, kept: Kept) -> None:
    body = {**kept._asdict(), "config": kept.config._asdict(), "form": _FORM}
    beneath.publish(_description(directory, kept.digest), json.dumps(body, indent=1).encode())


def _whole(content: streams.Section) -> bytes:
    return b"".join(iter(content.read, b""))


def _member(entry: tarball.Entry) -> str:
    return formats.normal(os.fsdecode(entry.path))


def _changed() -> ImageError:
    return ImageError("has changed since the plan was made", hint="run the plan again, and look at it")


# --- what is there -----------------------------------------------------------------------------


def _stacked(directory: str, layers: Collection[str]) -> list[str]:
    """The layers that make a difference. What is there twice is only where it is last: overlayfs refuses the
    same directory twice. What is below one whose root is opaque is hidden, which overlayfs does not know of roots."""
    stack: list[str] = []
    for each in layers:
        if each in stack:
            stack.remove(each)
        with suppress(OSError):
            if os.getxattr(_layer(directory, each), layer.OPAQUE) == b"y":
                stack.clear()
        stack.append(each)
    return stack


def _rooted(directory: str, lower: tuple[str, ...], config: Config) -> Root:
    """`config.user` looked up where an image says who that is."""
    layers = [path if path.startswith("/") else f"{directory}/{path}" for path in reversed(lower)]
    name, _, group = config.user.partition(":")
    users, groups = (_accounts(layers, file) for file in ("passwd", "group"))
    if not name:
        name = "0"
    by_id = {fields[2]: fields for fields in reversed(users.values())}
    known = by_id.get(name) if _is_number(name) else users.get(name)
    if known is None and not _is_number(name):
        raise ImageError(f"its user {formats.shown(name)} is not in its /etc/passwd")
    uid = int(known[2] if known else name)
    gid = int(known[3]) if known else 0
    if _is_number(group):
        gid = int(group)
    elif group:
        if group not in groups:
            raise ImageError(f"its group {formats.shown(group)} is not in its /etc/group")
        gid = int(groups[group][2])
    if max(uid, gid) >= 1 << 31:
        raise ImageError(f"its user has the number {max(uid, gid)}, which none can have")
    return Root(lower, config.env, known[0] if known else "", uid, gid)


def _accounts(layers: list[str], file: str) -> dict[str, list[str]]:
    """The lines of /etc/`file` by name, those whose names can be shown and whose numbers are numbers."""
    try:
        text = beneath.read_layered(layers, f"etc/{file}", _PASSWD).decode("utf-8", "replace")
    except OSError:
        return {}
    lines = [line.split(":") for line in text.splitlines()]
    return {
        fields[0]: fields
        for fields in reversed(lines)
        if len(fields) >= 3
        and fields[0].isprintable()
        and _is_number(fields[2])
        and (file == "group" or (len(fields) > 3 and _is_number(fields[3])))
    }


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= 20


def _load(directory: str, digest: str) -> Kept | None:
    try:
        with open(_description(directory, digest), "rb") as file:
            data = json.load(file)
        if data["form"] != _FORM or data["digest"] != digest:
            return None
        layers = tuple(data["layers"])
        if not all(_NAME.fullmatch(each) for each in layers):
            return None
        flat, part_of = data.get("flat", ""), data.get("part_of", "")
        if flat and not _NAME.fullmatch(flat):
            return None
        return Kept(digest, data["source"], layers, Config(**data["config"]), data["made_at"], flat, part_of)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")[:32]


def _images(directory: str) -> str:
    return f"{directory}/images"


def _layers(directory: str) -> str:
    return f"{directory}/images/layers"


def _layer(directory: str, name: str) -> str:
    return f"{directory}/images/layers/{name}"


def _description(directory: str, digest: str) -> str:
    return f"{_images(directory)}/{digest.removeprefix('sha256:')}.json"
