"""Releases of Dynamo with the mocker, each in an environment of its own: 0.5 GB, 10 s of a processor.

`python -m tests.support.dynamo [RELEASE…]` installs them ahead of the tests.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.releases import UnavailableError, pip
from entrypoint.plan.releases import NEWEST, PINNED
from tests.support import environments
from tests.support.runner import Runner
from tests.support.stack import ENGINE, free_ports, run

EVERY_RUN = (PINNED["dynamo"], "1.0.2", "1.3.1", NEWEST["dynamo"])
"""Those that .ci/run starts: between two of them much is different."""
OTHERS = ("0.9.1", "1.1.1", "1.2.1", "1.4.2", "1.5.1")
"""Those that only `make releases` starts."""
ROLES = ("frontend", "decode", "prefill", "nats", "etcd")
SHARED = ("GLM47_ETCD_PORT", "GLM47_NATS_PORT", "GLM47_HTTP_PORT")


def dynamo_python(release: str) -> str:
    """The interpreter that holds Dynamo `release`; installs it if need be.

    Raises UnavailableError when that cannot be done.
    """
    if release == PINNED["dynamo"]:
        return str(ENGINE / "python")
    name = f"dynamo-{release}"

    def fill(python: str) -> None:
        lock = str(environments.REQUIREMENTS / f"{name}.txt")
        # Compiled at the first import: the tests need a tenth of it.
        pip(
            python, "install", "--quiet", "--no-deps", "--no-compile", "--require-hashes", "--requirement",
            lock,
        )  # fmt: skip

    return environments.made(environments.place(name, (f"{name}.txt",)), fill)


def engine_settings(release: str) -> dict[str, str]:
    """What tells a runner to use `release`, and the servers of `make setup`."""
    return {
        "GLM47_PYTHON": dynamo_python(release),
        "GLM47_ETCD_BIN": str(ENGINE / "etcd"),
        "GLM47_NATS_BIN": str(ENGINE / "nats-server"),
    }


class FiveContainers:
    """etcd, NATS, frontend, prefill and decode, each with a runner of its own, started in the wrong order."""

    def __init__(self, base: Path, model: Path, stack: ExitStack, **settings: str) -> None:
        self.runners: dict[str, Runner] = {}
        self._base, self._stack, self._settings = base, stack, settings
        self._shared = {name: port for name, port in free_ports().items() if name in SHARED}
        self._model = model
        self.port = self._shared["GLM47_HTTP_PORT"]
        for role in ROLES:
            self.start(role)

    def start(self, role: str) -> Runner:
        """A container with `role`, in place of one that is gone, or a first one."""
        deployment = {
            "GLM47_ENGINE": "mocker", "GLM47_MODEL_PATH": str(self._model), "GLM47_PREFILL_WORKERS": "1",
            "GLM47_DECODE_WORKERS": "1", "GLM47_HEAD_ADDRESS": "127.0.0.1", "DYN_TCP_RPC_HOST": "127.0.0.1",
        }  # fmt: skip
        place = {"ROLE": role, **free_ports(), **self._shared}
        runner = self._stack.enter_context(run(self._base / role, **deployment, **self._settings, **place))
        self.runners[role] = runner
        return runner


@contextmanager
def five_containers(base: Path, model: Path, **settings: str) -> Iterator[FiveContainers]:
    """Five containers on the mocker, with `settings` besides; they are killed at the end."""
    with ExitStack() as stack:
        yield FiveContainers(base, model, stack, **settings)


if __name__ == "__main__":
    try:
        for wanted in sys.argv[1:] or EVERY_RUN:
            print(dynamo_python(wanted))
    except UnavailableError as error:
        sys.exit(f"cannot install Dynamo: {error}")
