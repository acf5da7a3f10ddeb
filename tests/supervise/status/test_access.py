"""GLM47_STATUS_TOKEN: pages ask for it, probes do not, and runners and commands show it to each other."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from entrypoint.plan.types import to_jsonable
from entrypoint.supervise.peers.poller import ask
from entrypoint.supervise.status import access
from entrypoint.supervise.status.client import get
from tests.supervise.status.pages import Job, engine
from tests.support.plans import plan, process
from tests.support.runner import ROOT, Runner, until

TOKEN = 'correct horse; "battery"=staple'
PAGES = ("/", "/status", "/plan", "/view", "/events", "/logs/engine")
OPEN = ("/livez", "/readyz", "/startupz", "/metrics")


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    made = plan(process("engine"), status_token=TOKEN)
    with Runner.of_plan(made, tmp_path_factory.mktemp("closed")) as runner:
        until(lambda: runner.get("/readyz")[0] == 200, "ready")
        yield runner


def request(runner: Runner, path: str, method: str = "GET", body: str = "", **headers: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", runner.health_port, timeout=10)
    connection.request(method, path, body or None, headers)
    return connection.getresponse()


@pytest.mark.parametrize("path", PAGES)
def test_pages_ask_for_the_token(closed: Runner, path: str) -> None:
    assert request(closed, path).status == 401
    for wrong in ("", "Bearer", "Bearer x", f"Bearer {TOKEN}x", TOKEN, f"Basic {TOKEN}"):
        assert request(closed, path, Authorization=wrong).status == 401
    assert request(closed, path, Cookie="glm47_status=x").status == 401
    assert request(closed, path, Authorization=f"Bearer {TOKEN}").status == 200
    assert request(closed, path, Cookie=access.cookie(TOKEN).partition(";")[0]).status == 200


@pytest.mark.parametrize("path", OPEN)
def test_probes_stay_open(closed: Runner, path: str) -> None:
    assert request(closed, path).status == 200


def test_a_browser_gives_it_once(closed: Runner) -> None:
    from urllib.parse import urlencode

    form = {"Content-Type": "application/x-www-form-urlencoded"}
    wrong = request(closed, "/", "POST", urlencode({"token": "x"}), **form)
    assert (wrong.status, wrong.headers["Set-Cookie"]) == (401, None)
    right = request(closed, "/", "POST", urlencode({"token": TOKEN}), **form)
    assert (right.status, right.headers["Location"]) == (303, "/")
    shown = right.headers["Set-Cookie"]
    assert "HttpOnly" in shown and "SameSite=Strict" in shown
    assert request(closed, "/", Cookie=shown.partition(";")[0]).status == 200
    assert request(closed, "/", "POST", "token=" + "x" * 9000, **form).status == 401
    assert request(closed, "/", "POST").status == 401


def test_without_a_token_nothing_is_asked(tmp_path: Path) -> None:
    with Runner.of_plan(plan(process("engine")), tmp_path) as runner:
        until(lambda: runner.get("/readyz")[0] == 200, "ready")
        assert [request(runner, path).status for path in PAGES] == [200] * len(PAGES)
        assert request(runner, "/", "POST", "token=x").status == 401


def test_the_token_is_in_no_page(closed: Runner) -> None:
    for path in (*PAGES[:4], *OPEN):
        body = request(closed, path, Authorization=f"Bearer {TOKEN}").read().decode()
        assert "battery" not in body, path
    assert to_jsonable(plan(process("engine"), status_token=TOKEN))["status_token"] == "***"


def _up(runner: Runner) -> bool:
    try:
        return get(f"http://127.0.0.1:{runner.health_port}", "/view", token=TOKEN)[0] == 200
    except OSError:
        return False


def test_runners_of_a_job_show_it_to_each_other(tmp_path: Path) -> None:
    nodes = [(f"n{n}", f"decode worker 0 rank {n}", (engine("decode", None),)) for n in (0, 1)]
    with Job(tmp_path, nodes, status_token=TOKEN) as job:
        for runner in job.runners:
            until(lambda runner=runner: _up(runner), "its health port")  # type: ignore[misc]
        events = request(job.runners[0], "/events", Authorization=f"Bearer {TOKEN}")

        def both() -> bool:
            line = events.fp.readline()
            nodes = json.loads(line[5:])["nodes"] if line.startswith(b"data:") else {}
            return any(node["name"] == "n1" and node["seen"] == "answers" for node in nodes.values())

        until(both, "the other node's view")
        assert job.plans[0].job is not None
        peer = job.plans[0].job.others[0]
        assert ask(peer, token=TOKEN).status is not None
        assert "GLM47_STATUS_TOKEN" in ask(peer).why


def test_status_shows_it_and_says_when_it_lacks(closed: Runner) -> None:
    def status(**env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "entrypoint", "status", f"127.0.0.1:{closed.health_port}"]
        whole = {**os.environ, "PYTHONPATH": str(ROOT), "ROLE": "single", **env}
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=whole, check=False)

    assert "set GLM47_STATUS_TOKEN" in status().stderr
    shown = status(GLM47_STATUS_TOKEN=TOKEN)
    assert shown.returncode == 0 and "engine" in shown.stdout


@pytest.mark.parametrize("cookies", ["", "a", ";;;", "=", "a=b; glm47_status", '\x00"', "glm47_status=\xff"])
def test_no_cookie_is_a_fault(cookies: str) -> None:
    assert not access.allowed(TOKEN, "", cookies)
