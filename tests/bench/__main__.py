"""Runs benchmarks and prints one table. Ends with 0 however slow something is: a number is for people to judge."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence

from sessionctl import errors
from tests.bench.benchmarks import BENCHMARKS, FULL, QUICK, Sizes
from tests.bench.lab import lab
from tests.bench.rows import Row, table


def main(argv: Sequence[str] | None = None, sizes: Sizes | None = None) -> int:
    """Runs the benchmarks that `argv` names, all when it names none, in `sizes` instead of the usual ones."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure how fast sessionctl is.")
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"only these: {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="fewer runs, and no thousand sessions")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.names) - BENCHMARKS.keys())
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    sizes = sizes or (QUICK if args.quick else FULL)
    rows: list[Row] = []
    try:
        with lab(_show) as place:
            for name, benchmark in BENCHMARKS.items():
                if name in args.names or not args.names:
                    rows += benchmark(place, sizes)
    except KeyboardInterrupt:
        return errors.INTERRUPTED
    finally:
        _show("")
    machine = {"python": platform.python_version(), "kernel": platform.release(), "cpus": os.cpu_count()}
    if args.json:
        print(json.dumps({"machine": machine, "rows": [row.data() for row in rows]}, indent=2))
    else:
        print(table(rows))
        print(f"\nPython {machine['python']}, Linux {machine['kernel']}, {machine['cpus']} CPUs")
    return errors.OK


def _show(doing: str) -> None:
    """One line on the terminal, over the last one."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{doing[:100]}")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
