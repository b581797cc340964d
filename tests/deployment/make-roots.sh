#!/bin/sh
# Makes in DIR the roots of small machines with cloud-init, as a cloud's images would have them. What
# cloud-init is to install is in apt's cache, so that the machines need no network.
# Usage: make-roots.sh DIR
set -eu
cd "$(dirname "$0")/../.."
directory=$1
ubuntu_keys=/usr/share/keyrings/ubuntu-archive-keyring.gpg

mkdir -p "$directory"

# Makes the root NAME of SUITE from the archive that SOURCE, a line for apt, names.
root() {
    name=$1
    suite=$2
    source=$3
    if [ -e "$directory/$name" ]; then return; fi
    echo "making $directory/$name" >&2
    rm -rf "$directory.new"
    # "$1" is the shell's of the hook.
    # shellcheck disable=SC2016
    mmdebstrap --quiet --variant=apt --skip=cleanup/apt \
        --include=ca-certificates,cloud-init,dbus,iproute2,locales,logrotate,openssh-server \
        --include=procps,systemd-sysv \
        --customize-hook='chroot "$1" apt-get install --quiet --quiet --yes --download-only \
            iperf3 python3-venv' \
        "$suite" "$directory.new" "$source"
    mv "$directory.new" "$directory/$name"
}

debian=$(tests/support/mirror.sh Debian)
root debian-12 bookworm "deb $debian bookworm main"
root debian-13 trixie "deb $debian trixie main"
# A Debian seldom has the keys of Ubuntu's archive, or a source of it.
if [ -e "$ubuntu_keys" ] && ubuntu=$(tests/support/mirror.sh Ubuntu); then
    root ubuntu-24.04 noble "deb [signed-by=$ubuntu_keys] $ubuntu noble main universe"
else
    echo "no machine with Ubuntu 24.04: it takes $ubuntu_keys and a source of Ubuntu" >&2
fi
