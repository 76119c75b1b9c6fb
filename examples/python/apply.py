"""What `sessionctl apply --yes [NAME ...]` does, in Python."""

import sys

import sessionctl


def main(names: list[str]) -> int:
    try:
        project = sessionctl.Project(".")
        project.recover()
        plan = project.plan(names)
        print(sessionctl.plan_text(plan))
        # What is declared and cannot be had here is in the plan, and nothing of it is carried out then.
        outcomes = () if plan.refused else project.apply(plan)
    except sessionctl.SessionctlError as error:
        print(f"error: {error}\n  {error.hint}", file=sys.stderr)
        return error.exit_code
    if outcomes:
        print(sessionctl.outcomes_text(plan, outcomes))
    return plan.exit_code(outcome.result for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
