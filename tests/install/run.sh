#!/usr/bin/env bash
# Installs the agent in each documented way, in fresh environments made with PYTHON from a copy
# of the tree, and tries what came of it.
# Usage: run.sh PYTHON
set -euo pipefail
python=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/elsewhere" "$work/home"
# Poetry would install into an environment that happens to be active.
unset VIRTUAL_ENV CONDA_PREFIX

fail() {
    echo "test-install: $*" >&2
    exit 1
}

# Copies what git tracks, or would track, to the directory $1.
copy_tree() {
    mkdir "$1"
    git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - | tar -xf - -C "$1"
}

# Runs the agent away from the tree and without this shell's settings.
agent() {
    (cd "$work/elsewhere" && exec env -i HOME="$work/home" PATH="$PATH" timeout 60 "$@")
}

# The command $@ says pyproject.toml's version and nothing else, as none of the copies is a git tree;
# it knows its options, and without Flask refuses --dev as the wrong configuration (sysexits: 78).
works_without_flask() {
    local status=0
    agent "$@" --version | grep -xF "agent-run, version $version" >/dev/null ||
        fail "$*: --version does not say $version alone"
    agent "$@" --help | grep -F -e --manager-url >/dev/null || fail "$*: --help lists no options"
    agent "$@" --dev >"$work/log" 2>&1 || status=$?
    [ "$status" -eq 78 ] || { cat "$work/log" >&2; fail "$*: --dev without Flask: code $status, not 78"; }
}

# With Flask the command $@ runs against its own Manager until it is idle.
works_with_flask() {
    local status=0
    agent "$@" --dev --exit-after-idle 1 >"$work/log" 2>&1 || status=$?
    [ "$status" -eq 0 ] || { cat "$work/log" >&2; fail "$*: --dev --exit-after-idle 1: code $status"; }
}

# The wheel brought to the directory $1 the marker of its types, the licence, and who they are for.
has_what_a_package_has() {
    local about=$1/iperf_orchestrator_agent-$version.dist-info
    [ -f "$1/agent/py.typed" ] || fail "the wheel has no agent/py.typed"
    diff LICENSE "$about/licenses/LICENSE" >&2 || fail "the wheel's licence is not LICENSE"
    for line in "Version: $version" "License-Expression: MIT"; do
        grep -xF "$line" "$about/METADATA" >/dev/null || fail "the wheel's metadata have no $line"
    done
}

# The index that the pip in the directory $1 reads.
index_of() {
    local usual='from pip._internal.models.index import PyPI; print(PyPI.simple_url)'
    echo "${PIP_INDEX_URL:-$("$1/pip" config get global.index-url 2>/dev/null ||
        "$1/python" -c "$usual")}"
}

with_requirements() {
    local bin=$work/requirements/bin tree=$work/requirements-tree
    copy_tree "$tree"
    "$python" -m venv "$work/requirements"
    "$bin/pip" install --quiet -r "$tree/requirements.txt"
    works_without_flask "$bin/python" "$tree/agent.py"
    "$bin/pip" install --quiet -c "$tree/requirements-dev.txt" flask
    works_with_flask "$bin/python" "$tree/agent.py"
}

with_pip() {
    local bin=$work/pip/bin tree=$work/pip-tree
    copy_tree "$tree"
    "$python" -m venv "$work/pip"
    "$bin/pip" install --quiet "$tree"
    works_without_flask "$bin/agent-run"
    works_without_flask "$bin/python" -m agent
    has_what_a_package_has "$work"/pip/lib/python3*/site-packages
    "$bin/pip" install --quiet "${tree}[dev]"
    works_with_flask "$bin/agent-run"
}

with_poetry() {
    local tree=$work/poetry-tree
    local poetry=("$work/poetry/bin/poetry" --directory "$tree" --no-interaction)
    local agent_run=$tree/.venv/bin/agent-run
    # Without a keyring Poetry does not wait for a desktop's.
    export POETRY_VIRTUALENVS_IN_PROJECT=true PYTHON_KEYRING_BACKEND=keyring.backends.null.Keyring
    copy_tree "$tree"
    "$python" -m venv "$work/poetry"
    "$work/poetry/bin/pip" install --quiet poetry
    # Poetry's own source reads an interface that mirrors seldom have; pip's is the one that all have.
    "${poetry[@]}" source add --priority=primary simple "$(index_of "$work/poetry/bin")"
    "${poetry[@]}" install
    works_without_flask "$agent_run"
    "${poetry[@]}" install --extras dev
    works_with_flask "$agent_run"
}

for way in with_requirements with_pip with_poetry; do
    "$way"
    echo "test-install: $way works"
done
