"""Secrets: found when they are needed, named in errors, and never in what is kept of output."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sessionctl import secret
from sessionctl.errors import UsageError


def test_values_come_from_the_environment_and_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "of the environment")
    monkeypatch.setenv("EMPTY", "")
    for name, content in (("unix", "a\n"), ("dos", "b\r\n"), ("lines", "c\nd\n\n"), ("none", ""), ("é", "\xff\n")):
        (tmp_path / name).write_bytes(content.encode("latin-1"))
    env: dict[str, str | dict[str, str]] = {
        "PLAIN": "plain",
        "A": {"from_env": "TOKEN"},
        "B": {"from_env": "EMPTY"},
        **{name.upper(): {"from_file": str(tmp_path / name)} for name in ("unix", "dos", "lines", "none", "é")},
    }
    found = secret.found(env)
    assert found == {
        "A": "of the environment",
        "B": "",
        "UNIX": "a",
        "DOS": "b",
        "LINES": "c\nd\n",
        "NONE": "",
        "É": os.fsdecode(b"\xff"),
    }
    assert secret.found(env, but=("A", *found.keys() - {"B"})) == {"B": ""}


def test_what_is_missing_is_named_and_no_value_is(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "nul").write_bytes(b"s3cr3t\0")
    (tmp_path / "large").write_bytes(b"s3cr3t" * 20_000)
    (tmp_path / "real").write_text("s3cr3t")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "way").symlink_to(tmp_path)
    for file, words in {
        "missing": "No such file",
        "directory": "is not a regular file",
        "fifo": "is not a regular file",
        "nul": "NUL",
        "large": "more than",
        "link": "a symbolic link is on the way",
        "way/real": "symbolic link that was not there when it was allowed",
    }.items():
        with pytest.raises(UsageError) as caught:
            secret.found({"KEY": {"from_file": f"{tmp_path}/{file}"}})
        said = f"{caught.value} {caught.value.hint}"
        assert "env.KEY" in said and f"{tmp_path}/{file}" in said and words in said and "s3cr3t" not in said
    with pytest.raises(UsageError, match=r"env\.KEY comes from the variable NOWHERE, which is not set here"):
        secret.found({"KEY": {"from_env": "NOWHERE"}})


@pytest.mark.parametrize(
    ("output", "values", "masked"),
    [
        (b"a token here", ["token"], b"a *** here"),
        (b"tokentoken", ["token"], b"******"),
        (b"nothing", ["token"], b"nothing"),
        (b"abc abc", ["abc", ""], b"abc abc"),
        (b"abcdef", ["abcd", "cdef"], b"***"),
        (b"aaaaaa", ["aaaa"], b"***"),
        (b"xabcdefx", ["bcde", "abcdef"], b"x***x"),
        (b"one\r\nline two\r\n", ["one\nline two"], b"***\r\n"),
        (b"line two only", ["one\nline two"], b"*** only"),
        (b"\xff\xfe\xfd\xfc", [os.fsdecode(b"\xff\xfe\xfd\xfc")], b"***"),
    ],
)
def test_values_are_masked(output: bytes, values: list[str], masked: bytes) -> None:
    assert secret.masked(output, values) == masked


def test_a_value_that_the_kept_part_begins_in_is_masked() -> None:
    output = b"x" * 10 + b"secret" + b"y" * 4
    for skip in range(len(output) + 1):
        kept = secret.masked(output, ["secret"], skip=skip)
        assert kept == (b"x" * max(0, 10 - skip) + b"***" if skip < 16 else b"") + b"y" * min(4, len(output) - skip)


_TEXT = st.text("abc\n", max_size=8)


@given(st.lists(_TEXT | st.text("abc\n", min_size=4), max_size=4), st.text("abc\n", max_size=60), st.integers(0, 60))
@hypothesis_settings(database=None, deadline=None)
def test_no_value_stays_in_what_is_kept(values: list[str], text: str, skip: int) -> None:
    skip = min(skip, len(text))
    kept = secret.masked(text.encode(), values, skip=skip)
    pieces = kept.split(secret.MASK)
    for value in (value.encode() for value in values if len(value) >= secret.SHORTEST):
        assert not any(value in piece for piece in pieces)
    if not any(len(value) >= secret.SHORTEST for value in values):
        assert kept == text.encode()[skip:]
