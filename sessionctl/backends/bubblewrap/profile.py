"""What a sandbox consists of: bwrap's arguments as plain data.

A word that is bytes stands for the number of a descriptor that holds these bytes: whoever runs
bwrap makes the descriptor. Nothing secret may be among the words: any user of the host can read
them. This module may not do I/O; what it says depends on its arguments only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from sessionctl.backends import BESIDE
from sessionctl.backends.bubblewrap import elf, seccomp
from sessionctl.backends.bubblewrap.alive import INIT
from sessionctl.errors import BackendError
from sessionctl.model import HOME, WORKSPACE, MountSpec, Workspace, is_within

Word = str | bytes

UID = 1000
USER = "agent"
INTERNAL = "/.sessionctl"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_ISOLATION = (
    *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--disable-userns", "--cap-drop", "ALL", "--new-session", "--as-pid-1", "--clearenv"),
)
# Not --unshare-all: it goes on without a user namespace where there are none. As pid 1 bwrap's own
# reaper would show the host's bwrap in /proc/1/exe, to be chmod'ed by the agent if the user owns it.

_HOST_ETC = (
    *("alternatives", "ca-certificates", "crypto-policies", "ld.so.cache", "ld.so.conf", "ld.so.conf.d"),
    *("localtime", "pki", "ssl"),
)
_OVERLAY_OPTIONS = 3900
# mount(2) cuts the options of a file system at 4,096 bytes without a word: a path cut short could be another one.


class Layout(NamedTuple):
    """How the host's root directory reaches its programs, which live in /usr."""

    links: tuple[tuple[str, str], ...]
    """Symbolic links of the root directory (merged /usr): target and path."""
    directories: tuple[str, ...]
    """Directories that stand beside /usr where it is not merged."""
    covered: tuple[str, ...] = ()
    """Files of /proc that tell of the user's keys, in whatever namespace they are read."""


class Root(NamedTuple):
    """A sandbox's file system where it is an image's: `upper` takes the writes over `lower`, bottom first."""

    lower: tuple[str, ...]
    upper: str
    scratch: str
    uid: int
    gid: int

    def moved(self, sources: Sequence[str]) -> Root:
        """The same as found where the n-th of `sources` is mounted (see `move`)."""
        return self._replace(
            lower=tuple(move(path, sources) for path in self.lower),
            upper=move(self.upper, sources),
            scratch=move(self.scratch, sources),
        )


def environment(home: str = HOME, user: str = USER) -> dict[str, str]:
    """What every program in a sandbox starts from."""
    return {"PATH": PATH, "HOME": home, "USER": user, "LOGNAME": user, "LANG": "C.UTF-8"}


def session(
    name: str,
    home: str,
    workspace: Workspace,
    layout: Layout,
    machine: str,
    program: Sequence[str] = (INIT,),
    *,
    given: Sequence[Word] = (),
    resolver: bytes | None = None,
    root: Root | None = None,
) -> list[Word]:
    """The sandbox of session `name`: `home` and `workspace` writable, all else read-only or its own.

    `given` mounts more of the host. With `resolver`, the content of its /etc/resolv.conf, it stays in the
    host's network; without, it has none. With `root`, that is its file system, and writable; its mount
    points must be there (see rooting.py).
    """
    return [
        *_ISOLATION,
        *_identity(root),
        *(["--unshare-net"] if resolver is None else []),
        *("--hostname", name),
        *("--seccomp", seccomp.program(machine, alone=root is not None)),
        *([*_image(layout), *_etc(name, resolver or b"")] if root is None else _stacked(root)),
        *_kernel_mounts(layout, whole=root is None),
        *("--bind", home, HOME),
        *_workspace(workspace),
        *_mounts(workspace),
        *given,
        *("--perms", "0555", "--file", elf.executable(machine, "init"), INIT),
        *_sealed_root("/" if root is None else INTERNAL),
        *("--", *program),
    ]


def inspection(
    argv: Sequence[str], env: Mapping[str, str], seen: Sequence[Workspace], layout: Layout, machine: str
) -> list[Word]:
    """A sandbox that lives as long as `argv` runs in it and sees the workspaces `seen`, read-only.

    The first is at ``/workspace``; with lower layers, the lowest of it is at ``/.sessionctl/base`` too. A second
    is at ``/.sessionctl/beside``. The home is not there.
    A shell is pid 1: it tells 126, 127 and signals apart as shells do, and is a file of the host's
    /usr, seen read-only.
    """
    variables = {**environment("/tmp"), **env}
    workspace, *others = (_sealed(each) for each in seen)
    return [
        *_ISOLATION,
        *_identity(None),
        *("--unshare-net", "--die-with-parent"),
        *("--hostname", "inspection"),
        *("--seccomp", seccomp.program(machine)),
        *_image(layout),
        *_etc("inspection"),
        *_kernel_mounts(layout),
        *_read_only(workspace),
        *_mounts(workspace),
        *(word for other in others for word in _beside(other, {mount.path for mount in workspace.mounts})),
        *_sealed_root(),
        *(word for name, value in variables.items() for word in ("--setenv", name, value)),
        *("--", "/bin/sh", "-c", '"$@"; exit $?', "sessionctl", *argv),
    ]


_MAKING = """
umask 022
refuse() { echo "$path: $1" >&2; exit 1; }
for path; do
    cd /workspace || exit
    rest=${path#/workspace/}/
    while test -n "$rest"; do
        part=./${rest%%/*} rest=${rest#*/}
        test ! -L "$part" || refuse "a symbolic link is on the way"
        test -e "$part" || mkdir "$part" || exit
        test -d "$part" || refuse "$part is no directory"
        cd "$part" 2>/dev/null || refuse "$part cannot be entered"
    done
    held=$(ls -A) || exit
    test -z "$held" || refuse "it is not empty, and what it holds would be hidden"
done
"""


def making(paths: Sequence[str], workspace: Workspace, layout: Layout, machine: str) -> list[Word]:
    """A sandbox that makes the directories `paths` in the workspace and ends: to mount upon.

    Its code is 0 when all of them are there, are empty, and are reached without a link. A link of an
    agent's leads nowhere but into this sandbox, in which nothing of the agent's is run.
    """
    return [
        *_ISOLATION,
        *("--unshare-net", "--die-with-parent"),
        *("--hostname", "making"),
        *("--seccomp", seccomp.program(machine)),
        *_image(layout),
        *_etc("making"),
        *_kernel_mounts(layout),
        *_workspace(workspace),
        *_sealed_root(),
        *("--setenv", "PATH", PATH, "--", "/bin/sh", "-c", _MAKING, "sessionctl", *paths),
    ]


def given(mounts: Sequence[MountSpec], places: Sequence[int | str]) -> list[Word]:
    """Mounts of the host, the n-th by its descriptor or its path in the n-th of `places`."""
    words: list[Word] = []
    for mount, place in zip(mounts, places, strict=True):
        option = f"--{'ro-' if mount.mode == 'ro' else ''}bind{'-fd' if isinstance(place, int) else ''}"
        words += [option, str(place), mount.path]
    return words


def moved(workspace: Workspace, sources: Sequence[str]) -> Workspace:
    """`workspace` as it is found where the n-th of `sources` is mounted at ``/run/<n>`` (see launch.py)."""
    return workspace.moved(lambda path: move(path, sources))


def move(path: str, sources: Sequence[str]) -> str:
    """`path` below the first of `sources` that holds it, when that is mounted at ``/run/<n>``."""
    for number, source in enumerate(sources):
        if is_within(path, source):
            return f"/run/{number}{path[len(source) :]}"
    return path


def _image(layout: Layout) -> list[Word]:
    """The host's programs, and what of its /etc they need to work. Not its root: that holds homes and sockets."""
    return [
        *("--tmpfs", "/", "--ro-bind", "/usr", "/usr"),
        # Made for a file or a mount below them, they would be for the agent's uid only.
        *(word for path in ("/etc", "/home", "/var", INTERNAL) for word in ("--perms", "0755", "--dir", path)),
        *(word for target, path in layout.links for word in ("--symlink", target, path)),
        *(word for path in layout.directories for word in ("--ro-bind", path, path)),
        *(word for name in _HOST_ETC for word in ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")),
    ]


def _identity(root: Root | None) -> list[Word]:
    uid, gid = (UID, UID) if root is None else (root.uid, root.gid)
    return ["--uid", str(uid), "--gid", str(gid)]


POINTS = ("/proc", "/dev", "/tmp", INTERNAL, HOME, WORKSPACE)
"""Where something is always mounted in an image."""


def _stacked(root: Root) -> list[Word]:
    """An image's layers, and what no image can bring along. Files of ours only where nothing of it is: in our own
    directory, for links in it would lead bwrap, which follows them, into the host's file system."""
    _require_short([*root.lower, root.upper, root.scratch])
    return [
        *(*_sources(root.lower), "--overlay", root.upper, root.scratch, "/"),
        *("--perms", "0755", "--tmpfs", INTERNAL),
    ]


def _etc(name: str, resolver: bytes = b"") -> list[Word]:
    contents = {**etc(name), "resolv.conf": resolver}
    return [
        word for file, content in contents.items() for word in ("--perms", "0644", "--file", content, f"/etc/{file}")
    ]


def etc(name: str) -> dict[str, bytes]:
    """The files of /etc that say what the sandbox of session `name` is."""
    files = {
        "passwd": f"root:x:0:0:root:/:/usr/sbin/nologin\n{USER}:x:{UID}:{UID}:{name}:{HOME}:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
        "group": f"root:x:0:\n{USER}:x:{UID}:\nnogroup:x:65534:\n",
        "hostname": f"{name}\n",
        "hosts": f"127.0.0.1 localhost {name}\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        # A workspace's worktrees and borrowed objects lie outside: what is not seen must not be pruned.
        "gitconfig": f"[user]\n\tname = {name}\n\temail = {name}@sessionctl.invalid\n"
        f"[safe]\n\tdirectory = {WORKSPACE}\n[init]\n\tdefaultBranch = main\n"
        "[gc]\n\tauto = 0\n\tworktreePruneExpire = never\n",
    }
    return {file: text.encode() for file, text in files.items()}


def _kernel_mounts(layout: Layout, *, whole: bool = True) -> list[Word]:
    """What the kernel gives, and places for a moment's files; not `whole`: /var/tmp and /run are an image's."""
    return [
        *("--proc", "/proc", "--dev", "/dev"),
        *(word for path in layout.covered for word in ("--ro-bind-data", b"", path)),
        *("--perms", "1777", "--tmpfs", "/dev/shm", "--perms", "1777", "--tmpfs", "/tmp"),
        *(("--perms", "1777", "--tmpfs", "/var/tmp", "--perms", "0755", "--tmpfs", "/run") if whole else ()),
    ]


def _workspace(workspace: Workspace) -> list[Word]:
    if not workspace.lower:
        return ["--bind", workspace.upper, WORKSPACE]
    _require_short([*workspace.lower, workspace.upper, workspace.scratch])
    return [*_sources(workspace.lower), "--overlay", workspace.upper, workspace.scratch, WORKSPACE]


def _sealed(workspace: Workspace) -> Workspace:
    return workspace._replace(mounts=tuple(mount._replace(writable=False) for mount in workspace.mounts))


def _read_only(workspace: Workspace) -> list[Word]:
    base = ["--ro-bind", workspace.lower[0], f"{INTERNAL}/base"] if workspace.lower else []
    return [*_stack(workspace, WORKSPACE), *base]


def _stack(workspace: Workspace, path: str) -> list[Word]:
    if not workspace.lower:
        return ["--ro-bind", workspace.upper, path]
    layers = [*workspace.lower, workspace.upper]
    _require_short(layers)
    return [*_sources(layers), "--ro-overlay", path]


def _beside(workspace: Workspace, mounted: Collection[str]) -> list[Word]:
    """A second workspace, read-only. What it needs beside itself is there already where its path is in `mounted`."""
    moved = (
        mount._replace(path=f"{BESIDE}{mount.path.removeprefix(WORKSPACE)}")
        if mount.path.startswith(f"{WORKSPACE}/")
        else mount
        for mount in workspace.mounts
    )
    needed = tuple(mount for mount in moved if mount.path not in mounted)
    return [*_stack(workspace, BESIDE), *_mounts(workspace._replace(mounts=needed))]


def _sources(layers: Sequence[str]) -> list[Word]:
    return [word for layer in layers for word in ("--overlay-src", layer)]


def _require_short(paths: Sequence[str]) -> None:
    # bwrap puts "/oldroot" before each, and a backslash before what overlayfs would take for a separator.
    size = sum(len(path.encode()) + 9 + sum(path.count(special) for special in "\\:,") for path in paths)
    if size > _OVERLAY_OPTIONS:
        raise BackendError(
            f"the paths of {len(paths)} layers have {size} bytes, more than {_OVERLAY_OPTIONS}",
            hint="use a state directory with a shorter path",
        )


def _mounts(workspace: Workspace) -> list[Word]:
    options = {False: "--ro-bind", True: "--bind"}
    return [word for mount in workspace.mounts for word in (options[mount.writable], mount.source, mount.path)]


def _sealed_root(ours: str = "/") -> list[Word]:
    """What is left of `ours`, and /dev, read-only: an agent may put nothing at paths that we use ourselves."""
    return ["--remount-ro", ours, "--remount-ro", "/dev", "--chdir", "/"]
