#!/usr/bin/env bash
# Installs what the tests' Kubernetes leans on, on Debian or Ubuntu. Needs root; safe to call again.
set -euo pipefail
missing=()
for tool in conntrack dnsmasq ip iptables-restore openssl; do
	command -v "$tool" >/dev/null || missing+=("$tool")
done
if [ ${#missing[@]} -gt 0 ]; then
	export DEBIAN_FRONTEND=noninteractive
	apt-get -o DPkg::Lock::Timeout=300 -qq update
	apt-get -o DPkg::Lock::Timeout=300 -qq install --yes --no-install-recommends \
		conntrack dnsmasq-base iproute2 iptables openssl >/dev/null
fi
