"""What would be done: all that the pure `diff` and `plan` need to know, found out for them. Changes nothing.

The `with_*` functions add answers to a `World`, each only for the sessions for which the plan will ask.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sessionctl import lifetime
from sessionctl.app import looking
from sessionctl.beneath import StrPath
from sessionctl.diff import Change, diff
from sessionctl.errors import ConflictError, UsageError
from sessionctl.model import Declaration, Observed, World, require_name
from sessionctl.plan import Plan, Policy, taken
from sessionctl.plan import plan as decided

if TYPE_CHECKING:
    from sessionctl.app.sources import Sources

_NEEDS_NOTHING = ("keep", "record", "conflict", "stop")
"""What can be done anywhere: nothing is made or started for it."""


def plan(sources: Sources, names: Iterable[str], policy: Policy) -> Plan:
    """What would be done with the sessions `names` (else those of `policy`, else all)."""
    policy = policy._replace(names=frozenset(map(require_name, names)) or policy.names)
    manifest = sources.declared
    _require_renamed(sources)
    if policy.idle < 0:
        raise UsageError(f"idle cannot be {policy.idle} seconds")
    world = looking.world(sources, deep=policy.prune)
    world = _with_renamed(sources, _with_busy(sources, world))
    changes = diff(manifest, world)
    _require_known(policy, manifest, changes)
    chosen = [change for change in changes if not policy.names or change.session in policy.names]
    if policy.prune:
        from sessionctl.app.doubting import with_doubts

        return decided(chosen, with_doubts(sources, world, chosen), policy)
    needing = [change for change in chosen if change.declared is not None and change.kind not in _NEEDS_NOTHING]
    if needing:
        from sessionctl.app.refusing import with_refusals

        world = with_refusals(sources, world, needing)
    return decided(chosen, _with_trust(sources.directory, world, chosen), policy)


def saved(sources: Sources, path: StrPath, policy: Policy) -> Plan:
    """The plan that was written to `path`, made again; `ConflictError` when it is another one now."""
    from sessionctl import saved

    then = saved.load(path, sources.repository.project)
    for flag, was, given in (
        ("--force", then.force, policy.force),
        ("--allow-host", then.allow_host, policy.allow_host),
    ):
        if was != given:
            raise UsageError(
                f"{os.fspath(path)} was made {'with' if was else 'without'} {flag}",
                hint=f"say {flag} here too, if that is meant" if was else f"leave {flag} away, or plan anew",
            )
    now = plan(sources, then.names, policy)
    difference = saved.moved(then, now)
    if difference:
        raise ConflictError(
            "\n".join([f"what would be done is not what {os.fspath(path)} says:", *difference]),
            hint=f"nothing was done; look at it anew: sessionctl plan --out {os.fspath(path)}",
        )
    return now


def _require_renamed(sources: Sources) -> None:
    if os.path.lexists(sources.inside("renames")):
        from sessionctl import identity

        for what in identity.pending(sources.directory):
            raise ConflictError(
                f"{what.old} is just being renamed to {what.new}, or that was interrupted",
                hint=f"finish it: sessionctl rename {what.old} {what.new}",
            )


def _require_known(policy: Policy, manifest: Mapping[str, Declaration], changes: Sequence[Change]) -> None:
    known = {change.session for change in changes}
    for name in sorted(policy.names):
        if name not in known:
            raise looking.unknown(name, known)
        if not policy.prune and name not in manifest:
            raise UsageError(
                f"{name} is not declared any more",
                hint=f"put its block back to continue it, or `sessionctl prune {name}`",
            )


def _with_busy(sources: Sources, world: World) -> World:
    """Whether processes run in the sandboxes that are to be stopped if none do."""
    declared = sources.declared

    def looked(observed: Observed) -> Observed:
        again = sources.backend(observed.backend).observe(session=observed.session, deep=True)
        return next((each for each in again if each.id == observed.id), observed)

    seen = (looked(o) if _may_rest(o, declared, world) else o for o in world.observed)
    return world._replace(observed=tuple(seen))


def _may_rest(observed: Observed, declared: Mapping[str, Declaration], world: World) -> bool:
    """Whether a sandbox that runs would be stopped, if nobody knows yet that no processes run in it."""
    if observed.status != "running" or observed.busy is not None:
        return False
    own, record = declared.get(observed.session), world.records.get(observed.session)
    data = own.data if own is not None else record.last.data if record is not None else {}
    return bool(lifetime.resting(data, record, observed._replace(busy=False), world.now))


def _with_renamed(sources: Sources, world: World) -> World:
    """Sessions that are declared as renamed, as if they were called so already."""
    wanted = {name: each.data.get("renamed_from", "") for name, each in sources.declared.items()}
    wanted = {name: old for name, old in wanted.items() if old}
    if not wanted:
        return world
    from sessionctl import identity

    return identity.foreseen(world, wanted, sources.directory)


def _with_trust(directory: str, world: World, changes: Sequence[Change]) -> World:
    """What was trusted, read only when a session that is to be worked on takes something from the host."""
    if not any(each.declared and each.kind != "keep" and taken(each.declared.data) for each in changes):
        return world
    from sessionctl import trust

    said = trust.load(directory)
    for new, old in world.renamed.items():
        said = said.renamed(old, new)
    return world._replace(trusted=said.trusted, revoked=said.revoked)
