"""`python -m sessionctl` is `sessionctl`."""

from sessionctl.cli import main

raise SystemExit(main())
