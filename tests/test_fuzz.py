"""Manifests and command lines that nobody would write: a documented exit code, a sentence, no traceback, no hang."""

from __future__ import annotations

import contextlib
import io
import os
import string
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessionctl.cli import COMMANDS, main
from sessionctl.manifest import tables
from tests.command import Repository, git
from tests.hanging import soon

EXAMPLES = int(os.environ.get("SESSIONCTL_TEST_EXAMPLES", "150"))
"""Per test; issue 3 asks for 10,000 once in a while."""
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
DOCUMENTED = {0, 1, 2, 3, 4, 5, 125}


def run(*words: str) -> tuple[int, str]:
    """Runs sessionctl in this process; its exit code and all it said."""
    said = io.StringIO()
    with soon(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = main(words)
        except SystemExit as end:  # argparse
            code = end.code if isinstance(end.code, int) else 0
    return code, said.getvalue()


@pytest.fixture
def place(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(repository.root)
    repository.declare("[sessions.api]\n")
    return repository.root


TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    [
        "api",
        "main",
        "~/.x",
        "clone",
        "none",
        "host",
        "rootfs:.",
        "oci:x:y",
        "archive:sessions.toml",
        "7d",
        "4GiB",
        "{name}",
    ]
)
SCALARS = st.one_of(
    TEXT.map(lambda text: '"' + "".join(f"\\U{ord(char):08x}" for char in text) + '"'),
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.booleans().map(lambda value: str(value).lower()),
    st.sampled_from(["1979-05-27", "inf", "nan", "1e400", "-0.0", "[]", "{}"]),
)
_KNOWN = sorted({name for table in tables.Table.__subclasses__() for name in table.model_fields})
KEYS = st.sampled_from(_KNOWN) | st.text(string.ascii_lowercase + "-_", min_size=1, max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(KEYS, inner, max_size=3).map(
            lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"
        )
    ),
    max_leaves=6,
)
TABLES = st.tuples(
    st.sampled_from(["defaults", "sessions.api", "sessions.web", "sessions", "sessions.api.workspace", "other"])
    | st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=70).map("sessions.{}".format),
    st.dictionaries(KEYS, VALUES, max_size=5),
).map(lambda table: f"[{table[0]}]\n" + "".join(f"{key} = {value}\n" for key, value in table[1].items()))
MANIFESTS = st.one_of(
    st.lists(TABLES, max_size=4).map(lambda tables: ("version = 1\n" + "".join(tables)).encode()),
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
)


@given(content=MANIFESTS)
@FUZZ
def test_a_manifest_of_any_content(place: Path, content: bytes) -> None:
    (place / "sessions.toml").write_bytes(content)
    for words in (["validate", "--json"], ["plan"], ["plan", "--json"], ["ls"]):
        code, said = run(*words)
        assert code in (0, 2) and "Traceback" not in said, (code, said)
        assert code == 0 or said
    assert not list(Path(os.environ["SESSIONCTL_STATE_DIR"]).iterdir()), "looking made something"


def _words() -> st.SearchStrategy[list[str]]:
    options = ["--json", "--yes", "--no-input", "--jobs", "--file", "--set", "-C", "--color", "--all", "--sort", "-n"]
    options += [
        "--idle",
        "--timeout",
        "--env",
        "--",
        "--force",
        "--exit-code",
        "--dry-run",
        "--help",
        "--state",
        "--tag",
    ]
    word = st.one_of(
        st.sampled_from([*options, "api", "web", "0s", "1", "name", "always", "workspace.history=own", "."]),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=10),
    )
    # `apply` and `log --follow` are other tests': these look, or refuse.
    command = st.sampled_from([*(name for name in COMMANDS if name != "init"), "aply", ""])
    return st.tuples(command, st.lists(word, max_size=6)).map(lambda line: [line[0], *line[1]])


@given(words=_words())
@FUZZ
def test_a_command_line_of_any_words(place: Path, words: list[str]) -> None:
    if words[0] == "apply":
        words = [word for word in words if not word.startswith(("-y", "--yes"))]
    if words[0] == "log":
        words = [word for word in words if not word.startswith("-f") and word != "--follow"]
    code, said = run(*words)
    assert code in DOCUMENTED and "Traceback" not in said, (code, said)


def test_the_words_reach_a_repository_that_is_none() -> None:
    with tempfile.TemporaryDirectory() as empty:
        for name in COMMANDS:
            code, said = run("-C", empty, name, "api")
            assert code in DOCUMENTED and said
    with tempfile.TemporaryDirectory() as bare:
        git(Path(bare), "init", "-q", "--bare")
        assert run("-C", bare, "plan")[0] == 2
