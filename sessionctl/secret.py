"""Values that a session gets from the host: looked up when a command runs inside, kept nowhere.

`found` reads them, `masked` takes them out of output that is kept. Nothing here may write a value
anywhere, or name one in an error.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping

from sessionctl import beneath
from sessionctl.errors import UsageError

MASK = b"***"
SHORTEST = 4
"""Bytes. What is shorter is in most output by chance: masking it would say more than it hides."""
_LIMIT = 96 * 1024
"""Bytes of a value: as many as a session's plain variables may have together."""


def names(env: Mapping[str, str | Mapping[str, str]]) -> set[str]:
    """Which variables in `env` have values that come from the host."""
    return {name for name, source in env.items() if not isinstance(source, str)}


def found(env: Mapping[str, str | Mapping[str, str]], *, but: Collection[str] = ()) -> dict[str, str]:
    """The values of those variables in `env` that come from the host, but for the names in `but`.

    Of a file it is the content without its last newline. `UsageError` when a variable is not set
    here, or a file cannot be read.
    """
    return {
        name: _variable(name, source["from_env"]) if "from_env" in source else _file(name, source["from_file"])
        for name, source in env.items()
        if not isinstance(source, str) and name not in but
    }


def _variable(name: str, variable: str) -> str:
    value = os.environ.get(variable)
    if value is None:
        raise UsageError(
            f"env.{name} comes from the variable {variable}, which is not set here",
            hint=f"set {variable} where sessionctl is run",
        )
    return value


def _file(name: str, path: str) -> str:
    def wrong(why: str) -> UsageError:
        return UsageError(f"env.{name} comes from {path}, which {why}", hint="see `sessionctl plan`")

    parent, file = os.path.split(path)
    if os.path.realpath(parent) != parent:
        raise wrong("is reached by a symbolic link that was not there when it was allowed")
    try:
        content = beneath.read(parent, file, _LIMIT)
    except OSError as error:
        raise wrong(f"cannot be read: {error.strerror}") from None
    if b"\0" in content:
        raise wrong("holds a NUL byte: no variable can")
    return os.fsdecode(content.removesuffix(b"\n").removesuffix(b"\r"))


def masked(output: bytes, values: Iterable[str], *, skip: int = 0) -> bytes:
    """`output` from byte `skip` on, with `MASK` for all that belongs to one of `values`.

    Also what overlaps, or begins before `skip`. A value of several lines is masked line by line, too.
    """
    spans = sorted(span for word in _words(values) for span in _spans(output, word))
    parts, at = [], skip
    for begin, end in spans:
        if end <= at:
            continue
        if begin >= at:
            parts += [output[at:begin], MASK]
        elif not parts:
            parts.append(MASK)
        at = end
    return b"".join([*parts, output[at:]])


def longest(values: Iterable[str]) -> int:
    """Bytes of the longest text that `masked` looks for."""
    return max(map(len, _words(values)), default=0)


def _words(values: Iterable[str]) -> set[bytes]:
    texts = {os.fsencode(value) for value in values}
    texts |= {line for text in texts for line in text.splitlines()}
    # A terminal inside writes a newline as two bytes.
    texts |= {text.replace(b"\n", b"\r\n") for text in texts}
    return {text for text in texts if len(text) >= SHORTEST}


def _spans(output: bytes, word: bytes) -> Iterable[tuple[int, int]]:
    at = output.find(word)
    while at >= 0:
        yield at, at + len(word)
        at = output.find(word, at + 1)
