"""What the planner must know of the machine, gathered once: frozen data in, frozen data out.

`gather` is the effect; the classes are what pure code sees and what tests make by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from entrypoint.settings.schema import Settings

PROXY_VARIABLES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
NO_PROXY_VARIABLES = ("no_proxy", "NO_PROXY")


@dataclass(frozen=True)
class ModelFacts:
    """What the model directory says of itself."""

    error: str | None = None
    """Why the model cannot be used, in the voice of errors; None when it can (or was not looked at)."""
    config_read: bool = False
    """False: the numbers below are GLM-4.7's published ones."""
    experts: int = 160
    layers: int = 92
    hidden_size: int = 5120
    moe_intermediate_size: int = 1536
    heads: int = 96
    kv_heads: int = 8
    bos_token_id: int = 151329
    """The id that the corrected generation_config.json gets."""
    quantization: str | None = None
    """How it is quantized, in SGLang's words, `none` when it is not; None: not known."""
    needs_bos_fix: bool = False
    """Neither generation_config.json nor config.json has bos_token_id."""


@dataclass(frozen=True)
class EngineFacts:
    """What is installed beside `GLM47_PYTHON`; None: not known."""

    python: str | None = None
    dynamo: str | None = None
    sglang: str | None = None
    flashinfer: str | None = None
    sglang_dir: str | None = None
    """Directory of the `sglang` package."""
    flashinfer_dir: str | None = None
    """Directory of the `flashinfer` package."""
    flashinfer_cubin_dir: str | None = None
    """Directory of the `flashinfer_cubin` package."""
    binaries: dict[str, str] = field(default_factory=dict)
    """Found executables by name: etcd, nats-server, nginx."""
    transfer_code: dict[str, str] = field(default_factory=dict)
    """By transfer backend, a digest of sglang's code that hands KV caches over."""


@dataclass(frozen=True)
class Facts:
    """All of it."""

    model: ModelFacts = ModelFacts()
    engine: EngineFacts = EngineFacts()
    gpus: tuple[str, int] | None = None
    """(variable, number): how many GPUs of this node the container was given; None: no variable says it."""
    proxied: bool = False
    """The environment names a proxy for HTTP."""
    no_proxy: str = ""
    """What the environment says that no proxy is for."""


def gather(settings: Settings, environ: Mapping[str, str], *, model: bool = True) -> Facts:
    """Look at this machine once; never raises. `model=False`: no role here reads the model directory."""
    from entrypoint.node import engine as engine_facts

    found = ModelFacts()
    if model:
        from entrypoint.node.model.directory import read_facts

        found = read_facts(settings.model_path)
    return Facts(
        found,
        engine_facts.gather(settings.python, environ),
        gpus=gpus_given(environ),
        proxied=any(environ.get(name) for name in PROXY_VARIABLES),
        no_proxy=",".join(filter(None, (environ.get(name, "").strip(", ") for name in NO_PROXY_VARIABLES))),
    )


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
