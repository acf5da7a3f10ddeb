#!/bin/bash
# Installs what the Slurm tests need on Debian or Ubuntu, without starting any service. Needs root; idempotent.
set -eu
missing=()
for tool in slurmctld slurmd srun munged nginx iptables ip unshare setpriv; do
	command -v "$tool" >/dev/null || missing+=("$tool")
done
[ ${#missing[@]} -gt 0 ] || exit 0

# Debian starts services as they are installed, unless this says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=300 -qq update
apt-get -o DPkg::Lock::Timeout=300 -qq install --yes --no-install-recommends \
	slurmctld slurmd slurm-client munge nginx-light iptables iproute2 util-linux procps >/dev/null
