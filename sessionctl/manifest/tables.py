"""The file model: what `sessions.toml` may hold, table by table, with the words of its JSON schema.

It is strict: unknown keys are errors, and nothing is converted. Descriptions are for who writes a manifest;
the schema and the reference in docs/manifest.md are made of them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)

from sessionctl.declared import FILE
from sessionctl.manifest import rules


def _text(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern})


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


def _disjoint_files(files: list[FileTable]) -> list[FileTable]:
    rules.disjoint_files([file.path for file in files])
    return files


def _disjoint_mounts(mounts: list[MountTable]) -> list[MountTable]:
    rules.disjoint_mounts([mount.path for mount in mounts])
    return mounts


_NAME = _text("^[a-z0-9][a-z0-9-]{0,62}$")
_Label = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(rules.label)]
_Lasting = Annotated[str, AfterValidator(rules.lasting), _text("^$|[smhdwSMHDW]")]
_Size = Annotated[str, AfterValidator(rules.size), _text(r"^[0-9]+(\.[0-9]+)?([kMGT]B|[KMGT]iB)$")]
_Scalar = Discriminator(lambda value: "(table)" if isinstance(value, dict) else "(text)")
"""Says which half of `string or table` was meant, so that a message speaks of that half only."""


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class AgentTable(Table):
    """The coding agent of the session."""

    name: Annotated[str, rules.known("agents"), _NAME] = Field(description="Name of the agent, such as claude.")


class NetworkTable(Table):
    """What the session can reach."""

    mode: Literal["none", "host"] = Field(
        description="none: no network but the sandbox's own loopback; host: the host's, as it is."
    )


class WorkspaceTable(Table):
    """The git checkout that the agent works on, at /workspace."""

    mode: Literal["clone", "worktree", "overlay", "bind", "empty"] = Field(
        default="clone",
        description="clone: a checkout of its own that borrows the repository's objects; worktree: the same, in a "
        "directory that is a worktree of your repository; overlay: as clone, with a copy of what your checkout has "
        "beside its commit; bind: your own checkout; empty: no git at all.",
    )
    branch: Annotated[str, AfterValidator(rules.branch)] = Field(
        default="agents/{name}", description="Where the session's work lands. {name} is the session's name."
    )
    base: Annotated[str, AfterValidator(rules.base)] = Field(
        default="",
        description="What the branch is made from, once. Empty: the commit that the repository has checked out.",
    )
    include: Annotated[list[Annotated[str, AfterValidator(rules.relative)]], AfterValidator(rules.unique)] = Field(
        default=[], description="Untracked files of the repository that are copied in, relative to its root."
    )
    history: Literal["shared", "own"] = Field(
        default="shared",
        description="shared: all objects of the repository can be read inside; own: those of the base only.",
    )
    submodules: bool = Field(default=False, description="Whether submodules are checked out.")
    lfs: bool = Field(default=False, description="Whether git-lfs files are checked out instead of their pointers.")
    visible: bool = Field(
        default=False, description="Of a clone: whether its files are an ordinary directory, for an editor to open."
    )
    session_dir: Annotated[str, AfterValidator(rules.session_dir)] = Field(
        default="",
        description="A new or empty directory that the files of a visible clone or a worktree are put in, below the "
        "session's name. {name} is that name. Empty: the state directory.",
    )


class LimitsTable(Table):
    """Limits of a session, and what to do where they cannot be enforced."""

    memory: _Size = Field(
        default="",
        description="Memory and swap of all its processes together, such as 4GiB: at least 16MiB.",
        json_schema_extra=_without_default,
    )
    cpus: Annotated[float, AfterValidator(rules.cpus), WithJsonSchema({"type": "number", "minimum": 0.01})] = Field(
        default=0,
        description="Processor time, in processors: 2, or 0.5.",
        json_schema_extra=_without_default,
    )
    pids: int = Field(
        default=0,
        ge=4,
        le=4_000_000,
        description="Processes and threads at a time, the sandbox's first one among them.",
        json_schema_extra=_without_default,
    )
    disk: _Size = Field(
        default="",
        description="Size of what it writes. No backend can hold a session to it yet: strict, it is refused.",
        json_schema_extra=_without_default,
    )
    wall: Annotated[str, AfterValidator(rules.wall), _text("[smhdwSMHDW]")] = Field(
        default="",
        description="How long one exec or setup command may take, such as 90s or 2h: it ends with 124.",
        json_schema_extra=_without_default,
    )
    enforce: Literal["strict", "best-effort"] = Field(
        default="strict",
        description="strict: a limit that cannot be enforced here is refused; best-effort: `plan` and `ls` name it.",
    )


class FileTable(Table):
    """A file that is put into the session's home."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["source"]}, {"required": ["content"]}]})

    path: Annotated[str, AfterValidator(rules.home_path), _text("^~/")] = Field(
        description="Where it is put: a path below ~/, the home inside."
    )
    source: Annotated[str, Field(min_length=1), AfterValidator(rules.label)] = Field(
        default="",
        description="A file on the host, relative to the manifest. Outside of the repository it has to be trusted.",
    )
    content: str = Field(default="", description="What to write, instead of a source.")
    mode: Annotated[str, AfterValidator(rules.permissions), _text("^0[0-7]{3}$")] = Field(
        default="0644", description="Permissions: four octal digits."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> FileTable:
        if len(self.model_fields_set & {"source", "content"}) != 1:
            raise rules.wrong("needs either source or content")
        return self


class MountTable(Table):
    """A file or directory of the host that is seen inside."""

    source: Annotated[str, Field(min_length=1), AfterValidator(rules.label)] = Field(
        description="A file or directory of the host, relative to the manifest; ~/ is your home."
    )
    path: Annotated[str, AfterValidator(rules.mount_path), _text("^/")] = Field(
        description="Where it is seen inside: an absolute path."
    )
    mode: Literal["ro", "rw"] = Field(default="ro", description="ro: to be read only; rw: what is written is kept.")


class SecretTable(Table):
    """Where on the host the value of a variable is found, each time a command is run."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["from_env"]}, {"required": ["from_file"]}]})

    from_env: Annotated[str, AfterValidator(rules.variable_name), _text("^[A-Za-z_][A-Za-z0-9_]*$")] = Field(
        default="",
        description="A variable of the environment that sessionctl is run in.",
        json_schema_extra=_without_default,
    )
    from_file: Annotated[str, Field(min_length=1), AfterValidator(rules.label)] = Field(
        default="",
        description="A file of the host, relative to the manifest, of at most 96 KiB; its last newline is left out.",
        json_schema_extra=_without_default,
    )

    @model_validator(mode="after")
    def _one_origin(self) -> SecretTable:
        if len(self.model_fields_set) != 1:
            raise rules.wrong("needs either from_env or from_file")
        return self


_Variable = Annotated[
    Annotated[str, AfterValidator(rules.no_nul), Tag("(text)")] | Annotated[SecretTable, Tag("(table)")], _Scalar
]
_Agent = Annotated[
    Annotated[str, rules.known("agents"), _NAME, Tag("(text)")] | Annotated[AgentTable, Tag("(table)")], _Scalar
]
_Network = Annotated[
    Annotated[Literal["none", "host"], Tag("(text)")] | Annotated[NetworkTable, Tag("(table)")], _Scalar
]


class SessionTable(Table):
    """One session: an agent, its sandbox, its workspace."""

    agent: _Agent = Field(
        default="", description="The coding agent: its name, or a table with its name. Recorded; not yet started."
    )
    image: Annotated[str, AfterValidator(rules.image), _text("^(host|(rootfs|archive|oci):.+)$")] = Field(
        default="host",
        description="What the sandbox's file system is made of. host: the host's programs, read-only; rootfs:DIR, "
        "archive:FILE or oci:LAYOUT[:TAG]: that, as a writable layer over it. Relative to the manifest; outside of "
        "the repository it has to be trusted.",
    )
    image_extra: Annotated[
        list[Annotated[str, AfterValidator(rules.program), _text("^[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}$")]],
        AfterValidator(rules.unique),
    ] = Field(
        default=[],
        description="Programs of the host's /usr that are brought into an image which has none of that name, with all "
        "that they load, such as git and node.",
    )
    backend: Annotated[str, rules.known("backends"), _NAME] = Field(
        default="bubblewrap", description="What makes the sandbox."
    )
    title: Annotated[str, Field(max_length=200), AfterValidator(rules.label)] = Field(
        default="", description="One line for people, of at most 200 characters."
    )
    tags: Annotated[list[_Label], AfterValidator(rules.unique)] = Field(
        default=[], description="Words to select sessions by, of at most 64 characters each."
    )
    metadata: dict[_Label, Annotated[str, AfterValidator(rules.label)]] = Field(
        default={}, description="Anything of your own, as strings. sessionctl keeps it and shows it."
    )
    state: Literal["running", "stopped"] = Field(default="running", description="Whether `apply` lets it run.")
    protect: bool = Field(
        default=False, description="Whether `prune` must never take it, also after its block is gone."
    )
    ttl: _Lasting = Field(
        default="",
        description="How long after this was applied `prune` may take the session although it is declared, if it holds "
        "no work: such as 7d. `apply` makes it anew.",
    )
    idle_stop: _Lasting = Field(
        default="",
        description="How long the session must be unused, and nothing run in it, for the next `apply` or `prune` to "
        "stop it: such as 2h. It runs again with `start`.",
    )
    on_prune: Literal["snapshot", "delete"] = Field(
        default="snapshot",
        description="snapshot: what `prune` takes away goes to the trash, and `undo` brings it back; delete: nothing "
        "is kept, and whatever lies in the home or is only merged in another form keeps the session.",
    )
    parent: Annotated[str, AfterValidator(rules.parent), _text("^([a-z0-9][a-z0-9-]{0,62})?$")] = Field(
        default="",
        description="A session that this one is made as a copy of, on a branch of its own. "
        "Of no effect once it is there.",
    )
    count: int = Field(
        default=0,
        ge=1,
        le=1000,
        description="Makes NAME-1 to NAME-count of this session. A branch given by name then needs {name}.",
        json_schema_extra=_without_default,
    )
    renamed_from: Annotated[str, AfterValidator(rules.session_name), _NAME] = Field(
        default="",
        description="What the session was called before: `apply` renames it, with its work, home and history.",
        json_schema_extra=_without_default,
    )
    setup: list[Annotated[str, AfterValidator(rules.command), _text(r"\S")]] = Field(
        default=[], description="Shell commands that run inside, once, after the sandbox was made."
    )
    env: dict[
        Annotated[str, AfterValidator(rules.env_name), _text("^[A-Za-z_][A-Za-z0-9_]*$")],
        _Variable,
    ] = Field(
        default={},
        description="Environment variables of every command inside: strings, together at most 96 KiB, or tables that "
        "say where on the host a secret is. PATH may be set; HOME may not, because the home inside is fixed.",
        json_schema_extra={"additionalProperties": False},
    )
    files: Annotated[list[FileTable], AfterValidator(_disjoint_files)] = Field(
        default=[], description="Files that are put into the session's home."
    )
    workspace: WorkspaceTable = Field(
        default=WorkspaceTable(),
        description="The git checkout that the agent works on.",
        json_schema_extra=_without_default,
    )
    mounts: Annotated[list[MountTable], AfterValidator(_disjoint_mounts)] = Field(
        default=[], description="Files and directories of the host that are seen inside. They have to be trusted."
    )
    limits: LimitsTable = Field(
        default=LimitsTable(), description="What the session may use.", json_schema_extra=_without_default
    )
    network: _Network = Field(
        default="none",
        description="What the session can reach. none: nothing but its own loopback; host: all that the host "
        "reaches, which has to be trusted.",
    )


class ManifestFile(Table):
    """The sessions of a repository."""

    version: Annotated[int, Field(ge=1, le=1), WithJsonSchema({"const": 1})] = Field(
        description="Version of this format."
    )
    defaults: SessionTable = Field(
        default=SessionTable(),
        description="What every session has that does not say otherwise.",
        json_schema_extra=_without_default,
    )
    sessions: dict[Annotated[str, AfterValidator(rules.session_name), _NAME], SessionTable] = Field(
        default={},
        description="The sessions by name: 1 to 63 of a-z, 0-9 and '-', not beginning with '-'.",
        json_schema_extra={"additionalProperties": False},
    )


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the manifest. Every valid manifest satisfies it; finer rules are not in it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:sessionctl:manifest:1",
        **ManifestFile.model_json_schema(),
        "title": FILE,
    }
