"""The batch scripts without a cluster: srun, scontrol and scancel are doubles that say so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.runner import ROOT

SRUN = """#!/bin/bash
# Double of srun, for tests only.
[ "$1" = --help ] && { [ -n "$NO_PYXIS" ] || echo "--container-image=IMAGE"; exit; }
for word; do case $word in --output=*) out=${word#*=} ;; esac; done
echo "$*" >"${0%/*}/asked"
echo "ROLE=$ROLE SLURM_EXPORT_ENV=${SLURM_EXPORT_ENV-unset}" >"${out/\\%N/n1}"
[ -z "$FIRST_SAYS" ] || echo "$FIRST_SAYS" >>"${out/\\%N/n1}"
[ -z "$NODE_SAYS" ] || echo "$NODE_SAYS" >>"${out/\\%N/n2}"
[ -z "$STATUS" ] || printf %s "$STATUS" >"${out%/*}/status.json"
[ -z "$FAILURE" ] || printf %s "$FAILURE" >"${out%/*}/failure"
[ -z "$SRUN_SAYS" ] || echo "$SRUN_SAYS" >&2
[ -z "$SIGNALLED" ] || { kill -TERM $PPID; until [ -e "$SIGNALLED" ]; do sleep 0.05; done; }
exit "${SRUN_CODE:-0}"
"""
SCANCEL = """#!/bin/bash
# Double of scancel, for tests only: leaves what the runners could read when it was called.
cat "$SLURM_SUBMIT_DIR"/logs/7_*/stop_seconds >"$SIGNALLED.new" 2>/dev/null || echo none >"$SIGNALLED.new"
mv "$SIGNALLED.new" "$SIGNALLED"
"""
SCONTROL = """#!/bin/bash
# Double of scontrol, for tests only: every task of an array, as the real one shows it.
[ "$1" = show ] || exit 0
[ -z "$STATE" ] || printf '   JobState=%s Reason=None\\n   EndTime=%s Deadline=N/A\\n' "$STATE" "$END"
printf 'JobId=7 ArrayJobId=7\\n   Command=%s\\nJobId=8 ArrayJobId=7\\n   Command=%s\\n' "$COMMAND" "$COMMAND"
"""


def run(tmp_path: Path, *, folder: str = "sbatch", words: str = "", **env: str) -> tuple[int, list[str]]:
    """(exit code, lines) of single_node.sbatch, where `env` replaces what is right."""
    scripts = tmp_path / folder
    shutil.copytree(ROOT / "sbatch", scripts, ignore=shutil.ignore_patterns("site.env"))
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("scancel", SCANCEL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tmp_path / "image.sqsh").touch()
    (tmp_path / "a model").mkdir(exist_ok=True)
    job = {
        "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_SUBMIT_DIR": str(tmp_path), "SLURMD_NODENAME": "n1", "SLURM_EXPORT_ENV": "NONE",
        "SITE_IMAGE": str(tmp_path / "image.sqsh"), "GLM47_MODEL_PATH": str(tmp_path / "a model"),
        "SITE_ENV": "/nonexistent", "COMMAND": f"{scripts / 'single_node.sbatch'}{words}",
    }  # fmt: skip
    spooled = tmp_path / "slurm_script"  # Slurm runs a copy from its spool directory
    shutil.copy(scripts / "single_node.sbatch", spooled)
    done = subprocess.run(
        ["bash", str(spooled)], env={**job, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines()


REFUSED = {
    "no image": ({"SITE_IMAGE": "/nowhere/x.sqsh"}, 78, "SITE_IMAGE: /nowhere/x.sqsh: no such file on n1"),
    "an image on Docker Hub by mistake": ({"SITE_IMAGE": "x.sqsh"}, 78, "give ./x.sqsh or an absolute path"),
    "no image named": ({"SITE_IMAGE": ""}, 78, "SITE_IMAGE is not set"),
    "no model": ({"GLM47_MODEL_PATH": "/nowhere"}, 66, "GLM47_MODEL_PATH: /nowhere: no such directory on n1"),
    "no model named": ({"GLM47_MODEL_PATH": ""}, 78, "GLM47_MODEL_PATH is not set"),
    "a path that pyxis cannot mount": ({"GLM47_MODEL_PATH": "{}/a:b"}, 78, "pyxis takes no , or : in a path"),
    "no pyxis": ({"NO_PYXIS": "1"}, 78, "pyxis is not installed on n1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_keeps_a_container_from_being_made_is_named_before_srun(name: str, tmp_path: Path) -> None:
    env, code, words = REFUSED[name]
    (tmp_path / "a:b").mkdir()
    got, lines = run(tmp_path, **{key: value.format(tmp_path) for key, value in env.items()})
    assert got == code, lines
    assert words in lines[-1] and f"job 7 ended with {code}: " in lines[-1]


STEPD = "slurmstepd-{}: error: "
STOPPED = STEPD + "*** STEP 3.0 ON {} CANCELLED AT 2026-11-29T18:26:55 ***"
GENERAL = (
    "{0}pyxis: container start failed with error code: 1\n{0}pyxis: printing enroot log file:\n{1}"
    "{0}pyxis: container was not started successfully by another task\n"
    "{0}spank: required plugin spank_pyxis.so: task_init() failed with rc=-1\n"
    "{0}Failed to invoke spank plugin stack"
)
"""What pyxis 0.24 writes on a node, around enroot's own lines."""


def pyxis(node: str, *enroot: str) -> str:
    stepd = STEPD.format(node)
    return GENERAL.format(stepd, "".join(f"{stepd}pyxis:     {line}\n" for line in enroot))


SAID = {
    "pyxis": (
        {"NODE_SAYS": "slurmstepd: error: pyxis: container start failed"},
        "n2: pyxis: container start failed",
    ),
    "an option of pyxis": (
        {"NODE_SAYS": f"{STEPD.format('n2')}pyxis: --container-mounts: source path does not exist: /x"},
        "n2: pyxis: --container-mounts: source path does not exist: /x",
    ),
    "enroot": ({"NODE_SAYS": "[ERROR] enroot: No space left on device"}, "n2: [ERROR] enroot: No space left"),
    "enroot through pyxis": (
        {"NODE_SAYS": pyxis("n2", "[INFO] Extracting squashfs filesystem...", "[ERROR] No space left")},
        "n2: pyxis: [ERROR] No space left",
    ),
    "of two nodes the one that failed": (
        {"FIRST_SAYS": STOPPED.format("n1", "n1"), "NODE_SAYS": pyxis("n2", "No such account.")},
        "n2: pyxis: No such account.",
    ),
    "whichever comes first": (
        {"FIRST_SAYS": pyxis("n1"), "NODE_SAYS": pyxis("n2", "[ERROR] Invalid image format: /x.sqsh")},
        "n2: pyxis: [ERROR] Invalid image format: /x.sqsh",
    ),
    "a mount that is not there, with enroot's chatter": (
        {"NODE_SAYS": f"{STEPD.format('n2')}pyxis: --container-mounts: source path does not exist: /x\n"
            + pyxis("n2", "Parallel unsquashfs: Using 2 processors", "713 inodes (1342 blocks) to write",
                    "", "created 506 files")},
        "n2: pyxis: --container-mounts: source path does not exist: /x; see ",
    ),
    "a broken image": (
        {"NODE_SAYS": f"{STEPD.format('n2')}pyxis: failed to create container filesystem for image: /x\n"
            + pyxis("n2", "Read on filesystem failed because EOF", "FATAL ERROR: File system corruption")},
        "n2: pyxis: failed to create container filesystem for image: /x; FATAL ERROR: File system corruption",
    ),
    "nothing but general words": (
        {"NODE_SAYS": pyxis("n2")}, "n2: pyxis: container start failed with error code: 1",
    ),
    "Slurm": ({"SRUN_SAYS": "srun: error: Node failure on n2"}, "Node failure on n2"),
    "nobody": ({}, "see "),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_where_no_runner_spoke_the_last_line_has_what_was_said_first(name: str, tmp_path: Path) -> None:
    env, words = SAID[name]
    code, lines = run(tmp_path, SRUN_CODE="1", **env)
    assert code == 1
    assert lines[-1].partition("ended with 1: ")[2].startswith(words), lines


@pytest.mark.parametrize(
    ("state", "left", "asked", "seconds"),
    [
        ("RUNNING", 120, "", range(110, 116)),
        ("RUNNING", 600, "", range(120, 121)),
        ("RUNNING", 600, "600", range(590, 596)),
        ("RUNNING", None, "", range(120, 121)),
        ("COMPLETING", 120, "", None),
        ("CANCELLED", 7200, "", None),
        ("TIMEOUT", 0, "", None),
    ],
)
def test_before_its_end_a_job_leaves_its_runners_the_time(
    state: str, left: int | None, asked: str, seconds: range | None, tmp_path: Path
) -> None:
    """It is there to be read before they are asked to stop; on scancel there is only KillWait."""
    end = (
        "Unknown" if left is None else time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + left))
    )
    told = tmp_path / "told"
    env = {"SITE_DRAIN_SECONDS": asked} if asked else {}
    code, lines = run(tmp_path, STATE=state, END=end, SIGNALLED=str(told), **env)
    assert code == 0, lines
    if seconds is None:
        assert told.read_text() == "none\n"
    else:
        assert int(told.read_text()) in seconds
        assert any(f"asked to stop: the runners have {told.read_text().strip()} s" in line for line in lines)


STATUS = """{
  "job": {"number": 7, "state": "running", "time": "x", "code": null, "reason": null},
  "state": "ready",
  "ready": true,
  "processes": [
    {
      "name": "etcd",
      "state": "running",
      "ready": true
    }
  ],
  "nodes": {
    "n1": {
      "state": "ready",
      "answers": true,
      "ready": true,
      "processes": [
        {
          "name": "etcd",
          "state": "running"
        }
      ]
    }
  }
}
"""


@pytest.mark.parametrize("before", [STATUS, ""], ids=["the head was killed", "no head came up"])
@pytest.mark.parametrize("reason", ['lost "n2": C:\\x\ttab, 100 % & co | é', "plain"])
def test_a_job_that_is_over_says_so(before: str, reason: str, tmp_path: Path) -> None:
    """Whatever its last runner could still write."""
    writes = f"76 {reason}\n2026-11-29T17:00:00.000Z\n"
    code, lines = run(tmp_path, SRUN_CODE="137", FAILURE=writes, STATUS=before)
    assert code == 76, lines
    assert lines[-1].endswith(f"ended with 76: {reason} (at 2026-11-29T17:00:00.000Z)")
    (file,) = tmp_path.glob("logs/7_*/status.json")
    found = json.loads(file.read_text())
    job = found["job"]
    assert (job["number"], job["state"], job["code"]) == (7, "ended", 76)
    assert job["reason"] == f"{reason} (at 2026-11-29T17:00:00.000Z)".replace("\t", "")
    assert datetime.fromisoformat(job["time"]).tzinfo is not None
    if before:
        (node,) = found["nodes"].values()
        assert (found["state"], found["ready"], node["state"], node["ready"]) == (
            "ended",
            False,
            "ended",
            False,
        )
    assert not list(file.parent.glob(".status*"))


def test_a_stop_that_was_asked_for_is_an_end_too(tmp_path: Path) -> None:
    assert run(tmp_path, STATUS=STATUS)[0] == 0
    (file,) = tmp_path.glob("logs/7_*/status.json")
    job = json.loads(file.read_text())["job"]
    assert (job["state"], job["code"], job["reason"]) == ("ended", 0, "asked to stop, and stopped in time")


@pytest.mark.parametrize("code", [0, 143])
def test_slurms_own_node_failure_is_no_stop_that_was_asked_for(code: int, tmp_path: Path) -> None:
    """The tasks of the other nodes are told to stop, and do: srun then ends with 0."""
    said = "srun: error: Node failure on n2"
    got, lines = run(
        tmp_path, SRUN_CODE=str(code), SRUN_SAYS=said, NODE_SAYS="runner | asked to stop by SIGTERM"
    )
    assert got == (code or 76)
    assert f"ended with {code or 76}: Node failure on n2; see " in lines[-1]


def test_a_node_that_never_came_up_is_named_after_a_stop_too(tmp_path: Path) -> None:
    late = "had not come up: n2 (decode worker 0 rank 1): connection refused"
    code, lines = run(tmp_path, FIRST_SAYS=f"2026-11-29T17:00:00Z runner | asked to stop by SIGTERM; {late}")
    assert code == 0
    assert lines[-1].endswith(f"ended with 0: asked to stop, and stopped in time; {late}")


@pytest.mark.parametrize("words", ["", " --flag", " a b c"])
@pytest.mark.parametrize("folder", ["sbatch", "my scripts"])
def test_blanks_arguments_and_arrays(folder: str, words: str, tmp_path: Path) -> None:
    code, lines = run(tmp_path, folder=folder, words=words)
    assert code == 0, lines
    assert lines[-1].endswith("job 7 ended with 0: asked to stop, and stopped in time")


def test_export_none_passes_settings_on(tmp_path: Path) -> None:
    """srun passes nothing on where SLURM_EXPORT_ENV is NONE."""
    run(tmp_path)
    (out,) = tmp_path.glob("logs/7_*/n1.out")
    assert out.read_text() == "ROLE=auto SLURM_EXPORT_ENV=unset\n"


@pytest.mark.parametrize("output", ["x.sqsh", "{}/there/x.sqsh"])
def test_an_image_is_replaced_and_its_absolute_path_printed(output: str, tmp_path: Path) -> None:
    """By a docker that has buildx, though it is not the first one; enroot overwrites nothing."""
    docker = (
        '#!/bin/sh\n# Double of docker, for tests only.\n[ "$1" = buildx ] && exit {}\necho {} >>%s/used\n'
    )
    enroot = (
        "#!/bin/sh\n# Double of enroot, for tests only.\n"
        '[ -e "$3" ] && { echo "File already exists" >&2; exit 1; }\necho new >"$3"\n'
    )
    for name, text in (
        ("1/docker", docker.format(1, "old")),
        ("2/docker", docker.format(0, "new")),
        ("2/enroot", enroot),
    ):
        tool = tmp_path / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(text.replace("%s", str(tmp_path)))
        tool.chmod(0o755)
    repository = tmp_path / "repository"
    (repository / "sbatch").mkdir(parents=True)
    shutil.copy(ROOT / "sbatch" / "image.sh", repository / "sbatch")
    (tmp_path / "there").mkdir()
    place = repository / output if "/" not in output else Path(output.format(tmp_path))
    place.write_text("old\n")
    done = subprocess.run(
        [str(repository / "sbatch" / "image.sh"), "linux/arm64", output.format(tmp_path)],
        env={**os.environ, "PATH": f"{tmp_path}/1:{tmp_path}/2:/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{place}\n" and place.read_text() == "new\n"
    assert (tmp_path / "used").read_text() == "new\n"
    assert not list(place.parent.glob("*.new-*"))


@pytest.mark.parametrize(
    ("settings", "tasks", "output"),
    [
        ({}, "--nodes=2 --ntasks=2 --ntasks-per-node=1", "/%N.out"),
        ({"GLM47_PREFILL_WORKERS_PER_NODE": "2"}, "--nodes=2 --ntasks=4 --ntasks-per-node=2", "/%N.%t.out"),
        (
            {"GLM47_PREFILL_WORKERS_PER_NODE": "2", "GLM47_DECODE_WORKERS_PER_NODE": "4"},
            "--nodes=2 --ntasks=8 --ntasks-per-node=4",
            "/%N.%t.out",
        ),
        ({"GLM47_DECODE_WORKERS_PER_NODE": "two"}, "--nodes=2 --ntasks=2 --ntasks-per-node=1", "/%N.out"),
    ],
)
def test_a_worker_is_a_task(settings: dict[str, str], tasks: str, output: str, tmp_path: Path) -> None:
    run(tmp_path, **settings)
    asked = (tmp_path / "tools" / "asked").read_text()
    assert tasks in asked and f"{output} " in asked and "--wait=0" in asked
