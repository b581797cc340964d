#!/bin/sh
# Writes the agent's metrics to a file for node_exporter's textfile collector. cron runs it, see
# docs/metrics.md.
#
#     textfile.sh DIRECTORY [URL]
set -eu
file=$1/iperf-agent.prom
# The collector reads only names that end in .prom, so it never sees half a file.
fresh=$file.$$
trap 'rm -f "$fresh"' EXIT
if curl --fail --silent --show-error --noproxy '*' --max-time 20 --output "$fresh" \
    "${2:-http://127.0.0.1:9201/metrics}"; then
    chmod 0644 "$fresh"
    mv "$fresh" "$file"
else
    code=$?
    # No figures are better than old ones that look new.
    rm -f "$file"
    exit "$code"
fi
