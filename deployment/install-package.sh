#!/bin/sh
# Installs packages if run as root on Debian or Ubuntu. Otherwise prints the command to install them,
# and exits with 1.
# Usage: install-package.sh NAME...
set -eu
names=$*

has() {
    command -v "$1" >/dev/null
}

if [ "$(id -u)" -eq 0 ] && has apt-get; then
    echo "missing: $names; installing with apt-get" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet
    apt-get install --yes --quiet --no-install-recommends "$@"
    exit 0
fi

sudo=
if [ "$(id -u)" -ne 0 ]; then sudo="sudo "; fi
if has apt-get; then
    remedy="${sudo}apt-get install $names"
elif has dnf; then
    remedy="${sudo}dnf install $names"
elif has apk; then
    remedy="${sudo}apk add $names"
elif has brew; then
    remedy="brew install $names"
else
    echo "missing: $names. Install with your package manager, then try again." >&2
    exit 1
fi
printf 'missing: %s. Install with\n\n    %s\n\nthen try again.\n' "$names" "$remedy" >&2
exit 1
