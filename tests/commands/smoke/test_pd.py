"""Prefill did the prefill and decode the decode: what the workers' pages say, and what it means."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from entrypoint.commands.smoke import pd
from entrypoint.commands.smoke.pd import Counters, Worker
from entrypoint.errors import ConfigError, NobodyListensError
from entrypoint.plan.types import to_jsonable
from tests.plan.deployments import Container, build

LABELS = 'dynamo_component="prefill",dynamo_endpoint="generate",dynamo_namespace="dynamo",model="glm-4.7"'
PAGE = f"""# HELP dynamo_component_requests_total Total number of requests processed by work handler
# TYPE dynamo_component_requests_total counter
dynamo_component_requests_total{{dynamo_endpoint="clear_kv_blocks"}} 7
dynamo_component_requests_total{{{LABELS}}} 3
dynamo_component_inflight_requests{{{LABELS}}} 0
"""


@contextmanager
def page(rise: int = 0, text: str = PAGE, status: int = 200) -> Iterator[str]:
    """A metrics page whose requests have risen by `rise` when it is read the second time."""
    read = iter(range(1000))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = text.replace("} 3", f"}} {3 + (rise if next(read) else 0)}").encode()
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()


def verdicts(prefill: str | None, decode: str | None, asked: int = 4) -> dict[str, tuple[bool, str]]:
    workers = [Worker(r, url, "nixl") for r, url in (("prefill", prefill), ("decode", decode)) if url]
    with httpx.Client(trust_env=False) as client:
        return {name: (ok, seen) for name, ok, seen in Counters(workers, client).judge(asked)}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pd, "COUNTED_WITHIN", 0.5)


def test_both_counted() -> None:
    with page(4) as prefill, page(5) as decode:
        seen = verdicts(prefill, decode)
    assert seen["prefill"] == (True, "4 requests counted by 1 prefill workers, 4 asked here")
    assert seen["decode"][0]
    assert seen["KV transfer"] == (
        True,
        "nixl: speed not told: prefill tells it with --enable-metrics in GLM47_PREFILL_EXTRA_ARGS",
    )


@pytest.mark.parametrize("rise", [0, 1, 3])
def test_prefill_that_did_less_than_all_of_it_fails(rise: int) -> None:
    with page(rise) as prefill, page(4) as decode:
        seen = verdicts(prefill, decode)
    assert not seen["prefill"][0] and seen["decode"][0]
    assert seen["prefill"][1].startswith(f"{rise} requests counted")


def test_what_cannot_be_read_fails() -> None:
    with page(4) as decode:
        assert verdicts(None, decode)["prefill"] == (
            False, "no prefill worker is known: give --worker HOST[:PORT] of its runner",
        )  # fmt: skip
        assert "does not count requests" in verdicts("http://127.0.0.1:1/metrics", decode)["prefill"][1]
        with page(4, "<html>") as other:
            assert "does not count requests" in verdicts(other, decode)["prefill"][1]
        assert not any(
            ok for name, (ok, _) in verdicts(decode, decode, asked=0).items() if name != "KV transfer"
        )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('sglang:kv_transfer_speed_gb_s{tp_rank="0"} 12.5\n', "nixl: 12.5 GB/s"),
        (
            'sglang:kv_transfer_speed_gb_s_bucket{le="1"} 0\nsglang:kv_transfer_speed_gb_s_sum{a="b"} 50.0\n'
            'sglang:kv_transfer_speed_gb_s_count{a="b"} 4\nsglang:kv_transfer_latency_ms_sum 8\n'
            "sglang:kv_transfer_latency_ms_count 4\n",
            "nixl: 12.5 GB/s, 2 ms each",
        ),
        ("sglang:kv_transfer_speed_gb_s 0.0\n", "speed not told"),
        ("sglang:kv_transfer_speed_gb_s_sum 0\nsglang:kv_transfer_speed_gb_s_count 0\n", "speed not told"),
        ("sglang:kv_transfer_speed_gb_s oops\n", "speed not told"),
    ],
)
def test_the_transfers_speed_is_told_where_sglang_tells_it(text: str, told: str) -> None:
    with page(4, PAGE + text) as prefill, page(4) as decode:
        assert told in verdicts(prefill, decode)["KV transfer"][1]


def test_workers_are_read_from_a_runners_plan() -> None:
    head = {"head_address": "node1", "leader_address": "node2"}
    plan = to_jsonable(
        build(Container({**head, "role": "prefill", "decode_workers": 1, "system_port": 9000}))
    )
    assert pd.workers_of(plan, "node7") == [Worker("prefill", "http://node7:9000/metrics", "nixl")]
    assert pd.workers_of({}, "node7") == []


def test_what_is_no_worker_is_refused() -> None:
    def nothing(*_: str) -> str:
        return "http://127.0.0.1:1"

    assert pd.find(["prefill=http://a:1/", "decode=http://b:2/metrics"], nothing, nothing) == [
        Worker("prefill", "http://a:1/metrics"),
        Worker("decode", "http://b:2/metrics"),
    ]
    for wrong in ("frontend=http://a:1", "prefill=a:1", "=http://a:1"):
        with pytest.raises(ConfigError, match="cannot use --worker"):
            pd.find([wrong], nothing, nothing)
    with pytest.raises(NobodyListensError, match="for its workers"):
        pd.find([], nothing, nothing)


NO_PLANS = (
    '{"processes": [1]}',
    '{"processes": 5}',
    '{"ports": [1], "processes": []}',
    '{"ports": [{"name": "system"}]}',
    '{"ports": [{"name": "system", "process": "decode", "number": 1}], '
    '"processes": [{"name": "decode", "argv": 5}]}',
    '{"ports": null}',
)


@pytest.mark.parametrize("text", NO_PLANS)
def test_what_answers_and_is_no_runner_is_named(text: str) -> None:
    with page(text=text) as url:
        address = url.removesuffix("/metrics")
        with pytest.raises(
            NobodyListensError, match=f"^cannot ask {address} for its workers: it answers 200 and no"
        ):
            pd.find([], lambda: address, lambda value: value)


@pytest.mark.parametrize("status", [401, 404, 500])
def test_what_answers_with_an_error_has_no_workers(status: int) -> None:
    with page(text="{}", status=status) as url:
        assert pd.find([], lambda: url.removesuffix("/metrics"), lambda value: value) == []
