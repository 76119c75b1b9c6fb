"""What people and programs read: plans, tables, progress, JSON.

Turns values into text and asks nothing of the world but whether a stream is a terminal. All text that
an agent could have written passes `printable`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from sessionctl.model import ISOLATES, host_path, kind_of
from sessionctl.units import duration, size

if TYPE_CHECKING:
    from sessionctl.app.looking import Session
    from sessionctl.comparing import Difference
    from sessionctl.copying import Copied
    from sessionctl.disk import Disk
    from sessionctl.doctor import Check
    from sessionctl.executor import Outcome
    from sessionctl.garbage import Garbage, Use
    from sessionctl.images.library import Kept
    from sessionctl.model import GitState
    from sessionctl.outputs import Output
    from sessionctl.plan import Action, Lane, Plan
    from sessionctl.snapshots import Operation, Snapshot
    from sessionctl.store import Entry
    from sessionctl.trust import Taking

_SIGNS = {
    "create": ("+", "green"),
    "recreate": ("+", "green"),
    "rename": ("~", "yellow"),
    "start": (">", "green"),
    "stop": ("=", "yellow"),
    "update": ("~", "yellow"),
    "restart": ("~", "yellow"),
    "replace": ("±", "red"),
    "drop": ("-", "yellow"),
    "record": ("·", "dim"),
    "retained": ("·", "dim"),
    "forget": ("·", "dim"),
    "stray": ("?", "yellow"),
    "conflict": ("!", "red"),
    "keep": (" ", "dim"),
}
LIMITS = {
    "memory": "a process was killed, because the session's memory was used up",
    "pids": "a process could not be started, because the session had as many as it may",
    "wall": "it was ended, because its time was up",
}
"""What a limit that struck did."""
_COSTS = {"in-place": "in place", "restart": "needs a restart", "replace": "needs a new sandbox"}
_CODES = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}


def printable(text: str) -> str:
    """`text` with everything that could steer a terminal shown as an escape: on one line, and only itself."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def safe_block(text: str) -> str:
    """As `printable`, but newlines and tabs stay."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])|\x9b[0-?]*[ -/]*[@-~]"
)
"""A whole escape sequence of a terminal (ECMA-48)."""


def plain(text: str) -> str:
    """`text` without the sequences that steer a terminal; what is left of such, and a line written over, is shown."""
    return safe_block(_SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))


class Paint:
    """Colours for one stream: none unless it is a terminal, or `choice` says always."""

    def __init__(self, stream: TextIO | None, choice: str = "auto") -> None:
        dumb = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        plain = dumb or stream is None or not stream.isatty()
        self.on = choice == "always" or (choice == "auto" and not plain)

    def __call__(self, colour: str, text: str) -> str:
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self.on and colour and text else text


PLAIN = Paint(None)


# --- plans -------------------------------------------------------------------------------------


def plan_text(plan: Plan, paint: Paint = PLAIN) -> str:
    """A plan for a person who is about to approve it: what differs, what it costs, what will be done."""
    lines: list[str] = []
    shown = [lane for lane in plan.lanes if _tells(lane, plan)]
    width = max((len(lane.session) for lane in shown), default=0)
    for lane in shown:
        lines += _lane(lane, width, paint)
    warnings: dict[str, list[str]] = {}
    for lane in shown:
        for warning in lane.warnings:
            warnings.setdefault(warning, []).append(lane.session)
    if warnings:
        lines.append("")
        lines += [paint("yellow", f"! {_listed(names)}: {warning}") for warning, names in warnings.items()]
    if lines:
        lines.append("")
    lines.append(_summary(plan))
    return "\n".join(lines)


def _tells(lane: Lane, plan: Plan) -> bool:
    """Whether there is anything to say of a session: a prune is silent about what is declared."""
    return bool(lane.kept or lane.actions or (lane.change.kind != "keep" and not plan.policy.prune))


def _lane(lane: Lane, width: int, paint: Paint) -> Iterable[str]:
    change = lane.change
    sign, colour = ("-", "red") if lane.removes else _SIGNS[change.kind]
    reason = change.reason
    if lane.kept:
        reason = f"kept: {lane.kept}" if change.declared is None else f"{reason}; kept: {lane.kept}"
    if not lane.kept and change.kind == "start" and change.record is not None and change.record.stopped_at is not None:
        reason += f" at {moment(change.record.stopped_at)}"
    kind = _kind(lane)
    name = paint("bold", f"{change.session:{width}}")
    yield f"{paint(colour, sign)} {name}  {paint(colour, f'{kind:8}')}  {printable(reason)}"
    pad = " " * 6
    for field in change.fields:
        cost = paint("dim", _COSTS[field.effect]) if not lane.blocked else ""
        yield f"{pad}{field.path}: {_value(field.before)} -> {_value(field.after)}  {cost}".rstrip()
    for each in lane.takes:
        told = paint("red", " (not trusted)") if each in lane.untrusted else ""
        yield f"{pad}{paint('yellow', 'takes from the host:')} {printable(each)}{told}"
    if lane.untrusted:
        yield f"{pad}{paint('red', f'nothing is done to it: sessionctl trust {lane.session}')}"
    for refusal in lane.refused:
        yield f"{pad}{paint('red', f'cannot be done here: {printable(refusal)}')}"
    if lane.blocked:
        force = "; --force replaces it" if change.otherwise else ""
        yield f"{pad}{paint('red', f'nothing is done to it{force}')}"
    steps = [_step(lane, action) for action in lane.actions if action.verb != "record" or len(lane.actions) == 1]
    if steps:
        yield f"{pad}{paint('dim', ' → '.join(steps))}"


def _kind(lane: Lane) -> str:
    """What becomes of a session, in a word."""
    if lane.removes:
        return "remove"
    return "stop" if any(action.verb == "rest" for action in lane.actions) else lane.change.kind


def _step(lane: Lane, action: Action) -> str:
    if action.verb not in _TELLING:
        return action.verb
    at = f" at {lane.base[:10]}" if action.verb == "prepare" and lane.base else ""
    return f"{action.verb} ({action.reason}{at})"


_TELLING = ("rename", "prepare", "setup", "branch", "rest", "rescue", "delete")


def _summary(plan: Plan) -> str:
    kinds: dict[str, int] = {}
    for lane in plan.work:
        kind = _kind(lane)
        kinds[kind] = kinds.get(kind, 0) + 1
    parts = [f"{count} to {kind}" for kind, count in kinds.items()]
    if plan.policy.prune:
        kept = sum(bool(lane.kept) for lane in plan.lanes)
        return f"Prune: {', '.join(parts) or 'nothing to remove'}{f', {kept} kept' if kept else ''}."
    parts += [f"{len(plan.blocked)} blocked"] if plan.blocked else []
    parts += [f"{len(plan.refused)} cannot be done here"] if plan.refused else []
    parts += [f"{len(plan.untrusted)} not trusted"] if plan.untrusted else []
    retained = sum(lane.change.kind == "retained" for lane in plan.lanes)
    aside = f" {retained} retained." if retained else ""
    if plan.in_sync and not parts:
        count = sum(lane.change.declared is not None for lane in plan.lanes)
        return f"In sync: {count} session{'s' * (count != 1)} as declared.{aside}"
    return f"Plan: {', '.join(parts)}.{aside}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _value(value: Any) -> str:
    if value is None:
        return "(none)"
    return printable(json.dumps(value, ensure_ascii=False))


def plan_data(plan: Plan) -> dict[str, Any]:
    """The JSON form of a plan; its shape is described in docs/json.md."""
    return {
        "in_sync": plan.in_sync,
        "changes": [
            {
                "session": lane.session,
                "kind": lane.change.kind,
                "reason": lane.change.reason,
                "fields": [field._asdict() for field in lane.change.fields],
                "actions": [
                    {"verb": a.verb, "reason": a.reason, "sandbox": a.target.id if a.target else None}
                    for a in lane.actions
                ],
                "git": _plan_git(lane),
                "takes": list(lane.takes),
                "untrusted": list(lane.untrusted),
                "warnings": list(lane.warnings),
                "kept": lane.kept or None,
            }
            for lane in plan.lanes
            if _tells(lane, plan)
        ],
        "blocked": [
            {
                "session": lane.session,
                "reason": lane.blocked or "; ".join(lane.refused) or f"not trusted: {'; '.join(lane.untrusted)}",
                "forcible": lane.change.otherwise is not None,
            }
            for lane in plan.lanes
            if lane.blocked or lane.refused or lane.untrusted
        ],
    }


def _plan_git(lane: Lane) -> dict[str, Any]:
    record = lane.change.record
    data = git_data(record.git) if record else {}
    declared = lane.change.declared
    workspace = declared.data["workspace"] if declared else {}
    return {
        **data,
        "base": lane.base or (record.base if record else "") or None,
        "declared_branch": workspace.get("branch"),
    }


# --- what is taken from the host ---------------------------------------------------------------


def takings_text(takings: Sequence[Taking], paint: Paint) -> str:
    """What each session takes: what is trusted already, what is new, and what is not taken any more."""
    lines = []
    for each in takings:
        lines.append(paint("bold", each.session) + ("" if each.declared else "  (not declared any more)"))
        for line in each.lines:
            new = line in each.new
            sign = paint("yellow", "+") if new else " "
            lines.append(f"  {sign} {printable(line)}" + (paint("yellow", "  (not trusted)") if new else ""))
        lines += [paint("dim", f"  - {printable(line)}  (not taken any more)") for line in each.gone]
    return "\n".join(lines)


def takings_data(takings: Sequence[Taking]) -> dict[str, Any]:
    """The JSON form of the same; its shape is described in docs/json.md."""
    return {
        "trusted": not any(each.new for each in takings),
        "sessions": [
            {
                "name": each.session,
                "declared": each.declared,
                "takes": list(each.lines),
                "untrusted": list(each.new),
                "gone": list(each.gone),
            }
            for each in takings
        ],
    }


# --- sessions ----------------------------------------------------------------------------------


def git_data(state: GitState) -> dict[str, Any]:
    return {
        "branch": state.branch,
        "commit": state.commit,
        "dirty": state.dirty,
        "dirty_at": moment(state.dirty_at),
        "ahead": state.ahead,
        "behind": state.behind,
        "unpushed": state.unpushed,
        "git_error": state.error or None,
    }


def session_data(session: Session) -> dict[str, Any]:
    """The JSON form of one session; its shape is described in docs/json.md."""
    data, record, observed = session.data, session.record, session.observed
    made_of = _made_of(session)
    return {
        "name": session.name,
        "state": data.get("state"),
        "observed": session.status,
        "backend": data.get("backend"),
        "agent": data.get("agent") or None,
        "agent_started": False,
        "image": data.get("image"),
        "image_digest": data.get("image_digest") or None,
        "image_extra": data.get("image_extra") or [],
        "network": made_of.get("network"),
        "mounts": made_of.get("mounts", []),
        "workspace": kind_of(made_of["workspace"]) if made_of.get("workspace") else None,
        "path": host_path(observed),
        "title": data.get("title") or None,
        "tags": data.get("tags", []),
        "metadata": data.get("metadata", {}),
        **git_data(session.git),
        "base": (record.base if record else "") or None,
        "declared": session.declared,
        "protected": bool(data.get("protect")),
        "expires_at": moment(record.expires_at) if record else None,
        "idle_stop": data.get("idle_stop") or None,
        "on_prune": data.get("on_prune") or "snapshot",
        "parent": data.get("parent") or None,
        "stray": session.stray,
        "sandbox": observed.id if observed and observed.id else None,
        "pid": observed.pid if observed else None,
        "started_at": moment(observed.started_at) if observed else None,
        "created_at": moment(record.created_at or None) if record else None,
        "last_active": moment(record.last_active or None) if record else None,
        "stopped_at": moment(record.stopped_at) if record else None,
        "not_enforced": list(observed.not_enforced) if observed else [],
        "record_error": (record.corrupt if record else "") or None,
    }


def sessions_json(sessions: Sequence[Session]) -> str:
    """The JSON document of many sessions, one a line: the encoder that indents takes twice as long."""
    lines = ",\n".join(json.dumps(session_data(session)) for session in sessions)
    return f'{{"sessions": [\n{lines}\n]}}'


def _made_of(session: Session) -> Mapping[str, Any]:
    """What the session's sandbox was made of, where there is one: what it can reach now, whatever is declared."""
    observed = session.observed
    return observed.made_of.data if observed is not None and observed.made_of is not None else session.data


def sessions_text(sessions: Sequence[Session], now: float, paint: Paint) -> str:
    """A table of sessions, one line each."""
    rows = []
    for s in sessions:
        shown = "not made" if s.status == "gone" and s.record is None else s.status
        colour = {"running": "green", "stopped": "yellow"}.get(shown, "dim" if shown == "not made" else "red")
        mark = "stray" if s.stray else "" if s.declared else "retained"
        kind = kind_of(_made_of(s)["workspace"]) if _made_of(s) else "clone"
        notes = [mark, kind if kind != "clone" else "", *(["record corrupt"] if s.record and s.record.corrupt else [])]
        if s.record and s.record.expires_at is not None and s.record.expires_at <= now:
            notes.append("its ttl is over")
        if s.observed and s.observed.not_enforced:
            notes.append(f"not enforced: {', '.join(s.observed.not_enforced)}")
        notes.append(s.data.get("title", ""))
        agent = f"{s.data['agent']} (not started)" if s.data.get("agent") else "-"
        rows.append(
            (
                (s.name, "bold"),
                (shown, colour),
                (agent, ""),
                (_branch(s.git), "red" if s.git.error else ""),
                ((s.git.commit or "")[:10] or "-", ""),
                (_tree(s.git), "yellow" if s.git.dirty else ""),
                (_distance(s.git), ""),
                (
                    f"{duration(max(0, now - s.record.last_active))} ago" if s.record and s.record.last_active else "-",
                    "dim",
                ),
                (", ".join(printable(note) for note in notes if note), "dim"),
            )
        )
    heads = ("NAME", "STATUS", "AGENT", "BRANCH", "COMMIT", "TREE", "COMMITS", "USED", "")
    return table(heads, rows, paint)


def _branch(state: GitState) -> str:
    if state.error:
        return "unreadable"
    if state.branch:
        return printable(state.branch)
    return "(detached)" if state.commit else "-"


def _tree(state: GitState) -> str:
    return {None: "?", True: "dirty", False: "clean"}[state.dirty] if state.commit or state.dirty is not None else "-"


def _distance(state: GitState) -> str:
    if state.commit is None:
        return "-"
    parts = []
    for count, word in ((state.ahead, "ahead"), (state.behind, "behind"), (state.unpushed, "unpushed")):
        if count is None:
            parts.append(f"{word} ?")
        elif count:
            parts.append(f"{word} {count}")
    return ", ".join(parts) or "at base"


def table(heads: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]], paint: Paint) -> str:
    """Columns as wide as their content; a cell is its text and its colour."""
    texts = [[text for text, _ in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *texts, strict=True)]
    line = "  ".join(f"{{:{width}}}" for width in widths)
    lines = [paint("dim", line.format(*heads).rstrip())]
    if not paint.on:
        lines += [line.format(*row).rstrip() for row in texts]
        return "\n".join(lines)
    for row in rows:
        cells = (
            paint(colour, text) + " " * (width - len(text)) for (text, colour), width in zip(row, widths, strict=True)
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def images_text(uses: Sequence[Use], paint: Paint) -> str:
    """A table of images."""
    rows = [
        (
            (_short(each.image.digest), "bold"),
            (size(each.size), ""),
            (str(len(each.image.layers)), ""),
            (", ".join(each.users) or "-", ""),
            (printable(each.image.source), "dim"),
        )
        for each in uses
    ]
    return table(("IMAGE", "SIZE", "LAYERS", "USED BY", "FROM"), rows, paint)


def garbage_text(found: Garbage) -> str:
    """What `gc` would remove, or why nothing."""
    if found.kept:
        return f"nothing is removed: {printable(found.kept)}"
    if not found:
        return "nothing to remove"
    lines = [f"- snapshot {each.id} of {each.session}  {size(each.size)}  {each.why}" for each in found.snapshots]
    lines += [f"- image {_short(image.digest)}  {printable(image.source)}" for image in found.images]
    parts = [(len(found.layers), "layer"), (len(found.bases), "base layer")]
    loose = [f"{count} {word}{'s' * (count != 1)} that nothing else uses" for count, word in parts if count]
    return "\n".join([*lines, *loose, f"{size(found.size)} in all"])


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def status_text(session: Session, files: Mapping[str, str], events: Sequence[Entry], now: float, paint: Paint) -> str:
    """Everything that is known of one session."""
    data, state, record, observed = session.data, session.git, session.record, session.observed
    made_of = _made_of(session)
    shown = "not made" if session.status == "gone" and record is None else session.status
    lines = [("session", paint("bold", session.name) + ("" if session.declared else "  (not declared)"))]
    lines.append(("status", shown + (f", declared {data.get('state')}" if session.declared else "")))
    if observed and observed.started_at:
        lines.append(("running for", f"{duration(max(0, now - observed.started_at))}, pid {observed.pid}"))
    if record and record.stopped_at:
        lines.append(("stopped by hand", moment(record.stopped_at) or ""))
    image = f"image {printable(str(data.get('image')))}"
    if data.get("image_extra"):
        image += f" with {', '.join(map(printable, data['image_extra']))} of the host"
    lines.append(("backend", f"{data.get('backend')}, {image}, network {made_of.get('network')}"))
    if made_of.get("workspace"):
        kind = kind_of(made_of["workspace"])
        lines.append(("workspace", f"{kind}: {ISOLATES[kind]}"))
    if path := host_path(observed):
        lines.append(("", printable(path)))
    lines += [("mount", printable(f"{m['path']} is {m['source']}, {m['mode']}")) for m in made_of.get("mounts", [])]
    if data.get("agent"):
        lines.append(("agent", f"{data['agent']} (not started: sessionctl does not start agents yet)"))
    lines.append(("branch", f"{_branch(state)} {(state.commit or '')[:12]}".rstrip()))
    if state.error:
        lines.append(("", paint("red", printable(state.error))))
    if record and record.base:
        lines.append(("base", f"{data.get('workspace', {}).get('base') or 'HEAD'}, pinned at {record.base[:12]}"))
    lines.append(("commits", _distance(state)))
    looked = f", looked at {moment(state.dirty_at)}" if state.dirty_at else ""
    lines.append(("tree", _tree(state) + looked))
    lines += [("", printable(path)) for path in state.changes]
    lines += [("file", f"{printable(path)}: {state}") for path, state in files.items()]
    if observed and observed.clashes:
        lines.append(
            ("files", paint("yellow", "changed inside, so not written: " + ", ".join(map(printable, observed.clashes))))
        )
    limits = {name: value for name, value in data.get("limits", {}).items() if value and name != "enforce"}
    if limits:
        lines.append(("limits", ", ".join(f"{name} {value}" for name, value in limits.items())))
    if observed and observed.not_enforced:
        lines.append(("", paint("yellow", f"not enforced: {', '.join(observed.not_enforced)}")))
    if data.get("protect"):
        lines.append(("protected", "yes"))
    if record and record.expires_at is not None:
        lines.append(("ttl", f"{data.get('ttl')}, until {moment(record.expires_at)}: then prune may take it"))
    if data.get("idle_stop"):
        lines.append(("idle_stop", f"{data['idle_stop']}: stopped by the first apply or prune after that"))
    if data.get("on_prune") == "delete":
        lines.append(("on_prune", "delete: prune keeps nothing of it"))
    if record:
        lines.append(("made", f"{moment(record.created_at)}, last used {moment(record.last_active)}"))
        if record.corrupt:
            lines.append(("record", paint("red", f"corrupt: {printable(record.corrupt)}")))
    width = max(len(name) for name, _ in lines)
    text = "\n".join(f"{paint('dim', f'{name:>{width}}')}  {value}" for name, value in lines)
    return text + ("\n\n" + "\n".join(event_text(event, paint) for event in events) if events else "")


# --- events, checks, outcomes ------------------------------------------------------------------


def event_data(entry: Entry) -> dict[str, Any]:
    """The JSON form of one event of the journal."""
    return {
        "id": entry.id,
        "time": moment(entry.time),
        "session": entry.session or None,
        "event": entry.event,
        "branch": entry.branch,
        "commit": entry.commit,
        "dirty": entry.dirty,
        "ahead": entry.ahead,
        "behind": entry.behind,
        **entry.data,
    }


def event_text(entry: Entry, paint: Paint) -> str:
    """One event on one line."""
    where = f"{printable(entry.branch or '(detached)')} {entry.commit[:10]}" if entry.commit else ""
    detail = where
    if entry.event == "exec":
        import shlex

        words = printable(shlex.join(map(str, entry.data.get("argv", []))))
        words = words if len(words) < 80 else f"{words[:77]}..."
        limit = f", {entry.data['limit']} limit" if entry.data.get("limit") else ""
        detail = f"[{entry.data.get('exit_code')}{limit}] {words}  {paint('dim', where)}"
    elif entry.data.get("undo"):
        undo = paint("dim", f"to undo: {printable(str(entry.data['undo']))}")
        detail = f"{where}  {undo}".lstrip()
    elif entry.data.get("snapshot"):
        detail = f"{printable(str(entry.data['snapshot']))}  {printable(str(entry.data.get('message', '')))}".rstrip()
    elif entry.data.get("reason"):
        detail = f"{printable(str(entry.data['reason']))}  {paint('dim', where)}"
    when, event = paint("dim", moment(entry.time) or ""), paint("bold", f"{entry.event:8}")
    if entry.data.get("during"):
        detail += f"  during a {printable(str(entry.data['during']))}"
    return f"{when}  {entry.session or '(repository)'}  {event}  {detail}".rstrip()


def snapshots_text(found: Sequence[Snapshot], now: float, paint: Paint) -> str:
    """A table of snapshots."""
    rows = []
    for each in found:
        if each.corrupt:
            what = ("damaged", "red")
            message = each.corrupt
        else:
            what = ("trash", "dim") if each.discarded else (("rescue", "yellow") if each.by == "rescue" else ("", ""))
            message = each.message
        moved = None in each.parts.values()
        rows.append(
            (
                (each.session, "bold"),
                (each.id, ""),
                (f"{duration(max(now - each.made_at, 0))} ago" if each.made_at else "-", ""),
                ("-" if moved or not each.parts else size(each.size), ""),
                (f"{_branch(each.git)} {(each.git.commit or '')[:10]}".rstrip(), ""),
                what,
                (printable(message), "dim"),
            )
        )
    return table(("SESSION", "SNAPSHOT", "MADE", "SIZE", "COMMIT", "", ""), rows, paint)


def snapshot_data(snapshot: Snapshot) -> dict[str, Any]:
    """The JSON form of one snapshot; its shape is described in docs/json.md."""
    from sessionctl.snapshots import SHOWN

    return {
        "id": snapshot.id,
        "session": snapshot.session,
        "made_at": moment(snapshot.made_at),
        "by": snapshot.by,
        "message": snapshot.message or None,
        "operation": snapshot.operation or None,
        "branch": snapshot.git.branch,
        "commit": snapshot.git.commit,
        "size_bytes": snapshot.size,
        "parts": {SHOWN[part]: measure._asdict() if measure else None for part, measure in snapshot.parts.items()},
        "discarded": bool(snapshot.discarded),
        "corrupt": snapshot.corrupt or None,
    }


def operations_text(found: Sequence[Operation], now: float, paint: Paint) -> str:
    """A table of what was done that can be undone."""
    rows = [
        (
            (each.id, "bold"),
            (each.verb, ""),
            (f"{duration(max(now - each.time, 0))} ago", ""),
            (_listed(each.sessions), ""),
            ("undone" if each.undone is not None else "expired" if each.expired is not None else "", "dim"),
        )
        for each in found
    ]
    return table(("OPERATION", "", "DONE", "SESSIONS", ""), rows, paint)


def checks_text(checks: Sequence[Check], paint: Paint) -> str:
    lines = []
    for check in checks:
        good = paint("yellow", "!  ") if check.remedy else paint("green", "ok ")
        sign = good if check.ok else paint("red", "NO ")
        lines.append(f"{sign} {check.what}: {printable(check.found)}")
        if check.remedy:
            lines.append(f"    {printable(check.remedy)}")
    return "\n".join(lines)


def outcomes_text(plan: Plan, outcomes: Sequence[Outcome], paint: Paint = PLAIN) -> str:
    """What became of each lane, one line each, and every failure with its remedy."""
    lines = []
    for lane in plan.work:
        mine = [outcome for outcome in outcomes if outcome.session == lane.session]
        failed = next((outcome for outcome in mine if outcome.result == "failed"), None)
        kind = _kind(lane)
        if failed is not None:
            lines.append(
                f"{paint('red', 'failed')}  {lane.session}: {failed.action.verb}: {safe_block(str(failed.error))}"
            )
            hint = getattr(failed.error, "hint", "")
            lines += [f"        {printable(hint)}"] if hint else []
        elif any(outcome.result == "skipped" for outcome in mine):
            lines.append(f"{paint('yellow', 'stopped')} {lane.session}: {kind}, not finished")
        else:
            lines.append(f"{paint('green', 'done')}    {lane.session}: {kind}")
        lines += [f"        {printable(note)}" for outcome in mine for note in outcome.notes]
    return "\n".join(lines)


# --- files and output of sessions ----------------------------------------------------------------


class Copying:
    """Is told how many bytes more were copied; shows on a terminal how far that is, once it takes long."""

    def __init__(self, stream: TextIO | None = None) -> None:
        import time

        self._stream = stream or sys.stderr
        self._on = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._clock = time.monotonic
        self._next = self._clock() + 0.5
        self._copied = 0
        self._shown = False

    def __enter__(self) -> Copying:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()

    def __call__(self, count: int, total: int) -> None:
        self._copied += count
        if self._on and self._clock() >= self._next:
            self._next = self._clock() + 0.1
            full = min(20, 20 * self._copied // total) if total else 0
            bar = f"[{'#' * full}{'.' * (20 - full)}] " if total else ""
            of = f" of {size(total)}" if total else ""
            self._stream.write(f"\r\x1b[2K{bar}{size(self._copied)}{of}")
            self._stream.flush()
            self._shown = True


def copied_text(copied: Copied) -> str:
    """What was copied, on one line."""
    files = f"{copied.files} {'file' if copied.files == 1 else 'files'}"
    return f"{printable(copied.source)} -> {printable(copied.target)}: {files}, {size(copied.size)}"


def difference_data(found: Difference) -> dict[str, Any]:
    """The JSON form of a comparison."""
    return {
        "session": found.session,
        "from": found.before,
        "to": found.after,
        "files": [
            {
                "path": os.fsdecode(each.path),
                "status": each.status,
                "added": each.added,
                "removed": each.removed,
            }
            for each in found.files
        ],
        "truncated": found.cut,
        "not_compared": list(found.notes),
    }


def stat_text(found: Difference, paint: Paint) -> str:
    """A line for each file that differs."""
    from sessionctl.git import quoted

    width = max(len(str(each.added if each.added is not None else "-")) for each in found.files)
    less = max(len(str(each.removed if each.removed is not None else "-")) for each in found.files)
    lines = []
    for each in found.files:
        added, removed = ("-" if count is None else str(count) for count in (each.added, each.removed))
        counts = f"{paint('green', f'+{added:<{width}}')} {paint('red', f'-{removed:<{less}}')}"
        lines.append(f"{each.status} {counts}  {quoted(each.path)}")
    return "\n".join(lines)


_PATCH_COLOURS = (("+++", "bold"), ("---", "bold"), ("+", "green"), ("-", "red"), ("@@", "yellow"), ("diff ", "bold"))


def patch_text(found: Difference, paint: Paint) -> str:
    """The patch, with nothing in it that could steer a terminal."""
    lines = found.patch.decode("utf-8", "backslashreplace").removesuffix("\n").split("\n")
    return "\n".join(
        paint(next((colour for start, colour in _PATCH_COLOURS if line.startswith(start)), ""), safe_block(line))
        for line in lines
    )


def output_data(output: Output) -> dict[str, Any]:
    """The JSON form of what one command wrote."""
    fields = output._asdict()
    del fields["rowid"], fields["code"]
    return {**fields, "time": moment(output.time), "argv": list(output.argv), "exit_code": output.code}


def output_lines(output: Output, paint: Paint) -> Iterator[str]:
    """What one command wrote, after a line that says which and how it ended."""
    import shlex

    words = printable(shlex.join(output.argv))
    words = words if len(words) < 80 else f"{words[:77]}..."
    yield paint("dim", f"== {moment(output.time)}  {output.id}  {output.event}  [{output.code}] {words}")
    for text in (output.stdout, output.stderr):
        if text:
            yield from plain(text).removesuffix("\n").split("\n")


class Progress:
    """A bar on a terminal while a plan is carried out; nothing anywhere else."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._total, self._done, self._stream = total, 0, stream or sys.stderr
        self._on = self._stream.isatty() and os.environ.get("TERM") != "dumb" and total > 0

    def __call__(self, lane: Lane, action: Any, result: str) -> None:
        if result != "begun":
            self._done += 1
        self.say(f"{lane.session}: {action.verb}")

    def say(self, text: str) -> None:
        """Shows `text` behind the bar."""
        if self._on:
            full = 20 * self._done // self._total
            self._stream.write(
                f"\r\x1b[2K[{'#' * full}{'.' * (20 - full)}] {self._done}/{self._total} {printable(text)[:50]}"
            )
            self._stream.flush()

    def announce(self, text: str) -> None:
        """Says `text`, where there is no bar as well."""
        if self._on:
            self.say(text)
        else:
            self._stream.write(f"{text}\n")
            self._stream.flush()

    def close(self) -> None:
        if self._on:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()


# --- JSON --------------------------------------------------------------------------------------


def images_data(uses: Sequence[Use]) -> list[dict[str, Any]]:
    """The JSON form of images."""
    return [{**_image_data(each.image), "size": each.size, "users": list(each.users)} for each in uses]


def garbage_data(found: Garbage) -> dict[str, Any]:
    """The JSON form of what `gc` would remove."""
    return {
        "images": [_image_data(image) for image in found.images],
        "layers": list(found.layers),
        "snapshots": [
            {"id": each.id, "session": each.session, "size": each.size, "reason": each.why} for each in found.snapshots
        ],
        "bases": list(found.bases),
        "size": found.size,
        "kept": found.kept or None,
    }


def _image_data(image: Kept) -> dict[str, Any]:
    return {
        "digest": image.digest,
        "source": image.source,
        "layers": list(image.layers),
        "env": sorted(image.config.env),
        "user": image.config.user or None,
        "directory": image.config.directory or None,
        "made_at": moment(image.made_at),
    }


def moment(seconds: float | None) -> str | None:
    """Unix time as RFC 3339 in UTC, to the millisecond."""
    if seconds is None:
        return None
    import time

    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def disk_text(disk: Disk, paint: Paint) -> str:
    """A table of what sessions take on the disk, and what they share."""
    rows = [
        (
            (each.session, "bold"),
            *((size(part), "") for part in each[1:6]),
            (f"{'' if each.whole else 'at least '}{size(each.total)}", ""),
        )
        for each in disk.sessions
    ]
    heads = ("NAME", "WORKSPACE", "HOME", "SANDBOX", "SNAPSHOTS", "TRASH", "TOTAL")
    total = sum(each.total for each in disk.sessions) + disk.bases + disk.images
    shared = f"base layers {size(disk.bases)}, images {size(disk.images)}"
    return f"{table(heads, rows, paint)}\nshared, and counted once: {shared}\nin all: {size(total)}"


def disk_data(disk: Disk) -> dict[str, Any]:
    """The JSON form of the same; its shape is described in docs/json.md."""
    sessions = [
        {
            "name": each.session,
            "workspace": each.workspace,
            "home": each.home,
            "sandbox": each.sandbox,
            "snapshots": each.snapshots,
            "trash": each.trash,
            "whole": each.whole,
        }
        for each in disk.sessions
    ]
    return {"sessions": sessions, "shared": {"bases": disk.bases, "images": disk.images}}


def tree_text(sessions: Sequence[Session], paint: Paint) -> str:
    """Which session was made as a copy of which, one a line; those that are not listed are no parents."""
    names = {each.name for each in sessions}
    children: dict[str, list[Session]] = {}
    for each in sessions:
        parent = str(each.data.get("parent") or "")
        children.setdefault(parent if parent in names and parent != each.name else "", []).append(each)
    lines: list[str] = []
    shown: set[str] = set()

    def below(parent: str, indent: str) -> None:
        for number, each in enumerate(children.get(parent, ()), start=1):
            if each.name in shown:
                continue  # a declaration may lead in a circle
            shown.add(each.name)
            last = number == len(children[parent])
            branch = (indent + ("└─ " if last else "├─ ")) if parent else ""
            origin = str(each.data.get("parent") or "")
            from_ = f"  (from {printable(origin)}, which is not here)" if not parent and origin else ""
            status = "not made" if each.status == "gone" and each.record is None else each.status
            lines.append(f"{branch}{paint('bold', each.name)}  {status}  {_branch(each.git)}{from_}")
            below(each.name, indent + ("   " if last else "│  ") if parent else " ")

    below("", "")
    for each in sessions:
        if each.name not in shown:
            children.setdefault("", []).append(each)
            shown.add(each.name)
            lines.append(f"{paint('bold', each.name)}  {each.status}  {_branch(each.git)}")
            below(each.name, " ")
    return "\n".join(lines)


def as_json(data: Mapping[str, Any] | Sequence[Any]) -> str:
    """One JSON document; what is no valid Unicode (names an agent chose) is escaped."""
    return json.dumps(data, indent=2, ensure_ascii=True)
