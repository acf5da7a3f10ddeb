"""Builds where the network is not open, as docker/README.md describes them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.container.company import HOST, PASSWORD, company
from tests.container.conftest import unavailable
from tests.container.harness import ROOT, client, docker

pytestmark = pytest.mark.container
TAG = "glm47-runner:company-test"


@pytest.fixture(scope="module")
def packages(base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels that a build installs, for the base's interpreter."""
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = docker("run", "--rm", "--entrypoint", "python3", base, "-c", ask).stdout.strip()
    directory = tmp_path_factory.mktemp("packages")
    for lock in ("runner.txt", "build.txt"):
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
             "--python-version", version, "--only-binary", ":all:", "--require-hashes",
             "--dest", directory, "--requirement", ROOT / "requirements" / lock],
            check=True,
        )  # fmt: skip
    return directory


def test_a_build_behind_a_proxy_with_a_private_index(base: str, packages: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        unavailable("no openssl to make the company's certificate with")
    with company(tmp_path, packages) as network:
        command = [
            client() or "docker", "build", "--no-cache", "--network=host", "--file=docker/Dockerfile",
            f"--tag={TAG}", f"--build-arg=BASE_IMAGE={base}", f"--build-arg=HTTPS_PROXY={network.proxy}",
            f"--secret=id=ca_bundle,src={network.certificate}",
            f"--secret=id=pip_conf,src={network.pip_conf}",
            ".",
        ]  # fmt: skip
        environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "DOCKER_BUILDKIT": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    try:
        assert done.returncode == 0, done.stderr[-3000:]
        assert set(network.tunnels) == {f"{HOST}:443"}
        assert {Path(path).name for path in network.served} >= {path.name for path in packages.glob("*.whl")}
        assert docker("run", "--rm", "-e", "ROLE=single", TAG, "plan").returncode == 0
        left = docker("image", "inspect", TAG).stdout + docker("history", "--no-trunc", TAG).stdout
        search = f"! grep -rlE '{PASSWORD}|{HOST}|{network.proxy}' /opt /usr/local /var /etc /home /root /tmp"
        found = docker("run", "--rm", "--user=0", "--entrypoint", "sh", TAG, "-c", search, check=False)
    finally:
        docker("image", "rm", "--force", TAG, check=False)
    assert found.returncode == 0, found.stdout
    for word in (PASSWORD, HOST, network.proxy):
        assert word not in left
