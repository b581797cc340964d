#!/usr/bin/env bash
# Installs the agent in each documented way, in fresh environments made with PYTHON from a copy
# of the tree, and tries what came of it. PYTHON's environment has what `make dist` needs.
# Usage: run.sh PYTHON
set -euo pipefail
python=$(realpath "$1")
tools=$(realpath "$(dirname "$1")/..")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
work=$(mktemp -d)
trap 'jobs -p | xargs -r kill 2>/dev/null || true; rm -rf "$work"' EXIT
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

# The wheel brought to the directory $1 the marker of its types, the units, the licence, and who they
# are for.
has_what_a_package_has() {
    local about=$1/iperf_orchestrator_agent-$version.dist-info
    [ -f "$1/agent/py.typed" ] || fail "the wheel has no agent/py.typed"
    for unit in iperf-agent.service iperf-agent@.service logrotate.conf; do
        diff "deployment/$unit" "$1/agent/units/$unit" >&2 || fail "the wheel's $unit is another"
    done
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

# What is to be released, built from one commit in two places by users with other habits. The second
# has a signature in its commit, which does not hold, and settings of git, uv and pip.
release_built_twice() {
    local tree=$work/release-tree other=$work/other-tree settings=$work/gitconfig
    tests/support/committed_copy.sh "$tree"
    printf '[core]\nautocrlf = true\n[log]\nshowSignature = true\n' >"$settings"
    GIT_CONFIG_GLOBAL=$settings git clone --quiet "$tree" "$other"
    git -C "$other" cat-file commit HEAD |
        sed '/^committer /a gpgsig -----BEGIN SSH SIGNATURE-----\n -----END SSH SIGNATURE-----' |
        git -C "$other" hash-object -t commit -w --stdin | xargs git -C "$other" update-ref HEAD
    printf '[pip]\nno-binary = [":all:"]\n' >"$other/uv.toml"
    (umask 077 && TZ=Asia/Tokyo GIT_CONFIG_GLOBAL=$settings UV_VENV_SEED=1 PIP_PLATFORM=win_amd64 \
        "$other/deployment/dist.sh" "$tools" "$work/other") >"$work/log" 2>&1 &
    "$tree/deployment/dist.sh" "$tools" "$dist" >/dev/null
    wait $! || { cat "$work/log" >&2; fail "the second build"; }
    diff -r "$dist" "$work/other" >&2 || fail "two builds of one commit differ"
    (cd "$dist" && sha256sum --check --quiet --strict SHA256SUMS) || fail "SHA256SUMS"
    diff <(cd "$dist" && printf '%s\n' * | grep -vx SHA256SUMS) <(cut -c 67- "$dist/SHA256SUMS") >&2 ||
        fail "SHA256SUMS lists other files than there are"
}

# The names and versions that pip, a list or an SBOM has, all spelt the same.
normalized() {
    tr '[:upper:]_.' '[:lower:]--' | sed 's/-*==/==/' | sort
}

# The SBOM has what the constraints pin, and each archive has it for each Python.
with_parts_that_agree() {
    local pinned processor archive
    pinned=$(normalized <"$constraints")
    diff <(echo "$pinned") <("$python" -c '
import json, sys
for part in json.load(sys.stdin)["components"]:
    print(part["name"], part["version"], sep="==")' <"$prefix-sbom.cdx.json" | normalized) >&2 ||
        fail "the SBOM does not have what the constraints pin"
    "$python" -c '
import json, sys
assert json.load(sys.stdin)["metadata"]["component"]["purl"] == sys.argv[1]' \
        "pkg:pypi/iperf-orchestrator-agent@$version" <"$prefix-sbom.cdx.json" ||
        fail "the SBOM does not name the agent as scanners do"
    for processor in x86_64 aarch64; do
        archive=$work/$processor
        mkdir "$archive"
        tar --extract --directory "$archive" --strip-components=1 \
            --file "$prefix-wheels-$processor.tar"
        for version_of_python in 3.11 3.12 3.13; do
            agent env PIP_CONFIG_FILE=/dev/null "$tools/bin/pip" install --quiet --dry-run \
                --target "$work/none" --no-index --find-links "$archive" --only-binary=:all: \
                --platform "manylinux_2_28_$processor" --platform "manylinux_2_24_$processor" \
                --platform "manylinux2014_$processor" --python-version "$version_of_python" \
                iperf-orchestrator-agent || fail "wheels for $processor, Python $version_of_python"
        done
    done
}

# pip in the directory $1 installs what the constraints $2 pin, whatever is there.
pins() {
    "$1/pip" install --quiet --constraint "$2" "$wheel"
    diff <(normalized <"$2") \
        <("$1/pip" freeze --exclude iperf-orchestrator-agent | normalized) >&2 ||
        fail "pip did not install what $2 pins"
}

with_constraints() {
    local bin=$work/constrained/bin older=$work/older.txt
    # An upgrade from the release before, which might have had this, and the way back.
    sed 's/^idna==.*/idna==3.10/' "$constraints" >"$older"
    "$python" -m venv "$work/constrained"
    pins "$bin" "$older"
    pins "$bin" "$constraints"
    pins "$bin" "$older"
    pins "$bin" "$constraints"
    works_without_flask "$bin/agent-run"
    has_what_a_package_has "$work"/constrained/lib/python3*/site-packages
    completes "$work"/constrained/lib/python3*/site-packages/agent/completion
    "$bin/pip" install --quiet --constraint "$constraints" "${wheel}[dev]"
    works_with_flask "$bin/agent-run"
}

# bash completes a command with what the wheel has in the directory $1.
completes() {
    local found
    found=$(agent env PATH="$work/constrained/bin:$PATH" bash -s "$1" <<'SCRIPT'
. "$1/agent-run.bash"
COMP_WORDS=(agent-run --manager-u) COMP_CWORD=1
_agent_run_completion agent-run
echo "${COMPREPLY[@]}"
SCRIPT
    )
    [ "$found" = --manager-url ] || fail "bash completes --manager-u to: $found"
    grep -qx '#compdef agent-run' "$1/_agent-run" || fail "no completion for zsh"
    grep -q 'complete .*--command agent-run' "$1/agent-run.fish" || fail "no completion for fish"
}

with_sdist() {
    local bin=$work/source/bin
    "$python" -m venv "$work/source"
    "$bin/pip" install --quiet --constraint "$constraints" "$prefix_of_package.tar.gz[dev]"
    works_with_flask "$bin/agent-run"
    diff -r --exclude __pycache__ "$work"/{constrained,source}/lib/python3*/site-packages/agent >&2 ||
        fail "the source package installs something else than the wheel"
}

# What docs/release.md makes an index of is one for pip.
with_an_index_of_ones_own() {
    local bin=$work/indexed/bin index=$work/index port=
    cp -r "$dist" "$index"
    (cd "$index" && bash -eu) < <(sed -n '/^## Publishing/,/^## /s/^    //p' docs/release.md)
    "$python" -u -m http.server --directory "$index" --bind 127.0.0.1 0 >"$work/served" 2>&1 &
    until [ "$port" ]; do
        sleep 0.1
        port=$(sed -n 's/.* port \([0-9]*\) .*/\1/p' "$work/served")
    done
    "$python" -m venv "$work/indexed"
    agent env PIP_CONFIG_FILE=/dev/null "$bin/pip" install --quiet --no-cache-dir \
        --index-url "http://127.0.0.1:$port/simple" "iperf-orchestrator-agent==$version" \
        --constraint "http://127.0.0.1:$port/iperf-agent-$version-constraints.txt"
    kill $!
    works_without_flask "$bin/agent-run"
}

with_wheels_and_no_network() {
    local isolated=(unshare --net)
    [ "$(id -u)" -eq 0 ] || isolated+=(--map-root-user)
    mkdir "$work/offline"
    "${isolated[@]}" tests/install/without_network.sh "$prefix-wheels-$(uname -m).tar" \
        "$tools/bin/python" "$work/offline" || fail "the archive of wheels without a network"
}

dist=$work/dist
prefix=$dist/iperf-agent-$version
prefix_of_package=$dist/iperf_orchestrator_agent-$version
constraints=$prefix-constraints.txt
wheel=$prefix_of_package-py3-none-any.whl
for way in with_requirements with_pip with_poetry release_built_twice with_parts_that_agree \
    with_constraints with_sdist with_an_index_of_ones_own with_wheels_and_no_network; do
    "$way"
    echo "test-install: $way works"
done
