"""The pods run on a real cluster, in images of their own tag, built as the container tests build theirs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.conftest import base, build, engine, unavailable
from tests.k8s.kubernetes import Kubernetes, why_not

__all__ = ["base", "engine"]


@pytest.fixture(scope="session")
def images(base: str) -> dict[str, str]:
    """The images of the pods, by the names that the manifests give them."""
    made = {}
    for name, target in (("glm47-runner", ()), ("glm47-runner-bench", ("--target=bench",))):
        made[name] = f"{name}:k8s-test"
        done = build(made[name], f"--build-arg=BASE_IMAGE={base}", *target)
        assert done.returncode == 0, done.stdout + done.stderr
    # The same image, under the name that etcd and NATS have it by.
    made["glm47-runner-servers"] = made["glm47-runner"]
    return made


@pytest.fixture(scope="session")
def kubernetes(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    """One cluster for all tests."""
    if reason := why_not():
        unavailable(reason)
    script = Path(__file__).with_name("kubernetes.sh")
    done = subprocess.run([script], capture_output=True, text=True, check=False)
    if done.returncode:
        unavailable(f"no Kubernetes: {done.stderr.strip()[-1000:]}")
    root = tmp_path_factory.mktemp("kubernetes")
    try:
        with Kubernetes(Path(done.stdout.strip()), Path(sys.prefix, "engine/bin/etcd"), root) as made:
            yield made
    finally:
        shutil.rmtree(root, ignore_errors=True)
