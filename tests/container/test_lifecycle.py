"""Stops, kills and floods, on real containers."""

from __future__ import annotations

import json
import re
import signal
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.container.harness import Container, answer, docker, running, wait_for
from tests.container.table import NOWHERE, SINGLE

HERE = Path(__file__).parent
LINES = 100_000
LOADS_FOR_EVER = {"GLM47_PYTHON": "/test/slow-python"}
SLOW = ("-v", f"{HERE / 'slow-python'}:/test/slow-python:ro")


def processes(container: Container) -> dict[str, dict[str, Any]]:
    done = container.exec("glm47-runner", "status", "--format", "json", check=False)
    try:
        return {p["name"]: p for p in json.loads(done.stdout)["processes"]}
    except (ValueError, KeyError):
        return {}


def until_running(container: Container, name: str) -> None:
    wait_for(
        lambda: processes(container).get(name, {}).get("pid"),
        60,
        lambda: f"{name} spawned\n{container.logs()}",
    )


def keeps(status: Path, signum: int) -> bool:
    """Whether the process of this /proc/PID/status blocks `signum`, or has a handler for it."""
    masks = re.findall(r"Sig(?:Blk|Cgt):\s*(\w+)", status.read_text())
    return any(int(mask, 16) >> (signum - 1) & 1 for mask in masks)


def stopped(container: Container, within: float = 12.0) -> str:
    """Stop it; its output. It must leave by itself, with 0."""
    took = container.stop(60)
    logs = container.logs()
    assert container.state()["ExitCode"] == 0, logs
    assert took < within, f"{took} s\n{logs}"
    return logs


# -- docker stop, in every phase


@pytest.mark.parametrize("attempt", range(3))
def test_stop_at_once(image: str, attempt: int) -> None:
    """The signal comes while the interpreter starts, or the runner imports itself.

    The kernel drops what PID 1 neither blocks nor has a handler for: env, which blocks it, comes first.
    """
    with running(image, SINGLE) as container:
        status = Path("/proc", str(container.state()["Pid"]), "status")
        wait_for(lambda: keeps(status, signal.SIGTERM), 10, "SIGTERM is kept")
        assert "asked to stop by SIGTERM" in stopped(container, within=5)


def test_what_the_image_runs_blocks_no_signal(image: str) -> None:
    """Neither the runner's children nor a command of a person's own."""
    masks = 'sed -n "s/^SigBlk:.//p" /proc/self/status'
    assert int(docker("run", "--rm", image, "sh", "-c", masks).stdout, 16) == 0
    with running(image, SINGLE) as container:
        until_running(container, "frontend")

        def none_blocked() -> bool:
            # A process may be gone between its listing and its reading: sed then ends with 2.
            read = 'sed -n "s/^SigBlk:.//p" /proc/[0-9]*/status'
            masks = container.exec("sh", "-c", read, check=False).stdout.split()
            return bool(masks) and not any(int(mask, 16) & 0x4007 for mask in masks)

        # Go's and tokio's runtimes block all of them for a moment, while they make a thread.
        wait_for(none_blocked, 10, "no process goes on blocking a stop signal")


def test_stop_while_waiting_for_servers(image: str) -> None:
    """Nothing was started yet."""
    with running(image, {**SINGLE, **NOWHERE, "ROLE": "aggregated"}) as container:
        container.until_logged("processes: aggregated")
        assert "asked to stop by SIGTERM" in stopped(container)


def test_stop_while_loading(image: str) -> None:
    """The engine is up, but far from ready."""
    with running(image, {**SINGLE, **LOADS_FOR_EVER}, SLOW) as container:
        until_running(container, "aggregated")
        wait_for(lambda: container.state()["Health"]["Log"], 30, "a health probe")
        assert container.health() == "starting"
        stopped(container)


def test_stop_twice(image: str) -> None:
    """A second signal does not turn an orderly stop into a failure."""
    with running(image, SINGLE) as container:
        container.until_healthy()
        docker("kill", "--signal", "TERM", container.name)
        docker("kill", "--signal", "TERM", container.name, check=False)
        assert container.wait() == 0, container.logs()


def test_stop_with_a_request_in_flight(image: str) -> None:
    """The stream that has begun ends as it should; then the container leaves with 0."""
    body = {
        "model": "glm-4.7",
        "messages": [{"role": "user", "content": "Count."}],
        "max_tokens": 400,
        "stream": True,
    }
    slow = {**SINGLE, "GLM47_EXTRA_ARGS": "--speedup-ratio 0.5"}
    with running(image, slow, ("-p", "127.0.0.1::8000")) as container:
        container.until_healthy()
        url = f"http://127.0.0.1:{container.port(8000)}/v1/chat/completions"
        begun = threading.Event()
        lines: list[str] = []
        stops: list[str] = []

        def stop() -> None:
            begun.wait(60)
            docker("kill", "--signal", "TERM", container.name)
            stops.append(f"after {len(lines)} lines")

        thread = threading.Thread(target=stop)
        thread.start()
        with httpx.stream("POST", url, json=body, timeout=60) as response:
            assert response.status_code == 200
            for line in response.iter_lines():
                if line:
                    lines.append(line)
                    begun.set()
        thread.join()
        assert stops and len(lines) > 50, (stops, lines[-3:])
        assert lines[-1] == "data: [DONE]", lines[-3:]
        assert '"finish_reason":"length"' in "".join(lines[-4:])
        assert container.wait() == 0, container.logs()


# -- deaths inside


def test_engine_killed(image: str) -> None:
    """A worker that dies takes its container with it, with its code, and the reason last."""
    with running(image, SINGLE) as container:
        container.until_healthy()
        container.exec("pkill", "-KILL", "-f", "dynamo.mocker")
        assert container.wait() == 137, container.logs()
        last = container.logs().strip().splitlines()[-1]
        assert re.search(r"aggregated.*(SIGKILL|signal 9)", last), last


def test_frontend_killed(image: str) -> None:
    """A server is restarted in place; the container stays, and answers again."""
    with running(image, SINGLE, ("-p", "127.0.0.1::8000")) as container:
        container.until_healthy()
        first = processes(container)["frontend"]["pid"]
        container.exec("pkill", "-KILL", "-f", "dynamo.frontend")
        wait_for(
            lambda: (p := processes(container)["frontend"])["pid"] not in (None, first) and p["ready"],
            60, lambda: f"the frontend is back\n{container.logs()}",
        )  # fmt: skip
        assert answer(f"http://127.0.0.1:{container.port(8000)}").strip()
        assert container.state()["Running"]
        stopped(container)


def test_engine_that_never_loads(image: str) -> None:
    """Past its start-up deadline the container gives up with 75: try again."""
    with running(image, {**SINGLE, **LOADS_FOR_EVER, "GLM47_START_TIMEOUT": "3"}, SLOW) as container:
        assert container.wait() == 75, container.logs()
        assert "GLM47_START_TIMEOUT" in container.logs().strip().splitlines()[-1]


# -- output


def test_every_line_arrives(image: str) -> None:
    """100,000 lines of a process reach `docker logs` whole, in order, none twice."""
    env = {"ROLE": "etcd", "GLM47_ETCD_BIN": "/test/chatty", "GLM47_MAX_RESTARTS": "0", "LINES": str(LINES)}
    with running(image, env, ("-v", f"{HERE / 'chatty'}:/test/chatty:ro")) as container:
        assert container.wait(120) == 3
        found = re.findall(r"^etcd +\| line (\d{6}) (x+)$", container.logs(), re.MULTILINE)
        assert [int(number) for number, _ in found] == list(range(LINES))
        assert all(len(tail) == 20 + int(number) % 100 for number, tail in found)


# -- health


def test_frozen_server_is_seen(image: str) -> None:
    """A frontend that hangs makes a healthy container unhealthy, although its process is there."""
    with running(image, SINGLE) as container:
        container.until_healthy()
        container.exec("pkill", "-STOP", "-f", "dynamo.frontend")
        wait_for(lambda: container.health() == "unhealthy", 60, lambda: container.logs())
        container.exec("pkill", "-CONT", "-f", "dynamo.frontend")
        container.until_healthy()
