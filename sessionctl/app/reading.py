"""Files and output of sessions, brought here: copies, differences, what commands wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sessionctl.app import looking
from sessionctl.errors import UsageError
from sessionctl.model import host_path, require_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessionctl.app.sources import Sources
    from sessionctl.comparing import Difference
    from sessionctl.copying import Copied
    from sessionctl.outputs import Output
    from sessionctl.store import Entry


def copy(
    sources: Sources, source: str, target: str, *, most: int | None, output: int, on: Callable[[int, int], None]
) -> Copied:
    """Copies out of a session or into one; the parameters are those of `Project.copy`."""
    from sessionctl import copying
    from sessionctl.app.using import running

    limit = most if most is not None else copying.MOST
    inside, there = copying.Place.parse(source), copying.Place.parse(target)
    site = sources.site()
    with copying.explained():
        if inside is not None and there is None:
            looking.sandbox(sources, inside.session)
            return copying.out(site, inside, output if target == "-" else target, most=limit, on=on)
        if there is not None and inside is None:
            with running(sources, there.session):
                return copying.into(site, source, there, most=limit, on=on)
    raise UsageError(
        "one of the two must be in a session, and the other here",
        hint="sessionctl cp NAME:PATH HERE, or sessionctl cp HERE NAME:PATH; a file called a:b is ./a:b",
    )


def difference(sources: Sources, name: str, snapshots: Sequence[str], *, ignored: bool) -> Difference:
    """What became of a session's files since its base; since a snapshot; or from one snapshot to another."""
    from sessionctl import comparing
    from sessionctl.snapshots import chosen

    target, _ = looking.sandbox(sources, name)
    ends = [chosen(sources.directory, name, each) for each in snapshots]
    return comparing.difference(sources.site(), target, ends, ignored=ignored)


def path(sources: Sources, name: str) -> str:
    """The directory of the host that is the session's workspace. `UsageError` when it is layers."""
    found = host_path(looking.sandbox(sources, name)[0])
    if found is None:
        raise UsageError(
            f"the workspace of {name} is a layer over others, not a directory of the host",
            hint="declare a session with workspace.visible = true; or look inside: sessionctl exec",
        )
    return found


def log(sources: Sources, name: str | None, *, after: int = 0, last: int | None = None) -> Iterator[Entry]:
    """Events of one session, those of its earlier names too, or of all, in order of time."""
    store = sources.store
    if name is None:
        return store.journal(after=after, last=last)
    return store.journal(require_name(name), after=after, last=last, earlier=store.earlier(name))


def outputs(sources: Sources, name: str, id: str | None, *, after: int) -> list[Output]:
    """What is kept of the output of a session's commands, oldest first; with `id`, of that one."""
    from sessionctl import outputs

    found = list(outputs.outputs(log(sources, name, after=after)))
    if id is not None:
        found = outputs.of_command(found, id)
        if not found and not after:
            raise UsageError(f"no output of a command {id!a} of {name} is kept", hint=f"see `sessionctl log {name}`")
    elif not found and not after:
        known = looking.names(sources)
        if name not in known:
            raise looking.unknown(name, known)
    return found
