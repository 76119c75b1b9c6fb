"""What the facts of a host mean for sandboxes, and what a person can do about it. Pure: no I/O.

A finding that is not ok keeps this backend from running. One that is ok and has a remedy is advice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sessionctl.backends import Finding
from sessionctl.backends.bubblewrap.facts import Facts, Kernel

_STRANGE = {"overlay": "an overlay itself", "aufs": "an overlay itself"}
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "afs")
_ELSEWHERE = "put the state directory on ext4, xfs, btrfs or tmpfs of this machine (--state-dir)"


def findings(facts: Facts) -> list[Finding]:
    """In the order in which to mend them: behind one that is not ok, what rests on it is left out."""
    found = []
    for finding in _each(facts):
        found.append(finding)
        if not finding.ok:
            break
    return found


def _each(facts: Facts) -> Iterator[Finding]:
    yield Finding(True, "bubblewrap", facts.bwrap + (f" (not {facts.passed_over})" if facts.passed_over else ""))
    if not facts.kernel.mapped:
        why = "this is root of a user namespace that lacks the user which root's sandboxes run as"
        yield Finding(False, "user namespaces", why, "run sessionctl as an ordinary user there, or outside of it")
    if facts.unwritable:
        remedy = "choose a state directory that you can write (--state-dir)"
        yield Finding(False, "state directory", f"nothing can be made in {facts.place}: {facts.unwritable}", remedy)
    if not facts.kernel.filters:
        remedy = "use a kernel that was built with CONFIG_SECCOMP_FILTER"
        yield Finding(False, "system call filter", "this kernel has none", remedy)
    if facts.isolation:
        causes = list(_forbidding(facts.kernel, facts.bwrap))
        why = "; ".join([facts.isolation, *(cause for cause, _ in causes)])
        remedy = "; ".join(dict.fromkeys(remedy for _, remedy in causes))
        otherwise = "in a container, allow it to make user namespaces and mounts; else use another backend"
        yield Finding(False, "user namespaces", why, remedy or otherwise)
    yield Finding(True, "user namespaces", "works")
    yield Finding(True, "system call filter", "works")
    if facts.overlay:
        yield Finding(False, "overlay file system", f"{facts.place}: {facts.overlay}{_strange(facts)}", _ELSEWHERE)
    yield Finding(True, "overlay file system", "works")
    if facts.entry:
        remedy = "in a container, allow it setns, pidfd_open and memfd_create; else use Linux 5.11 or later"
        yield Finding(False, "commands in sandboxes", facts.entry, remedy)
    if facts.entry is not None:
        yield Finding(True, "commands in sandboxes", "work")
    if "noexec" in facts.file_system.options:
        why = f"{facts.place} is mounted noexec: no program that a session builds can be run"
        yield Finding(True, "state directory", why, _ELSEWHERE)
    yield Finding(True, "limits", facts.limits)


def _forbidding(kernel: Kernel, bwrap: str) -> Iterator[tuple[str, str]]:
    """What on this host forbids sandboxes, and the remedy of each."""
    for name, value in kernel.settings.items():
        if name.startswith("user.max_") and value == "0":
            yield f"{name} is 0", f"sysctl {name}=15000"
    if kernel.settings.get("kernel.unprivileged_userns_clone") == "0":
        yield "kernel.unprivileged_userns_clone is 0", "sysctl kernel.unprivileged_userns_clone=1"
    if kernel.settings.get("kernel.apparmor_restrict_unprivileged_userns") == "1":
        yield (
            "AppArmor restricts user namespaces",
            f"an AppArmor profile with `userns,` for {bwrap}, or sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        )
    if kernel.powerful:
        yield (
            "this process has capabilities without being root, which bwrap refuses",
            "drop them: setpriv --inh-caps=-all",
        )
    if kernel.filtered:
        yield (
            "this process is under a system call filter already, as in a container",
            "start the container with one that allows unshare, setns, clone and mount"
            " (Docker: --security-opt seccomp=FILE)",
        )


def _strange(facts: Facts) -> str:
    """What is known to refuse overlays, as the end of a sentence."""
    kind = facts.file_system.kind
    if kind in _STRANGE:
        return f"; it lies on {_STRANGE[kind]} ({kind}), as the root of most containers does"
    if kind in _REMOTE or kind.startswith("fuse"):
        return f"; it lies on {kind}, which has no extended attributes for it"
    release = _version(facts.kernel.release)
    if release < (5, 11):
        return f"; users may mount overlays since Linux 5.11, and this is {facts.kernel.release}"
    if kind == "tmpfs" and release < (6, 6):
        return f"; on tmpfs that needs Linux 6.6, and this is {facts.kernel.release}"
    return f"; it lies on {kind}" if kind else ""


def _version(release: str) -> tuple[Any, ...]:
    return tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdecimal())
