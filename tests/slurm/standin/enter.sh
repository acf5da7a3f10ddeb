#!/bin/bash
# Stand-in for enroot, for the tests only. enter.sh IMAGE MOUNTS NAMES COMMAND…
# As enroot under pyxis does by default: the image's root is read-only, /tmp and /run are private, the image's
# ENTRYPOINT is not run, its ENV wins over the job's unless the variable is in NAMES (comma-separated), /etc/hosts,
# /dev, /proc and /sys are the node's, the home directory is not there, and there is no PID namespace.
# IMAGE is a directory: rootfs/, env (NAME=value lines), workdir. For tests of a node that hangs while it
# unpacks: a file IMAGE/hang.NODE.
set -eu
image=$1 mounts=$2 names=$3
shift 3

if [ -e "$image/hang.$SLURMD_NODENAME" ]; then
	exec sleep infinity
fi
while IFS= read -r line; do
	name=${line%%=*}
	case ",$names," in
	*",$name,"*) [ -n "${!name+set}" ] || export "${line?}" ;;
	*) export "${line?}" ;;
	esac
done <"$image/env"

STANDIN_UID=$(id -u) STANDIN_GID=$(id -g)
export STANDIN_IMAGE=$image STANDIN_MOUNTS=$mounts STANDIN_UID STANDIN_GID
# shellcheck disable=SC2016  # expanded inside
exec unshare --user --map-root-user --mount --propagation private bash -eu -c '
	new=/mnt workdir=$(cat "$STANDIN_IMAGE/workdir")
	mount -t tmpfs -o mode=755 root "$new"
	mkdir -p "$new"/{old,tmp,run,var/tmp,dev,proc,sys,mnt}
	for entry in "$STANDIN_IMAGE"/rootfs/*; do
		name=${entry##*/}
		if [ -L "$entry" ]; then
			cp -P "$entry" "$new/$name"
		else
			mkdir -p "$new/$name"
			mount --rbind "$entry" "$new/$name"
		fi
	done
	for name in dev proc sys; do
		mount --rbind "/$name" "$new/$name"
	done
	mount --bind /etc/hosts "$new/etc/hosts"
	IFS=,
	for each in $STANDIN_MOUNTS; do
		IFS=: read -r source target flags <<<"$each"
		mkdir -p "$new$target"
		mount --rbind "$source" "$new$target"
		case $flags in *ro*) mount -o remount,bind,ro "$new$target" ;; esac
	done
	unset IFS
	mount -t tmpfs -o mode=1777 tmp "$new/tmp"
	mount -t tmpfs -o mode=755 run "$new/run"
	ln -s ../run "$new/var/run"
	cd "$new"
	pivot_root . old
	umount -l old
	mount -o remount,ro,bind /
	cd "$workdir"
	uid=$STANDIN_UID gid=$STANDIN_GID
	unset STANDIN_IMAGE STANDIN_MOUNTS STANDIN_UID STANDIN_GID
	exec unshare --user --map-user="$uid" --map-group="$gid" -- "$@"
' enter "$@"
