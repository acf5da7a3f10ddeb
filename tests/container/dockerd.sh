#!/usr/bin/env bash
# Makes sure that a Docker engine answers: installs Debian's where there is none, starts it, waits for it.
# Root on Debian or Ubuntu; safe to call again. Environment: DOCKERD_LOG (default /var/log/dockerd.log).
set -euo pipefail

log=${DOCKERD_LOG:-/var/log/dockerd.log}
deadline=60

# Debian's client first: it brings BuildKit by itself, newer ones need the buildx plug-in for it.
docker=/usr/bin/docker
[ -x "$docker" ] || docker=docker

answers() { "$docker" version --format '{{.Server.Version}}' 2>/dev/null; }

if version=$(answers); then
	echo "docker engine $version answers"
	exit 0
fi

packages=()
command -v dockerd >/dev/null || packages+=(docker.io iptables)
command -v debootstrap >/dev/null || packages+=(debootstrap)
if [ ${#packages[@]} -gt 0 ]; then
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
	docker=/usr/bin/docker
fi

setsid nohup dockerd >"$log" 2>&1 </dev/null &
pid=$!

for ((second = 0; second < deadline; second++)); do
	if version=$(answers); then
		echo "docker engine $version started (log: $log)"
		exit 0
	fi
	if ! kill -0 "$pid" 2>/dev/null; then
		break
	fi
	sleep 1
done
echo "cannot start dockerd: no answer after $second s: read $log" >&2
tail -n 20 "$log" >&2
exit 1
