#!/usr/bin/env bash
# Installs the agent from the archive ARCHIVE of wheels as on a host without an index, and has two
# such agents run a test. Meant for a network namespace of its own, in which it sets up loopback. The
# Manager and the test are those of this tree, run with PYTHON. Files go to DIRECTORY.
# Usage: unshare --net without_network.sh ARCHIVE PYTHON DIRECTORY
set -euo pipefail
archive=$1 python=$2 directory=$3
wheels=$(basename "$archive" .tar)
tree=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
cd "$directory"
trap 'jobs -p | xargs -r kill 2>/dev/null || true; wait' EXIT

# Neither this shell's settings, nor pip's configuration and cache.
clean() {
    env -i HOME="$directory" PATH="$PATH" PIP_CONFIG_FILE=/dev/null "$@"
}

ip link set lo up
tar --extract --file "$archive"
"$python" -m venv venv
clean venv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --no-index \
    --find-links "$wheels" --constraint "$wheels/${wheels%-wheels-*}-constraints.txt" \
    iperf-orchestrator-agent

export MANAGER_URL=http://127.0.0.1:8000 ADMIN_PASSWORD=only-for-trials
(cd "$tree" && exec "$python" -m agent.dev --admin-password "$ADMIN_PASSWORD" \
    --agent agent1:key-of-agent1 --agent agent2:key-of-agent2) >manager.log 2>&1 &
for name in agent1 agent2; do
    clean MANAGER_URL="$MANAGER_URL" AGENT_NAME="$name" AGENT_KEY="key-of-$name" \
        timeout 60 venv/bin/agent-run >"$name.log" 2>&1 &
done
"$python" "$tree/deployment/trial.py" || { cat ./*.log >&2; exit 1; }
