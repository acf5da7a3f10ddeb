"""One rank, resolved once: its final options, split and addresses, and what is wrong with those. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from entrypoint.errors import ConfigError
from entrypoint.plan import arguments
from entrypoint.plan.context import Context
from entrypoint.plan.diagnostics import Diagnostic, Diagnostics, problem, problems
from entrypoint.plan.endpoint import ANY, Endpoint
from entrypoint.plan.engine import moe_runner
from entrypoint.plan.engine.parallelism import Split
from entrypoint.plan.roles import bootstrap, endpoints, mocker, parsers, reserved, sglang
from entrypoint.plan.roles.bootstrap import Address
from entrypoint.settings.schema import Settings

EXTRA = {"prefill": "GLM47_PREFILL_EXTRA_ARGS", "decode": "GLM47_DECODE_EXTRA_ARGS"}


@dataclass(frozen=True)
class Rank:
    """One rank's final command line and all that follows from it."""

    role: str
    mock: bool
    """Dynamo's mocker in place of SGLang."""
    options: arguments.Options
    nnodes: int
    node_rank: int
    split: Split
    page_size: int | None
    """Tokens of a page of the KV cache; None: SGLang's own choice."""
    settings: Mapping[str, str]
    """By number (tp, dp, ep, nnodes, node_rank), the setting or extra argument that gave it."""
    system: Endpoint
    bootstrap: Endpoint
    """Of a prefill leader."""
    announced: Address
    """Where Dynamo announces the bootstrap server."""
    dist_init: Endpoint
    """Of the leader of several nodes."""
    diagnostics: Diagnostics = ()

    @property
    def leader(self) -> bool:
        """Rank 0 registers the worker and answers requests."""
        return self.node_rank == 0

    def label(self, flag: str, setting: str) -> str:
        """What a person must change: the extra argument that set `flag`, else `setting`."""
        return label(self.options, flag, setting)


def label(given: arguments.Options, flag: str, setting: str) -> str:
    """The extra argument that set `flag`, else `setting`."""
    option = given.get(flag)
    return f"{option.source} {option.flag}" if option is not None and option.source else setting


def extra(s: Settings, role: str) -> arguments.Options:
    """The person's own options alone; the role's own come last and win. ConfigError when they are none."""
    try:
        parsed = [arguments.parse(text, setting) for setting, text in _extra_texts(s, role)]
    except arguments.ArgumentsError as error:
        raise ConfigError(str(error)) from None
    return arguments.Options(tuple(option for options in parsed for option in options))


def resolve_ranks(ctx: Context) -> tuple[Rank, ...]:
    """The rank of each worker role in this container; several share its GPUs, one after another."""
    found: list[Rank] = []
    for index, role in enumerate(ctx.worker_roles):
        base_gpu = 0 if ctx.settings.engine == "mocker" else sum(rank.split.gpus for rank in found)
        found.append(resolve_rank(ctx, role, index=index, base_gpu=base_gpu))
    return tuple(found)


def resolve_rank(
    ctx: Context, role: str, *, index: int = 0, base_gpu: int = 0, engine: str | None = None
) -> Rank:
    """The rank of `role` in this container, which is its worker `index`, with GPUs from `base_gpu` on.

    `engine`: another than GLM47_ENGINE, to know what it would be.
    """
    s, place = ctx.settings, ctx.placement
    mock = (engine or s.engine) == "mocker"
    options, about = _options(ctx, role, base_gpu, mock=mock)
    numbers = _Numbers(options)
    nnodes = place.nnodes if mock else numbers.get("--nnodes", place.nnodes)
    node_rank = place.node_rank if mock else numbers.get("--node-rank", place.node_rank)
    port, setting, about_system = endpoints.system(s, ctx.native, index)
    tp, tp_setting = sglang.tp_of(ctx, role)
    dp, ep = sglang.dp_of(ctx, role), sglang.ep_of(ctx, role)
    tp = max(1, numbers.get("--tp-size", tp))
    dispatched = options.value("--moe-a2a-backend") in moe_runner.DISPATCHERS
    split = Split(
        tp=tp,
        dp=max(1, numbers.get("--dp-size", dp)),
        ep=tp if dispatched else max(1, numbers.get("--ep-size", ep)),
        pp=max(1, numbers.get("--pp-size", 1)),
        nnodes=max(1, nnodes),
        gpus_per_node=s.gpus_per_node,
    )
    page = None if options.get("--page-size") is None else numbers.get("--page-size", 1)
    ports, about_ports = _ports(ctx, role, options, nnodes if node_rank == 0 else 0, mock=mock)
    return Rank(
        role=role,
        mock=mock,
        options=options,
        nnodes=nnodes,
        node_rank=node_rank,
        split=split,
        page_size=page,
        settings={
            "tp": label(options, "--tp-size", tp_setting),
            "dp": label(options, "--dp-size", "GLM47_DP"),
            "ep": label(options, "--moe-a2a-backend" if dispatched else "--ep-size", "GLM47_EP"),
            "nnodes": label(options, "--nnodes", place.name("nnodes")),
            "node_rank": label(options, "--node-rank", place.name("node_rank")),
        },
        system=Endpoint("system", port, ctx.native.get("DYN_SYSTEM_HOST") or ctx.bind, role, setting),
        bootstrap=ports[0],
        announced=bootstrap.announced(ctx, options, nnodes),
        dist_init=ports[1],
        diagnostics=(
            *about,
            *(() if mock else numbers.problems),
            *problems(about_system),
            *about_ports,
        ),
    )


def _extra_texts(s: Settings, role: str) -> list[tuple[str, str]]:
    texts = [("GLM47_EXTRA_ARGS", s.extra_args)]
    if role in EXTRA:
        texts.append((EXTRA[role], s.prefill_extra_args if role == "prefill" else s.decode_extra_args))
    return texts


def _options(
    ctx: Context, role: str, base_gpu: int, *, mock: bool
) -> tuple[arguments.Options, list[Diagnostic]]:
    """Planned options with the person's own over them; the role's own extra arguments win."""
    planned = mocker.options(ctx, role) if mock else sglang.options(ctx, role, base_gpu)
    result, words = planned, reserved.MOCKER if mock else reserved.SGLANG
    found: list[Diagnostic] = []
    for setting, text in _extra_texts(ctx.settings, role):
        try:
            extra, wrong = reserved.allowed(ctx, planned, arguments.parse(text, setting), words, role)
            found += wrong
            result = result.override(extra)
        except arguments.ArgumentsError as error:
            found.append(problem(str(error)))
    return result if mock else parsers.added(ctx, result), found


def _ports(
    ctx: Context, role: str, options: arguments.Options, nnodes: int, *, mock: bool
) -> tuple[tuple[Endpoint, Endpoint], Diagnostics]:
    """((bootstrap, dist-init), what is wrong with those that are used): `nnodes` is 0 for a follower."""
    number, setting, about_bootstrap = endpoints.bootstrap(ctx.settings, options)
    host = (options.value("--host") or ANY).strip("[]")
    server = Endpoint("bootstrap", number, host, role, setting)
    number, setting, about_meeting = endpoints.dist_init(ctx.settings, options)
    meeting = Endpoint("dist-init", number, ctx.any, role, setting)
    wrong = about_bootstrap if role == "prefill" and nnodes else []
    if nnodes > 1 and not mock and len(ctx.worker_roles) == 1:
        wrong = [*wrong, *about_meeting]
    return (server, meeting), problems(wrong)


class _Numbers:
    """Whole numbers on a command line; what is not one becomes a problem."""

    def __init__(self, given: arguments.Options) -> None:
        self._given = given
        self._problems: list[Diagnostic] = []

    @property
    def problems(self) -> Diagnostics:
        """Of all that were read so far."""
        return tuple(self._problems)

    def get(self, flag: str, default: int) -> int:
        """The value of `flag`, else `default`."""
        text = self._given.value(flag)
        if text is None:
            return default
        if text.isascii() and text.isdigit():
            return int(text)
        where = label(self._given, flag, flag)
        self._problems.append(problem(f"cannot use {where}: {text}: give a whole number"))
        return default
