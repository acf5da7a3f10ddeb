# shellcheck shell=bash
# What the batch scripts share: one srun over all nodes, its signals, its exit code. Sourced, not run.
# Which node does what is worked out by the runner on each node (ROLE=auto).

set -u
here=$(dirname "${BASH_SOURCE[0]}")
site=${SITE_ENV:-$here/site.env}
if [ -f "$site" ]; then
	set -a
	# shellcheck source=/dev/null
	source "$site"
	set +a
fi

fail() {
	echo "glm47-runner: $1" >&2
	exit 78
}

[ -n "${SITE_IMAGE:-}" ] || fail "cannot start: SITE_IMAGE is not set: name the .sqsh file that sbatch/image.sh made, in the environment or in $site"
[ -n "${GLM47_MODEL_PATH:-}" ] || fail "cannot start: GLM47_MODEL_PATH is not set: name the model's directory, in the environment or in $site"

export ROLE=auto
# Slurm's KillWait, 30 s by default, is what a cancelled job has; leave some of it to Slurm itself.
export GLM47_STOP_TIMEOUT=${GLM47_STOP_TIMEOUT:-25}

layout="${GLM47_PREFILL_WORKERS:-0}P_${GLM47_DECODE_WORKERS:-1}D"
logs=${SITE_LOGS:-$SLURM_SUBMIT_DIR/logs}/${SLURM_JOB_ID}_${layout}_$(date +%Y%m%d-%H%M%S)
mkdir -p "$logs" || exit 73
export GLM47_LOG_DIR=$logs

# pyxis lets the image's ENV win unless a variable is named. The entrypoint of the image is not run.
passed=$(compgen -e | grep -E '^(ROLE|ETCD_ENDPOINTS|NATS_SERVER|(GLM47|DYN|ETCD_AUTH|NATS_AUTH|NCCL|GLOO|UCX|MC|NIXL|SGLANG|FLASHINFER|HF)_.*)$' | paste -sd,)

scontrol update JobId="$SLURM_JOB_ID" Comment=starting
echo "glm47-runner: job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, logs in $logs"

srun --kill-on-bad-exit=1 --mpi=none --ntasks-per-node=1 \
	--output="$logs/%N.out" \
	--container-image="$SITE_IMAGE" \
	--container-mounts="$GLM47_MODEL_PATH:$GLM47_MODEL_PATH:ro,$logs:$logs${SITE_MOUNTS:+,$SITE_MOUNTS}" \
	--container-env="$passed" \
	--no-container-mount-home \
	glm47-runner run &
step=$!

# Before the time limit and on scancel the batch shell gets TERM; the runners drain and the exit code is kept.
trap 'scancel --signal=TERM "$SLURM_JOB_ID.0" 2>/dev/null' TERM

running() { kill -0 "$step" 2>/dev/null; }

# GLM47_BENCH=quick or full: a step beside the one that serves, which goes on serving afterwards.
benchmark() {
	local host=${1#http://}
	srun --overlap --nodes=1 --ntasks=1 --nodelist="${host%%:*}" --mpi=none \
		--output="$logs/bench.out" \
		--container-image="${SITE_BENCH_IMAGE:-$SITE_IMAGE}" \
		--container-mounts="$GLM47_MODEL_PATH:$GLM47_MODEL_PATH:ro,$logs:$logs${SITE_MOUNTS:+,$SITE_MOUNTS}" \
		--container-env="$passed" \
		--no-container-mount-home \
		glm47-runner bench "$GLM47_BENCH" "$1" --output "$logs/bench" --plan "$logs/plan.json" &&
		echo "glm47-runner: benchmark: $logs/bench/report.md" ||
		echo "glm47-runner: benchmark failed with $?: see $logs/bench.out"
}

# The runner on the first node writes the address once everything is ready. A node that has lost its power keeps
# srun waiting after all runners have ended, so once the cause is known it gets a few seconds.
(
	trap - TERM
	until [ -s "$logs/url" ] || [ -s "$logs/failure" ]; do
		running || exit
		sleep 1
	done
	if [ -s "$logs/url" ]; then
		url=$(<"$logs/url")
		echo "glm47-runner: ready: $url"
		scontrol update JobId="$SLURM_JOB_ID" Comment="$url"
		[ "${GLM47_BENCH:-off}" = off ] || benchmark "$url" &
	fi
	left=6
	while running && [ "$left" -gt 0 ]; do
		[ -s "$logs/failure" ] && left=$((left - 1))
		sleep 1
	done
	kill -KILL "$step" 2>/dev/null
) &

code=0
while running; do
	{ wait "$step"; } 2>/dev/null
	code=$?
done

reason="see $logs"
[ "$code" -eq 0 ] && reason="asked to stop, and stopped in time"
if [ -s "$logs/failure" ]; then
	# srun gives the highest code of all tasks; the first cause is in this file.
	read -r code reason <"$logs/failure"
fi
wait
echo "glm47-runner: job $SLURM_JOB_ID ended with $code: $reason"
exit "$code"
