"""What is wrong, in words: of pydantic's errors, and of anything that was near."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from pydantic_core import ErrorDetails

_EXPECTED: Mapping[str, str] = {
    "string_type": "expected a string",
    "bool_type": "expected true or false",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "list_type": "expected an array",
    "tuple_type": "expected an array",
    "dict_type": "expected a table",
    "model_type": "expected a table",
    "model_attributes_type": "expected a table",
    "missing": "is missing",
}
"""pydantic's types of errors that say in terms of Python what TOML has other words for."""


def quoted(text: str) -> str:
    """`text` as it may be shown: escaped and not too long."""
    shown = ascii(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def near(word: str, words: Iterable[str]) -> str:
    """The hint ``did you mean …?`` for `word`, or nothing."""
    found = get_close_matches(word[:64], list(words), n=1)
    return f"did you mean {found[0]!r}?" if found else ""


def words(error: ErrorDetails) -> tuple[str, str]:
    """Message and hint for an error whose place does not matter."""
    kind, value = error["type"], error["input"]
    if kind == "rule":
        return error["ctx"]["message"], error["ctx"]["hint"]
    if kind == "literal_error":
        return f"expected {error['ctx']['expected']}", ""
    hint = "put it in quotes" if kind == "string_type" and not isinstance(value, dict | list) else ""
    return _EXPECTED.get(kind) or error["msg"].replace("Input should", "should"), hint
