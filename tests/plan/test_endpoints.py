"""Every port, by every way to move it, is the same to everybody who reads it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from entrypoint import load
from entrypoint.commands import status
from entrypoint.commands.cli import cli
from entrypoint.commands.demo import command
from entrypoint.commands.smoke import pd
from entrypoint.errors import ConfigError
from entrypoint.plan.endpoint import Endpoint
from entrypoint.plan.types import FrontendProbe, HttpProbe, NatsProbe, Plan, PrefillProbe, Process
from tests.plan.deployments import HEAD, SIX, WITH_NGINX, Container, build, node

Way = tuple[dict[str, Any], dict[str, str]]
"""(settings, variables of the engine) that move a port."""


def last(argv: tuple[str, ...], flag: str) -> str | None:
    """The value that argparse takes for `flag`: the last one that is given."""
    found = None
    for index, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == flag:
            found = value if equals else argv[index + 1]
    return found


def bound(process: Process, native: dict[str, str], flag: str, variable: str, default: str) -> str:
    """What Dynamo binds: its argument, else its variable, else its own default."""
    environ = {**native, **process.env}
    return last(process.argv, flag) or environ.get(variable) or default


API: dict[str, Way] = {
    "by default": ({}, {}),
    "by its setting": ({"http_port": 9000}, {}),
    "by Dynamo's variable": ({}, {"DYN_HTTP_PORT": "9001"}),
    "by variable over setting": ({"http_port": 9000}, {"DYN_HTTP_PORT": "9001"}),
    "by an extra argument": ({"frontend_extra_args": "--http-port 9002"}, {}),
    "by an extra argument with =": ({"frontend_extra_args": "--http-port=9002"}, {}),
    "by the last of two": ({"frontend_extra_args": "--http-port 1 --http-port 9003"}, {}),
    "by all": (
        {"http_port": 9000, "frontend_extra_args": "--http-port 9002"},
        {"DYN_HTTP_PORT": "9001"},
    ),
}
HOSTS: dict[str, Way] = {
    "": ({}, {}),
    "on one address": ({"http_host": "10.1.2.3"}, {}),
    "on one of IPv6": ({"http_host": "fd00::9"}, {}),
    "on one in brackets": ({"http_host": "[fd00::9]"}, {}),
    "on all of IPv6": ({"http_host": "::"}, {}),
    "on the loopback by variable": ({}, {"DYN_HTTP_HOST": "127.0.0.1"}),
    "on a name by argument": ({"frontend_extra_args": "--http-host localhost"}, {}),
}


def both(one: Way, other: Way) -> Way:
    texts = [way[0].get("frontend_extra_args", "") for way in (one, other)]
    given = {**one[0], **other[0], "frontend_extra_args": " ".join(filter(None, texts))}
    return given, {**one[1], **other[1]}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("way", API)
@pytest.mark.parametrize("role", ["single", "frontend"])
def test_the_frontend_is_asked_where_it_listens(role: str, way: str, host: str) -> None:
    given, native = both(API[way], HOSTS[host])
    plan = build(Container({**HEAD, "role": role, **given}, native=native))
    frontend, endpoint = plan.process("frontend"), plan.endpoint("http")
    port = bound(frontend, native, "--http-port", "DYN_HTTP_PORT", "8000")
    address = bound(frontend, native, "--http-host", "DYN_HTTP_HOST", "0.0.0.0").strip("[]")
    reach = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1", "fd00::9": "[fd00::9]"}.get(address, address)
    assert (str(endpoint.number), endpoint.host.strip("[]")) == (port, address)
    assert isinstance(frontend.ready, FrontendProbe) and frontend.drain is not None
    assert frontend.ready.url == endpoint.url == f"http://{reach}:{port}"
    assert frontend.drain.url == f"http://{reach}:{port}/metrics"
    assert f"curl http://{reach}:{port}/v1/completions" in command.ready_text(plan)
    assert f"smoke http://{reach}:{port}\n" in command.ready_text(plan)


@pytest.mark.parametrize("nginx", [False, True])
@pytest.mark.parametrize("way", API)
def test_in_a_job_clients_batch_script_and_nginx_go_where_somebody_listens(way: str, nginx: bool) -> None:
    given, native = API[way]
    plans = [
        build(Container({**SIX, "nginx": nginx, **given}, node(index), native, facts=WITH_NGINX))
        for index in range(6)
    ]
    head = plans[0]
    frontends = {p.job.node: p for p in plans if p.job is not None and "frontend" in p.roles}
    assert head.job is not None and len(frontends) == 2
    listens = {
        name: bound(p.process("frontend"), native, "--http-port", "DYN_HTTP_PORT", "8000")
        for name, p in frontends.items()
    }
    if nginx:
        (config,) = head.job.files
        assert re.findall(r"server (\S+) max_fails", config.content) == [
            f"{name}:{port}" for name, port in listens.items()
        ]
        (entry,) = re.findall(r"listen \S+:(\d+)", config.content)
        assert head.process("nginx").ready == HttpProbe(f"http://127.0.0.1:{entry}/nginx-health")
    else:
        entry = listens[head.job.node]
    url = f"http://{head.job.node}:{entry}"
    assert {p.job.api_url for p in plans if p.job is not None} == {url}
    assert load.api_url(environment({**SIX, "nginx": nginx, **given}, native, node(5)), Path("/")) == url


def environment(settings: dict[str, Any], *more: dict[str, str]) -> dict[str, str]:
    found = {"ROLE" if k == "role" else f"GLM47_{k.upper()}": str(v).lower() for k, v in settings.items()}
    for variables in more:
        found |= variables
    return found


@pytest.mark.parametrize("way", API)
def test_bench_and_topology_ask_the_same_api(way: str) -> None:
    given, native = API[way]
    plan = build(Container({"role": "single", **given}, native=native))
    environ = environment({"role": "single", **given}, native)
    assert load.api_url(environ, Path("/")) == plan.endpoint("http").url
    elsewhere = load.api_url({**environ, "GLM47_HEAD_ADDRESS": "node1"}, Path("/"))
    assert elsewhere == f"http://node1:{plan.endpoint('http').number}"
    shown = topology({**given, "prefill_workers": 1}, native)
    port = plan.endpoint("http").number
    assert (shown["url"], shown["nodes"][0]["ports"]["frontend"]) == (f"http://node1:{port}", port)


def topology(settings: dict[str, Any], native: dict[str, str]) -> Any:
    environ = {"GLM47_PYTHON": "/nonexistent", **environment(settings, native)}
    done = CliRunner().invoke(cli, ["topology", "--nodes=4", "--format=json"], env=environ)
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


SYSTEM: dict[str, Way] = {
    "by default": ({}, {}),
    "by its setting": ({"system_port": 9100}, {}),
    "by Dynamo's variable": ({"system_port": 9100}, {"DYN_SYSTEM_PORT": "9101"}),
    "on one address": ({}, {"DYN_SYSTEM_HOST": "10.0.0.7"}),
    "on one of IPv6": ({}, {"DYN_SYSTEM_HOST": "fd00::7", "DYN_SYSTEM_PORT": "9101"}),
    "on all of IPv6": ({}, {"DYN_SYSTEM_HOST": "::"}),
}


@pytest.mark.parametrize("way", SYSTEM)
@pytest.mark.parametrize("role", ["prefill", "decode", "aggregated"])
def test_a_workers_system_server_is_asked_where_it_listens(role: str, way: str) -> None:
    given, native = SYSTEM[way]
    plan = build(Container({**HEAD, "role": role, **given}, native=native))
    worker, endpoint = plan.process(role), plan.endpoint("system")
    environ = {**native, **worker.env}
    assert (endpoint.host, str(endpoint.number)) == (environ["DYN_SYSTEM_HOST"], environ["DYN_SYSTEM_PORT"])
    host = environ["DYN_SYSTEM_HOST"]
    reach = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1", "fd00::7": "[fd00::7]"}.get(host, host)
    base = f"http://{reach}:{environ['DYN_SYSTEM_PORT']}"
    assert isinstance(worker.ready, HttpProbe | PrefillProbe) and worker.ready.url == f"{base}/health"
    assert worker.drain is not None and worker.drain.url == f"{base}/metrics"
    assert worker.hang is not None and worker.hang.metrics == f"{base}/metrics"
    asked = pd.workers_of(json.loads(json.dumps(_jsonable(plan))), "there")
    assert {w.metrics for w in asked} <= {f"http://there:{endpoint.number}/metrics"}
    assert len(asked) == (role != "aggregated")
    if "DYN_SYSTEM_HOST" not in native:
        shown = topology({**given, "prefill_workers": 1}, native)
        assert shown["nodes"][0]["ports"]["engine"] == endpoint.number


def _jsonable(plan: Plan) -> Any:
    from entrypoint.plan.types import to_jsonable

    return to_jsonable(plan)


BOOTSTRAP: dict[str, dict[str, Any]] = {
    "by default": {},
    "by its setting": {"bootstrap_port": 31000},
    "by an extra argument": {"extra_args": "--disaggregation-bootstrap-port=31001"},
    "by its role's": {
        "bootstrap_port": 31000,
        "extra_args": "--disaggregation-bootstrap-port 31001",
        "prefill_extra_args": "--disaggregation-bootstrap-port 31002",
    },
}


@pytest.mark.parametrize("way", BOOTSTRAP)
def test_prefills_bootstrap_server_is_asked_where_it_listens(way: str) -> None:
    plan = build(Container({**HEAD, "role": "prefill", **BOOTSTRAP[way]}))
    port = last(plan.process("prefill").argv, "--disaggregation-bootstrap-port")
    ready = plan.process("prefill").ready
    assert isinstance(ready, PrefillProbe) and ready.bootstrap == f"http://10.0.0.7:{port}"
    assert str(plan.endpoint("bootstrap").number) == port
    shown = topology({"prefill_workers": 1, **BOOTSTRAP[way]}, {})
    assert str(shown["nodes"][0]["ports"]["bootstrap"]) == port


@pytest.mark.parametrize(
    "given",
    [{}, {"dist_init_port": 29777}, {"prefill_extra_args": "--dist-init-addr node2:29778"}],
    ids=["by default", "by its setting", "by an extra argument"],
)
def test_the_ranks_meet_where_the_leader_listens(given: dict[str, Any]) -> None:
    many = {**HEAD, "role": "prefill", "prefill_nodes": 2, "leader_address": "node2", **given}
    leader, follower = (build(Container({**many, "node_rank": rank})) for rank in (0, 1))
    address = last(follower.process("prefill").argv, "--dist-init-addr")
    assert address == f"node2:{leader.endpoint('dist-init').number}"
    shown = topology({"prefill_workers": 1, "prefill_nodes": 2, "decode_nodes": 2, **given}, {})
    assert shown["nodes"][0]["ports"]["dist-init"] == leader.endpoint("dist-init").number


SERVERS: dict[str, Way] = {
    "by default": ({}, {}),
    "by their settings": ({"etcd_port": 2400, "nats_port": 4300}, {}),
    "on a head of IPv6": ({"head_address": "fd00::1", "etcd_port": 2400, "nats_port": 4300}, {}),
    "by the engine's variables": (
        {"etcd_port": 2400},
        {"ETCD_ENDPOINTS": "http://store:2500", "NATS_SERVER": "nats://bus:4400"},
    ),
}


@pytest.mark.parametrize("way", SERVERS)
def test_etcd_and_nats_are_asked_where_they_listen(way: str) -> None:
    given, native = SERVERS[way]
    place = {**HEAD, "engine": "mocker", "prefill_workers": 1, **given}
    servers = build(Container({**place, "role": "etcd,nats"}, native=native))
    worker = build(Container({**place, "role": "decode"}, native=native))
    head = {"fd00::1": "[fd00::1]"}.get(place["head_address"], place["head_address"])
    etcd = native.get("ETCD_ENDPOINTS", f"http://{head}:{servers.endpoint('etcd').number}")
    nats = native.get("NATS_SERVER", f"nats://{head}:{servers.endpoint('nats').number}")
    environ = {**native, **worker.process("decode").env}
    assert (environ["ETCD_ENDPOINTS"], environ["NATS_SERVER"]) == (etcd, nats)
    gates = {gate.name: gate.probe for gate in worker.gates}
    assert gates["etcd-server"].where == f"{etcd}/health"
    assert isinstance(nats_gate := gates["nats-server"], NatsProbe)
    assert nats.endswith(f":{nats_gate.port}") and nats_gate.host in nats
    drain = worker.process("decode").drain
    assert drain is not None and drain.withdraw is not None and drain.withdraw.where == etcd
    own = servers.process("etcd")
    assert f"--listen-client-urls=http://0.0.0.0:{servers.endpoint('etcd').number}" in own.argv
    assert own.ready == HttpProbe(f"{servers.endpoint('etcd').url}/health")
    assert servers.process("nats").ready == NatsProbe("127.0.0.1", servers.endpoint("nats").number, own=True)
    assert last(servers.process("nats").argv, "--port") == str(servers.endpoint("nats").number)


HEALTH = [{}, {"health_port": 9999}, {"health_host": "::"}, {"health_host": "[::]"}, {"health_host": "[::1]"}]


@pytest.mark.parametrize("given", HEALTH, ids=map(str, HEALTH))
def test_the_health_endpoint_is_asked_where_it_listens(given: dict[str, Any]) -> None:
    plan = build(Container({"role": "single", **given}))
    endpoint = plan.endpoint("health")
    reach = "[::1]" if "1" in endpoint.host else "127.0.0.1"
    url = f"http://{reach}:{endpoint.number}"
    environ = environment({"role": "single", **given})
    assert endpoint.url == status.local_url(environ, Path("/")) == url
    assert f"curl {url}/readyz" in command.ready_text(plan)
    assert status.remote_url("other", environ, Path("/")) == f"http://other:{endpoint.number}"


def test_the_runners_of_a_job_ask_each_other_by_name() -> None:
    plans = [build(Container({**SIX, "health_port": 9999}, node(i), facts=WITH_NGINX)) for i in range(6)]
    urls = {peer.url for plan in plans if plan.job is not None for peer in plan.job.peers}
    assert urls and all(re.fullmatch(r"http://nvl72d00\d:9999", url) for url in urls)
    assert {plan.endpoint("health").number for plan in plans} == {9999}


REFUSED = {
    "cannot use DYN_HTTP_PORT: web:": ({"role": "frontend"}, {"DYN_HTTP_PORT": "web"}),
    "cannot use GLM47_FRONTEND_EXTRA_ARGS --http-port: web:": (
        {"role": "frontend", "frontend_extra_args": "--http-port web"},
        {},
    ),
    "cannot use GLM47_FRONTEND_EXTRA_ARGS --http-port: no value:": (
        {"role": "frontend", "frontend_extra_args": "--http-port"},
        {},
    ),
    "cannot use GLM47_FRONTEND_EXTRA_ARGS --tls-cert-path: /c:": (
        {"role": "frontend", "frontend_extra_args": "--tls-cert-path /c --tls-key-path /k"},
        {},
    ),
    "cannot use DYN_TLS_CERT_PATH: /c:": ({"role": "frontend"}, {"DYN_TLS_CERT_PATH": "/c"}),
    "cannot use DYN_SYSTEM_PORT: 40000:": ({"role": "decode"}, {"DYN_SYSTEM_PORT": "40000"}),
    "cannot use GLM47_EXTRA_ARGS --disaggregation-bootstrap-port: x:": (
        {"role": "prefill", "extra_args": "--disaggregation-bootstrap-port x"},
        {},
    ),
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_port_that_is_none_is_refused_by_what_gave_it(text: str) -> None:
    given, native = REFUSED[text]
    with pytest.raises(ConfigError) as caught:
        build(Container({**HEAD, **given}, native=native))
    assert text in str(caught.value)


def test_nginx_cannot_ask_frontends_that_only_their_own_nodes_reach() -> None:
    with pytest.raises(ConfigError, match=r"cannot use DYN_HTTP_HOST: 127\.0\.0\.1: 2 frontends"):
        build(Container(SIX, node(0), {"DYN_HTTP_HOST": "127.0.0.1"}, facts=WITH_NGINX))


def test_a_jobs_runners_cannot_be_asked_on_their_loopbacks() -> None:
    with pytest.raises(ConfigError, match="cannot use GLM47_HEALTH_HOST: localhost: the runners of"):
        build(Container({**SIX, "health_host": "localhost"}, node(5)))


def test_two_ends_of_one_port_clash_where_their_addresses_overlap() -> None:
    one = Endpoint("a", 1, "127.0.0.1", "a")
    assert one.clashes(replace(one, host="0.0.0.0")) and one.clashes(one)
    assert not one.clashes(replace(one, host="10.0.0.7")) and not one.clashes(replace(one, number=2))
