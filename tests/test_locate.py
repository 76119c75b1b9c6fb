"""Every key of a document is found on its line."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessionctl.locate import locate
from tests import manifests
from tests.manifests import problems, quick


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return manifests.work_tree(tmp_path)


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
