"""What a person allows sessions to take from the host, and takes back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from sessionctl import trust
from sessionctl.app import looking
from sessionctl.app.changing import changing
from sessionctl.model import World, require_name
from sessionctl.plan import Plan, taken

if TYPE_CHECKING:
    from sessionctl.app.sources import Sources


def takings(sources: Sources, names: Iterable[str]) -> tuple[trust.Taking, ...]:
    """What each session (of `names` only, if any) takes from the host, beside what was trusted last."""
    declared = {name: declaration.data for name, declaration in sources.declared.items()}
    said = trust.load(sources.directory)
    chosen = set(map(require_name, names))
    for name in sorted(chosen - declared.keys() - said.trusted.keys()):
        raise looking.unknown(name, declared)
    return trust.takings(declared, said, chosen)


def trusted(sources: Sources, takings: Iterable[trust.Taking]) -> None:
    """Remembers that a person who was shown `takings` wants the sessions to have just that."""
    with changing(sources), sources.store.writing():
        said = trust.load(sources.directory).trusting({each.session: frozenset(each.lines) for each in takings})
        for each in takings:
            if each.new or each.gone:
                sources.store.note(each.session, "trust", reason="; ".join(each.lines) or "nothing any more")
        trust.save(sources.directory, said)


def granted(directory: str, plan: Plan) -> None:
    """Remembers what a person allowed for one apply of `plan`: it does not count as revoked any more."""
    said = trust.load(directory)
    granting = said.granting({lane.session: frozenset(lane.takes) for lane in plan.work if lane.takes})
    if granting != said:
        trust.save(directory, granting)


def revoked(sources: Sources, names: Iterable[str]) -> tuple[str, ...]:
    """Takes back what was ever allowed to sessions (`names`, else all); those that run with some of it now."""
    chosen = set(map(require_name, names))
    world = looking.world(sources)
    known = {*world.records, *(o.session for o in world.observed), *sources.declared_if_any}
    with changing(sources), sources.store.writing():
        said = trust.load(sources.directory)
        for name in sorted(chosen - known - said.trusted.keys()):
            raise looking.unknown(name, known)
        held = _held(world)
        chosen = chosen or {name for name in (*held, *said.trusted) if held.get(name) or name in said.trusted}
        for name in sorted(chosen):
            sources.store.note(name, "revoke")
        trust.save(sources.directory, said.revoking(chosen, held))
    running = {o.session: o.made_of for o in world.observed if o.status == "running" and o.made_of is not None}
    return tuple(sorted(name for name in chosen & running.keys() if taken(running[name].data)))


def _held(world: World) -> Mapping[str, frozenset[str]]:
    """By session, what its sandboxes were made with, as far as marks and records say. Pure."""
    made_of = [observed.made_of for observed in world.observed if observed.made_of is not None]
    made_of += [record.last for record in world.records.values() if not record.corrupt]
    held: dict[str, frozenset[str]] = {}
    for each in made_of:
        name = each.data["name"]
        held[name] = held.get(name, frozenset()).union(taken(each.data))
    return held
