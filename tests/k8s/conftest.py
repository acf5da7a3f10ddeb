"""The pods run on a real cluster, in images of their own tag, built as the container tests build theirs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.conftest import base, build, engine, unavailable
from tests.k8s.cluster import Cluster, cluster
from tests.k8s.kubernetes import Kubernetes, why_not

__all__ = ["base", "engine"]


RUNNER, BENCH = "glm47-runner:k8s-test", "glm47-runner-bench:k8s-test"


@pytest.fixture(scope="session")
def images(base: str) -> dict[str, str]:
    """The images of the pods, by the names that the manifests give them; `bench_image` builds its own."""
    done = build(RUNNER, f"--build-arg=BASE_IMAGE={base}")
    assert done.returncode == 0, done.stdout + done.stderr
    # Servers have the same image, under a name of its own.
    return {"glm47-runner": RUNNER, "glm47-runner-servers": RUNNER, "glm47-runner-bench": BENCH}


@pytest.fixture(scope="session")
def bench_image(base: str, images: dict[str, str]) -> str:
    """The image with AIPerf, which most tests do without."""
    done = build(BENCH, f"--build-arg=BASE_IMAGE={base}", "--target=bench")
    assert done.returncode == 0, done.stdout + done.stderr
    return BENCH


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


@pytest.fixture(scope="session")
def running(kubernetes: Kubernetes, images: dict[str, str]) -> Iterator[Cluster]:
    """2p2d with the mocker, ready. One for all tests: who ends something waits until it is back."""
    with cluster(kubernetes, images, "mocker/2p2d") as made:
        made.until_ready()
        yield made
