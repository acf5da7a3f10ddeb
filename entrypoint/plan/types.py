"""The plan: what one container will do, as frozen data.

Nothing here does I/O and nothing after the plan reads settings. `build.build_plan` makes a plan, `text`
prints it, `supervise` carries it out, tests compare it with golden files. All durations are seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from entrypoint.plan.edit_types import FileEdit as FileEdit
from entrypoint.plan.edit_types import FlashInfer as FlashInfer
from entrypoint.plan.edit_types import SourcePatch as SourcePatch

# Words of the plan, for everybody who reads one.
from entrypoint.plan.endpoint import Endpoint as Endpoint
from entrypoint.plan.job_types import JobPlan as JobPlan
from entrypoint.plan.job_types import Peer as Peer
from entrypoint.plan.job_types import PlannedFile as PlannedFile
from entrypoint.plan.job_types import SecretFile as SecretFile
from entrypoint.plan.layout_types import KvLayout as KvLayout
from entrypoint.plan.probe_types import AliveProbe as AliveProbe
from entrypoint.plan.probe_types import Announcements as Announcements
from entrypoint.plan.probe_types import FrontendProbe as FrontendProbe
from entrypoint.plan.probe_types import HttpProbe as HttpProbe
from entrypoint.plan.probe_types import LoadedProbe as LoadedProbe
from entrypoint.plan.probe_types import NatsProbe as NatsProbe
from entrypoint.plan.probe_types import PrefillProbe as PrefillProbe
from entrypoint.plan.probe_types import Probe as Probe
from entrypoint.plan.probe_types import StoreProbe as StoreProbe
from entrypoint.settings.origin import HIDDEN, REDACTED, Origin
from entrypoint.settings.secrets import redacted

PLAN_FORMAT = 1
"""Version of the JSON layout; raised when a field changes its meaning."""


class Criticality(str, Enum):
    """What the end of a process means for its container."""

    CRITICAL = "critical"
    """Its end ends the container, with its exit code."""
    RESTART = "restart"
    """Restarted in place with backoff; critical once it has used up its restarts."""


@dataclass(frozen=True)
class Withdrawal:
    """Where a worker is listed for frontends: it is taken off before it drains, and once it has died.

    A worker of Dynamo 0.8.1 stays listed until its last request is answered, but drops what reaches it after
    the stop signal: those requests never get an answer.
    """

    store: str
    """`etcd` or `file`."""
    where: str
    """etcd's endpoints, joined by commas, or the directory of the file store."""
    ca_file: str | None = None
    tls_dir: str | None = None
    """Where etcd's certificates are, which it asks for."""


@dataclass(frozen=True)
class Drain:
    """Before the stop signal: wait until a server answers its last request."""

    url: str
    """A page of Prometheus metrics."""
    metric: str
    """The gauge of requests in flight; its samples are added up."""
    delay: float
    """Seconds to wait at least, for load balancers to see that we are not ready any more."""
    timeout: float
    """Seconds to wait at most."""
    withdraw: Withdrawal | None = None
    """Done before the wait."""


@dataclass(frozen=True)
class HangWatch:
    """When a worker that does not get on, although it has requests or is stopped, is called hung."""

    unready: float
    """Seconds after which it is not ready any more; 0: never."""
    timeout: float
    """Seconds after which its container ends (exit 75); 0: never."""
    metrics: str | None
    """Its page of Prometheus metrics; None: it serves none, as a follower."""
    in_flight: str
    """There, the gauge of requests in flight, …"""
    begun: str
    """… the counter of requests that came, …"""
    answered: str
    """… and the counter of bytes that were answered."""
    labelled: str
    """Only samples with this label count (`name="value"`)."""
    waits_for_others: bool = False
    """Its requests may wait for a worker elsewhere."""


@dataclass(frozen=True)
class Data:
    """Where a server keeps what outlives it."""

    directory: str
    setting: str
    """The setting that names another one."""


@dataclass(frozen=True)
class Process:
    """One supervised process."""

    name: str
    """The role that it plays."""
    argv: tuple[str, ...]
    ready: Probe
    settings: Mapping[str, str] = field(default_factory=dict)
    """By option of its command line, the setting that a person changes it with."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables added to the container's environment."""
    secret_env: frozenset[str] = frozenset()
    """Names in `env` whose values are never printed."""
    unset_env: tuple[str, ...] = ()
    """Variables of the container's environment that the process must not see."""
    cwd: str | None = None
    needs: tuple[str, ...] = ()
    """Processes and gates that must be ready before this one starts; they stop after it."""
    stops_before: tuple[str, ...] = ()
    """Processes that stop only after this one, although it does not wait for them at start."""
    drain: Drain | None = None
    """How its last requests are waited for before the stop signal; None: it is signalled at once."""
    leader_hold: float | None = None
    """A follower rank: seconds that it goes on, when asked to stop, until its leader's end ends it too."""
    stop_signal: str = "TERM"
    grace: float = 30.0
    """Seconds between the stop signal and KILL, where the stop's budget has them."""
    least: float | None = None
    """Those that are kept for it whatever others take; None: all of `grace`."""
    loading_grace: float | None = None
    """The same for a process that has never been ready, where it would put the signal off until it has
    loaded; its KILL is then no failure. None: `grace` holds, and a KILL counts."""
    criticality: Criticality = Criticality.CRITICAL
    start_timeout: float | None = None
    """Seconds from spawn to ready before the start counts as failed (exit 75)."""
    stall_timeout: float | None = None
    """Seconds without any sign of progress before ready (exit 75)."""
    data: Data | None = None
    """A server that cannot open it is not started again: that would not help. None: it has none."""
    log_dialect: str | None = None
    """Which progress patterns its log follows: `sglang`, or none."""
    vital: tuple[str, ...] = ()
    """What the titles of those of its child processes begin with that it cannot do without. It is lost when
    one of them is dead while it goes on itself. Only for critical processes."""
    hang: HangWatch | None = None
    """How it is seen that it does not get on; None: nobody looks. Only for processes with `vital` ones."""
    silent_timeout: float | None = None
    """Seconds that it may answer no probe at all once it has been ready; then it hangs. None: for ever."""
    unlisted_timeout: float | None = None
    """Frontend on the file store: restart it when it has not seen so long what ready workers registered."""


@dataclass(frozen=True)
class Gate:
    """A server outside this container that must answer before what needs it starts (else exit 69)."""

    name: str
    probe: HttpProbe | NatsProbe | StoreProbe
    timeout: float
    setting: str
    """The setting or variable that names the server, for the error line."""


@dataclass(frozen=True)
class Plan:
    """Everything `run` will do in this container."""

    roles: tuple[str, ...]
    processes: tuple[Process, ...]
    gates: tuple[Gate, ...]
    file_edits: tuple[FileEdit, ...]
    ports: tuple[Endpoint, ...]
    settings: Mapping[str, Origin]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    """Decisions worth knowing, with their reason (which MoE runner and why, …)."""
    model_source: str
    """GLM47_MODEL_PATH: where the weights are; never written."""
    model_path: str
    """What the engine and the frontend are given: `model_source`, or the corrected view of it."""
    served_model_name: str
    run_dir: str
    log_dir: str | None
    log_format: str
    stop_timeout: float
    """Seconds that a whole stop may take, from the signal to our exit."""
    max_restarts: int
    termination_log: str | None
    source_patch: SourcePatch | None = None
    flashinfer: FlashInfer | None = None
    """None: no SGLang runs here, or none that has FlashInfer."""
    fresh_dirs: tuple[str, ...] = ()
    """Dynamo's file stores that are this run's own: emptied first, since what an earlier run registered there
    is stale, and kept from expiring while the workers live."""
    needs_model: bool = False
    """A process of this container reads the model directory."""
    needs_weights: bool = False
    """And its weights: every shard is checked before the start."""
    bos_token_id: int = 151329
    """What the corrected generation_config.json gets."""
    model_error: str | None = None
    """Why the model cannot be used here; `run` and `check` end with 66, `plan` only says so."""
    unmet: tuple[str, ...] = ()
    """What this machine lacks to carry the plan out; `run` and `check` end with 78, `plan` only says so."""
    job: JobPlan | None = None
    """The Slurm job that this container is one node of."""
    announcements: Announcements | None = None
    """Frontends and decode workers: where to learn which bootstrap servers must be found from here."""
    rank: int = 0
    """This container's rank in its worker; 0 is the leader."""
    nnodes: int = 1
    layouts: tuple[KvLayout, ...] = ()
    """Of this container's prefill and decode workers."""
    cache_dir: str | None = None
    """What is kept across restarts: compiled kernels, and how long earlier starts took."""
    secret_files: tuple[SecretFile, ...] = ()
    """What a server of this container reads its secrets from."""
    status_token: str | None = field(default=None, repr=False, metadata=HIDDEN)
    """A secret that the health endpoint asks people for, and other runners of the deployment."""

    def process(self, name: str) -> Process:
        """The process called `name`; KeyError if there is none."""
        return {process.name: process for process in self.processes}[name]

    @property
    def health(self) -> Endpoint:
        """The runner's own endpoint."""
        return self.endpoint("health")

    def endpoint(self, name: str) -> Endpoint:
        """The port called `name` of this container (`http`, `nginx`, `health`, …); KeyError without one."""
        return {endpoint.name: endpoint for endpoint in self.ports}[name]


def to_jsonable(plan: Plan) -> dict[str, Any]:
    """`plan` as JSON-able data, with every secret's value replaced by ``***``."""
    data: dict[str, Any] = {"format": PLAN_FORMAT, **_jsonable(plan)}
    for raw, process in zip(data["processes"], plan.processes, strict=True):
        raw["env"] = {k: REDACTED if k in process.secret_env else v for k, v in raw["env"].items()}
        raw["argv"] = [*redacted(process.argv)]
    return data


def _shown(field: dataclasses.Field[Any], value: Any) -> Any:
    return REDACTED if field.metadata == HIDDEN and value is not None else _jsonable(value)


def _jsonable(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _shown(f, getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple | list):
        return [_jsonable(v) for v in value]
    if isinstance(value, Enum):
        return value.value
    return value
