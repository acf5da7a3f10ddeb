"""What every role's planning sees: settings, placement, facts, and what was decided for the container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from entrypoint.node.facts import Facts
from entrypoint.node.placement import WORKER_ROLES, Placement
from entrypoint.plan.arguments import Options
from entrypoint.plan.diagnostics import Diagnostics
from entrypoint.plan.endpoint import ANY, ANY6, LOOPBACK
from entrypoint.plan.releases import Fact
from entrypoint.plan.roles.endpoints import Api
from entrypoint.plan.stop_budget import Shares
from entrypoint.plan.types import Endpoint, Gate, Process
from entrypoint.settings.schema import Settings

SILENT_TIMEOUT = 15.0
"""Seconds: three questions, each of which waits 5 s for its answer (supervise/probes)."""


@dataclass(frozen=True)
class Part:
    """What one role adds to the plan."""

    process: Process
    ports: tuple[Endpoint, ...] = ()
    diagnostics: Diagnostics = ()


@dataclass(frozen=True)
class Context:
    """Decisions for the whole container."""

    settings: Settings
    placement: Placement
    facts: Facts
    native: Mapping[str, str]
    roles: tuple[str, ...]
    discovery: str
    """`etcd`, `file`, `mem` or `kubernetes`."""
    model_path: str
    stop: Shares
    api: Api
    etcd_url: str | None = None
    nats_url: str | None = None
    gates: tuple[Gate, ...] = ()
    prefill_workers: int = 0
    """Prefill instances that a frontend waits for."""
    decode_workers: int = 1
    """Decode or aggregated instances that a frontend waits for."""
    frontend_options: Options = field(default_factory=Options)
    """Of this container's frontend, the person's own included."""
    diagnostics: Diagnostics = ()
    """What is to be said of all this."""

    @property
    def one_machine(self) -> bool:
        """Nothing but the API and the health endpoint needs to be reachable from outside."""
        return self.placement.one_machine

    @property
    def shared_dir(self) -> str:
        """Where that lies which all containers need at one path: the model's view and the caches.

        It is GLM47_RUN_DIR; that of a node's further workers is below it.
        """
        own = self.settings.run_dir
        return str(PurePosixPath(own).parent) if self.placement.slot else own

    @property
    def bind(self) -> str:
        """Where servers listen that other containers may need."""
        return LOOPBACK if self.one_machine else self.any

    @property
    def any(self) -> str:
        """Every address of the family that this node is reached at; Linux takes IPv4 there too."""
        return ANY6 if not self.one_machine and ":" in (self.placement.node_address or "") else ANY

    @property
    def worker_roles(self) -> tuple[str, ...]:
        """The worker roles of this container."""
        return tuple(r for r in self.roles if r in WORKER_ROLES)

    @property
    def python(self) -> str:
        """The engine's interpreter; its bare name when it was not found here."""
        return self.facts.engine.python or "python3"

    @property
    def servers(self) -> tuple[str, ...]:
        """What workers and the frontend wait for: servers of this container, else the gates."""
        own = tuple(r for r in ("etcd", "nats") if r in self.roles)
        return own + tuple(g.name for g in self.gates)

    @property
    def silent_timeout(self) -> float | None:
        """Seconds that what never computes for long (a server, the mocker) may be silent; None: for ever."""
        longest = self.settings.hang_timeout
        return min(SILENT_TIMEOUT, longest) if longest else None

    def has(self, fact: Fact) -> bool:
        """Whether `fact` holds for what is installed; where that is not known, for the pinned release."""
        return fact.holds_here(getattr(self.facts.engine, fact.package))

    def add(self, env: dict[str, str], name: str, value: str) -> str:
        """Add a variable unless the container's environment has it; returns the value in force."""
        if name in self.native:
            return self.native[name]
        env[name] = value
        return value
