"""A start in a LeaderWorkerSet's group that is refused stays and says why; anywhere else it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from entrypoint.supervise.status.client import get
from tests.support.runner import ROOT, Runner, free_port, until
from tests.support.stack import ENGINE

RUN = [sys.executable, "-m", "entrypoint", "run"]

GROUP = {
    "LWS_GROUP_SIZE": "2",
    "LWS_WORKER_INDEX": "0",
    "LWS_LEADER_ADDRESS": "glm47-prefill-0.glm47-prefill.default",
}
MODEL = {
    "ROLE": "prefill",
    "GLM47_ENGINE": "mocker",
    "GLM47_PYTHON": str(ENGINE / "python"),
    "GLM47_MODEL_PATH": "/nowhere",
    "ETCD_ENDPOINTS": "http://127.0.0.1:2379",
    "NATS_SERVER": "nats://127.0.0.1:4222",
    "SGLANG_HOST_IP": "127.0.0.1",
}
REFUSED = {
    "a wrong value": ({"ROLE": "prefill", "GLM47_PREFILL_TP": "none"}, 78, "GLM47_PREFILL_TP"),
    "no role": ({"ROLE": "auto"}, 78, "LeaderWorkerSet does not say"),
    "no model": (MODEL, 66, "/nowhere"),
}


def ask(port: int, page: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.parametrize(("given", "code", "named"), REFUSED.values(), ids=list(REFUSED))
def test_in_a_group_it_stays_not_ready_with_its_reason(
    given: dict[str, str], code: int, named: str, tmp_path: Path
) -> None:
    port, log = free_port(), tmp_path / "termination"
    log.touch()
    more = {
        "GLM47_HEALTH_PORT": str(port),
        "GLM47_TERMINATION_LOG": str(log),
        "GLM47_RUN_DIR": str(tmp_path / "run"),
    }
    with Runner(RUN, {**GROUP, **more, **given}, cwd=tmp_path) as runner:
        runner.wait_for("held: not ready")
        assert named in log.read_text()
        ready, why = ask(port, "/readyz")
        assert ready == 503
        assert named in str(why["reason"])
        assert ask(port, "/startupz")[0] == 503
        # A restart would change nothing.
        assert ask(port, "/livez")[0] == 200
        status = ask(port, "/status")[1]
        assert (status["state"], status["would_exit_with"]) == ("held", code)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
            assert b"glm47_ready 0" in page.read()
        runner.process.send_signal(signal.SIGTERM)
        until(lambda: runner.process.poll() is not None, "it ends")
        assert runner.process.returncode == code


@pytest.mark.parametrize("case", ["a wrong value", "no model"])
def test_elsewhere_it_ends(case: str, tmp_path: Path) -> None:
    given, code, named = REFUSED[case]
    with Runner(RUN, {**given, "GLM47_RUN_DIR": str(tmp_path / "run")}, cwd=tmp_path) as runner:
        until(lambda: runner.process.poll() is not None, "it ends")
        assert runner.process.returncode == code
        runner.wait_for(named)


def test_a_held_start_asks_for_the_token_too(tmp_path: Path) -> None:
    port, env = free_port(), {**GROUP, "ROLE": "auto", "GLM47_STATUS_TOKEN": "let me in"}
    with Runner(RUN, {**env, "GLM47_HEALTH_PORT": str(port)}, cwd=tmp_path) as runner:
        runner.wait_for("held: not ready")
        assert ask(port, "/status")[0] == 401
        assert ask(port, "/readyz")[0] == 503
        shown = get(f"http://127.0.0.1:{port}", "/status", token="let me in")
        assert shown[0] == 200 and "LeaderWorkerSet does not say" in str(shown[1]["reason"])


def test_it_stays_where_nobody_reads_what_it_says(tmp_path: Path) -> None:
    port = free_port()
    given, code, _ = REFUSED["a wrong value"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **GROUP, **given, "GLM47_HEALTH_PORT": str(port)}
    with Path("/dev/full").open("w") as full:
        held = subprocess.Popen(RUN, env=env, cwd=tmp_path, stdout=full, stderr=full)
    try:
        until(lambda: not port_is_free(port) or held.poll() is not None, "it listens")
        assert ask(port, "/livez")[0] == 200
        held.send_signal(signal.SIGTERM)
        assert held.wait(20) == code
    finally:
        held.kill()
        held.wait()


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
