"""What NATS asks for and is shown: one wish for the server and all its clients, and what cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from entrypoint.errors import ConfigError
from entrypoint.node.facts import TlsFacts
from entrypoint.plan.text import text
from entrypoint.plan.types import NatsProbe, Plan, to_jsonable
from tests.plan.deployments import HEAD, PINNED, Container, build

NEWER = replace(PINNED, engine=replace(PINNED.engine, dynamo="1.5.0"), nats_tls=TlsFacts("ca", "crt", "key"))
USER = {"nats_username": "al", "nats_password": "hunter2"}
TLS = {"nats_tls_dir": "/tls"}
WORKER = {**HEAD, "role": "decode", "engine": "mocker"}
"""Of a release whose mocker wants NATS."""
OVER_TLS = {"NATS_SERVER": "tls://nats:4222"}


def plans(given: dict[str, Any], facts: Any = PINNED, **native: str) -> tuple[Plan, Plan]:
    """Of the server's container, and of a worker's."""
    server, worker = ({**HEAD, **given, "role": "nats"}, {**WORKER, **given})
    return build(Container(server, native=native, facts=facts)), build(
        Container(worker, native={**native, "DYN_REQUEST_PLANE": "nats"}, facts=facts)
    )


def probes(server: Plan, worker: Plan) -> tuple[NatsProbe, NatsProbe]:
    (gate,) = (g.probe for g in worker.gates if isinstance(g.probe, NatsProbe))
    own = server.process("nats").ready
    assert isinstance(own, NatsProbe)
    return own, gate


@pytest.mark.parametrize(
    ("given", "native", "file"),
    [
        (USER, {}, 'authorization { user: "al", password: "hunter2" }\n'),
        ({"nats_token": "hunter2"}, {}, 'authorization { token: "hunter2" }\n'),
        ({}, {"NATS_AUTH_TOKEN": "hunter2"}, 'authorization { token: "hunter2" }\n'),
        (
            {**USER, "nats_password": "x"},
            {"NATS_AUTH_PASSWORD": "hunter2"},
            'authorization { user: "al", password: "hunter2" }\n',
        ),
        (
            {"nats_username": "a b", "nats_password": 'hunter2"$\n'},
            {},
            r'authorization { user: "a\x20b", password: "hunter2\x22\x24\x0a" }' + "\n",
        ),
    ],
)
def test_the_server_asks_for_what_its_clients_show(
    given: dict[str, Any], native: dict[str, str], file: str
) -> None:
    server, worker = plans(given, **native)
    (made,) = server.secret_files
    assert (made.path, made.content) == ("/tmp/glm47-runner/nats.conf", file)
    assert server.process("nats").argv[1:3] == ("--config", made.path)
    shown = {**worker.process("decode").env, **native}
    own, gate = probes(server, worker)
    assert (own.user, own.password, own.token) == (gate.user, gate.password, gate.token)
    assert (shown.get("NATS_AUTH_USERNAME"), shown.get("NATS_AUTH_PASSWORD")) == (gate.user, gate.password)
    assert shown.get("NATS_AUTH_TOKEN") == gate.token
    assert not worker.secret_files
    for plan in (server, worker):
        assert "hunter2" not in text(plan) + repr(to_jsonable(plan)) + repr(plan.secret_files)
        assert "hunter2" not in repr(plan.gates) + repr([process.ready for process in plan.processes])


def test_without_credentials_nobody_is_asked() -> None:
    server, worker = plans({})
    assert not server.secret_files and "--config" not in server.process("nats").argv
    assert not [name for name in worker.process("decode").env if name.startswith(("NATS_AUTH", "NATS_TLS"))]


def test_mutual_tls() -> None:
    server, worker = plans(TLS, NEWER)
    argv = server.process("nats").argv
    files = ("--tlscert=/tls/tls.crt", "--tlskey=/tls/tls.key", "--tlscacert=/tls/ca.crt")
    assert argv[-5:] == ("--tls", *files, "--tlsverify")
    env = worker.process("decode").env
    assert env["NATS_SERVER"] == "tls://node1:4222"
    assert {k: v for k, v in env.items() if k.startswith("NATS_TLS")} == {
        "NATS_TLS_CA_CERT_PATH": "/tls/ca.crt",
        "NATS_TLS_CLIENT_CERT_PATH": "/tls/tls.crt",
        "NATS_TLS_CLIENT_KEY_PATH": "/tls/tls.key",
    }
    own, gate = probes(server, worker)
    assert (own.tls, own.tls_dir, own.own) == (True, "/tls", True)
    assert (gate.tls, gate.tls_dir, gate.own) == (True, "/tls", False)


@pytest.mark.parametrize(
    ("native", "knocks"),
    [
        ({}, True),
        ({"NATS_AUTH_NKEY": "S"}, False),
        ({"NATS_AUTH_CREDENTIALS_FILE": "/a"}, False),
        ({"NATS_AUTH_NKEY": "S", "NATS_AUTH_TOKEN": "t"}, True),
        (OVER_TLS, False),
        ({**OVER_TLS, "NATS_TLS_CA_CERT_PATH": "/ca"}, False),
    ],
)
def test_what_is_not_ours_to_show_is_not_shown(native: dict[str, str], knocks: bool) -> None:
    worker = build(Container(WORKER, native={**native, "DYN_REQUEST_PLANE": "nats"}, facts=NEWER))
    (gate,) = (g.probe for g in worker.gates if isinstance(g.probe, NatsProbe))
    assert gate.knocks is knocks


OLD = "NATS clients of Dynamo 0.8.1 speak no TLS: use Dynamo 1.5.0 or newer"
WRONG: list[tuple[dict[str, Any], dict[str, str], Any, str]] = [
    ({"nats_username": "al"}, {}, PINNED, "GLM47_NATS_USERNAME: al: it has no password: set GLM47_NATS_PASS"),
    ({"nats_password": "hunter2"}, {}, PINNED, "GLM47_NATS_PASSWORD: ***: it has no user: set GLM47_NATS_US"),
    ({}, {"NATS_AUTH_USERNAME": "al"}, PINNED, "NATS_AUTH_USERNAME: al: it has no password"),
    ({**USER, "nats_token": "hunter2"}, {}, PINNED, "GLM47_NATS_TOKEN: ***: NATS is shown a token or a"),
    (TLS, {}, PINNED, f"GLM47_NATS_TLS_DIR: /tls: {OLD}"),
    ({}, OVER_TLS, PINNED, f"NATS_SERVER: tls://nats:4222: {OLD}"),
    (TLS, {"NATS_SERVER": "nats://nats:4222"}, NEWER, "NATS_SERVER: nats://nats:4222: GLM47_NATS_TLS_DIR is"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "native", "facts", "line"), WRONG, ids=[w[-1][:60] for w in WRONG])
def test_what_cannot_be_is_named(
    given: dict[str, Any], native: dict[str, str], facts: Any, line: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        build(Container({**WORKER, **given}, native=native, facts=facts))
    assert f"cannot use {line}" in str(refused.value) and "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "given", [{**USER, "nats_password": "$2b$10$hunter2"}, {"nats_token": "$2a$12$hunter2"}]
)
def test_a_password_that_looks_like_a_hash(given: dict[str, Any]) -> None:
    """The server would compare its hash with what is shown; others' servers may have been given that hash."""
    with pytest.raises(ConfigError, match=r"\*\*\*: nats-server takes what begins as a hash"):
        build(Container({**HEAD, **given, "role": "nats"}))
    build(Container({**WORKER, **given}))


def test_certificates_that_cannot_be_read() -> None:
    facts = replace(NEWER, nats_tls=TlsFacts(error="/tls/ca.crt: it does not exist"))
    for role in ("nats", "decode"):
        plan = build(
            Container({**WORKER, **TLS, "role": role}, native={"DYN_REQUEST_PLANE": "nats"}, facts=facts)
        )
        assert "cannot use GLM47_NATS_TLS_DIR: /tls/ca.crt: it does not exist" in plan.unmet


def test_a_password_in_the_address_is_told_to_be_of_no_use() -> None:
    """Not refused: a server that asks nobody serves all the same."""
    url = {"NATS_SERVER": "nats://al:hunter2@nats:4222"}
    for native, said in ((url, 1), ({**url, "NATS_AUTH_TOKEN": "t"}, 0), ({**url, "NATS_AUTH_NKEY": "S"}, 0)):
        plan = build(Container(WORKER, native=native))
        assert len([w for w in plan.warnings if "does not show NATS the user and password" in w]) == said
        assert "hunter2" not in text(plan) + repr(to_jsonable(plan))
