"""Bootstrap servers that prefill workers announce are asked before a client's request needs them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from entrypoint.commands.check.command import check
from entrypoint.plan.types import Announcements, FrontendProbe
from entrypoint.supervise.probes.announced import Announced, urls
from entrypoint.supervise.probes.prober import Answer, Prober
from tests.supervise.probes.fake_frontend import Frontend, serving, tokens
from tests.supervise.probes.test_bootstrap_server import Serve, new, serve
from tests.support.runner import free_port, until

__all__ = ["serve"]


def card(host: str, port: int, namespace: str = "dynamo", component: str = "prefill") -> str:
    told = {"bootstrap_host": host, "bootstrap_port": port}
    config = {"total_kv_blocks": 1, "disaggregated_endpoint": told}
    made = {"type": "Model", "namespace": namespace, "component": component, "endpoint": "generate"}
    return json.dumps(made | {"card_json": {"runtime_config": config}})


def test_which_servers_are_announced() -> None:
    cards = [
        card("10.0.0.7", 30001),
        card("10.0.0.7", 30001),
        card("fd00::7", 30001),
        card("[fd00::8]", 30001),
        card("10.0.0.8", 30001, namespace="dynamo-blue"),
        card("10.0.0.9", 30001, namespace="other"),
        card("10.0.0.10", 30001, component="backend"),
        card("10.0.0.11", 30001)[:-20],
        '{"card_json": {"runtime_config": {}}}',
        "[]",
        "",
    ]
    assert urls(cards, "dynamo") == [
        "http://10.0.0.7:30001",
        "http://10.0.0.8:30001",
        "http://[fd00::7]:30001",
        "http://[fd00::8]:30001",
    ]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A file store; `register` adds a prefill worker's card to it."""
    return tmp_path / "store"


def register(store: Path, port: int, number: int = 1) -> None:
    key = store / "v1/mdc" / f"dynamo%2Fprefill%2Fgenerate%2F{number}"
    key.parent.mkdir(parents=True, exist_ok=True)
    key.write_text(card("127.0.0.1", port))


@pytest.fixture
def announced(store: Path) -> Iterator[Announced]:
    with httpx.Client(trust_env=False) as client:
        yield Announced(Announcements("file", str(store), "dynamo"), {}, lambda: client)


def test_nothing_is_announced_yet(announced: Announced) -> None:
    assert announced.fault() is None and not announced.found


def test_one_that_is_found_is_not_asked_again(announced: Announced, store: Path, serve: Serve) -> None:
    asked: list[int] = []

    def route(query: dict[str, int]) -> tuple[int, str]:
        asked.append(1)
        return new(1, 1)(query)

    register(store, int(serve(route).rpartition(":")[2]))
    assert announced.fault() is None
    assert len(announced.found) == len(asked) == 1
    assert announced.fault() is None and len(asked) == 1
    dead = free_port()
    register(store, dead, 2)
    why = announced.fault()
    assert why is not None and len(asked) == 1
    assert f"that a prefill worker announces, http://127.0.0.1:{dead}, cannot be connected to: " in why
    assert "GLM47_INTERFACE" in why and "--host" in why


def test_a_store_that_does_not_answer_announces_nothing() -> None:
    place = Announcements("etcd", f"http://127.0.0.1:{free_port()}", "dynamo")
    with httpx.Client(trust_env=False) as client:
        assert Announced(place, {}, lambda: client).fault() is None


@pytest.mark.parametrize("registered", [0, 1])
def test_a_frontend_sends_nothing_before_they_are_found(store: Path, serve: Serve, registered: int) -> None:
    """Nor while a rank has not registered there."""
    state = {"registered": registered}
    url = serve(lambda query: new(state["registered"], 2)(query))
    register(store, int(url.rpartition(":")[2]))
    frontend = Frontend({"backend": [1], "prefill": [7]}, answer=lambda _: (200, tokens()))
    answers: list[Answer] = []
    with serving(frontend):
        probe = FrontendProbe(frontend.url, frontend.model, backend=1, prefill=1, warmup=True)
        prober = Prober(answers.append, Announcements("file", str(store), "dynamo"))
        prober.watch("frontend", probe)
        try:
            until(lambda: answers and f"({registered} workers registered)" in answers[-1].why, "why not")
            assert not frontend.asked
            state["registered"] = 2
            until(lambda: answers[-1].ready, "ready")
        finally:
            prober.close()


def test_check_asks_them_too(store: Path, serve: Serve, tmp_path: Path) -> None:
    environ = {
        "ROLE": "decode", "GLM47_DISCOVERY": "file", "DYN_FILE_KV": str(store), "GLM47_TP": "1",
        "GLM47_RUN_DIR": str(tmp_path / "run"), "GLM47_GPUS_PER_NODE": "1",
    }  # fmt: skip

    def found() -> list[tuple[str, int, str]]:
        findings = check(environ, tmp_path)
        assert not [f for f in findings if f.what == "settings" and f.state == "problem"], findings
        return [(f.state, f.exit_code, f.text) for f in findings if f.what == "bootstrap"]

    assert found() == []
    url = serve(new(1, 1))
    register(store, int(url.rpartition(":")[2]))
    assert found() == [("ok", 0, url)]
    register(store, free_port(), 2)
    (good, bad) = sorted(found())
    assert good == ("ok", 0, url)
    assert bad[:2] == ("problem", 69) and bad[2].startswith("cannot use prefill: the bootstrap server ")
