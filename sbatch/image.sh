#!/bin/bash
# From `docker build` to the .sqsh file that pyxis takes, for this machine's architecture or another one.
#   sbatch/image.sh                        # glm47-runner-<arch>.sqsh, for this machine
#   sbatch/image.sh linux/arm64 [OUTPUT]   # for GB200, on any machine whose Docker can build for it
# Needs docker (buildx for another architecture) and enroot. IMAGE names an image that exists already;
# DOCKER_BUILD_ARGS adds arguments to `docker build` (a mirror of the base image, a proxy).
set -eu
cd "$(dirname "$0")/.."

case $(uname -m) in
x86_64) own=linux/amd64 ;;
aarch64) own=linux/arm64 ;;
*) own=linux/$(uname -m) ;;
esac
platform=${1:-$own}
case $platform in
linux/amd64 | linux/arm64) ;;
*)
	echo "cannot build for $platform: give linux/amd64 or linux/arm64" >&2
	exit 2
	;;
esac
arch=${platform#linux/}
output=${2:-glm47-runner-$arch.sqsh}
image=${IMAGE:-glm47-runner:$arch}

for tool in docker enroot; do
	command -v "$tool" >/dev/null || {
		echo "cannot make the image: $tool is not here: install it, or run this where it is" >&2
		exit 1
	}
done
# Of several the first one that has buildx, which the Dockerfile needs; the first one where none has.
docker=docker
while read -r candidate; do
	"$candidate" buildx version >/dev/null 2>&1 && docker=$candidate && break
done < <(type -ap docker)
if [ -z "${IMAGE:-}" ]; then
	# shellcheck disable=SC2086  # several arguments on purpose
	DOCKER_BUILDKIT=1 "$docker" build --platform "$platform" --tag "$image" --file docker/Dockerfile ${DOCKER_BUILD_ARGS:-} .
fi
case $output in
/*) ;;
*) output=$PWD/$output ;;
esac
# enroot overwrites nothing, and a job that runs may have the old file open: the new one takes its place at once.
new=$output.new-$$.sqsh
trap 'rm -f "$new"' EXIT
# A bare name would mean Docker Hub; dockerd:// is the engine on this machine.
ENROOT_SQUASH_OPTIONS=${ENROOT_SQUASH_OPTIONS:--comp lzo -noD} enroot import --output "$new" "dockerd://$image" >&2
mv -f "$new" "$output"
echo "$output"
