"""A frontend whose registered workers all say that they are not ready. The servers here are stand-ins."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from entrypoint.plan.types import FrontendProbe
from entrypoint.supervise.probes.asking import View
from entrypoint.supervise.probes.frontend import FrontendHealth
from entrypoint.supervise.probes.runners import Runners, hosts_of
from tests.support.runner import free_port

WHY = "its process sglang::scheduler_TP0 (pid 12) spins with 1 request without an answer, for 12 s"


@contextmanager
def serving(host: str, port: int, pages: dict[str, Any]) -> Iterator[None]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = pages.get(self.path)
            self.send_response(200 if found is not None else 404)
            self.end_headers()
            self.wfile.write(found if isinstance(found, bytes) else json.dumps(found).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def status(*processes: tuple[str, bool]) -> dict[str, Any]:
    return {
        "state": "degraded",
        "processes": [{"name": role, "role": role, "ready": ready, "why": WHY} for role, ready in processes],
    }


def instance(host: str, component: str = "backend", scheme: str = "") -> dict[str, Any]:
    where = {"tcp": f"{scheme}{host}:41234/7f/generate"}
    return {"component": component, "endpoint": "generate", "instance_id": hash(host), "transport": where}


def asked(runners: dict[str, Any], health: dict[str, Any], prefill: int = 0) -> str | None:
    port = free_port()
    probe = FrontendProbe("http://127.0.0.1:1", "glm-4.7", 1, prefill, workers_port=port)
    with ExitStack() as stack:
        for host, page in runners.items():
            stack.enter_context(serving(host, port, {"/status": page}))
        with httpx.Client(trust_env=False) as client:
            return Runners(probe, lambda: client).none_ready(hosts_of(health))


TWO = {"instances": [instance("127.0.0.2"), instance("127.0.0.3", scheme="tcp://")]}


def test_none_of_several_is_ready() -> None:
    why = asked({"127.0.0.2": status(("decode", False)), "127.0.0.3": status(("decode", False))}, TWO)
    assert why == f"none of its backend workers is ready: 127.0.0.2: {WHY}; 127.0.0.3: {WHY}"


@pytest.mark.parametrize(
    "second",
    [
        status(("decode", True)),
        status(("frontend", False)),
        {"state": "?"},
        b"not JSON",
        {"processes": [{}]},
        None,
    ],
    ids=["ready", "another role's", "no processes", "not JSON", "another layout", "no page"],
)
def test_one_that_is_ready_or_cannot_be_asked_is_enough(second: Any) -> None:
    assert asked({"127.0.0.2": status(("decode", False)), "127.0.0.3": second}, TWO) is None


def test_one_whose_runner_is_not_there_counts_as_ready() -> None:
    assert asked({"127.0.0.2": status(("decode", False))}, TWO) is None


def test_one_whose_runner_has_told_of_it_and_is_gone_is_gone_too() -> None:
    """It stays registered for ten seconds more."""
    port = free_port()
    probe = FrontendProbe("http://127.0.0.1:1", "glm-4.7", 1, 0, workers_port=port)
    where = hosts_of({"instances": [instance("127.0.0.2")]})
    with httpx.Client(trust_env=False) as client:
        runners = Runners(probe, lambda: client)
        assert runners.none_ready(where) is None
        with serving("127.0.0.2", port, {"/status": status(("decode", True))}):
            assert runners.none_ready(where) is None
        gone = "none of its backend workers is ready: 127.0.0.2: its runner is gone"
        assert runners.none_ready(where) == gone


def test_either_role_can_be_the_one_that_nobody_fills() -> None:
    health = {"instances": [instance("127.0.0.2", "prefill"), instance("127.0.0.3")]}
    runners = {"127.0.0.2": status(("prefill", False)), "127.0.0.3": status(("decode", True))}
    assert asked(runners, health, prefill=1) == f"none of its prefill workers is ready: 127.0.0.2: {WHY}"


def test_a_container_with_a_frontend_of_its_own_is_asked_for_its_worker_only() -> None:
    """Its frontend waits for this very answer, perhaps."""
    health = {"instances": [instance("127.0.0.2")]}
    assert asked({"127.0.0.2": status(("frontend", False), ("decode", True))}, health) is None


def test_a_frontend_asks_only_once_it_has_been_ready() -> None:
    """At its start a worker registers a moment before its own runner has seen that it is ready."""
    port = free_port()
    probe = FrontendProbe("http://127.0.0.1:1", "glm-4.7", 1, 0, workers_port=port)
    view = View({"backend": frozenset({1})}, True, hosts_of({"instances": [instance("127.0.0.2")]}))
    with (
        serving("127.0.0.2", port, {"/status": status(("decode", False))}),
        httpx.Client(trust_env=False) as client,
    ):
        health = FrontendHealth(probe, lambda: client, lambda: None)
        assert health(view) == (True, "", False)
        ready, why, _ = health(view)
    assert not ready and why == f"none of its backend workers is ready: 127.0.0.2: {WHY}"


def test_the_hosts_of_a_real_frontends_workers() -> None:
    """As Dynamo 0.8.1 lists them."""
    listed = instance("127.0.0.1") | {"instance_id": 7587885982361, "namespace": "dynamo"}
    others = [listed | {"endpoint": "clear_kv_blocks"}, instance("[fd00::7]", "prefill", "tcp://")]
    nats = listed | {"transport": {"nats_tcp": "dynamo_backend.generate-694d"}}
    assert hosts_of({"instances": [listed, *others, nats]}) == {
        "backend": ("127.0.0.1", ""),
        "prefill": ("[fd00::7]",),
    }


@pytest.mark.parametrize(
    ("first", "second", "none_ready"),
    [
        (False, True, False),
        (True, False, False),
        (False, False, True),
        (False, None, True),
    ],
)
def test_a_further_worker_of_a_node_has_a_runner_at_another_port(
    first: bool, second: bool | None, none_ready: bool
) -> None:
    """`second` None: nobody listens there, as on a node that has fewer workers."""
    ports = free_port(), free_port()
    further = {"prefill": (ports[1],)}
    probe = FrontendProbe("", "glm-4.7", 1, 1, workers_port=ports[0], further_ports=further)
    where = hosts_of({"instances": [instance("127.0.0.2", "prefill"), instance("127.0.0.3")]})
    with ExitStack() as stack:
        stack.enter_context(serving("127.0.0.2", ports[0], {"/status": status(("prefill", first))}))
        stack.enter_context(serving("127.0.0.3", ports[0], {"/status": status(("decode", True))}))
        if second is not None:
            stack.enter_context(serving("127.0.0.2", ports[1], {"/status": status(("prefill", second))}))
        with httpx.Client(trust_env=False) as client:
            why = Runners(probe, lambda: client).none_ready(where)
    assert (why is not None) is none_ready
    assert why is None or why == f"none of its prefill workers is ready: 127.0.0.2: {WHY}"
