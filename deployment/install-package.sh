#!/bin/sh
# Installs the package NAME as root on Debian and Ubuntu; anywhere else prints the command that
# does it and ends with exit code 1.
# Usage: install-package.sh NAME
set -eu
name=$1

has() {
    command -v "$1" >/dev/null
}

if [ "$(id -u)" -eq 0 ] && has apt-get; then
    echo "$name is missing: installing it with apt-get" >&2
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
    echo "$name is missing: install it with this system's package manager, then try again" >&2
    exit 1
fi
printf '%s is missing. Install it with\n\n    %s\n\nthen try again.\n' "$name" "$remedy" >&2
exit 1
