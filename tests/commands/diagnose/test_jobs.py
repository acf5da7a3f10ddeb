"""Dead jobs of real runners. Their engines are doubles: scripts that write what engines write."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from entrypoint.commands.diagnose import logs, report
from tests.support.jobs import job, node
from tests.support.plans import plan, process
from tests.support.runner import Runner, free_port, until

ENGINE = """
import sys, time
from datetime import datetime, timezone
def say(text):
    now = datetime.fromtimestamp(time.time() + {ahead}, timezone.utc)
    print(now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), text, flush=True)
say(" INFO model_runner.load_model: Load weight begin. avail mem=178.11 GB")
open({up!r}, "w").close()
while not __import__("os").path.exists({when!r}):
    time.sleep(0.02)
time.sleep({late})
say("ERROR scheduler.run_scheduler_process: Scheduler hit an exception: Traceback (most recent call last):")
print('  File "/sgl/scheduler.py", line 1, in run\\n    step()\\n{words}', flush=True)
sys.exit({code})
"""
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
LOST = (
    "RuntimeError: [/p/gloo/transport/tcp/pair.cc:538] Read error [192.0.2.9]:2476: Connection reset by peer"
)


@contextmanager
def runners(
    tmp_path: Path, words: list[tuple[str, int, float]], ahead: list[float]
) -> Iterator[list[Runner]]:
    """A runner for each of `words`: the exception of its engine, its exit code and its delay in seconds."""
    ports = [free_port() for _ in words]
    log_dir, when = tmp_path / "logs", tmp_path / "when"
    with ExitStack() as stack:
        started = []
        for number, (last, code, late) in enumerate(words):
            up = tmp_path / f"up{number}"
            fields = {"words": last, "code": code, "late": late, "up": str(up), "when": str(when)}
            script = ENGINE.format(ahead=ahead[number], **fields)
            worker = process("decode", argv=(sys.executable, "-c", script), log_dialect="sglang")
            made = plan(
                worker, health_port=ports[number], log_dir=str(log_dir), rank=number, nnodes=len(words),
                job=job(number, ports),
            )  # fmt: skip
            directory = tmp_path / node(number)
            directory.mkdir()
            env = {"TEST_CLOCK": str(ahead[number])}
            started.append(stack.enter_context(Runner.of_plan(made, directory, env=env)))
        until(lambda: all((tmp_path / f"up{n}").exists() for n in range(len(words))), "all engines are up")
        head = log_dir / "n0_runner.events.jsonl"
        until(lambda: head.read_text().count("clock_of") >= len(words) - 1, "the clocks have been compared")
        when.touch()
        yield started


def test_the_first_of_three_nodes_is_named_although_its_clock_is_ahead(tmp_path: Path) -> None:
    """By the nodes' own clocks the cause comes 40 s after what follows from it."""
    words = [(LOST, 1, 0.6), (OOM, 1, 0.0), (LOST, 1, 0.3)]
    with runners(tmp_path, words, [0.0, 40.0, -25.0]) as started:
        codes = [runner.wait() for runner in started]
    assert codes[1] == 1 and codes[0] == codes[2] == 76, codes
    found = logs.diagnose(tmp_path / "logs")
    first = found.judgement.first
    assert first is not None
    assert (first.node, first.process, first.kind) == ("n1", "decode", "gpu-memory")
    assert first.where.startswith("n1_decode_w0.log:")
    assert abs(found.ahead["n1"] - 40) < 0.5 and abs(found.ahead["n2"] + 25) < 0.5
    shown = report.text(found)
    print(shown)
    told_of_clocks = ", ".join(f"{name} {found.ahead[name]:+.1f} s" for name in ("n1", "n2"))
    assert f"clocks: corrected to n0's: {told_of_clocks}" in shown
    order = [line.nodes for line in found.timeline if "Read error" in line.text or "first cause" in line.text]
    # n0 says it last, unless its runner has ended it before that for the lost peer.
    assert [nodes[0] for nodes in order] == ["n1", "n2"]
    assert len(found.timeline) <= 10
    told = json.loads(json.dumps(logs.as_json(found)))
    assert told["first_cause"]["known"]["key"] == "gpu-memory" and told["first_cause"]["do"]


def test_an_earlier_run_in_the_same_files_is_left_out(tmp_path: Path) -> None:
    """Files are appended to: the second run only stops, as it was asked to."""
    log_dir = tmp_path / "logs"
    broken = process("decode", argv=("sh", "-c", "echo 'ValueError: no such thing'; exit 3"))
    with Runner.of_plan(plan(broken, log_dir=str(log_dir)), tmp_path) as runner:
        assert runner.wait() == 3
    found = logs.diagnose(log_dir).judgement.first
    assert found is not None and found.what == "ValueError: no such thing"
    with Runner.of_plan(plan(process("decode"), log_dir=str(log_dir)), tmp_path) as runner:
        runner.wait_for("runner | ready after")
        runner.signal(15)
        assert runner.wait() == 0
    diagnosis = logs.diagnose(log_dir)
    assert diagnosis.judgement.first is None and diagnosis.asked
    assert report.text(diagnosis).startswith("no failure: it was asked to stop")
