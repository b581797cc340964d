#!/bin/sh
# Does what deployment/docker-compose.yml's first lines say, with images that are built already, in
# a network that nobody else sees. Ends with the test's exit code.
# Usage: unshare --mount --net trial.sh PODMAN-COMPOSE FILE
set -eu
compose="$1 --file $2"
umount /sys/fs/cgroup/unified 2>/dev/null || true
ip link set lo up

# podman leaves the images' health checks to systemd's timers, and there may be no systemd.
while sleep 1; do
    for container in $(podman ps --quiet); do
        podman healthcheck run "$container" >/dev/null 2>&1 || true
    done
done &
checks=$!
code=0
$compose up --no-build --exit-code-from test || code=$?
kill "$checks"
wait "$checks" || true
$compose down --volumes --timeout 40
exit "$code"
