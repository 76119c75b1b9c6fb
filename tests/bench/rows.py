"""What was measured, against what, and whether that is within the limit. Measures nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple


class Row(NamedTuple):
    """One line of the table."""

    name: str
    what: str
    value: float
    unit: str
    baseline: float | None = None
    """In the same unit; None where there is nothing to compare with."""
    against: str = ""
    """What the baseline is."""
    limit: float | None = None
    """None: only reported."""
    of: Literal["ratio", "value"] = "ratio"
    """What is limited."""

    @property
    def ratio(self) -> float | None:
        return self.value / self.baseline if self.baseline else None

    @property
    def verdict(self) -> str:
        """``ok``, ``over``, or nothing where there is no limit."""
        limited = self.ratio if self.of == "ratio" else self.value
        if self.limit is None or limited is None:
            return ""
        return "ok" if limited <= self.limit else "over"

    def data(self) -> dict[str, Any]:
        """The JSON form."""
        return {**self._asdict(), "ratio": self.ratio, "verdict": self.verdict}


def table(rows: Sequence[Row]) -> str:
    """The rows in columns, under their heads."""
    cells = [("BENCHMARK", "MEASURED", "", "BASELINE", "", "RATIO", "TARGET", "")]
    cells += [
        (
            row.name,
            row.what,
            f"{row.value:.1f} {row.unit}",
            row.against,
            f"{row.baseline:.1f} {row.unit}" if row.baseline is not None else "",
            f"{row.ratio:.1f}" if row.ratio is not None else "",
            (f"{row.limit:g}" if row.of == "ratio" else f"{row.limit:g} {row.unit}") if row.limit is not None else "",
            row.verdict,
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numbers = {2, 4, 5, 6}
    return "\n".join(
        "  ".join(
            f"{cell:>{width}}" if place in numbers else f"{cell:{width}}"
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )
