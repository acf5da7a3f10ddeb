"""The real FlashInfer in the image, read-only and as anybody: what a rank would come to call works.

The engine is a stand-in (tests/prepare/flashinfer/harness.py) that calls FlashInfer's functions, says what
became of them, and leaves with 7. Everything before it is a whole `run`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.releases import STUBS
from tests.container.harness import DEMO_MODEL, docker, running
from tests.container.table import HARD
from tests.prepare.flashinfer import packages
from tests.prepare.flashinfer.conftest import whole as whole

SITE = "/usr/local/lib/python3.11/dist-packages"
"""Where the stand-in base has FlashInfer."""
ENGINE = "/usr/local/bin/engine-python"
SOURCES = f"{SITE}/flashinfer/data/csrc/nv_internal/tensorrt_llm/cutlass_instantiations"
ENV = {
    "ROLE": "aggregated", "GLM47_ENGINE": "sglang", "GLM47_MODEL_PATH": DEMO_MODEL, "GLM47_PYTHON": ENGINE,
    "GLM47_QUANTIZATION": "none", "GLM47_MOE_RUNNER": "flashinfer_cutlass", "GLM47_GPUS_PER_NODE": "1",
    "GLM47_DISCOVERY": "file", "DYN_FILE_KV": "/tmp/kv", "CALLS": " ".join(packages.FUNCTIONS),
}  # fmt: skip
READ_ONLY = ("--read-only", "--tmpfs", "/tmp:exec")
"""What is compiled in /tmp is loaded from there."""
WHO = {
    "as it comes": (),
    "read-only": READ_ONLY,
    "stranger": ("--user", "54321:54321"),
    "all of it": (*READ_ONLY, *HARD, "--user", "54321:54321"),
    "root of a read-only root": (*READ_ONLY, "--user", "0"),
}
PINNED_FUNCTIONS = packages.FUNCTIONS[:2]


@pytest.fixture(scope="module")
def engine_python(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Mounts of the harness, and of an interpreter that starts it as the engine."""
    python = tmp_path_factory.mktemp("engine") / "python"
    python.write_text('#!/bin/sh\n[ "$2" = dynamo.sglang ] || exit 3\nexec python3 /harness.py engine "$@"\n')
    python.chmod(0o755)
    files = {python: ENGINE, packages.HARNESS: "/harness.py", STUBS / "engine_stubs.py": "/engine_stubs.py"}
    return tuple(word for here, there in files.items() for word in ("-v", f"{here}:{there}:ro"))


def outcome(image: str, args: tuple[str, ...], **env: str) -> dict[str, str]:
    """What became of each function."""
    with running(image, {**ENV, **env}, args) as container:
        code, logs = container.wait(), container.logs()
    found = re.search(r"FlashInfer: (\{.*\})", logs)
    assert found and code == 7, logs
    return json.loads(found[1])  # type: ignore[no-any-return]


@pytest.mark.parametrize("who", WHO)
def test_the_pinned_release(image: str, engine_python: tuple[str, ...], who: str) -> None:
    """As the image is built; it has no flashinfer_cubin, so only CUTLASS's kernels can be had."""
    found = outcome(image, (*engine_python, *WHO[who]), CALLS=" ".join(PINNED_FUNCTIONS))
    assert found == dict.fromkeys(PINNED_FUNCTIONS, "ok")


@pytest.mark.parametrize("version", [packages.LINKING, packages.NEWEST])
@pytest.mark.parametrize("who", ["read-only", "stranger", "all of it"])
def test_newer_releases(
    image: str, engine_python: tuple[str, ...], whole: Callable[[str], Path], version: str, who: str
) -> None:
    """In the pinned one's place, with a flashinfer_cubin beside it."""
    site = whole(version)
    for parent in (site, *site.parents):
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    mounts = [
        word
        for name in ("flashinfer", "flashinfer_cubin")
        for word in ("-v", f"{site / name}:{SITE}/{name}" + ("" if who == "stranger" else ":ro"))
    ]
    found = outcome(image, (*engine_python, *mounts, *WHO[who]))
    assert set(found.values()) <= {"ok", "absent"}, found
    assert (
        found["gen_trtllm_gen_fused_moe_sm100_module"] == found["gen_cutlass_fused_moe_sm103_module"] == "ok"
    )
    assert not list((site / "flashinfer_cubin").rglob("*.lock"))


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_start_without_the_sources_is_refused(
    image: str, engine_python: tuple[str, ...], tmp_path: Path, command: str
) -> None:
    """They are hidden by an empty directory: an image that was built without them."""
    tmp_path.chmod(0o755)
    args = (*engine_python, *WHO["all of it"], "--shm-size=2g", "-v", f"{tmp_path}:{SOURCES}:ro")
    with running(image, ENV, args, (command,)) as container:
        code, logs = container.wait(), container.logs()
    assert code == 73, logs
    line = f"cannot write FlashInfer's kernel sources for GPU generation 100 103: {SOURCES}: Read-only"
    assert line in logs and "FlashInfer: {" not in logs


def test_a_start_with_a_tmpfs_that_nothing_can_be_loaded_from_is_refused(
    image: str, engine_python: tuple[str, ...]
) -> None:
    with running(image, ENV, (*engine_python, "--read-only", "--tmpfs", "/tmp")) as container:
        code, logs = container.wait(), container.logs()
    assert code == 78, logs
    assert "mounted noexec" in logs and "--tmpfs /tmp:exec" in logs and "FlashInfer: {" not in logs


def test_check_says_that_they_are_there(image: str, engine_python: tuple[str, ...]) -> None:
    with running(image, ENV, (*engine_python, *WHO["all of it"]), ("check",)) as container:
        container.wait()
        logs = container.logs()
    assert re.search(r"ok +flashinfer +the sources of its CUTLASS kernels for GPU generation 100, 103", logs)


def test_an_image_may_do_without(base: str) -> None:
    """FLASHINFER_ARCHS names other generations, or none."""
    from tests.container.conftest import build

    tag = "glm47-runner:flashinfer-test"
    try:
        for given, wanted in (("", ""), ("120", "120")):
            done = build(tag, f"--build-arg=BASE_IMAGE={base}", f"--build-arg=FLASHINFER_ARCHS={given}")
            assert done.returncode == 0, done.stdout + done.stderr
            listed = docker("run", "--rm", "--entrypoint", "ls", tag, SOURCES, check=False).stdout.split()
            assert listed == wanted.split()
    finally:
        docker("image", "rm", "--force", tag, check=False)
