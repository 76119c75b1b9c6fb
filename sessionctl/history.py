"""What git says of each session, and keeping it.

Looks as little as the question needs: HEAD and refs are read as files; whatever needs git runs in an
inspection sandbox, and only when what was read last no longer holds. Decides nothing about sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from sessionctl import beneath, git, process, workspace
from sessionctl.backends import Backend
from sessionctl.errors import GitError, SessionctlError
from sessionctl.model import GitState, Merged, Observed, Record, Workspace

Depth = Literal["head", "counts", "changes", "full"]
"""How far to look: branch and commit, as files · also ahead, behind and unpushed, if they moved ·
also dirty, if a file changed · everything anew."""

_INSPECTION = 120.0
"""Seconds that git may take inside; an agent can make a repository that takes for ever."""


class Reader:
    """Reads the git state of sessions against one state of the host repository."""

    def __init__(
        self, repository: git.Repository, backend: Callable[[str], Backend], clock: Callable[[], float]
    ) -> None:
        self._repository = repository
        self._backend = backend
        self._clock = clock

    @cached_property
    def _refs(self) -> git.HostRefs:
        return git.host_refs(self._repository)

    def look(self, observed: Observed, record: Record | None, depth: Depth) -> GitState:
        """The git state of the session in `observed`; what is not looked at anew is as in `record`, if that holds."""
        known = record.git if record is not None else GitState()
        stands_on = observed.workspace
        if stands_on is None:
            return GitState(error="its sandbox is not whole")
        if mode_of(observed) == "bind":
            return self._host_checkout()
        if not stands_on.commit:
            return self._without_git(stands_on.upper, known, depth)
        head = git.read_head(workspace.layers(stands_on))
        if head.error:
            return GitState(error=head.error)
        state = known._replace(branch=head.branch, commit=head.commit, error="")
        if head.commit != known.commit:
            state = state._replace(ahead=None, behind=None, unpushed=None)
        if depth in ("counts", "changes", "full"):
            state = self._count(observed, state, stands_on.commit, again=depth == "full")
        if depth in ("changes", "full"):
            state = self._changes(observed, state, stands_on, again=depth == "full")
        return state

    def born(self, observed: Observed) -> GitState:
        """The git state of a session that was just made, and in which nothing has run yet."""
        stands_on = observed.workspace
        if mode_of(observed) == "bind":
            return self._host_checkout()
        if stands_on is None or not stands_on.commit:
            return GitState()
        head = git.read_head(workspace.layers(stands_on))
        tip = self.base_tip(observed)
        behind = 0 if tip == stands_on.commit else None
        against = self._against(tip) if behind == 0 else ""
        state = head._replace(ahead=0, behind=behind, unpushed=0, against=against)
        if observed.made_of is None or observed.made_of.data["workspace"]["include"]:
            return state
        seen = workspace.fingerprint(*workspace.written(stands_on))
        return state._replace(dirty=False, seen=seen, dirty_at=self._clock())

    def base_tip(self, observed: Observed) -> str | None:
        """The commit at which the declared base of the session is now; None when the host has no such ref."""
        declared = observed.made_of.data["workspace"]["base"] if observed.made_of is not None else ""
        if not declared:
            return git.host_head(self._repository, self._refs.tips)[1]
        candidates = (declared, f"refs/heads/{declared}", f"refs/tags/{declared}", f"refs/remotes/{declared}")
        return next((self._refs.tips[ref] for ref in candidates if ref in self._refs.tips), None)

    def inside(self, observed: Observed) -> git.Inside:
        """Runs a program in the inspection sandbox of `observed`."""
        backend = self._backend(observed.backend)

        def run(argv: Sequence[str], stdin: bytes) -> process.Completed:
            command = backend.command(observed, argv, inspect=True)
            return process.run(command.argv, env=command.env, input=stdin, timeout=_INSPECTION, check=False)

        return run

    def _count(self, observed: Observed, state: GitState, base: str, *, again: bool) -> GitState:
        tip = self.base_tip(observed)
        against = self._against(tip)
        known = None not in (state.ahead, state.unpushed) and (state.behind is not None or tip is None)
        if known and not again and _holds(state, against):
            return state
        if state.commit is None:
            return state._replace(ahead=None, behind=None, unpushed=None, against=against)
        ahead, behind, unpushed = git.count(self.inside(observed), state.commit, base, tip, self._kept)
        if behind is None and tip is not None:
            # With a history of its own the session lacks the tip; the host may have the session's commit.
            behind = git.host_count(self._repository, state.commit, tip)
        return state._replace(ahead=ahead, behind=behind, unpushed=unpushed, against=against)

    def with_reflogs(self, observed: Observed, state: GitState) -> GitState:
        """`state`, just read of `observed`, with what was amended, rebased or reset away among the unpushed commits."""
        stands_on = observed.workspace
        if state.commit is None or stands_on is None or not stands_on.commit:
            return state
        inside = self.inside(observed)
        *_, unpushed = git.count(inside, state.commit, stands_on.commit, None, self._kept, reflogs=True)
        return state._replace(unpushed=unpushed)

    def merged(self, observed: Observed, state: GitState) -> Merged:
        """What of the unpushed commits in `state`, which was just read of `observed`, is merged."""
        if not state.unpushed or state.commit is None or observed.workspace is None:
            return Merged()
        from sessionctl import merged

        kept = set(self._kept)
        return merged.look(self.inside(observed), self._repository, state, observed.workspace.commit, kept)

    @property
    def _kept(self) -> Iterator[str]:
        """What the refs are at that hold commits when the session is gone."""
        return (tip for ref, tip in self._refs.tips.items() if not ref.startswith(self._own))

    @property
    def _own(self) -> str:
        # Pins of base layers come and go with sessions: a commit that only they hold is held by nobody.
        return f"refs/sessionctl/{self._repository.project}/base/"

    def _against(self, tip: str | None) -> str:
        return f"{tip or '-'} {self._refs.fingerprint}"

    def _host_checkout(self) -> GitState:
        # What is in it is the user's own, and is not lost with a session: whether it is dirty is not asked.
        branch, commit = git.host_head(self._repository, self._refs.tips)
        return GitState(branch=branch or None, commit=commit)

    def _changes(self, observed: Observed, state: GitState, stands_on: Workspace, *, again: bool) -> GitState:
        seen = workspace.fingerprint(*workspace.written(stands_on))
        if not again and seen and seen == state.seen and state.dirty is not None:
            return state
        if not seen and not again:
            return state._replace(dirty=None, changes=(), seen="", dirty_at=None)
        written = list(beneath.walk(stands_on.upper))
        if pipe := git.blocking(written):
            # No commit can hold it, and git would not come back.
            changes: tuple[str, ...] = (git.printable(pipe),)
            at = self._clock() if state.changes != changes else state.dirty_at
            return state._replace(dirty=True, changes=changes, seen=seen, dirty_at=at)
        paths = [entry.path for entry in written]
        frozen = [entry.path for layer in stands_on.lower[1:] for entry in beneath.walk(layer)]
        dirty, changes, error = git.full_status(self.inside(observed), state, paths, frozen)
        if dirty is None:
            return state._replace(dirty=None, changes=(), seen="", dirty_at=None, error=error)
        at = self._clock() if (dirty, changes, seen) != (state.dirty, state.changes, state.seen) else state.dirty_at
        return state._replace(dirty=dirty, changes=changes, seen=seen, dirty_at=at)

    def _without_git(self, upper: str, known: GitState, depth: Depth) -> GitState:
        if depth in ("head", "counts"):
            return known
        paths = [entry.path for entry in beneath.walk(upper)]
        changes = tuple(git.printable(path) for path in paths[:10])
        at = known.dirty_at if (known.dirty, known.changes) == (bool(paths), changes) else self._clock()
        return GitState(dirty=bool(paths), changes=changes, unpushed=0, dirty_at=at)


def mode_of(observed: Observed) -> str:
    """The mode of the workspace that a sandbox was made with; empty when it is half made."""
    return str(observed.made_of.data["workspace"]["mode"]) if observed.made_of is not None else ""


def _holds(state: GitState, against: str) -> bool:
    """Whether counts of another time still hold: nothing moved, or only refs that cannot make them grow."""
    tip, _, _ = against.partition(" ")
    same_tip = state.against.partition(" ")[0] == tip
    return state.against == against or (same_tip and state.unpushed == 0)


def only_here(home: str, injected: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The first few files of a sandbox's home that are not ours and not a cache: work, as far as anyone can tell.

    `injected` is ``files`` of the declaration's JSON form.
    """
    ours = {file["path"].removeprefix("~/") for file in injected}
    found: list[str] = []
    try:
        for entry in beneath.walk(home):
            if entry.kind == "dir" or entry.path in ours or entry.path.startswith(".cache/"):
                continue
            found.append(git.printable(f"~/{entry.path}"))
            if len(found) == 10:
                break
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise GitError(f"{home} cannot be read: {error.strerror}") from error
    return tuple(found)


def explained(error: SessionctlError) -> GitState:
    """The git state of a session for which looking raised `error`."""
    return GitState(error=str(error))
