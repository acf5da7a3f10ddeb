"""Directories as several programs leave them, with lines as engines write them: one of many fails first."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner

from entrypoint.commands.cli import cli
from entrypoint.commands.diagnose import logs, sources
from entrypoint.commands.diagnose.findings import ELSEWHERE, FOLLOWS, Weight
from entrypoint.commands.diagnose.times import corrections, stamp_of, times_of
from entrypoint.supervise.failures.known import KNOWN_FAILURES
from tests.supervise.failures.signatures import LINES

START = datetime(2026, 11, 25, 14, 20, 0, tzinfo=timezone.utc)
LOST = (
    "RuntimeError: [/p/gloo/transport/tcp/pair.cc:538] Read error [192.0.2.9]:2476: Connection reset by peer"
)
CAUSES = [k.key for k in KNOWN_FAILURES if k.key not in ELSEWHERE | FOLLOWS and not k.vague]


def at(seconds: float, text: str, zone: int = 0) -> str:
    """A line of SGLang's in local time."""
    when = START + timedelta(seconds=seconds, hours=zone)
    return f"[{when:%Y-%m-%d %H:%M:%S} TP0] {text}"


def dynamo(seconds: float, text: str) -> str:
    """A line of Dynamo's."""
    return f"{START + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S.%f}Z  INFO dynamo: {text}"


def engine(end: float, last: str, zone: int = 0) -> str:
    """An engine's log: starts, works, and ends with `last`."""
    lines = [
        dynamo(0, "starting"), at(0.2, "Load weight begin. avail mem=178 GB", zone),
        dynamo(30, "loaded"), at(30.1, "Capture cuda graph begin.", zone), dynamo(end - 0.1, "still there"),
        at(end, "Scheduler hit an exception: Traceback (most recent call last):", zone),
        '  File "/sgl/scheduler.py", line 1, in run', "    step()", last,
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def original(directory: Path, broken: str, end: float = 125.0) -> Path:
    """What Dynamo's scripts for Slurm leave of four prefill and two decode nodes; `broken` is node3's end."""
    directory.mkdir(parents=True)
    (directory / "log.out").write_text("Node 0: node0\nFrontend available at: http://node0:8000\n")
    (directory / "log.err").write_text("srun: error: node3: task 0: Exited with exit code 1\n")
    for number in range(6):
        role = "prefill" if number < 4 else "decode"
        stem = directory / f"node{number}_{role}_w0"
        late = end + 0.5 + number / 10
        text = engine(end, broken, 2) if number == 3 else engine(late, LOST, 2)
        stem.with_suffix(".err").write_text(text)
        stem.with_suffix(".out").write_text("worker setup\n")
        (directory / f"{stem.name}_gpu_utilization.log").write_text("CUDA out of memory\n")
    return directory


@pytest.mark.parametrize("key", CAUSES)
def test_each_known_failure_on_one_of_six_nodes_is_named(key: str, tmp_path: Path) -> None:
    for number, line in enumerate(LINES[key]):
        text = re.sub(
            r"2026-11-25T\d\d:\d\d:\d\d", f"{START + timedelta(seconds=124):%Y-%m-%dT%H:%M:%S}", line
        )
        directory = original(tmp_path / str(number), text)
        found = logs.diagnose(directory)
        first = found.judgement.first
        assert first is not None and first.known is not None
        assert (first.node, first.process, first.known.key) == ("node3", "prefill", key), text
        assert {f.node for f in found.judgement.followed} == {f"node{n}" for n in (0, 1, 2, 4, 5)}


def test_records_of_what_others_do_exist() -> None:
    assert {k.key for k in KNOWN_FAILURES} >= ELSEWHERE | FOLLOWS


def test_an_exception_that_nobody_knows_is_quoted(tmp_path: Path) -> None:
    found = logs.diagnose(original(tmp_path / "logs", "KeyError: 'lm_head.weight'")).judgement.first
    assert found is not None and (found.node, found.what) == ("node3", "KeyError: 'lm_head.weight'")


def test_what_a_stop_brings_about_later_is_no_cause(tmp_path: Path) -> None:
    """Ranks lost at 125 s; 60 s later a process that is taken down prints something of its own."""
    directory = original(tmp_path / "logs", LOST)
    (directory / "node5_decode_w0.err").write_text(engine(190.0, "KeyError: 'rid-7'", 2))
    found = logs.diagnose(directory).judgement.first
    assert found is not None and found.weight is Weight.CONSEQUENCE, found


def test_whom_all_wait_for_is_the_one_that_says_nothing(tmp_path: Path) -> None:
    """Five ranks time out in a collective; node3's log ended long before."""
    where = "RuntimeError: [/p/gloo/transport/tcp/unbound_buffer.cc:81]"
    late = f"{where} Timed out waiting 1800000ms for recv operation to complete"
    directory = original(tmp_path / "logs", late)
    (directory / "log.err").write_text("")
    for file in directory.glob("node[01245]*.err"):
        file.write_text(engine(1900.0, late, 2))
    quiet = engine(95.0, "")
    (directory / "node3_prefill_w0.err").write_text("\n".join(quiet.split("\n")[:5]) + "\n")
    done = CliRunner().invoke(cli, ["diagnose", str(directory)])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("first sign: node0 "), done.output
    assert re.search(r"silent: node3 prefill wrote its last line at 14:21:34\.900", done.output), done.output


@pytest.mark.parametrize(
    ("line", "node", "words"),
    [
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have been OOM "
         "Killed.", "", "the out-of-memory killer ended a process"),
        ("slurmstepd: error: *** JOB 7 ON node0 CANCELLED AT 2026-11-25T16:21:36 DUE TO TIME LIMIT ***",
         "node0",
         "Slurm ended the job: TIME LIMIT"),
    ],
)  # fmt: skip
def test_what_slurm_says_counts(line: str, node: str, words: str, tmp_path: Path) -> None:
    directory = original(tmp_path / "logs", LOST)
    (directory / "log.err").write_text(f"{line}\nsrun: error: node3: task 0: Killed\n")
    found = logs.diagnose(directory).judgement.first
    assert found is not None and (found.node, found.what) == (node, words)


def test_a_healthy_job_has_no_failure(tmp_path: Path) -> None:
    directory = original(tmp_path / "logs", LOST)
    for file in directory.glob("*.err"):
        file.write_text(
            "\n".join([*engine(50.0, "").split("\n")[:5], at(60, "Decode batch. #running-req: 1")])
        )
    assert logs.diagnose(directory).judgement.first is None


def test_a_request_that_failed_is_not_why_the_job_ended(tmp_path: Path) -> None:
    """An exception of a handler's, long before the end, that nothing says anybody died of."""
    directory = original(tmp_path / "logs", LOST)
    for file in directory.glob("*.err"):
        lines = [dynamo(1, "x"), "Traceback (most recent call last):", '  File "/a.py", line 1, in f']
        lines += ["    g()", "ValueError: prompt too long"]
        file.write_text("\n".join(lines + [dynamo(10 + n, "request completed") for n in range(60)]))
    assert logs.diagnose(directory).judgement.first is None


def test_no_log_is_an_error_in_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["diagnose", str(tmp_path)])
    assert done.exit_code == 78 and done.output.startswith("glm47-runner: cannot find a log: ")


def test_the_zone_of_local_times_follows_from_utc_beside_them() -> None:
    lines = [dynamo(0, "a"), at(0.4, "b", -8), "no time", at(61, "c", -8), dynamo(61.2, "d")]
    times, zone = times_of(lines)
    assert zone == -8 * 3600
    base = START.timestamp()
    assert times == [base, base, base, base + 61, base + 61.2]


@pytest.mark.parametrize(
    ("line", "seconds", "utc"),
    [
        ("2026-11-25T14:20:01.500Z  INFO x: y", 1.5, True),
        ("2026-11-25T15:20:01.500+01:00 INFO x: y", 1.5, True),
        ("[2026-11-25 14:20:01 TP3] x", 1.0, False),
        ("[rank3]:[E1125 14:20:01.500000000 ProcessGroupNCCL.cpp:1] x", 1.5, False),
        ("[1795616401.500000] [node1:72:0]   ucp_context.c:2190 UCX  INFO  x", 1.5, True),
        ("[118] 2026/11/25 14:20:01.500000 [INF] x", 1.5, False),
        ('{"level":"info","ts":"2026-11-25T14:20:01.5Z","msg":"x"}', 1.5, True),
    ],
)
def test_times_as_each_writer_writes_them(line: str, seconds: float, utc: bool) -> None:
    found = stamp_of(line, 2026)
    assert found is not None
    assert (round(found[0] - START.timestamp(), 3), found[1]) == (seconds, utc)


def test_clocks_are_chained_by_the_best_comparisons() -> None:
    """n2 was compared with n1 only; n1 with n0 twice."""
    compared = [("n0", "n1", 5.2, 1.0), ("n1", "n0", -5.0, 0.001), ("n1", "n2", 2.0, 0.002)]
    first, ahead = corrections(compared, ["n0", "n1", "n2", "n3"])
    assert first == "n0" and ahead == {"n0": 0.0, "n1": 5.0, "n2": 7.0}


def test_workers_that_share_a_node_are_told_apart(tmp_path: Path) -> None:
    """Each has a runner; `srun` writes what each said besides, by task."""
    line = "2026-11-29T18:00:00.000000Z INFO load: done"
    for name in ("n1_prefill_w2", "n1_prefill_w3", "n1_runner", "n1_runner_w3", "n2_prefill_w4", "n2_runner"):
        (tmp_path / f"{name}.log").write_text(f"{line}\n")
    for task in (2, 3):
        (tmp_path / f"n1.{task}.out").write_text(f"prefill | {line}\n")
    streams = sources.read(tmp_path).streams
    assert {key[:3] for key in streams} == {
        ("n1", "prefill", "w2"), ("n1/1", "prefill", "w3"), ("n1", "runner", ""), ("n1/1", "runner", "w3"),
        ("n2", "prefill", "w4"), ("n2", "runner", ""),
    }  # fmt: skip
