"""Merged values become declarations, one session after the other; what is wrong with them is collected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sessionctl.errors import Problem
from sessionctl.locate import dotted
from sessionctl.manifest import judging
from sessionctl.manifest.host import Findings, Host
from sessionctl.manifest.layers import Layer, Value
from sessionctl.manifest.wording import quoted
from sessionctl.model import Declaration, LimitsSpec, SessionSpec, WorkspaceSpec, flat, is_name

_PLAIN = ("backend", "agent", "title", "state", "protect", "ttl", "idle_stop", "on_prune", "parent", "network")
"""Keys whose value is the field's."""
_LISTED = ("files", "mounts")
"""Those that are arrays of tables: each element has a field by its path."""
_DECIDED_BY = {"image.source": "image", "image_extra.digest": "image_extra"}
"""Paths of a declaration whose value comes with that of another key."""

Origins = dict[str, str]
"""Where the value at each path of `model.flat` comes from, such as ``sessions.toml:12``, ``user config:3``,
``SESSIONCTL_SESSION__BACKEND``, ``--set`` or ``built-in``."""


class Declarations:
    """Those that were made so far. `host` is asked for what they name, `forbid` is what none may be."""

    def __init__(self, host: Host, findings: Findings, forbid: Sequence[str]) -> None:
        self._host, self._findings, self._forbid = host, findings, forbid
        self.declared: dict[str, Declaration] = {}
        self.origins: dict[str, Origins] = {}
        self.branches: dict[str, tuple[str, Value]] = {}
        """Whose each is, and where that is said."""
        self._session_dirs: dict[str, str] = {}
        """The same, without where."""

    def add(self, name: str, given: Layer, line: int) -> None:
        """Declares the session `name`, whose block is at `line`, or as many of it as its count says."""
        problems, host = self._findings.problems, self._host
        values = judging.meaningful(given)
        problems += judging.meaningless(name, given)
        problems += judging.too_large(values)
        problems += judging.miscounted(values)
        parts: dict[str, Any] = {"files": host.files(values["files"]), "mounts": host.mounts(values["mounts"])}
        problems += judging.hidden(values["files"], parts["mounts"])
        host.require_included(values["workspace.include"])
        parts |= host.image(values["image"])
        problems += judging.without_image(name, given)
        parts |= host.programs(values["image_extra"])
        for each in _names(name, values):
            if not is_name(each):
                problems.append(Problem(dotted(("sessions", name)), f"{each} is too long for a name", line))
            elif each == values["parent"].value:
                problems.append(values["parent"].problem("is the session itself"))
            elif each in self.declared:
                message = f"the name {each} is taken by another session"
                problems.append(Problem(dotted(("sessions", name)), message, line))
            else:
                self._declare(each, values, parts)

    def _declare(self, name: str, values: Layer, parts: Mapping[str, Any]) -> None:
        """Declares `name`. `parts` are the fields that are the same however many sessions the block makes."""
        spec = SessionSpec(
            name=name,
            workspace=self._workspace(name, values),
            env={path[4:]: self._host.variable(value) for path, value in values.items() if path.startswith("env.")},
            renamed_from=values["renamed_from"].value,
            tags=tuple(values["tags"].value),
            setup=tuple(values["setup"].value),
            metadata=_table("metadata", values),
            limits=LimitsSpec(**_table("limits", values)),
            **{key: values[key].value for key in _PLAIN},
            **parts,
        )
        self.declared[name] = declaration = Declaration.of(spec)
        fields = flat(declaration.data)
        elements = _elements(values)
        said = {path: elements.get(path) or (values[_DECIDED_BY.get(path, path)], ()) for path in fields}
        self.origins[name] = {path: value.origin(*more) for path, (value, more) in said.items()}
        for entry in self._forbid:
            for path in judging.forbidden(spec, fields, entry):
                value, more = said[path]
                message = f"the user config forbids {quoted(entry)}, which {name} has"
                self._findings.problems.append(value.problem(message, *more))

    def _workspace(self, name: str, values: Layer) -> WorkspaceSpec:
        """The workspace of `name`, of which the branch and the directory must be nobody else's."""
        problems = self._findings.problems
        fields = _table("workspace", values)
        fields["include"] = tuple(fields["include"])
        if fields["session_dir"]:
            value = values["workspace.session_dir"]
            place = fields["session_dir"] = self._host.leads(fields["session_dir"].replace("{name}", name), value)
            if place in self._session_dirs:
                both = f"{self._session_dirs[place]} and {name}"
                problems.append(value.problem(f"{quoted(place)} would be the directory of both {both}"))
            self._session_dirs[place] = name
        branch = fields["branch"] = fields["branch"].replace("{name}", name)
        if branch:
            value = values["workspace.branch"]
            problems += judging.bad_branch(branch, value)
            if branch in self.branches:
                both = f"{self.branches[branch][0]} and {name}"
                problems.append(value.problem(f"{quoted(branch)} would be the branch of both {both}"))
            self.branches[branch] = (name, value)
        return WorkspaceSpec(**fields)


def _names(name: str, values: Layer) -> list[str]:
    """The sessions that the block `name` makes."""
    count = values.get("count")
    return [f"{name}-{number}" for number in range(1, count.value + 1)] if count else [name]


def _table(head: str, values: Layer) -> dict[str, Any]:
    """The values of the table `head`, by the rest of their paths."""
    cut = len(head) + 1
    return {path[cut:]: value.value for path, value in values.items() if path.startswith(f"{head}.")}


def _elements(values: Layer) -> dict[str, tuple[Value, tuple[int, ...]]]:
    """Which element of which value decides each field that an element does, by the path of the field."""
    return {
        f"{key}.{table.path}": (values[key], (number,))
        for key in _LISTED
        for number, table in enumerate(values[key].value)
    }
