"""What will be done, in which order, and what will not and why.

`plan` is pure, and the only code of sessionctl that may decide to destroy something. Unknown
means keep: each question about cleanliness, reachability and idleness has three answers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sessionctl import errors
from sessionctl.diff import Change, Kind, in_sync
from sessionctl.lifetime import expired
from sessionctl.model import HAS_BRANCH, ISOLATES, GitState, Merged, Observed, World, kind_of
from sessionctl.units import duration

Verb = Literal[
    "rename",
    "prepare",
    "create",
    "stop",
    "start",
    "setup",
    "branch",
    "update",
    "verify",
    "rest",
    "remove",
    "rescue",
    "delete",
    "record",
    "forget",
]

Result = Literal["done", "failed", "skipped"]
"""What became of one action."""


class Policy(NamedTuple):
    """What the person allows. Data: the question is asked between plan and execution."""

    force: bool = False
    """Replace what is not as we last wrote it."""
    allow_host: bool = False
    """Let sessions take from the host, or reach, what they were not trusted with, this once."""
    prune: bool = False
    """Remove what is not declared and provably safe to remove."""
    idle: float = 600.0
    """Seconds since its last use after which a session counts as idle, for `prune`."""
    names: frozenset[str] = frozenset()
    """Only these sessions; empty: all."""
    additive: bool = False
    """Only make sessions that were never made, and start those that are stopped. What nobody watches may do no more."""


class Action(NamedTuple):
    """One step."""

    verb: Verb
    reason: str
    target: Observed | None = None
    """The sandbox it acts on; None: the one that this lane makes."""


_RECORD = Action("record", "so that the next plan knows")


class Lane(NamedTuple):
    """All that happens to one session, in strict order. A lane waits for no other but the one it names (`after`)."""

    change: Change
    actions: tuple[Action, ...] = ()
    blocked: str = ""
    """Why nothing may be done although something differs."""
    refused: tuple[str, ...] = ()
    """What is declared and cannot be enforced here."""
    kept: str = ""
    """For `prune`: why the session stays."""
    warnings: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    """What the session would take from the host, or reach there, that it does not hold already."""
    untrusted: tuple[str, ...] = ()
    """What of `takes` is not allowed, so that nothing is done."""
    base: str = ""
    """The commit that a new session starts from."""
    after: str = ""
    """The session whose lane comes first, because this one is made as a copy of it; empty: none."""

    @property
    def session(self) -> str:
        return self.change.session

    @property
    def removes(self) -> bool:
        """Whether nothing of the session is to stay."""
        verbs = {action.verb for action in self.actions}
        return "forget" in verbs and bool(verbs & {"remove", "rescue", "delete"})

    @property
    def takes_away(self) -> bool:
        """Whether something goes that was whole: what `undo` may be asked to bring back."""
        going = (action.target for action in self.actions if action.verb in ("remove", "rescue"))
        return any(each is not None and each.made_of is not None for each in going)


class Plan(NamedTuple):
    """The decision, whole. What is executed is this value and nothing else."""

    lanes: tuple[Lane, ...]
    in_sync: bool
    """Whether every declared session is as declared."""
    policy: Policy

    def __str__(self) -> str:
        return "\n".join(_text(self))

    @property
    def work(self) -> tuple[Lane, ...]:
        """The lanes in which something will be done."""
        return tuple(lane for lane in self.lanes if lane.actions)

    @property
    def decision(self) -> str:
        """What will be done, as text: equal when two plans do the same. Why other sessions are left alone, which
        may count seconds, is not in it."""
        return str(self._replace(lanes=self.work))

    @property
    def blocked(self) -> tuple[Lane, ...]:
        return tuple(lane for lane in self.lanes if lane.blocked)

    @property
    def refused(self) -> tuple[Lane, ...]:
        return tuple(lane for lane in self.lanes if lane.refused)

    @property
    def untrusted(self) -> tuple[Lane, ...]:
        return tuple(lane for lane in self.lanes if lane.untrusted)

    def exit_code(self, results: Iterable[Result] = ()) -> int:
        """What a program ends with that carried this plan out, its actions with `results`; see docs/commands.md."""
        became = set(results)
        asked = (lane for lane in self.lanes if lane.kept and lane.session in self.policy.names)
        return next(
            code
            for code, holds in (
                (errors.USAGE, self.refused),
                (errors.FAILED, "failed" in became),
                (errors.INTERRUPTED, "skipped" in became),
                (errors.UNTRUSTED, self.untrusted),
                (errors.CHANGES, self.blocked or any(asked)),
                (errors.OK, True),
            )
            if holds
        )


def plan(changes: Sequence[Change], world: World, policy: Policy = Policy()) -> Plan:  # noqa: B008  (an immutable value)
    """The plan for `changes` under `policy`, one lane per session in order of the names."""
    chosen = [change for change in changes if not policy.names or change.session in policy.names]
    lane = _prune_lane if policy.prune else _apply_lane
    lanes = [lane(change, world, policy) for change in chosen]
    works = {each.session for each in lanes if each.actions}
    ordered = (each._replace(after=_parent(each)) if _parent(each) in works else each for each in lanes)
    return Plan(tuple(ordered), in_sync(chosen), policy)


def _parent(lane: Lane) -> str:
    """The session that `lane` makes a copy of; empty when it does not."""
    declared = lane.change.declared
    return str(declared.data.get("parent", "")) if declared and lane.change.kind == "create" else ""


# --- apply: brings what is declared about ------------------------------------------------------


def _apply_lane(change: Change, world: World, policy: Policy) -> Lane:
    lane = Lane(change, base=world.bases.get(change.session, ""))
    kind = change.kind
    if kind in ("keep", "retained", "stray", "forget"):
        return lane
    if kind == "conflict" and (change.otherwise is None or change.declared is None or not policy.force):
        return lane._replace(blocked=change.reason)
    if kind == "conflict" and change.otherwise is not None and change.otherwise.kind == "conflict":
        return lane._replace(blocked=change.otherwise.reason)
    takes = _newly_taken(change, world)
    trusted = world.trusted.get(change.session, frozenset())
    untrusted = () if policy.allow_host else tuple(each for each in takes if each not in trusted)
    lane = lane._replace(takes=takes, untrusted=untrusted)
    refused = world.refused.get(change.session, ())
    if refused:
        return lane._replace(refused=refused)
    actions = (*_rename(change), *_STEPS[kind](change))
    if policy.additive and not _adds(kind, actions):
        return lane._replace(untrusted=(), blocked=f"only made and started here: {change.reason}")
    lane = lane._replace(warnings=_warnings(change, world, takes))
    return lane if lane.untrusted else lane._replace(actions=actions)


def _adds(kind: Kind, actions: Iterable[Action]) -> bool:
    """Whether a lane does nothing but make or start a session: a spare sandbox in the way is more than that."""
    return kind in ("create", "start") and not any(
        a.verb in ("stop", "remove", "rescue", "forget", "rename") for a in actions
    )


def taken(data: Mapping[str, Any]) -> tuple[str, ...]:
    """What the session whose JSON form is `data` takes from the host or reaches there, one line each.

    Of secrets these are names. Two lines are equal when allowing one is allowing the other.
    """
    modes = {"ro": "read-only", "rw": "writable"}
    return (
        *(f"mounts.{each['path']}: {each['source']}, {modes[each['mode']]}" for each in data.get("mounts", ())),
        *(["network: the host's"] if data["network"] == "host" else []),
        *secrets_taken(data),
        *(f"files.{each['path']}: {each['source']}" for each in data["files"] if each.get("outside")),
        *([f"image: {data['image']}"] if data.get("image_outside") else []),
        *_taken_by_workspace(data["workspace"]),
    )


def secrets_taken(data: Mapping[str, Any], but: Iterable[str] = ()) -> tuple[str, ...]:
    """The lines of `taken` that are about secrets, without those of the variables `but`."""
    secrets = {name: value for name, value in data["env"].items() if not isinstance(value, str)}
    return tuple(f"env.{name}: {_secret(value)}" for name, value in secrets.items() if name not in set(but))


def _taken_by_workspace(workspace: Mapping[str, Any]) -> Iterable[str]:
    if workspace["mode"] == "bind":
        yield "workspace.mode: your own checkout, writable but for .git and sessions.toml"
    if workspace["mode"] == "worktree":
        yield "workspace.mode: a worktree of your repository: in it, git on the host reads what the agent writes"
    if workspace["mode"] == "overlay":
        yield "workspace.mode: a copy of your checkout, with its untracked and ignored files"
    if workspace.get("session_dir"):
        yield f"workspace.session_dir: {workspace['session_dir']}, a directory for its files"


def _secret(source: Mapping[str, str]) -> str:
    return f"the variable {source['from_env']}" if "from_env" in source else f"the content of {source['from_file']}"


def _newly_taken(change: Change, world: World) -> tuple[str, ...]:
    """Marks and records are written of what was allowed: what the session's hold need not be allowed again,
    unless a person took it back."""
    assert change.declared is not None
    allowed: set[str] = set()
    if change.current is not None and change.current.made_of is not None:
        allowed.update(taken(change.current.made_of.data))
    if change.record is not None and not change.record.corrupt:
        allowed.update(taken(change.record.last.data))
    allowed -= world.revoked.get(change.session, frozenset())
    return tuple(each for each in taken(change.declared.data) if each not in allowed)


def _rename(change: Change) -> Iterable[Action]:
    if change.renamed:
        yield Action("rename", f"was {change.renamed}")


def _forced(change: Change) -> Iterable[Action]:
    assert change.otherwise is not None
    yield from (Action("stop", "forced", each) for each in change.drifted if each.status == "running")
    yield from _STEPS[change.otherwise.kind](change.otherwise)
    yield from (Action("remove", "forced", each) for each in change.drifted)


def _create(change: Change) -> Iterable[Action]:
    yield Action("prepare", f"its workspace, {_workspace(change)}")
    yield Action("create", change.reason)
    # At once: whatever fails from here on, it is known whose this is.
    yield _RECORD
    yield from _run(change, None)
    yield from _drop(change.spare)
    if change.setup:
        yield _RECORD


def _replace(change: Change) -> Iterable[Action]:
    old = _all(change)
    stops = [Action("stop", "its successor takes over its work", each) for each in old if each.status == "running"]
    if _includes(change):
        # Files go into the upper layer, which nothing may have mounted meanwhile.
        yield from stops
        yield Action("prepare", "work and home are carried over, workspace.include differs")
        yield Action("create", change.reason)
    else:
        yield Action("prepare", "work and home are carried over as they are")
        yield Action("create", change.reason)
        # Both stand on one upper layer: the successor may only start when its predecessor has ended.
        yield from stops
    yield from _branch(change, None)
    yield from _run(change, None)
    yield from (Action("remove", "replaced", each) for each in old)
    yield _RECORD


def _restart(change: Change) -> Iterable[Action]:
    yield from _halt(change.spare)
    yield Action("stop", change.reason, change.current)
    yield from _update(change)
    yield from _run(change, change.current)
    yield from _drop(change.spare)
    yield _RECORD


def _start(change: Change) -> Iterable[Action]:
    yield from _halt(change.spare)
    yield from _update(change)
    yield from _run(change, change.current)
    yield from _drop(change.spare)
    yield _RECORD


def _stop(change: Change) -> Iterable[Action]:
    yield from _halt(change.spare)
    yield from _update(change)
    yield Action("stop", change.reason, change.current)
    yield from _drop(change.spare)
    yield _RECORD


def _in_place(change: Change) -> Iterable[Action]:
    yield from _halt(change.spare)
    yield from _update(change)
    if change.setup:
        yield Action("setup", _setup(change), change.current)
    yield from _drop(change.spare)
    yield _RECORD


def _record(change: Change) -> Iterable[Action]:
    yield Action("record", change.reason)


_STEPS: Mapping[Kind, Callable[[Change], Iterable[Action]]] = {
    "create": _create,
    "recreate": _create,
    "replace": _replace,
    "restart": _restart,
    "start": _start,
    "stop": _stop,
    "update": _in_place,
    "drop": _in_place,
    "rename": _record,
    "record": _record,
    "keep": lambda change: (),
    "conflict": _forced,
}


def _all(change: Change) -> tuple[Observed, ...]:
    return (*((change.current,) if change.current else ()), *change.spare)


def _run(change: Change, target: Observed | None) -> Iterable[Action]:
    assert change.declared is not None
    if change.declared.data["state"] == "running" and not change.rests:
        yield Action("start", "declared running", target)
        if change.setup:
            yield Action("setup", _setup(change), target)


def _update(change: Change) -> Iterable[Action]:
    if _includes(change):
        yield Action("prepare", "workspace.include differs")
    yield from _branch(change, change.current)
    digests = change.current.made_of.digests if change.current and change.current.made_of else None
    if change.declared is not None and digests != change.declared.digests:
        yield Action("update", _paths(change) or "its mark was written by another release", change.current)


def _branch(change: Change, target: Observed | None) -> Iterable[Action]:
    for field in change.fields:
        if field.path == "workspace.branch":
            yield Action("branch", f"{field.after} at its commit", target)


def _includes(change: Change) -> bool:
    return any(field.path == "workspace.include" for field in change.fields)


def _halt(spare: Sequence[Observed]) -> Iterable[Action]:
    """Ends what runs beside the session's sandbox: it holds the upper layer."""
    yield from (Action("stop", "superseded", each) for each in spare if each.status == "running")


def _drop(spare: Sequence[Observed]) -> Iterable[Action]:
    for each in spare:
        gone = "its image is gone" if each.status == "partial" else "superseded"
        yield Action("remove", "half made" if each.made_of is None else gone, each)


def _workspace(change: Change) -> str:
    assert change.declared is not None
    workspace = change.declared.data["workspace"]
    kind = kind_of(workspace)
    if change.kind == "create" and change.declared.data.get("parent"):
        return f"a copy of {change.declared.data['parent']}'s, on branch {workspace['branch']}"
    if kind not in HAS_BRANCH:
        return f"{kind}: {ISOLATES[kind]}"
    branch = f"branch {workspace['branch']} from {workspace['base'] or 'the checked-out commit'}"
    return branch if kind == "clone" else f"{kind}: {ISOLATES[kind]}, {branch}"


def _setup(change: Change) -> str:
    assert change.declared is not None
    count = len(change.declared.data["setup"])
    return f"{count} command{'s' * (count > 1)}"


def _paths(change: Change) -> str:
    return ", ".join(field.path for field in change.fields)


def _warnings(change: Change, world: World, takes: Sequence[str]) -> tuple[str, ...]:
    assert change.declared is not None
    workspace = change.declared.data["workspace"]
    shared = workspace["mode"] in HAS_BRANCH and workspace["history"] == "shared"
    warnings = []
    if shared and (change.kind == "create" or any(field.path == "workspace.history" for field in change.fields)):
        warnings.append("every object of the repository can be read inside (workspace.history is shared)")
    if any(each.startswith("network: ") for each in takes):
        warnings.append(
            "on the host's network it reaches all that this machine does: services on its loopback, abstract sockets"
        )
    lost = change.record.git.unpushed if change.kind == "recreate" and change.record else None
    if lost and not any(each.made_of is not None for each in change.spare):
        warnings.append(f"{lost} commit{'s' * (lost > 1)} that nothing else held went with its files")
    warnings += [f"not enforced: {limit}" for limit in world.unenforced.get(change.session, ())]
    warnings += world.warned.get(change.session, ())
    return tuple(warnings)


# --- prune: removes what is provably safe to remove --------------------------------------------


def _prune_lane(change: Change, world: World, policy: Policy) -> Lane:
    over = expired(change.declared, change.record, world.now)
    if change.declared is not None and (not over or change.current is None):
        asked = change.session in policy.names
        return Lane(change, _rest(change), kept="declared in the manifest: remove its block first" if asked else "")
    if change.kind == "forget":
        return Lane(change, (Action("forget", change.reason),))
    if change.declared is not None:
        change = change._replace(reason=over)
    kept = _kept(change, world, policy)
    if kept:
        return Lane(change, _rest(change), kept=kept)
    return Lane(change, tuple(_prune(change, world)))


def _rest(change: Change) -> tuple[Action, ...]:
    """What ends processes that are not to run. Nothing else is changed: that is `apply`'s."""
    if change.rests and change.kind != "conflict" and change.current and change.current.status == "running":
        return (Action("rest", change.rests, change.current),)
    return ()


def _prune(change: Change, world: World) -> Iterable[Action]:
    sandboxes = _all(change)
    yield from (Action("stop", "idle", each) for each in sandboxes if each.status == "running")
    if change.current is not None:
        yield Action("verify", "looked at again, now that nothing runs", change.current)
        if deletes(change):
            yield Action("delete", f"{_clean(change, world)}: its files are deleted", change.current)
        else:
            yield Action("rescue", f"{_clean(change, world)}: its files go to the trash", change.current)
    else:
        yield from (Action("remove", "its work and home are gone", each) for each in sandboxes)
    yield Action("forget", "nothing is left of it")


def _kept(change: Change, world: World, policy: Policy) -> str:
    """Why the session must stay; empty when every question has been answered for its removal."""
    if change.kind == "conflict":
        return change.reason
    made_of = change.current.made_of if change.current else None
    if (change.record and change.record.protect) or (made_of and made_of.data.get("protect")):
        return "protected: put the block back with protect = false, apply, and remove it again"
    if change.current is None and change.session in world.gone:
        return ""  # a prune that was killed had come to its sandboxes
    if change.current is None:
        return "no sandbox of it is whole, so its work cannot be read: put the block back and apply"
    if change.record and change.record.corrupt:
        return f"its record is corrupt: {change.record.corrupt}"
    name = change.session
    stays = made_of is not None and made_of.data["workspace"]["mode"] == "bind"
    merged, home = world.merged.get(name, Merged()), world.homes.get(name)
    reason = unclean(world.git.get(name), merged, home, stays=stays, gone=deletes(change))
    return reason or _in_use(change, world, policy)


def deletes(change: Change) -> bool:
    """Whether nothing is to be kept of a session: all that is known of it has to say so."""
    known = [change.record.last.data] if change.record is not None else []
    known += [change.current.made_of.data] if change.current is not None and change.current.made_of else []
    return bool(known) and all(data.get("on_prune") == "delete" for data in known)


def unclean(
    git: GitState | None,
    merged: Merged,
    home: Sequence[str] | None,
    *,
    stays: bool = False,
    gone: bool = False,
) -> str:
    """Why a session may hold work that is nowhere else; empty when it provably does not.

    Asked when the plan is made, and again under the lock before anything goes. With `stays` the
    workspace is not removed with its session, and nobody asks what it holds. With `gone` nothing is
    kept of it; otherwise all its files are, and what lies in its home is no reason for it to stay.
    """
    return ("" if stays else _unclean_workspace(git, merged, gone)) or (_unclean_home(home) if gone else "")


def _unclean_workspace(git: GitState | None, merged: Merged, gone: bool) -> str:
    if git is None:
        return "its workspace was not looked at"
    if git.error:
        return f"its workspace cannot be read: {git.error}"
    if git.dirty is None:
        return "it is not known whether its workspace is clean"
    if git.dirty:
        some = ", ".join(git.changes[:3]) + (", ..." if len(git.changes) > 3 else "")
        return f"files that no commit holds: {some}" if some else "files that no commit holds"
    if git.unpushed is None:
        return "it is not known whether its commits are held elsewhere"
    left = git.unpushed - merged.commits
    if left:
        beside = f", beside {merged.commits} that are merged as {_short(merged)}" if merged.commits else ""
        commits = f"{left} commit{'s' * (left > 1)}"
        return f"{commits} that no host branch, remote or fetched ref holds{beside}: sessionctl fetch"
    if merged.commits and gone:
        return f"its commits are merged as {_short(merged)}, and {_DELETES}: sessionctl fetch"
    return ""


_DELETES = "nothing would be kept of that (on_prune is delete)"


def _clean(change: Change, world: World) -> str:
    """Why nothing is lost with a session, for who is asked whether it may go."""
    made_of = change.current.made_of if change.current else None
    if made_of is not None and made_of.data["workspace"]["mode"] not in HAS_BRANCH:
        return "nothing in it that is its own"
    merged = world.merged.get(change.session, Merged())
    if merged.commits:
        return f"no file of its own, {merged.commits} commit{'s' * (merged.commits > 1)} merged as {_short(merged)}"
    return "no file of its own, and the repository has its commits"


def _short(merged: Merged) -> str:
    some = ", ".join(commit[:10] for commit in merged.into[:3])
    return f"{some} and {len(merged.into) - 3} more" if len(merged.into) > 3 else some


def _unclean_home(home: Sequence[str] | None) -> str:
    if home is None:
        return "its home was not looked at"
    if home:
        return f"its home holds {', '.join(home[:3])}{', ...' if len(home) > 3 else ''}, and {_DELETES}"
    return ""


def _in_use(change: Change, world: World, policy: Policy) -> str:
    for each in _all(change):
        if each.status == "running" and each.busy is not False:
            return (
                f"processes run in it: sessionctl stop {change.session}"
                if each.busy
                else "it is not known whether processes run in it"
            )
    if policy.idle <= 0:
        return ""
    if change.record is None:
        return "no record says when it was last used"
    unused = world.now - change.record.last_active
    if unused < 0:
        return "last used in the future, by this clock: it is not known for how long it is idle"
    if unused < policy.idle:
        return f"used {duration(unused)} ago, idle is {duration(policy.idle)}"
    return ""


# --- text --------------------------------------------------------------------------------------


def _text(plan: Plan) -> Iterable[str]:
    for lane in plan.lanes:
        change = lane.change
        if change.kind == "keep" and not lane.kept and not lane.actions:
            continue
        yield f"{change.session}: {change.kind}: {change.reason}"
        yield from (f"  {f.path}: {f.before!r} -> {f.after!r} ({f.effect})" for f in change.fields)
        yield from (f"  ! {warning}" for warning in lane.warnings)
        yield from (f"  takes {each}" for each in lane.takes)
        if lane.untrusted:
            yield "  not allowed" + ("" if lane.untrusted == lane.takes else f": {'; '.join(lane.untrusted)}")
        yield from (f"  refused: {refusal}" for refusal in lane.refused)
        if lane.blocked:
            yield "  blocked"
        if lane.kept:
            yield f"  kept: {lane.kept}"
        if lane.base and lane.actions:
            yield f"  from {lane.base}"
        for action in lane.actions:
            yield f"  {action.verb}{f' {action.target.id}' if action.target else ''}: {action.reason}"
    yield "in sync" if plan.in_sync else "not in sync"
