"""A manifest is somebody else's code: what it takes from the host, a person has to have seen and allowed."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from sessionctl import settings, trust
from sessionctl.errors import StoreError, UsageError
from sessionctl.trust import Trust
from tests.command import Repository, git
from tests.worlds import TAKES, A

SECRET = {"MY_TOKEN": "token of a variable"}
MOUNT = '[sessions.api]\nmounts = [{{ source = "../{}", path = "/data", mode = "rw" }}]\n'
BOTH = (
    '[sessions.api]\nmounts = [{ source = "../data", path = "/data", mode = "rw" }]\n'
    'env = { TOKEN = { from_env = "MY_TOKEN" } }\n[sessions.plain]\n'
)


@pytest.fixture
def outside(repository: Repository) -> Path:
    """Directories beside the repository that sandboxes may write, as far as the kernel is asked."""
    place = repository.root.parent.resolve()
    for name in ("data", "other"):
        (place / name).mkdir()
        (place / name).chmod(0o777)
    return place


def written(repository: Repository) -> Path:
    return repository.state / "trusted"


# --- trusting ----------------------------------------------------------------------------------


def test_what_was_trusted_is_applied_and_nothing_more(repository: Repository, outside: Path) -> None:
    lines = [f"mounts./data: {outside}/data, writable", "env.TOKEN: the variable MY_TOKEN"]
    repository.declare(BOTH)
    shown = repository.run("trust", "--show", code=5)
    assert all(f"  + {line}  (not trusted)\n" in shown.out for line in lines) and "plain" not in shown.out
    said = repository.run("trust", "--yes")
    assert all(f"  + {line}  (not trusted)\n" in said.out for line in lines)
    assert stat.S_IMODE(written(repository).stat().st_mode) == 0o600
    assert "not trusted" not in repository.run("trust", "--show").out
    assert "trusted already" in repository.run("trust").out

    plan = repository.run("plan", "--json").json
    (api, _) = plan["changes"]
    assert (api["takes"], api["untrusted"], plan["blocked"]) == (lines, [], []) and api["actions"]
    repository.apply()
    assert repository.run("exec", "api", "--", "printenv", "TOKEN", env=SECRET).out == "token of a variable\n"
    (event,) = [
        json.loads(line) for line in repository.run("log", "api", "--json").out.splitlines() if '"trust"' in line
    ]
    assert event["reason"] == "; ".join(lines)

    repository.declare(BOTH.replace("MY_TOKEN", "OTHER"))
    refused = repository.apply(code=5)
    assert "env.TOKEN: the variable OTHER" in refused.err and "mounts./data" not in refused.err
    changed = repository.run("trust", "--show", code=5).out
    assert "  + env.TOKEN: the variable OTHER  (not trusted)\n" in changed
    assert f"    {lines[0]}\n" in changed and f"  - {lines[1]}  (not taken any more)\n" in changed


def test_trust_is_in_what_a_link_leads_to(repository: Repository, outside: Path) -> None:
    (outside / "link").symlink_to("data")
    repository.declare(MOUNT.format("link"))
    assert f"{outside}/data, writable" in repository.run("trust", "--yes").out
    (outside / "link").unlink()
    (outside / "link").symlink_to("other")
    assert f"{outside}/other, writable" in repository.apply(code=5).err
    assert repository.session("api")["observed"] == "gone"


def test_trust_in_one_session_is_none_in_another(repository: Repository, outside: Path) -> None:
    repository.declare(MOUNT.format("data") + MOUNT.format("data").replace("api", "web"))
    repository.run("trust", "--yes", "api")
    refused = repository.apply(code=5)
    assert "web would take" in refused.err and "api" not in refused.err
    assert [repository.session(name)["observed"] for name in ("api", "web")] == ["running", "gone"]
    assert "there is no session wbe" in repository.run("trust", "wbe", code=2).err


def test_what_is_not_taken_any_more_is_not_trusted_when_it_comes_back(repository: Repository, outside: Path) -> None:
    repository.declare(MOUNT.format("data"))
    repository.run("trust", "--yes")
    repository.declare(MOUNT.format("other"))
    repository.run("trust", "--yes")
    repository.declare(MOUNT.format("data"))
    assert f"{outside}/data" in repository.apply(code=5).err


@pytest.mark.parametrize("words", [("apply", "--no-input"), ("apply",), ("apply", "--yes")], ids=" ".join)
def test_who_cannot_be_asked_is_refused_with_5(repository: Repository, outside: Path, words: tuple[str, ...]) -> None:
    repository.declare(BOTH)
    refused = repository.run(*words, code=5)
    assert "sessionctl trust api" in refused.err
    assert repository.session("api")["observed"] == "gone"
    assert repository.session("plain")["observed"] == ("running" if "--yes" in words else "gone")
    assert "nobody to ask" in repository.run("trust", "--no-input", code=2).err
    assert repository.run("trust", "--show", "--json", code=5).json["trusted"] is False


def test_allow_host_is_for_one_apply(repository: Repository, outside: Path) -> None:
    repository.declare(MOUNT.format("data"))
    repository.apply("--allow-host")
    assert not written(repository).exists()
    assert "(not trusted)" in repository.run("trust", "--show", code=5).out


# --- taking back -------------------------------------------------------------------------------


def test_what_was_revoked_is_not_given_again(repository: Repository, outside: Path) -> None:
    repository.declare(BOTH)
    repository.run("trust", "--yes")
    repository.apply()
    said = repository.run("trust", "--revoke")
    assert "api runs with what it was allowed before: sessionctl stop api" in said.out
    assert "what was revoked: env.TOKEN" in repository.run("exec", "api", "--", "true", code=125, env=SECRET).err
    repository.run("exec", "-e", "TOKEN=mine", "api", "--", "true")
    repository.inside("plain", "true")
    repository.run("stop", "api")
    assert "what was revoked: mounts./data" in repository.run("start", "api", code=5).err
    assert "mounts./data" in repository.apply(code=5).err
    assert repository.session("api")["observed"] == "stopped"

    repository.run("trust", "--yes")
    repository.apply()
    repository.run("exec", "api", "--", "true", env=SECRET)


def test_one_session_is_revoked_and_the_others_stay(repository: Repository, outside: Path) -> None:
    repository.declare(MOUNT.format("data") + MOUNT.format("data").replace("api", "web"))
    repository.apply("--allow-host")
    repository.run("trust", "--revoke", "web")
    repository.run("stop", "api", "web")
    assert "web would take" in repository.apply(code=5).err
    assert [repository.session(name)["observed"] for name in ("api", "web")] == ["running", "stopped"]
    repository.apply("--allow-host")
    repository.run("stop", "web")
    repository.run("start", "web")


# --- the file ----------------------------------------------------------------------------------

LINES = frozenset({"network: the host's"})


def test_what_is_said_is_kept_and_read_again(tmp_path: Path) -> None:
    assert trust.load(str(tmp_path)) == Trust()
    said = Trust().trusting({"api": LINES, "web": LINES}).revoking(["web"], {"web": LINES | {"x"}})
    assert said == Trust({"api": LINES}, {"web": LINES | {"x"}})
    trust.save(str(tmp_path), said)
    assert trust.load(str(tmp_path)) == said
    assert said.granting({"web": LINES}) == Trust({"api": LINES}, {"web": frozenset({"x"})})
    assert said.trusting({"web": LINES | {"x"}, "api": frozenset()}) == Trust({"web": LINES | {"x"}}, {})
    assert said.renamed("web", "new").renamed("api", "old") == Trust({"old": LINES}, {"new": LINES | {"x"}})


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"form": 2, "trusted": {}, "revoked": {}}', '{"form": 1, "trusted": {"../x": []}, "revoked": {}}',
     '{"form": 1, "trusted": {"api": [1]}, "revoked": {}}', '{"form": 1, "trusted": []}'],
)  # fmt: skip
def test_a_damaged_file_trusts_nothing_and_says_so(tmp_path: Path, content: str) -> None:
    (tmp_path / "trusted").write_text(content)
    (tmp_path / "trusted").chmod(0o600)
    with pytest.raises(StoreError, match="is damaged") as caught:
        trust.load(str(tmp_path))
    assert "nothing is trusted then" in caught.value.hint


def test_a_file_that_others_can_write_trusts_nothing(tmp_path: Path) -> None:
    trust.save(str(tmp_path), Trust({"api": LINES}))
    (tmp_path / "trusted").chmod(0o620)
    with pytest.raises(StoreError, match="only you can write"):
        trust.load(str(tmp_path))
    (tmp_path / "trusted").rename(tmp_path / "moved")
    (tmp_path / "trusted").symlink_to("moved")
    with pytest.raises(StoreError, match="cannot be read"):
        trust.load(str(tmp_path))


def test_it_is_read_only_when_something_is_to_be_taken(repository: Repository, outside: Path) -> None:
    repository.declare(BOTH)
    repository.run("trust", "--yes")
    repository.apply()
    written(repository).write_text("damaged")
    repository.run("plan", "--exit-code")
    repository.declare(BOTH + 'title = "changed"\n')
    repository.run("plan", "--exit-code", code=3)
    repository.declare(BOTH.replace("[sessions.plain]", 'title = "changed"\n[sessions.plain]'))
    assert "is damaged" in repository.run("plan", code=1).err


def test_the_lines_of_a_session_that_takes_nothing_are_none() -> None:
    declared = {"api": TAKES.data, "plain": A.data}
    (api,) = trust.takings(declared, Trust())
    assert api.session == "api" and api.new == api.lines and api.gone == ()
    (gone,) = trust.takings({}, Trust({"old": LINES}))
    assert (gone.declared, gone.gone) == (False, tuple(LINES))


# --- who may not write what decides ------------------------------------------------------------


def test_what_decides_what_sessions_are_cannot_be_mounted_writable(repository: Repository, outside: Path) -> None:
    root = repository.root
    (root / "sub").mkdir()
    (root / "files").mkdir()
    (root / "files" / "claude.json").write_text("{}")
    (root / ".env").write_text("A=1\n")
    for path in (Path(os.environ["XDG_CONFIG_HOME"]), Path(os.environ["XDG_CACHE_HOME"]) / "sessionctl"):
        path.mkdir(parents=True, exist_ok=True)
    elsewhere = (
        '[sessions.web]\nfiles = [{ path = "~/.claude.json", source = "files/claude.json" }]\n'
        'workspace = { include = [".env"] }\n'
    )
    for source, words in {
        "sessions.toml": "is or holds the manifest",
        "files": "is or holds a file that goes into web",
        "files/claude.json": "is or holds a file that goes into web",
        ".env": "is or holds a file that goes into web",
        os.environ["XDG_CONFIG_HOME"]: "is or holds your own configuration",
        f"{os.environ['XDG_CACHE_HOME']}/sessionctl": "is or holds the cache of manifests",
        "sub": "",
    }.items():
        mount = f'[sessions.api]\nmounts = [{{ source = "{source}", path = "/data", mode = "MODE" }}]\n{elsewhere}'
        repository.declare(mount.replace("MODE", "rw"))
        said = repository.run("plan", "--allow-host", code=2 if words else 0)
        assert words in said.out, source
        repository.declare(mount.replace("MODE", "ro"))
        repository.run("plan", "--allow-host")


def test_a_linked_worktree_cannot_be_mounted_writable(repository: Repository, outside: Path) -> None:
    git(repository.root, "worktree", "add", "-q", str(outside / "linked"))
    (outside / "linked" / "deep").mkdir()
    text = '[sessions.api]\nmounts = [{{ source = "{}", path = "/data", mode = "rw" }}]\n'
    file = outside / "linked" / "deep" / "sessions.toml"
    for source, words in {"..": "the repository's root", ".": "is or holds the manifest"}.items():
        file.write_text("version = 1\n" + text.format(source))
        said = repository.run("-C", str(file.parent), "plan", "--allow-host", code=2)
        assert words in said.out, source


@pytest.mark.parametrize("mode", ["clone", "empty"])
def test_a_sandbox_cannot_write_the_manifest(repository: Repository, outside: Path, mode: str) -> None:
    repository.declare(
        f'[sessions.api]\nworkspace = {{ mode = "{mode}" }}\n'
        'mounts = [{ source = "../data", path = "/data", mode = "rw" }]\n'
    )
    git(repository.root, "add", "sessions.toml")
    git(repository.root, "commit", "-qm", "manifest")
    repository.run("trust", "--yes")
    repository.apply()
    before = repository.files(repository.root, repository.state / "sessions" / "api")[
        f"{repository.root}/sessions.toml"
    ]
    manifest, trusted = repository.root / "sessions.toml", written(repository)
    said = repository.inside(
        "api",
        "echo x >>/workspace/sessions.toml; echo x >/data/reached\n"
        f"for file in {manifest} {trusted} /data/../demo/sessions.toml; do\n"
        'if echo x >>"$file"; then echo "wrote $file"; fi; if test -e "$file"; then echo "sees $file"; fi; done',
        code=None,  # type: ignore[arg-type]
    )
    assert said.out == "" and (outside / "data" / "reached").exists()
    after = repository.files(repository.root)[f"{repository.root}/sessions.toml"]
    assert after == before
    assert trust.load(str(repository.state)).trusted == {"api": frozenset({f"mounts./data: {outside}/data, writable"})}
    repository.run("plan", "--exit-code")


# --- ceilings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "block", "place"),
    [
        ("mounts=rw", 'mounts = [{ source = "../data", path = "/data", mode = "rw" }]', "mounts[0]"),
        ("mounts=ro", 'mounts = [{ source = "../data", path = "/data" }]', "mounts[0]"),
        ("network=host", 'network = "host"', "network"),
        ("env=from_env", 'env = { T = { from_env = "MY_TOKEN" } }', "env.T"),
        ("env=from_file", 'env = { T = { from_file = "../data/x" } }', "env.T"),
        ("files=outside", 'files = [{ path = "~/.x", source = "../x" }]', "files[0]"),
    ],
)
def test_the_user_may_forbid_more_and_nothing_lifts_it(
    repository: Repository, outside: Path, config: Path, entry: str, block: str, place: str
) -> None:
    (outside / "x").write_text("x")
    repository.declare(f'[sessions.api]\n{block}\n[sessions.web]\nenv = {{ A = "1" }}\n')
    repository.run("trust", "--yes")
    config.write_text(f"forbid = {json.dumps([entry])}\n")
    for words in (("trust", "--yes"), ("plan", "--allow-host"), ("apply", "--yes", "--allow-host")):
        said = repository.run(*words, code=2)
        assert f"sessions.toml:3: sessions.api.{place}: the user config forbids '{entry}', which api has" in said.err
    assert "SESSIONCTL_FORBID: unknown variable" in repository.run("plan", code=2, env={"SESSIONCTL_FORBID": "[]"}).err
    repository.declare('[sessions.web]\nenv = { A = "1" }\n')
    repository.run("plan")


@pytest.mark.parametrize("entry", ["mounts=all", "env=secret", "files=inside", "metadata=x", "limits=x"])
def test_a_prohibition_that_forbids_nothing_is_refused(config: Path, entry: str) -> None:
    config.write_text(f"forbid = {json.dumps([entry])}\n")
    with pytest.raises(UsageError, match="forbids nothing"):
        settings.load()
