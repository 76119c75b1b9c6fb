"""What of a manifest is refused, in which words, and on which line. Nothing makes a traceback."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionctl import manifest
from sessionctl import settings as settings_module
from sessionctl.errors import ManifestError, SessionctlError
from sessionctl.manifest import reading, tables
from tests import manifests
from tests.manifests import VALID, problems, quick, refusal, resolve


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return manifests.work_tree(tmp_path)


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
