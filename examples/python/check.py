"""Runs a check in every session that has commits of its own, and fetches those that pass."""

import sys

from sessionctl import Project, SessionctlError

CHECK = ("python3", "-c", "import src.app; assert src.app.main() == 'hello'")


def main() -> int:
    project, failed = Project("."), 0
    for session in project.sessions():
        if session.status != "running" or not session.git.ahead:
            print(f"{session.name}: nothing to check")
            continue
        try:
            run = project.exec(session.name, CHECK, timeout=60.0)
            if run.code == 0:
                print(f"{session.name}: {project.fetch(session.name).reason}")
                continue
            why = run.stderr.decode("utf-8", "backslashreplace").splitlines()[-1:]
        except SessionctlError as error:
            why = [str(error)]
        print(f"{session.name}: not fetched: {ascii(*why)}")
        failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
