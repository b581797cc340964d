#!/bin/sh
# Prints the mirror of DISTRIBUTION, "Debian" or "Ubuntu", that apt itself uses on this machine, for
# tests that need packages of another release. The variable DEBIAN_MIRROR or UBUNTU_MIRROR names
# another one. Ends with exit code 69 where there is none.
# Usage: mirror.sh DISTRIBUTION
set -eu
distribution=$1
case $distribution in
    Debian) variable=DEBIAN_MIRROR mirror=${DEBIAN_MIRROR-} ;;
    Ubuntu) variable=UBUNTU_MIRROR mirror=${UBUNTU_MIRROR-} ;;
    *) echo "mirror.sh: it knows Debian and Ubuntu, not $distribution" >&2; exit 64 ;;
esac

# Asks apt, which reads both formats of its sources. A suite with a dash has only updates, security
# fixes or backports, often on a host of their own.
of_apt() {
    # The $() are apt's.
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(SUITE) $(REPO_URI)' \
        'Created-By: Packages' "Origin: $distribution" 'Component: main' 2>/dev/null |
        awk '$1 !~ /-/ { sub(/\/$/, "", $2); print $2; exit }'
}

[ -n "$mirror" ] || mirror=$(of_apt)
# apt knows whose a source is once it has fetched its lists, which small images leave out.
if [ -z "$mirror" ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    apt-get update --quiet --quiet >&2
    mirror=$(of_apt)
fi
case $mirror in
    # The images of clouds have a file with a list of mirrors.
    mirror+file:*) mirror=$(awk '/^[a-z]+:/ { print $1; exit }' "${mirror#mirror+file:}") ;;
esac
[ -n "$mirror" ] || {
    echo "mirror.sh: apt has no source of $distribution; name one in $variable" >&2
    exit 69
}
echo "$mirror"
