"""What this machine and this repository need for sessions, looked at one by one. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sessionctl import git, plugins, process
from sessionctl.app import DEFAULT_BACKEND, Check
from sessionctl.backends import Backend, Context
from sessionctl.errors import SessionctlError

if TYPE_CHECKING:
    from sessionctl.app import Project

GIT = (2, 39)
"""The oldest git that everything here was run with."""


def checks(project: Project) -> list[Check]:
    """Every check in the order in which a person would mend them."""
    return list(_checks(project))


def machine(state_dir: str, missing: SessionctlError) -> list[Check]:
    """What can be looked at where there is no repository: `missing` says why there is none."""
    backend: Backend = plugins.load("backends", DEFAULT_BACKEND)(Context("none", state_dir))
    none = Check(True, "repository", f"{missing}; {missing.hint}", "")
    return [_git(), none, *_findings(DEFAULT_BACKEND, backend)]


def _checks(project: Project) -> Iterator[Check]:
    yield _git()
    yield Check(True, "repository", project.repository.root, "")
    backends = {DEFAULT_BACKEND}
    try:
        file = project.file
    except SessionctlError as error:
        yield Check(True, "manifest", f"none yet: {error.hint}", "")
    else:
        try:
            backends |= {declaration.data["backend"] for declaration in project.declared.values()}
            yield Check(True, "manifest", f"{file}: {_count(len(project.declared), 'session')}", "")
        except SessionctlError as error:
            yield Check(False, "manifest", str(error), error.hint)
    try:
        count = len(project.store.records())
        yield Check(True, "state directory", f"{project.directory}: {_count(count, 'record')}", "")
    except SessionctlError as error:
        yield Check(False, "state directory", str(error), error.hint)
    for name in sorted(backends):
        yield from _backend(project, name)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _git() -> Check:
    try:
        said = process.run(("git", "--version")).text()
    except SessionctlError as error:
        return Check(False, "git", str(error), "install git")
    version = tuple(int(part) for part in said.split()[2].split(".")[:2] if part.isdecimal())
    wanted = ".".join(map(str, GIT))
    return Check(version >= GIT, "git", git.printable(said), f"install git {wanted} or later")


def _backend(project: Project, name: str) -> Iterator[Check]:
    try:
        backend = project.backend(name)
    except SessionctlError as error:
        yield Check(False, f"backend {name}", str(error), error.hint)
        return
    yield from _findings(name, backend)


def _findings(name: str, backend: Backend) -> Iterator[Check]:
    for finding in backend.examine():
        yield Check(finding.ok, f"{name}: {finding.what}", finding.why, finding.remedy)
