"""What a manifest names on the host: where it leads, what it holds, and whether it may be had.

Nothing is written or run here. Files are read that are injected, and images, for their digests; where else a
path leads is asked, and not what is there. All that was looked at is kept, because the answer depends on it.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any, NamedTuple

from sessionctl import beneath, images
from sessionctl.declared import remembered
from sessionctl.errors import ImageError, Problem
from sessionctl.images import extra
from sessionctl.manifest.layers import Value
from sessionctl.manifest.rules import is_below
from sessionctl.manifest.wording import quoted
from sessionctl.model import FileSpec, MountSpec

SOURCE_BYTES = 16 * 1024 * 1024
"""Of a file that is injected."""


class Findings(NamedTuple):
    """What is wrong, as far as was looked."""

    problems: list[Problem]
    untrusted: list[Problem]
    """What would be in order if a person had allowed it."""


class _Refused(Exception):
    """A file that the manifest names cannot be used."""

    def __init__(self, message: str, *, outside: bool = False) -> None:
        super().__init__(message)
        self.outside = outside


class Host:
    """The host as a manifest of the repository at `root`, a real path, may name it.

    Each file is looked at once, however many sessions name it. What is wrong goes to `findings`.
    """

    def __init__(self, root: str, findings: Findings) -> None:
        self._root, self._findings = root, findings
        self._git = os.path.realpath(os.path.join(root, ".git"))
        self.inputs: dict[str, None] = {}
        """Absolute paths of what was read, as they were named, in order."""
        self.links: dict[str, None] = {}
        """The same of what was not read, but only followed."""
        self._digests: dict[str, str] = {}
        self._images: dict[images.Reference, images.Pinned] = {}
        self._programs: dict[tuple[str, ...], images.Pinned] = {}

    def files(self, value: Value) -> tuple[FileSpec, ...]:
        """What the tables of `value`, all of one session's files, put into its home; without those that cannot be."""
        specs = []
        for number, table in enumerate(value.value):
            if "content" in table.model_fields_set:
                digest = hashlib.sha256(table.content.encode()).hexdigest()
                specs.append(FileSpec(path=table.path, sha256=digest, mode=table.mode, content=table.content))
                continue
            try:
                real = self._real(_named(table.source, value), anywhere=True)
                outside = self._is_outside(real, value)
                specs.append(FileSpec(table.path, self._digest(real), table.mode, source=real, outside=outside))
            except _Refused as refused:
                self._refuse(value, refused, table.source, number, "source")
        return tuple(specs)

    def mounts(self, value: Value) -> tuple[MountSpec, ...]:
        return tuple(MountSpec(self.leads(table.source, value), table.path, table.mode) for table in value.value)

    def variable(self, value: Value) -> str | dict[str, str]:
        """The value of a variable; of a secret, where it is found."""
        given = value.value
        if isinstance(given, str):
            return given
        return {"from_env": given.from_env} if given.from_env else {"from_file": self.leads(given.from_file, value)}

    def require_included(self, value: Value) -> None:
        """Finds what of `value`, paths in the repository, is no file there."""
        for number, text in enumerate(value.value):
            try:
                real = self._real(os.path.join(self._root, text), anywhere=False)
                if not os.path.isfile(real):
                    raise _Refused("is not a regular file" if os.path.lexists(real) else "does not exist")
            except _Refused as refused:
                self._refuse(value, refused, text, number)

    def image(self, value: Value) -> dict[str, Any]:
        """The fields of a declaration that `value`, an image, decides."""
        reference = images.parse(value.value)
        if reference is None:
            return {"image": images.HOST}
        try:
            real = self._real(_named(reference.path, value), anywhere=True)
            reference = reference._replace(path=real)
            if reference not in self._images:
                self._images[reference] = _pinned(reference)
        except (_Refused, ImageError) as refused:
            hint = refused.hint if isinstance(refused, ImageError) else ""
            self._findings.problems.append(value.problem(f"{quoted(value.value)} {refused}", hint=hint))
            return {"image": images.HOST}
        pinned = self._images[reference]
        self.inputs.update(dict.fromkeys(pinned.inputs))
        outside = self._is_outside(real, value)
        return {"image": str(reference), "image_digest": pinned.digest, "image_outside": outside}

    def programs(self, value: Value) -> dict[str, Any]:
        """The same of `value`, names of the host's programs."""
        if not value.value:
            return {}
        names = tuple(sorted(value.value))
        if names not in self._programs:
            self._programs[names] = images.Pinned("", ())
            try:
                self._programs[names] = extra.pin(names)
            except (ImageError, OSError) as error:
                said = (str(error), error.hint) if isinstance(error, ImageError) else (f"{error.filename}: {error}", "")
                self._findings.problems.append(value.problem(said[0], hint=said[1]))
        pinned = self._programs[names]
        self.inputs.update(dict.fromkeys(pinned.inputs))
        return {"image_extra": names, "image_extra_digest": pinned.digest}

    def leads(self, path: str, value: Value) -> str:
        """Where `path`, named by `value`, leads. What is there is not looked at."""
        named = _named(path, value)
        self.links[named] = None
        return os.path.realpath(named)

    # One file.

    def _real(self, path: str, *, anywhere: bool) -> str:
        """The real path of `path`; `_Refused` when that is in git's own directory or, unless `anywhere`, outside."""
        real = os.path.realpath(path)
        self.inputs[path] = None
        inside = is_below(real, self._root)
        if not inside and not anywhere:
            raise _Refused("leads outside of the repository", outside=True)
        if is_below(real + "/", self._git) or (inside and ".git" in real[len(self._root) :].lower().split("/")):
            raise _Refused("lies inside .git")
        return real

    def _is_outside(self, real: str, value: Value) -> bool:
        """Whether the repository names with `value` what is not its own."""
        return not value.source.ours and not is_below(real, self._root)

    def _digest(self, real: str) -> str:
        """The hash of the regular file at `real`, which is opened without following links that appeared since."""
        if real not in self._digests:
            base = self._root if is_below(real, self._root) else os.path.dirname(real)
            try:
                content = beneath.read(base, os.path.relpath(real, base), SOURCE_BYTES)
            except OSError as error:
                raise _Refused(f"cannot be read: {error.strerror}") from error
            self._digests[real] = hashlib.sha256(content).hexdigest()
        return self._digests[real]

    def _refuse(self, value: Value, refused: _Refused, named: str, *more: str | int) -> None:
        into = self._findings.untrusted if refused.outside else self._findings.problems
        into.append(value.problem(f"{quoted(named)} {refused}", *more))


def _named(path: str, value: Value) -> str:
    """`path`, named by `value`, as an absolute one."""
    expanded = os.path.expanduser(path) if path == "~" or path.startswith("~/") else path
    return os.path.join(value.source.directory, expanded)


def _pinned(reference: images.Reference) -> images.Pinned:
    if reference.kind != "archive":
        return images.pin(reference)
    # All of it must be read for its digest; of one that did not change that is known.
    return images.Pinned(remembered(reference.path, lambda: images.pin(reference).digest), (reference.path,))
