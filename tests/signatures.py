"""What the sources say of a class: its members as they are called, and what their docstrings promise."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from tests.pages import ROOT


class Member(NamedTuple):
    """A public field, property or method."""

    name: str
    signature: str
    """As it is used: ``plan(names: Iterable[str] = ()) -> Plan``, ``code: int``."""
    text: str
    """Its docstring as one line; empty when it has none."""
    kind: str
    """``field``, ``property`` or ``method``."""


def text_of(module: str, name: str) -> str:
    """The docstring of a class or function of sessionctl, its paragraphs on a line each."""
    return _joined(ast.get_docstring(_found(module, name)))


def signature_of(module: str, name: str) -> str:
    """How a function is called."""
    found = _found(module, name)
    assert isinstance(found, ast.FunctionDef)
    return _signature(found)


def made(module: str, name: str) -> str:
    """How an object of a class is made."""
    found = _found(module, name)
    (init,) = (node for node in found.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    return _signature(init).replace("__init__", name, 1).removesuffix(" -> None")


def is_class(module: str, name: str) -> bool:
    return isinstance(_found(module, name), ast.ClassDef)


def members(module: str, name: str) -> list[Member]:
    """The public members of a class of sessionctl, in the order in which they are written."""
    found = _found(module, name)
    assert isinstance(found, ast.ClassDef)
    return [each for each in _members(found) if not each.name.startswith("_")]


def _members(found: ast.ClassDef) -> Iterator[Member]:
    for node, following in zip(found.body, [*found.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            said = following.value if isinstance(following, ast.Expr) else None
            text = said.value if isinstance(said, ast.Constant) and isinstance(said.value, str) else ""
            default = f" = {ast.unparse(node.value)}" if node.value is not None else ""
            signature = f"{node.target.id}: {ast.unparse(node.annotation)}{default}"
            yield Member(node.target.id, signature, _joined(text), "field")
        elif isinstance(node, ast.FunctionDef):
            text = _joined(ast.get_docstring(node))
            made = {ast.unparse(each) for each in node.decorator_list}
            if made & {"property", "cached_property"}:
                assert node.returns is not None
                yield Member(node.name, f"{node.name}: {ast.unparse(node.returns)}", text, "property")
            else:
                yield Member(node.name, _signature(node), text, "method")


def _signature(node: ast.FunctionDef) -> str:
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
    assert node.returns is not None
    return f"{node.name}({arguments}) -> {ast.unparse(node.returns)}"


def _joined(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))


def _found(module: str, name: str) -> ast.ClassDef | ast.FunctionDef:
    room = ROOT.joinpath("sessionctl", *module.split("."))
    file = room / "__init__.py" if room.is_dir() else room.with_suffix(".py")
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
    raise AssertionError(f"{module} has no {name}")
