"""An unpacked image for the stand-in for pyxis, put together from this machine's own files.

Its root holds the host's /usr and /etc, the Python environments that run the tests, the CPU engine where it
is installed, and this working tree, all at their own paths; `glm47-runner` is this tree's. Nothing is copied:
`make` mounts, `remove` unmounts.
Needs root.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.slurm.cluster import run
from tests.support.cpu_engine.install import PINNED, place

REPOSITORY = Path(__file__).resolve().parents[2]
ENGINE = Path(sys.prefix, "engine").resolve()


def make(image: Path, env: dict[str, str] | None = None) -> None:
    """Put the image together at `image`; `env` is added to its ENV."""
    root = image / "rootfs"
    for name in ("usr", "etc"):
        _mount(Path("/", name), root)
    for name in ("bin", "sbin", "lib", "lib64"):
        target = Path("/", name)
        if target.is_symlink():
            (root / name).symlink_to(target.readlink())
        elif target.is_dir():
            _mount(target, root)
    paths = {Path("/usr"), Path(sys.prefix), Path(sys.base_prefix), REPOSITORY, ENGINE}
    if place(PINNED).is_dir():
        paths.add(place(PINNED))
    for path in paths - {Path("/usr")}:
        if not any(path.is_relative_to(other) for other in paths - {path}):
            _mount(path, root)
    command = root / "opt/glm47-runner/bin/glm47-runner"
    command.parent.mkdir(parents=True)
    command.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from entrypoint.__main__ import main\nmain()\n"
    )
    command.chmod(0o755)
    variables = {
        "PATH": f"/opt/glm47-runner/bin:{ENGINE}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "GLM47_PYTHON": f"{ENGINE}/bin/python",
        # An image may bake in what a job means to set; pyxis then lets the image win unless told otherwise.
        "ROLE": "prefill",
        **(env or {}),
    }
    (image / "env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    (image / "workdir").write_text("/opt\n")
    # The image's ENTRYPOINT, which pyxis does not run.
    (image / "entrypoint").write_text("glm47-runner run\n")


def remove(image: Path) -> None:
    """Unmount everything below `image`, and delete it only if nothing is mounted there any more."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        target = line.split()[1]
        if target.startswith(f"{image}/"):
            run("umount", "--lazy", target, check=False)
    if str(image) not in Path("/proc/self/mounts").read_text():
        shutil.rmtree(image, ignore_errors=True)


def _mount(path: Path, root: Path) -> None:
    target = Path(f"{root}{path}")
    target.mkdir(parents=True)
    run("mount", "--bind", str(path), str(target))
    run("mount", "-o", "remount,bind,ro", str(target))
