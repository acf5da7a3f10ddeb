"""Asking a server once: is it ready, and if not, why. Blocking; `probing` calls it from threads."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from entrypoint.plan import Drain, FrontendProbe, HttpProbe, NatsProbe, Probe

if TYPE_CHECKING:
    import httpx

TIMEOUT = 5.0
"""Seconds that an answer may take."""


def ask(probe: Probe, client: Callable[[str | None], httpx.Client]) -> tuple[bool, str, bool]:
    """Ask once: (ready, why not, the server answered that it is not ready yet)."""
    if isinstance(probe, NatsProbe):
        return _ask_nats(probe)
    # After NATS, which is often the first thing that others wait for: this takes a tenth of a second once.
    import httpx

    try:
        if isinstance(probe, HttpProbe):
            return _ask_http(probe, client(probe.ca_file))
        if isinstance(probe, FrontendProbe):
            return _ask_frontend(probe, client(None))
    except httpx.ConnectError as error:
        return False, f"no connection: {_short(error)}", False
    except httpx.TimeoutException:
        return False, f"no answer within {TIMEOUT:g} s", False
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return False, _short(error), False
    raise TypeError(f"not a probe that can be asked: {probe!r}")


def in_flight(drain: Drain, client: httpx.Client) -> float:
    """Requests in flight; 0 when nobody listens any more, 1 when there is no answer that tells."""
    import httpx

    try:
        text = client.get(drain.url).text
    except httpx.ConnectError:
        return 0.0
    except httpx.HTTPError:
        return 1.0
    return sum_of(text, drain.metric)


def sum_of(text: str, metric: str) -> float:
    """The sum of all samples of `metric` in Prometheus' text format."""
    return samples(text, (metric,))[0] or 0.0


def samples(text: str, metrics: tuple[str, ...], label: str = "") -> list[float | None]:
    """The sum of all samples of each of `metrics` in Prometheus' text format that have `label`
    (`name="value"`; empty: all have); None where there is none."""
    totals: dict[str, float] = {}
    for line in text.splitlines():
        name, _, rest = line.partition("{") if "{" in line else line.partition(" ")
        labels, _, value = rest.rpartition("}")
        if name in metrics and label in labels:
            totals[name] = totals.get(name, 0.0) + float(value.split()[0])
    return [totals.get(metric) for metric in metrics]


def _short(error: Exception) -> str:
    return str(error) or type(error).__name__


def _ask_http(probe: HttpProbe, client: httpx.Client) -> tuple[bool, str, bool]:
    response = client.get(probe.url)
    if response.is_success:
        return True, "", False
    return False, f"{probe.url} answers {response.status_code}", response.status_code == 503


def _ask_frontend(probe: FrontendProbe, client: httpx.Client) -> tuple[bool, str, bool]:
    health = client.get(f"{probe.url}/health")
    counts = count_instances(_json(health))
    missing = [
        f"{counts.get(component, 0)} of {wanted} {component} instances registered"
        for component, wanted in (("prefill", probe.prefill), ("backend", probe.backend))
        if counts.get(component, 0) < wanted
    ]
    if missing:
        return False, ", ".join(missing), True
    models = _json(client.get(f"{probe.url}/v1/models"))
    listed = [m.get("id") for m in models.get("data", []) if isinstance(m, dict)]
    if probe.model not in listed:
        return False, f"model {probe.model} is not listed in /v1/models", True
    return True, "", False


def warm_up(probe: FrontendProbe, client: httpx.Client, timeout: float) -> str | None:
    """One small chat completion; None when it was answered, else why not."""
    import httpx

    # Sampling with top_p on purpose: its kernels are compiled on first use, which takes up to 100 s.
    body = {
        "model": probe.model,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 2,
        "temperature": 0.7,
        "top_p": 0.9,
    }
    try:
        response = client.post(f"{probe.url}/v1/chat/completions", json=body, timeout=timeout)
    except httpx.TimeoutException:
        return f"no answer within {timeout:g} s"
    except httpx.HTTPError as error:
        return _short(error)
    if response.is_success and _json(response).get("choices"):
        return None
    return f"{response.status_code}: {response.text[:200].strip()}"


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        data = response.json()
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def count_instances(health: dict[str, Any]) -> dict[str, int]:
    """Registered workers by component, from the body of the frontend's /health."""
    seen = {
        (i.get("component"), i.get("instance_id"))
        for i in health.get("instances") or []
        if isinstance(i, dict) and i.get("endpoint") == "generate"
    }
    counts: dict[str, int] = {}
    for component, _ in seen:
        counts[str(component)] = counts.get(str(component), 0) + 1
    return counts


def _ask_nats(probe: NatsProbe) -> tuple[bool, str, bool]:
    where = f"{probe.host}:{probe.port}"
    try:
        with socket.create_connection((probe.host, probe.port), timeout=TIMEOUT) as connection:
            greeting = connection.makefile("rb").readline(1 << 16)
    except OSError as error:
        return False, f"no connection to {where}: {error.strerror or error}", False
    if not greeting.startswith(b"INFO "):
        return False, f"{where} does not greet as NATS does", False
    try:
        info = json.loads(greeting[5:])
    except ValueError:
        return False, f"{where} sends a greeting that is not JSON", False
    if not info.get("jetstream"):
        return False, f"NATS {info.get('version', '')} at {where} runs without JetStream", False
    return True, "", False
