#!/bin/sh
# Installs the package NAME if run as root on Debian or Ubuntu. Otherwise prints the command to
# install it, and exits with 1.
# Usage: install-package.sh NAME
set -eu
name=$1

has() {
    command -v "$1" >/dev/null
}

if [ "$(id -u)" -eq 0 ] && has apt-get; then
    echo "$name is missing; installing it with apt-get" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet
    apt-get install --yes --quiet --no-install-recommends "$name"
    exit 0
fi

sudo=
if [ "$(id -u)" -ne 0 ]; then sudo="sudo "; fi
if has apt-get; then
    remedy="${sudo}apt-get install $name"
elif has dnf; then
    remedy="${sudo}dnf install $name"
elif has apk; then
    remedy="${sudo}apk add $name"
elif has brew; then
    remedy="brew install $name"
else
    echo "$name is missing. Install it with your package manager, then try again." >&2
    exit 1
fi
printf '%s is missing. Install it with\n\n    %s\n\nthen try again.\n' "$name" "$remedy" >&2
exit 1
