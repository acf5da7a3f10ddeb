"""`diagnose HOST:PORT`: what the runners of a living deployment know, judged as logs are, by stand-ins."""

from __future__ import annotations

import json
import os
import signal
import sys
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from entrypoint.commands.cli import cli
from entrypoint.plan.roles.sglang import VITAL
from entrypoint.plan.types import HangWatch
from entrypoint.supervise.output.forwarding import EVENTS_KEPT, Output
from tests.support.jobs import job, node
from tests.support.plans import plan, process
from tests.support.runner import ROOT, Runner, free_port, until

NODES, BEHIND = 4, 2
TOKEN = "a-token-of-the-deployment"
LIMITS = HangWatch(2.0, 200.0, None, "f", "b", "a", "")


def diagnose(*words: str, token: str | None = TOKEN) -> tuple[int, str]:
    env = {"GLM47_STATUS_TOKEN": token} if token is not None else {}
    done = CliRunner(env=env).invoke(cli, ["diagnose", *words])
    return done.exit_code, done.output


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Runner]]:
    """The nodes of a job whose decode worker has a rank on each, ready; none has a log directory."""
    ports = [free_port() for _ in range(NODES)]
    with ExitStack() as stack:
        runners = []
        for number, port in enumerate(ports):
            titles = (f"sglang::scheduler_TP{number}", "sglang::detokenizer")
            command = (sys.executable, "-m", "tests.support.standin_engine", "--linger", "60", *titles)
            spec = process("decode", argv=command, cwd=str(ROOT), vital=VITAL, hang=LIMITS)
            made = plan(
                spec, health_port=port, rank=number, nnodes=NODES, job=job(number, ports), status_token=TOKEN
            )
            directory = tmp_path / node(number)
            directory.mkdir()
            runners.append(stack.enter_context(Runner.of_plan(made, directory)))
        until(lambda: all(runner.get("/readyz")[0] == 200 for runner in runners), "ready")
        yield runners


def test_one_node_tells_of_the_whole_deployment(nodes: list[Runner], tmp_path: Path) -> None:
    head = f"127.0.0.1:{nodes[0].health_port}"
    code, text = diagnose(head)
    assert code == 0 and "no failure is seen" in text, text
    assert f"now: {NODES} of {NODES} nodes ready" in text, text

    line = nodes[BEHIND].wait_for(f"decode | sglang::scheduler_TP{BEHIND} pid")
    os.kill(int(line.split()[-1]), signal.SIGSTOP)
    nodes[0].wait_for(f"rank {BEHIND} of ")
    out = tmp_path / "bundle.tar.gz"
    code, text = diagnose(head, "--json", "--bundle", str(out))
    # With the line about the bundle, which goes to standard error.
    found: dict[str, Any] = json.loads(text[: text.rindex("}") + 1])
    first = found["first_cause"]
    assert (first["node"], first["process"]) == (node(BEHIND), "decode"), first
    assert first["kind"] in ("stopped", "behind") and first["weight"] == "cause"
    assert "is stopped by a signal" in first["what"]
    assert sorted(found["nodes"]) == [node(n) for n in range(NODES)]
    assert found["clock"] == node(0) and abs(found["ahead"][node(BEHIND)]) < 1
    assert any(f"now: {node(BEHIND)} is degraded: decode: its process" in line for line in found["now"])
    with tarfile.open(out) as tar:
        names = {Path(name).name for name in tar.getnames()}
        assert {"diagnosis.txt", "n2_decode_w0.log", "n2_runner.events.jsonl", "plan.json"} <= names
        assert all(TOKEN not in tar.extractfile(m).read().decode() for m in tar if m.isfile())  # type: ignore[union-attr]

    nodes[3].process.kill()
    nodes[3].process.wait()
    _, text = diagnose(head)
    assert f"no answer: {node(3)} (http://127.0.0.1:{nodes[3].health_port}): Connection refused" in text
    assert text.startswith(f"first cause: {node(BEHIND)} decode TP{BEHIND}: "), text


def test_a_node_that_is_gone_is_the_first_sign_where_nothing_else_is(nodes: list[Runner]) -> None:
    port = nodes[3].health_port
    nodes[3].process.kill()
    nodes[3].process.wait()
    _, text = diagnose(f"127.0.0.1:{nodes[0].health_port}")
    assert f"first cause: {node(3)} its runner does not answer at http://127.0.0.1:{port}" in text, text


@pytest.mark.parametrize(
    ("token", "says"),
    [
        (None, "it asks for a token: set GLM47_STATUS_TOKEN"),
        ("wrong-token", "it asks for another GLM47_STATUS_TOKEN"),
    ],
)
def test_who_has_no_token_is_told_so(tmp_path: Path, token: str | None, says: str) -> None:
    made = plan(process("engine"), status_token=TOKEN)
    with Runner.of_plan(made, tmp_path) as runner:
        until(lambda: runner.get("/readyz")[0] == 200, "ready")
        code, text = diagnose(f"127.0.0.1:{runner.health_port}", token=token)
        assert code == 1 and f"cannot diagnose: 127.0.0.1:{runner.health_port}: {says}" in text, text


def test_nobody_answers(tmp_path: Path) -> None:
    code, text = diagnose(f"127.0.0.1:{free_port()}", "no-such-directory.invalid:1")
    assert code == 1 and "Connection refused" in text and "no-such-directory.invalid:1: " in text
    assert text.rstrip().endswith("name a runner that is up, or a directory of logs")
    code, text = diagnose(str(tmp_path / "none"))
    assert code == 78 and "cannot find a log" in text


def test_events_are_kept_without_a_directory_and_bounded() -> None:
    with Path(os.devnull).open("wb") as nowhere:
        output = Output(["x"], stdout=nowhere.fileno())
        for number in range(EVENTS_KEPT + 10):
            output.say(f"line {number}")
        output.record({"large": "x" * 10_000})
        kept = [json.loads(line) for line in output.recent(10_000)]
        assert len(kept) == EVENTS_KEPT and kept[-1]["line"] == f"line {EVENTS_KEPT + 9}" and "ts" in kept[0]
        assert len(output.recent(3)) == 3
        output.close(0)
