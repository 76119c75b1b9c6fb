"""Tasks of a project that has sessions: ``invoke --list``."""

from invoke import Collection, task

from sessionctl.tasks import sessions


@task(help={"name": "a session"})
def check(ctx, name):
    """Run the tests inside a session, and fetch its commits when they pass."""
    sessions["exec"](ctx, name, "python3 -c 'import src.app; assert src.app.main()'", timeout="10m")
    sessions["fetch"](ctx, name)


@task
def ready(ctx):
    """Bring everything up, and make sure of it."""
    sessions["apply"](ctx, yes=True)
    sessions["verify"](ctx)


ns = Collection(check, ready, sessions)
# Relative to where invoke is called, as on the command line; `sessions:` in an invoke.yaml says it too.
ns.configure({"sessions": {"file": "sessions.toml"}})
