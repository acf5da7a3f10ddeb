"""A worker whose connection to etcd leads nowhere, as to a member on a node that is gone."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from entrypoint.commands.demo.model import make_demo_model
from tests.stack.test_one_of_two_leaves import ready
from tests.support.runner import until
from tests.support.stack import chat, free_ports, run

pytestmark = pytest.mark.stack


class Relay:
    """TCP to a port of this machine. What is connected at `freeze` stays so, and nothing comes through."""

    def __init__(self, port: int, stack: ExitStack) -> None:
        self._to = port
        self._server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port = self._server.getsockname()[1]
        self._open: list[socket.socket] = []
        self._frozen: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()
        stack.callback(self._close)

    def freeze(self) -> None:
        self._frozen |= set(self._open)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._to))
                except ConnectionRefusedError:
                    near.close()  # etcd does not listen yet
                    continue
                self._open += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if source not in self._frozen:
                    target.sendall(data)
            if source not in self._frozen:
                target.shutdown(socket.SHUT_WR)

    def _close(self) -> None:
        for one in self._open:
            one.close()


def test_a_worker_that_etcd_has_dropped_and_does_not_know_it_ends(tmp_path: Path) -> None:
    """Its lease is gone after 10 s; by itself Dynamo 0.8.1 would go on for as long as TCP does."""
    with ExitStack() as stack:
        ports = free_ports()
        relay = Relay(int(ports["GLM47_ETCD_PORT"]), stack)
        shared = {k: ports[k] for k in ("GLM47_ETCD_PORT", "GLM47_NATS_PORT")} | {
            "GLM47_ENGINE": "mocker",
            "GLM47_MODEL_PATH": str(make_demo_model(tmp_path / "models" / "glm")),
            "GLM47_HEAD_ADDRESS": "127.0.0.1",
            "DYN_TCP_RPC_HOST": "127.0.0.1",
        }
        more = ports | shared
        head = stack.enter_context(run(tmp_path / "head", ROLE="etcd,nats,frontend", **more))
        over_relay = {"ETCD_ENDPOINTS": f"http://127.0.0.1:{relay.port}"}
        more = free_ports() | shared | over_relay
        worker = stack.enter_context(run(tmp_path / "worker", ROLE="aggregated", **more))
        ready(worker)
        ready(head)
        assert chat(ports["GLM47_HTTP_PORT"])[0] == 200

        relay.freeze()
        # 10 s of its lease, 15 s until somebody looks, and a second look.
        worker.wait_for("aggregated is not ready any more: it is off the list in http://127.0.0.1:", 60)
        until(lambda: head.get("/readyz")[0] == 503, "the frontend knows too")
        assert worker.wait(60) == 69, worker.text()
        assert "stopping: aggregated serves nobody: it is off the list in" in worker.text()

        # As its orchestrator starts it anew: over a new connection.
        again = stack.enter_context(run(tmp_path / "worker", ROLE="aggregated", **more))
        ready(again)
        until(lambda: chat(ports["GLM47_HTTP_PORT"])[0] == 200, "answers again")
