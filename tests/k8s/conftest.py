"""The pods run in an image of their own tag, built as the container tests build theirs."""

from __future__ import annotations

import pytest

from tests.container.conftest import base, build, engine
from tests.k8s import kubelet

__all__ = ["base", "engine"]


@pytest.fixture(scope="session")
def image(base: str) -> str:
    """The image that the pods run."""
    if not kubelet.available():
        pytest.skip("the stand-in kubelet needs root, to give volumes to the pods' group")
    tag = "glm47-runner:k8s-test"
    done = build(tag, f"--build-arg=BASE_IMAGE={base}")
    assert done.returncode == 0, done.stdout + done.stderr
    return tag
