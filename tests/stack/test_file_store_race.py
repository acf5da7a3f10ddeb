"""Frontends that met a half-written key of Dynamo's file store, with the real frontend and store."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from entrypoint.commands.demo.model import make_demo_model
from tests.support.runner import Runner, until
from tests.support.stack import chat, free_ports, run

pytestmark = pytest.mark.stack
ROLES = "nats,prefill,decode"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo_model(tmp_path_factory.mktemp("models") / "glm")


def settings(model: Path, store: Path) -> dict[str, str]:
    return {
        "GLM47_ENGINE": "mocker", "GLM47_MODEL_PATH": str(model), "GLM47_DISCOVERY": "file",
        "DYN_FILE_KV": str(store), "GLM47_PREFILL_WORKERS": "1", "DYN_TCP_RPC_HOST": "127.0.0.1",
    }  # fmt: skip


def ready(runner: Runner) -> None:
    until(lambda: runner.get("/readyz")[0] == 200 or runner.process.poll() is not None, "ready", 90)
    assert runner.process.poll() is None, runner.text()


def card_of_prefill(store: Path) -> Path:
    cards = store / "v1/mdc"
    (card,) = (path for path in cards.iterdir() if "prefill" in path.name)
    return card


def test_a_frontend_that_read_half_a_card_is_replaced(tmp_path: Path, model: Path) -> None:
    """Its /health and /v1/models are good, and every request gets 500, for ever."""
    ports, store = free_ports(), tmp_path / "run/store"
    given = settings(model, store) | {"ROLE": f"{ROLES},frontend"}
    del given["DYN_FILE_KV"]
    with run(tmp_path / "run", **given, **ports) as runner:
        ready(runner)
        card = card_of_prefill(store)
        whole = card.read_text()
        card.write_text(whole[: len(whole) // 2])
        first = runner.status_of("frontend")["pid"]
        os.kill(first, signal.SIGKILL)
        runner.wait_for_match("frontend .*Failed to parse discovery instance", 60)
        card.write_text(whole)
        runner.wait_for_match("Prefill router not yet activated.*it is restarted", 60)
        ready(runner)
        code, answer = chat(ports["GLM47_HTTP_PORT"])
        assert code == 200 and answer["usage"]["completion_tokens"] == 8
        assert runner.status_of("frontend")["restarts"] == 2
        runner.signal(signal.SIGTERM)
        assert runner.wait(60) == 0, runner.text()


def test_a_frontend_elsewhere_starts_when_the_cards_are_whole(tmp_path: Path, model: Path) -> None:
    """Up first, it would read what it sees being written."""
    shared, store = free_ports(), tmp_path / "store"
    own = free_ports() | {name: port for name, port in shared.items() if "NATS" in name}
    given = settings(model, store)
    with ExitStack() as stack:
        alone = stack.enter_context(
            run(tmp_path / "alone", ROLE="frontend", GLM47_HEAD_ADDRESS="127.0.0.1", **given, **own)
        )
        until(lambda: "0 of 1 prefill instances registered" in str(alone.get("/readyz")[1]), "it waits")
        workers = stack.enter_context(run(tmp_path / "workers", ROLE=ROLES, **given, **shared))
        assert alone.status_of("frontend")["pid"] is None
        ready(workers)
        ready(alone)
        assert chat(own["GLM47_HTTP_PORT"])[0] == 200
        assert "Failed to parse" not in alone.text()
        for runner in (alone, workers):
            runner.signal(signal.SIGTERM)
            assert runner.wait(60) == 0, runner.text()
