"""What git says of one session: branch, commit, and how far that is from what others have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sessionctl.render.text import moment, printable

if TYPE_CHECKING:
    from sessionctl.model import GitState


def git_data(state: GitState) -> dict[str, Any]:
    return {
        "branch": state.branch,
        "commit": state.commit,
        "dirty": state.dirty,
        "dirty_at": moment(state.dirty_at),
        "ahead": state.ahead,
        "behind": state.behind,
        "unpushed": state.unpushed,
        "git_error": state.error or None,
    }


def branch_of(state: GitState) -> str:
    if state.error:
        return "unreadable"
    if state.branch:
        return printable(state.branch)
    return "(detached)" if state.commit else "-"


def tree_of(state: GitState) -> str:
    return {None: "?", True: "dirty", False: "clean"}[state.dirty] if state.commit or state.dirty is not None else "-"


def distance_of(state: GitState) -> str:
    if state.commit is None:
        return "-"
    parts = []
    for count, word in ((state.ahead, "ahead"), (state.behind, "behind"), (state.unpushed, "unpushed")):
        if count is None:
            parts.append(f"{word} ?")
        elif count:
            parts.append(f"{word} {count}")
    return ", ".join(parts) or "at base"
