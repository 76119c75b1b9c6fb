#!/bin/sh
# A CI job: what the manifest declares is made from this commit, the checks run inside, and nothing is left behind.
# State is in a directory of the job's own. Nothing is asked: what is not allowed or cannot be had here fails.
set -eu

SESSIONCTL_STATE_DIR=$(mktemp -d)
export SESSIONCTL_STATE_DIR
chmod 711 "$SESSIONCTL_STATE_DIR"  # as root, sandboxes run as another user, who must get through
clean_up() {
    sessionctl stop check >/dev/null 2>&1 || true
    chmod -R u+rwx "$SESSIONCTL_STATE_DIR"
    rm -rf "$SESSIONCTL_STATE_DIR"
}
trap clean_up EXIT

sessionctl validate
sessionctl apply --yes --no-input >apply.log || { code=$?; cat apply.log; exit $code; }
sessionctl verify
sessionctl exec check -- python3 -c 'import src.app; assert src.app.main() == "hello"; print("checked")'
