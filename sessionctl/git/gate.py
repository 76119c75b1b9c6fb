"""The one way to git on the host, with a scrubbed environment.

This module may not run git with a git directory or work tree that an agent can write.
"""

from __future__ import annotations

from collections.abc import Mapping

from sessionctl import process
from sessionctl.errors import CommandError, GitError
from sessionctl.git.names import printable

_QUIET = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.attributesFile=/dev/null"),
    *("-c", "protocol.ext.allow=never"),
    *("-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false"),
)
_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_COMMITTER_NAME": "sessionctl",
    "GIT_COMMITTER_EMAIL": "sessionctl@localhost",
}


def run(
    git_dir: str,
    *args: str,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    input: bytes | None = None,
    timeout: float | None = None,
    check: bool = True,
) -> process.Completed:
    """Runs git on a git directory that no agent can write.

    Without hooks, fsmonitor, prompts, the system's or the user's configuration, and without any
    ``GIT_*`` variable of ours, so that it is right inside a git hook too. An explicit git directory
    also means that git asks nobody who owns it: `find_repository` has. With `check`, failure is
    a `GitError`; what git said is made printable.
    """
    argv = ("git", f"--git-dir={git_dir}", *_QUIET, *args)
    # `env` comes first: nothing that a caller passes through may switch the scrubbing off.
    whole = {**process.environment(env), **_ENVIRONMENT}
    try:
        return process.run(argv, env=whole, cwd=cwd, input=input, timeout=timeout, check=check)
    except CommandError as error:
        raise GitError(printable(str(error)), hint=error.hint) from error
