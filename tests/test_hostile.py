"""What an agent plants in its workspace, and what becomes of it when sessionctl looks: nothing.

Every attack is planted by the agents of sessions in workspaces of more than one kind; then everything that can
be asked of these sessions on the host is asked. What would run on the host leaves a file `outside`,
which is not there in any sandbox. Where plain git on the host falls for an attack, that is shown
first: an attack that would not work anyway shows nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import unicodedata
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

from sessionctl.cli import main
from tests.command import Repository, git
from tests.hanging import soon

KINDS = {
    "layered": 'mode = "clone"',
    "seen": "visible = true",
    "over": 'mode = "overlay"',
    "bound": 'mode = "bind"',
}
"""A session of each kind of workspace that has files of git in it."""
EVERYWHERE = os.environ.get("SESSIONCTL_TEST_ATTACKS") == "all"
"""Whether each attack is planted in all of them, which takes minutes."""

OF_ALL = (["plan"], ["ls", "--json"], ["log"], ["verify"], ["apply", "--yes", "--allow-host"])
OF_ONE = (
    *(["status"], ["fetch"], ["diff"], ["diff", "--stat"], ["logs"], ["snapshot", "-m", "first"]),
    *(["stop"], ["status"], ["diff"], ["path"], ["snapshot"], ["start"]),
)
"""Verbs that are given a name. Some fail, as they should; none may run, write, wait or show what is hostile."""
AT_LAST = (["ls"], ["prune", "--dry-run", "--idle", "0s"], ["prune", "--yes", "--idle", "0s"], ["ls", "--all"])
"""When the sessions are not declared any more."""

LIMIT = 300
"""Seconds that all verbs together may take."""
SECRET = "what-only-the-host-may-read"


class Attack(NamedTuple):
    """A shell script that an agent runs in its workspace; ``$OUT`` is the directory outside."""

    plant: str
    host: str = ""
    """What falls for it on the host, in plain git; empty: nothing that is known."""


RUN = "touch $OUT/ran; cat"
FSMONITOR = 'printf "[core]\\n\\tfsmonitor = touch $OUT/ran; false\\n"'
DIRTY = "echo more >>a.txt; "

ATTACKS = {
    "fsmonitor": Attack('git config core.fsmonitor "touch $OUT/ran; false"', "git status"),
    "fsmonitor in an included file": Attack(f"{FSMONITOR} >evil; git config include.path ../evil", "git status"),
    "fsmonitor in config.worktree": Attack(
        f"git config extensions.worktreeConfig true; {FSMONITOR} >.git/config.worktree", "git status"
    ),
    "filter that cleans": Attack(
        f'{DIRTY} git config filter.x.clean "{RUN}"; echo "* filter=x" >.gitattributes', "git add -A"
    ),
    "filter that smudges": Attack(
        f'git config filter.x.smudge "{RUN}"; echo "* filter=x" >.gitattributes', "rm a.txt; git checkout a.txt"
    ),
    "filter process": Attack(
        f'{DIRTY} git config filter.x.process "touch $OUT/ran"; echo "* filter=x" >.gitattributes', "git add -A || :"
    ),
    "filter by info/attributes": Attack(
        f'{DIRTY} git config filter.x.clean "{RUN}"; echo "* filter=x" >.git/info/attributes', "git add -A"
    ),
    "textconv": Attack(
        f'{DIRTY} git config diff.x.textconv "touch $OUT/ran; cat"; echo "* diff=x" >.gitattributes', "git diff"
    ),
    "diff driver": Attack(
        f'{DIRTY} git config diff.x.command "touch $OUT/ran; true"; echo "* diff=x" >.gitattributes', "git diff"
    ),
    "external diff": Attack(f'{DIRTY} git config diff.external "touch $OUT/ran; true"', "git diff"),
    "merge driver": Attack(
        'git config merge.x.driver "touch $OUT/ran; true"; echo "* merge=x" >.gitattributes\n'
        "git add -A; git commit -qm x\n"
        "git checkout -qb one; echo 1 >a.txt; git commit -qam 1; git checkout -q -; echo 2 >a.txt; git commit -qam 2",
        "git merge -q one || :",
    ),
    "hooks": Attack(
        "for h in reference-transaction post-checkout post-index-change pre-commit update post-update pre-auto-gc; do\n"
        'mkdir -p .git/hooks; printf "#!/bin/sh\\ntouch $OUT/ran\\n" >.git/hooks/$h; chmod +x .git/hooks/$h; done',
        "git update-ref refs/heads/z HEAD || :",
    ),
    "hooks elsewhere": Attack(
        'mkdir hk; printf "#!/bin/sh\\ntouch $OUT/ran\\n" >hk/reference-transaction; chmod +x hk/*\n'
        'git config core.hooksPath "$PWD/hk"',
        "git update-ref refs/heads/z HEAD || :",
    ),
    "ssh command": Attack(
        'git config core.sshCommand "touch $OUT/ran; false"; git remote add evil ssh://x/y', "git fetch evil || :"
    ),
    "transport of a remote": Attack(
        'git config protocol.ext.allow always; git remote add evil "ext::sh -c touch% $OUT/ran"', "git fetch evil || :"
    ),
    "credential helper": Attack(
        'git config credential.helper "!touch $OUT/ran; false"',
        'printf "protocol=https\\nhost=x\\n\\n" | GIT_TERMINAL_PROMPT=0 git credential fill || :',
    ),
    "hook of upload-pack": Attack('git config uploadpack.packObjectsHook "touch $OUT/ran; git pack-objects"'),
    "command of alternates": Attack(
        'git config core.alternateRefsCommand "touch $OUT/ran; true"; echo "$OUT" >>.git/objects/info/alternates'
    ),
    "submodule with a configuration": Attack(
        "git init -q sub; git -C sub commit -q --allow-empty -m x\n"
        'git -C sub config core.fsmonitor "touch $OUT/ran; false"; git add sub; git commit -qm sub',
        "git status",
    ),
    "submodule that is updated": Attack(
        "git init -q sub; git -C sub commit -q --allow-empty -m x; git add sub\n"
        'printf "[submodule \\"sub\\"]\\n\\tpath = sub\\n\\turl = ./sub\\n" >.gitmodules\n'
        "git add -A; git commit -qm sub\n"
        "git -C sub commit -q --allow-empty -m y; git config submodule.sub.url ./sub\n"
        'git config submodule.sub.update "!touch $OUT/ran; true"',
        "git submodule update || :",
    ),
    "repository nested in the tree": Attack(
        'git init -q deep/er; git -C deep/er config core.fsmonitor "touch $OUT/ran; false"', "git -C deep/er status"
    ),
    "symlinked .git": Attack(
        'git config core.fsmonitor "touch $OUT/ran; false"; mv .git real && ln -s real .git', "git status"
    ),
    ".git file that points elsewhere": Attack(
        'git config core.fsmonitor "touch $OUT/ran; false"; mv .git real && echo "gitdir: real" >.git', "git status"
    ),
    "commondir": Attack(
        'git config core.fsmonitor "touch $OUT/ran; false"; cp -r .git other; echo ../other >.git/commondir',
        "git status",
    ),
    "core.worktree": Attack('git config core.worktree "$OUT"', "git checkout -f HEAD -- a.txt || :"),
    "alternates that lead out": Attack('echo "$OUT/objects" >.git/objects/info/alternates'),
    "replaced objects, grafts and shallow": Attack(
        "git commit -q --allow-empty -m a; git commit -q --allow-empty -m b; git replace HEAD HEAD~1\n"
        "git rev-parse HEAD >.git/info/grafts; git rev-parse HEAD >.git/shallow"
    ),
    "HEAD that leads out": Attack('echo "ref: refs/heads/../../../../../../../../../..$OUT/victim" >.git/HEAD'),
    "HEAD that is an option": Attack(
        'h=$(git rev-parse HEAD); mkdir -p .git/refs/heads; echo $h >".git/refs/heads/--upload-pack=touch $OUT"\n'
        'echo $h >".git/refs/heads/;touch"; echo $h >".git/refs/heads/\\$(touch)"\n'
        'echo "ref: refs/heads/--help" >.git/HEAD; echo $h >.git/refs/heads/--help'
    ),
    "symlinks in place of refs": Attack(
        "b=$(git symbolic-ref HEAD); rm -f .git/$b .git/HEAD .git/packed-refs .git/index\n"
        'for f in $b HEAD packed-refs index; do ln -s "$OUT/victim" .git/$f; done'
    ),
    "symlinks in place of directories": Attack(
        "rm -rf .git/refs .git/logs .git/objects src\n"
        'for f in .git/refs .git/logs .git/objects src; do ln -s "$OUT" $f; done'
    ),
    "pipes in place of files": Attack(
        "b=$(git symbolic-ref HEAD); rm -f .git/$b .git/HEAD .git/index .git/packed-refs a.txt\n"
        "mkfifo .git/$b .git/HEAD .git/index .git/packed-refs a.txt pipe"
    ),
    "huge refs": Attack(
        "b=$(git symbolic-ref HEAD); head -c 40000000 /dev/zero >.git/packed-refs\n"
        "head -c 40000000 /dev/zero >.git/$b\n"
        "mkdir -p .git/refs/heads/m; for i in $(seq 3000); do echo x >.git/refs/heads/m/$i; done"
    ),
    "case tricks": Attack(
        "for d in .GIT .Git .gIt; do mkdir -p $d/hooks\n"
        f"{FSMONITOR} >$d/config; done; b=$(git hash-object -w a.txt)\n"
        'for p in .GIT/config .Git/hooks/x "git~1/config"; do\n'
        "git -c core.protectNTFS=false -c core.protectHFS=false "
        "update-index --add --cacheinfo 100644,$b,$p; done; git commit -qm case"
    ),
    "terminal bytes in file names": Attack(
        "printf x >\"$(printf 'a\\033]52;c;cm0=\\007')\"; printf x >\"$(printf 'b\\033[2J\\n\\rc\\233m')\"\n"
        "mkdir \"$(printf 'd\\033[31m')\"; printf x >\"$(printf 'd\\033[31m/\\342\\200\\256e')\""
    ),
    "terminal bytes in branch names": Attack(
        'h=$(git rev-parse HEAD); mkdir -p .git/refs/heads; n=$(printf "x\\302\\233\\342\\200\\256y")\n'
        'echo $h >".git/refs/heads/$n"; echo "ref: refs/heads/$n" >.git/HEAD'
    ),
    "terminal bytes in HEAD": Attack("printf 'ref: refs/heads/\\033]0;title\\007\\033[2J' >.git/HEAD"),
    "terminal bytes in commits": Attack(
        "git commit -q --allow-empty -m \"$(printf 'm\\033]52;c;cm0=\\007\\033[2J')\" \\\n"
        "--author=\"$(printf 'a\\033[31m <x@y>')\"; printf '\\033]0;x\\007' >&2"
    ),
    "a HEAD that changes all the time": Attack(
        '(for i in $(seq 4000); do ln -sfn "$OUT/victim" .git/H && mv -Tf .git/H .git/HEAD\n'
        'echo "ref: refs/heads/x" >.git/H && mv -Tf .git/H .git/HEAD; done) >/dev/null 2>&1 &'
    ),
    "a directory that changes all the time": Attack(
        '(for i in $(seq 4000); do mv src s && ln -s "$OUT" src && rm src && mv s src; done) >/dev/null 2>&1 &'
    ),
    "a manifest of the agent's": Attack(
        'printf \'version = 1\\n[sessions.evil]\\nmounts = [{ source = "/", path = "/x" }]\\n\' >sessions.toml'
    ),
    "configuration in the home": Attack(
        f"{FSMONITOR} >~/.gitconfig; mkdir -p ~/.config/git; cp ~/.gitconfig ~/.config/git/config"
    ),
    "directories without end": Attack(
        "d=d; for i in $(seq 300); do d=$d/d; done; mkdir -p $d; touch $d/f\n"
        "mkdir locked; touch locked/f; chmod 0 locked"
    ),
}


def listing(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below `root` with its mode and content."""
    found = {}
    for here, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(here, name)
            content = Path(path).read_bytes() if os.path.isfile(path) else b""
            found[os.path.relpath(path, root)] = (os.lstat(path).st_mode, content)
    return found


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host that anybody may write."""
    place = tmp_path / "outside"
    place.mkdir()
    place.chmod(0o777)
    (place / "victim").write_text(f"{SECRET}\n")
    (place / "objects").mkdir()
    return place


def is_plain(text: str) -> bool:
    """Whether nothing in `text` steers a terminal or turns the direction of text."""
    return all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)


def fall_for(attack: Attack, repository: Repository, outside: Path, control: Path) -> bool:
    """Whether plain git on the host does what the attack wants, in a clone that it was planted in."""
    git(control.parent, "clone", "-q", str(repository.root), str(control))
    before = listing(outside)
    for script in (attack.plant, attack.host):
        environment = {**os.environ, "OUT": str(outside)}
        subprocess.run(["sh", "-c", script], cwd=control, env=environment, capture_output=True, timeout=60, check=False)
    fell = listing(outside) != before
    for path in outside.iterdir():
        if path.name not in before:
            path.unlink()
    return fell


def _latest(snapshots: str) -> str:
    """The id of the last of the snapshots in a JSON document."""
    start = snapshots.find("{")
    found = json.loads(snapshots[start:])["snapshots"] if start >= 0 else []
    return str(found[-1]["id"]) if found else "none"


def _kinds(name: str) -> list[str]:
    """The kinds of workspace that an attack is planted in: the usual one, and each of the others in its turn."""
    first, *others = KINDS
    if os.geteuid() == 0:  # whose sandboxes are an ordinary user's, and cannot write root's checkout
        return [first]
    return list(KINDS) if EVERYWHERE else [first, others[list(ATTACKS).index(name) % len(others)]]


@pytest.mark.parametrize("name", ATTACKS)
def test_what_an_agent_plants_acts_on_nothing_outside(
    name: str,
    repository: Repository,
    outside: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attack = ATTACKS[name]
    assert not attack.host or fall_for(attack, repository, outside, tmp_path / "control")
    monkeypatch.chdir(repository.root)
    before = listing(outside)

    def say(*words: str) -> tuple[int, str]:
        """The exit code of a verb, run in this process, and all that it said."""
        file = tmp_path / "said"
        with file.open("w") as out, file.open("a") as err, redirect_stdout(out), redirect_stderr(err):
            code = main(words)
        said = file.read_text()
        assert is_plain(said), words
        assert SECRET not in said, words
        return code, said

    kinds = _kinds(name)
    repository.declare("".join(f"[sessions.{each}]\nworkspace = {{ {KINDS[each]} }}\n" for each in kinds))
    assert say("apply", "--yes", "--allow-host")[0] == 0
    here, mine = tmp_path / "here", tmp_path / "mine"
    for made in (here, mine):
        made.mkdir()
        (made / "f").write_text("mine")
    guarded = listing(repository.root / ".git" / "hooks"), listing(repository.root / ".git" / "info")
    texts = [(repository.root / ".git" / file).read_bytes() for file in ("config", "HEAD", "index")]
    manifest = (repository.root / "sessions.toml").read_bytes()
    for each in kinds:
        script = f"mark() {{ touch ~/planted; }}; trap mark EXIT\n{attack.plant}"
        repository.run("exec", "-e", f"OUT={outside}", each, "--", "sh", "-c", script, code=None)
        assert (repository.state / "sessions" / each / "home" / "planted").exists()

    with soon(LIMIT):
        for words in OF_ALL:
            say(*words)
        for each in kinds:
            for words in OF_ONE:
                say(words[0], each, *words[1:])
            say("restore", each, "--yes")
            say("undo")
            say("diff", each, "--snapshot", _latest(say("snapshots", each, "--json")[1]))
            say("fork", each, f"{each}-fork")
            say("stop", f"{each}-fork")
            for number, path in enumerate((":", ":~", ":a.txt", ":src", ":.git", ":.git/HEAD")):
                say("cp", f"{each}{path}", str(here / f"{each}-{number}"))
            say("cp", str(mine), f"{each}:src")
        assert not [*here.rglob(".git")]  # none whose configuration git here would follow
        assert (repository.root / "sessions.toml").read_bytes() == manifest
        repository.declare("")
        for words in AT_LAST:
            say(*words)

    assert listing(outside) == before
    assert (listing(repository.root / ".git" / "hooks"), listing(repository.root / ".git" / "info")) == guarded
    assert [(repository.root / ".git" / file).read_bytes() for file in ("config", "HEAD", "index")] == texts
