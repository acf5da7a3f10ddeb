"""The CPU engine inside a container whose Python is the same release: bind mounts and environment.

The image under test stays as it is; only the interpreter that it starts the engine with is another one.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.releases import UnavailableError
from tests.support.available import available
from tests.support.cpu_engine import SHIM, engine_python, make_model, settings
from tests.support.cpu_engine.install import PINNED, place

VERSION = (3, 11)
"""Of the image's Python."""
ENGINE = "/cpu-engine"
FILES = "/cpu-engine-files"
OF_THIS_MACHINE = {
    "GLM47_ETCD_BIN", "GLM47_NATS_BIN", "GLM47_GPUS_PER_NODE", "GLOO_SOCKET_IFNAME", "UCX_NET_DEVICES",
}  # fmt: skip
"""Settings that a container has of its own: its servers, its GPUs, its network."""


def model_of(directory: Path) -> Path:
    """The model that `mounts` made in `directory`."""
    return directory / "model"


def mounts(directory: Path, release: str = PINNED) -> dict[Path, str]:
    """What to mount read-only, and where. `directory`, an empty one, gets a model and an environment's files.

    Skips the test where the engine is not to be had.
    """
    available(lambda: _same_python(release))
    home = directory / "home"
    (home / "bin").mkdir(parents=True)
    (home / "lib").mkdir()
    version = ".".join(map(str, VERSION))
    (home / "bin" / "python").symlink_to(f"/usr/bin/python{version}")
    (home / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {version}\n")
    return {
        home: ENGINE,
        place(release) / "lib": f"{ENGINE}/lib",
        SHIM: f"{FILES}/shim",
        make_model(model_of(directory)): f"{FILES}/model",
    }


def _same_python(release: str) -> str:
    if sys.version_info[:2] != VERSION:
        raise UnavailableError("the CPU engine is of another Python than the image's")
    return engine_python(release)


def environment(release: str = PINNED) -> dict[str, str]:
    """The runner's settings in such a container; roles, addresses and GPUs are the caller's."""
    made = settings(f"{FILES}/model", release=release)
    made |= {"PYTHONPATH": f"{FILES}/shim", "GLM47_PYTHON": f"{ENGINE}/bin/python", "GLM47_ENGINE": "sglang"}
    return {name: value for name, value in made.items() if name not in OF_THIS_MACHINE}
