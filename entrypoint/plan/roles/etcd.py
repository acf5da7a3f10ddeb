"""etcd of this deployment, alone or one of several members, and where it is for those that need one."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from entrypoint.node.certificates import AUTHORITY, CERTIFICATE, KEY
from entrypoint.node.network import is_loopback
from entrypoint.plan.context import Context, Part
from entrypoint.plan.diagnostics import Diagnostics, problem, unmet, warning
from entrypoint.plan.endpoint import LOOPBACK, bracketed
from entrypoint.plan.roles.executable import START_TIMEOUT, binary, server
from entrypoint.plan.types import Data, Endpoint, Gate, HttpProbe
from entrypoint.settings.members import Member, members
from entrypoint.settings.schema import Settings

JOINING = "entrypoint.supervise.discovery.joining"
"""What starts a member."""
GATEWAY = 23790
"""Where `etcd gateway` listens unless it is told something else."""


def etcd(ctx: Context) -> Part:
    """The only member, or one of GLM47_ETCD_MEMBERS."""
    s = ctx.settings
    executable, about = binary(ctx, "etcd", s.etcd_bin, "GLM47_ETCD_BIN")
    data = Data(s.etcd_data_dir or s.run_dir + "/etcd", "GLM47_ETCD_DATA_DIR")
    place, about_place = _alone(ctx) if s.etcd_members is None else _one_of(ctx, members(s.etcd_members))
    argv = (
        *place.before,
        executable,
        f"--name={place.name}",
        f"--data-dir={data.directory}",
        f"--listen-client-urls={scheme(s)}://{bracketed(place.client.host)}:{place.client.number}",
        f"--advertise-client-urls={place.advertised}",
        f"--listen-peer-urls={place.peer_scheme}://{bracketed(place.peer.host)}:{place.peer.number}",
        f"--initial-advertise-peer-urls={place.cluster[place.name]}",
        f"--initial-cluster={','.join(f'{name}={url}' for name, url in place.cluster.items())}",
        *_tls(s.etcd_tls_dir, peers=place.peer_scheme == "https"),
        *place.more,
    )
    # Its certificate is for those who ask from outside: no name in it need be the loopback's.
    ready = HttpProbe(f"{scheme(s)}://{place.client.where}/health", tls_dir=s.etcd_tls_dir)
    process = server(ctx, "etcd", argv, ready, data, place.start_timeout)
    return Part(process, (place.client, place.peer), (*about, *about_place))


def scheme(s: Settings) -> str:
    """Of etcd's URLs."""
    return "http" if s.etcd_tls_dir is None else "https"


def trusted(ctx: Context) -> tuple[str | None, str | None]:
    """(CA file, directory of certificates) by which etcd is asked."""
    directory = ctx.settings.etcd_tls_dir
    if directory is None:
        return ctx.native.get("ETCD_AUTH_CA"), None
    return f"{directory}/{AUTHORITY}", directory


def _tls(directory: str | None, *, peers: bool) -> tuple[str, ...]:
    """etcd's options: whoever asks shows a certificate of the same authority; `peers`: members do too."""
    if directory is None:
        return ()
    return tuple(
        option
        for kind in ("", "peer-")[: 2 if peers else 1]
        for option in (
            f"--{kind}cert-file={directory}/{CERTIFICATE}",
            f"--{kind}key-file={directory}/{KEY}",
            f"--{kind}trusted-ca-file={directory}/{AUTHORITY}",
            f"--{kind}client-cert-auth",
        )
    )


def about_tls(ctx: Context) -> Diagnostics:
    """What is wrong with GLM47_ETCD_TLS_DIR."""
    s, found = ctx.settings, ctx.facts.etcd_tls
    if s.etcd_tls_dir is None:
        return ()
    if s.etcd_username is not None or "ETCD_AUTH_USERNAME" in ctx.native:
        why = (
            "Dynamo shows etcd a password or a certificate, not both: unset GLM47_ETCD_USERNAME and _PASSWORD"
        )
        return (problem(f"cannot use GLM47_ETCD_TLS_DIR: {s.etcd_tls_dir}: {why}"),)
    if found is not None and found.error:
        return (unmet(f"cannot use GLM47_ETCD_TLS_DIR: {found.error}"),)
    return ()


@dataclass(frozen=True)
class _Place:
    """A member's own place among all."""

    name: str
    client: Endpoint
    peer: Endpoint
    advertised: str
    cluster: dict[str, str]
    """Peer URL by name, of all members."""
    before: tuple[str, ...] = ()
    """What stands before etcd's own command line."""
    more: tuple[str, ...] = ()
    start_timeout: float = START_TIMEOUT
    peer_scheme: str = "http"


def _ports(ctx: Context, client: str, peer: str) -> tuple[Endpoint, Endpoint]:
    s = ctx.settings
    return (
        Endpoint("etcd", s.etcd_port, client, "etcd", "GLM47_ETCD_PORT"),
        Endpoint("etcd-peer", s.etcd_peer_port, peer, "etcd", "GLM47_ETCD_PEER_PORT"),
    )


def _alone(ctx: Context) -> tuple[_Place, Diagnostics]:
    """Peers never connect, so its peer port stays on the loopback."""
    client, peer = _ports(ctx, ctx.bind, LOOPBACK)
    host = ctx.placement.head_address or ctx.placement.node_address
    where = client.where if ctx.one_machine or host is None else client.where_from_outside(host)
    # Alone it elects itself all the same, after a random wait of up to this: 0.1 s, and not 1.1.
    quick = ("--heartbeat-interval=10", "--election-timeout=100")
    return _Place(
        "glm47", client, peer, f"{scheme(ctx.settings)}://{where}", {"glm47": peer.url}, more=quick
    ), ()


def _one_of(ctx: Context, listed: tuple[Member, ...]) -> tuple[_Place, Diagnostics]:
    own, about = _own(ctx, listed)
    # Members on one machine, which a loopback each tells apart, all have the same ports.
    bind = own.host if is_loopback(own.host) else ctx.any
    client, peer = _ports(ctx, bind, bind)
    how = scheme(ctx.settings)
    clients = {one.name: f"{how}://{bracketed(one.host)}:{client.number}" for one in listed}
    cluster = {one.name: f"{how}://{bracketed(one.host)}:{peer.number}" for one in listed}
    others = ",".join(url for name, url in clients.items() if name != own.name)
    patience = ctx.settings.server_timeout
    before = (
        ctx.facts.own_python,
        "-m",
        JOINING,
        f"--others={others}",
        f"--patience={patience:g}",
        f"--tls={ctx.settings.etcd_tls_dir or ''}",
        "--",
    )
    return _Place(
        own.name,
        client,
        peer,
        clients[own.name],
        cluster,
        before=before if others else (),
        # A first start takes a majority, and a later one that lost its data waits for one.
        start_timeout=patience + START_TIMEOUT,
        peer_scheme=how,
    ), about


def _own(ctx: Context, listed: tuple[Member, ...]) -> tuple[Member, Diagnostics]:
    """The member in this container; where it is not known, the first, and what to do about it."""
    s, by_name = ctx.settings, {one.name: one for one in listed}
    if s.etcd_member is not None:
        if s.etcd_member in by_name:
            return by_name[s.etcd_member], ()
        why = (
            f"cannot use GLM47_ETCD_MEMBER: {s.etcd_member}: GLM47_ETCD_MEMBERS has {', '.join(by_name)}: "
            "name one of them"
        )
        return listed[0], (problem(why),)
    if ctx.facts.etcd_member is not None:
        return by_name[ctx.facts.etcd_member], ()
    why = (
        f"cannot use GLM47_ETCD_MEMBERS: {s.etcd_members}: none of them, or more than one, is this machine, "
        f"{ctx.facts.own_name or 'whose name is not known'}: correct the list, or set GLM47_ETCD_MEMBER"
    )
    return listed[0], (unmet(why),)


def member_urls(s: Settings) -> str | None:
    """Where clients find GLM47_ETCD_MEMBERS, joined by commas; None: there is no such list."""
    if s.etcd_members is None:
        return None
    return ",".join(f"{scheme(s)}://{bracketed(one.host)}:{s.etcd_port}" for one in members(s.etcd_members))


def about_list(urls: str | None) -> Diagnostics:
    """What Dynamo does with several endpoints in `urls` (docs/decisions/etcd-members.md)."""
    listed = () if urls is None else urls.split(",")
    if len(listed) < 2:
        return ()
    gateway = ",".join(url.rpartition("/")[2].rpartition("@")[2].strip() for url in listed)
    why = (
        f"Dynamo has a list of {len(listed)} etcd endpoints, of which it goes on asking one that is gone: "
        "a worker that starts meanwhile may end. Name one address in front of them: ETCD_ENDPOINTS="
        f"{listed[0].partition('://')[0] if '://' in listed[0] else 'http'}://{LOOPBACK}:{GATEWAY}, where "
        f"`etcd gateway start --listen-addr={LOOPBACK}:{GATEWAY} --endpoints={gateway}` runs"
    )
    return (warning(why),)


def endpoints(urls: str) -> tuple[str, ...]:
    """The etcd endpoints in `urls`, joined by commas, without user and password: a plan is printed.

    Raises ValueError when one has no host or a bad port.
    """
    return tuple(_endpoint(url.strip()) for url in urls.split(","))


def _endpoint(url: str) -> str:
    parts = urlsplit(url if "//" in url else "http://" + url)
    if not parts.hostname:
        raise ValueError(url)
    return f"{parts.scheme}://{bracketed(parts.hostname)}:{parts.port or 2379}"


def etcd_gate(
    urls: str, setting: str, timeout: float, ca_file: str | None, tls_dir: str | None = None
) -> Gate:
    """Wait up to `timeout` seconds for one of the etcd endpoints in `urls`.

    Raises ValueError when one has no host or a bad port.
    """
    first, *others = (f"{endpoint}/health" for endpoint in endpoints(urls))
    return Gate("etcd-server", HttpProbe(first, ca_file, tuple(others), tls_dir), timeout, setting)
