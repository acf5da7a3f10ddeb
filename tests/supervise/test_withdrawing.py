"""A worker's entry in a real etcd is found by the ports it listens on, and taken out."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from entrypoint.plan import Withdrawal
from entrypoint.supervise.withdrawing import listening_ports, local_addresses, withdraw
from tests.support.runner import free_port
from tests.support.stack import ENGINE


def instance(address: str) -> str:
    """As Dynamo 0.8.1 writes it."""
    return json.dumps({
        "type": "Endpoint", "component": "backend", "endpoint": "generate", "namespace": "dynamo",
        "instance_id": 7668682424219884309, "transport": {"tcp": f"{address}/6a6ca208cee85b15/generate"},
    })  # fmt: skip


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_ports_of_a_process(listener: int) -> None:
    with socket.create_connection(("127.0.0.1", listener)) as client:
        ports = listening_ports(os.getpid())
        assert listener in ports and client.getsockname()[1] not in ports


def test_addresses_of_this_machine_only() -> None:
    assert local_addresses(instance("127.0.0.1:4001")) == [("127.0.0.1", 4001)]
    assert local_addresses(instance("192.0.2.7:4001")) == []
    assert local_addresses('{"transport": {"http": "http://127.0.0.1:4002/v1/rpc"}}') == [("127.0.0.1", 4002)]
    assert local_addresses('{"transport": {"nats_tcp": "dynamo_backend.generate-694d"}}') == []
    assert local_addresses('{"transport": null}') == []


def call(url: str, path: str, **body: str) -> dict[str, object]:
    request = urllib.request.Request(f"{url}/v3/kv/{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=5) as answer:
        data: dict[str, object] = json.loads(answer.read())
    return data


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[str]:
    url, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    process = subprocess.Popen(
        [ENGINE / "etcd", f"--data-dir={tmp_path}", f"--listen-client-urls={url}", "--log-level=error",
         f"--advertise-client-urls={url}", f"--listen-peer-urls={peer}",
         f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"],
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                call(url, "range", key=encode("x"))
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.stack
def test_only_the_own_entry_goes(etcd: str, listener: int) -> None:
    entries = {
        "v1/instances/dynamo/backend/generate/1": instance(f"127.0.0.1:{listener}"),
        "v1/instances/dynamo/backend/generate/2": instance(f"127.0.0.1:{free_port()}"),
        "v1/instances/dynamo/backend/generate/3": instance(f"192.0.2.7:{listener}"),
        "v1/mdc/dynamo/backend/generate/1": instance(f"127.0.0.1:{listener}"),
    }
    for key, value in entries.items():
        call(etcd, "put", key=encode(key), value=encode(value))
    line = withdraw(Withdrawal(etcd, "v1/instances/"), os.getpid(), {})
    assert line == "is off etcd's list: nothing new comes in"
    left = call(etcd, "range", key=encode("v1/"), range_end=encode("v2"))["kvs"]
    assert isinstance(left, list)
    assert {base64.b64decode(kv["key"]).decode() for kv in left} == set(list(entries)[1:])
    assert withdraw(Withdrawal(etcd, "v1/instances/"), os.getpid(), {}) == "is not on etcd's list"


def test_a_silent_etcd_does_not_keep_the_worker_from_stopping() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    line = withdraw(Withdrawal(nowhere, "v1/instances/"), os.getpid(), {})
    assert line.startswith(f"could not be taken off etcd's list: {nowhere}: ")
