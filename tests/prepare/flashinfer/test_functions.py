"""FlashInfer's own functions, where its packages cannot be written."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import releases
from tests.prepare.flashinfer import packages
from tests.prepare.flashinfer.packages import FUNCTIONS, LINKING, PINNED
from tests.support.available import available

Site = Callable[[str], Path]
Fence = Callable[[Path], list[str]]
REFUSED = r"Read-only file system|Permission denied"
CUTLASS = "gen_cutlass_fused_moe_sm100_module"


def generate(site: Path, *generations: str) -> None:
    """What the image build does."""
    done = packages.run(
        [], sys.executable, "-m", "entrypoint", "flashinfer", "generate",
        "--source", str(site / "flashinfer"), *generations, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def prepared(words: list[str], site: Path, base: Path, *functions: str, **environ: str) -> dict[str, Any]:
    """What became of a start, and of each function in the engine's place."""
    done = packages.run(
        words, sys.executable, "-m", "tests.prepare.flashinfer.prepare", str(site), str(base), *functions,
        env={**os.environ, **environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def outcome(words: list[str], site: Path, base: Path, *functions: str) -> dict[str, str]:
    """What becomes of each function without us."""
    done = packages.run(
        words, str(packages.ENGINE), str(packages.HARNESS), "call", *functions,
        env=packages.environment(site, base / "flashinfer"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("version", "fails"),
    [
        (PINNED, {"gen_cutlass_fused_moe_sm100_module", "gen_cutlass_fused_moe_sm103_module"}),
        (
            LINKING,
            {"gen_trtllm_gen_fused_moe_sm100_module", "gen_trtllm_gen_gemm_module", "gen_moe_utils_module"},
        ),
    ],
)
def test_without_us_they_fail(
    site: Site, fence: Fence, tmp_path: Path, version: str, fails: set[str]
) -> None:
    """The faults that this is for; a release without them needs none of it."""
    place = site(version)
    found = outcome(fence(place), place, tmp_path, *FUNCTIONS)
    assert {name for name, text in found.items() if text not in ("ok", "absent")} == fails
    assert all(any(word in found[name] for word in REFUSED.split("|")) for name in fails), found


@pytest.mark.parametrize("version", [PINNED, LINKING])
def test_prepared_they_work(site: Site, fence: Fence, tmp_path: Path, version: str) -> None:
    place = site(version)
    generate(place)
    words = fence(place)
    for _ in range(2):  # a restart finds what the first start left
        found = prepared(words, place, tmp_path / "cache", *FUNCTIONS)
        assert set(found["outcome"].values()) <= {"ok", "absent"}, found
        assert found["outcome"][CUTLASS] == "ok"


def test_the_writer_that_we_call_is_flashinfers(site: Site, tmp_path: Path) -> None:
    """The same files, with the same content, as its own function makes with all of the package around it."""
    place = site(PINNED)
    made = place / "flashinfer/data/csrc/nv_internal/tensorrt_llm/cutlass_instantiations"
    assert outcome([], place, tmp_path, *FUNCTIONS[:2]) == dict.fromkeys(FUNCTIONS[:2], "ok")
    theirs = {p.relative_to(made): p.read_bytes() for p in made.rglob("*") if p.is_file()}
    assert len(theirs) > 400
    made.rename(tmp_path / "theirs")
    generate(place)
    assert {p.relative_to(made): p.read_bytes() for p in made.rglob("*") if p.is_file()} == theirs


def test_a_start_is_refused_where_they_would_fail(site: Site, fence: Fence, tmp_path: Path) -> None:
    place = site(PINNED)
    found = prepared(fence(place), place, tmp_path / "cache")
    assert found["code"] == 73
    assert found["error"].startswith(
        "cannot write FlashInfer's kernel sources for GPU generation 100 103: "
        f"{place}/flashinfer/data/csrc/nv_internal/tensorrt_llm/cutlass_instantiations: "
    )
    assert '--build-arg FLASHINFER_ARCHS="100 103"' in found["error"] and "\n" not in found["error"]


@pytest.mark.parametrize(
    ("gpus", "refused"),
    [(["10.0", "10.0"], ""), (["10.3"], "103"), (["12.1"], "121"), (["7.5"], ""), ([], "")],
    ids=["there", "another", "served by another's", "none for it", "not told"],
)
def test_the_sources_are_wanted_for_the_gpus_that_are_there(
    site: Site, tmp_path: Path, gpus: list[str], refused: str
) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n" + "".join(f"echo {gpu}\n" for gpu in gpus))
    tool.chmod(0o755)
    place = site(PINNED)
    generate(place, "100")
    path = f"{tool.parent}:{os.environ['PATH']}"
    words = packages.stranger(place)
    if words is None:
        pytest.skip("this machine has no way to be a stranger")
    found = prepared(words, place, tmp_path / "cache", PATH=path)
    if refused:
        assert f"for GPU generation {refused}: " in found["error"]
    else:
        assert found["said"] == [
            "flashinfer: the sources of its CUTLASS kernels for GPU generation 100 are in its package"
        ]


def test_cubins_that_can_be_written_are_left_alone(site: Site, tmp_path: Path) -> None:
    place = site(LINKING)
    found = prepared([], place, tmp_path / "cache", *FUNCTIONS)
    assert found["said"] == [] and set(found["outcome"].values()) <= {"ok", "absent"}
    assert not (tmp_path / "cache/flashinfer-cubin").exists()


def test_locks_that_root_has_left_are_seen(site: Site, fence: Fence, tmp_path: Path) -> None:
    """The directory can be written, and the lock in it not."""
    place = site(LINKING)
    lock = place / "flashinfer_cubin/cubins/flashinfer/trtllm/gemm/trtllmGen_gemm_export.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    words = fence(lock)
    if lock.stat().st_uid != os.getuid():
        lock.parent.chmod(0o755)
    found = prepared(words, place, tmp_path / "cache", *FUNCTIONS)
    assert set(found["outcome"].values()) <= {"ok", "absent"}, found
    assert "its cubins are linked" in found["said"][0]


def test_nothing_is_copied_but_locks(site: Site, fence: Fence, tmp_path: Path) -> None:
    place = site(LINKING)
    prepared(fence(place), place, tmp_path / "cache", *FUNCTIONS)
    files = [
        p for p in (tmp_path / "cache/flashinfer-cubin").rglob("*") if p.is_file() and not p.is_symlink()
    ]
    assert files and {p.suffix for p in files} == {".lock"}


@pytest.mark.parametrize("what", ["flashinfer", "flashinfer-cubin"])
def test_a_cache_that_cannot_be_written_is_refused(
    site: Site, fence: Fence, tmp_path: Path, what: str
) -> None:
    place = site(LINKING)
    cache = place / "cache"
    (cache / what).mkdir(parents=True)
    words = fence(place)
    if what == "flashinfer-cubin":
        # The workspace alone can be written.
        (cache / "flashinfer").symlink_to(tmp_path)
    found = prepared(words, place, cache)
    assert found["code"] == 73 and "GLM47_CACHE_DIR" in found["error"] and "\n" not in found["error"]


def test_a_cache_that_nothing_can_be_loaded_from_is_refused(
    site: Site, unshare: list[str], tmp_path: Path
) -> None:
    """Docker mounts a tmpfs noexec unless told otherwise."""
    place = site(LINKING)
    (tmp_path / "cache").mkdir()
    script = f'mount -t tmpfs -o noexec tmpfs {tmp_path}/cache && exec "$@"'
    found = prepared([*unshare, "sh", "-c", script, "sh"], place, tmp_path / "cache")
    assert found["code"] == 78
    assert found["error"].startswith(
        f"cannot use FLASHINFER_WORKSPACE_BASE: {tmp_path}/cache/flashinfer: mounted noexec: "
    )
    assert "GLM47_CACHE_DIR" in found["error"] and "\n" not in found["error"]


@pytest.mark.releases
def test_every_release_works_prepared(version: str, tmp_path: Path, site: Site) -> None:
    """The FlashInfer that each sglang release pins, the newest too."""
    place = site(available(lambda: releases.release(version).flashinfer_version))
    generate(place)
    words = packages.read_only(place)
    if words is None:
        pytest.skip("this machine has no way to be read-only")
    found = prepared(words, place, tmp_path / "cache", *FUNCTIONS)
    assert set(found["outcome"].values()) <= {"ok", "absent"}, found
    assert found["outcome"][CUTLASS] == "ok"
    assert found["outcome"]["gen_trtllm_gen_fused_moe_sm100_module"] == "ok"
