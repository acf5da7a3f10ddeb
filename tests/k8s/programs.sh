#!/usr/bin/env bash
# programs.sh PACKAGE SUITE PROGRAM...: prints a directory that has the programs: the one on PATH that has the first, if
# all are on PATH, else that of Debian's PACKAGE of release SUITE, unpacked under .cache; nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."

package=$1 suite=$2
shift 2
cache=$PWD/.cache/$package
if found=$(command -v "$@") && [ "$(wc -l <<<"$found")" -eq $# ]; then
	dirname "$(head -n 1 <<<"$found")"
	exit 0
fi
# One at a time: tests run in several processes.
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ -x "$cache/usr/bin/$1" ]; then
	echo "$cache/usr/bin"
	exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=tests/k8s/debian.sh
. tests/k8s/debian.sh
apt=()
if ! debian "$work" "$suite" deb; then
	echo "cannot get $package: no Debian mirror is configured, or it does not answer: put $* on PATH" >&2
	exit 1
fi
{
	(cd "$work" && apt-get "${apt[@]}" download "$package")
	dpkg-deb -x "$work/${package}"_*.deb "$work/unpacked"
	mv "$work/unpacked/usr" "$cache/"
} >&2
echo "$cache/usr/bin"
