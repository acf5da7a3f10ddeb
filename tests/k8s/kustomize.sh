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
# The machine's own mirror of Debian. apt-get fills in the words with a $.
# shellcheck disable=SC2016
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)
if [ -z "$mirror" ]; then
	echo "cannot get kustomize: no Debian mirror is configured: put kustomize on PATH" >&2
	exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# apt drops privileges for its downloads.
chmod 0755 "$work"
mkdir -p "$work/lists/partial" "$work/archives/partial"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
apt=(-qq -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
	-o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work" -o APT::Sandbox::User=root)
{
	apt-get "${apt[@]}" update
	(cd "$work" && apt-get "${apt[@]}" download kustomize)
	dpkg-deb -x "$work"/kustomize_*.deb "$work/unpacked"
	mv "$work/unpacked/usr" "$cache/"
} >&2
echo "$cache/usr/bin/kustomize"
