"""Sessions: the table of many, all of one, and which was made of which."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sessionctl.model import ISOLATES, host_path, kind_of
from sessionctl.render.events import event_text
from sessionctl.render.states import branch_of, distance_of, git_data, tree_of
from sessionctl.render.text import Paint, moment, printable, table
from sessionctl.units import duration

if TYPE_CHECKING:
    from sessionctl.app.looking import Session
    from sessionctl.store import Entry


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
                (branch_of(s.git), "red" if s.git.error else ""),
                ((s.git.commit or "")[:10] or "-", ""),
                (tree_of(s.git), "yellow" if s.git.dirty else ""),
                (distance_of(s.git), ""),
                (
                    f"{duration(max(0, now - s.record.last_active))} ago" if s.record and s.record.last_active else "-",
                    "dim",
                ),
                (", ".join(printable(note) for note in notes if note), "dim"),
            )
        )
    heads = ("NAME", "STATUS", "AGENT", "BRANCH", "COMMIT", "TREE", "COMMITS", "USED", "")
    return table(heads, rows, paint)


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
    lines.append(("branch", f"{branch_of(state)} {(state.commit or '')[:12]}".rstrip()))
    if state.error:
        lines.append(("", paint("red", printable(state.error))))
    if record and record.base:
        lines.append(("base", f"{data.get('workspace', {}).get('base') or 'HEAD'}, pinned at {record.base[:12]}"))
    lines.append(("commits", distance_of(state)))
    looked = f", looked at {moment(state.dirty_at)}" if state.dirty_at else ""
    lines.append(("tree", tree_of(state) + looked))
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
            lines.append(f"{branch}{paint('bold', each.name)}  {status}  {branch_of(each.git)}{from_}")
            below(each.name, indent + ("   " if last else "│  ") if parent else " ")

    below("", "")
    for each in sessions:
        if each.name not in shown:
            children.setdefault("", []).append(each)
            shown.add(each.name)
            lines.append(f"{paint('bold', each.name)}  {each.status}  {branch_of(each.git)}")
            below(each.name, " ")
    return "\n".join(lines)
