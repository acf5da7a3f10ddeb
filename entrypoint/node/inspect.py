"""Looks at this machine once, for the planner: what is installed, the model, the GPUs given, proxies."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from entrypoint.node import engine
from entrypoint.node.facts import NO_PROXY_VARIABLES, Facts, ModelFacts, TlsFacts

if TYPE_CHECKING:
    from entrypoint.settings.schema import Settings

PROXY_VARIABLES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


def gather(settings: Settings, environ: Mapping[str, str], *, model: bool = True) -> Facts:
    """Look at this machine once; never raises. `model=False`: no role here reads the model directory."""
    found = ModelFacts()
    if model:
        from entrypoint.node.model.directory import read_facts

        found = read_facts(settings.model_path)
    own_name, member = "", None
    if settings.etcd_members is not None and "etcd" in settings.role:
        from entrypoint.node import etcd_member
        from entrypoint.node.network import Network
        from entrypoint.settings.members import members

        network = Network()
        own_name, member = network.name(), etcd_member.own(members(settings.etcd_members), network)
    return Facts(
        found,
        engine.gather(settings.python, environ),
        gpus=gpus_given(environ),
        proxied=any(environ.get(name) for name in PROXY_VARIABLES),
        no_proxy=",".join(filter(None, (environ.get(name, "").strip(", ") for name in NO_PROXY_VARIABLES))),
        etcd_tls=_certificates(settings.etcd_tls_dir),
        nats_tls=_certificates(settings.nats_tls_dir),
        own_python=sys.executable,
        own_name=own_name,
        etcd_member=member,
    )


def _certificates(directory: str | None) -> TlsFacts | None:
    if directory is None:
        return None
    from entrypoint.node import certificates

    return certificates.read(directory)


def gpus_given(environ: Mapping[str, str]) -> tuple[str, int] | None:
    """(variable, number) of the GPUs that this container was given, by CUDA's own variable or Slurm's."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        count = 0
        for word in map(str.strip, visible.split(",")):
            if not word or word.startswith("-") or word.lower() in ("nodevfiles", "void", "none"):
                break  # CUDA sees nothing from the first device on that there is not
            count += 1
        return "CUDA_VISIBLE_DEVICES", count
    on_node = environ.get("SLURM_GPUS_ON_NODE", "")
    if on_node.isascii() and on_node.isdigit():
        return "SLURM_GPUS_ON_NODE", int(on_node)
    return None
