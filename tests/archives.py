"""Images for tests, made with Python's own tarfile: whole ones, and those that somebody hostile would make."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Member = tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes = b"", mode: int = 0o644, **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = entry(name, tarfile.REGTYPE, mode=mode, **more)
    info.size = len(content)
    return info, content


def entry(name: str, kind: bytes, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.mtime = 1_000_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def directory(name: str, mode: int = 0o755) -> tarfile.TarInfo:
    return entry(name, tarfile.DIRTYPE, mode=mode)


def tar(members: Sequence[Member], format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for member in members:
            info, content = member if isinstance(member, tuple) else (member, b"")
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def config(layers: Sequence[bytes], **settings: Any) -> bytes:
    data = {"config": settings, "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}}
    return json.dumps(data).encode()


def docker(layers: Sequence[bytes], **settings: Any) -> bytes:
    """What ``docker save`` writes of an image of these layers: the manifest comes last."""
    body = config(layers, **settings)
    name = f"{digest(body)[7:]}.json"
    names = [f"{digest(layer)[7:]}/layer.tar" for layer in layers]
    manifest = json.dumps([{"Config": name, "RepoTags": ["demo:1"], "Layers": names}]).encode()
    files = dict(zip(names, layers, strict=True))
    return tar([file(path, content) for path, content in {**files, name: body, "manifest.json": manifest}.items()])


Blobs = dict[str, bytes]


def layout(layers: Sequence[bytes], pack: Callable[[bytes], bytes] = gzip.compress, **settings: Any) -> Blobs:
    """The files of an OCI image layout with the one image ``demo``."""
    body = config(layers, **settings)
    packed = [pack(layer) for layer in layers]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": {"digest": digest(body), "size": len(body)},
            "layers": [{"digest": digest(blob), "size": len(blob)} for blob in packed],
        }
    ).encode()
    blobs = {f"blobs/sha256/{digest(blob)[7:]}": blob for blob in (body, manifest, *packed)}
    return {**blobs, "oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index({"demo": manifest})}


def index(manifests: Mapping[str, bytes], **more: Any) -> bytes:
    tagged = [
        {"digest": digest(each), "annotations": {"org.opencontainers.image.ref.name": tag}, **more}
        for tag, each in manifests.items()
    ]
    return json.dumps({"schemaVersion": 2, "manifests": tagged}).encode()


def lay(place: Path, files: Mapping[str, bytes]) -> Path:
    for path, content in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content)
    return place


def programs(*names: str) -> list[Member]:
    """The entries of a root with these programs of the host and the libraries they load."""
    needed: dict[str, Path] = {}
    for name in names:
        found = shutil.which(name)
        assert found, f"{name} is missing here"
        needed[f"bin/{name}"] = Path(found)
        said = subprocess.run(["ldd", found], capture_output=True, text=True, check=False).stdout
        for word in said.split():
            if word.startswith("/"):
                needed[os.path.normpath(word).lstrip("/")] = Path(word)
    parents = sorted({parent for path in needed for parent in map(str, Path(path).parents)} - {"."})
    return [
        *map(directory, parents),
        *(file(path, source.read_bytes(), 0o755) for path, source in sorted(needed.items())),
    ]
