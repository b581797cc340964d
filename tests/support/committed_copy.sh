#!/bin/sh
# Copies what git tracks here, or would track, to the new directory DIR and commits it there: for what
# works on a commit, such as deployment/dist.sh, while changes here are not committed yet.
# Usage: committed_copy.sh DIR
set -eu
directory=$1
cd "$(dirname "$0")/../.."
git init --quiet "$directory"
git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - |
    tar -xf - -C "$directory"
cd "$directory"
git add --all --force
git -c user.name=CI -c user.email=ci@localhost commit --quiet --message "A copy to be built"
