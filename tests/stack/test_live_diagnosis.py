"""`diagnose HOST:PORT …` of Dynamo's own servers, frontend and mockers in three containers, outside Slurm."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from entrypoint.commands.cli import cli
from entrypoint.commands.demo.model import make_demo_model
from tests.support.runner import Runner, until
from tests.support.stack import free_ports, run

pytestmark = pytest.mark.stack


def diagnose(*runners: Runner) -> str:
    hosts = [f"127.0.0.1:{runner.health_port}" for runner in runners]
    done = CliRunner().invoke(cli, ["diagnose", *hosts])
    assert done.exit_code == 0, done.output
    return done.output


def test_what_failed_in_a_living_deployment_is_named(tmp_path: Path) -> None:
    ports = free_ports()
    shared = {k: ports[k] for k in ("GLM47_ETCD_PORT", "GLM47_NATS_PORT")} | {
        "GLM47_ENGINE": "mocker", "GLM47_MODEL_PATH": str(make_demo_model(tmp_path / "models" / "glm")),
        "GLM47_HEAD_ADDRESS": "127.0.0.1", "GLM47_PREFILL_WORKERS": "1", "GLM47_DECODE_WORKERS": "1",
        "DYN_TCP_RPC_HOST": "127.0.0.1",
    }  # fmt: skip
    roles = {"head": "etcd,nats,frontend", "prefill": "prefill", "decode": "decode"}
    with ExitStack() as stack:
        every = {
            name: stack.enter_context(run(tmp_path / name, ROLE=role, **(free_ports() | shared)))
            for name, role in roles.items()
        }
        head, decode = every["head"], every["decode"]
        head.wait_for("processes: etcd")
        until(lambda: head.get("/livez")[0], "its health port answers")
        text = diagnose(head)
        assert "no failure is seen" in text and "now: 0 of 1 nodes ready" in text, text
        until(lambda: all(runner.get("/readyz")[0] == 200 for runner in every.values()), "ready", 90)
        text = diagnose(*every.values())
        assert "no failure is seen" in text and "now: 3 of 3 nodes ready" in text, text

        pid = head.status_of("frontend")["pid"]
        os.kill(pid, signal.SIGKILL)
        head.wait_for("frontend ended: killed by SIGKILL")
        text = diagnose(*every.values())
        where = f"127.0.0.1:{head.health_port}"
        assert text.startswith(f"first cause: {where} frontend: ended: killed by SIGKILL (137) at "), text

        os.kill(decode.status_of("decode")["pid"], signal.SIGKILL)
        assert decode.wait() == 137
        text = diagnose(*every.values())
        assert f"no answer: 127.0.0.1:{decode.health_port} (" in text and "Connection refused" in text, text
