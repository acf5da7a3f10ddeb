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

say() { echo "glm47-runner: $(date +%H:%M:%S) $1"; }

# fail REASON [CODE]: the job's last line names the cause, like that of a start that failed.
fail() {
	say "$1" >&2
	say "job $SLURM_JOB_ID ended with ${2:-78}: $1"
	exit "${2:-78}"
}

# `sbatch --export=NONE` leaves this in the job, and srun would then pass nothing on.
unset SLURM_EXPORT_ENV

[ -n "${SITE_IMAGE:-}" ] || fail "cannot start: SITE_IMAGE is not set: name the .sqsh file that sbatch/image.sh made, in the environment or in $site"
[ -n "${GLM47_MODEL_PATH:-}" ] || fail "cannot start: GLM47_MODEL_PATH is not set: name the model's directory, in the environment or in $site"

# What a container cannot be made without is looked at here, before all nodes say it each in its own way.
case $SITE_IMAGE in
*/*) [ -e "$SITE_IMAGE" ] || [[ $SITE_IMAGE == *://* || $SITE_IMAGE == *#* ]] ||
	fail "cannot start: SITE_IMAGE: $SITE_IMAGE: no such file on $SLURMD_NODENAME: make it with sbatch/image.sh, where all nodes see it" ;;
*.sqsh) fail "cannot start: SITE_IMAGE: $SITE_IMAGE: pyxis takes a name without / for one on Docker Hub: give ./$SITE_IMAGE or an absolute path" ;;
esac
[ -d "$GLM47_MODEL_PATH" ] ||
	fail "cannot start: GLM47_MODEL_PATH: $GLM47_MODEL_PATH: no such directory on $SLURMD_NODENAME: name one that all nodes see" 66
case $GLM47_MODEL_PATH in
*[,:]*) fail "cannot start: GLM47_MODEL_PATH: $GLM47_MODEL_PATH: pyxis takes no , or : in a path: name another, or a link" ;;
esac
[[ $(srun --help 2>&1) == *--container-image* ]] ||
	fail "cannot start: srun does not know --container-image: pyxis is not installed on $SLURMD_NODENAME: ask for it, or choose a partition that has it"

export ROLE=auto
# Slurm's KillWait, 30 s by default, is what a cancelled job has; leave some of it to Slurm itself.
export GLM47_STOP_TIMEOUT=${GLM47_STOP_TIMEOUT:-25}

layout="${GLM47_PREFILL_WORKERS:-0}P_${GLM47_DECODE_WORKERS:-1}D"
logs=${SITE_LOGS:-$SLURM_SUBMIT_DIR/logs}/${SLURM_JOB_ID}_${layout}_$(date +%Y%m%d-%H%M%S)
mkdir -p "$logs" || exit 73
export GLM47_LOG_DIR=$logs

# pyxis lets the image's ENV win unless a variable is named. The entrypoint of the image is not run.
passed=$(compgen -e | grep -E '^(ROLE|ETCD_ENDPOINTS|NATS_SERVER|(GLM47|DYN|ETCD_AUTH|NATS_AUTH|NATS_TLS|NCCL|GLOO|UCX|MC|NIXL|SGLANG|FLASHINFER|HF)_.*)$' | paste -sd,)

scontrol update JobId="$SLURM_JOB_ID" Comment=starting
say "job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, logs in $logs"

# A worker is a task. A node whose role has fewer workers on a node than the other has spare tasks, which end at once
# (--wait=0: that ends nobody else).
tasks=${GLM47_PREFILL_WORKERS_PER_NODE:-1}
[ "${GLM47_DECODE_WORKERS_PER_NODE:-1}" -gt "$tasks" ] 2>/dev/null && tasks=$GLM47_DECODE_WORKERS_PER_NODE
[[ $tasks =~ ^[1-9][0-9]*$ ]] || tasks=1 # what is wrong with it, the runners say
out=%N
[ "$tasks" -gt 1 ] && out=%N.%t
# Before the time limit (--signal=B:TERM@120) the batch shell gets TERM; the runners drain and the exit code is kept.
# They may take what is left of the job then, SITE_DRAIN_SECONDS at most: it is in a file before they are asked to
# stop. On scancel the job is not RUNNING any more, and all that there is is KillWait.
# shellcheck disable=SC2329  # the trap's
stop_runners() {
	local job left=${SITE_DRAIN_SECONDS:-120} end
	job=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null)
	if [[ $job == *JobState=RUNNING* ]]; then
		[[ $job =~ EndTime=([0-9T:-]+) ]] && end=$(date -d "${BASH_REMATCH[1]}" +%s) &&
			[ $((end - $(date +%s) - 5)) -lt "$left" ] && left=$((end - $(date +%s) - 5))
		echo "$left" >"$logs/.stop_seconds" && mv "$logs/.stop_seconds" "$logs/stop_seconds"
		say "asked to stop: the runners have $left s"
	fi
	# There may be no step yet.
	for _ in 1 2 3 4 5; do
		scancel --signal=TERM "$SLURM_JOB_ID.0" 2>/dev/null && break
		sleep 1
	done
}
trap stop_runners TERM

# What srun itself says goes on, and into a file.
exec 3> >(tee "$logs/srun.err" >&2)
heard=$!
# All cores of a node: a task would have one of them.
srun --kill-on-bad-exit=1 --mpi=none --cpu-bind=none --wait=0 --overcommit \
	--nodes="$SLURM_JOB_NUM_NODES" --ntasks=$((SLURM_JOB_NUM_NODES * tasks)) --ntasks-per-node="$tasks" \
	--output="$logs/$out.out" \
	--container-image="$SITE_IMAGE" \
	--container-mounts="$GLM47_MODEL_PATH:$GLM47_MODEL_PATH:ro,$logs:$logs${SITE_MOUNTS:+,$SITE_MOUNTS}" \
	--container-env="$passed" \
	--no-container-mount-home \
	glm47-runner run 2>&3 3>&- &
step=$!
exec 3>&-

running() { kill -0 "$step" 2>/dev/null; }

# GLM47_BENCH=quick or full: a step beside the one that serves, which goes on serving afterwards.
benchmark() {
	local host=${1#http://}
	if srun --overlap --nodes=1 --ntasks=1 --nodelist="${host%%:*}" --mpi=none \
		--output="$logs/bench.out" \
		--container-image="${SITE_BENCH_IMAGE:-$SITE_IMAGE}" \
		--container-mounts="$GLM47_MODEL_PATH:$GLM47_MODEL_PATH:ro,$logs:$logs${SITE_MOUNTS:+,$SITE_MOUNTS}" \
		--container-env="$passed" \
		--no-container-mount-home \
		glm47-runner bench "$GLM47_BENCH" "$1" --output "$logs/bench" --plan "$logs/plan.json"; then
		say "benchmark: $logs/bench/report.md"
	else
		say "benchmark failed with $?: see $logs/bench.out"
	fi
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
		say "ready: $url"
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

# A TERM interrupts a wait, which then says nothing of the step: the last one is after its end, and remembers it.
while running; do
	{ wait "$step"; } 2>/dev/null
done
{ wait "$step"; } 2>/dev/null
code=$?
wait "$heard"

# A node's own last word, where no runner has come so far as to write `failure`: pyxis and enroot speak there, and
# Slurm of a node that it has lost. Of all nodes that one counts which says most: what pyxis says of an option or an
# image, and enroot's worst line, which pyxis repeats with five blanks before it. A node that was only stopped because
# another one had failed has no cause.
first_words() {
	local found
	found=$(grep -ohE 'Node failure on [^ ]+|node failure.*' "$logs/srun.err" 2>/dev/null | head -1)
	[ -n "$found" ] && echo "$found" && return
	found=$(awk '
		FNR == 1 {
			node = substr(FILENAME, match(FILENAME, "[^/]*$"))
			sub(/\.out$/, "", node)
			nodes[++count] = node
		}
		/CANCELLED AT|by another task|printing enroot log|Terminated|\[INFO\]|\[WARN\]/ { next }
		/pyxis: +(created [0-9]+ |[0-9]+ inodes|Parallel unsquashfs)|pyxis: *$/ { next }
		{
			text = $0
			sub(/^slurmstepd[^ ]*: error: /, "", text)
		}
		/pyxis:     +[^ ]/ {
			sub(/^pyxis: +/, "", text)
			weight = text ~ /ERROR/ ? 7 : text ~ /[Ff]ail|denied|[Nn]o such|cannot|[Ii]nvalid/ ? 6 : 3
			if (weight > inner[node]) {
				inner[node] = weight
				enroot[node] = text
			}
			next
		}
		{ weight = 0 }
		/slurmstepd|cannot|[Ee]rror|ERROR|[Nn]o such|denied/ { weight = 2 }
		/pyxis|enroot/ { weight = 5 }
		/with error code|with exit code|task_init\(\) failed|spank plugin stack/ { weight = 1 }
		weight > outer[node] {
			outer[node] = weight
			words[node] = text
		}
		END {
			for (i = 1; i <= count; i++) {
				node = nodes[i]
				sum = outer[node] + 2 * inner[node]
				if (sum <= best)
					continue
				best = sum
				said = inner[node] && outer[node] < 5 ? "pyxis: " enroot[node] : words[node]
				if (inner[node] > 3 && outer[node] == 5)
					said = said "; " enroot[node]
				found = node ": " said
			}
			print found
		}' "$logs"/*.out 2>/dev/null)
	if [ -n "$found" ]; then
		echo "$found"
	else
		grep -E 'error' "$logs/srun.err" 2>/dev/null | head -1
	fi
}

# How the job ended, in status.json: the head's runner may have had no time for it, or never have come up. The
# fields are where entrypoint/supervise/status/job_files.py writes them, one a line.
write_end() {
	local text=${reason//\\/\\\\} new=$logs/.status.json.$$ line
	text=$(tr -d '\000-\037' <<<"${text//\"/\\\"}")
	line="  \"job\": {\"number\": $SLURM_JOB_ID, \"state\": \"ended\", \"time\": \"$(date -u +%FT%T.%3NZ)\""
	line="$line, \"code\": $code, \"reason\": \"$text\"}"
	if [ -s "$logs/status.json" ]; then
		{
			printf '{\n%s,\n' "$line"
			tail -n +3 "$logs/status.json" | sed -E \
				-e 's/^(  |      )"state": "[a-z]+"/\1"state": "ended"/' \
				-e 's/^(  |      )"(ready|answers)": true/\1"\2": false/'
		} >"$new"
	else
		printf '{\n%s\n}\n' "$line" >"$new"
	fi && mv -f "$new" "$logs/status.json"
}

reason=$(first_words)
reason="${reason:+$reason; }see $logs"
# The tasks that are left are asked to stop then, and may all do so in time.
[ "$code" -eq 0 ] && [[ $reason == [Nn]ode\ failure* ]] && code=76
if [ "$code" -eq 0 ]; then
	late=$(grep -ohE 'had not come up: .*' "$logs"/*.out 2>/dev/null | head -1)
	reason="asked to stop, and stopped in time${late:+; $late}"
fi
if [ -s "$logs/failure" ]; then
	# srun gives the highest code of all tasks; the first cause is in this file, and when it came.
	{ read -r code reason && read -r at; } <"$logs/failure"
	reason="$reason${at:+ (at $at)}"
fi
wait
write_end
say "job $SLURM_JOB_ID ended with $code: $reason"
exit "$code"
