"""Imports point one way, and what is only allowed in one place is only there."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sessionctl"
MODULES = sorted(PACKAGE.rglob("*.py"))

PURE = {
    "model",
    "errors",
    "units",
    "lifetime",
    "diff",
    "plan",
    "manifest/tables",
    "manifest/reading",
    "manifest/judging",
}
MAY_IMPORT = {
    "errors": set(),
    "units": {"errors"},
    "model": {"errors"},
    "lifetime": {"model", "units"},
    "diff": {"model", "lifetime"},
    "plan": {"model", "diff", "lifetime", "units", "errors"},
    "process": {"errors"},
    "beneath": {"errors"},
    "plugins": {"errors", "model"},
    "locate": {"errors"},
    "agents": set(),
    "store": {"model", "errors", "beneath"},
    "git": {"model", "errors", "process", "beneath"},
    "workspace": {"model", "errors", "process", "beneath", "git"},
    "backends": {"model", "errors", "process", "beneath", "backends", "units", "trees", "images"},
    "secret": {"errors", "beneath"},
    "images": {"errors", "beneath"},
    "mounts": {"model"},
    "saved": {"model", "errors", "beneath", "plan"},
    "edit": {"errors", "model"},
    "trust": {"model", "errors", "beneath", "plan"},
    "executor": {"model", "plan"},
    "settings": {"errors", "model", "beneath", "declared", "plugins", "manifest", "locate", "units"},
    "manifest": {
        "errors",
        "model",
        "declared",
        "plugins",
        "settings",
        "locate",
        "agents",
        "beneath",
        "units",
        "images",
    },
    "declared": {"model", "errors", "beneath", "manifest", "settings", "units", "__init__"},
}
"""What each module may import of sessionctl; a module that is not named here may import all but the doors."""
WITHIN_APP = {
    "sources": set(),
    "remembering": set(),
    "looking": {"remembering"},
    "refusing": set(),
    "doubting": set(),
    "planning": {"looking", "refusing", "doubting"},
    "changing": {"sources"},
    "trusting": {"looking", "changing"},
    "storing": {"looking", "changing"},
    "applying": {"looking", "remembering", "planning", "changing", "trusting", "storing"},
    "using": {"looking", "remembering", "changing"},
    "reading": {"looking", "using"},
    "declaring": {"looking", "changing"},
    "naming": {"sources", "looking", "changing", "declaring"},
    "preserving": {"looking", "changing", "naming"},
}
"""What each module of the services may import of the others; none of them imports `Project`."""
IN_ORDER = {
    "manifest": ("wording", "rules", "tables", "reading", "layers", "judging", "host", "declaring", "resolving"),
}
"""Modules of a package of which each may import only those before it."""
WITHIN = {
    "git.names": set(),
    "backends.bubblewrap.places": {"errors", "model"},
    "store.schema": set(),
    "store.rows": {"model"},
    "git.heads": {"beneath", "errors", "model", "git.names"},
    "git.status": {"beneath", "errors", "model", "git.names", "git.inspecting"},
}
"""What modules of a package may import of sessionctl, their siblings too: those that stay away from the world."""
DOORS = {"cli", "hooks", "tasks", "__main__"}
ONLY_IN = {
    "pydantic": {"manifest", "settings"},
    "pydantic_core": {"manifest"},
    "pydantic_settings": {"settings"},
    "git": {"git.configured"},
    "sqlite3": {"store.database"},
    "subprocess": {"process"},
    "invoke": {"tasks"},
    "tomlkit": {"edit"},
}
PRINTS = {"cli", "render", "hooks", "tasks", "__main__", "entry", "launch"}
"""The doors, and the two scripts that are programs of their own inside a backend."""


def room(path: Path) -> str:
    """The module, or the top folder of it, that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def module(path: Path) -> str:
    """The name of a file's module below sessionctl, such as ``git.names``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """All modules that a file imports, wherever in it, by full name; those for type checking only are left out."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module in ("sessionctl", "sessionctl.app", *(f"sessionctl.{package}" for package in IN_ORDER)):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    mine = room(path)
    used = {name.split(".")[1] for name in imports(path) if name.startswith("sessionctl.")} - {mine}
    if mine in MAY_IMPORT:
        assert used <= MAY_IMPORT[mine] | {"__version__"}
    elif mine not in DOORS:
        assert not used & (DOORS | {"app"})
    if module(path) in WITHIN:
        siblings = {name.removeprefix("sessionctl.") for name in imports(path) if name.startswith("sessionctl.")}
        assert siblings <= WITHIN[module(path)]


@pytest.mark.parametrize("path", sorted((PACKAGE / "app").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_services_build_on_each_other_one_way(path: Path) -> None:
    used = {name.split(".")[2] for name in imports(path) if name.startswith("sessionctl.app.")}
    assert used <= WITHIN_APP[path.stem]


@pytest.mark.parametrize("package", sorted(IN_ORDER))
def test_a_package_can_be_read_from_front_to_back(package: str) -> None:
    order = IN_ORDER[package]
    for number, module in enumerate(order):
        names = imports(PACKAGE / package / f"{module}.py")
        used = {name.split(".")[2] for name in names if name.startswith(f"sessionctl.{package}.")}
        assert used <= set(order[:number]), f"{package}.{module} imports {used}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_is_allowed_in_one_place_is_only_there(path: Path) -> None:
    for name in imports(path):
        allowed = ONLY_IN.get(name.split(".")[0])
        assert allowed is None or allowed & {room(path), module(path)}, f"{name} is imported"


def test_rules_are_of_modules_that_exist() -> None:
    known = {room(path) for path in MODULES} | {module(path) for path in MODULES}
    assert {*MAY_IMPORT, *WITHIN, *DOORS}.union(*ONLY_IN.values()) <= known


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_doors_print_and_exit(path: Path) -> None:
    if path.stem in PRINTS or room(path) in PRINTS:
        return
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {func.id for func in calls if isinstance(func, ast.Name)}
    assert not names & {"print", "input", "exit", "quit"}


@pytest.mark.parametrize("module", sorted(PURE))
def test_the_core_has_no_world(module: str) -> None:
    world = {"os", "time", "datetime", "random", "subprocess", "socket", "pathlib", "tempfile", "shutil"}
    assert not {name.split(".")[0] for name in imports(PACKAGE / f"{module}.py")} & world


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), "no docstring"


@pytest.mark.parametrize(
    "tool",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy", "--no-incremental", "--cache-dir=/dev/null"],
    ],
    ids=["ruff check", "ruff format", "mypy"],
)
def test_linters(tool: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
