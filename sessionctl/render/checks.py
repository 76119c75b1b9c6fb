"""What `doctor` found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sessionctl.render.text import Paint, printable

if TYPE_CHECKING:
    from sessionctl.doctor import Check


def checks_text(checks: Sequence[Check], paint: Paint) -> str:
    lines = []
    for check in checks:
        good = paint("yellow", "!  ") if check.remedy else paint("green", "ok ")
        sign = good if check.ok else paint("red", "NO ")
        lines.append(f"{sign} {check.what}: {printable(check.found)}")
        if check.remedy:
            lines.append(f"    {printable(check.remedy)}")
    return "\n".join(lines)
