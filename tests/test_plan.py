"""The golden table: declared + observed + recorded + policy -> the plan, a line per intent.

`str(plan)` is the oracle. A change of what sessionctl would do shows here as a changed line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sessionctl.diff import diff
from sessionctl.model import Declaration, GitState, Merged, Observed, Record, World, sandbox_of
from sessionctl.plan import Policy, plan, taken
from tests.worlds import (
    BASE,
    BRANCH,
    CLEAN,
    DELETE,
    ENV,
    FILES,
    HOST,
    IMAGE,
    INCLUDE,
    NAME,
    NOW,
    PROTECTED,
    RESTS,
    RESTS_IMAGE,
    SETUP,
    STOPPED,
    TAKES,
    TTL,
    A,
    git,
    record,
    sandbox,
)

PRUNE = Policy(prune=True)


def planned(
    declared: Declaration | None,
    *observed: Any,
    recorded: Any = None,
    policy: Policy = Policy(),  # noqa: B008  (an immutable value)
    **world: Any,
) -> str:
    manifest: Mapping[str, Declaration] = {} if declared is None else {NAME: declared}
    records = {} if recorded is None else {NAME: recorded}
    seen = World(tuple(observed), records, now=NOW, **world)
    return str(plan(diff(manifest, seen), seen, policy))


SHARED = "  ! every object of the repository can be read inside (workspace.history is shared)\n"
RECORD = "  record: so that the next plan knows\n"

TAKEN = (
    "  takes mounts./data: /src, read-only\n"
    "  takes mounts./out: /out, writable\n"
    "  takes network: the host's\n"
    "  takes env.B: the variable C\n"
    "  takes env.D: the content of /key\n"
    "  takes files.~/.x: /x\n"
)
UNUSED = "unused for longer than its idle_stop of 1h"
REACHES = (
    "  ! on the host's network it reaches all that this machine does: services on its loopback, abstract sockets\n"
)
ALLOW = Policy(allow_host=True)

APPLY: dict[str, tuple[str, str]] = {
    "it takes from the host": (
        planned(TAKES, warned={NAME: ("uid 300000 cannot write /out",)}),
        "api: create: declared and never made\n"
        + SHARED
        + REACHES
        + "  ! uid 300000 cannot write /out\n"
        + TAKEN
        + "  not allowed\nnot in sync",
    ),
    "it takes from the host, and may": (
        planned(TAKES, policy=ALLOW),
        "api: create: declared and never made\n"
        + SHARED
        + REACHES
        + TAKEN
        + "  prepare: its workspace, branch agents/api from the checked-out commit\n"
        "  create: declared and never made\n" + RECORD + "  start: declared running\n"
        "not in sync",
    ),
    "it takes from the host, as it was trusted": (
        planned(TAKES, trusted={NAME: frozenset(taken(TAKES.data))}),
        "api: create: declared and never made\n"
        + SHARED
        + REACHES
        + TAKEN
        + "  prepare: its workspace, branch agents/api from the checked-out commit\n"
        "  create: declared and never made\n" + RECORD + "  start: declared running\n"
        "not in sync",
    ),
    "another session was trusted": (
        planned(HOST, trusted={"web": frozenset(taken(HOST.data))}),
        "api: create: declared and never made\n"
        + SHARED
        + REACHES
        + "  takes network: the host's\n  not allowed\nnot in sync",
    ),
    "some of it was trusted": (
        planned(TAKES, trusted={NAME: frozenset(taken(TAKES.data)[1:])}),
        "api: create: declared and never made\n"
        + SHARED
        + REACHES
        + TAKEN
        + "  not allowed: mounts./data: /src, read-only\nnot in sync",
    ),
    "it takes from the host, as it was allowed until that was revoked": (
        planned(HOST, sandbox(HOST, "stopped"), recorded=record(HOST), revoked={NAME: frozenset(taken(HOST.data))}),
        "api: start: its files are there, nothing runs\n"
        + REACHES
        + "  takes network: the host's\n  not allowed\nnot in sync",
    ),
    "it takes from the host, as it was allowed": (
        planned(TAKES, sandbox(TAKES, "stopped"), recorded=record(TAKES)),
        "api: start: its files are there, nothing runs\n  start 1: declared running\n" + RECORD + "not in sync",
    ),
    "its files are gone, and with them the mark of what it was allowed": (
        planned(HOST, recorded=record(HOST)),
        "api: recreate: recorded, but its files are gone\n"
        "  prepare: its workspace, branch agents/api from the checked-out commit\n"
        "  create: recorded, but its files are gone\n" + RECORD + "  start: declared running\n"
        "not in sync",
    ),
    "a corrupt record allows nothing": (
        planned(HOST, recorded=record(HOST, corrupt="no JSON")),
        "api: recreate: recorded, but its files are gone\n"
        + REACHES
        + "  takes network: the host's\n  not allowed\nnot in sync",
    ),
    "network opened": (
        planned(HOST, sandbox(A), recorded=record(A), policy=ALLOW),
        "api: restart: network differs\n"
        "  network: 'none' -> 'host' (restart)\n" + REACHES + "  takes network: the host's\n"
        "  stop 1: network differs\n  update 1: network\n  start 1: declared running\n" + RECORD + "not in sync",
    ),
    "network closed": (
        planned(A, sandbox(HOST), recorded=record(HOST)),
        "api: restart: network differs\n"
        "  network: 'host' -> 'none' (restart)\n"
        "  stop 1: network differs\n  update 1: network\n  start 1: declared running\n" + RECORD + "not in sync",
    ),
    "more is taken by one that runs": (
        planned(TAKES, sandbox(HOST), recorded=record(HOST)),
        "api: restart: mounts./data, mounts./out differ\n"
        "  env.A: None -> '1' (in-place)\n"
        "  env.B: None -> {'from_env': 'C'} (in-place)\n"
        "  env.D: None -> {'from_file': '/key'} (in-place)\n"
        "  files.~/.x: None -> '0644 sha256:abababababab' (in-place)\n"
        "  files.~/.y: None -> '0644 sha256:abababababab' (in-place)\n"
        "  mounts./data: None -> 'ro /src' (restart)\n"
        "  mounts./out: None -> 'rw /out' (restart)\n"
        + TAKEN.replace("  takes network: the host's\n", "")
        + "  not allowed\nnot in sync",
    ),
    "nothing anywhere": (planned(None), "in sync"),
    "as declared": (planned(A, sandbox(A), recorded=record(A)), "in sync"),
    "never made": (
        planned(A, bases={NAME: "c" * 40}),
        "api: create: declared and never made\n" + SHARED + "  from " + "c" * 40 + "\n"
        "  prepare: its workspace, branch agents/api from the checked-out commit\n"
        "  create: declared and never made\n" + RECORD + "  start: declared running\n"
        "not in sync",
    ),
    "never made, with setup": (
        planned(SETUP),
        "api: create: declared and never made\n"
        + SHARED
        + "  prepare: its workspace, branch agents/api from the checked-out commit\n"
        "  create: declared and never made\n" + RECORD + "  start: declared running\n"
        "  setup: 1 command\n" + RECORD + "not in sync",
    ),
    "never made, declared stopped": (
        planned(STOPPED),
        "api: create: declared and never made\n"
        + SHARED
        + "  prepare: its workspace, branch agents/api from the checked-out commit\n"
        "  create: declared and never made\n" + RECORD + "not in sync",
    ),
    "half made": (
        planned(A, sandbox(None, "partial")),
        "api: create: declared, and only half made\n"
        + SHARED
        + "  prepare: its workspace, branch agents/api from the checked-out commit\n"
        "  create: declared, and only half made\n" + RECORD + "  start: declared running\n"
        "  remove 1: half made\n"
        "not in sync",
    ),
    "its files are gone": (
        planned(A, recorded=record(A, git=git(unpushed=2))),
        "api: recreate: recorded, but its files are gone\n"
        "  ! 2 commits that nothing else held went with its files\n"
        "  prepare: its workspace, branch agents/api from the checked-out commit\n"
        "  create: recorded, but its files are gone\n" + RECORD + "  start: declared running\n"
        "not in sync",
    ),
    "its image is gone, and what was installed over it is not": (
        planned(A, sandbox(IMAGE, "partial"), recorded=record(IMAGE, git=git(unpushed=2))),
        "api: recreate: recorded, but its image is gone\n"
        "  prepare: its workspace, branch agents/api from the checked-out commit\n"
        "  create: recorded, but its image is gone\n" + RECORD + "  start: declared running\n"
        "  remove 1: its image is gone\n"
        "not in sync",
    ),
    "its work is there, its sandbox is not": (
        planned(A, sandbox(None, "partial", ""), recorded=record(A)),
        "api: recreate: recorded, but its files are gone\n"
        "  prepare: its workspace, branch agents/api from the checked-out commit\n"
        "  create: recorded, but its files are gone\n" + RECORD + "  start: declared running\n"
        "not in sync",
    ),
    "killed or rebooted": (
        planned(A, sandbox(A, "stopped"), recorded=record(A)),
        "api: start: its files are there, nothing runs\n  start 1: declared running\n" + RECORD + "not in sync",
    ),
    "stopped by hand": (
        planned(A, sandbox(A, "stopped"), recorded=record(A, stopped_at=5.0)),
        "api: start: declared running, stopped by hand\n  start 1: declared running\n" + RECORD + "not in sync",
    ),
    "declared stopped now": (
        planned(STOPPED, sandbox(A), recorded=record(A)),
        "api: stop: runs, declared stopped\n"
        "  state: 'running' -> 'stopped' (in-place)\n"
        "  update 1: state\n"
        "  stop 1: runs, declared stopped\n" + RECORD + "not in sync",
    ),
    "env edited": (
        planned(ENV, sandbox(A), recorded=record(A)),
        "api: update: env.A differs\n  env.A: None -> '1' (in-place)\n  update 1: env.A\n" + RECORD + "not in sync",
    ),
    "files edited": (
        planned(FILES, sandbox(A), recorded=record(A)),
        "api: update: files.~/.x differs\n"
        "  files.~/.x: None -> '0644 sha256:abababababab' (in-place)\n"
        "  update 1: files.~/.x\n" + RECORD + "not in sync",
    ),
    "branch edited": (
        planned(BRANCH, sandbox(A), recorded=record(A)),
        "api: update: workspace.branch differs\n"
        "  workspace.branch: 'agents/api' -> 'other' (in-place)\n"
        "  branch 1: other at its commit\n"
        "  update 1: workspace.branch\n" + RECORD + "not in sync",
    ),
    "include edited: only while nothing has the upper layer mounted": (
        planned(INCLUDE, sandbox(A), recorded=record(A)),
        "api: restart: workspace.include differs\n"
        "  workspace.include: [] -> ['.env'] (restart)\n"
        "  stop 1: workspace.include differs\n"
        "  prepare: workspace.include differs\n"
        "  update 1: workspace.include\n"
        "  start 1: declared running\n" + RECORD + "not in sync",
    ),
    "setup edited: the successor is ready before the old one stops, the old goes last": (
        planned(SETUP, sandbox(A), recorded=record(A)),
        "api: replace: setup differs\n"
        "  setup: [] -> ['make deps'] (replace)\n"
        "  prepare: work and home are carried over as they are\n"
        "  create: setup differs\n"
        "  stop 1: its successor takes over its work\n"
        "  start: declared running\n"
        "  setup: 1 command\n"
        "  remove 1: replaced\n" + RECORD + "not in sync",
    ),
    "image edited, and crashed before the switch: the new one is the session, the old one goes": (
        planned(IMAGE, sandbox(A), sandbox(IMAGE, "stopped", "2"), recorded=record(A)),
        "api: start: its files are there, nothing runs\n"
        "  stop 1: superseded\n"
        "  start 2: declared running\n"
        "  remove 1: superseded\n" + RECORD + "not in sync",
    ),
    "image edited and edited back, and crashed before the switch: the old one stays": (
        planned(A, sandbox(A), sandbox(IMAGE, "stopped", "2"), recorded=record(A)),
        "api: drop: 1 superseded beside it\n  remove 2: superseded\n" + RECORD + "not in sync",
    ),
    "setup was interrupted": (
        planned(SETUP, sandbox(SETUP), recorded=record(SETUP, setup="")),
        "api: update: setup has not finished in it\n  setup 1: 1 command\n" + RECORD + "not in sync",
    ),
    "record lost": (
        planned(A, sandbox(A)),
        "api: record: there is no record of it\n  record: there is no record of it\nnot in sync",
    ),
    "record corrupt": (
        planned(A, sandbox(A), recorded=record(A, corrupt="no JSON")),
        "api: record: its record is corrupt: no JSON\n  record: its record is corrupt: no JSON\nnot in sync",
    ),
    "base edited: refused, whatever is forced": (
        planned(BASE, sandbox(A), recorded=record(A), policy=Policy(force=True)),
        "api: conflict: workspace.base is settled when a session is made: declare another session beside it\n"
        "  workspace.base: '' -> 'other' (replace)\n"
        "  blocked\n"
        "not in sync",
    ),
    "its mark is not what was written": (
        planned(A, sandbox(A, drift="its mark names web"), recorded=record(A)),
        "api: conflict: its mark names web\n  blocked\nnot in sync",
    ),
    "its mark is not what was written, forced": (
        planned(A, sandbox(A, drift="its mark names web"), recorded=record(A), policy=Policy(force=True)),
        "api: conflict: its mark names web\n"
        "  stop 1: forced\n"
        "  prepare: its workspace, branch agents/api from the checked-out commit\n"
        "  create: recorded, but its files are gone\n" + RECORD + "  start: declared running\n"
        "  remove 1: forced\n"
        "not in sync",
    ),
    "its backend cannot be asked: nothing is made anew because of it": (
        planned(A, recorded=record(A), unreachable={"bubblewrap": "no answer"}, policy=Policy(force=True)),
        "api: conflict: bubblewrap could not be asked: no answer\n  blocked\nnot in sync",
    ),
    "what cannot be enforced is an error in the plan": (
        planned(A, refused={NAME: ("network: not supported yet",)}),
        "api: create: declared and never made\n  refused: network: not supported yet\nnot in sync",
    ),
    "block removed: shown, never removed by apply": (
        planned(None, sandbox(A), recorded=record(A)),
        "api: retained: not declared\nin sync",
    ),
    "bears our mark, unknown to us": (
        planned(None, sandbox(A)),
        "api: stray: bears our mark, but there is no record of it\nin sync",
    ),
    "only its record is left": (
        planned(None, recorded=record(A)),
        "api: forget: not declared, and nothing of it is left but its record\nin sync",
    ),
}

APPLY |= {
    "unused for longer than its idle_stop": (
        planned(RESTS, sandbox(RESTS, busy=False), recorded=record(RESTS)),
        f"api: stop: {UNUSED}\n  stop 1: {UNUSED}\n" + RECORD + "not in sync",
    ),
    "unused for longer than its idle_stop, says the record, but processes run in it": (
        planned(RESTS, sandbox(RESTS, busy=True), recorded=record(RESTS)),
        "in sync",
    ),
    "unused for longer than its idle_stop, and it is not known whether processes run in it": (
        planned(RESTS, sandbox(RESTS), recorded=record(RESTS)),
        "in sync",
    ),
    "used since, by a clock that was set back": (
        planned(RESTS, sandbox(RESTS, busy=False), recorded=record(RESTS)._replace(last_active=NOW + 9999)),
        "in sync",
    ),
    "stopped because it was not used": (
        planned(RESTS, sandbox(RESTS, "stopped"), recorded=record(RESTS)),
        "in sync",
    ),
    "killed, and used just before": (
        planned(RESTS, sandbox(RESTS, "stopped"), recorded=record(RESTS)._replace(last_active=NOW - 60)),
        "api: start: its files are there, nothing runs\n  start 1: declared running\n" + RECORD + "not in sync",
    ),
    "an idle_stop that was declared a minute ago": (
        planned(RESTS, sandbox(RESTS, busy=False), recorded=record(RESTS, idle_set=NOW - 60)),
        "in sync",
    ),
    "a shorter idle_stop ends nothing before it was applied": (
        planned(RESTS, sandbox(A, busy=False), recorded=record(A)),
        "api: update: idle_stop differs\n  idle_stop: '' -> '1h' (in-place)\n  update 1: idle_stop\n"
        + RECORD
        + "not in sync",
    ),
    "image edited while it rests: it is made anew, and rests": (
        planned(RESTS_IMAGE, sandbox(RESTS, "stopped"), recorded=record(RESTS)),
        "api: replace: image differs\n"
        "  image: 'host' -> 'rootfs:/r' (replace)\n"
        "  prepare: work and home are carried over as they are\n"
        "  create: image differs\n"
        "  remove 1: replaced\n" + RECORD + "not in sync",
    ),
}

IDLE = sandbox(A, busy=False)
GOES = (
    "api: retained: not declared\n"
    "  stop 1: idle\n"
    "  verify 1: looked at again, now that nothing runs\n"
    "  rescue 1: no file of its own, and the repository has its commits: its files go to the trash\n"
    "  forget: nothing is left of it\n"
    "in sync"
)


def kept(why: str) -> str:
    return f"api: retained: not declared\n  kept: {why}\nin sync"


KNOWN = record(A)


def pruned(
    state: GitState | None = CLEAN,
    observed: Observed = IDLE,
    recorded: Record | None = KNOWN,
    home: tuple[str, ...] | None = (),
    idle: float = 600.0,
    merged: Merged | None = None,
    declared: Declaration | None = None,
) -> str:
    homes = {} if home is None else {NAME: home}
    states = {} if state is None else {NAME: state}
    policy = Policy(prune=True, idle=idle)
    forms = {} if merged is None else {NAME: merged}
    return planned(declared, observed, recorded=recorded, policy=policy, git=states, homes=homes, merged=forms)


DELETED = sandbox(DELETE, busy=False)
DELETES = record(DELETE)
LATE = record(TTL, expires_at=NOW)
SQUASHED = Merged(2, ("d" * 40,))


PRUNED: dict[str, tuple[str, str]] = {
    "clean, held elsewhere, idle": (pruned(), GOES),
    "declared": (planned(A, IDLE, recorded=record(A), policy=PRUNE), "in sync"),
    "declared, and asked for": (
        planned(A, IDLE, recorded=record(A), policy=PRUNE._replace(names=frozenset({NAME}))),
        "api: keep: as declared\n  kept: declared in the manifest: remove its block first\nin sync",
    ),
    "dirty": (pruned(git(dirty=True, changes=("a", ".env"))), kept("files that no commit holds: a, .env")),
    "not known whether clean": (pruned(git(dirty=None)), kept("it is not known whether its workspace is clean")),
    "not looked at": (pruned(None), kept("its workspace was not looked at")),
    "unreadable": (pruned(git(error="HEAD is a link")), kept("its workspace cannot be read: HEAD is a link")),
    "unpushed": (
        pruned(git(unpushed=1)),
        kept("1 commit that no host branch, remote or fetched ref holds: sessionctl fetch"),
    ),
    "not known whether pushed": (
        pruned(git(unpushed=None)),
        kept("it is not known whether its commits are held elsewhere"),
    ),
    "squashed into a commit of the host": (
        pruned(git(unpushed=2), merged=SQUASHED),
        GOES.replace("and the repository has its commits", f"2 commits merged as {'d' * 10}"),
    ),
    "squashed, and one commit more": (
        pruned(git(unpushed=3), merged=SQUASHED),
        kept(
            "1 commit that no host branch, remote or fetched ref holds, "
            f"beside 2 that are merged as {'d' * 10}: sessionctl fetch"
        ),
    ),
    "something in its home, which goes to the trash with it": (pruned(home=("~/notes",)), GOES),
    "home not looked at": (pruned(home=None), GOES),
    "to be deleted": (
        pruned(observed=DELETED, recorded=DELETES),
        GOES.replace("rescue", "delete").replace("its files go to the trash", "its files are deleted"),
    ),
    "to be deleted, says its mark alone": (pruned(observed=DELETED), GOES),
    "to be deleted, says its record alone": (pruned(recorded=DELETES), GOES),
    "to be deleted, and something in its home": (
        pruned(observed=DELETED, recorded=DELETES, home=("~/notes",)),
        kept("its home holds ~/notes, and nothing would be kept of that (on_prune is delete)"),
    ),
    "to be deleted, home not looked at": (
        pruned(observed=DELETED, recorded=DELETES, home=None),
        kept("its home was not looked at"),
    ),
    "to be deleted, and merged in another form": (
        pruned(git(unpushed=2), observed=DELETED, recorded=DELETES, merged=SQUASHED),
        kept(
            f"its commits are merged as {'d' * 10}, and nothing would be kept of that (on_prune is delete): "
            "sessionctl fetch"
        ),
    ),
    "declared, and its ttl is over": (
        pruned(declared=TTL, observed=sandbox(TTL, busy=False), recorded=LATE),
        GOES.replace("api: retained: not declared", "api: keep: its ttl of 7d is over"),
    ),
    "declared with another ttl, after the one that was applied is over": (
        pruned(declared=A, observed=sandbox(TTL, busy=False), recorded=LATE),
        "api: update: ttl differs\n  ttl: '7d' -> '' (in-place)\nnot in sync",
    ),
    "declared, its ttl is over, and dirty": (
        pruned(git(dirty=True), declared=TTL, observed=sandbox(TTL, busy=False), recorded=LATE),
        "api: keep: its ttl of 7d is over\n  kept: files that no commit holds\nin sync",
    ),
    "declared, its ttl is over, and protected": (
        pruned(
            declared=TTL,
            observed=sandbox(PROTECTED, busy=False),
            recorded=record(TTL, expires_at=NOW),
        ),
        "api: update: its ttl of 7d is over\n"
        "  protect: True -> False (in-place)\n  ttl: '' -> '7d' (in-place)\n"
        "  kept: protected: put the block back with protect = false, apply, and remove it again\n"
        "not in sync",
    ),
    "declared, its ttl is not yet over": (
        pruned(declared=TTL, observed=sandbox(TTL, busy=False), recorded=record(TTL, expires_at=NOW + 1)),
        "in sync",
    ),
    "declared with a ttl that was not applied yet": (
        pruned(declared=TTL, observed=sandbox(A, busy=False), recorded=record(A)),
        "api: update: ttl differs\n  ttl: '' -> '7d' (in-place)\nnot in sync",
    ),
    "declared, and unused for longer than its idle_stop": (
        pruned(declared=RESTS, observed=sandbox(RESTS, busy=False), recorded=record(RESTS)),
        f"api: stop: {UNUSED}\n  rest 1: {UNUSED}\nnot in sync",
    ),
    "not declared, dirty, and unused for longer than its idle_stop": (
        pruned(git(dirty=True), observed=sandbox(RESTS, busy=False), recorded=record(RESTS)),
        f"api: retained: not declared\n  kept: files that no commit holds\n  rest 1: {UNUSED}\nin sync",
    ),
    "busy": (pruned(observed=sandbox(A, busy=True)), kept("processes run in it: sessionctl stop api")),
    "not known whether busy": (pruned(observed=sandbox(A)), kept("it is not known whether processes run in it")),
    "used a minute ago": (
        pruned(recorded=record(A)._replace(last_active=NOW - 60)),
        kept("used 1m ago, idle is 10m"),
    ),
    "used in the future, says a clock that was set back": (
        pruned(recorded=record(A)._replace(last_active=NOW + 60)),
        kept("last used in the future, by this clock: it is not known for how long it is idle"),
    ),
    "used a minute ago, and idle is said to be nothing": (
        pruned(recorded=record(A)._replace(last_active=NOW - 60), idle=0),
        GOES,
    ),
    "protected": (
        pruned(recorded=record(PROTECTED), observed=sandbox(PROTECTED, busy=False)),
        kept("protected: put the block back with protect = false, apply, and remove it again"),
    ),
    "protected in the record alone": (
        pruned(recorded=record(PROTECTED)),
        kept("protected: put the block back with protect = false, apply, and remove it again"),
    ),
    "only half a sandbox left": (
        pruned(observed=sandbox(None, "partial")),
        kept("no sandbox of it is whole, so its work cannot be read: put the block back and apply"),
    ),
    "stray": (
        pruned(recorded=None),
        "api: stray: bears our mark, but there is no record of it\n"
        "  kept: no record says when it was last used\n"
        "in sync",
    ),
    "only a record": (
        planned(None, recorded=record(A), policy=PRUNE),
        "api: forget: not declared, and nothing of it is left but its record\n"
        "  forget: not declared, and nothing of it is left but its record\n"
        "in sync",
    ),
}


@pytest.mark.parametrize("intent", APPLY)
def test_apply(intent: str) -> None:
    found, expected = APPLY[intent]
    assert found == expected


@pytest.mark.parametrize("intent", PRUNED)
def test_prune(intent: str) -> None:
    found, expected = PRUNED[intent]
    assert found == expected


def test_the_sandbox_of_a_session_is_what_runs_then_what_is_recorded_then_the_newest() -> None:
    seen = [sandbox(A, "stopped", id="1"), sandbox(A, "stopped", id="2"), sandbox(None, "partial", id="3")]
    chosen = [
        sandbox_of([*seen, sandbox(A, id="0")], record(A, "2")),
        sandbox_of(seen, record(A, "1")),
        sandbox_of(seen, record(A, "3")),
        sandbox_of(seen, None),
        sandbox_of(seen[2:], record(A, "3")),
    ]
    assert [each.id if each is not None else "" for each in chosen] == ["0", "1", "2", "2", ""]
