"""What the planner must know of the machine: frozen data. `inspect` finds it; tests make it by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

NO_PROXY_VARIABLES = ("no_proxy", "NO_PROXY")


@dataclass(frozen=True)
class ModelFacts:
    """What the model directory says of itself."""

    error: str | None = None
    """Why the model cannot be used, in the voice of errors; None when it can (or was not looked at)."""
    config_read: bool = False
    """False: the numbers below are GLM-4.7's published ones."""
    experts: int = 160
    moe_intermediate_size: int = 1536
    heads: int = 96
    kv_heads: int = 8
    bos_token_id: int = 151329
    """The id that the corrected generation_config.json gets."""
    quantization: str | None = None
    """How it is quantized, in SGLang's words, `none` when it is not; None: not known."""
    needs_bos_fix: bool = False
    """Neither generation_config.json nor config.json has bos_token_id."""
    own_code: bool = False
    """It names classes in Python files of its own (auto_map), which nothing loads unless it is trusted."""


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
class TlsFacts:
    """What GLM47_ETCD_TLS_DIR or GLM47_NATS_TLS_DIR holds, as text (PEM)."""

    authority: str = ""
    certificate: str = ""
    key: str = ""
    error: str | None = None
    """Which file cannot be used, and what to do."""


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
    etcd_tls: TlsFacts | None = None
    """None: no directory is named."""
    nats_tls: TlsFacts | None = None
    own_python: str = "python3"
    """The runner's own interpreter."""
    own_name: str = ""
    """What this machine is called; empty: nobody looked."""
    etcd_member: str | None = None
    """Which of GLM47_ETCD_MEMBERS this machine is, by name; None: none, or several."""
