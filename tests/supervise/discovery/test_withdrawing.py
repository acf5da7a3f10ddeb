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

from entrypoint.plan.types import Withdrawal
from entrypoint.supervise.discovery.withdrawing import bury, listening_ports, local_addresses, withdraw
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
    assert local_addresses('{"transport": {"tcp": "127.') == []  # the file store is written in place


def call(url: str, path: str, **body: str) -> dict[str, object]:
    request = urllib.request.Request(f"{url}/v3/{path}", json.dumps(body).encode())
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
                call(url, "kv/range", key=encode("x"))
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def entries(port: int) -> dict[str, str]:
    """By key: a worker here that listens on `port`, one that is dead, one elsewhere; the cards of two."""
    return {
        "v1/instances/dynamo/backend/generate/1": instance(f"127.0.0.1:{port}"),
        "v1/instances/dynamo/backend/generate/2": instance(f"127.0.0.1:{free_port()}"),
        "v1/instances/dynamo/backend/generate/3": instance(f"192.0.2.7:{port}"),
        "v1/mdc/dynamo/backend/generate/1": instance(f"127.0.0.1:{port}"),
        "v1/mdc/dynamo/backend/generate/2": '{"type": "Model"}',
    }


def keys(etcd: str) -> set[str]:
    left = call(etcd, "kv/range", key=encode("v1/"), range_end=encode("v2")).get("kvs", [])
    assert isinstance(left, list)
    return {base64.b64decode(kv["key"]).decode() for kv in left}


@pytest.mark.stack
def test_only_the_own_entry_goes(etcd: str, listener: int) -> None:
    before = entries(listener)
    for key, value in before.items():
        call(etcd, "kv/put", key=encode(key), value=encode(value))
    where = Withdrawal("etcd", etcd)
    assert withdraw(where, os.getpid(), {}) == f"is off the list in {etcd}: nothing new comes in"
    assert keys(etcd) == set(before) - {"v1/instances/dynamo/backend/generate/1"}
    assert withdraw(where, os.getpid(), {}) == f"is not on the list in {etcd}"


@pytest.mark.stack
def test_all_that_a_dead_worker_left_goes(etcd: str, listener: int) -> None:
    before = entries(listener)
    for key, value in before.items():
        lease = call(etcd, "lease/grant", ID=key[-1], TTL="60") if "instances" in key else None
        assert lease is None or lease["ID"] == key[-1]
        call(etcd, "kv/put", key=encode(key), value=encode(value), lease=key[-1])
    where = Withdrawal("etcd", etcd)
    assert bury(where, {}) == f"is off the list in {etcd}"
    dead = {"v1/instances/dynamo/backend/generate/2", "v1/mdc/dynamo/backend/generate/2"}
    assert keys(etcd) == set(before) - dead
    assert bury(where, {}) is None


@pytest.mark.parametrize("dead", [False, True], ids=["withdrawn", "dead"])
def test_the_same_in_the_file_store(tmp_path: Path, listener: int, dead: bool) -> None:
    """A key's slashes are escaped there: its name is one file."""
    before = entries(listener)

    def path(key: str) -> Path:
        _, kind, name = key.split("/", 2)
        return tmp_path / "v1" / kind / name.replace("/", "%2F")

    for key, value in before.items():
        path(key).parent.mkdir(parents=True, exist_ok=True)
        path(key).write_text(value)
    where = Withdrawal("file", str(tmp_path))
    if dead:
        assert bury(where, {}) == f"is off the list in {tmp_path}"
        gone = {key for key in before if key.endswith("2")}
    else:
        assert withdraw(where, os.getpid(), {}) == f"is off the list in {tmp_path}: nothing new comes in"
        gone = {"v1/instances/dynamo/backend/generate/1"}
    assert {key for key in before if not path(key).exists()} == gone


def test_a_store_that_is_gone_has_no_list(tmp_path: Path) -> None:
    where = Withdrawal("file", str(tmp_path / "gone"))
    assert withdraw(where, os.getpid(), {}) == f"is not on the list in {where.where}"
    assert bury(where, {}) is None


def test_a_silent_etcd_does_not_keep_the_worker_from_stopping() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    line = withdraw(Withdrawal("etcd", nowhere), os.getpid(), {})
    assert line.startswith(f"could not be taken off the list in {nowhere}: ")
    line = str(bury(Withdrawal("etcd", nowhere), {}))
    assert line.startswith(f"may stay on the list in {nowhere} for 10 s: ")
