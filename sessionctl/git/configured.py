"""What git's configuration says on the host: who commits, where hooks are, whose repositories are safe. The only
importer of GitPython.

This module may not read a configuration that an agent can write.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from sessionctl import process
from sessionctl.errors import GitError

if TYPE_CHECKING:
    from sessionctl.git.finding import Repository


def identity(repository: Repository) -> tuple[str, str]:
    """The name and e-mail address the user commits with there; empty where none is configured."""
    import configparser

    from git import Repo
    from git.config import GitConfigParser, get_config_path
    from git.exc import GitError as GitPythonError

    # Named file by file: GitPython would otherwise ask GIT_COMMON_DIR, which a hook has set for another repository.
    files = [get_config_path("system"), get_config_path("user"), get_config_path("global")]
    files.append(os.path.join(repository.common_dir, "config"))
    try:
        # The repository is for `includeIf`, by which people keep two identities apart.
        with Repo(repository.git_dir) as repo, GitConfigParser(files, read_only=True, repo=repo) as config:
            name, email = (config.get_value("user", key, default="") for key in ("name", "email"))
    except (OSError, ValueError, configparser.Error, GitPythonError) as error:
        raise GitError(f"git's configuration cannot be read: {error}", hint="try: git config --list") from error
    return str(name), str(email)


class HooksDirectory(NamedTuple):
    """Where git looks for the hooks of a checkout."""

    path: str
    elsewhere: str
    """Where ``core.hooksPath`` was set, such as ``global``, if it leads out of the repository; else empty."""


def hooks_directory(repository: Repository) -> HooksDirectory:
    """Where git looks for the hooks of this checkout, by the user's whole configuration. May not exist."""
    own = os.path.join(repository.common_dir, "hooks")
    asked = ("config", "--null", "--show-scope", "--type=path", "--get", "core.hooksPath")
    extra = {name: os.environ[name] for name in ("XDG_CONFIG_HOME",) if name in os.environ}
    argv = ("git", f"--git-dir={repository.git_dir}", *asked)
    scope, _, path = process.run(argv, env=process.environment(extra), check=False).text().partition("\0")
    if not path:
        return HooksDirectory(own, "")
    # Relative to where hooks run: the top of the checkout, or the repository itself when it is bare.
    path = os.path.join(repository.root, path.removesuffix("\0"))
    same = os.path.realpath(path) == os.path.realpath(own)
    return HooksDirectory(own if same else path, "" if same else scope)


_PROGRAMS = re.compile(
    r"core\.fsmonitor|(filter|diff|merge)\..*\.(clean|smudge|process|textconv|command|driver)|diff\.external", re.DOTALL
)


def runs_what_it_finds(repository: Repository) -> tuple[str, ...]:
    """The settings by which git runs programs out of the checkout that it is called in, by the user's configuration."""
    extra = {name: os.environ[name] for name in ("XDG_CONFIG_HOME",) if name in os.environ}
    argv = ("git", f"--git-dir={repository.git_dir}", "config", "--null", "--list", "--includes")
    listed = os.fsdecode(process.run(argv, env=process.environment(extra)).stdout).split("\0")
    pairs = (entry.partition("\n") for entry in listed if entry)
    return tuple(dict.fromkeys(key for key, _, value in pairs if _is_found_there(key, value)))


def _is_found_there(key: str, value: str) -> bool:
    if key == "core.hookspath":
        return bool(value) and not value.startswith(("/", "~"))
    program = value.strip().partition(" ")[0].strip("\"'")
    return bool(_PROGRAMS.fullmatch(key)) and "/" in program and not program.startswith(("/", "~", "$"))


def declared_safe(root: str) -> bool:
    extra = {"GIT_CEILING_DIRECTORIES": "/", "LC_ALL": "C"}
    if "XDG_CONFIG_HOME" in os.environ:
        extra["XDG_CONFIG_HOME"] = os.environ["XDG_CONFIG_HOME"]
    asked = ("git", "config", "--null", "--type=path", "--get-all", "safe.directory")
    ended = process.run(asked, cwd="/", env=process.environment(extra), check=False)
    safe = False
    for value in os.fsdecode(ended.stdout).split("\0")[:-1]:
        if not value:
            safe = False  # An empty value takes back what came before it.
        elif value in ("*", root) or (value.endswith("/*") and root.startswith(value[:-1])):
            safe = True
    return safe
