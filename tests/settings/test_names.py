"""Roles, kubernetes' service links, and the variables that pass through."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.settings.load import Loaded, is_secret_native, load
from entrypoint.settings.schema import Settings, roles_of
from tests.settings.helpers import env_file, problems


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        ("decode,prefill", ("prefill", "decode")),
        ("nginx, frontend,nats,etcd", ("etcd", "nats", "frontend", "nginx")),
        ("single", ("single",)),
        ("auto", ("auto",)),
    ],
)
def test_roles_come_in_canonical_order(tmp_path: Path, text: str, roles: tuple[str, ...]) -> None:
    assert roles_of(load({"ROLE": text}, tmp_path).settings) == roles


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("Decode", "instead of 'Decode' you may mean decode"),
        ("nats,nats", "name nats only once"),
        ("single,nats", "give single alone, or leave it out"),
        ("etcd,auto", "give auto alone, or leave it out"),
        ("etcd,", "give single, auto, or a comma-joined set of"),
    ],
)
def test_roles_that_cannot_be(tmp_path: Path, text: str, remedy: str) -> None:
    (line,) = problems({"ROLE": text}, tmp_path)
    assert line.startswith(f"cannot use ROLE: {text!r} (environment): ")
    assert remedy in line


SERVICE_LINKS = {
    "{0}_SERVICE_HOST": "10.96.0.7",
    "{0}_SERVICE_PORT": "8000",
    "{0}_SERVICE_PORT_HTTP": "8000",
    "{0}_PORT": "tcp://10.96.0.7:8000",
    "{0}_PORT_8000_TCP": "tcp://10.96.0.7:8000",
    "{0}_PORT_8000_TCP_PROTO": "tcp",
    "{0}_PORT_8000_TCP_PORT": "8000",
    "{0}_PORT_8000_TCP_ADDR": "10.96.0.7",
    "{0}_PORT_53_UDP": "udp://[fd00::7]:53",
    "{0}_PORT_53_UDP_ADDR": "fd00::7",
}


@pytest.mark.parametrize("service", ["GLM47", "GLM47_FRONTEND", "GLM47_MY_SERVICE"])
def test_service_links_are_ignored(tmp_path: Path, service: str) -> None:
    environ = {name.format(service): value for name, value in SERVICE_LINKS.items()}
    loaded = load(environ, tmp_path)
    assert loaded.settings == Settings()
    assert not set(environ) & set(loaded.origins)


def test_a_service_link_that_hits_a_setting_says_so(tmp_path: Path) -> None:
    environ = {name.format("GLM47_HTTP"): value for name, value in SERVICE_LINKS.items()}
    (line,) = problems(environ, tmp_path)
    assert line.startswith(
        "cannot use GLM47_HTTP_PORT: 'tcp://10.96.0.7:8000' (environment): kubernetes set it "
    )
    assert "enableServiceLinks: false" in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GLM47_FRONTEND_PORT", "8000"),
        ("GLM47_X_SERVICE_HOST", "host.example"),
        ("GLM47_X_SERVICE_PORT", "http"),
    ],
)
def test_what_only_looks_like_a_service_link_is_unknown(tmp_path: Path, name: str, value: str) -> None:
    (line,) = problems({name: value}, tmp_path)
    assert line.startswith(f"cannot use {name} (environment): no such setting")


def test_native_variables(tmp_path: Path) -> None:
    env_file(tmp_path, "NCCL_DEBUG=INFO\nUCX_TLS=rc\nETCD_AUTH_PASSWORD=hunter2\nPATH=/evil\n")
    loaded: Loaded = load(
        {
            "NCCL_DEBUG": "WARN",
            "CUDA_VISIBLE_DEVICES": "",
            "ETCD_ENDPOINTS": "http://e:2379",
            "HOME": "/",
            "UCX": "1",
        },
        tmp_path,
    )
    assert loaded.env_file_native == {"UCX_TLS": "rc", "ETCD_AUTH_PASSWORD": "hunter2"}
    assert loaded.native == {
        "NCCL_DEBUG": "WARN",
        "CUDA_VISIBLE_DEVICES": "",
        "ETCD_ENDPOINTS": "http://e:2379",
        "UCX_TLS": "rc",
        "ETCD_AUTH_PASSWORD": "hunter2",
    }
    assert "hunter2" not in repr(loaded)


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("ETCD_AUTH_PASSWORD", "x", True),
        ("NATS_AUTH_TOKEN", "x", True),
        ("HF_TOKEN", "x", True),
        ("NATS_SERVER", "nats://user:pw@host:4222", True),
        ("NATS_SERVER", "nats://host:4222", False),
        ("ETCD_AUTH_CLIENT_KEY", "/etc/key.pem", False),
        ("HF_TOKEN_PATH", "/run/token", False),
        ("NCCL_DEBUG", "INFO", False),
    ],
)
def test_secret_native_variables(name: str, value: str, secret: bool) -> None:
    assert is_secret_native(name, value) is secret
