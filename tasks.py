"""What there is to do in this repository: ``invoke --list``. Each task is a command line or two; CI runs the README's.

Nothing of sessionctl may import this module.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zipfile
from pathlib import Path

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from sessionctl.tasks import sessions

ROOT = Path(__file__).parent
SCHEMA = ROOT / "schemas" / "sessions.schema.json"
PYTHON = sys.executable


@task(help={"only": "the words of pytest's -k", "jobs": "processes at a time: a number, or auto"})
def test(ctx: Context, only: str = "", jobs: str = "auto") -> None:
    """Run the tests."""
    chosen = f" -k '{only}'" if only else ""
    ctx.run(f"{PYTHON} -m pytest -q -n {jobs}{chosen}", pty=sys.stdout.isatty())


@task
def lint(ctx: Context) -> None:
    """Check style and types: ruff check, ruff format, mypy --strict."""
    for command in ("ruff check .", "ruff format --check .", "mypy"):
        ctx.run(f"{PYTHON} -m {command}")


@task(help={"check": "write nothing, and fail when it is stale"})
def schema(ctx: Context, check: bool = False) -> None:
    """Write the JSON Schema of the manifest."""
    from sessionctl import manifest

    text = json.dumps(manifest.schema(), indent=2, sort_keys=True) + "\n"
    if SCHEMA.read_text() == text:
        return
    if check:
        raise Exit(f"{SCHEMA.relative_to(ROOT)} is stale: invoke schema", 1)
    SCHEMA.write_text(text)
    print(f"wrote {SCHEMA.relative_to(ROOT)}")


@task
def docs(ctx: Context) -> None:
    """Write what pages show: parts made from the code, and the output of their commands."""
    ctx.run(f"{PYTHON} -m tests.reference")
    ctx.run(f"{PYTHON} -m tests.pages")


@task
def bench(ctx: Context) -> None:
    """Measure, and print the table."""
    ctx.run(f"{PYTHON} -m tests.bench", pty=sys.stdout.isatty())


@task(help={"minutes": "how long", "seed": "the first run to make, as a run that failed has printed (default: any)"})
def torture(ctx: Context, minutes: float = 10.0, seed: int = -1) -> None:
    """Do random things to sessions, kill what does them, and see that nothing is lost."""
    chosen = f" --seed {seed}" if seed >= 0 else ""
    ctx.run(f"{PYTHON} -m tests.torture --minutes {minutes}{chosen}", pty=sys.stdout.isatty())


@task(name="release-check")
def release_check(ctx: Context) -> None:
    """Build the wheel, install it alone, and look at both."""
    with tempfile.TemporaryDirectory(prefix="sessionctl-release-") as place:
        ctx.run(f"{PYTHON} -m pip wheel -q --no-deps --wheel-dir {place} {ROOT}")
        (wheel,) = Path(place).glob("*.whl")
        names = set(zipfile.ZipFile(wheel).namelist())
        if "sessionctl/py.typed" not in names:
            raise Exit(f"{wheel.name} lacks sessionctl/py.typed", 1)
        if strange := sorted(name for name in names if not name.startswith(("sessionctl/", "sessionctl-"))):
            raise Exit(f"{wheel.name} holds what is not for it: {', '.join(strange)}", 1)
        ctx.run(f"{PYTHON} -m venv {place}/venv && {place}/venv/bin/pip install -q {wheel}")
        # From elsewhere, so that it is the installed one and not these sources.
        with ctx.cd(place):
            ctx.run("venv/bin/sessionctl --version && venv/bin/python -m sessionctl --help")
        print(f"{wheel.name}: {len(names)} files")


ns = Collection(test, lint, schema, docs, bench, torture, release_check, sessions)
