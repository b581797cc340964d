#!/usr/bin/env bash
# Builds a release of the commit that is checked out, with the tools in the virtual environment VENV,
# and makes DIRECTORY of it. docs/release.md says what each file is for.
# The same commit gives the same bytes, as long as the index has the same wheels.
# Usage: dist.sh VENV DIRECTORY
set -euo pipefail
bin=$(realpath "$1")/bin
directory=$(realpath --canonicalize-missing "$2")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Nothing in a file comes from this shell: neither the order of names, nor modes, nor the time.
export LC_ALL=C TZ=UTC
# Settings of uv can add pip to the SBOM, and PIP_PLATFORM another system's wheels to the archives.
unset "${!UV_@}" PIP_PLATFORM
export UV_NO_CONFIG=1
umask 022
if ! git diff --quiet HEAD; then
    echo "dist: commit first, as a release is built from a commit" >&2
    exit 1
fi
SOURCE_DATE_EPOCH=$(git log -1 --no-show-signature --format=%ct)
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
out=$work/dist
mkdir "$tree" "$out"
git archive HEAD | tar --extract --directory "$tree"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$tree/pyproject.toml")
# Not the package's name: with --find-links, pip would take the archives for source packages.
prefix=iperf-agent-$version

# A package of any Python has the completion that click generates.
write_completion() {
    local shell name
    mkdir "$tree/agent/completion"
    for shell in bash zsh fish; do
        case $shell in zsh) name=_agent-run ;; *) name=agent-run.$shell ;; esac
        (cd "$tree" && _AGENT_RUN_COMPLETE=${shell}_source "$bin/python" -m agent) \
            >"$tree/agent/completion/$name"
    done
}

# The requirements of Linux and macOS as they are locked, one on each line.
write_constraints() {
    sed -n "/sys_platform == 'win32'/d; s/^\([a-z0-9-]*==[^ ]*\).*/\1/p" "$tree/requirements.txt" \
        >"$out/$prefix-constraints.txt"
}

# An archive for the processor $1 of all wheels, the agent's among them, and the constraints: from
# it pip installs without an index. pip takes each platform at its word: so there is one for each
# glibc from 2.17, the oldest that wheels of today are for, to 2.28, which Debian 11 and Red Hat 8
# already surpass.
write_wheels() {
    local name=$prefix-wheels-$1 glibc python platforms=()
    for glibc in {28..17}; do platforms+=(--platform "manylinux_2_${glibc}_$1"); done
    platforms+=(--platform "manylinux2014_$1")
    mkdir "$work/$name"
    cp "$out"/*.whl "$out/$prefix-constraints.txt" "$work/$name"
    for python in 3.11 3.12 3.13; do
        "$bin/pip" download --quiet --disable-pip-version-check --only-binary=:all: --no-deps \
            --python-version "$python" "${platforms[@]}" --dest "$work/$name" \
            --requirement "$out/$prefix-constraints.txt"
    done
    # Wheels are compressed already.
    tar --create --file "$out/$name.tar" --directory "$work" --sort=name --format=gnu \
        --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX "$name"
}

# What is installed beside the agent, with licences, as it is said by the packages themselves.
write_sbom() {
    "$bin/uv" venv --quiet --python "$bin/python" "$work/installed"
    "$bin/uv" pip install --quiet --python "$work/installed" --no-index \
        --find-links "$work/$prefix-wheels-$(uname -m)" --requirement "$out/$prefix-constraints.txt"
    # It would look for the name in [tool.poetry].
    sed '/^\[tool\./,$d' "$tree/pyproject.toml" >"$work/pyproject.toml"
    "$bin/cyclonedx-py" environment --output-reproducible --pyproject "$work/pyproject.toml" \
        --output-file "$out/$prefix-sbom.cdx.json" "$work/installed/bin/python"
    # By its purl a scanner knows a package. The agent itself gets none from the tool.
    sed -i "s|\"name\": \"iperf-orchestrator-agent\",|& \"purl\": \"pkg:pypi/iperf-orchestrator-agent@$version\",|" \
        "$out/$prefix-sbom.cdx.json"
}

write_completion
"$bin/uv" build --quiet --no-build-isolation --python "$bin/python" --out-dir "$out" "$tree"
rm -f "$out/.gitignore"
write_constraints
write_wheels x86_64
write_wheels aarch64
write_sbom
(cd "$out" && sha256sum -- * >SHA256SUMS)
mv --no-target-directory "$out" "$directory"
echo "$directory: $version of $(git rev-parse --short HEAD)"
