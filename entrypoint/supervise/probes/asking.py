"""Asking a server once: is it ready, and if not, why. Blocking; `prober` calls it from threads."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from entrypoint.base.foreign import from_json
from entrypoint.errors import shortage
from entrypoint.plan.own_questions import WARM_UP_HEADERS
from entrypoint.plan.types import Drain, FrontendProbe, HttpProbe, NatsProbe, PrefillProbe, Probe, StoreProbe
from entrypoint.supervise.discovery import file_store
from entrypoint.supervise.probes import bootstrap_server, nats, runners, warming
from entrypoint.supervise.probes.warming import Pair

if TYPE_CHECKING:
    import httpx

TIMEOUT = 5.0
"""Seconds that an answer may take."""


class UnreachableError(Exception):
    """A worker is up, but others cannot find it."""

    def __init__(self, text: str, patience: float) -> None:
        super().__init__(text)
        self.patience = patience
        """Seconds after which that will not change any more."""


class SilentError(Exception):
    """No answer at all, as a stopped process gives none."""


@dataclass(frozen=True)
class View:
    """What a frontend lists."""

    instances: Mapping[str, frozenset[int]]
    """Ids of registered workers, by component."""
    listed: bool
    """The model is in /v1/models."""
    hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Where those workers are, by component; a worker that does not tell is an empty one."""


def ask(
    probe: Probe,
    client: Callable[..., httpx.Client],
    judge: Callable[[View], tuple[bool, str, bool]] | None = None,
) -> tuple[bool, str, bool]:
    """Ask once: (ready, why not, the server answered that it is not ready yet).

    `judge` says so of what a frontend lists. Raises UnreachableError and SilentError.
    """
    if isinstance(probe, NatsProbe):
        return _ask_nats(probe)
    seen: View | None = None
    if isinstance(probe, StoreProbe):
        why = lacks(probe)
        return not why, why, False
    # After NATS, which is often the first thing that others wait for: this takes a tenth of a second once.
    import httpx

    try:
        if isinstance(probe, HttpProbe):
            return _ask_any(probe, client(probe.ca_file, probe.tls_dir))
        if isinstance(probe, PrefillProbe):
            return _ask_prefill(probe, client(None))
        if isinstance(probe, FrontendProbe) and judge is not None:
            seen = view(probe, client(None))
            return judge(seen)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = _why(error)
        # What was asked about a frontend's workers is not its own silence; nor is what we ourselves lack.
        if seen is not None or isinstance(error, httpx.InvalidURL) or _is_ours(error):
            return False, why, False
        raise SilentError(why) from error
    raise TypeError(f"not a probe that can be asked: {probe!r}")


def in_flight(drain: Drain, client: httpx.Client) -> float | None:
    """Requests in flight, 1 when there is no answer that tells; None when nobody listens any more."""
    import httpx

    try:
        text = client.get(drain.url).text
    except httpx.ConnectError:
        return None
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


def _why(error: Exception) -> str:
    import httpx

    where = ""
    with contextlib.suppress(RuntimeError):  # an error that belongs to no request
        where = f" {error.request.url.netloc.decode()}" if isinstance(error, httpx.RequestError) else ""
    if isinstance(error, httpx.ConnectError):
        return f"no connection{where and f' to{where}'}: {_short(error)}"
    if isinstance(error, httpx.TimeoutException):
        return f"no answer{where and f' from{where}'} within {TIMEOUT:g} s"
    return _short(error)


def _is_ours(error: BaseException | None) -> bool:
    """Whether we could not even ask: no descriptor, or no memory."""
    while error is not None:
        if shortage(error) is not None:
            return True
        error = error.__cause__ or error.__context__
    return False


def _ask_any(probe: HttpProbe, client: httpx.Client) -> tuple[bool, str, bool]:
    import httpx

    for url in probe.others:
        with contextlib.suppress(httpx.HTTPError):
            if client.get(url).is_success:
                return True, "", False
    return _ask_http(probe, client)


def _ask_http(probe: HttpProbe, client: httpx.Client) -> tuple[bool, str, bool]:
    response = client.get(probe.url)
    if response.is_success:
        return True, "", False
    return False, f"{probe.url} answers {response.status_code}", response.status_code == 503


def _ask_prefill(probe: PrefillProbe, client: httpx.Client) -> tuple[bool, str, bool]:
    ready, why, loading = _ask_http(HttpProbe(probe.url), client)
    if ready and (fault := bootstrap_server.fault(probe.bootstrap, client)) is not None:
        raise UnreachableError(
            f"its bootstrap server, announced to decode workers at {probe.bootstrap}, {fault}: "
            f"correct {probe.setting}",
            probe.patience,
        )
    return ready, why, loading


def lacks(probe: StoreProbe) -> str:
    """Which workers have not registered completely in a file store; empty when enough have."""
    counts = file_store.registered(probe.directory)
    wanted = (("prefill", probe.prefill), ("backend", probe.backend))
    return ", ".join(
        f"{counts.get(component, 0)} of {count} {component} instances registered"
        for component, count in wanted
        if counts.get(component, 0) < count
    )


def view(probe: FrontendProbe, client: httpx.Client) -> View:
    """What a frontend lists."""
    health = _json(client.get(f"{probe.url}/health"))
    models = _json(client.get(f"{probe.url}/v1/models"))
    names = [m.get("id") for m in models.get("data") or [] if isinstance(m, dict)]
    return View(instances_of(health), probe.model in names, runners.hosts_of(health))


def request_tokens(
    probe: FrontendProbe, client: httpx.Client, pair: Pair, timeout: float
) -> tuple[str | None, Pair | None]:
    """One small chat completion: (None when it brought tokens, else why not; who served it, if told)."""
    import httpx

    body = warming.body(probe.model, pair, uuid.uuid4().hex[:8])
    try:
        response = client.post(
            f"{probe.url}/v1/chat/completions", json=body, timeout=timeout, headers=WARM_UP_HEADERS
        )
    except httpx.TimeoutException:
        return f"no answer within {timeout:g} s", None
    except httpx.HTTPError as error:
        return _short(error), None
    if not response.is_success:
        return f"{response.status_code}: {response.text[:200].strip()}", None
    answer = _json(response)
    return warming.lacks_tokens(answer), warming.served_by(answer, pair)


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        data = from_json(response.content)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def instances_of(health: dict[str, Any]) -> dict[str, frozenset[int]]:
    """Ids of the registered workers by component, from the body of the frontend's /health."""
    found: dict[str, set[int]] = {}
    for instance in health.get("instances") or []:
        if isinstance(instance, dict) and instance.get("endpoint") == "generate":
            number = instance.get("instance_id")
            if isinstance(number, int):
                found.setdefault(str(instance.get("component")), set()).add(number)
    return {component: frozenset(ids) for component, ids in found.items()}


def _ask_nats(probe: NatsProbe) -> tuple[bool, str, bool]:
    try:
        why = nats.lacks(probe, TIMEOUT)
    except OSError as error:
        why = f"no connection to {probe.where}: {error.strerror or error}"
        if not _is_ours(error):
            raise SilentError(why) from error
    return not why, why, False
