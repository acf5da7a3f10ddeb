"""An etcd of three members that asks everybody for a certificate; certificates and Dynamo are real."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from entrypoint.commands.demo.model import make_demo_model
from entrypoint.plan.releases import NEWEST, PINNED
from tests.stack.test_releases import answers, ready
from tests.support.available import available
from tests.support.dynamo import EVERY_RUN, engine_settings
from tests.support.etcd_members import START, Members
from tests.support.stack import free_ports, run

pytestmark = pytest.mark.dynamo


def certificates(directory: Path, *addresses: str) -> Path:
    """A Secret's files: an authority, and one certificate of it for all of `addresses`."""
    directory.mkdir()

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)

    new = ("-newkey", "rsa:2048", "-nodes")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=test")
    openssl("req", *new, "-keyout", "tls.key", "-out", "tls.csr", "-subj", "/CN=glm47")
    names = ",".join(f"IP:{address}" for address in addresses)
    (directory / "ext").write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
    openssl("x509", "-req", "-in", "tls.csr", "-out", "tls.crt", *signed)
    return directory


@pytest.mark.parametrize(
    "release",
    [PINNED["dynamo"], NEWEST["dynamo"]]
    + [pytest.param(version, marks=pytest.mark.releases) for version in EVERY_RUN[1:-1]],
)
def test_mutual_tls(tmp_path: Path, release: str) -> None:
    """Members among themselves, the runner's gates and lists, Dynamo; who has no certificate gets nothing."""
    available(lambda: engine_settings(release))
    # The last one is where members on one machine come from: etcd looks for that in a certificate, too.
    tls = certificates(tmp_path / "tls", "127.0.1.11", "127.0.1.12", "127.0.1.13", "127.0.0.1")
    stranger = certificates(tmp_path / "stranger", "127.0.1.11")
    (stranger / "ca.crt").write_text((tls / "ca.crt").read_text())
    model = make_demo_model(tmp_path / "models" / "glm")
    with ExitStack() as stack:
        etcd = Members(tmp_path / "etcd", stack, GLM47_ETCD_TLS_DIR=str(tls))
        etcd.start()
        etcd.until_ready()
        etcd.kill("a")
        etcd.lose("a")
        etcd.start("a")
        etcd.until_ready()
        assert "joins " in etcd.runners["a"].text()

        ports = free_ports()
        shared = {
            **engine_settings(release), "GLM47_ENGINE": "mocker", "GLM47_MODEL_PATH": str(model),
            "GLM47_ETCD_MEMBERS": etcd.listed, "GLM47_ETCD_PORT": etcd.ports["GLM47_ETCD_PORT"],
            "NATS_SERVER": f"nats://127.0.0.1:{ports['GLM47_NATS_PORT']}", "DYN_TCP_RPC_HOST": "127.0.0.1",
        }  # fmt: skip
        trusted = {**shared, "GLM47_ETCD_TLS_DIR": str(tls)}
        stack.enter_context(run(tmp_path / "nats", **{**ports, **engine_settings(release), "ROLE": "nats"}))
        worker = stack.enter_context(run(tmp_path / "w", **{**free_ports(), **trusted, "ROLE": "aggregated"}))
        own = {**free_ports(), **trusted, "ROLE": "frontend"}
        frontend = stack.enter_context(run(tmp_path / "f", **own))
        ready(worker)
        ready(frontend)
        answers(own["GLM47_HTTP_PORT"])
        assert "PRIVATE KEY" not in worker.text() + frontend.text()
        assert "PRIVATE KEY" not in str(worker.get("/plan"))

        for place, directory in (("none", ""), ("other", str(stranger))):
            more = {**free_ports(), **shared, "ROLE": "aggregated", "GLM47_SERVER_TIMEOUT": "3"}
            more |= {"ETCD_ENDPOINTS": etcd.urls, "GLM47_ETCD_TLS_DIR": directory}
            with run(tmp_path / place, **{k: v for k, v in more.items() if v}) as refused:
                assert refused.wait(START) == 69, refused.text()

        os.kill(worker.status_of("aggregated")["pid"], signal.SIGKILL)
        assert worker.wait(START) == 137, worker.text()
        assert "aggregated is off the list" in worker.text()
