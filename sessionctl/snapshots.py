"""Snapshots on disk: what each consists of, and the operations that they can undo. Decides nothing, runs nothing.

Below the project's state directory, where no sandbox can write::

    snapshots/<session>/<id>/{work/upper,home,root}    the parts; what is not there was not taken
    snapshots/<session>/<id>/snapshot.json             written last: without it, it is no snapshot
    operations/<id>.json                               what one command was about to take away, for `undo`

A snapshot that was copied holds a digest of each part. One that was made by moving a session's files out of
its way needs none: they are the files themselves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple, Self

from sessionctl import beneath
from sessionctl.errors import StoreError, UsageError
from sessionctl.model import Declaration, Digests, GitState, is_id, is_name, names_id, require_name
from sessionctl.trees import Measure
from sessionctl.workspace.standing import Standing

By = Literal["person", "rescue"]
PART = Literal["work", "home", "root"]
PARTS: tuple[PART, ...] = ("work", "home", "root")
"""The workspace, the home with the agent's conversations in it, and the sandbox's own files."""
SHOWN: Mapping[PART, str] = {"work": "workspace", "home": "agent", "root": "sandbox"}
"""What a person calls them."""

_BEGUN = "begun.json"
_FORM = 1
_GIT = ("branch", "commit", "dirty", "ahead", "behind", "unpushed")


class Snapshot(NamedTuple):
    """A state of a session that can be brought back."""

    session: str
    id: str
    made_at: float
    """Unix time."""
    by: By
    """``person``: asked for; ``rescue``: taken before something was done to the session."""
    message: str
    operation: str
    """Id of the operation it was taken for; empty when a person asked for it."""
    backend: str
    sandbox: str
    """Id of the sandbox it was taken of."""
    running: bool
    made_of: Declaration
    base: str
    set_up: bool
    """Whether setup had finished."""
    created_at: float
    """When the session was made."""
    git: GitState
    standing: Mapping[str, Any] | None
    """What its work stood on, as in the session's ``workspace.json``."""
    parts: Mapping[PART, Measure | None]
    """None: moved here as it was."""
    discarded: str = ""
    """Id of the operation that discarded it; it is kept until the trash is emptied."""
    corrupt: str = ""
    """Why it cannot be used."""

    @property
    def is_unclear(self) -> bool:
        """Whether it is damaged, so that nobody can say what it stands on, and was not given up yet."""
        return bool(self.corrupt) and not self.discarded

    @property
    def size(self) -> int:
        """Bytes of content, as far as they were counted."""
        return sum(part.size for part in self.parts.values() if part is not None)

    @property
    def lower(self) -> tuple[str, ...]:
        """The base layers it stands on, or borrows objects from, named from the state directory."""
        if self.standing is None:
            return ()
        recipe = Standing.from_data(self.standing, "").recipe
        borrowed = (f"bases/{recipe.key}/tree",) if recipe is not None else ()
        return (*self.standing["workspace"]["lower"], *borrowed)

    def data(self) -> dict[str, Any]:
        """The JSON form; `from_data` is its inverse."""
        fields = self._asdict()
        del fields["discarded"], fields["corrupt"]
        return {
            "form": _FORM,
            **fields,
            "made_of": {"digests": list(self.made_of.digests), "data": dict(self.made_of.data)},
            "git": {name: getattr(self.git, name) for name in _GIT},
            "parts": {name: part._asdict() if part else None for name, part in self.parts.items()},
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """`ValueError`, `KeyError` or `TypeError` when that is no snapshot."""
        if data["form"] != _FORM:
            raise ValueError(f"it has form {data['form']!a}, this sessionctl knows {_FORM}")
        known = {name: data[name] for name in cls._fields if name in data}
        known["made_of"] = Declaration(Digests(*data["made_of"]["digests"]), data["made_of"]["data"])
        known["git"] = GitState(**data["git"])
        known["parts"] = {name: Measure(**part) if part else None for name, part in data["parts"].items()}
        if known["standing"] is not None:
            Standing.from_data(known["standing"], "")
        return cls(**known)


def place(directory: str, session: str, id: str) -> str:
    """Where a snapshot is, or is to be."""
    if not is_id(id):
        raise UsageError(f"{id!a} is not the id of a snapshot", hint=f"see `sessionctl snapshots {session}`")
    return os.path.join(directory, "snapshots", require_name(session), id)


def fresh(directory: str, session: str) -> str:
    """A new directory for a snapshot that is being made; `publish` moves it to its place, `sweep` takes it away."""
    above = os.path.join(directory, "snapshots", require_name(session))
    os.makedirs(above, 0o700, exist_ok=True)
    made = os.path.join(above, beneath.temporary())
    os.mkdir(made, 0o700)
    return made


def publish(directory: str, made: str, snapshot: Snapshot) -> None:
    """Makes what is in the directory `made` the snapshot that `snapshot` describes. All or nothing."""
    final = place(directory, snapshot.session, snapshot.id)
    beneath.publish(os.path.join(made, "snapshot.json"), json.dumps(snapshot.data()).encode())
    if made != final:
        os.rename(made, final)
    beneath.sync_directory(os.path.dirname(final))


def begin(directory: str, snapshot: Snapshot) -> str:
    """The place of a snapshot into which the parts of `snapshot` are about to be moved, for `finish`.

    It says what it will be: when a crash comes between, `sweep` finishes what was moved, or takes the place away.
    """
    made = place(directory, snapshot.session, snapshot.id)
    os.makedirs(made, 0o700)
    beneath.publish(os.path.join(made, _BEGUN), json.dumps(snapshot.data()).encode())
    return made


def finish(made: str) -> None:
    """Makes what was begun at the place `made`, and into which its parts were moved, a snapshot."""
    os.rename(os.path.join(made, _BEGUN), os.path.join(made, "snapshot.json"))
    beneath.sync_directory(made)


def of_session(directory: str, session: str) -> list[Snapshot]:
    """The snapshots of a session, oldest first; damaged and discarded ones too."""
    above = os.path.join(directory, "snapshots", require_name(session))
    found = (_load(above, session, id) for id in filter(is_id, _names(above)))
    return sorted(found, key=in_order)


def in_order(snapshot: Snapshot) -> tuple[str, float, str]:
    """What snapshots are sorted by: an id tells the second and then chance, so that two of one second need more."""
    return snapshot.id.partition("-")[0], snapshot.made_at, snapshot.id


def all_of(directory: str) -> list[Snapshot]:
    """The snapshots of all sessions, also of those that are gone."""
    sessions = sorted(filter(is_name, _names(os.path.join(directory, "snapshots"))))
    return [each for session in sessions for each in of_session(directory, session)]


def chosen(directory: str, session: str, id: str | None, *, damaged: bool = False) -> Snapshot:
    """The snapshot of that id, or whose id ends so; without one, the latest that a person asked for.

    One that is damaged is an error, unless `damaged` ones will do.
    """
    found = matching(of_session(directory, session), id)
    if id is None:
        if not found:
            raise UsageError(
                f"{session} has no snapshot that a person made", hint=f"see `sessionctl snapshots --all {session}`"
            )
        return found[-1]
    if len(found) != 1:
        several = ", ".join(each.id for each in found)
        raise UsageError(
            f"{session} has {f'several snapshots {id!a}: {several}' if found else f'no snapshot {id!a}'}",
            hint=f"see `sessionctl snapshots --all {session}`",
        )
    if found[0].corrupt and not damaged:
        raise StoreError(
            f"snapshot {found[0].id} of {session} cannot be used: {found[0].corrupt}",
            hint=f"what there is of it is in {place(directory, session, found[0].id)};"
            f" to give it up: sessionctl discard {session} {found[0].id}",
        )
    return found[0]


def matching(found: Sequence[Snapshot], id: str | None) -> list[Snapshot]:
    """Those that are meant by an id, or the end of one; by none: all usable ones that a person asked for."""
    usable = [each for each in found if not each.discarded]
    if id is None:
        return [each for each in usable if each.by == "person" and not each.corrupt]
    return [each for each in usable if names_id(id, each.id)]


def discard(directory: str, snapshot: Snapshot, operation: str) -> None:
    """Marks a snapshot as discarded by `operation`: it is in the trash."""
    file = os.path.join(place(directory, snapshot.session, snapshot.id), "discarded")
    beneath.publish(file, operation.encode())


def take_back(directory: str, snapshot: Snapshot) -> None:
    """Makes a discarded snapshot one that can be seen again."""
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(place(directory, snapshot.session, snapshot.id), "discarded"))


def remove(directory: str, session: str, id: str) -> None:
    """Removes a snapshot for good, what says that it is one first. Absent already is done."""
    where = place(directory, session, id)
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(where, "snapshot.json"))
    beneath.remove_tree(where)
    with suppress(OSError):
        os.rmdir(os.path.dirname(where))


def rename(directory: str, old: str, new: str) -> None:
    """Makes the snapshots of session `old` those of `new`, and what can be undone of it. Idempotent."""
    above = os.path.join(directory, "snapshots")
    source, target = os.path.join(above, require_name(old)), os.path.join(above, require_name(new))
    if os.path.isdir(source):
        os.makedirs(target, 0o700, exist_ok=True)  # there may be some of another session that was called so
        for name in os.listdir(source):
            os.rename(os.path.join(source, name), os.path.join(target, name))
        os.rmdir(source)
    for operation in operations(directory):
        if old in operation.sessions and operation.verb != "rename":
            sessions = tuple(new if name == old else name for name in operation.sessions)
            save_operation(directory, operation._replace(sessions=sessions))


def sweep(directory: str) -> None:
    """Removes what a crash has left half-made. Only while nobody makes any."""
    above = os.path.join(directory, "snapshots")
    for session in filter(is_name, _names(above)):
        beneath.sweep(os.path.join(above, session))
        for id in filter(is_id, _names(os.path.join(above, session))):
            made = os.path.join(above, session, id)
            beneath.sweep(made)
            if os.path.lexists(os.path.join(made, _BEGUN)):
                if any(os.path.lexists(os.path.join(made, part)) for part in PARTS):
                    finish(made)
                else:
                    beneath.remove_tree(made)
            elif not os.listdir(made):
                os.rmdir(made)
        if not os.listdir(os.path.join(above, session)):
            os.rmdir(os.path.join(above, session))
    if os.path.isdir(os.path.join(directory, "operations")):
        beneath.sweep(os.path.join(directory, "operations"))


def _load(above: str, session: str, id: str) -> Snapshot:
    where = os.path.join(above, id)
    try:
        with open(os.path.join(where, "snapshot.json"), "rb") as file:
            found = Snapshot.from_data(json.load(file))
        if found.id != id:
            raise ValueError(f"it says that it is {found.id!a}")
        # Where it lies says whose it is: the session may have another name by now.
        found = found._replace(session=session, made_of=found.made_of.called(session))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = "it was not finished" if isinstance(error, FileNotFoundError) else f"snapshot.json: {error}"
        found = _nothing(session, id, reason)
    try:
        with open(os.path.join(where, "discarded"), encoding="ascii") as file:
            return found._replace(discarded=file.read() or "?")
    except (FileNotFoundError, NotADirectoryError):
        return found


def _nothing(session: str, id: str, reason: str) -> Snapshot:
    nothing = Declaration(Digests("", "", ""), {})
    return Snapshot(
        session, id, 0.0, "person", "", "", "", "", False, nothing, "", False, 0.0, GitState(), None, {}, corrupt=reason
    )


def _names(directory: str) -> list[str]:
    try:
        return beneath.names(directory)
    except OSError as error:
        raise StoreError(f"{directory} cannot be read: {error.strerror}", hint="it holds what was kept") from error


# --- operations --------------------------------------------------------------------------------


class Operation(NamedTuple):
    """One command that took something away, as it was when it began."""

    id: str
    verb: str
    """``prune``, ``replace``, ``restore``, ``discard`` or ``rename``."""
    time: float
    sessions: tuple[str, ...]
    data: Mapping[str, Any] = {}
    """What else undoing it needs, by verb."""
    undone: float | None = None
    """When it was undone (Unix time)."""
    expired: float | None = None
    """When `gc` took what it would have needed out of the trash."""


def save_operation(directory: str, operation: Operation) -> None:
    """Writes an operation down; before it begins, so that one that was killed can be undone."""
    above = os.path.join(directory, "operations")
    os.makedirs(above, 0o700, exist_ok=True)
    beneath.publish(os.path.join(above, f"{operation.id}.json"), json.dumps(operation._asdict()).encode())


def operations(directory: str) -> list[Operation]:
    """All operations, oldest first. One that cannot be read is left out: it is history, and no authority."""
    above = os.path.join(directory, "operations")
    return sorted(_operations(above, _names(above)), key=lambda each: (each.time, each.id))


def _operations(above: str, names: Sequence[str]) -> Iterable[Operation]:
    for name in names:
        if name.endswith(".json") and is_id(name.removesuffix(".json")):
            with suppress(OSError, ValueError, TypeError, KeyError), open(os.path.join(above, name), "rb") as file:
                data = json.load(file)
                yield Operation(**{**data, "sessions": tuple(map(require_name, data["sessions"]))})
