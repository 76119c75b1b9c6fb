"""Sizes and times as people write and read them. Pure; knows no clock."""

import re

from sessionctl.errors import UsageError

_SIZE = re.compile(r"(\d{1,15})(?:\.(\d{1,9}))?([kMGT]B|[KMGT]iB)", re.ASCII)
_BYTES: dict[str, int] = {
    **{unit: 1000**power for power, unit in enumerate(("kB", "MB", "GB", "TB"), start=1)},
    **{unit: 1024**power for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), start=1)},
}

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def duration(seconds: float) -> str:
    """`seconds` in at most two units, largest first: ``0s``, ``45s``, ``10m``, ``2h 5m``, ``3d 4h``."""
    left = int(seconds)
    parts = []
    for unit, size in reversed(_SECONDS.items()):
        if left >= size:
            parts.append(f"{left // size}{unit}")
            left %= size
        elif parts:
            break
    return " ".join(parts[:2]) or "0s"


def parse_duration(text: str) -> float:
    """Seconds in a duration such as ``90s``, ``10m``, ``2h30m`` or ``7d``. The unit must be said.

    Raises `UsageError` for anything else, negative values included.
    """
    total, number = 0.0, ""
    for char in text.strip().lower().replace(" ", ""):
        if char.isdecimal() or char == ".":
            number += char
        elif char in _SECONDS and number.count(".") <= 1 and number.strip("."):
            total, number = total + float(number) * _SECONDS[char], ""
        else:
            break
    else:
        if text.strip() and not number:
            return total
    raise UsageError(f"{text!a} is not a duration", hint="write for example 90s, 10m, 2h30m or 7d")


def parse_size(text: str) -> int:
    """Bytes in a size such as ``512MiB``, ``1.5GiB`` or ``4GB``. The unit must be said: it is 1000 or 1024 times.

    Raises `UsageError` for anything else.
    """
    found = _SIZE.fullmatch(text)
    if not found:
        raise UsageError(f"{text!a} is not a size", hint="write for example 512MiB, 1.5GiB or 4GB")
    whole, part, unit = found[1], found[2] or "", found[3]
    return int(whole + part) * _BYTES[unit] // int("1" + "0" * len(part))


def size(count: int) -> str:
    """`count` bytes with a binary unit and three digits at most: ``512 B``, ``1.5 KiB``, ``12 MiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1000 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.1f} {unit}" if unit != "B" and value < 10 else f"{value:.0f} {unit}"
