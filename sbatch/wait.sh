#!/bin/bash
# Blocks until a job is ready, and prints the address of its API; exit code 1 when the job ends before.
#   url=$(sbatch/wait.sh JOBID)
set -u
job=${1:?usage: wait.sh JOBID}
while true; do
	line=$(squeue --noheader --states=all --jobs="$job" --Format='State:32,Comment:256' 2>/dev/null)
	case $line in
	RUNNING*http://*) break ;;
	PENDING* | CONFIGURING* | RUNNING* | REQUEUED*) sleep 2 ;;
	*)
		state=${line%% *}
		echo "cannot wait for job $job: it is ${state:-not known}: see its output" >&2
		exit 1
		;;
	esac
done
url=${line#*http://}
echo "http://${url%% *}"
