"""Git hooks: the scripts in a repository's hooks directory, and what a hook does when git calls it.

A script knows itself by a mark. What stood in its place before is kept beside it, is run first, and is put back
by `uninstall` as the same file. May not print or ask, and may not wait for another sessionctl: what a hook has
to say is returned, and nothing is said when nothing happened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from sessionctl import errors, git
from sessionctl.errors import ConflictError, GitError, SessionctlError, UsageError

if TYPE_CHECKING:
    from sessionctl.app import Project
    from sessionctl.plan import Plan

EVENTS: Mapping[str, str] = {"post-commit": "commit", "post-checkout": "checkout", "post-merge": "merge"}
"""The event that each recording hook adds to the history."""
HOOKS = (*EVENTS, "pre-push")
"""All hooks that can be installed. ``pre-push`` records nothing: it runs `verify`, and only for who asked for it."""
KEPT = ".before-sessionctl"
"""What is added to the name of a hook that stood in the place of ours."""
_MARK = b"# sessionctl hook 4f0e7c61:"

State = Literal["installed", "outdated", "foreign", "absent"]


class Hook(NamedTuple):
    """One hook as it is in the hooks directory."""

    name: str
    state: State
    """``outdated``: ours, of another version or for a program that is elsewhere; ``foreign``: somebody else's."""
    kept: str | None
    """The file of the hook that ours runs first, which `uninstall` puts back."""


class Report(NamedTuple):
    """What a hook did."""

    code: int
    """An exit code. The scripts of the recording hooks do not hand it on: git's command has succeeded already."""
    lines: tuple[str, ...] = ()
    """What to tell the person; empty when nothing happened."""


# --- the scripts -------------------------------------------------------------------------------

_SCRIPT = """\
#!/bin/sh
{mark} `sessionctl hooks uninstall` removes it, and puts back what stood here before.
kept="${{0%/*}}/{hook}{kept}"
code=0
if [ -x "$kept" ]; then
    "$kept" "$@" || code=$?
fi
{between}ours() {{
    if [ -x {program} ]; then
        {command} "$@"
    elif command -v sessionctl >/dev/null 2>&1; then
        sessionctl{options} "$@"
    else
        return 127
    fi
}}
ours hooks run {hook} -- "$@" </dev/null
ended=$?
case $ended in
126 | 127)
    echo {complaint} >&2
    ended=0
    ;;
esac
exit "${end}"
"""


def script(hook: str, program: Sequence[str], options: Sequence[str]) -> bytes:
    """The script for `hook`. It calls `program`, or what is on PATH when that is gone, with `options`."""
    import shlex

    what = "not verified" if hook == "pre-push" else "nothing was recorded"
    complaint = (
        f"sessionctl: {hook}: {what}: there is no {program[0]}, and no sessionctl on PATH "
        "(install it and run `sessionctl hooks install`, or remove this hook)"
    )
    # A push that the other hook has refused needs no second answer.
    between = '[ "$code" = 0 ] || exit "$code"\n' if hook == "pre-push" else ""
    text = _SCRIPT.format(
        mark=_MARK.decode(),
        hook=hook,
        kept=KEPT,
        between=between,
        program=shlex.quote(program[0]),
        command=shlex.join([*program, *options]),
        options="".join(f" {shlex.quote(word)}" for word in options),
        complaint=shlex.quote(complaint),
        end="ended" if hook == "pre-push" else "code",
    )
    return os.fsencode(text)


def found(repository: git.Repository) -> git.HooksDirectory:
    """Where git looks for the hooks of `repository`, which may not exist, and whose ``core.hooksPath`` says so."""
    return git.hooks_directory(repository)


def directory(repository: git.Repository, *, elsewhere: bool = False) -> str:
    """Where git looks for the hooks of `repository`.

    `UsageError` when ``core.hooksPath`` leads out of it, unless `elsewhere` says that this is meant.
    """
    place = found(repository)
    if place.elsewhere and os.path.lexists(place.path) and not os.path.isdir(place.path):
        raise UsageError(
            f"core.hooksPath ({place.elsewhere}) is {place.path}, which is no directory: git runs no hooks here",
            hint=f"to use those of the repository: git config --{place.elsewhere} --unset core.hooksPath",
        )
    if place.elsewhere and not elsewhere:
        raise UsageError(
            f"core.hooksPath ({place.elsewhere}) is {place.path}: git looks for hooks there and not in the repository",
            hint="to install there, for every repository that uses it: sessionctl hooks install --in-hooks-path",
        )
    return place.path


def status(where: str, program: Sequence[str], options: Sequence[str] = ()) -> list[Hook]:
    """Each hook as it is in the directory `where`."""
    return [_look(where, hook, script(hook, program, options)) for hook in HOOKS]


def install(where: str, hooks: Iterable[str], program: Sequence[str], options: Sequence[str] = ()) -> list[Hook]:
    """Installs `hooks` in the directory `where`, which is made; those that were written, as they were before.

    `ConflictError` before anything is written when one of them has a foreign hook in its place and another one kept.
    """
    from sessionctl import beneath

    wanted = {hook: script(hook, program, options) for hook in hooks}
    found = [_look(where, hook, text) for hook, text in wanted.items()]
    for hook in found:
        if hook.state == "foreign" and hook.kept:
            raise ConflictError(
                f"{os.path.join(where, hook.name)} is not ours, and {hook.kept} was kept from an earlier install",
                hint="move one of the two away",
            )
    written = [hook for hook in found if hook.state != "installed"]
    try:
        os.makedirs(where, exist_ok=True)
        for hook in written:
            path = os.path.join(where, hook.name)
            if hook.state == "foreign":
                # A second name first: whenever this is cut short, the place of the hook is never empty.
                os.link(path, path + KEPT, follow_symlinks=False)
            beneath.publish(path, wanted[hook.name], 0o755)
    except OSError as error:
        raise GitError(f"{error.filename or where} cannot be written: {error.strerror}") from error
    return written


def uninstall(where: str, hooks: Iterable[str]) -> list[Hook]:
    """Removes `hooks` from the directory `where` and puts back what they stood in place of; those that were ours."""
    removed = [hook for hook in (_look(where, name, b"") for name in hooks) if hook.state == "outdated"]
    try:
        for hook in removed:
            path = os.path.join(where, hook.name)
            if hook.kept:
                os.rename(hook.kept, path)
            else:
                os.unlink(path)
    except OSError as error:
        raise GitError(f"{error.filename or where} cannot be changed: {error.strerror}") from error
    return removed


def _look(where: str, name: str, text: bytes) -> Hook:
    """The hook `name`; installed when its script is `text`."""
    path = os.path.join(where, name)
    kept = path + KEPT if os.path.lexists(path + KEPT) else None
    try:
        info = os.lstat(path)
        if stat.S_ISDIR(info.st_mode):
            raise GitError(f"{path} is a directory", hint="move it away")
        if not stat.S_ISREG(info.st_mode):
            return Hook(name, "foreign", kept)
        with open(path, "rb") as file:
            found = file.read(1 << 16)
    except FileNotFoundError:
        return Hook(name, "absent", kept)
    except OSError as error:
        raise GitError(f"{path} cannot be read: {error.strerror}") from error
    if _MARK not in found[:200]:
        return Hook(name, "foreign", kept)
    return Hook(name, "installed" if found == text and info.st_mode & 0o111 else "outdated", kept)


# --- called by git -----------------------------------------------------------------------------


def repository_of_hook(environ: Mapping[str, str]) -> str:
    """Where the repository is that git calls a hook for: the directory the hook runs in, unless ``GIT_DIR`` is one
    that nothing there leads to."""
    given = environ.get("GIT_DIR")
    if not given:
        return "."
    try:
        if git.find_repository(".").git_dir == os.path.realpath(given):
            return "."
    except GitError:
        pass  # the work tree of a GIT_DIR that is elsewhere: nothing in it says whose it is
    return given


def run(project: Project, hook: str, words: Sequence[str]) -> Report:
    """What `hook` does when git calls it with the arguments `words`. No GIT_* may be in the environment any more."""
    if hook == "pre-push":
        return _verify(project)
    if hook == "post-checkout" and words[2:] == ["0"]:
        return Report(errors.OK)  # files were checked out, no branch
    try:
        during = git.under_way(project.repository)
        project.note_git(EVENTS[hook], checkout=project.repository.root, **({"during": during} if during else {}))
    except SessionctlError as error:
        return Report(error.exit_code, (_said(hook, f"nothing was recorded: {error}", error.hint),))
    # In the middle of a rebase the manifest is one of a commit that nobody has looked at.
    if during or not project.settings.hooks_apply or not project.has_manifest:
        return Report(errors.OK)
    try:
        return _apply(project, hook)
    except SessionctlError as error:
        return Report(error.exit_code, (_said(hook, f"not applied: {error}", error.hint),))


def _apply(project: Project, hook: str) -> Report:
    from sessionctl.plan import Policy

    plan = project.plan(policy=Policy(additive=True))
    lines = [_said(hook, f"{lane.session} was not made: {'; '.join(lane.refused)}") for lane in plan.refused]
    code = errors.USAGE if plan.refused else errors.OK
    if plan.work and not plan.refused:
        for outcome in project.apply(plan, wait=0.0):
            if outcome.result == "failed":
                code = errors.FAILED
                hint = getattr(outcome.error, "hint", "")
                lines.append(_said(hook, f"{outcome.session}: {outcome.action.verb}: {outcome.error}", hint))
            elif outcome.result == "done" and outcome.action.verb in ("create", "start"):
                lines.append(_said(hook, f"{outcome.session}: {outcome.action.verb}"))
    if plan.untrusted:
        lines += _untrusted(hook, plan)
        code = code or errors.UNTRUSTED
    return Report(code, tuple(lines))


def _untrusted(hook: str, plan: Plan) -> list[str]:
    names = " ".join(lane.session for lane in plan.untrusted)
    return [
        _said(hook, f"not applied, because not allowed yet to take from the host: {names}", "see `sessionctl plan`")
    ]


def _verify(project: Project) -> Report:
    if not project.has_manifest:
        return Report(errors.OK)
    try:
        plan = project.plan()
    except SessionctlError as error:
        return Report(error.exit_code, (_said("pre-push", f"not verified: {error}", error.hint),))
    if plan.in_sync:
        return Report(errors.OK)
    names = " ".join(
        lane.session for lane in plan.lanes if lane.actions or lane.blocked or lane.refused or lane.untrusted
    )
    said = _said("pre-push", f"not as declared: {names}", "see `sessionctl plan`; to push all the same: --no-verify")
    return Report(errors.CHANGES, (said,))


def failed(hook: str, error: SessionctlError) -> Report:
    """What a hook says that could not even begin."""
    return Report(error.exit_code, (_said(hook, f"nothing was done: {error}", error.hint),))


def _said(hook: str, text: str, hint: str = "") -> str:
    return f"sessionctl: {hook}: {text}{f' ({hint})' if hint else ''}"
