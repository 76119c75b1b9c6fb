"""The manifest: what it means, what is refused and where, and where every value comes from."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessionctl import declared, manifest, plugins
from sessionctl import settings as settings_module
from sessionctl.errors import ManifestError, SessionctlError, UntrustedError, UsageError
from sessionctl.locate import locate
from sessionctl.manifest import Manifest, reading, rules, tables
from sessionctl.model import FileSpec, MountSpec, SessionSpec, WorkspaceSpec, flat
from sessionctl.plan import taken

SCHEMA = Path(__file__).parent.parent / "schemas" / "sessions.schema.json"

quick = settings(database=None, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository's work tree, as far as a manifest looks at it."""
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    return tmp_path / "repo"


def write(root: Path, text: str | bytes) -> Path:
    file = root / "sessions.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def resolve(root: Path, text: str | bytes, *overrides: str) -> Manifest:
    file = write(root, text)
    return manifest.resolve(file, root, settings=settings_module.load(root), overrides=overrides)


def spec(root: Path, keys: str, *overrides: str) -> SessionSpec:
    """The session `api` with these keys."""
    return resolve(root, f"version = 1\n[sessions.api]\n{keys}", *overrides).declared["api"].spec


def problems(root: Path, text: str | bytes, *overrides: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        resolve(root, text, *overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def refusal(root: Path, keys: str) -> str:
    """The one line that says why these keys of the session `api` are refused."""
    (line,) = problems(root, f"version = 1\n[sessions.api]\n{keys}")
    return line


def user_config(home: Path, text: str) -> None:
    (home / "config" / "sessionctl").mkdir(parents=True)
    (home / "config" / "sessionctl" / "config.toml").write_text(text)


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
    root: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def title(text: str, *overrides: str) -> tuple[str, str]:
        found = resolve(root, text, *overrides)
        return found.declared["api"].spec.title, found.origins["api"]["title"]

    plain = "version = 1\n[sessions.api]\n"
    defaults = 'version = 1\n[sessions.api]\n[defaults]\n\ntitle = "defaults"\n'
    session = 'version = 1\n[defaults]\ntitle = "defaults"\n[sessions.api]\ntitle = "session"\n'
    assert title(plain) == ("", "built-in")
    user_config(home, '# mine\n[defaults]\ntitle = "user"\n')
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
        ("workspace.mode=worktree", "--set: workspace.mode: 'worktree' is not supported yet"),
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
    root: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSIONCTL_SESSION__PROTECT", "maybe")
    user_config(home, "[defaults]\ntitle = 1\nruntime = 1\n")
    with pytest.raises(UsageError) as caught:
        spec(root, "")
    config = home / "config" / "sessionctl" / "config.toml"
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


# --- what is refused ---------------------------------------------------------------------------


def test_all_problems_are_said_at_once_each_with_its_line(root: Path) -> None:
    text = """\
version = 2
wat = 1
[defaults]
backend = "bubblewrp"
[sessions.api]
agnt = "claude"
budget = { usd = 1 }
agent = { name = "claud", model = "x" }
tags = ["a", "a"]
env = { A = 1, "1C" = "x", HOME = "x" }
files = [
  { path = "~/a", source = "x", content = "y" },
  { path = "/etc/x", content = "1", mode = "4755" },
]
[sessions.api.workspace]
branch = "a..b"
histry = "own"
[sessions."../x"]
title = "x\\u001b"
state = "runing"
[sessions.b]
workspace.mode = "empty"
workspace.base = "main"
"""
    found = [line.removeprefix("sessions.toml:") for line in problems(root, text)]
    assert [line[: line.index(": ", line.index(": ") + 1)] for line in found] == [
        "1: version",
        "2: wat",
        "4: defaults.backend",
        "6: sessions.api.agnt",
        "7: sessions.api.budget",
        "8: sessions.api.agent.name",
        "8: sessions.api.agent.model",
        "9: sessions.api.tags",
        "10: sessions.api.env.A",
        "10: sessions.api.env.1C",
        "10: sessions.api.env.HOME",
        "12: sessions.api.files[0]",
        "13: sessions.api.files[1].path",
        "13: sessions.api.files[1].mode",
        "16: sessions.api.workspace.branch",
        "17: sessions.api.workspace.histry",
        '18: sessions."../x"',
        '19: sessions."../x".title',
        '20: sessions."../x".state',
        "23: sessions.b.workspace.base",
    ]


@pytest.mark.parametrize(
    "keys",
    [
        *(f"{key} = 1" for key in sorted(reading.NOT_YET[""])),
        'image = "debian:12"',
        'network = { mode = "allow" }',
        'network = { mode = "none", allow = ["a:1"] }',
        'agent = { name = "claude", model = "x" }',
        'agent = { name = "claude", prompt = "x" }',
        'agent = { name = "claude", args = ["x"] }',
        'workspace = { mode = "worktree" }',
        'workspace = { source = "x" }',
        'files = [{ path = "/etc/x", content = "" }]',
    ],
)
def test_what_comes_later_is_refused_and_not_ignored(root: Path, keys: str) -> None:
    line = refusal(root, keys)
    assert line.startswith("sessions.toml:3: sessions.api.") and "not supported yet" in line


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('agnt = "claude"', "unknown key (did you mean 'agent'?)"),
        ("zzz = 1", "sessions.api.zzz: unknown key"),
        ('workspace = { bse = "x" }', "unknown key (did you mean 'base'?)"),
        ('files = [{ path = "~/a", content = "", mod = "0600" }]', "files[0].mod: unknown key (did you mean 'mode'?)"),
        ('agent = { nme = "claude", name = "claude" }', "agent.nme: unknown key (did you mean 'name'?)"),
        ('agent = "clade"', "'clade' is not a known agent (did you mean 'claude'?)"),
        ('backend = "../x"', "is not a known backend"),
        ('state = "stoped"', "expected 'running' or 'stopped', not 'stoped' (did you mean 'stopped'?)"),
        ("title = 3", "expected a string (put it in quotes)"),
        ("title = 2020-01-01", "expected a string (put it in quotes)"),
        ("tags = [[]]", "tags[0]: expected a string"),
        ('workspace = "clone"', "expected a table"),
        ("env = []", "expected a table"),
        ('setup = "make"', "expected an array"),
        ('setup = [" "]', "setup[0]: is an empty command"),
        ('setup = ["a\\u0000"]', "holds a NUL character"),
        ('env.A = "a\\u0000"', "holds a NUL character"),
        ('tags = [""]', "tags[0]"),
        (f'tags = ["{"a" * 65}"]', "at most 64"),
        (f'title = "{"a" * 201}"', "at most 200"),
        ('title = "a\\nb"', "holds a control character"),
        ('title = "a\\u202eb"', "holds a control character"),
        ('tags = ["a\\u009b"]', "holds a control character"),
        ('metadata = { a = "\\u001b[31m" }', "holds a control character"),
        ('metadata = { "\\u001b" = "a" }', "holds a control character"),
        ('workspace.base = "--upload-pack=x"', "begins with '-'"),
        ('workspace.branch = "-x"', "is not a branch name"),
        ('workspace.branch = ""', "is not a branch name"),
        (f'env.A = "{"a" * 98302}"', "sessions.api.env.A: all variables together have 98305 bytes"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_words(root: Path, keys: str, words: str) -> None:
    line = refusal(root, keys)
    assert line.startswith("sessions.toml:3: sessions.api.") and words in line


def test_no_message_can_speak_to_the_terminal_or_tell_a_value_of_env(root: Path) -> None:
    text = (
        'version = 1\n"\\u001b[31mx" = 1\n[sessions.api]\n"\\u009b\\n" = 1\nstate = "\\u001b"\nagent = "\\u202e"\n'
        'image = "\\u001b"\nenv = { "1\\u001b" = "hunter2" }\nworkspace.branch = "\\u001b"\n'
        'files = [{ path = "~/..\\u001b", source = "\\u001b" }]\n[sessions."\\u001b"]\n'
    )
    said = "\n".join(problems(root, text))
    assert len(said.splitlines()) >= 9
    assert all(char == "\n" or char.isprintable() for char in said)
    assert "hunter2" not in said


def test_a_flood_of_problems_is_cut(root: Path) -> None:
    lines = problems(root, "version = 1\n" + "".join(f"a{number} = 1\n" for number in range(5000)))
    assert len(lines) == 101 and lines[-1] == "sessions.toml: and more of these"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"version = 1\n\n[sessions\n", "sessions.toml:3: is not valid TOML: Expected ']'"),
        (b"version = 1\nversion = 1\n", "sessions.toml:2: is not valid TOML: Cannot overwrite"),
        (b"version = 1\n[sessions.a]\n[sessions.a]\n", "sessions.toml:3: is not valid TOML: Cannot declare"),
        (b'version = 1\nx = """', "sessions.toml:2: is not valid TOML"),
        (b"version = 1\n# \xff\n", "sessions.toml:2: is not UTF-8"),
        (b"version = 1\n\0", "sessions.toml:2: is not valid TOML"),
        (b"", "sessions.toml: version: is missing (write: version = 1)"),
        (b"version = 1.0", "sessions.toml:1: version: must be 1"),
        (b"version = true", "sessions.toml:1: version: must be 1"),
        (b"version = 1\nsessions = 3", "sessions.toml:2: sessions: expected a table"),
        (b"version = 1\nsessions.api = 3", "sessions.toml:2: sessions.api: expected a table"),
        (b"version = 1\n[session.api]", "sessions.toml:2: session: unknown key (did you mean 'sessions'?)"),
        (b"x = " + b"[" * 10_000, "sessions.toml: nests too deeply"),
        (b"\n" + b"a." * 100 + b"a = 1", "sessions.toml:2: joins more than 50 keys by dots"),
        (b"x = " + b"1" * 10_000, "sessions.toml: is not valid TOML: Exceeds the limit"),
        (b"#" * (1024 * 1024 + 1), "sessions.toml: is larger than 1024 KiB"),
    ],
)
def test_a_file_that_is_no_manifest(root: Path, content: bytes, line: str) -> None:
    (found,) = problems(root, content)
    assert line in found


def test_a_manifest_that_is_no_readable_file(root: Path) -> None:
    def said() -> str:
        with pytest.raises(ManifestError) as caught:
            manifest.resolve(file, root, settings=settings_module.load(root))
        return str(caught.value)

    file = root / "sessions.toml"
    assert said() == "sessions.toml: cannot be read: No such file or directory"
    file.mkdir()
    assert said() == "sessions.toml: cannot be read: Is a directory"
    file.rmdir()
    os.mkfifo(file)
    assert said() == "sessions.toml: is not a regular file"
    file.unlink()
    file.symlink_to(file)
    assert said() == "sessions.toml: cannot be read: Too many levels of symbolic links"
    file.unlink()
    with file.open("wb") as sparse:
        sparse.truncate(50 * 1024**3)
    assert said() == "sessions.toml: is larger than 1024 KiB"
    if os.geteuid() != 0:  # root reads everything
        file.chmod(0)
        assert said() == "sessions.toml: cannot be read: Permission denied"


def _answer(root: Path, content: bytes) -> None:
    """Resolves `content`; whatever it is, only errors meant for people may come of it."""
    try:
        resolve(root, content)
    except SessionctlError as error:
        assert str(error) and error.exit_code in (2, 5)


@given(st.binary(max_size=200))
@settings(quick, max_examples=200)
def test_no_bytes_make_a_traceback(root: Path, content: bytes) -> None:
    _answer(root, content)


VALID = b"""\
version = 1
[defaults]
env = { A = "1" }
[sessions.api]
agent = { name = "claude" }
tags = ["a", "b"]
count = 2
files = [{ path = "~/a", content = "x", mode = "0600" }]
metadata."x y" = 'z'
workspace = { branch = "x/{name}", include = [] }
[sessions.b]
network = "none"
workspace.mode = "empty"
"""
_PIECES = st.sampled_from(
    [
        *(b"", b"[", b"]]", b"{", b'"', b"'''", b"=", b".", b"\n", b"1"),
        *(b"\\", b"\0", b"\xff", b"[key]", b"(text)", b"..", b"~/"),
    ]
)
_EDITS = st.lists(
    st.tuples(st.integers(0, len(VALID)), st.integers(0, 8), _PIECES | st.binary(max_size=3)), min_size=1, max_size=3
)


@given(_EDITS)
@settings(quick, max_examples=300)
def test_no_edit_of_a_valid_manifest_makes_a_traceback(root: Path, edits: list[tuple[int, int, bytes]]) -> None:
    content = VALID
    for at, cut, piece in edits:
        content = content[:at] + piece + content[at + cut :]
    _answer(root, content)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["", "a", "claude", "host", "~/a", "[key]"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [*tables.SessionTable.model_fields, "name", "path", "(text)", "(table)", "[key]", "from_env", "x"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


def _toml(value: Any) -> str:
    """`value` as an inline TOML value."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value) if value is not None else "1979-05-27"


_WORDS = st.sampled_from(["a", "[key]", "(text)", "agent", "env", "files", "network", "workspace"])


@given(st.dictionaries(st.sampled_from(["defaults", "sessions", "[key]"]), st.dictionaries(_WORDS, _JSON)))
@settings(quick, max_examples=300)
def test_no_shape_of_document_makes_a_traceback(root: Path, data: dict[str, Any]) -> None:
    text = "version = 1\n" + "".join(f"{json.dumps(key)} = {_toml(value)}\n" for key, value in data.items())
    tomllib.loads(text)
    _answer(root, text.encode())


# --- the locator -------------------------------------------------------------------------------

_SCALARS = [
    *("1", "-1.5e3", "0x1F", "true", "inf", "1979-05-27 07:32:00", "07:32:00.5"),
    *('""', "''", '"a # b = \\" ] }"', "'} , ]'", '"\\u0041\\\\"'),
    *('"""\n a = 1 # no\n[x]\n"""', '"""a"""""', '"""\\\n  x \\""" """', '""""""', "'''\n[[y]]\n'' '''''"),
]
_KEYS = [("k{}", "k{}"), ('"k {}"', "k {}"), ("'k.{}'", "k.{}"), ('"\\u0041#=]{}"', "A#=]{}"), ("{}", "{}")]
_GAPS = ["", " ", "\n", " # ] } , \"\"\" ''' = \n\t", "\n\n", "\t"]


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[tuple[str | int, ...], int]]:
    """A valid TOML document that shows all of TOML's ways, and the line of everything in it."""
    text = ""
    lines: dict[tuple[str | int, ...], int] = {}

    def line() -> int:
        return text.count("\n") + 1

    def emit(*choices: str) -> None:
        nonlocal text
        text += draw(st.sampled_from(choices))

    def key(table: tuple[str | int, ...], number: int) -> tuple[str | int, ...]:
        """Writes a key of one or two parts, of which the first is nobody else's in the table."""
        here = line()
        for part in range(draw(st.integers(1, 2))):
            written, meant = draw(st.sampled_from(_KEYS))
            emit(*(("." if part else "",) if part == 0 else (".", " . ", "\t.")))
            emit(written.format(number))
            table = (*table, meant.format(number))
            lines.setdefault(table, here)
        return table

    def pair(table: tuple[str | int, ...], number: int, depth: int) -> None:
        path = key(table, number)
        emit("=", " = ", "\t= ")
        value(path, depth)

    def value(path: tuple[str | int, ...], depth: int) -> None:
        kind = draw(st.sampled_from(["scalar", "array", "inline"])) if depth else "scalar"
        if kind == "scalar":
            emit(*_SCALARS)
            return
        size = draw(st.integers(0, 3))
        emit("[" if kind == "array" else "{")
        for number in range(size):
            if kind == "array":
                emit(*_GAPS)
                lines[(*path, number)] = line()
                value((*path, number), depth - 1)
                emit(*_GAPS)
            else:
                emit("", " ")
                pair(path, number, depth - 1)
                emit("", " ")
            last = number == size - 1
            emit(*(("", ",") if last and kind == "array" else ("",) if last else (",",)))
        emit(*(_GAPS if kind == "array" else ("", " ")))
        emit("]" if kind == "array" else "}")

    def body(table: tuple[str | int, ...]) -> None:
        for number in range(draw(st.integers(0, 3))):
            emit(*_GAPS)
            pair(table, number, 2)
            emit("\n", " # end\n")

    body(())
    for number in range(10, 10 + draw(st.integers(0, 3))):
        emit("", "\n", "# [no]\n")
        here = line()
        if draw(st.booleans()):
            emit("[", "[ ")
            table = key((), number)
            emit("]\n", " ] # x\n")
            body(table)
            continue
        name = f"list{number}"
        for element in range(draw(st.integers(1, 2))):
            here = line()
            emit(f"[[{name}]]\n", f'[[ "{name}" ]]\n')
            lines.setdefault((name,), here)
            lines[(name, element)] = here
            body((name, element))
            if draw(st.booleans()):
                here = line()
                emit(f"[{name}.inner]\n")
                lines[(name, element, "inner")] = here
                body((name, element, "inner"))
    return text, lines


def _places(value: object, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """Everything in a parsed document."""
    items: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return {path for path in [path] if path}.union(*(_places(item, (*path, key)) for key, item in items))


@given(documents())
@settings(quick, max_examples=300, suppress_health_check=list(HealthCheck))
def test_everything_in_a_document_is_found_on_its_line(document: tuple[str, dict[tuple[str | int, ...], int]]) -> None:
    text, lines = document
    found = locate(text)
    assert found.keys() == _places(tomllib.loads(text))
    assert found == lines


def test_lines_are_counted_the_same_with_windows_line_ends(root: Path) -> None:
    (line,) = problems(root, b'version = 1\r\n[sessions.api]\r\nimage = """host"""\r\ntitle = 1\r\n')
    assert line.startswith("sessions.toml:4: sessions.api.title")


# --- files and includes ------------------------------------------------------------------------


def source(root: Path, path: str) -> FileSpec:
    return spec(root, f'files = [{{ path = "~/a", source = {json.dumps(path)} }}]').files[0]


def test_a_source_is_found_from_the_manifest_and_named_by_its_real_path(root: Path) -> None:
    (root / "sub").mkdir()
    (root / "sub" / "real").write_bytes(b"\x00\xff")
    (root / "link").symlink_to("sub/real")
    for path in ("sub/real", "link", str(root / "link"), "sub/../link"):
        assert source(root, path) == FileSpec("~/a", hashlib.sha256(b"\x00\xff").hexdigest(), source=f"{root}/sub/real")
    moved = root / "sub" / "sessions.toml"
    moved.write_text('version = 1\n[sessions.api]\nfiles = [{ path = "~/a", source = "real" }]')
    found = manifest.resolve(moved, root, settings=settings_module.load(root))
    assert found.declared["api"].spec.files[0].source == f"{root}/sub/real"
    assert found.origins["api"]["files.~/a"] == "sub/sessions.toml:3"
    assert found.inputs == (f"{root}/sub/real",)


def test_a_source_outside_of_the_repository_needs_trust(root: Path, home: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    (home / "key").write_text("s")
    (root / "link").symlink_to(secret)
    (root / "dir").symlink_to(tmp_path)
    for path, real in {
        **dict.fromkeys(("../secret", str(secret), "link", "dir/secret"), str(secret)),
        "~/key": f"{home}/key",
    }.items():
        found = source(root, path)
        assert (found.source, found.outside) == (real, True)
        assert taken(spec(root, f'files = [{{ path = "~/a", source = "{path}" }}]').data()) == (f"files.~/a: {real}",)
    (root / "inside").write_text("s")
    assert not source(root, "inside").outside


def test_what_is_wrong_is_said_before_what_needs_trust(root: Path) -> None:
    (root / "out").symlink_to("/etc/passwd")
    assert "unknown key" in refusal(root, 'workspace.include = ["out"]\nzzz = 1')


def test_what_is_named_on_the_host_is_named_by_where_it_leads(root: Path, home: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to("../elsewhere")
    found = resolve(
        root,
        'version = 1\n[sessions.api]\nmounts = [{ source = "link/a", path = "/a" },'
        ' { source = "~", path = "/b" }]\nenv = { K = { from_file = "link" } }\n',
    )
    api = found.declared["api"].spec
    assert [mount.source for mount in api.mounts] == [f"{tmp_path}/elsewhere/a", str(home)]
    assert api.env == {"K": {"from_file": f"{tmp_path}/elsewhere"}}
    assert set(found.links) == {f"{root}/link/a", str(home), f"{root}/link"} and found.inputs == ()
    assert found.origins["api"]["mounts./b"] == "sessions.toml:3"


@pytest.mark.parametrize(
    ("mounts", "words"),
    [
        ('[{ source = "a" }]', "mounts[0].path: is missing"),
        ('[{ path = "/a" }]', "mounts[0].source: is missing"),
        ('[{ source = "", path = "/a" }]', "mounts[0].source"),
        ('[{ source = "a", path = "a" }]', "is not an absolute path"),
        ('[{ source = "a", path = "/a/../etc" }]', "is not an absolute path"),
        ('[{ source = "a", path = "/a/" }]', "is not an absolute path"),
        ('[{ source = "a", path = "//a" }]', "is not an absolute path"),
        ('[{ source = "a", path = "/" }]', "is the sandbox's own; choose"),
        ('[{ source = "a", path = "/home" }]', "is the sandbox's own; choose"),
        ('[{ source = "a", path = "/home/agent" }]', "is the sandbox's own; choose"),
        ('[{ source = "a", path = "/tmp" }]', "is the sandbox's own; choose"),
        ('[{ source = "a", path = "/proc/x" }]', "as all of /proc is"),
        ('[{ source = "a", path = "/sys" }]', "as all of /sys is"),
        ('[{ source = "a", path = "/dev/shm" }]', "as all of /dev is"),
        ('[{ source = "a", path = "/etc/ssl" }]', "as all of /etc is"),
        ('[{ source = "a", path = "/usr" }]', "as all of /usr is"),
        ('[{ source = "a", path = "/bin" }]', "as all of /bin is"),
        ('[{ source = "a", path = "/.sessionctl/init" }]', "as all of /.sessionctl is"),
        ('[{ source = "a", path = "/workspace" }]', "is the sandbox's own; choose"),
        ('[{ source = "a", path = "/workspace/.GIT/hooks" }]', "lies inside .git"),
        ('[{ source = "a", path = "/workspace/.GIT/hooks" }]', "lies inside .git"),
        (f'[{{ source = "a", path = "/{"a/" * 600}b" }}]', "is longer than 1024"),
        ('[{ source = "a", path = "/a\\u0007" }]', "control character"),
        ('[{ source = "a\\u0000", path = "/a" }]', "control character"),
        ('[{ source = "a", path = "/a", mode = "wr" }]', "expected 'ro' or 'rw'"),
        ('[{ source = "a", path = "/a" }, { source = "b", path = "/a" }]', "names '/a' twice"),
        (
            '[{ source = "a", path = "/a/b/c" }, { source = "b", path = "/a" }]',
            "'/a/b/c' lies below another mount, '/a'",
        ),
    ],
)
def test_a_mount_that_cannot_be(root: Path, mounts: str, words: str) -> None:
    assert words in refusal(root, f"mounts = {mounts}")


def test_a_file_that_a_mount_would_hide_is_refused(root: Path) -> None:
    files = 'files = [{ path = "~/.c/a", content = "" }]'
    line = refusal(root, f'{files}\nmounts = [{{ source = "a", path = "/home/agent/.c" }}]')
    assert line.startswith("sessions.toml:3: sessions.api.files[0].path: '~/.c/a' would be hidden")
    assert spec(root, f'{files}\nmounts = [{{ source = "a", path = "/home/agent/.ca" }}]')


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{}", "env.A: needs either from_env or from_file"),
        ('{ from_env = "A", from_file = "a" }', "env.A: needs either from_env or from_file"),
        ('{ from_env = "" }', "env.A.from_env: is not the name of an environment variable"),
        ('{ from_env = "A=B" }', "env.A.from_env: is not the name of an environment variable"),
        ('{ from_file = "" }', "env.A.from_file"),
        ('{ from_envv = "A" }', "env.A.from_envv: unknown key (did you mean 'from_env'?)"),
        ("1", "env.A: expected a string (put it in quotes)"),
    ],
)
def test_a_variable_that_cannot_be(root: Path, value: str, words: str) -> None:
    line = refusal(root, f"env = {{ A = {value} }}")
    assert line.startswith("sessions.toml:3: sessions.api.") and words in line


def test_the_users_own_word_needs_no_trust(root: Path, home: Path) -> None:
    (home / "key").write_text("s")
    (home / "config" / "sessionctl").mkdir(parents=True)
    (home / "config" / "sessionctl" / "near").write_text("n")
    (home / "config" / "sessionctl" / "config.toml").write_text(
        '[defaults]\nfiles = [{ path = "~/a", source = "~/key" }, { path = "~/b", source = "near" }]'
    )
    assert [Path(file.source).name for file in spec(root, "").files] == ["key", "near"]


@pytest.mark.parametrize("path", [".git/config", "sub/.git/config", "link"])
def test_nothing_is_taken_from_git(root: Path, path: str) -> None:
    (root / "sub" / ".git").mkdir(parents=True)
    for file in (root / ".git" / "config", root / "sub" / ".git" / "config"):
        file.write_text("x")
    (root / "link").symlink_to(".git/config")
    assert "lies inside .git" in refusal(root, f'files = [{{ path = "~/a", source = "{path}" }}]')
    assert "lies inside .git" in refusal(root, f'workspace.include = ["{path}"]')


def test_a_source_is_a_regular_file_of_at_most_16_mib(root: Path) -> None:
    def said(path: str) -> str:
        return refusal(root, f'files = [{{ path = "~/a", source = "{path}" }}]')

    (root / "dir").mkdir()
    os.mkfifo(root / "fifo")
    with (root / "large").open("wb") as sparse:
        sparse.truncate(16 * 1024 * 1024 + 1)
    assert "cannot be read: No such file" in said("nothing")
    assert "cannot be read" in said("dir")
    assert "cannot be read" in said("fifo")
    assert "cannot be read" in said("large")
    os.truncate(root / "large", 16 * 1024 * 1024)
    assert source(root, "large").sha256 == hashlib.sha256(bytes(16 * 1024 * 1024)).hexdigest()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ('[{ path = "~/a" }]', "needs either source or content"),
        ('[{ path = "~/a", source = "" }]', "files[0].source"),
        ('[{ content = "" }]', "files[0].path: is missing"),
        ('[{ path = "~/../a", content = "" }]', "is not a path below ~/"),
        ('[{ path = "~/a//b", content = "" }]', "is not a path below ~/"),
        ('[{ path = "~/", content = "" }]', "is not a path below ~/"),
        (f'[{{ path = "~/{"a/" * 600}b", content = "" }}]', "is longer than 1024 characters"),
        ('[{ path = "~/a\\u0000", content = "" }]', "holds a control character"),
        ('[{ path = "~/a", content = "" }, { path = "~/a", content = "" }]', "names '~/a' twice"),
        ('[{ path = "~/a/b/c", content = "" }, { path = "~/a", content = "" }]', "'~/a/b/c' lies below"),
        ('[{ path = "~/a", content = "", mode = "600" }]', "four octal digits"),
        ('[{ path = "~/a", content = "", mode = "2755" }]', "four octal digits"),
        ('[{ path = "~/a", content = "", mode = 0o600 }]', "expected a string (put it in quotes)"),
    ],
)
def test_a_file_that_cannot_be_injected(root: Path, files: str, words: str) -> None:
    assert words in refusal(root, f"files = {files}")


def test_an_include_is_a_file_of_the_repository(root: Path, tmp_path: Path) -> None:
    (root / "dir").mkdir()
    (root / "dir" / "a").write_text("")
    (root / "link").symlink_to("dir/a")
    (tmp_path / "secret").write_text("")
    (root / "out").symlink_to(tmp_path / "secret")
    found = resolve(root, 'version = 1\n[sessions.api]\nworkspace.include = ["dir/a", "link"]')
    assert found.declared["api"].spec.workspace.include == ("dir/a", "link")
    assert found.inputs == (f"{root}/dir/a", f"{root}/link")
    for include, words in {
        "/etc/passwd": "is not a relative path",
        "../secret": "is not a relative path",
        "./dir/a": "is not a relative path",
        "dir": "is not a regular file",
        "nothing": "does not exist",
        ".GIT/config": "lies inside .git",
    }.items():
        line = refusal(root, f'workspace.include = ["dir/a", "{include}"]')
        assert "sessions.api.workspace.include[1]" in line and words in line
    with pytest.raises(UntrustedError, match=r"include\[0\]: 'out' leads outside"):
        spec(root, 'workspace.include = ["out"]')


# --- prohibitions ------------------------------------------------------------------------------


def test_what_the_user_forbids_nothing_lifts(root: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_config(
        home, 'forbid = ["workspace.history=shared", "tags=bad", "protect=false"]\n[defaults]\nprotect = true\n'
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
def test_what_comes_with_an_image_can_be_forbidden_too(root: Path, home: Path, field: str, key: str) -> None:
    (root / "tree/bin").mkdir(parents=True)
    keys = 'image = "rootfs:tree"\nimage_extra = ["git"]\n'
    value = flat(resolve(root, f"version = 1\n[sessions.api]\n{keys}").declared["api"].data)[field]
    entry = f"{field}={value if isinstance(value, str) else value[0]}"
    user_config(home, f"forbid = [{json.dumps(entry)}]\n")
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
        "version = 1\n[sessions.a]\nworkspace = { mode = 'worktree' }",
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


# --- plugins -----------------------------------------------------------------------------------


def test_an_entry_point_adds_a_backend(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site"
    (package / "demo-1.dist-info").mkdir(parents=True)
    (package / "demo-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1\n")
    (package / "demo-1.dist-info" / "entry_points.txt").write_text(
        "[sessionctl.backends]\ndemo = sessionctl_demo\nbroken = sessionctl_demo_absent\n"
        "[sessionctl.agents]\nmine = sessionctl_demo\n"
    )
    (package / "sessionctl_demo.py").write_text("class Backend: pass\n")
    with pytest.raises(UsageError, match="'demo' is not a known backend"):
        plugins.load("backends", "demo")
    monkeypatch.syspath_prepend(package)
    assert plugins.load("backends", "demo").__module__ == "sessionctl_demo"
    assert "demo" in plugins.names("backends") and "bubblewrap" in plugins.names("backends")
    assert "mine" in plugins.names("agents") and "claude" in plugins.names("agents")
    assert spec(root, 'backend = "demo"\nagent = "mine"').backend == "demo"
    with pytest.raises(UsageError, match="'broken' cannot be loaded: ModuleNotFoundError"):
        plugins.load("backends", "broken")


@pytest.mark.parametrize("name", ["..", "a.b", "_x", "os", "", "bubblewrap.entry", "BUBBLEWRAP"])
def test_a_name_never_leads_to_another_module(name: str) -> None:
    with pytest.raises(UsageError, match="is not a known backend"):
        plugins.load("backends", name)
