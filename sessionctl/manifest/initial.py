"""The first manifest of a repository, as `init` writes it."""

from __future__ import annotations

import json


def template(branch: str) -> str:
    """The text of a first manifest: one session whose work starts from `branch` (empty: what is checked out)."""
    base = f", base = {json.dumps(branch, ensure_ascii=False)}" if branch else ""
    return f"""\
# Isolated sessions of coding agents on this repository.
# `sessionctl plan` says what would be done, `sessionctl apply` does it.
version = 1

# [defaults] may hold any key of a session, for all of them.

[sessions.agent]
agent = "claude"
workspace = {{ branch = "agents/agent"{base} }}  # its commits land on this branch
# setup = ["make deps"]                # runs inside, once, after the sandbox was made
# env = {{ LOG_LEVEL = "debug" }}
# files = [{{ path = "~/.config/tool.toml", source = "tool.toml", mode = "0600" }}]
"""
