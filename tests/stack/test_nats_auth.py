"""A NATS that asks who is there: our own, and others' in every way that Dynamo knows; all are real."""

from __future__ import annotations

import gzip
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from entrypoint.commands.cli import cli
from entrypoint.commands.demo.model import make_demo_model
from entrypoint.plan.releases import NATS_TLS, NEWEST, PINNED
from tests.stack.test_etcd_tls import certificates
from tests.stack.test_releases import START, answers, ready
from tests.support.available import available
from tests.support.dynamo import EVERY_RUN, OTHERS, dynamo_python, engine_settings
from tests.support.nats import Key, clients, operator, server
from tests.support.runner import Runner, free_port, until
from tests.support.stack import free_ports, run

pytestmark = pytest.mark.dynamo
ENDS = [PINNED["dynamo"], NEWEST["dynamo"]]
BETWEEN = [version for version in (*EVERY_RUN, *OTHERS) if version not in ENDS]
MORE = [pytest.param(version, marks=pytest.mark.releases) for version in BETWEEN]
SPEAKS_TLS = [pytest.param(v, marks=pytest.mark.releases) for v in BETWEEN if NATS_TLS.holds(v)]
USER, PASSWORD = "glm 47", 'kestrel "\\$HOME #{} é\t$2a'
TOKEN = "kestrel-token"
UNNAMED = "GLM47_NATS_USERNAME"


class Deployment:
    """NATS and etcd, a worker and a frontend, whose requests go over NATS."""

    def __init__(self, base: Path, release: str, stack: ExitStack) -> None:
        self.base, self.release, self.stack = base, release, stack
        self.model = make_demo_model(base / "models" / "glm")
        self.ports = free_ports()
        self.http = self.ports["GLM47_HTTP_PORT"]

    def start(self, role: str, **settings: str) -> Runner:
        names = ("GLM47_ETCD_PORT", "GLM47_NATS_PORT", "GLM47_NATS_MONITOR_PORT", "GLM47_HTTP_PORT")
        own = {**free_ports(), **{name: self.ports[name] for name in names}, "ROLE": role}
        more = {
            "GLM47_ENGINE": "mocker", "GLM47_MODEL_PATH": str(self.model), "GLM47_HEAD_ADDRESS": "127.0.0.1",
            "DYN_TCP_RPC_HOST": "127.0.0.1", "DYN_REQUEST_PLANE": "nats", **engine_settings(self.release),
        }  # fmt: skip
        place = self.base / f"{role}-{len(list(self.base.iterdir()))}"
        return self.stack.enter_context(run(place, **{**own, **more, **settings}))

    def frontend_alone(self, **environ: str) -> subprocess.CompletedProcess[str]:
        """Dynamo's frontend as it is, with no runner around it that would ask NATS first."""
        store = {
            "DYN_STORE_KV": "file",
            "DYN_DISCOVERY_BACKEND": "file",
            "DYN_FILE_KV": str(self.base / "store"),
        }
        scheme = "tls" if "NATS_TLS_CA_CERT_PATH" in environ else "nats"
        where = f"{scheme}://127.0.0.1:{self.ports['GLM47_NATS_PORT']}"
        plain = {"PATH": os.environ["PATH"], "HOME": str(self.base), "NATS_SERVER": where}
        return subprocess.run(
            [dynamo_python(self.release), "-m", "dynamo.frontend", "--http-port", str(free_port())],
            env={**plain, **store, "DYN_REQUEST_PLANE": "nats", **environ}, capture_output=True, text=True,
            timeout=START, check=False,
        )  # fmt: skip


def written(runners: list[Runner], secret: str) -> list[str]:
    """Where `secret` can be read: output, plan, status, command lines."""
    found = []
    for runner in runners:
        shown: dict[str, Any] = {"output": runner.text(), "plan": runner.get("/plan")}
        shown["status"] = runner.get("/status")
        for process in runner.get("/status")[1]["processes"]:
            shown[process["name"]] = Path(f"/proc/{process['pid']}/cmdline").read_text()
        found += [f"{what}: {text}" for what, text in shown.items() if secret in str(text)]
    return found


@pytest.mark.parametrize("release", [*ENDS, *MORE])
def test_a_user_and_a_password(tmp_path: Path, release: str) -> None:
    """As files of a Secret: who has them is answered, who has not is let in by nobody."""
    available(lambda: engine_settings(release))
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "username").write_text(USER)
    (secret / "password").write_text(PASSWORD + "\n")
    logs = tmp_path / "logs"
    given = {f"GLM47_NATS_{name.upper()}_FILE": str(secret / name) for name in ("username", "password")}
    with ExitStack() as stack:
        made = Deployment(tmp_path, release, stack)
        servers, worker, frontend = (
            made.start(role, **given, GLM47_LOG_DIR=str(logs))
            for role in ("etcd,nats", "aggregated", "frontend")
        )
        for runner in (servers, worker, frontend):
            ready(runner)
        answers(made.http)
        assert {one["authorized_user"] for one in clients(made.ports["GLM47_NATS_MONITOR_PORT"])} == {USER}

        (file,) = tmp_path.glob("etcd,nats-*/nats.conf")
        assert file.stat().st_mode & 0o777 == 0o600 and "kestrel" in file.read_text()
        assert written([servers, worker, frontend], "kestrel") == []
        texts = [file.read_bytes() for file in logs.iterdir()]
        out = tmp_path / "bundle.tar.gz"
        assert CliRunner().invoke(cli, ["diagnose", str(logs), "--bundle", str(out)]).exit_code == 0
        assert len(texts) > 2 and not [
            t for t in (*texts, gzip.decompress(out.read_bytes())) if b"kestrel" in t
        ]

        refused = made.frontend_alone()
        assert refused.returncode == 1 and "Failed to connect to NATS" in refused.stderr, refused.stderr
        for wrong, names in (
            ({}, UNNAMED),
            ({**given, "GLM47_NATS_PASSWORD_FILE": str(secret / "username")}, USER),
        ):
            late = made.start("aggregated", **wrong, GLM47_SERVER_TIMEOUT="3")
            assert late.wait(START) == 69, late.text()
            assert names in late.text().splitlines()[-1] and "Authorization Violation" in late.text()
            assert "kestrel" not in late.text()


@pytest.mark.parametrize("release", [NEWEST["dynamo"], *SPEAKS_TLS])
def test_mutual_tls_and_a_token(tmp_path: Path, release: str) -> None:
    """Everybody shows a certificate and the token; who lacks one of them gets nothing."""
    available(lambda: engine_settings(release))
    tls, stranger = certificates(tmp_path / "tls", "127.0.0.1"), certificates(tmp_path / "other", "127.0.0.1")
    given = {"GLM47_NATS_TLS_DIR": str(tls), "GLM47_NATS_TOKEN": TOKEN}
    with ExitStack() as stack:
        made = Deployment(tmp_path, release, stack)
        servers = made.start("etcd,nats", **given)
        worker = made.start("aggregated", **given)
        frontend = made.start("frontend", **given)
        for runner in (servers, worker, frontend):
            ready(runner)
        answers(made.http)
        connected = clients(made.ports["GLM47_NATS_MONITOR_PORT"])
        assert connected and all(one["tls_version"] == "1.3" for one in connected)
        assert written([servers, worker, frontend], TOKEN) == []

        ca = {"NATS_TLS_CA_CERT_PATH": str(tls / "ca.crt")}
        shown = {**ca, "NATS_TLS_CLIENT_CERT_PATH": str(tls / "tls.crt")}
        shown["NATS_TLS_CLIENT_KEY_PATH"] = str(tls / "tls.key")
        assert made.frontend_alone(**shown).returncode == 1  # no token
        url = f"tls://127.0.0.1:{made.ports['GLM47_NATS_PORT']}"
        for more, said in (
            ({"GLM47_NATS_TOKEN": TOKEN}, "speaks TLS only"),
            ({"GLM47_NATS_TLS_DIR": str(stranger), "GLM47_NATS_TOKEN": TOKEN}, "CERTIFICATE_VERIFY_FAILED"),
            ({"GLM47_NATS_TLS_DIR": str(tls), "NATS_SERVER": url}, UNNAMED),
        ):
            late = made.start("aggregated", **more, GLM47_SERVER_TIMEOUT="3")
            assert late.wait(START) == 69, late.text()
            assert said in late.text().splitlines()[-1], late.text()


def test_tls_is_refused_where_dynamo_has_none(tmp_path: Path) -> None:
    tls = certificates(tmp_path / "tls", "127.0.0.1")
    with ExitStack() as stack:
        made = Deployment(tmp_path, PINNED["dynamo"], stack)
        for more, named in (
            ({"GLM47_NATS_TLS_DIR": str(tls)}, f"GLM47_NATS_TLS_DIR: {tls}"),
            ({"NATS_SERVER": "tls://10.0.0.1:4222"}, "NATS_SERVER: tls://10.0.0.1:4222"),
        ):
            runner = made.start("aggregated", **more)
            assert runner.wait(START) == 78, runner.text()
            line = runner.text().splitlines()[-1]
            assert (
                f"cannot use {named}: NATS clients of Dynamo 0.8.1 speak no TLS" in line and "1.5.0" in line
            )


@pytest.mark.releases
@pytest.mark.parametrize("release", [*EVERY_RUN, *OTHERS])
@pytest.mark.parametrize("way", ["user", "token", "nkey", "credentials", "url"])
def test_others_servers(tmp_path: Path, release: str, way: str) -> None:
    """What Dynamo shows a NATS that others run; a user and a password in its URL are not among that."""
    available(lambda: engine_settings(release))
    key = Key("user", tmp_path)
    file, believes = operator(tmp_path)
    wants = {"user": f'authorization {{ user: "u", password: "{TOKEN}" }}'}
    wants |= {"token": f'authorization {{ token: "{TOKEN}" }}', "credentials": believes, "url": wants["user"]}
    wants["nkey"] = f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}"
    shown = {"user": {"GLM47_NATS_USERNAME": "u", "GLM47_NATS_PASSWORD": TOKEN}, "url": {}}
    shown |= {"token": {"GLM47_NATS_TOKEN": TOKEN}, "nkey": {"NATS_AUTH_NKEY": key.seed}}
    shown["credentials"] = {"NATS_AUTH_CREDENTIALS_FILE": str(file)}
    with ExitStack() as stack:
        nats = stack.enter_context(server(tmp_path / "nats", wants[way]))
        made = Deployment(tmp_path, release, stack)
        made.ports["GLM47_NATS_PORT"] = str(nats.port)
        user = f"u:{TOKEN}@" if way == "url" else ""
        alone = {"GLM47_DISCOVERY": "file", "NATS_SERVER": f"nats://{user}127.0.0.1:{nats.port}"}
        runner = made.start("frontend,aggregated", **alone, **shown[way], GLM47_SERVER_TIMEOUT="3")
        if way == "url":
            assert runner.wait(START) == 69, runner.text()
            assert "Dynamo does not show NATS the user and password in it" in runner.text()
            assert made.frontend_alone(NATS_SERVER=alone["NATS_SERVER"]).returncode == 1
        else:
            ready(runner)
            answers(made.http)
            until(lambda: len(nats.clients()) >= 2, "worker and frontend are connected")
        assert TOKEN not in runner.text() and key.seed not in runner.text()
        assert made.frontend_alone().returncode == 1
