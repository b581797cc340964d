#!/usr/bin/env bash
# Fetches the iperf3 of a newer Debian and unpacks it, with its own libraries, into a directory:
# DIR/iperf3 then runs it. apt checks the signatures and nothing is installed; no root is needed.
# Does nothing when it is there already.
# Usage: newer_iperf3.sh SUITE DIR
set -euo pipefail
suite=$1
mkdir -p "$2"
directory=$(realpath "$2")
# Two test runs may want it at once.
exec 9>"$directory/lock"
flock 9
[ -x "$directory/iperf3" ] && exit
keys=/usr/share/keyrings/debian-archive-keyring.gpg
for needed in apt-get dpkg-deb flock; do
    command -v "$needed" >/dev/null || { echo "newer_iperf3.sh: needs $needed, of Debian" >&2; exit 69; }
done
[ -r "$keys" ] || { echo "newer_iperf3.sh: needs $keys, of Debian" >&2; exit 69; }
mirror=$("$(dirname "$0")/mirror.sh" Debian)
work=$(mktemp -d "$directory/fetched.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/root"
echo "deb [signed-by=$keys] $mirror $suite main" >"$work/sources.list"
cat >"$work/apt.conf" <<CONF
Dir::Etc::SourceList "$work/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "$work/state";
Dir::State::status "/dev/null";
Dir::Cache "$work/cache";
APT::Sandbox::User "";
Acquire::Retries "1";
Acquire::http::Timeout "10";
Acquire::Languages "none";
CONF
export APT_CONFIG="$work/apt.conf"
cd "$work"
apt-get -qq update
mapfile -t needed < <(apt-cache depends --recurse --important libiperf0 | grep '^[a-z]')
apt-get -qq download iperf3 "${needed[@]}"
for package in ./*.deb; do
    dpkg-deb --extract "$package" root
done
rm -rf "$directory/root"
mv root "$directory/root"
libraries=("$directory"/root/usr/lib/*-linux-gnu*)
loader=$(find "${libraries[0]}" -name 'ld-linux*.so.*' -print -quit)
cat >"$directory/iperf3.new" <<RUN
#!/bin/sh
exec '$loader' --argv0 iperf3 --library-path '${libraries[0]}' '$directory/root/usr/bin/iperf3' "\$@"
RUN
chmod +x "$directory/iperf3.new"
"$directory/iperf3.new" --version >"$work/version"
mv "$directory/iperf3.new" "$directory/iperf3"
