#!/bin/sh
# Stands in for the shell of the Makefile's recipes, and has shellcheck look at each line instead of
# running it:
#     make --always-make SHELL=tests/support/recipe_check.sh TARGET...
# Usage: recipe_check.sh -c LINE
set -eu
if ! printf '%s\n' "$2" | .venv/bin/shellcheck --shell=sh -; then
    printf 'in the recipe line: %s\n' "$2" >&2
    exit 1
fi
