"""The nouns of sessionctl.

Immutable values and pure functions on them; standard library only. They are named tuples, because a
git hook pays for every start and `dataclasses` alone costs as much as the interpreter. This module may not do I/O,
read the clock or look at the environment, and imports nothing of sessionctl but ``errors``.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from sessionctl.errors import UsageError

Effect = Literal["in-place", "restart", "replace"]
State = Literal["running", "stopped"]
Status = Literal["running", "stopped", "partial", "gone", "unknown"]

ISOLATES: Mapping[str, str] = {
    "clone": "a checkout of its own",
    "visible": "a checkout of its own, in a directory of the host",
    "worktree": "a checkout of its own, in a directory of the host that is a worktree of yours",
    "overlay": "a copy of your checkout",
    "bind": "your own checkout, in which only .git and sessions.toml are read-only",
    "empty": "a directory of its own, without git",
}
"""What an agent works on, and so what it can write of the user's, by kind of workspace (`kind_of`)."""


HAS_BRANCH = ("clone", "visible", "worktree", "overlay")
"""The kinds of workspace that have a repository and a branch of their own."""


def kind_of(workspace: Mapping[str, Any]) -> str:
    """The kind of a declared workspace, given in its JSON form: its mode, or ``visible``."""
    return "visible" if workspace.get("visible") else str(workspace["mode"])


WORKSPACE = "/workspace"
"""Where the workspace is mounted in every sandbox."""
APART = "/.sessionctl/repository"
"""Where a session's repository is when it is not in its workspace, in which a file names this place."""
HOME = "/home/agent"
"""The home directory in every sandbox."""

if TYPE_CHECKING:
    from hashlib import sha256 as sha256
else:
    # The interpreter's own, where it has one: `hashlib` loads OpenSSL, which takes longer than all of this package.
    try:
        from _sha2 import sha256
    except ImportError:
        try:
            from _sha256 import sha256  # before Python 3.12
        except ImportError:
            from hashlib import sha256

NORMALISER = 1
"""Version of the form that digests are taken of. A release that hashes differently raises it and
rewrites the marks of what is there; it replaces no sandbox for it (docker/compose#11335)."""

EFFECT: Mapping[str, Effect] = {
    "backend": "replace",
    "image": "replace",
    "image_extra": "replace",
    "image.source": "in-place",  # where it was found: what it is, its digest, is what counts
    "setup": "replace",
    "workspace.mode": "replace",
    "workspace.history": "replace",
    "workspace.submodules": "replace",
    "workspace.lfs": "replace",
    "workspace.base": "replace",
    "workspace.visible": "replace",
    "workspace.session_dir": "replace",
    "network": "restart",
    "mounts": "restart",
    "workspace.include": "restart",  # files go into the upper layer: only the sandbox may write it while it is mounted
    "workspace.branch": "in-place",
    "agent": "in-place",
    "renamed_from": "in-place",
    "title": "in-place",
    "tags": "in-place",
    "metadata": "in-place",
    "state": "in-place",
    "protect": "in-place",
    "ttl": "in-place",
    "idle_stop": "in-place",
    "on_prune": "in-place",
    "parent": "in-place",  # it matters when a session is made, and says where it came from afterwards
    "env": "in-place",
    "limits": "in-place",  # of a cgroup they are values, without one they are of the next exec
    "files": "in-place",
}
"""What a change of each field costs. The key is the field's path, or a prefix of it."""


_NONE: Mapping[str, Any] = {}
# The default of mappings; nobody writes to a mapping of a value.

# --- names and ids -----------------------------------------------------------------------------

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]{8}", re.ASCII)


def is_name(text: object) -> bool:
    """Whether `text` may name a session: 1 to 63 of ``a-z 0-9 -``, not beginning with a dash."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def require_name(text: object) -> str:
    """`text` when it may name a session, else `UsageError`. Every door calls this: names become paths."""
    if not is_name(text):
        shown = ascii(text)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        raise UsageError(
            f"{shown} is not a session name",
            hint="a name has 1 to 63 of a-z, 0-9 and '-', and does not begin with '-'",
        )
    return str(text)


def is_id(text: object) -> bool:
    """Whether `text` is an id as `make_id` makes them."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def is_within(path: str, directory: str) -> bool:
    """Whether the path `path` is `directory` or below it, as the two are written."""
    return path == directory or path.startswith(f"{directory}/")


def names_id(text: str, id: str) -> bool:
    """Whether `text`, as a person may shorten it, names `id`: all of it, or what is after its dash."""
    return text in (id, id.rpartition("-")[2])


def make_id(utc: str, entropy: bytes) -> str:
    """An id for a sandbox, run or snapshot: `utc` as ``yyyymmddTHHMMSS`` and 8 hex digits.

    Text order is time order.
    """
    return f"{utc}-{entropy[:4].hex():0>8}"


# --- what is declared --------------------------------------------------------------------------


class WorkspaceSpec(NamedTuple):
    """The git checkout of a session, as declared."""

    mode: str = "clone"
    branch: str = ""
    """Where the session's work lands; the manifest fills in ``agents/<name>``."""
    base: str = ""
    """What the branch is made from; empty: the commit the repository has checked out."""
    include: tuple[str, ...] = ()
    """Untracked files of the repository that are copied in, relative to its root."""
    history: str = "shared"
    """``shared``: the repository's objects are mounted read-only; ``own``: the branch's only."""
    submodules: bool = False
    lfs: bool = False
    visible: bool = False
    """Of a clone: whether its files are an ordinary directory of the host."""
    session_dir: str = ""
    """Of a visible clone or a worktree: the real path of the directory that its files are put in; empty: our own."""


class FileSpec(NamedTuple):
    """A file put into the sandbox's home."""

    path: str
    """Path inside, beginning with ``~/``."""
    sha256: str
    """Hex digest of the content that is to be written."""
    mode: str = "0644"
    """Permission bits, four octal digits."""
    source: str = ""
    """Absolute path on the host; empty when `content` is used."""
    content: str = ""
    outside: bool = False
    """Whether the repository's manifest names a source that lies outside of the repository."""


class MountSpec(NamedTuple):
    """A file or directory of the host that is seen inside."""

    source: str
    """Real path on the host: absolute, no component a symlink."""
    path: str
    """Absolute path inside."""
    mode: str = "ro"
    """``ro`` or ``rw``."""


class LimitsSpec(NamedTuple):
    """What a session may use, as declared; empty or 0: as much as there is."""

    memory: str = ""
    """Of all processes together, swap included: a size with its unit (`units.parse_size`)."""
    cpus: float = 0
    """Processors' worth of time."""
    pids: int = 0
    """Processes and threads at a time."""
    disk: str = ""
    """Of workspace and home together: a size with its unit."""
    wall: str = ""
    """Duration of one exec or setup command (`units.parse_duration`)."""
    enforce: str = "strict"
    """``strict``: what cannot be enforced is refused; ``best-effort``: it is named."""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "LimitsSpec":
        """The limits in the JSON form of a spec, also of one that was written before there were any."""
        return cls(**data.get("limits", {}))


class SessionSpec(NamedTuple):
    """Everything declared for one session, resolved: no defaults left to apply."""

    name: str
    backend: str = "bubblewrap"
    image: str = "host"
    """``host``, or what of the host it is made of: ``rootfs:DIR``, ``archive:FILE``, ``oci:LAYOUT[:TAG]``, absolute."""
    image_digest: str = ""
    """What that was when it was resolved (`images.pin`); empty for ``host``."""
    image_outside: bool = False
    """Whether the repository's manifest names an image that lies outside of the repository."""
    image_extra: tuple[str, ...] = ()
    """Programs of the host that are brought in where the image lacks them, in order of their names."""
    image_extra_digest: str = ""
    """What those were when they were resolved (`images.extra.pin`)."""
    agent: str = ""
    title: str = ""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = _NONE
    state: State = "running"
    protect: bool = False
    ttl: str = ""
    """A duration after which it may be pruned although it is declared; empty: none."""
    idle_stop: str = ""
    """A duration for which it must be unused to be stopped; empty: it runs on."""
    on_prune: str = "snapshot"
    """What `prune` makes of its files: ``snapshot``, to be brought back, or ``delete``."""
    parent: str = ""
    """The session it is, or was, made as a copy of."""
    setup: tuple[str, ...] = ()
    workspace: WorkspaceSpec = WorkspaceSpec()
    env: Mapping[str, str | Mapping[str, str]] = _NONE
    """Values; or where on the host a secret one is found: ``{"from_env": NAME}`` or ``{"from_file": PATH}``."""
    files: tuple[FileSpec, ...] = ()
    mounts: tuple[MountSpec, ...] = ()
    network: str = "none"
    limits: LimitsSpec = LimitsSpec()
    renamed_from: str = ""
    """What the session was called before. Where it comes from is no part of what it is: no digest holds it."""

    def data(self) -> dict[str, Any]:
        """The JSON form: dicts, lists, strings and booleans only. `from_data` is its inverse."""
        return {
            "name": self.name,
            "backend": self.backend,
            "image": self.image,
            "image_digest": self.image_digest,
            "image_outside": self.image_outside,
            "image_extra": list(self.image_extra),
            "image_extra_digest": self.image_extra_digest,
            "agent": self.agent,
            "title": self.title,
            "tags": list(self.tags),
            "metadata": dict(self.metadata),
            "state": self.state,
            "protect": self.protect,
            "ttl": self.ttl,
            "idle_stop": self.idle_stop,
            "on_prune": self.on_prune,
            "parent": self.parent,
            "setup": list(self.setup),
            "workspace": {name: _plain(value) for name, value in self.workspace._asdict().items()},
            "env": dict(self.env),
            "files": [file._asdict() for file in self.files],
            "mounts": [mount._asdict() for mount in self.mounts],
            "network": self.network,
            "limits": self.limits._asdict(),
            "renamed_from": self.renamed_from,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """The spec whose `data()` this is, also an earlier release's. Keys of a later one are an error."""
        fields = dict(data)
        fields["workspace"] = WorkspaceSpec(**_tuples(fields["workspace"]))
        fields["files"] = tuple(FileSpec(**file) for file in fields["files"])
        fields["mounts"] = tuple(MountSpec(**mount) for mount in fields.get("mounts", ()))
        fields["limits"] = LimitsSpec.of(data)
        return cls(**_tuples(fields))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}


def flat(data: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON form of a spec as ``{path: value}``, one entry per field that can differ.

    ``env``, ``metadata``, ``files`` and ``mounts`` have one entry per key: ``env.RUST_LOG``,
    ``files.~/.claude/settings.json``, ``mounts./cache/uv``. An image is what its digest
    says. Secrets are never in a spec, so neither are they here.
    """
    result: dict[str, Any] = {}
    for key, value in data.items():
        if key == "files":
            for file in value:
                result[f"files.{file['path']}"] = f"{file['mode']} sha256:{file['sha256'][:12]}"
        elif key == "mounts":
            for mount in value:
                result[f"mounts.{mount['path']}"] = f"{mount['mode']} {mount['source']}"
        elif key == "image" and data.get("image_digest"):
            kind = value.partition(":")[0]
            # A root file system is used where it is; what was unpacked is the same wherever it came from.
            result[key] = f"{value if kind == 'rootfs' else kind} {data['image_digest']}"
            result["image.source"] = value
        elif key == "image_extra_digest":
            if value:
                result["image_extra.digest"] = value
        elif key in ("image_digest", "image_outside"):
            continue
        elif isinstance(value, Mapping):
            for inner, leaf in value.items():
                result[f"{key}.{inner}"] = leaf
        elif key not in ("name", "renamed_from"):
            result[key] = value
    return result


def effect_of(path: str) -> Effect:
    """What a change of the field at `path` (as in `flat`) costs."""
    while path not in EFFECT:
        path, dot, _ = path.rpartition(".")
        if not dot:
            raise KeyError(path)
    return EFFECT[path]


_COST: Mapping[Effect, int] = {"in-place": 0, "restart": 1, "replace": 2}


def costliest(effects: Iterable[Effect]) -> Effect:
    """The effect among `effects` that includes all others; ``in-place`` when there are none."""
    return max(effects, key=_COST.__getitem__, default="in-place")


class Digests(NamedTuple):
    """One hash (hex) per effect class, and the version of the normaliser that made them."""

    replace: str
    restart: str
    in_place: str
    normaliser: int = NORMALISER


class Declaration(NamedTuple):
    """A session as it was declared at some time, resolved: by the manifest now, by a mark or a record then.

    The JSON form is kept, and made into a `SessionSpec` only by who needs one: comparing a
    thousand declarations reads nothing but their digests.
    """

    digests: Digests
    data: Mapping[str, Any]

    def called(self, name: str) -> Self:
        """The same declaration of a session of another name. No digest holds the name."""
        return self._replace(data={**self.data, "name": name})

    def moved(self, place: Callable[[str], str]) -> Self:
        """The same declaration with every path of the host as `place` gives it."""
        spec = self.spec
        if self.of(spec).digests != self.digests:
            return self  # by another release: what differs is for the plan to say
        kind, colon, path = spec.image.partition(":")
        below = spec.workspace.session_dir
        now = spec._replace(
            image=f"{kind}{colon}{place(path)}",
            workspace=spec.workspace._replace(session_dir=place(below)),
            files=tuple(file._replace(source=place(file.source)) for file in spec.files),
            mounts=tuple(mount._replace(source=place(mount.source)) for mount in spec.mounts),
        )
        return self.of(now)

    @property
    def spec(self) -> SessionSpec:
        return SessionSpec.from_data(self.data)

    @classmethod
    def of(cls, spec: SessionSpec) -> Self:
        """The declaration of `spec`. Fields at their default are left out of the hash, so that a
        release which adds a field changes no digest."""
        data = spec.data()
        plain = flat(SessionSpec(name=spec.name).data())
        classes: dict[Effect, list[tuple[str, Any]]] = {"replace": [], "restart": [], "in-place": []}
        for path, value in sorted(flat(data).items()):
            if plain.get(path) != value:
                classes[effect_of(path)].append((path, value))
        replace, restart, in_place = (
            sha256(json.dumps([NORMALISER, fields], sort_keys=True).encode()).hexdigest() for fields in classes.values()
        )
        return cls(Digests(replace, restart, in_place), data)


# --- what is -----------------------------------------------------------------------------------


class Mount(NamedTuple):
    """A directory or file of the host, seen at `path` inside."""

    source: str
    path: str
    writable: bool = False


class Workspace(NamedTuple):
    """What a backend must mount at `WORKSPACE`, as the package workspace made it on the host.

    With `lower`, the directories are stacked (bottom first) under `upper`, which takes the writes;
    `scratch` is the empty directory on the same file system that overlayfs wants beside it.
    Without `lower`, `upper` is the workspace itself.
    """

    upper: str
    lower: tuple[str, ...] = ()
    scratch: str = ""
    mounts: tuple[Mount, ...] = ()
    """Read-only mounts the workspace needs beside itself: object stores it borrows from."""
    commit: str = ""
    """The commit the workspace was made from; empty where there is no git."""

    def moved(self, place: Callable[[str], str]) -> Self:
        """The same with every path of the host as `place` gives it; an empty one stays empty."""
        return self._replace(
            upper=place(self.upper),
            lower=tuple(place(path) for path in self.lower),
            scratch=place(self.scratch) if self.scratch else "",
            mounts=tuple(mount._replace(source=place(mount.source)) for mount in self.mounts),
        )

    def renamed(self, directory: str, old: str, new: str) -> Self:
        """The same after session `old` became `new`, below the project's state directory `directory`."""
        below = f"{directory}/sessions/{old}/"
        return self.moved(
            lambda path: f"{directory}/sessions/{new}/{path[len(below) :]}" if path.startswith(below) else path
        )

    def data(self, directory: str) -> dict[str, Any]:
        """The JSON form; `from_data` is its inverse. What is below `directory` is named from there, so
        that the state directory may be moved."""
        stored = self.moved(lambda path: path.removeprefix(f"{directory}/"))
        return {**stored._asdict(), "mounts": [list(mount) for mount in stored.mounts]}

    @classmethod
    def from_data(cls, data: Mapping[str, Any], directory: str) -> Self:
        fields = dict(data)
        fields["mounts"] = tuple(Mount(*mount) for mount in fields["mounts"])
        return cls(**_tuples(fields)).moved(lambda path: path if path.startswith("/") else f"{directory}/{path}")


class Move(NamedTuple):
    """From where to where a repository was moved."""

    project: str
    """Its id before."""
    to: str
    """Its id now."""
    before: str
    """Where it was: the directory with the checkout, or the git directory of a bare one."""
    after: str

    def path(self, path: str) -> str:
        """`path`, when it is in the repository, where it is now; any other as it is."""
        return self.after + path[len(self.before) :] if is_within(path, self.before) else path

    def ref(self, ref: str) -> str:
        """The name of one of sessionctl's refs, now."""
        before = f"refs/sessionctl/{self.project}/"
        return f"refs/sessionctl/{self.to}/{ref.removeprefix(before)}" if ref.startswith(before) else ref

    def declaration(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON form of a declaration, with the paths in it as they are now."""
        made_of = Declaration(Digests(*data["digests"]), data["data"]).moved(self.path)
        return {"digests": list(made_of.digests), "data": made_of.data}

    def data(self, data: Any) -> Any:
        """What a file of the state directory says, with its paths, refs and project as they are now."""
        if isinstance(data, list):
            return [self.data(each) for each in data]
        if not isinstance(data, Mapping):
            return data
        return {key: _MOVED[key](self, value) if key in _MOVED else value for key, value in data.items()}


_MOVED: Mapping[str, Callable[[Move, Any], Any]] = {
    "upper": Move.path,
    "scratch": Move.path,
    "lower": lambda move, value: [move.path(each) for each in value],
    "mounts": lambda move, value: [[move.path(source), *rest] for source, *rest in value],
    "pins": lambda move, value: [[move.path(git_dir), move.ref(ref)] for git_dir, ref in value],
    "project": lambda move, value: move.to if value == move.project else value,
    "made_of": lambda move, value: move.declaration(value),
    **dict.fromkeys(("workspace", "standing", "rescue"), Move.data),
}
"""What of such a file names them. All else is left: the other end of a mount, or a message, may look the same."""


class Observed(NamedTuple):
    """One sandbox as its backend sees it now."""

    session: str
    id: str
    """Empty when only the session's own files (work, home) are there and no sandbox."""
    backend: str
    status: Literal["running", "stopped", "partial"]
    made_of: Declaration | None = None
    """What its mark says it was made of; None when it has none, as one that is half made. One that is ``partial``
    because what it ran on is gone was whole once, and its own files are to be kept."""
    workspace: Workspace | None = None
    pid: int | None = None
    """Its pid 1 as the host numbers it, while running."""
    started_at: float | None = None
    """Unix time at which its pid 1 started, while running."""
    drift: str = ""
    """Why this is not what was last written, in the backend's words; empty when it is."""
    busy: bool | None = None
    """Whether processes beside its init run; None: not looked (see `Backend.observe`)."""
    clashes: tuple[str, ...] = ()
    """Injected files that both the agent and the manifest changed: they were not written."""
    not_enforced: tuple[str, ...] = ()
    """Declared limits, such as ``memory``, that do not hold here as they are declared."""


def sandbox_of(observed: Iterable[Observed], record: "Record | None") -> Observed | None:
    """Of what was `observed` of one session, the sandbox that is it; None when none is whole.

    What runs is the session: after a replace that failed in its setup the record still names the one before.
    """
    ready = [each for each in observed if each.status != "partial"]
    return max(
        ready,
        key=lambda each: (each.status == "running", record is not None and each.id == record.sandbox, each.id),
        default=None,
    )


def host_path(observed: Observed | None) -> str | None:
    """The directory of the host in which a sandbox's workspace can be opened; None when there is none."""
    stands_on = observed.workspace if observed is not None else None
    return stands_on.upper if stands_on is not None and not stands_on.lower else None


class GitState(NamedTuple):
    """What git says of a session's workspace. None: not known, which is never the same as no."""

    branch: str | None = None
    """None when detached, unborn or unreadable."""
    commit: str | None = None
    dirty: bool | None = None
    """Whether anything is there that no commit holds: staged, changed, untracked or ignored files."""
    ahead: int | None = None
    """Commits since the pinned base."""
    behind: int | None = None
    """Commits on the declared base that the session has not."""
    unpushed: int | None = None
    """Commits, on any ref of the session, that no host branch, remote or fetched ref reaches."""
    error: str = ""
    """Why it could not be read."""
    dirty_at: float | None = None
    """When `dirty` was looked at (Unix time)."""
    seen: str = ""
    """Fingerprint of the files that `dirty` was answered for; opaque."""
    against: str = ""
    """Fingerprint of the host refs that `behind` and `unpushed` were counted against; opaque."""
    changes: tuple[str, ...] = ()
    """The first few paths that make it dirty, for people; quoted by git."""


class Merged(NamedTuple):
    """What of a session's unpushed commits the host has in another form: squashed, rebased or picked."""

    commits: int = 0
    """How many of them."""
    into: tuple[str, ...] = ()
    """The commits of the host that hold the same."""


class Record(NamedTuple):
    """What sessionctl last did for a session. History and ownership, never status."""

    session: str
    sandbox: str
    """Id of the sandbox made last; empty when none was finished."""
    backend: str
    last: Declaration
    base: str = ""
    """The pinned base commit."""
    setup: str = ""
    """Id of the sandbox in which setup finished."""
    git: GitState = GitState()
    created_at: float = 0.0
    last_active: float = 0.0
    stopped_at: float | None = None
    """When a person stopped it by hand; None when it was not or was started since."""
    expires_at: float | None = None
    """When its ttl is over; set when that was declared."""
    idle_set: float | None = None
    """When its idle_stop was declared."""
    corrupt: str = ""
    """Why the stored record could not be read; the other fields then hold what could."""

    @property
    def protect(self) -> bool:
        return bool(self.last.data.get("protect"))


class World(NamedTuple):
    """All that diff and plan may look at: each source read once."""

    observed: tuple[Observed, ...] = ()
    records: Mapping[str, Record] = _NONE
    git: Mapping[str, GitState] = _NONE
    """Fresh readings, of the sessions for which they were asked; else see `Record.git`."""
    unreachable: Mapping[str, str] = _NONE
    """Backends that could not be asked, and why."""
    refused: Mapping[str, tuple[str, ...]] = _NONE
    """Per declared session, what its backend or its workspace cannot do here."""
    unenforced: Mapping[str, tuple[str, ...]] = _NONE
    """The same for limits that are declared as best effort: no reason to refuse it."""
    bases: Mapping[str, str] = _NONE
    """Per declared session that must be made: the commit its base is now."""
    warned: Mapping[str, tuple[str, ...]] = _NONE
    """Per declared session, what works here otherwise than a person may expect."""
    merged: Mapping[str, Merged] = _NONE
    """Per session asked about that has unpushed commits: what of them is merged."""
    homes: Mapping[str, tuple[str, ...]] = _NONE
    """Per session asked about: the first few files of its home that only it has."""
    trusted: Mapping[str, frozenset[str]] = _NONE
    """Per session, what a person trusted it to take from the host: lines of `plan.taken`."""
    revoked: Mapping[str, frozenset[str]] = _NONE
    """Per session, what of that was taken back."""
    renamed: Mapping[str, str] = _NONE
    """Sessions that are here as they will be called, and what they are called yet."""
    rivals: Mapping[str, str] = _NONE
    """Sessions that are declared as renamed from another one, although both are there."""
    gone: frozenset[str] = frozenset()
    """Of the sessions asked about, those that have neither work nor home any more."""
    now: float = 0.0
