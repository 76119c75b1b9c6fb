"""What pages say of the code: the parts of docs/ that are made from it.

A part stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``; `PARTS` has a function for each name.
``python -m tests.reference`` writes them anew. A test fails when a page holds an older one.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sessionctl
from sessionctl import cli, manifest, model
from tests import signatures
from tests.pages import PAGES, ROOT

# --- the manifest's keys -----------------------------------------------------------------------

COSTS: Mapping[model.Effect, str] = {"in-place": "in place", "restart": "a restart", "replace": "a new sandbox"}
SPECIAL = {
    "count": "more or fewer sessions",
    "workspace": "as its keys",
    "workspace.base": "refused: settled when the session is made",
    "workspace.mode": "refused: settled when the session is made",
    "workspace.visible": "refused: settled when the session is made",
    "workspace.session_dir": "refused: settled when the session is made",
}
"""Keys of which `model.EFFECT` does not say what becomes of a session that is there when they change."""


def keys() -> str:
    """A table of all keys that a session can have."""
    lines = ["| key | type | default | a change costs | |", "|---|---|---|---|---|"]
    for path, field in sorted(fields().items()):
        default = f"`{_toml(field['default'])}`" if "default" in field else ""
        lines.append(f"| `{path}` | {_type(field)} | {default} | {_cost(path)} | {_cell(field['description'])} |")
    return "\n".join(lines)


def fields() -> dict[str, dict[str, Any]]:
    """The schema of each key of a session by its path, such as ``workspace.branch`` or ``files[].mode``."""
    schema = manifest.schema()
    return dict(_fields(schema["$defs"]["SessionTable"], schema["$defs"], ""))


def _fields(table: Mapping[str, Any], tables: Mapping[str, Any], above: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in table["properties"].items():
        yield f"{above}{name}", field
        for inner, joint in (
            *((each, ".") for each in (field, *field.get("oneOf", ()))),
            (field.get("items", {}), "[]."),
            *(
                (each, ".*.")
                for value in field.get("patternProperties", {}).values()
                for each in value.get("oneOf", ())
            ),
        ):
            if "$ref" in inner:
                yield from _fields(tables[inner["$ref"].rpartition("/")[2]], tables, f"{above}{name}{joint}")


def _type(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return "table"
    if "enum" in field or "const" in field:
        return " or ".join(f"`{_toml(value)}`" for value in field.get("enum", [field.get("const")]))
    if "oneOf" in field:
        return " or ".join(map(_type, field["oneOf"]))
    if field["type"] == "array":
        return f"array of {_type(field['items'])}s"
    if field["type"] == "object":
        values = [each for value in field.get("patternProperties", {}).values() for each in value.get("oneOf", [value])]
        return f"table of {' or '.join(f'{_type(value)}s' for value in values or [field['additionalProperties']])}"
    return str(field["type"])


def _cost(path: str) -> str:
    return SPECIAL.get(path) or COSTS[model.effect_of(path.replace("[]", "").replace(".*", ""))]


def _toml(value: Any) -> str:
    return json.dumps(value)


# --- the commands ------------------------------------------------------------------------------


Give = Callable[[argparse.ArgumentParser], None]


def _actions(give: Give) -> list[argparse.Action]:
    """The options and positionals that `give` gives a parser. argparse has no public way to ask for them."""
    parser = argparse.ArgumentParser(add_help=False)
    give(parser)
    return parser._actions


def commands() -> str:
    """A section for each command, and one for the options that all have."""
    return "\n\n".join([*(_command(name, place.summary) for name, place in cli.COMMANDS.items()), _everywhere()])


def _command(name: str, summary: str) -> str:
    command = cli.command_of(name)
    actions = _actions(command.options)
    words = [_positional(action) for action in actions if not action.option_strings]
    usage = " ".join(["sessionctl", name, *(["[OPTION ...]"] if len(words) < len(actions) else []), *words])
    examples = "\n".join(line.strip() for line in command.examples.splitlines())
    parts = [f"### {name}", f"{summary}. {command.detail}".strip(), f"```text\n{usage}\n```"]
    return "\n\n".join([*parts, *_options(actions), f"For example:\n\n```text\n{examples}\n```"])


def _everywhere() -> str:
    actions = _actions(lambda parser: cli.global_options(parser, argparse.Namespace()))
    return "\n\n".join(["### Options of every command", *_options(actions)])


def _options(actions: Sequence[argparse.Action]) -> list[str]:
    rows = [f"| `{_name(action)}` | {_cell(action.help or '')} |" for action in actions]
    return ["\n".join(["| | |", "|---|---|", *rows])] if rows else []


def _positional(action: argparse.Action) -> str:
    name = action.metavar
    return {None: f"{name}", "?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} ...", "...": f"-- {name} ..."}[
        action.nargs if isinstance(action.nargs, str) else None
    ]


def _name(action: argparse.Action) -> str:
    if not action.option_strings:
        return str(action.metavar)
    value = f" {action.metavar or '{' + ','.join(map(str, action.choices or ())) + '}'}" if action.nargs != 0 else ""
    return ", ".join(f"{option}{value}" for option in action.option_strings)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# --- the Python API ----------------------------------------------------------------------------


def project() -> str:
    """How a `Project` is made, and a section for each member of it."""
    sections = (f"#### `{each.signature}`\n\n{each.text}" for each in signatures.members("app", "Project"))
    return "\n\n".join([f"`{signatures.made('app', 'Project')}`", signatures.text_of("app", "Project"), *sections])


def values() -> str:
    """A section for each public class and function but `Project` and the errors."""
    named = sorted((name, home) for home, names in sessionctl._HOMES.items() for name in names)
    return "\n\n".join(_value(home, name) for name, home in named if home != "errors" and name != "Project")


def _value(home: str, name: str) -> str:
    text = signatures.text_of(home, name)
    if not signatures.is_class(home, name):
        return f"### {name}\n\n`{signatures.signature_of(home, name)}`\n\n{text}"
    rows = [f"| `{_cell(each.signature)}` | {_cell(each.text)} |" for each in signatures.members(home, name)]
    return "\n\n".join([f"### {name}", text, "\n".join(["| | |", "|---|---|", *rows])])


def raised() -> str:
    """A table of the errors."""
    found = {name: getattr(sessionctl, name) for name in sessionctl._HOMES["errors"]}
    rows = [
        f"| `{name}` | {each.exit_code} | {_cell(signatures.text_of('errors', name))} |"
        for name, each in sorted(found.items())
        if issubclass(each, Exception)
    ]
    return "\n".join(["| error | exit code | |", "|---|---|---|", *rows])


# --- pages -------------------------------------------------------------------------------------

PARTS: Mapping[str, Callable[[], str]] = {
    "keys": keys,
    "commands": commands,
    "project": project,
    "values": values,
    "raised": raised,
}

_PART = re.compile(r"^<!-- begin (\w+) -->\n.*?^<!-- end \1 -->$", re.M | re.S)


def filled(text: str) -> str:
    """The text of a page with each of its parts made anew."""

    def part(found: re.Match[str]) -> str:
        name = found[1]
        return f"<!-- begin {name} -->\n{PARTS[name]()}\n<!-- end {name} -->"

    return _PART.sub(part, text)


if __name__ == "__main__":
    for page in PAGES:
        text = page.read_text()
        if filled(text) != text:
            page.write_text(filled(text))
            print(f"wrote {page.relative_to(ROOT)}")
