#!/usr/bin/env bash
# Prints a directory with `prometheus` and `promtool`: the ones on PATH, else Debian 12's, unpacked under .cache;
# nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."

suite=bookworm
cache=$PWD/.cache/prometheus
if found=$(command -v promtool) && command -v prometheus >/dev/null; then
	dirname "$found"
	exit 0
fi
# One at a time: tests run in several processes.
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ -x "$cache/usr/bin/promtool" ]; then
	echo "$cache/usr/bin"
	exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=tests/k8s/debian.sh
. tests/k8s/debian.sh
apt=()
if ! debian "$work" "$suite" deb; then
	echo "cannot get Prometheus: no Debian mirror is configured, or it does not answer: put prometheus and promtool on PATH" >&2
	exit 1
fi
{
	(cd "$work" && apt-get "${apt[@]}" download prometheus)
	dpkg-deb -x "$work"/prometheus_*.deb "$work/unpacked"
	mv "$work/unpacked/usr" "$cache/"
} >&2
echo "$cache/usr/bin"
