"""The manifest: what it means, and where every value comes from. Its schema, and what `init` writes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tomllib
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionctl import declared, manifest
from sessionctl.errors import UsageError
from sessionctl.manifest import Manifest, rules
from sessionctl.model import FileSpec, MountSpec, SessionSpec, WorkspaceSpec, flat
from tests import manifests
from tests.manifests import VALID, problems, quick, refusal, resolve, spec, write

SCHEMA = Path(__file__).parent.parent / "schemas" / "sessions.schema.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return manifests.work_tree(tmp_path)


# --- what it means -----------------------------------------------------------------------------


def test_a_session_is_what_its_keys_say(root: Path, home: Path) -> None:
    (root / "claude.json").write_text("{}")
    (root / ".env.local").write_text("A=1")
    found = spec(
        root,
        """
        agent = { name = "claude" }
        image = "host"
        backend = "bubblewrap"
        title = "API rewrite ü"
        tags = ["backend", "slow"]
        metadata = { ticket = "ABC-1", "a.b" = "c" }
        state = "stopped"
        protect = true
        setup = ["uv sync"]
        env = { RUST_LOG = "debug", PATH = "/x", A = { from_env = "B" }, C = { from_file = "~/key" } }
        network = { mode = "host" }
        mounts = [{ source = "sub/../data", path = "/data" }, { source = "~/c", path = "/home/agent/.c", mode = "rw" }]
        files = [
          { path = "~/.claude/settings.json", source = "claude.json", mode = "0600" },
          { path = "~/note", content = "ü" },
        ]
        [sessions.api.workspace]
        mode = "clone"
        branch = "work/{name}-1"
        base = "main~3"
        include = [".env.local"]
        history = "own"
        submodules = true
        lfs = true
        """,
    )
    assert found == SessionSpec(
        name="api",
        agent="claude",
        title="API rewrite ü",
        tags=("backend", "slow"),
        metadata={"a.b": "c", "ticket": "ABC-1"},
        state="stopped",
        protect=True,
        setup=("uv sync",),
        env={"A": {"from_env": "B"}, "C": {"from_file": f"{home}/key"}, "PATH": "/x", "RUST_LOG": "debug"},
        mounts=(MountSpec(f"{root}/data", "/data"), MountSpec(f"{home}/c", "/home/agent/.c", "rw")),
        network="host",
        files=(
            FileSpec(
                path="~/.claude/settings.json",
                sha256=hashlib.sha256(b"{}").hexdigest(),
                mode="0600",
                source=str(root / "claude.json"),
            ),
            FileSpec(path="~/note", sha256=hashlib.sha256("ü".encode()).hexdigest(), content="ü"),
        ),
        workspace=WorkspaceSpec(
            mode="clone",
            branch="work/api-1",
            base="main~3",
            include=(".env.local",),
            history="own",
            submodules=True,
            lfs=True,
        ),
    )


def test_a_session_without_keys_has_the_built_in_values(root: Path) -> None:
    found = resolve(root, "version = 1\n[sessions.api]\n")
    assert found.declared["api"].spec == SessionSpec("api", workspace=WorkspaceSpec(branch="agents/api"))
    assert set(found.origins["api"].values()) == {"built-in"}


def test_a_manifest_may_declare_nothing(root: Path) -> None:
    assert resolve(root, "version = 1") == Manifest({}, {}, ())


def test_sessions_keep_the_order_of_the_file(root: Path) -> None:
    text = "version = 1\n[sessions.b]\n[sessions.c]\ncount = 2\n[sessions.a]\n"
    assert list(resolve(root, text).declared) == ["b", "c-1", "c-2", "a"]


def test_each_layer_overrides_the_one_below_and_is_named(
    root: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def title(text: str, *overrides: str) -> tuple[str, str]:
        found = resolve(root, text, *overrides)
        return found.declared["api"].spec.title, found.origins["api"]["title"]

    plain = "version = 1\n[sessions.api]\n"
    defaults = 'version = 1\n[sessions.api]\n[defaults]\n\ntitle = "defaults"\n'
    session = 'version = 1\n[defaults]\ntitle = "defaults"\n[sessions.api]\ntitle = "session"\n'
    assert title(plain) == ("", "built-in")
    config.write_text('# mine\n[defaults]\ntitle = "user"\n')
    assert title(plain) == ("user", "user config:3")
    assert title(defaults) == ("defaults", "sessions.toml:5")
    assert title(session) == ("session", "sessions.toml:5")
    monkeypatch.setenv("SESSIONCTL_SESSION__TITLE", "variable")
    assert title(session) == ("variable", "SESSIONCTL_SESSION__TITLE")
    assert title(session, "title=flag") == ("flag", "--set")
    assert title(session, "title=flag", "title=last") == ("last", "--set")


def test_tables_are_merged_by_key_and_lists_replaced(root: Path) -> None:
    found = resolve(
        root,
        """version = 1
        [defaults]
        env = { A = "1", B = "1" }
        metadata = { a = "1" }
        tags = ["x", "y"]
        workspace = { base = "main", history = "own" }
        [sessions.api]
        env = { B = "2" }
        metadata = { b = "2" }
        tags = ["z"]
        workspace = { history = "shared" }
        """,
    )
    api = found.declared["api"].spec
    assert api.env == {"A": "1", "B": "2"}
    assert api.metadata == {"a": "1", "b": "2"}
    assert api.tags == ("z",)
    assert (api.workspace.base, api.workspace.history) == ("main", "shared")
    origins = found.origins["api"]
    assert (origins["env.A"], origins["env.B"]) == ("sessions.toml:3", "sessions.toml:8")
    assert (origins["workspace.base"], origins["workspace.branch"]) == ("sessions.toml:6", "built-in")


def test_every_field_has_an_origin(root: Path) -> None:
    text = 'version = 1\n[sessions.api]\nfiles = [\n{ path = "~/a", content = "" },\n{ path = "~/b", content = "" }]\n'
    found = resolve(root, text)
    origins = found.origins["api"]
    assert origins.keys() == flat(found.declared["api"].data).keys()
    assert (origins["files.~/a"], origins["files.~/b"]) == ("sessions.toml:4", "sessions.toml:5")


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("protect=true", "protect", True),
        ('tags=["a", "b"]', "tags", ("a", "b")),
        ("title=true", "title", "true"),
        ("title=a=b", "title", "a=b"),
        ("env.A_b=1", "env", {"A_b": "1"}),
        ('env={ A = "2" }', "env", {"A": "2"}),
        ("metadata.a.b=c", "metadata", {"a.b": "c"}),
        ("agent=codex", "agent", "codex"),
        ("agent.name=codex", "agent", "codex"),
        ("network.mode=none", "network", "none"),
        ("state=stopped", "state", "stopped"),
        ("workspace.base=v1", "workspace", WorkspaceSpec(branch="agents/api", base="v1")),
        ("workspace.lfs=true", "workspace", WorkspaceSpec(branch="agents/api", lfs=True)),
    ],
)
def test_an_override_needs_quotes_only_where_toml_has_no_strings(
    root: Path, override: str, field: str, value: object
) -> None:
    assert getattr(spec(root, "", override), field) == value


def test_variables_keep_the_case_of_names_that_are_the_users(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONCTL_SESSION__ENV__My__Var", "1")
    monkeypatch.setenv("SESSIONCTL_SESSION__METADATA__Ticket", "2")
    monkeypatch.setenv("SESSIONCTL_SESSION__WORKSPACE__HISTORY", "own")
    found = spec(root, "")
    assert found.env == {"My__Var": "1"}
    assert found.metadata == {"Ticket": "2"}
    assert found.workspace.history == "own"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("titel=x", "--set: titel: unknown key (did you mean 'title'?)"),
        ("protect=yes", "--set: protect: 'yes' is not a TOML value"),
        ('protect="true"', "--set: protect: expected true or false"),
        ("protect=true\ncount = 3", "is not a TOML value"),
        ("tags=" + "[" * 5000, "is not a TOML value"),
        ("network.mode=allow", "--set: network.mode: 'allow' is not supported yet"),
        ("protect", "--set: 'protect' is not KEY=VALUE"),
        ("=x", '--set: "": unknown key'),
        ("title=\udc80", "--set: title"),
    ],
)
def test_a_wrong_override_is_named(root: Path, override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        spec(root, "", override)
    assert message in str(caught.value)


def test_wrong_variables_and_user_defaults_are_named_together(
    root: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSIONCTL_SESSION__PROTECT", "maybe")
    config.write_text("[defaults]\ntitle = 1\nruntime = 1\n")
    with pytest.raises(UsageError) as caught:
        spec(root, "")
    assert str(caught.value).splitlines() == [
        f"{config}:2: defaults.title: expected a string (put it in quotes)",
        f"{config}:3: defaults.runtime: is not supported yet",
        "SESSIONCTL_SESSION__PROTECT: protect: 'maybe' is not a TOML value, such as true or [\"a\"]",
    ]


# --- names and branches ------------------------------------------------------------------------


def test_count_makes_numbered_sessions(root: Path) -> None:
    three = resolve(root, 'version = 1\n[sessions.api]\ncount = 3\nworkspace.branch = "x/{name}"').declared
    assert {name: one.spec.workspace.branch for name, one in three.items()} == {
        "api-1": "x/api-1",
        "api-2": "x/api-2",
        "api-3": "x/api-3",
    }
    assert list(resolve(root, "version = 1\n[sessions.api]\ncount = 1").declared) == ["api-1"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[sessions.a]\ncount = 1\nworkspace.branch = "x"', "sessions.toml:4: sessions.a.workspace.branch: must hold"),
        ("[sessions.a]\ncount = 2\n[sessions.a-2]", "sessions.toml:4: sessions.a-2: the name a-2 is taken"),
        (f"[sessions.{'a' * 62}]\ncount = 1", "is too long for a name"),
        ("[sessions.a]\ncount = 0", "sessions.toml:3: sessions.a.count: should be greater than"),
        ("[sessions.a]\ncount = 1001", "sessions.toml:3: sessions.a.count: should be less than"),
        ("[sessions.a]\ncount = true", "sessions.toml:3: sessions.a.count: expected a whole number"),
        ('[sessions.a]\n[sessions.b]\nworkspace.branch = "agents/a"', "would be the branch of both a and b"),
        ('[sessions.a]\n[sessions.b]\nworkspace.branch = "agents"', "git cannot have both 'agents' and 'agents/a'"),
        (f'[sessions.{"a" * 63}]\nworkspace.branch = "{"b" * 190}{{name}}"', "is not a branch name that git accepts"),
    ],
)
def test_names_and_branches_that_cannot_be(root: Path, text: str, line: str) -> None:
    (found,) = problems(root, f"version = 1\n{text}\n")
    assert line in found


def test_a_manifest_has_at_most_ten_thousand_sessions(root: Path) -> None:
    text = "version = 1\n" + "".join(f"[sessions.a{number}]\ncount = 1000\n" for number in range(11))
    assert problems(root, text) == ["sessions.toml: sessions: declares 11000 sessions; at most 10000 are possible"]


@pytest.mark.parametrize("name", ["../x", "/x", "", "x" * 300, "a\0b", "\u0430pi", "Api", "-a", "a_b", "a.b", "a\n"])
def test_a_name_that_is_no_name_is_refused(root: Path, name: str) -> None:
    (line,) = problems(root, f"version = 1\n[sessions.{json.dumps(name)}]\n")
    assert line.startswith("sessions.toml:2: sessions.") and "is not a session name" in line
    assert line.isascii() and len(line) < 400


# A little of everything that git's rules speak of.
_REF = st.text(alphabet="ab/.@{}-~^:?*[\\ \x01\x7fü", max_size=6) | st.sampled_from(
    ["@", "HEAD", "a.lock", "a.lock/b", "a/.b", "a/HEAD", "-", "@{-1}", "a@{b", "x.loc", "refs/heads/a", "a//b"]
)


@given(_REF)
@settings(quick, max_examples=150)
def test_a_branch_is_what_git_accepts_as_one(name: str) -> None:
    git = subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"], check=False)
    means_something_else = name.startswith("-") or name in ("@", "HEAD")
    assert rules.is_branch(name) == (git.returncode == 0 and not means_something_else)


def test_mode_empty_leaves_no_room_for_git(root: Path) -> None:
    text = 'version = 1\n[sessions.api.workspace]\nmode = "empty"\nbranch = "x"\nhistory = "shared"\ninclude = []\n'
    assert [line.split(":")[1] for line in problems(root, text)] == ["4", "5", "6"]
    (line,) = problems(root, 'version = 1\n[sessions.api]\nworkspace.mode = "empty"', "workspace.base=main")
    assert "workspace.base: has no meaning with mode empty, which api has (--set)" in line


def test_mode_empty_drops_what_the_defaults_say_of_git(root: Path) -> None:
    defaults = 'version = 1\n[defaults.workspace]\nbase = "main"\nbranch = "x/{name}"\n'
    found = resolve(root, defaults + '[sessions.api.workspace]\nmode = "empty"\n')
    assert found.declared["api"].spec.workspace == WorkspaceSpec(mode="empty")
    assert found.origins["api"]["workspace.base"] == "built-in"


# --- prohibitions ------------------------------------------------------------------------------


def test_what_the_user_forbids_nothing_lifts(root: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text(
        'forbid = ["workspace.history=shared", "tags=bad", "protect=false"]\n[defaults]\nprotect = true\n'
    )
    assert spec(root, 'workspace.history = "own"').workspace.history == "own"
    assert "'workspace.history=shared', which api has (built-in)" in refusal(root, "")
    assert "sessions.api.tags" in refusal(root, 'workspace.history = "own"\ntags = ["good", "bad"]')
    assert "sessions.api.protect" in refusal(root, 'workspace.history = "own"\nprotect = false')
    monkeypatch.setenv("SESSIONCTL_SESSION__WORKSPACE__HISTORY", "shared")
    (line,) = problems(root, 'version = 1\n[sessions.api]\nworkspace.history = "own"')
    assert "(SESSIONCTL_SESSION__WORKSPACE__HISTORY)" in line
    (line,) = problems(root, "version = 1\n[sessions.api]\n", "workspace.history=shared")
    assert "(--set)" in line


@pytest.mark.parametrize(
    ("field", "key"),
    [
        ("image", "image"),
        ("image.source", "image"),
        ("image_extra", "image_extra"),
        ("image_extra.digest", "image_extra"),
    ],
)
def test_what_comes_with_an_image_can_be_forbidden_too(root: Path, config: Path, field: str, key: str) -> None:
    (root / "tree/bin").mkdir(parents=True)
    keys = 'image = "rootfs:tree"\nimage_extra = ["git"]\n'
    value = flat(resolve(root, f"version = 1\n[sessions.api]\n{keys}").declared["api"].data)[field]
    entry = f"{field}={value if isinstance(value, str) else value[0]}"
    config.write_text(f"forbid = [{json.dumps(entry)}]\n")
    line = refusal(root, keys)
    assert f"sessions.api.{key}: the user config forbids '{entry[:20]}" in line


# --- schema, template, finding -----------------------------------------------------------------


def test_the_schema_in_the_repository_is_the_generated_one() -> None:
    assert SCHEMA.read_text() == json.dumps(manifest.schema(), indent=2, sort_keys=True) + "\n"


def test_the_schema_accepts_every_valid_manifest_and_refuses_wrong_shapes(root: Path) -> None:
    schema = manifest.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for text in (VALID.decode(), manifest.template("main"), "version = 1", "version = 1\n[sessions.a]\nagent = 'pi'"):
        resolve(root, text)
        validator.validate(tomllib.loads(text))
    for text in (
        "",
        "version = 2",
        "version = 1\nx = 1",
        "version = 1\n[sessions.A]",
        "version = 1\n[sessions.a]\nagnt = 'x'",
        "version = 1\n[sessions.a]\nenv = { A = 1 }",
        "version = 1\n[sessions.a]\nenv = { '1' = 'x' }",
        "version = 1\n[sessions.a]\ncount = 0",
        "version = 1\n[sessions.a]\nimage = 'x'",
        "version = 1\n[sessions.a]\nlimits = { pids = 1 }",
        "version = 1\n[sessions.a]\nfiles = [{ path = '~/a' }]",
        "version = 1\n[sessions.a]\nfiles = [{ path = '/a', content = '' }]",
        "version = 1\n[sessions.a]\nworkspace = { mode = 'worktree', visible = true, source = 'x' }",
    ):
        assert not validator.is_valid(tomllib.loads(text)), text
        problems(root, text)


def _described(schema: object) -> list[str]:
    """The properties in `schema` that have no description."""
    if isinstance(schema, list):
        return [name for item in schema for name in _described(item)]
    if not isinstance(schema, dict):
        return []
    own = schema.get("properties", {})
    bare = [name for name, item in own.items() if isinstance(item, dict) and not item.get("description")]
    return bare + [name for item in schema.values() for name in _described(item)]


def test_every_key_in_the_schema_is_described() -> None:
    assert _described(manifest.schema()) == []


@pytest.mark.parametrize("branch", ["main", "feature/ü-😀", 'a"b', "release-1.0", ""])
def test_the_first_manifest_is_valid_and_starts_from_the_branch(root: Path, branch: str) -> None:
    declared = resolve(root, manifest.template(branch)).declared
    assert list(declared) == ["agent"]
    assert declared["agent"].spec.agent == "claude"
    assert declared["agent"].spec.workspace.base == branch


def test_comments_in_the_first_manifest_are_valid_when_used(root: Path) -> None:
    (root / "tool.toml").write_text("")
    text = manifest.template("main")
    for key in ("setup", "env", "files"):
        assert f"\n# {key} =" in text
        text = text.replace(f"\n# {key} =", f"\n{key} =")
    found = resolve(root, text).declared["agent"].spec
    assert found.setup and found.env and found.files


def test_the_nearest_manifest_up_to_the_root_is_found(root: Path, tmp_path: Path) -> None:
    inner = root / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "sessions.toml").write_text("")
    with pytest.raises(UsageError) as caught:
        declared.find(inner, root)
    assert "sessionctl init" in caught.value.hint
    write(root, "")
    assert Path(declared.find(inner, root)) == root / "sessions.toml"
    assert Path(declared.find(root, root)) == root / "sessions.toml"
    (root / "a" / "sessions.toml").mkdir()
    assert Path(declared.find(inner, root)) == root / "a" / "sessions.toml"
    with pytest.raises(UsageError):
        declared.find(tmp_path, root)
