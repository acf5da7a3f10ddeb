"""How it is told that something is ready: part of the plan, and read from `plan.types`. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from entrypoint.settings.origin import HIDDEN


@dataclass(frozen=True)
class HttpProbe:
    """Ready when GET `url`, or one of `others`, answers 2xx."""

    url: str
    ca_file: str | None = None
    others: tuple[str, ...] = ()
    tls_dir: str | None = None
    """Where the certificates are that the server asks for."""
    kind: str = field(default="http", init=False)

    @property
    def where(self) -> str:
        """The address, for people."""
        return ", ".join((self.url, *self.others))


@dataclass(frozen=True)
class PrefillProbe:
    """Ready when GET `url` answers 2xx and decode workers would find every rank through `bootstrap`."""

    url: str
    bootstrap: str
    """The bootstrap server, at the address that Dynamo announces to decode workers."""
    setting: str
    """The setting or variable that address comes from, for the error line."""
    patience: float = 60.0
    """Seconds that a worker which is up may stay out of reach: then its container ends with 69."""
    kind: str = field(default="prefill", init=False)


@dataclass(frozen=True)
class NatsProbe:
    """Ready when the NATS server greets with JetStream enabled, and lets us in as it does Dynamo."""

    host: str
    port: int
    user: str | None = None
    """None, and no token: what Dynamo shows where nobody gave it anything."""
    password: str | None = field(default=None, repr=False, metadata=HIDDEN)
    token: str | None = field(default=None, repr=False, metadata=HIDDEN)
    knocks: bool = True
    """False: it only has to greet, since what Dynamo shows it is not ours to show (a key of NATS' own)."""
    tls: bool = False
    tls_dir: str | None = None
    """Where the certificates are that the server asks for."""
    own: bool = False
    """It is this container's: its certificate need not name the loopback."""
    kind: str = field(default="nats", init=False)

    @property
    def where(self) -> str:
        """The address, for people."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Announcements:
    """Where prefill workers announce their bootstrap servers: Dynamo's store, and our part of it."""

    store: str
    """`etcd` or `file`."""
    where: str
    """etcd's endpoints, joined by commas, or the directory of the file store."""
    namespace: str
    """Of Dynamo."""
    ca_file: str | None = None
    tls_dir: str | None = None


@dataclass(frozen=True)
class StoreProbe:
    """Ready when enough workers have registered completely in Dynamo's file store."""

    directory: str
    backend: int
    """Wanted instances of component `backend` (decode and aggregated workers)."""
    prefill: int
    """Wanted instances of component `prefill`."""
    kind: str = field(default="store", init=False)

    @property
    def where(self) -> str:
        """The directory, for people."""
        return self.directory


@dataclass(frozen=True)
class FrontendProbe:
    """Ready when `model` is listed in /v1/models and enough instances are registered in /health."""

    url: str
    model: str
    backend: int
    """Wanted instances of component `backend` (decode and aggregated workers)."""
    prefill: int
    """Wanted instances of component `prefill`."""
    warmup: bool = False
    """And a small chat completion brought tokens from every pair of workers: the first request compiles
    sampling kernels, the first of a pair connects it, and on Dynamo 0.8.1 it may fail or hang."""
    settle: float = 0.0
    """Seconds between a worker's appearance and that request."""
    patience: float = 15.0
    """Seconds that it may take; doubled for each further one to the same workers."""
    workers_port: int | None = None
    """Where the runners beside its workers are asked whether those are ready, once it has been ready itself;
    None: they are not, since its workers are in this container."""
    further_ports: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The same for a node's further workers, by Dynamo's component."""
    layouts: bool = False
    """The layouts of its prefill and decode workers, which those runners tell, must fit together."""
    store: StoreProbe | None = None
    """A file store that workers of other containers register in: only what it has can be missed here."""
    lists_all: bool = False
    """Workers register where nothing is read half-written: one that it does not list is not there."""
    kind: str = field(default="frontend", init=False)


@dataclass(frozen=True)
class LoadedProbe:
    """Ready when the process is alive and its log shows the end of the load phase (follower ranks)."""

    kind: str = field(default="loaded", init=False)


@dataclass(frozen=True)
class AliveProbe:
    """Ready when the process has stayed alive for `seconds`."""

    seconds: float = 1.0
    kind: str = field(default="alive", init=False)


Probe = HttpProbe | PrefillProbe | NatsProbe | StoreProbe | FrontendProbe | LoadedProbe | AliveProbe
