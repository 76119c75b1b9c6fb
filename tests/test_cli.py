"""The path a user takes, end to end: real git, real sandboxes, the real command line."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sessionctl import beneath
from tests.command import Repository, git


def test_from_nothing_to_in_sync(repository: Repository) -> None:
    repository.run("init")
    assert repository.run("plan").out.endswith("Plan: 1 to create.\n")
    repository.run("plan", "--exit-code", code=3)
    repository.run("verify", code=3)
    repository.apply()
    assert repository.run("plan", "--exit-code").out == "In sync: 1 session as declared.\n"
    repository.run("verify")


def test_plan_changes_nothing(repository: Repository) -> None:
    repository.run("init")
    state = Path(os.environ["SESSIONCTL_STATE_DIR"])
    before = repository.files(repository.root)
    repository.run("plan")
    repository.run("plan", "--json")
    repository.run("ls")
    assert repository.files(repository.root) == before
    assert not list(state.iterdir())


def test_a_second_apply_writes_nothing_not_even_a_time(repository: Repository) -> None:
    repository.declare("[sessions.api]\n[sessions.web]\n")
    repository.apply()
    repository.run("plan")  # the cache of the manifest is written by who first finds it settled
    roots = (repository.root, Path(os.environ["SESSIONCTL_STATE_DIR"]), Path(os.environ["XDG_CACHE_HOME"]))
    before = repository.files(*roots)
    repository.apply()
    assert repository.files(*roots) == before


def test_the_hot_path_imports_nothing_heavy(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    repository.run("plan")
    script = (
        "import sys; from sessionctl.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'pydantic', 'pydantic_settings', 'git', 'tomlkit', 'tomllib', 'rich', 'dataclasses', 'subprocess'};"
        "print(code, sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    for command in (["plan"], ["verify"], ["apply", "--yes"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *command],
            cwd=repository.root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == "0 []\n", command


def test_inside_is_the_repository_on_its_branch_and_nothing_of_the_host(repository: Repository) -> None:
    repository.declare('[sessions.api]\nworkspace = { branch = "work/api" }\n[sessions.web]\n')
    repository.apply()
    seen = repository.inside("api", "id -u; pwd; ls; git status --porcelain --branch; git log --oneline | wc -l")
    assert seen.out.split("\n") == ["1000", "/workspace", "a.txt", "src", "## work/api", "1", ""]
    secret = Path(os.environ["HOME"]) / "secret"
    secret.write_text("s")
    repository.inside("api", f"cat {secret}", code=1)
    repository.inside("api", f"ls {repository.state}", code=2)
    assert repository.inside("api", "ls /home; ls -A ~").out == "agent\n"
    repository.inside("api", "echo x > /proc/sys/kernel/core_pattern", code=2)
    repository.inside("api", "touch /.sessionctl/objects/x", code=1)
    interfaces = repository.inside("api", "tail -n +3 /proc/net/dev | cut -d: -f1").out.split()
    assert interfaces == ["lo"]


def test_what_one_exec_leaves_running_is_there_for_the_next(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    serve = "echo served > /tmp/f; (cd /tmp && exec python3 -m http.server --bind 127.0.0.1 8123) &"
    asked = (
        "import sys, time, urllib.request as u\n"
        "for _ in range(100):\n"
        " try: sys.exit(print(u.urlopen('http://127.0.0.1:8123/f').read()))\n"
        " except OSError: time.sleep(0.1)"
    )
    repository.inside("api", serve)  # it logs to the pipe of an exec that has ended, and lives
    for _ in range(2):
        assert repository.run("exec", "api", "--", "python3", "-c", asked).out == "b'served\\n'\n"


def test_streams_and_exit_codes_are_the_commands(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    assert repository.run("exec", "api", "--", "cat", stdin="through\n").out == "through\n"
    said = repository.inside("api", "echo out; echo err >&2; exit 7", code=7)
    assert (said.out, said.err) == ("out\n", "err\n")
    repository.inside("api", "kill -9 $$", code=137)
    repository.run("exec", "api", "--", "/nonexistent", code=127)
    repository.run("exec", "api", "--", "/etc/passwd", code=126)
    repository.run("exec", "--timeout", "0.3s", "api", "--", "sleep", "60", code=124)
    assert repository.run("exec", "-e", "A=b c", "api", "--", "printenv", "A").out == "b c\n"
    repository.run("exec", "nobody", "--", "true", code=125)
    events = [json.loads(line) for line in repository.run("log", "api", "--json").out.splitlines()]
    codes = [event["exit_code"] for event in events if event["event"] == "exec"]
    assert codes == [0, 7, 137, 127, 126, 124, 0]
    assert [event["stderr"] for event in events if event.get("exit_code") == 7] == ["err\n"]


def test_exec_json_is_one_document(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    said = repository.run("exec", "--json", "api", "--", "sh", "-c", "echo out; echo err >&2; kill -TERM $$", code=143)
    duration = said.json.pop("duration_s")
    assert 0 < duration < 60
    document = said.json
    del document["duration_s"]
    streams = {"stdout": "out\n", "stderr": "err\n", "truncated": False}
    assert document == {"exit_code": 143, "signal": 15, "limit": None, **streams}


def test_a_commit_made_inside_is_seen_and_comes_home(repository: Repository) -> None:
    repository.declare('[sessions.api]\nworkspace = { branch = "agents/api", base = "main" }\n')
    repository.apply()
    first = repository.head
    repository.inside("api", "echo b > b.txt && git add b.txt && git commit -qm second")
    seen = repository.session("api")
    assert (seen["branch"], seen["ahead"], seen["unpushed"], seen["dirty"]) == ("agents/api", 1, 1, False)
    assert seen["commit"] != first and seen["base"] == first
    assert "ahead 1, unpushed 1" in repository.run("status", "api").out
    repository.run("fetch", "api")
    assert git(repository.root, "rev-parse", "agents/api") == seen["commit"]
    assert repository.head == first
    after = repository.session("api")
    assert (after["ahead"], after["unpushed"]) == (1, 0)
    git(repository.root, "commit", "-q", "--allow-empty", "-m", "main moves")
    assert repository.session("api")["behind"] == 1


PLANTED = """
set -e
cat > /workspace/run <<'S'
#!/bin/sh
echo ran >> {mark}
exit 0
S
chmod +x run
git config core.fsmonitor /workspace/run
git config filter.x.clean /workspace/run
git config filter.x.smudge /workspace/run
git config diff.external /workspace/run
git config diff.y.textconv /workspace/run
git config alias.status '!/workspace/run'
git config core.hooksPath /workspace/hooks
git config core.sshCommand /workspace/run
git config core.pager /workspace/run
git config core.editor /workspace/run
git config gpg.program /workspace/run
git config uploadpack.packObjectsHook /workspace/run
git config credential.helper /workspace/run
mkdir -p hooks .git/hooks
for hook in pre-commit post-checkout post-index-change reference-transaction pre-auto-gc; do
    cp run hooks/$hook; cp run .git/hooks/$hook
done
echo '* filter=x diff=y' > .gitattributes
echo changed >> a.txt
"""


def test_nothing_an_agent_plants_in_its_repository_runs_on_the_host(repository: Repository, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    repository.declare("[sessions.api]\n")
    repository.apply()
    repository.inside("api", PLANTED.format(mark=mark))
    for command in (
        ["ls"],
        ["status", "api"],
        ["plan"],
        ["apply", "--yes"],
        ["fetch", "api"],
        ["log"],
        ["stop", "api"],
    ):
        repository.run(*command)
    repository.declare("")
    repository.run("prune", "--idle", "0s", "--yes")
    assert not mark.exists()
    assert repository.session("api")["dirty"] is True

    control = tmp_path / "control"
    control.mkdir()
    git(control, "init", "-q")
    (control / "a.txt").write_text("a\n")
    git(control, "add", ".")
    script = PLANTED.format(mark=mark).replace("/workspace", str(control))
    subprocess.run(["sh", "-c", script], cwd=control, check=True, capture_output=True)
    subprocess.run(["git", "status"], cwd=control, check=False, capture_output=True)
    assert mark.read_text(), "the control must show that a careless `git status` runs what was planted"


TAKES = """
[sessions.api]
mounts = [{{ source = "../data", path = "/data", mode = "rw" }}]
network = {{ mode = "host" }}
env = {{ TOKEN = {{ from_env = "MY_TOKEN" }}, KEY = {{ from_file = "../key" }} }}
files = [{{ path = "~/.tool", source = "../tool" }}]
{more}
[sessions.plain]
"""


@pytest.fixture
def outside(repository: Repository) -> Path:
    """What `TAKES` takes: beside the repository."""
    place = repository.root.parent.resolve()
    (place / "data").mkdir()
    (place / "data").chmod(0o777)
    (place / "data" / "file").write_text("data\n")
    (place / "key").write_text("key of a file\n")
    (place / "tool").write_text("tool\n")
    return place


TOKEN = {"MY_TOKEN": "token of a variable"}


def test_what_is_taken_from_the_host_has_to_be_allowed(repository: Repository, outside: Path) -> None:
    taken = [
        f"mounts./data: {outside}/data, writable",
        "network: the host's",
        "env.TOKEN: the variable MY_TOKEN",
        f"env.KEY: the content of {outside}/key",
        f"files.~/.tool: {outside}/tool",
    ]
    repository.declare(TAKES.format(more=""))
    shown = repository.run("plan")
    assert all(f"takes from the host: {each} (not trusted)\n" in shown.out for each in taken)
    assert "nothing is done to it: sessionctl trust api" in shown.out and "1 not trusted" in shown.out
    assert "! api: on the host's network" in shown.out
    plan = repository.run("plan", "--json", "--exit-code", code=3).json
    assert plan["changes"][0]["takes"] == plan["changes"][0]["untrusted"] == taken
    assert not plan["changes"][0]["actions"]
    assert [(each["session"], each["forcible"]) for each in plan["blocked"]] == [("api", False)]

    refused = repository.apply(code=5)
    assert all(f"api would take from the host: {each}\n" in refused.err for each in taken)
    assert "sessionctl trust api; just this once: sessionctl apply --allow-host api" in refused.err
    assert [repository.session(name)["observed"] for name in ("api", "plain")] == ["gone", "running"]
    assert not (repository.state / "sessions" / "api").exists()

    assert "not trusted" not in repository.run("plan", "--allow-host").out
    repository.apply("--allow-host")
    seen = repository.session("api")
    assert seen["network"] == "host"
    assert seen["mounts"] == [{"source": f"{outside}/data", "path": "/data", "mode": "rw"}]
    assert f"/data is {outside}/data, rw" in repository.run("status", "api").out
    script = 'cat /data/file ~/.tool; echo "$TOKEN, $KEY"; echo x > /data/new'
    said = repository.run("exec", "api", "--", "sh", "-c", script, env=TOKEN)
    assert said.out == "data\ntool\ntoken of a variable, key of a file\n"
    assert (outside / "data" / "new").read_text() == "x\n"


def test_what_was_allowed_stays_so_and_nothing_more(repository: Repository, outside: Path) -> None:
    repository.declare(TAKES.format(more=""))
    repository.apply("--allow-host")
    repository.run("plan", "--exit-code")
    repository.declare(TAKES.format(more='title = "again"'))
    repository.apply()
    for command in ("stop", "start", "stop"):
        repository.run(command, "api")
    repository.apply()
    repository.run("exec", "api", "--", "true", env=TOKEN)

    more = TAKES.format(more="").replace("MY_TOKEN", "OTHER")
    repository.declare(more)
    said = repository.apply(code=5)
    assert said.err.count("would take") == 1 and "env.TOKEN: the variable OTHER" in said.err
    assert repository.run("exec", "api", "--", "printenv", "TOKEN", env=TOKEN).out == "token of a variable\n"
    before = repository.session("api")["pid"]
    repository.apply("--allow-host")
    assert repository.session("api")["pid"] == before, "env is of the next exec"
    assert repository.run("exec", "api", "--", "printenv", "TOKEN", env={"OTHER": "other"}).out == "other\n"

    repository.declare("[sessions.api]\n[sessions.plain]\n")
    (change,) = repository.run("plan", "--json").json["changes"]
    assert change["kind"] == "restart"
    repository.apply()
    assert repository.session("api")["network"] == "none"
    repository.inside("api", "test -e /data", code=1)
    repository.declare(more)
    repository.apply(code=5)


def test_what_may_not_be_mounted_is_refused_in_the_plan(repository: Repository, outside: Path) -> None:
    state = os.environ["SESSIONCTL_STATE_DIR"]
    for source, words in {
        ".git": "is or holds the repository's git directory",
        ".": "is or holds the repository's git directory",
        ".git/objects": "lies in the repository's git directory",
        state: "is or holds the state directory",
        "/proc": "is a part of /proc",
        "../missing": "No such file or directory",
    }.items():
        repository.declare(f'[sessions.api]\nmounts = [{{ source = "{source}", path = "/data" }}]\n')
        assert words in repository.run("apply", "--yes", "--allow-host", code=2).out
    assert not list(Path(state).iterdir())


SECRETS = ("token of a variable", "key of a file")


def _holding(secrets: tuple[str, ...], *roots: Path) -> list[str]:
    """The files below `roots` that hold one of `secrets`."""
    found = []
    for root in roots:
        for directory, _, names in os.walk(root):
            for path in (Path(directory, name) for name in names):
                if path.is_file() and any(secret.encode() in path.read_bytes() for secret in secrets):
                    found.append(str(path))
    return found


def test_no_secret_is_kept_or_shown_anywhere(repository: Repository, outside: Path) -> None:
    repository.declare(TAKES.format(more='setup = ["echo $TOKEN $KEY; exit 3"]'))
    failed = repository.run("apply", "--yes", "--allow-host", code=1, env=TOKEN)
    assert "*** ***" in failed.out
    halves = 'printf %s "${KEY%file}"; printf %s "${TOKEN%variable}" >&2; sleep 0.1; echo file; echo variable >&2'
    said = repository.run("exec", "--json", "api", "--", "sh", "-c", halves, env=TOKEN)
    assert (said.json["stdout"], said.json["stderr"]) == ("***\n", "***\n")
    repository.run("exec", "api", "--", "printf", "%s and %s", *SECRETS, env=TOKEN)
    events = [json.loads(line) for line in repository.run("log", "api", "--json").out.splitlines()]
    assert events[-1]["argv"] == ["printf", "%s and %s", "***", "***"] and events[-1]["stdout"] == "*** and ***"
    for command in (["plan", "--json"], ["status", "api", "--json"], ["show", "api", "--json"], ["ls", "--json"]):
        said = repository.run(*command, env=TOKEN)
        assert not any(secret in said.out + said.err for secret in SECRETS)
    roots = (Path(os.environ["SESSIONCTL_STATE_DIR"]), Path(os.environ["XDG_CACHE_HOME"]))
    assert _holding(("MY_TOKEN",), *roots) and _holding(SECRETS, *roots) == []


def test_no_secret_is_on_a_command_line(repository: Repository, outside: Path) -> None:
    repository.declare(TAKES.format(more=""))
    repository.apply("--allow-host")
    command = [sys.executable, "-m", "sessionctl", "exec", "api", "--", "sh", "-c", "echo ready; cat"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=repository.root, env={**os.environ, **TOKEN}, stdin=pipe, stdout=pipe, text=True
    ) as running:
        assert running.stdout is not None and running.stdout.readline() == "ready\n"
        lines = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                lines.append(path.read_text(errors="replace"))
        running.communicate("")
    assert any("echo ready; cat" in line for line in lines)
    assert not [line for line in lines if any(secret in line for secret in SECRETS)]


def test_a_secret_that_is_missing_is_said_before_anything_runs(repository: Repository, outside: Path) -> None:
    repository.declare(TAKES.format(more=""))
    repository.apply("--allow-host")
    touch = ("exec", "api", "--", "touch", "/data/ran")
    assert "MY_TOKEN, which is not set here" in repository.run(*touch, code=125).err
    (outside / "key").unlink()
    assert f"{outside}/key, which cannot be read" in repository.run(*touch, code=125, env=TOKEN).err
    assert not (outside / "data" / "ran").exists()
    repository.run("exec", "-e", "KEY=mine", *touch[1:], env=TOKEN)


BEFORE = """
[sessions.api]
env = {{ LEVEL = "debug" }}
files = [{{ path = "~/.tool", content = "one\\n" }}]
{more}
"""


@pytest.mark.parametrize(
    ("field", "text", "kind", "effect"),
    [
        (
            "env.LEVEL",
            'env = { LEVEL = "info" }\nfiles = [{ path = "~/.tool", content = "one\\n" }]',
            "update",
            "in-place",
        ),
        (
            "files.~/.tool",
            'env = { LEVEL = "debug" }\nfiles = [{ path = "~/.tool", content = "two\\n" }]',
            "update",
            "in-place",
        ),
        ("setup", BEFORE.split("\n", 2)[2].format(more='setup = ["touch made"]'), "replace", "replace"),
        (
            "workspace.branch",
            BEFORE.split("\n", 2)[2].format(more='workspace = { branch = "b" }'),
            "update",
            "in-place",
        ),
        (
            "workspace.history",
            BEFORE.split("\n", 2)[2].format(more='workspace = { history = "own" }'),
            "replace",
            "replace",
        ),
        ("tags", BEFORE.split("\n", 2)[2].format(more='tags = ["t"]'), "update", "in-place"),
        ("state", BEFORE.split("\n", 2)[2].format(more='state = "stopped"'), "stop", "in-place"),
    ],
)
def test_an_edit_costs_what_the_plan_says_and_no_work(
    repository: Repository, field: str, text: str, kind: str, effect: str
) -> None:
    repository.declare(BEFORE.format(more=""))
    repository.apply()
    repository.inside("api", "echo u > untracked; echo m >> a.txt; echo s > staged; git add staged; echo i > .env")
    before = repository.session("api")
    repository.declare(f"[sessions.api]\n{text}")
    plan = repository.run("plan", "--json").json
    (change,) = plan["changes"]
    assert (change["kind"], [(f["path"], f["effect"]) for f in change["fields"]]) == (kind, [(field, effect)])
    assert not plan["in_sync"]
    repository.apply()
    repository.run("plan", "--exit-code")
    after = repository.session("api")
    assert (after["sandbox"] == before["sandbox"]) == (kind != "replace")
    assert (after["pid"] == before["pid"]) == (kind == "update")
    if kind == "stop":
        assert after["observed"] == "stopped"
        repository.run("start", "api")
    kept = repository.inside(
        "api", "cat untracked staged .env; tail -1 a.txt; git status --porcelain --untracked-files=all"
    )
    assert kept.out.startswith("u\ns\ni\nm\n M a.txt\nA  staged\n?? ")
    assert "?? untracked" in kept.out
    values = repository.inside(
        "api", "echo $LEVEL; cat ~/.tool; git symbolic-ref --short HEAD; ls made 2>/dev/null; true"
    )
    assert ("info" in values.out) == (field == "env.LEVEL")
    assert ("two" in values.out) == (field.startswith("files"))
    assert ("\nb\n" in values.out) == (field == "workspace.branch")
    assert ("made" in values.out) == (field == "setup")


def test_own_history_has_no_object_of_other_branches(repository: Repository) -> None:
    git(repository.root, "checkout", "-qb", "private")
    (repository.root / "secret.txt").write_text("secret\n")
    git(repository.root, "add", ".")
    git(repository.root, "commit", "-qm", "private")
    private = repository.head
    git(repository.root, "checkout", "-q", "main")
    repository.declare('[sessions.own]\nworkspace = { history = "own" }\n[sessions.shared]\n')
    said = repository.apply()
    assert "! shared: every object of the repository can be read inside" in said.out
    repository.inside("shared", f"git cat-file -e {private}")
    repository.inside("own", f"git cat-file -e {private}", code=1)
    repository.inside("own", "git fsck --full && git log --oneline")


def test_own_history_says_how_far_behind_it_is_too(repository: Repository) -> None:
    repository.declare('[sessions.own]\nworkspace = { history = "own", base = "main" }\n')
    repository.apply()
    git(repository.root, "commit", "-q", "--allow-empty", "-m", "main moves")
    assert repository.session("own")["behind"] == 1
    repository.inside("own", "git commit -q --allow-empty -m work")
    assert repository.session("own")["behind"] is None  # a commit that the host does not know
    repository.run("fetch", "own")
    assert repository.session("own")["behind"] == 1


def test_editing_the_base_of_a_living_session_is_refused(repository: Repository) -> None:
    git(repository.root, "branch", "other")
    repository.declare('[sessions.api]\nworkspace = { base = "main" }\n')
    repository.apply()
    repository.declare('[sessions.api]\nworkspace = { base = "other" }\n')
    (blocked,) = repository.run("plan", "--json").json["blocked"]
    assert "workspace.base" in blocked["reason"] and not blocked["forcible"]
    repository.run("apply", "--yes", "--force", code=3)
    assert repository.session("api")["observed"] == "running"


def test_removing_a_block_removes_nothing_and_prune_takes_only_what_is_safe(repository: Repository) -> None:
    repository.declare("".join(f"[sessions.{name}]\n" for name in ("clean", "dirty", "env", "ahead", "kept")))
    repository.apply()
    repository.inside("dirty", "echo x > untracked")
    repository.inside("env", "echo x > .env")
    repository.inside("ahead", "git commit -q --allow-empty -m work")
    repository.declare("[sessions.kept]\n")
    kinds = {change["session"]: change["kind"] for change in repository.run("plan", "--json").json["changes"]}
    assert kinds == dict.fromkeys(("ahead", "clean", "dirty", "env"), "retained")
    repository.apply()
    assert repository.inside("clean", "pwd").out == "/workspace\n"
    for command in (["status", "clean"], ["log", "clean"], ["stop", "clean"], ["start", "clean"], ["fetch", "clean"]):
        repository.run(*command)

    decided = repository.run("prune", "--dry-run", "--idle", "0s", "--json").json["changes"]
    reasons = {change["session"]: change["kept"] for change in decided}
    assert reasons["clean"] is None
    assert "untracked" in reasons["dirty"]
    assert ".env" in reasons["env"]
    assert "1 commit that no host branch" in reasons["ahead"]
    assert "used" in repository.run("prune", "--dry-run").out  # ten minutes have not passed
    repository.run("prune", "--idle", "0s", "--yes", "dirty", code=3)
    repository.run("prune", "--idle", "0s", "--yes", "kept", code=3)
    repository.run("prune", "--idle", "0s", "--yes")
    names = [each["name"] for each in repository.run("ls", "--json").json["sessions"]]
    assert names == ["ahead", "dirty", "env", "kept"]
    assert not (repository.state / "sessions" / "clean").exists()

    repository.declare("[sessions.kept]\n[sessions.dirty]\n")
    repository.apply()
    assert repository.inside("dirty", "cat untracked").out == "x\n"
    repository.run("fetch", "ahead")
    repository.run("prune", "--idle", "0s", "--yes", "ahead")
    assert "work" in git(repository.root, "log", "-1", "--format=%s", "agents/ahead")


def test_a_protected_session_stays_protected_without_its_block(repository: Repository) -> None:
    repository.declare("[sessions.api]\nprotect = true\n")
    repository.apply()
    repository.declare("")
    said = repository.run("prune", "--idle", "0s", "--yes", "api", code=3)
    assert "protected" in said.out
    assert repository.inside("api", "pwd").out == "/workspace\n"


def test_prune_looks_again_before_it_removes(repository: Repository) -> None:
    """The plan is approved, then work appears: it is found under the lock, and nothing goes."""
    repository.declare("[sessions.api]\n")
    repository.apply()
    repository.declare("")
    script = (
        "import sys, subprocess\n"
        "from sessionctl.app import Project\n"
        "from sessionctl.plan import Policy\n"
        "from sessionctl.errors import ConflictError\n"
        "project = Project()\n"
        "plan = project.plan(policy=Policy(prune=True, idle=0))\n"
        "assert plan.work, plan\n"
        "project.exec('api', ['touch', 'new'])\n"
        "try: project.apply(plan)\n"
        "except ConflictError: print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=repository.root, capture_output=True, text=True, check=False
    )
    assert done.stdout == "refused\n", done.stderr
    assert repository.inside("api", "ls").out.split() == ["a.txt", "new", "src"]


def test_killed_removed_rebooted_is_seen_at_once_and_healed(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    repository.inside("api", "echo x > kept")

    pid = repository.session("api")["pid"]
    os.kill(pid, signal.SIGKILL)
    assert repository.session("api")["observed"] == "stopped"
    assert repository.run("plan", "--json").json["changes"][0]["kind"] == "start"
    repository.apply()
    assert repository.inside("api", "cat kept").out == "x\n"

    os.kill(repository.session("api")["pid"], signal.SIGKILL)
    (run,) = (repository.state / "sessions" / "api").glob("*/run")
    _, start, _, at = json.loads(run.read_text())
    run.write_text(json.dumps([os.getpid(), start, "00000000-0000-0000-0000-000000000000", at]))
    assert repository.session("api")["observed"] == "stopped", "another boot's pid was believed"
    repository.apply()
    assert repository.session("api")["observed"] == "running"

    repository.run("stop", "api")
    beneath.remove_tree(str(repository.state / "sessions" / "api"))
    assert repository.session("api")["observed"] == "gone"
    assert repository.run("plan", "--json").json["changes"][0]["kind"] == "recreate"
    repository.apply()
    repository.run("plan", "--exit-code")


def test_a_recreated_session_goes_on_where_it_was_fetched(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    repository.inside("api", "git commit -q --allow-empty -m work")
    commit = repository.session("api")["commit"]
    repository.run("fetch", "api")
    repository.run("stop", "api")
    beneath.remove_tree(str(repository.state / "sessions" / "api"))
    repository.apply()
    assert repository.session("api")["commit"] == commit


def test_stopped_by_hand_is_said_and_started_by_apply(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    repository.run("stop", "api")
    assert "stopped by hand" in repository.run("plan").out
    repository.run("exec", "api", "--", "true", code=125)
    repository.apply()
    assert "In sync" in repository.run("plan").out


NAMES = ["../x", "/x", "", "x" * 300, "a\tb", "\u0430pi", "Api", "a/b", "a.b", "a b"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_that_is_none_is_refused_at_every_door(repository: Repository, name: str) -> None:
    repository.declare(f"[sessions.{json.dumps(name, ensure_ascii=False)}]\n")
    assert repository.run("plan", code=2).err.startswith("error: sessions.toml:2")
    repository.declare("[sessions.api]\n")
    for command in (["status", name], ["log", name], ["fetch", name], ["start", name], ["stop", name], ["plan", name]):
        assert "is not a session name" in repository.run(*command, code=2).err
    repository.run("exec", name, "--", "true", code=125)
    assert not list(Path(os.environ["SESSIONCTL_STATE_DIR"]).iterdir())


BROKEN: dict[str, tuple[bytes, str]] = {
    "not UTF-8": (b"version = 1\n# \xff\n", "UTF-8"),
    "duplicate keys": (b"version = 1\nversion = 1\n", "sessions.toml:2"),
    "unknown key": (b"version = 1\n[sessions.api]\nagnet = 'claude'\n", "did you mean 'agent'"),
    "unknown backend": (b"version = 1\n[sessions.api]\nbackend = 'bubblewarp'\n", "did you mean 'bubblewrap'"),
    "a branch name git refuses": (b"version = 1\n[sessions.api]\nworkspace = { branch = 'a..b' }\n", "sessions.toml:3"),
    "a base that does not exist": (b"version = 1\n[sessions.api]\nworkspace = { base = 'nowhere' }\n", "nowhere"),
    "not supported yet": (b"version = 1\n[sessions.api]\nprompt = 'go'\n", "not supported yet"),
    "too large": (b"# " + b"x" * 50_000_000, "sessions.toml"),
    "no version": (b"[sessions.api]\n", "version"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_manifest_is_named_and_leaves_nothing(repository: Repository, what: str) -> None:
    content, said = BROKEN[what]
    (repository.root / "sessions.toml").write_bytes(content)
    for command in (["plan"], ["apply", "--yes"]):
        done = repository.run(*command, code=2)
        assert said in done.out + done.err
    assert not list(Path(os.environ["SESSIONCTL_STATE_DIR"]).iterdir())


def test_no_repository_no_manifest_a_directory_unreadable(repository: Repository, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert "no git repository" in repository.run("-C", str(elsewhere), "plan", code=1).err
    assert "sessionctl init" in repository.run("plan", code=2).err
    manifest = repository.root / "sessions.toml"
    manifest.mkdir()
    assert "directory" in repository.run("plan", code=2).err
    manifest.rmdir()
    manifest.write_text("version = 1\n")
    manifest.chmod(0)
    if os.geteuid():
        assert "Permission denied" in repository.run("plan", code=2).err
    repository.run("init", code=2)


def test_a_repository_without_a_commit(repository: Repository, tmp_path: Path) -> None:
    unborn = tmp_path / "unborn"
    unborn.mkdir()
    git(unborn, "init", "-q")
    (unborn / "sessions.toml").write_text("version = 1\n[sessions.api]\n")
    assert "no commit yet" in repository.run("-C", str(unborn), "apply", "--yes", code=2).out


def test_layers_override_each_other_in_the_documented_order(repository: Repository, config: Path) -> None:
    def title(*flags: str, **env: str) -> tuple[str, str]:
        shown = repository.run(*flags, "show", "api", "--resolved", "--json", env=env).json["title"]
        return shown["value"], shown["from"]

    repository.declare("[sessions.api]\n")
    assert title() == ("", "built-in")
    config.write_text('[defaults]\ntitle = "user"\n')
    assert title() == ("user", "user config:2")
    repository.declare('[defaults]\ntitle = "defaults"\n[sessions.api]\n')
    assert title() == ("defaults", "sessions.toml:3")
    repository.declare('[defaults]\ntitle = "defaults"\n[sessions.api]\ntitle = "session"\n')
    assert title() == ("session", "sessions.toml:5")
    assert title(SESSIONCTL_SESSION__TITLE="env") == ("env", "SESSIONCTL_SESSION__TITLE")
    assert title("--set", "title=flag", SESSIONCTL_SESSION__TITLE="env") == ("flag", "--set")


def test_fifty_exec_at_once_are_fifty_events(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    command = [sys.executable, "-m", "sessionctl", "exec", "api", "--", "sh", "-c"]
    running = [
        subprocess.Popen(
            [*command, f"exit {number}"],
            cwd=repository.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for number in range(50)
    ]
    assert [process.wait(120) for process in running] == list(range(50))
    events = [json.loads(line) for line in repository.run("log", "api", "--json").out.splitlines()]
    assert sorted(event["exit_code"] for event in events if event["event"] == "exec") == list(range(50))


def test_a_second_apply_waits_and_then_says_who_holds_the_lock(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    repository.declare('[sessions.api]\ntags = ["t"]\n')
    hold = (
        "import sys, time\nfrom sessionctl.app import Project\nwith Project().changing():\n"
        " print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold],
        cwd=repository.root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        began = time.monotonic()
        said = repository.apply(code=4)
        assert time.monotonic() - began >= 10
        assert str(holder.pid) in said.err
        holder.communicate("")
    repository.apply()


def test_two_that_apply_at_once_both_end_well(repository: Repository) -> None:
    repository.declare("".join(f"[sessions.s{number}]\n" for number in range(6)))
    command = [sys.executable, "-m", "sessionctl", "apply", "--yes"]
    both = [
        subprocess.Popen(command, cwd=repository.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    created = [line for out, _ in said for line in out.splitlines() if line.startswith("done")]
    assert sorted(created) == [f"done    s{number}: create" for number in range(6)]


def test_an_injected_file_that_the_agent_changed_is_left_and_shown(repository: Repository) -> None:
    one = '[sessions.api]\nfiles = [{ path = "~/.tool", content = "one" }]\n'
    two = one.replace("one", "two")
    repository.declare(one)
    repository.apply()
    assert repository.run("status", "api", "--json").json["files"] == {"~/.tool": "as written"}
    repository.inside("api", "echo mine > ~/.tool")
    assert repository.run("status", "api", "--json").json["files"] == {"~/.tool": "changed inside"}
    assert "In sync" in repository.apply().out
    repository.declare(two)
    assert "~/.tool was changed inside and in the manifest: left as it is" in repository.apply().out
    assert repository.inside("api", "cat ~/.tool").out == "mine\n"
    assert repository.run("status", "api", "--json").json["clashes"] == ["~/.tool"]


def test_setup_runs_once_and_a_failed_one_is_run_again(repository: Repository) -> None:
    repository.declare('[sessions.api]\nsetup = ["echo ran >> log.log", "test -e ready"]\n')
    said = repository.apply(code=1)
    assert "'test -e ready' ended with exit code 1" in said.out
    repository.inside("api", "touch ready")
    assert "setup has not finished" in repository.run("plan").out
    repository.apply()
    repository.apply()
    assert repository.inside("api", "cat log.log").out == "ran\nran\n"


def test_a_replace_that_fails_in_its_setup_can_be_stopped(repository: Repository) -> None:
    repository.declare('[sessions.api]\nsetup = ["true"]\n')
    repository.apply()
    repository.declare('[sessions.api]\nsetup = ["false"]\n')
    repository.apply(code=1)
    assert repository.session("api")["observed"] == "running"
    assert repository.run("stop", "api").out == "api: stopped\n"
    assert repository.session("api")["observed"] == "stopped"
    repository.declare('[sessions.api]\nsetup = ["true"]\n')
    repository.apply()
    repository.run("plan", "--exit-code")


def test_a_failing_session_leaves_the_others_alone(repository: Repository) -> None:
    repository.declare('[sessions.bad]\nsetup = ["false"]\n[sessions.good]\n')
    said = repository.apply(code=1)
    assert "done    good: create" in said.out and "failed  bad" in said.out
    assert repository.session("good")["observed"] == "running"


def test_what_an_agent_writes_cannot_steer_the_terminal(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    repository.apply()
    repository.inside("api", r"touch $(printf 'a\033]52;c;eHg=\007b'); git checkout -q -b $(printf 'x\302\233y')")
    for command in (["ls"], ["status", "api"], ["log"], ["plan"], ["prune", "--dry-run"]):
        said = repository.run(*command)
        assert all(char.isprintable() or char == "\n" for char in said.out)


def test_apply_takes_only_declared_names(repository: Repository) -> None:
    repository.declare("[sessions.api]\n[sessions.web]\n")
    repository.apply("web")
    assert [repository.session(name)["observed"] for name in ("api", "web")] == ["gone", "running"]
    assert "did you mean web" in repository.run("apply", "--yes", "wob", code=2).err
    repository.declare("[sessions.api]\n")
    assert "prune web" in repository.run("apply", "--yes", "web", code=2).err


def test_apply_asks_and_without_anybody_to_ask_does_nothing(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    assert "--yes" in repository.run("apply", code=2).err
    assert repository.session("api")["observed"] == "gone"


def test_count_makes_a_fleet(repository: Repository) -> None:
    repository.declare("[sessions.api]\ncount = 3\n")
    repository.apply()
    names = [each["name"] for each in repository.run("ls", "--json", "api-").json["sessions"]]
    assert names == ["api-1", "api-2", "api-3"]
    repository.declare("[sessions.api]\ncount = 2\n")
    assert repository.run("plan").out.startswith("· api-3  retained")


def test_include_brings_untracked_files(repository: Repository) -> None:
    (repository.root / ".env").write_text("KEY=1\n")
    repository.declare('[sessions.api]\nworkspace = { include = [".env"] }\n')
    repository.apply()
    assert repository.inside("api", "cat .env").out == "KEY=1\n"


def test_a_linked_worktree_sees_the_same_sessions(repository: Repository, tmp_path: Path) -> None:
    repository.declare("[sessions.api]\n")
    git(repository.root, "add", "sessions.toml")
    git(repository.root, "commit", "-qm", "declare")
    repository.apply()
    git(repository.root, "worktree", "add", "-q", str(tmp_path / "linked"))
    assert repository.run("-C", str(tmp_path / "linked"), "plan", "--exit-code").out.startswith("In sync")


def test_git_variables_of_a_hook_lead_nowhere_else(repository: Repository, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    misleading = {"GIT_DIR": str(other / ".git"), "GIT_WORK_TREE": str(other), "GIT_INDEX_FILE": "nowhere"}
    repository.declare("[sessions.api]\n")
    repository.run("apply", "--yes", env=misleading)
    repository.run("exec", "api", "--", "git", "commit", "-q", "--allow-empty", "-m", "x", env=misleading)
    repository.run("fetch", "api", env=misleading)
    assert git(repository.root, "log", "-1", "--format=%s", "agents/api") == "x"


def test_doctor_says_what_it_looked_at(repository: Repository) -> None:
    repository.declare("[sessions.api]\n")
    checks = repository.run("doctor", "--json").json
    assert all(check["ok"] and check["what"] and "remedy" in check for check in checks)
    (repository.root / "sessions.toml").write_text("version = 2\n")
    assert "NO  manifest" in repository.run("doctor", code=1).out


def test_a_trial_that_was_killed_is_taken_away_by_the_next(repository: Repository) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    state = Path(os.environ["SESSIONCTL_STATE_DIR"])
    left, others = (state / f".sessionctl-probe-{pid}-x" for pid in (ended.pid, os.getpid()))
    left.mkdir()
    others.mkdir()
    repository.run("doctor")
    assert not left.exists() and others.exists()
    others.rmdir()


def test_commands_in_one_process_keep_nothing_open(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """As tests and programs call `main`: what a command opened must not stay for as long as they live."""
    from sessionctl.cli import main

    repository.declare("[sessions.api]\n")
    repository.apply()
    monkeypatch.chdir(repository.root)

    def is_open() -> int:
        main(["ls"])
        main(["plan"])
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    before = is_open()
    assert [is_open() for _ in range(3)] == [before] * 3


def test_help_is_there_for_every_command_and_examples_parse(repository: Repository) -> None:
    overview = repository.run("--help").out
    assert repository.run(code=2).out == overview
    assert "did you mean `sessionctl plan`" in repository.run("plann", code=2).err
    from sessionctl.cli import COMMANDS

    for name in COMMANDS:
        assert name in overview
        assert "examples:" in repository.run(*name.split(), "--help").out
