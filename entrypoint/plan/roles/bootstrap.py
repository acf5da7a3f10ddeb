"""Where a prefill worker's bootstrap server listens, and where Dynamo announces it.

Decode workers, and the worker's own ranks, ask that server over HTTP where to fetch KV caches. SGLang binds
it to `--host`, whose default is the loopback. Dynamo announces SGLANG_HOST_IP, or for a worker of several
nodes the host of `--dist-init-addr`. Both are planned here, so that they agree
(docs/decisions/bootstrap-server.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from entrypoint.node.network import is_loopback
from entrypoint.plan import arguments
from entrypoint.plan.context import Context
from entrypoint.plan.diagnostics import Diagnostic, problem
from entrypoint.plan.endpoint import ANY, ANY6, LOOPBACK, bracketed
from entrypoint.plan.releases import ANNOUNCES_IPV6, RANKS_OVER_IPV6, TITLES
from entrypoint.settings.hosts import is_host

VARIABLES = ("SGLANG_HOST_IP", "HOST_IP")
"""Where SGLang takes its own address from; the first that is set."""


@dataclass(frozen=True)
class Address:
    """Where others find this rank, and who says so."""

    host: str
    """Without brackets."""
    source: str
    """The setting or variable to change."""


def own(ctx: Context) -> Address:
    """The address that this container's ranks tell others; the loopback where no other can reach them."""
    for name in VARIABLES:
        if name in ctx.native:
            return Address(ctx.native[name].strip("[]"), name)
    known = ctx.placement.node_address
    if ctx.one_machine or known is None:
        return Address(LOOPBACK, "GLM47_INTERFACE")
    return Address(known.strip("[]"), "GLM47_INTERFACE")


def host(ctx: Context) -> str:
    """`--host` of a prefill leader.

    One node: exactly what is announced, since its ranks register at `--host` itself. Several: every address,
    since each rank looks the leader's name up for itself.
    """
    if ctx.placement.nnodes == 1:
        return own(ctx).host
    return ANY6 if ":" in _leader(ctx).host else ANY


def announced(ctx: Context, given: arguments.Options, nnodes: int) -> Address:
    """Where Dynamo announces the bootstrap server, from the rank's final command line."""
    if nnodes == 1:
        chosen = given.get("--host")
        if chosen is not None and _follows(ctx, chosen):
            return Address(chosen.values[0].strip("[]"), f"{chosen.source} --host")
        return own(ctx)
    option = given.get("--dist-init-addr")
    if option is not None and option.source and option.values:
        return Address(option.values[0].rpartition(":")[0].strip("[]"), f"{option.source} --dist-init-addr")
    return _leader(ctx)


def url(address: Address, port: int) -> str:
    """Where its pages are."""
    return f"http://{bracketed(address.host)}:{port}"


def check(
    ctx: Context, role: str, given: arguments.Options, nnodes: int, announced_at: Address
) -> Iterator[Diagnostic]:
    """What keeps a disaggregated worker's ranks, or the bootstrap server, from being reached."""
    here = own(ctx)
    told = announced_at if role == "prefill" else here
    engine = ctx.facts.engine
    for address in dict.fromkeys((here, told)):
        if address.source in VARIABLES and not is_host(address.host):
            yield problem(
                f"cannot use {address.source}: {address.host}: give the address of this container alone"
            )
            continue
        if ":" not in address.host:
            continue
        for fact, version in ((RANKS_OVER_IPV6, engine.sglang), (ANNOUNCES_IPV6, engine.dynamo)):
            if fact.holds(version) is False:
                yield problem(
                    f"cannot use {address.source}: {address.host}: {role} workers of "
                    f"{TITLES[fact.package]} {version} cannot be reached over IPv6 ({fact.since} can): "
                    "name an interface or address of IPv4"
                )
    chosen = given.get("--host")
    if role != "prefill" or chosen is None or not chosen.source:
        return
    text = " ".join(chosen.values) or "no value"
    if (why := _mismatch(ctx, text, told, nnodes)) is not None:
        yield problem(f"cannot use {chosen.source} --host: {text}: {why}")


def _leader(ctx: Context) -> Address:
    place = ctx.placement
    return Address((place.leader_address or "").strip("[]"), place.name("leader_address"))


def _follows(ctx: Context, chosen: arguments.Option) -> bool:
    """Whether a person's own `--host` is one address that can be announced instead of the planned one."""
    if not chosen.source or not chosen.values or any(name in ctx.native for name in VARIABLES):
        return False
    text = chosen.values[0].strip("[]")
    return text not in (ANY, ANY6) and _is_ip(text) and (not is_loopback(text) or _alone(ctx))


def _alone(ctx: Context) -> bool:
    """Whether everybody who asks the bootstrap server is in this container."""
    return is_loopback(own(ctx).host) or {"prefill", "decode", "frontend"} <= set(ctx.roles)


def _mismatch(ctx: Context, text: str, told: Address, nnodes: int) -> str | None:
    """Why a bootstrap server that listens on `text` is not found at the address `told`; None: it is."""
    bare = text.strip("[]")
    remedy = f"give {told.host}, or leave it out"
    if not _is_ip(bare):
        return f"the bootstrap server needs an IP address there: {remedy}"
    if bare == told.host:
        return None
    wide = ANY6 if ":" in told.host else ANY
    if bare == wide or (bare in (ANY, ANY6) and not _is_ip(told.host)):
        return None
    where = f"its bootstrap server is announced at {told.host} ({told.source})"
    if nnodes > 1 or bare in (ANY, ANY6):
        return f"{where}: give {wide}, or leave it out"
    return f"{where}: {remedy}"


def _is_ip(text: str) -> bool:
    if ":" in text:
        return set(text.lower()) <= set("0123456789abcdef:.%")
    return text.count(".") == 3 and text.replace(".", "").isdigit()
