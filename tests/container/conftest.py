"""The engine and the image that the container tests use.

Without a Docker engine, or without what building the stand-in base takes, they are skipped with the reason.
Where GLM47_CI_DOCKER=1 promises an engine, that is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.harness import LABEL, ROOT, Container, client, docker, running

BASE = "glm47-standin-base:0.8.1"
IMAGE = "glm47-runner:test"
CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here needs an engine."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.container)


def unavailable(reason: str) -> None:
    if os.environ.get("GLM47_CI_DOCKER") == "1":
        pytest.fail(f"GLM47_CI_DOCKER=1 promised a Docker engine: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def engine() -> str:
    """The Docker client of an engine that answers."""
    found = client()
    if found is None:
        unavailable("no docker client")
    elif docker("version", check=False).returncode:
        unavailable("no Docker engine answers: tests/container/dockerd.sh starts one")
    return found or ""


@pytest.fixture(scope="session")
def base(engine: str) -> str:
    """The base image: GLM47_TEST_BASE, or the stand-in, built when it is not there."""
    if given := os.environ.get("GLM47_TEST_BASE"):
        return given
    if docker("image", "inspect", BASE, check=False).returncode and (
        os.getuid() != 0 or shutil.which("debootstrap") is None
    ):
        unavailable("the stand-in base image takes root and debootstrap to build")
    done = subprocess.run(
        [ROOT / "docker/standin/build.sh", BASE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return BASE


def build(tag: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Build the Dockerfile as it is; the machine's CA bundle goes in as the documented secret."""
    secrets = [f"--secret=id=ca_bundle,src={p}" for p in CA_BUNDLES if Path(p).exists()][:1]
    index = [f"--build-arg={n}={os.environ[n]}" for n in ("PIP_INDEX_URL",) if n in os.environ]
    return subprocess.run(
        [client() or "docker", "build", "--quiet", "--network=host", "--file=docker/Dockerfile",
         f"--tag={tag}", *secrets, *index, *words, "."],
        cwd=ROOT, env={**os.environ, "DOCKER_BUILDKIT": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="session")
def image(base: str) -> str:
    """The image under test."""
    done = build(IMAGE, f"--build-arg=BASE_IMAGE={base}")
    assert done.returncode == 0, done.stdout + done.stderr
    return IMAGE


@pytest.fixture(scope="session")
def network(engine: str) -> Iterator[str]:
    """A bridge network for containers that talk to each other by name."""
    name = f"glm47-test-{os.getpid()}"
    docker("network", "create", "--label", LABEL, name)
    yield name
    docker("network", "rm", name, check=False)


@pytest.fixture(scope="session")
def servers(image: str, network: str) -> Iterator[Container]:
    """etcd and NATS in one container, reachable as `servers`."""
    with running(
        image, {"ROLE": "nats,etcd"}, ("--network", network, "--network-alias", "servers")
    ) as container:
        container.until_healthy()
        yield container
