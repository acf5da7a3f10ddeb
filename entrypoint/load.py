"""From the environment to the plan: every effect that planning needs, in the order it happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from entrypoint.errors import ConfigError
from entrypoint.node import in_slurm
from entrypoint.plan.types import Plan
from entrypoint.settings.deferred import quick_pydantic

if TYPE_CHECKING:
    from entrypoint.settings import load
    from entrypoint.settings.schema import Settings


@dataclass(frozen=True)
class Loaded:
    """A plan, and the environment that its processes start from."""

    plan: Plan
    environ: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of what is installed, by name, as far as it is known."""


def load_settings(environ: Mapping[str, str], cwd: Path) -> load.Loaded:
    """The settings of every layer; a Slurm job's own defaults (ports, run directory) come before ours.

    Raises ConfigError (78) with every problem.
    """
    with quick_pydantic():
        from entrypoint.settings import load

    loaded = load.load(environ, cwd)
    if not in_slurm_job(environ, loaded.settings):
        return loaded
    from entrypoint.node import slurm

    values = slurm.shared_values(environ, loaded.settings)
    settings, origins = slurm.with_values(loaded.settings, loaded.origins, values, in_slurm.origin(environ))
    return replace(loaded, settings=settings, origins=origins)


def in_slurm_job(environ: Mapping[str, str], settings: Settings) -> bool:
    """Whether the settings are to be worked out from a Slurm job; elsewhere nothing of it is imported."""
    if in_slurm.node_list(environ) is None:
        return False
    from entrypoint.node import slurm

    return slurm.applies(environ, settings)


def load_plan(environ: Mapping[str, str], cwd: Path) -> Loaded:
    """Read settings, look at the machine, and plan.

    Raises ConfigError (78) with every problem of the stage that failed.
    """
    loaded = load_settings(environ, cwd)
    from entrypoint.node import inspect, placement
    from entrypoint.plan import build

    settings, origins = loaded.settings, loaded.origins
    full = {**environ, **loaded.env_file_native}
    if in_slurm_job(environ, settings):
        from entrypoint.node import slurm

        placed = placement.in_job(slurm.job_of(environ, settings), settings)
    else:
        placed = placement.from_environ(full, settings)
    facts = inspect.gather(settings, full)
    plan = build.build_plan(settings, origins, placed, facts, loaded.native)
    names = "python", "dynamo", "sglang", "flashinfer"
    versions = {name: found for name in names if (found := getattr(facts.engine, name))}
    return Loaded(plan, full, versions)


def api_url(environ: Mapping[str, str], cwd: Path) -> str:
    """Where the API of this container's deployment is: on the head, if there is one, else here.

    Raises ConfigError (78) with every problem of the settings that decide it.
    """
    from entrypoint.plan.roles import endpoints

    loaded = load_settings(environ, cwd)
    settings, behind_nginx = loaded.settings, False
    head = settings.head_address
    if in_slurm_job(environ, settings):
        from entrypoint.node import slurm

        topology = slurm.job_of(environ, settings).topology
        head, behind_nginx = topology.head.name, topology.nginx
    found = endpoints.api(settings, loaded.native, behind_nginx=behind_nginx)
    if found.problems:
        raise ConfigError(found.problems)
    return found.entry.url if head is None else found.entry.url_from_outside(head)
