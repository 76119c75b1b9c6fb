"""A person at a terminal, who types command lines and says yes to what is asked."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Callable

from tests.pages import World


def answering(world: World, place: str = ".") -> Callable[[str], tuple[int, str]]:
    """What types a line in `place`, seen from the project: it returns its exit code, and all that it shows."""

    def type(line: str) -> tuple[int, str]:
        master, slave = pty.openpty()
        os.write(master, b"y\n")
        try:
            done = subprocess.run(
                ["bash", "-c", line],
                cwd=world.project / place,
                env=world.env,
                # What runs in a session would read the answer as its input, and wait for more.
                stdin=subprocess.DEVNULL if " exec " in line else slave,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=120,
                check=False,
            )
        finally:
            os.close(master)
            os.close(slave)
        return done.returncode, done.stdout

    return type
