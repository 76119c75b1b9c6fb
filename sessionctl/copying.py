"""Files out of sessions and into them.

Out: a tar archive is made in an inspection sandbox, which sees nothing of the host that an agent's link could lead
to, and runs nothing of the agent's; `unpacking` makes files of it. In: an archive of ours is unpacked by a shell
inside the session, as its own user, where a link of the agent's leads to the agent's files only. Of the host, only
what the caller named is opened here.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Self, cast

from sessionctl import keeping, unpacking
from sessionctl.errors import CommandError, SessionctlError, UsageError
from sessionctl.git import printable
from sessionctl.model import HOME, WORKSPACE, Observed, Workspace, is_name, is_within
from sessionctl.packing import Source, Watcher
from sessionctl.streaming import REFUSED, Sending, fed
from sessionctl.unpacking import Kind

if TYPE_CHECKING:
    from sessionctl.site import Site


def unheard(count: int, total: int) -> None:
    """The `Watcher` that tells nobody."""


MOST = 10 << 30
"""Bytes of one copy, unless more is asked for."""


class Place(NamedTuple):
    """A path in a session."""

    session: str
    path: str
    """Absolute, without ``.`` and ``..``."""
    contents: bool
    """Whether what is in it was meant: it ended in ``/.``."""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The place that ``NAME:PATH`` names; None when that is a path of the host.

        A relative path is one of the workspace, and ``~`` is the session's home.
        """
        name, colon, path = text.partition(":")
        if not colon or not is_name(name):
            return None
        if path == "~" or path.startswith("~/"):
            path = HOME + path[1:]
        whole = posixpath.normpath(posixpath.join(WORKSPACE, path))
        return cls(name, f"/{whole.lstrip('/')}", path.endswith("/.") or path == ".")

    @property
    def shown(self) -> str:
        return f"{self.session}:{self.path}"


class Copied(NamedTuple):
    """What was copied."""

    source: str
    target: str
    """Where it is now, its own name included."""
    files: int
    size: int
    """Bytes of content."""
    left_out: tuple[str, ...]
    """For people: what was not copied, and why."""


@contextmanager
def explained() -> Iterator[None]:
    """While it is entered, what the file system says is a `SessionctlError`; but for a reader who has gone."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{printable(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
        raise SessionctlError(f"nothing was copied: {where}{error.strerror}") from error


# --- out ---------------------------------------------------------------------------------------

# The first line says what it is and how much about; the archive follows.
_SEND = """
export LC_ALL=C
path=$(realpath -e -- "$1" 2>/dev/null) || { echo "there is nothing" >&2; exit 3; }
case $path in
"$2" | "$2"/*) ;;
*) echo "it is a link that leads out, to $path" >&2; exit 3 ;;
esac
if [ -d "$path" ]; then kind=directory; elif [ -f "$path" ]; then kind=file
else echo "it is neither a file nor a directory" >&2; exit 3; fi
size=$(du -sb -- "$path" 2>/dev/null | cut -f1)
echo "$kind ${size:-0}"
if [ $kind = directory ]; then cd -P -- "$path" && set -- .; else cd -P -- "${path%/*}" && set -- "./${path##*/}"; fi ||
    exit 3
exec tar --create --file=- --format=gnu --hard-dereference --numeric-owner --owner=0 --group=0 -- "$@"
"""


def out(site: Site, place: Place, local: str | int, *, most: int = MOST, on: Watcher = unheard) -> Copied:
    """Copies a file or a directory of a session, running or stopped, to `local`: a path, or a descriptor to write to.

    Files belong to the caller, without setuid and setgid bits; a directory that is there is copied into. What is
    neither file, directory nor a link within what is copied is left out, and said.
    """
    target, _ = keeping.sandbox(site, place.session)
    seen, path = _seen(site, target, place)
    command = site.backend(target.backend).command(
        target, ("sh", "-c", _SEND, "sh", path, WORKSPACE), inspect=True, seen=(seen,)
    )
    with Sending(command) as stream:
        kind, about = _head(stream, place)

        def told(count: int) -> None:
            on(count, about)

        if about > most and kind == "file":
            raise _too_large(place, about, most)
        if kind == "directory" and ".git" in place.path.split("/"):
            raise UsageError(
                f"{place.shown} is the agent's repository, whose configuration git here would follow",
                hint=f"its commits come by: sessionctl fetch {place.session}",
            )
        if isinstance(local, int):
            if kind == "directory":
                raise UsageError(f"{place.shown} is a directory: only a file can go to standard output")
            received = unpacking.stream_file(stream, local, most=most, on=told)
            received = received._replace(left_out=stream.finish())
            where = "-"
        else:
            where = _target(local, place, kind)
            _require_space(where, about)
            received = unpacking.receive(stream, kind, where, most=most, on=told, finish=stream.finish)
    hidden = _mounted_below(target, place)
    return Copied(place.shown, where, received.files, received.size, (*received.left_out, *hidden))


def _seen(site: Site, target: Observed, place: Place) -> tuple[Workspace, str]:
    """What an inspection must see of a session so that `place` is in it, and where it is there."""
    _require_own(target, place)
    if is_within(place.path, WORKSPACE):
        assert target.workspace is not None
        return target.workspace, place.path
    home = os.path.join(site.directory, "sessions", target.session, "home")
    return Workspace(home), WORKSPACE + place.path.removeprefix(HOME)


def _require_own(target: Observed, place: Place) -> None:
    """`UsageError` unless `place` is in the session's workspace or home, and not of the host's."""
    if target.workspace is None or target.made_of is None:
        raise UsageError(f"{place.session} has no whole sandbox", hint="run `sessionctl apply`")
    for mount in target.made_of.spec.mounts:
        if is_within(place.path, mount.path):
            real = mount.source + place.path.removeprefix(mount.path)
            raise UsageError(f"{place.shown} is {real} of the host, which is mounted there", hint="copy it there")
    if not is_within(place.path, WORKSPACE) and not is_within(place.path, HOME):
        raise UsageError(
            f"{place.shown} is neither in the workspace ({WORKSPACE}) nor in the home ({HOME})",
            hint=f"while it runs: sessionctl exec {place.session} -- cat {place.path}",
        )


def _mounted_below(target: Observed, place: Place) -> tuple[str, ...]:
    assert target.made_of is not None
    mounts = target.made_of.spec.mounts
    return tuple(
        f"{each.path}: {each.source} of the host, mounted there" for each in mounts if is_within(each.path, place.path)
    )


def _head(stream: Sending, place: Place) -> tuple[Kind, int]:
    line = stream.line()
    kind, _, about = line.partition(" ")
    if kind not in ("file", "directory") or not about.isdecimal():
        stream.finish(place.shown)
        raise CommandError(f"{place.shown} cannot be copied: what is inside answered nonsense")
    return cast("Kind", kind), int(about)


def _too_large(place: Place, about: int, most: int) -> SessionctlError:
    from sessionctl.units import size

    return SessionctlError(
        f"{place.shown} has {size(about)}, more than {size(most)}", hint="to copy it anyway, say --max-size"
    )


def _target(local: str, place: Place, kind: Kind) -> str:
    """Where a copy will be, as `cp` decides: in a directory that is there, under its own name, else just there."""
    if os.path.isdir(local):
        if kind == "directory" and place.contents:
            return os.path.realpath(local)
        return os.path.join(local, os.path.basename(place.path))
    if kind == "file" and local.endswith("/"):
        raise UsageError(f"{local} is not a directory", hint="make it first")
    return local.rstrip("/") or "/"


def _require_space(where: str, about: int) -> None:
    from sessionctl.units import size

    try:
        found = os.statvfs(os.path.dirname(where) or ".")
    except OSError:
        return  # what is wrong with it is said by who writes there
    free = found.f_bavail * found.f_frsize
    if about > free:
        raise SessionctlError(f"it has about {size(about)}, and {os.path.dirname(where) or '.'} has {size(free)} free")


# --- in ----------------------------------------------------------------------------------------

# Unpacked in a directory of its own beside its place, by the session's own programs, and moved when it is whole: the
# archive's last entry says so. When sessionctl is killed, so is this shell, and not the one that it waits for: that
# comes to the end of its input, and cleans up.
_TAKE = """
export LC_ALL=C
(
dest=$1 name=$2 contents=$3 kind=$4 temporary=$5
say() { echo "$1" >&2; exit 3; }
if [ -d "$dest" ]; then [ $contents = yes ] || dest=${dest%/}/$name; fi
case $dest in */*) parent=${dest%/*} ;; *) parent=. ;; esac
[ -d "$parent" ] || say "$parent is not a directory"
if [ $kind = file ]; then
    [ ! -d "$dest" ] || say "$dest is a directory, which a file cannot replace"
    [ ! -e "$dest" ] || [ -f "$dest" ] || say "$dest is no regular file, and is not replaced"
elif { [ -e "$dest" ] || [ -L "$dest" ]; } && [ ! -d "$dest" ]; then say "$dest is there and is no directory"
fi
t=$parent/$temporary
mkdir "$t" || exit
trap 'rm -rf "$t"' EXIT
trap 'exit 1' HUP INT TERM
tar -x -o -f - -C "$t" && [ -e "$t/whole" ] || exit
if [ -d "$dest" ]; then
    clash=$(cd "$t/x" && find . -exec sh -c '
        d=$1; shift
        for p; do
            if [ -d "$p" ] && [ ! -L "$p" ]; then
                if [ -L "$d/$p" ] || { [ -e "$d/$p" ] && [ ! -d "$d/$p" ]; }; then echo "$p"; fi
            elif [ -d "$d/$p" ]; then echo "$p"; fi
        done' sh "$dest" {} + | head -n 1)
    [ -z "$clash" ] || say "$dest/${clash#./} is there, and is not of the same kind"
    cd "$t/x" && find . -type d -exec sh -c 'd=$1; shift; for p; do mkdir -p "$d/$p" || exit; done' sh "$dest" {} + &&
        find . ! -type d -exec sh -c 'd=$1; shift; for p; do mv -f "$p" "$d/$p" || exit; done' sh "$dest" {} +
else
    mv -f "$t/x" "$dest"
fi || exit
echo "$dest"
)
exit $?
"""


def into(site: Site, local: str, place: Place, *, most: int = MOST, on: Watcher = unheard) -> Copied:
    """Copies a file or a directory of the host into a session that runs, where it belongs to the session's user.

    `local` may be ``-``, standard input. What a link below it leads to is not copied, the link is.
    """
    from sessionctl import beneath

    target, record = keeping.sandbox(site, place.session)
    _require_own(target, place)
    source = Source.standard_input(most) if local == "-" else Source.of(local, most)
    name = os.path.basename(os.path.abspath(local)) if local != "-" else ""
    if local == "-" and place.contents:
        raise UsageError(f"{place.shown}: standard input has no name", hint=f"name the file: {place.session}:FILE")
    contents = "yes" if source.kind == "directory" and os.path.basename(local) in (".", "..") else "no"
    argv = ("sh", "-c", _TAKE, "sh", place.path, name, contents, source.kind, beneath.temporary())
    command = site.backend(target.backend).command(target, argv)
    code, said, answer = fed(command, source.archive(on))
    complaints = [printable(each) for each in said.decode("utf-8", "backslashreplace").splitlines()]
    if code:
        why = complaints[-1] if complaints else f"exit code {code} inside"
        failed = UsageError if code == REFUSED else SessionctlError
        raise failed(f"{place.shown} cannot be written, and nothing was: {why}")
    where = printable(answer.decode("utf-8", "backslashreplace").strip()) or place.path
    with site.store.writing():
        if record is not None and not record.corrupt:
            site.store.save(record._replace(last_active=site.clock()))
        site.store.note(place.session, "cp", to=where, files=source.files, size=source.size)
    return Copied(local, f"{place.session}:{where}", source.files, source.size, tuple(source.left_out))
