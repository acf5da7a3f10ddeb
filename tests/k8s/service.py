"""A stand-in for kube-proxy: one address on this machine for the ready pods of a Service.

As with kube-proxy, a connection stays with the pod it was given, and news of a pod that is leaving or no
longer ready arrives late: `lag` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterable

from tests.k8s.kubelet import Pod

LAG = 3.0
"""Seconds until every kube-proxy has heard of a change; usually below one."""
TICK = 0.1


class Service:
    """Forwards connections on `port` of 127.0.0.1 to port `target` of a ready pod. A context manager."""

    def __init__(self, pods: Callable[[], Iterable[Pod]], target: int, lag: float = LAG) -> None:
        self.port = 0
        self._pods = pods
        self._target = target
        self._lag = lag
        self._tasks: set[asyncio.Task[None] | None] = set()
        """Kept here, since the loop itself keeps them weakly."""
        self._seen: list[tuple[float, list[str]]] = []
        self._endpoints: list[str] = []
        self._listening = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._serve(),), daemon=True
        )

    def __enter__(self) -> Service:
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        while not self._stop.is_set():
            now = time.monotonic()
            self._seen.append((now, [p.address for p in self._pods() if p.endpoint]))
            while len(self._seen) > 1 and self._seen[1][0] <= now - self._lag:
                self._seen.pop(0)
            self._endpoints = self._seen[0][1]
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stop.wait(), TICK)
        server.close()
        for task in (tasks := asyncio.all_tasks() - {asyncio.current_task()}):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Never raises: nobody would hear it."""
        self._tasks.add(task := asyncio.current_task())
        try:
            # Without an endpoint kube-proxy refuses the connection.
            back, forth = await asyncio.open_connection(random.choice(self._endpoints), self._target)
        except (IndexError, OSError):
            self._tasks.discard(task)
            writer.transport.abort()
            return
        ways = (_copy(reader, forth), _copy(back, writer))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*ways)
        for end in (writer, forth):
            end.close()
        self._tasks.discard(task)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Until either side ends: an end of input is passed on, a reset as a reset."""
    try:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
        target.write_eof()
    except OSError:
        target.transport.abort()
