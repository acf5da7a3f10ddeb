"""Every setting of the runner: name, type, default, meaning.

`ROLE` has no prefix, all others are ``GLM47_<FIELD>``. `load` reads them; nothing else in the
package reads the environment. Durations are seconds. docs/settings.md is generated from this file.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from entrypoint.settings import pasted
from entrypoint.settings.early import ENV_FILE_VARIABLE
from entrypoint.settings.roles import split_roles

PREFIX = "GLM47_"

MAX_SECONDS = 31_536_000
"""The longest duration that is accepted (one year): timers overflow far above it."""

Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False), "seconds"]


def variable_of(field: str) -> str:
    """The environment variable of `field`: ``tp`` is GLM47_TP, ``role`` is ROLE."""
    return "ROLE" if field == "role" else PREFIX + field.upper()


class Settings(BaseSettings):
    """The runner's settings, validated one by one; what they mean together is the planner's business.

    Built from its arguments alone, given by field name: `load` works out the layers itself,
    because pydantic-settings' own sources do not say which layer a value came from.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_others: PydanticBaseSettingsSource,
        **_more: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the arguments: neither the environment nor a file is read here."""
        return (init_settings,)

    role: str = Field(
        "auto",
        validation_alias="ROLE",
        description=(
            "One role or several joined by commas: etcd, nats, frontend, nginx, prefill, decode, aggregated, "
            "single; or auto: worked out from SLURM's, LeaderWorkerSet's or no environment"
        ),
    )

    # -- model
    model_path: str = Field("/model", description="Directory with the model's files; never written")
    served_model_name: str = Field("glm-4.7", description="Name that clients ask for", min_length=1)

    # -- engine
    engine: Literal["sglang", "mocker"] = Field(
        "sglang", description="What answers requests: sglang, or Dynamo's mocker engine (no GPU)"
    )
    python: str | None = Field(
        None, description="The image's interpreter that holds dynamo and sglang; found when unset"
    )
    moe_runner: str = Field(
        "auto", description="SGLang's --moe-runner-backend; auto: what is right for the installed releases"
    )
    tp: Count | None = Field(None, description="Tensor parallelism of a worker; unset: all its GPUs")
    dp: Count | None = Field(None, description="DP (attention), not of prefill; unset: the profile's, else 1")
    ep: Count | None = Field(None, description="Expert parallelism; unset: the profile's, else 1")
    prefill_tp: Count | None = Field(
        None, description="Tensor parallelism of prefill workers, where it differs from GLM47_TP"
    )
    decode_tp: Count | None = Field(
        None, description="Tensor parallelism of decode workers, where it differs from GLM47_TP"
    )
    gpus_per_node: Count = Field(4, description="GPUs of one node (GB200: 4)")
    quantization: str = Field("modelopt_fp4", description="SGLang's --quantization; none: leave it out")
    kv_cache_dtype: str = Field("fp8_e4m3", description="SGLang's --kv-cache-dtype")
    profile: Literal["original", "balanced", "latency", "throughput"] = Field(
        "original", description="Where values that are not set come from (docs/profiles.md)"
    )
    attention_backend: str | None = Field(
        None, description="SGLang's --attention-backend; unset: the profile's; auto: SGLang chooses"
    )
    mem_fraction: float | None = Field(
        None, gt=0, lt=1, description="SGLang's --mem-fraction-static; unset: the profile's"
    )
    symm_mem: bool | None = Field(None, description="SGLang's --enable-symm-mem; unset: the profile's")
    trust_remote_code: bool | None = Field(None, description="--trust-remote-code; unset: the profile's")
    transfer_backend: str = Field("nixl", description="SGLang's --disaggregation-transfer-backend")
    prefill_round_robin: bool = Field(True, description="On decode, SGLang's --prefill-round-robin-balance")
    dist_timeout: Seconds = Field(
        3600, description="SGLang's --dist-timeout: collectives while a rank captures CUDA graphs"
    )
    watchdog_timeout: Seconds = Field(3600, description="SGLang's --watchdog-timeout")
    mnnvl: Literal["auto", "on", "off"] = Field(
        "auto", description="NCCL's and Mooncake's multi-node NVLink variables; auto: by the profile"
    )
    extra_args: str = Field(
        "", description="Engine arguments, shell-quoted, on any number of lines; they override planned ones"
    )
    prefill_extra_args: str = Field("", description="The same for prefill workers only")
    decode_extra_args: str = Field("", description="The same for decode workers only")
    frontend_extra_args: str = Field("", description="Further arguments of dynamo.frontend, shell-quoted")
    tool_call_parser: str | None = Field(None, description="Dynamo's; unset: glm47 if it has that; none: off")
    reasoning_parser: str | None = Field(None, description="Dynamo's; unset: glm45 if it has that; none: off")
    router_mode: Literal["round-robin", "random", "kv"] = Field(
        "round-robin", description="How the frontend chooses a worker"
    )
    namespace: str = Field(
        "dynamo",
        description="Dynamo namespace that a deployment's containers share: lower-case, digits, -, _",
    )

    # -- topology
    prefill_workers: int = Field(
        0, ge=0, description="Prefill workers of the deployment; a frontend waits for that many"
    )
    prefill_nodes: Count = Field(1, description="Nodes of each prefill worker")
    decode_workers: int = Field(
        0, ge=0, description="Decode (or aggregated) workers of the deployment; 0: at least one"
    )
    decode_nodes: Count = Field(1, description="Nodes of each decode worker")
    prefill_workers_per_node: Count = Field(
        1, description="Prefill workers that share a node; each has its part of the node's GPUs (ROLE=auto)"
    )
    decode_workers_per_node: Count = Field(1, description="The same for decode (or aggregated) workers")
    nnodes: Count = Field(1, description="Nodes of the worker in this container")
    node_rank: int = Field(0, ge=0, description="Rank of this node in its worker; 0 is the leader")
    leader_address: str | None = Field(
        None, description="Host name or address of the worker's leader; needed when GLM47_NNODES > 1"
    )
    head_address: str | None = Field(None, description="Host name or address of the node with etcd and NATS")
    etcd_members: str | None = Field(
        None,
        description="etcd's members where it has several: 3, 5 or 7 hosts joined by commas, each host or "
        "name=host; the same in all containers, which find themselves in it by name or address",
    )
    etcd_member: str | None = Field(
        None, description="Which of them this container is, by name; unset: found out"
    )
    interface: str | None = Field(
        None, description="Network interface whose address this node announces; unset: the route to the head"
    )
    frontends: Count = Field(1, description="Frontends of the deployment (ROLE=auto)")
    nginx: bool = Field(False, description="Put nginx in front of the frontends (ROLE=auto)")
    nvlink_domain_size: int = Field(
        18,
        ge=0,
        description="Nodes that share one NVLink domain (NVL72: 18); 0: workers may lie across domains",
    )
    nvlink_domains: str | None = Field(
        None,
        description="Nodes of each NVLink domain, as Slurm writes them, with a blank between two domains; "
        "unset: guessed from the numbers in their names, and only warned of (ROLE=auto)",
    )
    discovery: Literal["auto", "etcd", "file"] = Field(
        "auto", description="Where workers register; auto: a file store for ROLE=single, else etcd"
    )

    # -- ports and addresses
    http_host: str = Field("0.0.0.0", description="Address that the frontend listens on")
    http_port: Port = Field(8000, description="Port of the OpenAI API")
    upstream_port: Port = Field(8001, description="Port of each frontend when GLM47_NGINX has the API's port")
    health_host: str = Field("0.0.0.0", description="Address of the health endpoint")
    health_port: Port = Field(9480, description="Port of the health endpoint")
    etcd_port: Port = Field(2379, description="etcd client port")
    etcd_peer_port: Port = Field(2380, description="etcd peer port")
    nats_port: Port = Field(4222, description="NATS client port")
    nats_monitor_port: Port = Field(8222, description="NATS monitoring port")
    system_port: Port = Field(
        8081, description="Port of the engine's own health and metrics server; below 32768"
    )
    bootstrap_port: Port = Field(30001, description="SGLang's --disaggregation-bootstrap-port")
    dist_init_port: Port = Field(29500, description="Port of the leader's --dist-init-addr")

    # -- files
    run_dir: str = Field("/tmp/glm47-runner", description="The one directory that must be writable")
    cache_dir: str | None = Field(
        None, description="Compiled kernels; keep it across restarts; unset: GLM47_RUN_DIR/cache"
    )
    log_dir: str | None = Field(
        None, description="One file per process beside the forwarded output; unset: none"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Forwarded lines: `name | line`, or one JSON object each"
    )
    termination_log: str | None = Field(
        "/dev/termination-log", description="Gets the reason line of a failed end, if it can be written"
    )
    events: str = Field(
        "auto", description="Kubernetes Events of failed ends: auto, off, or the directory of an account"
    )
    etcd_bin: str | None = Field(None, description="etcd's executable; found when unset")
    nats_bin: str | None = Field(None, description="nats-server's executable; found when unset")
    nginx_bin: str | None = Field(None, description="nginx's executable; found when unset")
    etcd_tls_dir: str | None = Field(
        None, description="ca.crt, tls.crt and tls.key for etcd and all that ask it: mutual TLS; unset: none"
    )
    nats_tls_dir: str | None = Field(
        None, description="The same for NATS (tls://…), with Dynamo 1.5 or newer"
    )
    etcd_data_dir: str | None = Field(None, description="etcd's data; unset: GLM47_RUN_DIR/etcd")
    nats_data_dir: str | None = Field(None, description="JetStream's data; unset: GLM47_RUN_DIR/nats")

    # -- supervision
    start_timeout: Seconds = Field(3600, description="From a worker's start to its readiness")
    stall_timeout: Seconds = Field(1800, description="Longest time without a sign of progress while loading")
    hang_unready: float = Field(
        10,
        ge=0,
        le=MAX_SECONDS,
        allow_inf_nan=False,
        description="Seconds that a worker may be stopped, or have requests and not get on with any, before "
        "it is not ready any more; compiling does not count; 0: never",
    )
    hang_timeout: float = Field(
        40,
        ge=0,
        le=MAX_SECONDS,
        allow_inf_nan=False,
        description="The same before its container ends (75), or a server restarts (15 s at most); 0: never",
    )
    stop_timeout: Seconds = Field(60, description="Total budget of a stop, drain included")
    drain_delay: float = Field(
        0,
        ge=0,
        description="After a stop is asked for, a frontend is not ready but serves this long at least, "
        "so that load balancers turn away from it",
    )
    warmup: bool = Field(
        True,
        description="A frontend is ready only once a small request of its own brought tokens from every pair "
        "of workers: the first one compiles kernels and connects them, and may fail",
    )
    server_timeout: Seconds = Field(
        300, description="How long etcd and NATS of other containers may stay silent"
    )
    max_restarts: int = Field(
        5,
        ge=0,
        description="Restarts in place of a server (etcd, nats, frontend, nginx) before its failure counts",
    )

    # -- patches
    modelopt_patch: Literal["pad", "assert", "off"] = Field(
        "pad", description="ModelOpt padding: pad (right), assert (the original deployment's edit), off"
    )
    patch_mode: Literal["auto", "inplace", "overlay"] = Field(
        "auto", description="Where patched sources go; auto: in place where writable, else overlay"
    )
    allow_wrong_padding: bool = Field(
        False, description="Let GLM47_MODELOPT_PATCH=assert serve wrong answers"
    )
    allow_wrong_layout: bool = Field(
        False,
        description="Start prefill and decode workers whose layouts do not fit together, or are not known to "
        "(docs/layouts.md)",
    )

    # -- bench
    aiperf_python: str | None = Field(
        None, description="Interpreter of the environment that has aiperf; found when unset"
    )
    bench: Literal["off", "quick", "full"] = Field(
        "off", description="Benchmark that a Slurm job runs once everything is ready"
    )
    bench_dir: str = Field(
        "bench-reports", description="Where `bench` makes a directory for each of its reports"
    )

    # -- secrets
    etcd_username: str | None = Field(None, description="Given to Dynamo as ETCD_AUTH_USERNAME")
    etcd_password: SecretStr | None = Field(None, description="Given to Dynamo as ETCD_AUTH_PASSWORD")
    nats_username: str | None = Field(None, description="NATS asks for it; Dynamo's NATS_AUTH_USERNAME")
    nats_password: SecretStr | None = Field(None, description="NATS asks for it; Dynamo's NATS_AUTH_PASSWORD")
    nats_token: SecretStr | None = Field(None, description="In place of these two; Dynamo's NATS_AUTH_TOKEN")
    api_key: SecretStr | None = Field(None, description="Bearer token that smoke and bench send")
    status_token: SecretStr | None = Field(
        None,
        description="What the health port's /, /status and /plan ask for, the same in all containers; unset: "
        "nothing",
    )

    @field_validator("role")
    @classmethod
    def _known_roles(cls, value: str) -> str:
        split_roles(value)
        return value

    @field_validator("etcd_members")
    @classmethod
    def _members(cls, value: str | None) -> str | None:
        if value is not None:
            from entrypoint.settings.members import members

            members(value)
        return value

    @field_validator("namespace")
    @classmethod
    def _namespace_characters(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", value):
            raise ValueError("give lower-case letters, digits, - and _, the first a letter or a digit")
        return value

    @field_validator("extra_args", "prefill_extra_args", "decode_extra_args", "frontend_extra_args")
    @classmethod
    def _shell_quoted(cls, value: str) -> str:
        try:
            pasted.words(value)
        except ValueError as error:
            raise ValueError(f"quote it as for a shell ({str(error).lower()})") from None
        return value


def control_character(field: str, text: str) -> str | None:
    """The first control character of a value given as `text` that `field` may not have; None: there is none.

    Arguments may be written over several lines (a YAML block); anything else with such a character in it is
    an accident that would break a configuration file or a log line. Not a validator of every field: pydantic
    takes 90 of them a fifteenth of the time to the first process.
    """
    if field.endswith("extra_args"):
        return None
    return next((c for c in text if unicodedata.category(c) in ("Cc", "Zl", "Zp")), None)


def roles_of(settings: Settings) -> tuple[str, ...]:
    """The roles of `settings` in the order of `roles.ROLES`; ``("single",)`` and ``("auto",)`` are alone."""
    return split_roles(settings.role)


INTERNAL = ("GLM47_PROCESS", "GLM47_RUNNER")
"""Set by the runner on its children, so a runner started by one of them must accept it."""

LOADER_ONLY = (ENV_FILE_VARIABLE,)
"""Read by the loader itself: where the .env file is (default ./.env)."""
