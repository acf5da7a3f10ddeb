"""`smoke --pd`: prefill did the prefill and decode the decode, by the workers' own counters.

An answer does not tell: a frontend may fall back to the decode worker alone. So each worker's metrics are
read before and after the requests.
"""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from entrypoint.errors import ConfigError, NobodyListensError
from entrypoint.plan.own_questions import HEADERS
from entrypoint.supervise.probes.asking import samples

if TYPE_CHECKING:
    import httpx

REQUESTS = "dynamo_component_requests_total"
"""Of every Dynamo worker, whatever its engine; 0.8.1 to 1.6.1."""
SPEED, LATENCY = "sglang:kv_transfer_speed_gb_s", "sglang:kv_transfer_latency_ms"
"""Gauges in SGLang 0.5.6.post2, histograms in 0.5.14; only with --enable-metrics."""
COUNTED_WITHIN = 5.0
"""Seconds in which a worker has surely counted what the client has been answered."""
TIMEOUT = 5.0
"""Seconds that a worker's page may take."""
_ROLES = ("prefill", "decode")


@dataclass(frozen=True)
class Worker:
    """A worker whose counters are read."""

    role: str
    metrics: str
    """URL of its metrics page."""
    transport: str = ""
    """What moves its KV caches, where its plan says so."""


def requests_of(text: str) -> float | None:
    """Requests that a worker's `generate` endpoint has taken; None where its page does not count them."""
    return _sums(text, (REQUESTS,), 'dynamo_endpoint="generate"')[0]


def mean(text: str, name: str) -> float | None:
    """A gauge's value, or a histogram's mean; None where there is none or nothing was observed."""
    gauge, total, count = _sums(text, (name, f"{name}_sum", f"{name}_count"))
    return (total or 0.0) / count if count else gauge or None


def _sums(text: str, names: tuple[str, ...], label: str = "") -> list[float | None]:
    try:
        return samples(text, names, label)
    except (ValueError, IndexError):  # no page of metrics
        return [None] * len(names)


def workers_of(plan: Mapping[str, Any], host: str) -> list[Worker]:
    """The prefill and decode workers that a runner's /plan describes, as reached at `host`.

    AttributeError, KeyError and TypeError for what is no plan.
    """
    ports = {p["process"]: p["number"] for p in plan.get("ports", ()) if p.get("name") == "system"}
    found = []
    for process in plan.get("processes", ()):
        role, port = process.get("name"), ports.get(process.get("name"))
        if role in _ROLES and port is not None:
            argv = [str(word) for word in process.get("argv", ())]
            name = "--disaggregation-transfer-backend"
            transport = argv[argv.index(name) + 1] if name in argv[:-1] else ""
            found.append(Worker(role, f"http://{host}:{port}/metrics", transport))
    return found


def find(
    given: Sequence[str],
    local: Callable[[], str],
    remote: Callable[[str], str],
    token: Callable[[], str | None] = lambda: None,
) -> list[Worker]:
    """The workers behind `--worker` values: a runner's HOST[:PORT], or ROLE=URL of a worker's system port.

    None given: those of the runner on this machine. Raises ConfigError (78) for a value that is neither, and
    NobodyListensError (69) when a runner does not answer.
    """
    from entrypoint.supervise.status.client import get

    found: list[Worker] = []
    runners = []
    for value in given:
        role, equals, url = value.partition("=")
        if equals and role in _ROLES and url.startswith(("http://", "https://")):
            url = url.rstrip("/")
            found.append(Worker(role, url if url.endswith("/metrics") else f"{url}/metrics"))
        elif equals:
            raise ConfigError(
                f"cannot use --worker: {value}: give a runner's HOST[:PORT], or prefill=URL or decode=URL"
            )
        else:
            runners.append(remote(value))
    for url in runners if given else [local()]:
        try:
            code, plan = get(url, "/plan", token=token())
        except OSError as error:
            raise NobodyListensError(
                f"cannot ask {url} for its workers: {error.strerror or error}: give --worker HOST[:PORT] of "
                "every prefill and decode runner"
            ) from None
        host = urllib.parse.urlsplit(url).netloc.rpartition(":")[0]
        try:
            found += workers_of(plan if code == 200 else {}, host)
        except (AttributeError, KeyError, TypeError):
            raise NobodyListensError(
                f"cannot ask {url} for its workers: it answers {code} and no runner's plan: give --worker "
                "HOST[:PORT] of every prefill and decode runner, with their health ports"
            ) from None
    return found


class Counters:
    """The counters of some workers, before and after."""

    def __init__(self, workers: Sequence[Worker], client: httpx.Client) -> None:
        self.workers, self._client = workers, client
        self.before = {worker: self._count(worker) for worker in workers}

    def judge(self, asked: int) -> Iterator[tuple[str, bool, str]]:
        """(what was looked at, whether it is right, what was seen) once `asked` requests were answered."""
        for role in _ROLES:
            counted = [worker for worker in self.workers if worker.role == role]
            if not counted:
                yield role, False, f"no {role} worker is known: give --worker HOST[:PORT] of its runner"
                continue
            missing = [w for w in counted if self.before[w] is None]
            if missing:
                page = missing[0].metrics
                yield role, False, f"{page} does not count requests: is it a {role} worker's system port?"
                continue
            rise = self._rise(counted, asked)
            text = f"{rise:g} requests counted by {len(counted)} {role} workers, {asked} asked here"
            yield role, rise >= asked > 0, text
        yield "KV transfer", True, self._transfer()

    def _rise(self, workers: Sequence[Worker], asked: int) -> float:
        end = time.monotonic() + COUNTED_WITHIN
        while True:
            rise = sum((self._count(w) or 0.0) - (self.before[w] or 0.0) for w in workers)
            if rise >= asked or time.monotonic() > end:
                return rise
            time.sleep(0.2)

    def _transfer(self) -> str:
        told = []
        for worker in self.workers:
            page = self._page(worker) if worker.role == "prefill" else ""
            if (speed := mean(page, SPEED)) is not None:
                latency = mean(page, LATENCY)
                told.append(f"{speed:.3g} GB/s" + (f", {latency:.3g} ms each" if latency else ""))
        transports = sorted({w.transport for w in self.workers if w.transport})
        speeds = "; ".join(told) or (
            "speed not told: prefill tells it with --enable-metrics in GLM47_PREFILL_EXTRA_ARGS"
        )
        return f"{', '.join(transports) or 'transport not told'}: {speeds}"

    def _count(self, worker: Worker) -> float | None:
        return requests_of(self._page(worker))

    def _page(self, worker: Worker) -> str:
        import httpx

        try:
            return self._client.get(worker.metrics, timeout=TIMEOUT, headers=HEADERS).text
        except httpx.HTTPError:
            return ""
