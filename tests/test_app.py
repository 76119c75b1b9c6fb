"""The Python API: the services that the command line calls, without it."""

from __future__ import annotations

import pytest

from sessionctl import Project
from sessionctl.errors import ConflictError, UsageError
from sessionctl.plan import Policy
from tests.command import Repository, git


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_it_does_what_the_command_line_does(repository: Repository) -> None:
    repository.declare('[sessions.api]\ntags = ["t"]\n')
    project = Project(repository.root)
    plan = project.plan()
    assert [action.verb for action in plan.work[0].actions] == ["prepare", "create", "record", "start"]
    outcomes = project.apply(plan)
    assert [outcome.result for outcome in outcomes] == ["done"] * 4
    repository.run("plan", "--exit-code")
    run = project.exec("api", ["sh", "-c", "echo out; exit 3"])
    assert (run.code, run.stdout, run.signal) == (3, b"out\n", None)
    (session,) = project.sessions()
    assert (session.name, session.status, session.declared) == ("api", "running", True)
    assert [event.event for event in project.log("api")] == ["create", "exec"]


def test_a_plan_that_is_not_true_any_more_is_refused(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    project = Project(repository.root)
    plan = project.plan()
    repository.apply()
    with pytest.raises(ConflictError, match="changed since this plan was made"):
        project.apply(plan)


def test_the_base_a_plan_was_approved_with_is_the_base_that_is_taken(repository: Repository) -> None:
    repository.declare('[sessions.api]\nworkspace = { base = "main" }\n')
    project = Project(repository.root)
    plan = project.plan()
    git(repository.root, "commit", "-q", "--allow-empty", "-m", "meanwhile")
    with pytest.raises(ConflictError):
        project.apply(plan)


def test_time_that_passes_while_a_prune_is_read_changes_nothing(repository: Repository) -> None:
    repository.declare("[sessions.old]\n[sessions.new]\n")
    clock = Clock()
    project = Project(repository.root, clock=clock)
    project.apply(project.plan())
    clock.now += 3600
    project.exec("new", ["true"])
    clock.now += 60
    repository.declare("")
    project = Project(repository.root, clock=clock)
    plan = project.plan(policy=Policy(prune=True))
    assert [(lane.session, lane.kept) for lane in plan.lanes] == [("new", "used 1m ago, idle is 10m"), ("old", "")]
    clock.now += 7
    project.apply(plan)
    assert [session.name for session in project.sessions()] == ["new"]


def test_a_clock_that_was_set_back_makes_nothing_idle(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    clock = Clock()
    Project(repository.root, clock=clock).apply(Project(repository.root, clock=clock).plan())
    clock.now -= 86400
    repository.declare("")
    (lane,) = Project(repository.root, clock=clock).plan(policy=Policy(prune=True)).lanes
    assert lane.kept == "last used in the future, by this clock: it is not known for how long it is idle"


def test_an_unknown_session_is_named_and_a_close_one_offered(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    project = Project(repository.root)
    with pytest.raises(UsageError, match="there is no session apo") as caught:
        project.session("apo")
    assert caught.value.hint == "did you mean api? See `sessionctl ls`"
