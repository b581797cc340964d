#!/usr/bin/env bash
# Runs a pytest command. Under .ci/run, where many tests share few cores, what failed runs once more
# by itself, and AGAIN, a file, gets the names for the last lines. A test that fails twice fails.
#
#     tests/support/failed_again.sh PART pytest ARGUMENT...
set -uo pipefail
part=$1
shift
cache=$PWD/.venv/pytest/$part
"$@" -o cache_dir="$cache"
result=$?
# pytest ends with 1 where tests failed, and with more where it could not run them.
[ "$result" -eq 1 ] && [ -n "${AGAIN:-}" ] || exit "$result"
failed=$(python3 -c 'import json, sys; print(*json.load(sys.stdin), sep="\n")' \
    <"$cache/v/cache/lastfailed") || exit 1
echo "=== once more, what failed: $failed"
"$@" -o cache_dir="$cache" --last-failed --cov-append || exit 1
echo "$failed" >>"$AGAIN"
