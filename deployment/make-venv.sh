#!/bin/sh
# Creates the virtual environment DIR with the first Python that works and is 3.11 or newer.
# Usage: make-venv.sh DIR
set -eu
directory=$1

for python in python3 python3.13 python3.12 python3.11 none; do
    # A command that exists may still fail: pyenv has one for each version it ever installed.
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi
done

if [ "$python" = none ]; then
    cat >&2 <<'REMEDY'
Python 3.11 or newer is needed. None of python3, python3.13, python3.12 and python3.11 is that new.
Install one, then try again:

    Debian 12, Ubuntu 24.04 and newer   apt-get install python3 python3-venv
    Fedora                              dnf install python3
    Alpine                              apk add python3
    macOS                               brew install python@3.13
REMEDY
    exit 1
fi

# venv needs ensurepip, which Debian has in a separate package.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    "$(dirname "$0")/install-package.sh" "$python-venv"
fi
exec "$python" -m venv --clear "$directory"
