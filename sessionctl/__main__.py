"""`python -m sessionctl` is `sessionctl`."""

from sessionctl.cli import program

raise SystemExit(program())
