#!/usr/bin/env bash
# Builds the stand-in base image: build.sh [IMAGE]   (default glm47-standin-base:0.8.1)
# Needs root, debootstrap and a Docker engine with BuildKit. Downloads are kept in CACHE (default
# .cache/standin), the image is left alone when nothing it is made of has changed. ARCH is amd64 or arm64
# (default this machine's); for the other one the kernel must run its programs (qemu-user-static).
set -euo pipefail
cd "$(dirname "$0")/../.."

image=${1:-glm47-standin-base:0.8.1}
cache=${CACHE:-.cache/standin}
suite=bookworm
case ${ARCH:-$(uname -m)} in
amd64 | x86_64) arch=amd64 cpu=x86_64 ;;
arm64 | aarch64) arch=arm64 cpu=aarch64 ;;
*)
	echo "cannot build for ARCH: ${ARCH:-$(uname -m)}: give amd64 or arm64" >&2
	exit 2
	;;
esac
sources=(sglang==0.5.6.post2 flashinfer-python==0.5.3)

docker=${DOCKER:-/usr/bin/docker}
[ -x "$docker" ] || docker=docker

recipe=$(cat docker/standin/Dockerfile docker/standin/build.sh requirements/engine.txt | sha256sum | cut -c1-16)
if [ "$("$docker" image inspect --format '{{index .Config.Labels "io.glm47-runner.standin.recipe"}}' \
	"$image" 2>/dev/null)" = "$recipe-$arch" ]; then
	echo "$image is up to date"
	exit 0
fi

# The same interpreter release as the root file system's: its wheels are downloaded outside.
python=3.11
mkdir -p "$cache"
rootfs=$cache/rootfs-$suite-$arch.tar
if [ ! -s "$rootfs" ]; then
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	debootstrap --arch="$arch" --variant=minbase --include=python3,python3-pip,ca-certificates,procps,curl \
		"$suite" "$work/root" >"$cache/debootstrap.log"
	rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/*
	tar -C "$work/root" --numeric-owner -cf "$rootfs.part" .
	mv "$rootfs.part" "$rootfs"
fi

wheels=$cache/wheels-$arch-$(sha256sum requirements/engine.txt | cut -c1-12)
if [ ! -e "$wheels/.complete" ]; then
	fetch=(python3 -m pip download --quiet --disable-pip-version-check --python-version "$python"
		--only-binary :all: --dest "$wheels")
	if [ "$cpu" != "$(uname -m)" ]; then
		fetch+=(--platform "manylinux_2_28_$cpu" --platform "manylinux2014_$cpu")
	fi
	"${fetch[@]}" --require-hashes --requirement requirements/engine.txt
	"${fetch[@]}" --no-deps "${sources[@]}"
	touch "$wheels/.complete"
fi

context=$(mktemp -d -p "$cache")
trap 'rm -rf "$context" ${work:+"$work"}' EXIT
cp -al "$wheels" "$context/wheels"
cp requirements/engine.txt "$context/"
ln "$rootfs" "$context/rootfs.tar"
DOCKER_BUILDKIT=1 "$docker" build --quiet --file docker/standin/Dockerfile --tag "$image" \
	--platform "linux/$arch" \
	--label "io.glm47-runner.standin.recipe=$recipe-$arch" "$context"
