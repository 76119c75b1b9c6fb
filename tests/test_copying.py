"""`cp`: files out of sessions and into them, and nothing else of the host on the way."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessionctl import Project, copying, keeping, unpacking
from sessionctl.copying import Place
from sessionctl.errors import SessionctlError, UsageError
from sessionctl.packing import Source
from sessionctl.streaming import fed
from tests.command import Repository

LINK = "secret-of-the-host"


@pytest.fixture
def api(repository: Repository) -> Repository:
    """A repository with a session that runs."""
    repository.declare("[sessions.api]\n")
    repository.apply()
    return repository


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to copy to."""
    place = tmp_path / "here"
    place.mkdir()
    return place


def tree(root: Path) -> dict[str, str]:
    """What is below `root`: contents of files, targets of links, nothing of directories."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(directory, name)
            text = "" if path.is_dir() or path.is_symlink() else path.read_text(errors="backslashreplace")
            found[str(path.relative_to(root))] = f"-> {path.readlink()}" if path.is_symlink() else text
    return found


# --- which file is meant -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("api:", "/workspace"),
        ("api:a/b", "/workspace/a/b"),
        ("api:/workspace/../etc/passwd", "/etc/passwd"),
        ("api:../../x", "/x"),
        ("api:~", "/home/agent"),
        ("api:~/x", "/home/agent/x"),
        ("api://workspace//x/", "/workspace/x"),
        ("./api:x", None),
        ("a/b:c", None),
        ("API:x", None),
        ("file", None),
    ],
)
def test_a_place_in_a_session_is_a_name_and_a_path(text: str, path: str | None) -> None:
    place = Place.parse(text)
    assert (place.path if place else None) == path


NONSENSE = [
    (("a.txt", "b.txt"), "one of the two must be in a session"),
    (("api:a.txt", "api:b.txt"), "one of the two must be in a session"),
    (("nope:a.txt", "x"), "there is no session nope"),
    (("api:/etc/passwd", "x"), "neither in the workspace"),
    (("api:../etc/passwd", "x"), "neither in the workspace"),
    (("a.txt", "api:/tmp/x"), "neither in the workspace"),
    (("api:none", "x"), "there is nothing"),
    (("none", "api:"), "cannot be read"),
    (("api:src", "-"), "is a directory"),
    (("api:a.txt", "none/"), "is not a directory"),
    (("api:a.txt", "none/x"), "is not a directory"),
    (("a.txt", "api:none/x"), "/workspace/none is not a directory"),
    (("-", "api:src"), "is a directory"),
    (("a.txt", "api:a.txt/x"), "is not a directory"),
    (("src", "api:a.txt"), "is no directory"),
    (("api:src", "a.txt"), "is no directory"),
]


def test_what_makes_no_sense_is_said_and_does_nothing(api: Repository) -> None:
    before = tree(api.root)
    for words, said in NONSENSE:
        assert said in api.run("cp", *words, code=2).err, words
    assert tree(api.root) == before
    assert api.inside("api", "git status --porcelain").out == ""


def test_a_directory_of_the_host_that_is_mounted_is_not_the_sessions(repository: Repository, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "x").write_text("x")
    for path in (tmp_path, shared):
        path.chmod(0o755)
    repository.declare(f'[sessions.api]\nmounts = [{{ source = "{shared}", path = "/workspace/data" }}]\n')
    repository.apply("--allow-host")
    assert f"{shared}/x of the host" in repository.run("cp", "api:data/x", "-", code=2).err
    said = repository.run("cp", "api:", str(tmp_path / "all"))
    assert f"left out: /workspace/data: {shared} of the host" in said.err
    assert "data/x" not in tree(tmp_path / "all")


# --- out ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_files_and_directories_come_out(api: Repository, here: Path, state: str) -> None:
    api.inside(
        "api", "printf made >new; mkdir -p d/e; printf deep >d/e/f; ln -s e/f d/l; rm src/main.py; printf h >~/h"
    )
    if state == "stopped":
        api.run("stop", "api")
    api.run("cp", "api:new", str(here))
    api.run("cp", "api:a.txt", str(here / "renamed"))
    api.run("cp", "api:d", str(here))
    api.run("cp", "api:d", str(here / "other"))
    api.run("cp", "api:d/.", str(here))
    api.run("cp", "api:~/h", str(here))
    below = {"e": "", "e/f": "deep", "l": "-> e/f"}
    assert tree(here) == {
        "new": "made",
        "renamed": "a\n",
        "h": "h",
        "d": "",
        "other": "",
        **below,
        **{f"{name}/{path}": text for name in ("d", "other") for path, text in below.items()},
    }
    assert api.run("cp", "api:d/l", "-").out == "deep"
    assert api.run("cp", "api:src/main.py", "x", code=2).err.count("there is nothing") == 1


def test_what_comes_out_is_the_callers_without_setuid(api: Repository, here: Path) -> None:
    api.inside("api", "mkdir d; echo x >d/x; chmod 6755 d/x; chmod 2777 d; echo y >d/y; chmod 600 d/y")
    before = os.umask(0o027)
    try:
        api.run("cp", "api:d", str(here))
    finally:
        os.umask(before)
    found = {path.name: path.stat() for path in (here / "d", here / "d" / "x", here / "d" / "y")}
    assert {name: stat.S_IMODE(info.st_mode) for name, info in found.items()} == {"d": 0o750, "x": 0o750, "y": 0o600}
    assert {info.st_uid for info in found.values()} == {os.geteuid()}


def test_an_existing_file_is_replaced_and_a_directory_merged(api: Repository, here: Path) -> None:
    api.inside("api", "mkdir -p d/e; printf new >d/e/f; printf more >d/g")
    (here / "d" / "e").mkdir(parents=True)
    (here / "d" / "e" / "f").write_text("old")
    (here / "d" / "mine").write_text("stays")
    held = os.stat(here / "d" / "e" / "f").st_ino
    api.run("cp", "api:d", str(here))
    assert tree(here / "d") == {"e": "", "e/f": "new", "g": "more", "mine": "stays"}
    assert os.stat(here / "d" / "e" / "f").st_ino != held  # replaced, not written into


def test_what_cannot_be_merged_leaves_all_as_it_was(api: Repository, here: Path) -> None:
    api.inside("api", "mkdir -p d/a d/z; printf 1 >d/a/f; printf 2 >d/z/f")
    (here / "d" / "z" / "f").mkdir(parents=True)
    before = tree(here)
    assert "d/z/f is a directory" in api.run("cp", "api:d", str(here), code=2).err
    (here / "d" / "z" / "f").rmdir()
    (here / "d" / "z").rmdir()
    (here / "elsewhere").mkdir()
    (here / "d" / "z").symlink_to("../elsewhere")
    assert "d/z is there and is no directory" in api.run("cp", "api:d", str(here), code=2).err
    assert tree(here) == {"d": "", "d/z": "-> ../elsewhere", "elsewhere": ""} != before


def test_a_link_here_is_replaced_and_not_written_through(api: Repository, here: Path) -> None:
    (here / "victim").write_text("safe")
    (here / "a.txt").symlink_to("victim")
    api.run("cp", "api:a.txt", str(here / "a.txt"))
    assert tree(here) == {"victim": "safe", "a.txt": "a\n"}


@pytest.mark.parametrize("what", ["pipe", "/dev/null"])
def test_a_device_or_a_pipe_here_is_not_replaced(api: Repository, here: Path, what: str) -> None:
    os.mkfifo(here / "pipe")
    assert "is no regular file" in api.run("cp", "api:a.txt", str(here / what), code=2).err
    assert stat.S_ISFIFO((here / "pipe").stat().st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_an_exact_copy_goes_to_standard_output(api: Repository) -> None:
    api.inside("api", "head -c 3000000 /dev/urandom >noise; sha256sum <noise >sum")
    done = subprocess.run(
        [sys.executable, "-m", "sessionctl", "cp", "api:noise", "-"], cwd=api.root, capture_output=True, check=True
    )
    from hashlib import sha256

    assert api.run("cp", "api:sum", "-").out.split()[0] == sha256(done.stdout).hexdigest()


def test_holes_stay_holes(api: Repository, here: Path) -> None:
    api.inside("api", "truncate -s 300M hole; printf end >>hole")
    api.run("cp", "api:hole", str(here))
    info = (here / "hole").stat()
    assert info.st_size == (300 << 20) + 3
    assert info.st_blocks * 512 < 4 << 20


def test_too_much_is_refused_and_leaves_nothing(api: Repository, here: Path) -> None:
    api.inside("api", "truncate -s 20G big; mkdir d; truncate -s 2M d/x; truncate -s 2M d/y")
    assert "has 20 GiB, more than 10 GiB" in api.run("cp", "api:big", str(here), code=1).err
    said = api.run("cp", "--max-size", "3MiB", "api:d", str(here), code=1).err
    assert "more than 3.0 MiB" in said and "--max-size" in said
    assert tree(here) == {}
    api.run("cp", "--max-size", "5MiB", "api:d", str(here))
    assert "is not a size" in api.run("cp", "--max-size", "3", "api:d", str(here), code=2).err


# --- what is hostile ---------------------------------------------------------------------------


def test_links_that_lead_out_are_left_out(api: Repository, here: Path) -> None:
    api.inside(
        "api",
        "mkdir -p d/e; printf x >d/x; cd d; ln -s /etc/passwd abs; ln -s ../../x up; ln -s ../x e/in; ln -s e dir\n"
        "ln -s dir/../../x by; ln -s e/../../.. trick; ln -s . self",
    )
    said = api.run("cp", "api:d", str(here)).err
    assert tree(here / "d") == {"e": "", "x": "x", "e/in": "-> ../x", "dir": "-> e", "self": "-> ."}
    assert sorted(line.split(": ")[1] for line in said.splitlines()) == ["abs", "by", "trick", "up"]
    assert "leads out, to /etc/passwd" in api.run("cp", "api:d/abs", "-", code=2).err


def test_pipes_sockets_and_devices_are_left_out_and_never_waited_for(api: Repository, here: Path) -> None:
    api.inside(
        "api",
        "mkdir d; cd d; mkfifo pipe; printf x >x\n"
        "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")' || :",
    )
    said = api.run("cp", "api:d", str(here)).err
    assert tree(here) == {"d": "", "d/x": "x"}
    assert "pipe: a pipe is not copied" in said
    assert "neither a file nor a directory" in api.run("cp", "api:d/pipe", "-", code=2).err
    os.mkfifo(here / "mine")
    assert "neither a file nor a directory" in api.run("cp", str(here / "mine"), "api:x", code=2).err
    said = api.run("cp", str(here), "api:x").err
    assert "left out: mine" in said
    assert api.inside("api", "find x").out.split() == ["x", "x/d", "x/d/x"]


def test_the_agents_repository_does_not_come_along(api: Repository, here: Path) -> None:
    api.inside("api", 'git config core.fsmonitor "touch /tmp/ran"; git init -q sub; printf x >sub/x')
    said = api.run("cp", "api:", str(here)).err
    assert not [path for path in tree(here) if ".git" in path.split("/")]
    assert tree(here)["workspace/sub/x"] == "x"
    assert said.count("the agent's repository") == 2
    assert "the agent's repository" in api.run("cp", "api:.git", str(here), code=2).err
    assert "fsmonitor" in api.run("cp", "api:.git/config", "-").out


def test_a_directory_swapped_for_a_link_meanwhile_leads_nowhere(api: Repository, here: Path, tmp_path: Path) -> None:
    """However the race ends, nothing of the host comes out."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for path in (tmp_path, outside):
        path.chmod(0o755)
    (outside / "f").write_text(LINK)
    swap = (
        "mkdir -p d/s; echo mine >d/s/f\n"
        f'while [ ! -e stop ]; do mv -T d/s t && ln -s "{outside}" d/s && rm d/s && mv -T t d/s; done; touch stopped'
    )
    with subprocess.Popen([sys.executable, "-m", "sessionctl", "exec", "api", "--", "sh", "-c", swap], cwd=api.root):
        api.inside("api", "until [ -e d ]; do :; done")
        try:
            kinds = set()
            for number in range(12):
                said = api.run("cp", "api:d", str(here / str(number)), code=None)
                kinds.add(said.code)
                said = api.run("cp", "api:d/s/f", str(here / f"file{number}"), code=None)
                kinds.add(said.code)
        finally:
            api.inside("api", "touch stop")
    assert kinds <= {0, 1, 2}
    assert {text for text in tree(here).values() if text} <= {"mine\n"}


def test_names_that_steer_a_terminal_are_shown_as_what_they_are(api: Repository, here: Path) -> None:
    api.inside("api", "mkdir d; mkfifo \"$(printf 'd/p\\033[31m\\n')\"; printf x >\"$(printf 'd/\\377')\"")
    said = api.run("cp", "api:d", str(here))
    assert "\x1b" not in said.err and "\\033[31m" in said.err
    assert os.listdir(os.fsencode(here / "d")) == [b"\xff"]


def test_a_directory_without_end_does_not_come_out(
    api: Repository, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sessionctl.app import Project

    monkeypatch.chdir(api.root)
    monkeypatch.setattr(unpacking, "MOST_FILES", 100)
    api.inside("api", "mkdir d; cd d; for i in $(seq 200); do : >$i; done")
    with pytest.raises(SessionctlError, match="more than 100 files"):
        Project().copy("api:d", str(here / "d"))
    assert tree(here) == {}


def test_what_a_copy_that_was_killed_left_goes_with_the_next_one(api: Repository, here: Path) -> None:
    api.inside("api", "mkdir d; printf x >d/x; truncate -s 4G d/y; truncate -s 1G d/z")
    words = [sys.executable, "-m", "sessionctl", "cp", "api:d", str(here)]
    with subprocess.Popen(words, cwd=api.root, stderr=subprocess.DEVNULL) as child:
        while not list(here.glob(".sessionctl-*/x/*")):
            assert child.poll() is None
        # One that is at work is left alone.
        api.run("cp", "api:a.txt", str(here))
        assert len(list(here.glob(".sessionctl-*"))) == 1 and child.poll() is None
        child.kill()
    assert len(list(here.glob(".sessionctl-*"))) == 1
    (here / ".sessionctl-mine").mkdir()
    (here / ".sessionctl-0123456789abcdef").symlink_to(api.root)
    api.run("cp", "api:src", str(here))
    assert sorted(os.listdir(here)) == [".sessionctl-0123456789abcdef", ".sessionctl-mine", "a.txt", "src"]
    assert (api.root / "a.txt").exists()


def test_what_cannot_be_read_leaves_nothing(api: Repository, here: Path) -> None:
    api.inside("api", "mkdir d; echo x >d/a; echo y >d/b; chmod 0 d/b")
    said = api.run("cp", "api:d", str(here), code=1).err
    assert "nothing was copied" in said and "d/b" in said.replace("./b", "d/b")
    assert tree(here) == {}


# --- archives that nobody sent -----------------------------------------------------------------


def archive(*entries: tuple[str, bytes, str]) -> io.BytesIO:
    """A tar archive of (name, type, content or target)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as made:
        for name, kind, text in entries:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            if kind == tarfile.REGTYPE:
                entry.size = len(text)
            else:
                entry.linkname = text
            made.addfile(entry, io.BytesIO(text.encode()))
    return io.BytesIO(out.getvalue())


@pytest.mark.parametrize(
    "entries",
    [
        [("./", tarfile.DIRTYPE, ""), ("../x", tarfile.REGTYPE, "x")],
        [("./", tarfile.DIRTYPE, ""), ("/x", tarfile.REGTYPE, "x")],
        [("./", tarfile.DIRTYPE, ""), ("./a", tarfile.SYMTYPE, "b"), ("./a/x", tarfile.REGTYPE, "x")],
        [("./", tarfile.DIRTYPE, ""), ("./a", tarfile.REGTYPE, "1"), ("./a", tarfile.REGTYPE, "2")],
        [("./x", tarfile.REGTYPE, "x")],
        [],
    ],
)
def test_an_archive_that_leads_elsewhere_is_refused(here: Path, entries: list[tuple[str, bytes, str]]) -> None:
    (here / "x").write_text("safe")
    with pytest.raises((SessionctlError, OSError)):
        unpacking.receive(
            archive(*entries), "directory", str(here / "d"), most=1 << 20, on=lambda n: None, finish=lambda: ()
        )
    assert tree(here) == {"x": "safe"}


@pytest.mark.parametrize("names", [["x", "y"], ["d/x"], []], ids=len)
def test_an_archive_of_more_or_less_than_a_file_is_none_of_a_file(here: Path, names: list[str]) -> None:
    made = archive(*((name, tarfile.REGTYPE, "x") for name in names))
    with pytest.raises(SessionctlError, match="no archive of what was asked for"):
        unpacking.receive(made, "file", str(here / "f"), most=1 << 20, on=lambda n: None, finish=lambda: ())
    assert tree(here) == {}


def test_an_archive_cut_short_leaves_nothing(here: Path) -> None:
    whole = archive(("./", tarfile.DIRTYPE, ""), ("./x", tarfile.REGTYPE, "x" * 2000)).getvalue()
    with pytest.raises(SessionctlError, match="no whole archive"):
        unpacking.receive(
            io.BytesIO(whole[:2000]),
            "directory",
            str(here / "d"),
            most=1 << 20,
            on=lambda n: None,
            finish=lambda: (),
        )
    assert tree(here) == {}


# --- in ----------------------------------------------------------------------------------------


@pytest.fixture
def mine(here: Path) -> Iterator[Path]:
    """A tree of the user's."""
    root = here / "mine"
    (root / "e").mkdir(parents=True)
    (root / "e" / "f").write_text("deep")
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o6755)
    (root / "l").symlink_to("e/f")
    yield root


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_files_and_directories_go_in_as_the_sessions_own(api: Repository, mine: Path, state: str) -> None:
    if state == "stopped":
        api.run("stop", "api")
    api.run("cp", str(mine), "api:")
    api.run("cp", str(mine), "api:~/other")
    api.run("cp", f"{mine}/.", "api:src")
    api.run("cp", str(mine / "run"), "api:src/main.py")
    assert api.run("cp", "-", "api:~/in", stdin="from here").code == 0
    assert api.session("api")["observed"] == state
    if state == "stopped":
        api.run("start", "api")
    script = "cat src/main.py src/e/f mine/l ~/other/e/f ~/in; find . ~ -not -user agent; ls -l mine/run; ls -A . ~"
    said = api.inside("api", script).out
    assert said.startswith("#!/bin/sh\ndeepdeepdeepfrom here-rwxr-xr-x 1 agent agent")
    assert ".sessionctl" not in said


def test_going_in_merges_and_replaces_as_cp_does(api: Repository, mine: Path) -> None:
    api.inside("api", "mkdir -p mine/e; printf old >mine/e/f; printf stays >mine/x; printf v >v; ln -s v link")
    api.run("cp", str(mine), "api:")
    api.run("cp", str(mine / "e" / "f"), "api:link")
    assert api.inside("api", "cat mine/e/f mine/x v link").out == "deepstaysvdeep"
    api.inside("api", "rm mine/e/f; mkdir mine/e/f")
    (mine / "run").write_text("changed")
    (mine / "l").unlink()
    assert "mine/e/f is there, and is not of the same kind" in api.run("cp", str(mine), "api:", code=2).err
    assert api.inside("api", "cat mine/run; ls -A mine").out.startswith("#!/bin/sh\n")
    api.inside("api", "mkfifo pipe")
    assert "pipe is no regular file, and is not replaced" in api.run("cp", str(mine / "run"), "api:pipe", code=2).err
    api.inside("api", "test -p pipe")


def test_a_copy_in_that_was_killed_leaves_nothing_and_one_cut_short_takes_no_place(api: Repository, mine: Path) -> None:
    with open(mine / "big", "wb") as file:
        file.truncate(300 << 20)
    work = api.state / "sessions" / "api" / "work" / "upper"
    words = [sys.executable, "-m", "sessionctl", "cp", str(mine), "api:"]
    with subprocess.Popen(words, cwd=api.root, stderr=subprocess.DEVNULL) as child:
        while not list(work.glob(".sessionctl-*/x")):
            assert child.poll() is None
        child.kill()
    while list(work.glob(".sessionctl-*")):
        pass
    assert api.inside("api", "git status --porcelain").out == ""


def test_an_archive_that_ends_between_two_files_is_not_taken_for_a_whole_one(api: Repository, mine: Path) -> None:
    whole = b"".join(Source.of(str(mine), 1 << 20).archive(lambda count, total: None))
    target, _ = keeping.sandbox(Project(api.root)._sources.site(), "api")
    command = (
        Project(api.root)
        .backend("bubblewrap")
        .command(target, ("sh", "-c", copying._TAKE, "sh", "/workspace", "mine", "no", "directory", ".sessionctl-test"))
    )
    code, _, _ = fed(command, (piece for piece in [whole[: len(whole) - 1536]]))
    assert code != 0
    assert api.inside("api", "git status --porcelain").out == ""


def test_what_goes_in_is_noted(api: Repository, mine: Path) -> None:
    before = api.session("api")["last_active"]
    api.run("cp", str(mine), "api:d")
    (event,) = [each for each in log(api) if each["event"] == "cp"]
    assert (event["to"], event["files"], event["size"]) == ("/workspace/d", 3, 14)
    assert api.session("api")["last_active"] > before  # it is in use


def log(repository: Repository) -> list[dict[str, object]]:
    import json

    return [json.loads(line) for line in repository.run("log", "api", "--json").out.splitlines()]


def test_an_agents_link_leads_what_goes_in_nowhere_on_the_host(api: Repository, mine: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for path in (tmp_path, outside):
        path.chmod(0o777)
    api.inside("api", f"mkdir -p /tmp{outside}; ln -s {outside} out; ln -s {outside} src/mine")
    assert api.run("cp", str(mine / "run"), "api:out/run", code=2).err.count("is not a directory") == 1
    api.run("cp", str(mine), "api:src", code=2)
    assert list(outside.iterdir()) == []


def test_too_much_does_not_go_in(api: Repository, mine: Path) -> None:
    assert "more than 1.0 KiB" in api.run("cp", "--max-size", "1KiB", "-", "api:x", stdin="x" * 3000, code=1).err
    with open(mine / "big", "wb") as file:
        file.truncate(1 << 20)
    assert "more than 64 KiB" in api.run("cp", "--max-size", "64KiB", str(mine), "api:x", code=1).err
    assert api.inside("api", "ls -A").out.split() == [".git", ".gitignore", "a.txt", "src"]


def test_a_session_in_the_users_own_checkout(repository: Repository, here: Path) -> None:
    if not os.geteuid():
        pytest.skip("root's sandboxes cannot write root's checkout")
    repository.declare('[sessions.api]\nworkspace = { mode = "bind" }\n[sessions.seen]\nworkspace.visible = true\n')
    repository.apply("--allow-host")
    repository.run("cp", "api:a.txt", str(here))
    repository.run("cp", "seen:a.txt", str(here / "b.txt"))
    repository.run("cp", str(here / "a.txt"), "seen:made")
    assert repository.run("cp", "seen:made", "-").out == "a\n"
    assert tree(here) == {"a.txt": "a\n", "b.txt": "a\n"}


def test_a_place_here_that_is_no_place() -> None:
    with pytest.raises(UsageError, match="is not a directory"):
        unpacking.receive(archive(), "file", "/nonexistent/x", most=1, on=lambda n: None, finish=lambda: ())
