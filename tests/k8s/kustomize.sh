#!/usr/bin/env bash
# Prints the path of a kustomize: the one on PATH, else Debian's, unpacked under .cache.
# On Debian 12 the package comes from Debian 13, which is the first to have it; nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."

suite=trixie
cache=$PWD/.cache/kustomize
if found=$(command -v kustomize); then
	echo "$found"
	exit 0
fi
# One at a time: tests run in several processes.
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ -x "$cache/usr/bin/kustomize" ]; then
	echo "$cache/usr/bin/kustomize"
	exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=tests/k8s/debian.sh
. tests/k8s/debian.sh
apt=()
if ! debian "$work" "$suite" deb; then
	echo "cannot get kustomize: no Debian mirror is configured, or it does not answer: put kustomize on PATH" >&2
	exit 1
fi
{
	(cd "$work" && apt-get "${apt[@]}" download kustomize)
	dpkg-deb -x "$work"/kustomize_*.deb "$work/unpacked"
	mv "$work/unpacked/usr" "$cache/"
} >&2
echo "$cache/usr/bin/kustomize"
