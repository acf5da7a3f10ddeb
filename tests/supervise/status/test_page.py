"""The page in a real browser: one node, six that start, eighteen with one that hangs, and a job's end.

SCREENSHOTS=DIR keeps what was seen there.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from entrypoint.plan.types import Peer
from tests.supervise.status.pages import NEVER, Double, Job, earlier, engine, job, served
from tests.support.browser import Browser, browser
from tests.support.plans import plan, process, server
from tests.support.runner import Runner, free_port, until

DEAD_WITHIN = 5.0
"""Seconds after which a page shows that a runner is dead."""
USUAL = {"starting": 20.0, "distributed": 15.0, "weights": 240.0, "kv_cache": 10.0, "capture": 600.0}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture
def page(chromium: Browser) -> Iterator[Browser]:
    """The browser, asked for nothing yet; its person sees neither errors nor strangers."""
    chromium.open("about:blank")
    chromium.requests.clear()
    chromium.complaints.clear()
    chromium.screen(1280, 800)
    yield chromium
    strangers = [u for u in chromium.requests if not u.startswith(("http://127.0.0.1:", "data:", "about:"))]
    assert strangers == []
    assert [c for c in chromium.complaints if not c.startswith("Failed to load resource")] == []


def seen(page: Browser, name: str) -> None:
    page.run("document.activeElement.blur(); scrollTo(0, 0)")
    if directory := os.environ.get("SCREENSHOTS"):
        page.picture(Path(directory, f"{name}.png"))


def state_of(page: Browser, node: str) -> str:
    cards = "[...document.querySelectorAll('.node')]"
    return str(
        page.run(f"({cards}.find(c => c.innerText.includes('{node}')) || {{innerText: ''}}).innerText")
    )


def test_one_node(page: Browser, tmp_path: Path) -> None:
    made = plan(
        engine("aggregated", None), server("frontend"), cache_dir=str(tmp_path / "cache"),
        warnings=("GLM47_NVLINK_DOMAINS is not set: domains are guessed from names",),
    )  # fmt: skip
    with Runner.of_plan(made, tmp_path) as runner:
        runner.wait_for("| ready after")
        page.open(f"http://127.0.0.1:{runner.health_port}/")
        page.shows("● ready")
        page.shows("nodes ready\n1 of 1")
        page.shows("domains are guessed from names")
        page.press("ArrowRight")
        page.press("Enter")
        page.shows("#running-req: 3")  # its last lines
        seen(page, "one-node")
        assert page.run("document.title") == "● ready · glm-4.7"
        page.press("Escape")
        until(lambda: "#running-req: 3" not in page.text(), "the details to go")


def six(tmp_path: Path) -> Job:
    phases: list[tuple[str, str | None]] = [
        ("prefill", "capture"), ("prefill", "capture"), ("prefill", "weights"), ("prefill", "kv_cache"),
        ("decode", "distributed"), ("decode", None),
    ]  # fmt: skip
    nodes = []
    for index, (role, phase) in enumerate(phases):
        head = (server("etcd"), server("frontend", ready=NEVER)) if index == 0 else ()
        worker = index // 2 if role == "prefill" else 0
        nodes.append(
            (f"nvl72d00{index + 1}", f"{role} worker {worker} rank {index % 2}", (engine(role, phase), *head))
        )
    made = Job(tmp_path, nodes)
    for one in made.plans:
        earlier(one, **USUAL)
    return made


def test_six_nodes_that_start(page: Browser, tmp_path: Path) -> None:
    with six(tmp_path) as started:
        until(lambda: up(started.runners[0]), "the head")
        page.open(started.url)
        page.shows("◐ 5 of 6 starting", 60)
        page.shows("nodes ready\n1 of 6")
        page.shows("capturing CUDA graphs 5/36 (bs=256)")
        page.shows("loading weights 17/41")
        page.shows("prefill worker 1 0 of 2 ready")
        page.shows("by 3 earlier starts")
        left = {n: minutes(state_of(page, f"nvl72d00{n}")) for n in (1, 3, 4, 5)}
        assert left[1] < left[4] <= left[3] <= left[5], left
        bars = page.run("[...document.querySelectorAll('[role=progressbar]')].map(b => +b.ariaValueNow)")
        assert len(bars) == 5 and all(0 <= bar <= 100 for bar in bars)
        seen(page, "six-starting")
        page.screen(390, 844, dark=True, mobile=True)
        page.shows("nvl72d006")
        assert page.run("document.documentElement.scrollWidth") <= 390  # nothing hangs over a phone's edge
        seen(page, "six-on-a-phone")
        # One runner is killed: the head's page says so.
        os.kill(started.runners[2].process.pid, signal.SIGKILL)
        began = time.monotonic()
        until(lambda: "✖ dead" in state_of(page, "nvl72d003"), "its death on the page", 30)
        assert time.monotonic() - began < DEAD_WITHIN


def minutes(text: str) -> float:
    found = re.search(r"about (?:(\d+) min )?(\d+) s left", text)
    assert found is not None, text
    return int(found[1] or 0) + int(found[2]) / 60


def up(runner: Runner) -> bool:
    try:
        return runner.get("/livez")[0] == 200
    except OSError:
        return False


def test_eighteen_nodes_and_one_that_hangs(page: Browser, tmp_path: Path) -> None:
    """One runner is real, seventeen are doubles that answer with views made of the real one's."""
    names = [f"nvl72d0{n:02}" for n in range(1, 19)]
    holds = [f"prefill worker {n // 2} rank {n % 2}" for n in range(6)]
    holds += [f"decode worker {n // 4} rank {n % 4}" for n in range(12)]
    port = free_port()
    alone = job(names, holds, [port] * 18, 0)
    probe = plan(process("prefill"), server("etcd"), server("frontend"))
    with Runner.of_plan(probe, tmp_path) as runner:
        runner.wait_for("| ready after")
        status = runner.get("/status")[1]
    doubles = []
    for name, what in zip(names[1:], holds[1:], strict=True):
        role, rank = what.split()[0], int(what[-1])
        changes = {}
        if name == "nvl72d013":
            changes = {
                "ready": False,
                "stuck": "it has 12 requests and has not answered any for 34 s",
                "stuck_seconds": 34,
            }
        view = served(status, role, **changes)
        view["status"] |= {"rank": rank, "nnodes": 2 if role == "prefill" else 4}
        if changes:
            view["status"] |= {"state": "degraded", "ready": False}
        if name == "nvl72d011":  # its leader
            view["status"] |= {"behind": "decode: rank 2 of 4 (node nvl72d013) is stopped"}
        doubles.append(Double(view))
    others = tuple(
        Peer(peer.name, peer.what, f"http://127.0.0.1:{double.port}", False)
        for peer, double in zip(alone.others, doubles, strict=True)
    )
    made = plan(
        process("prefill"), server("etcd"), server("frontend"), nnodes=2, job=replace(alone, others=others)
    )
    try:
        with Runner.of_plan(made, tmp_path) as runner:
            runner.wait_for("| ready after")
            page.screen(1920, 1080, dark=True)
            page.open(f"http://127.0.0.1:{runner.health_port}/")
            page.shows("✖ 1 of 18 hung")
            page.shows("nodes ready\n17 of 18")
            page.shows("decode: it has 12 requests and has not answered any for 34 s")
            page.shows("decode: rank 2 of 4 (node nvl72d013) is stopped")
            assert "✖ hung" in state_of(page, "nvl72d013")
            page.press("b")
            assert "nvl72d013" in page.run("document.activeElement.innerText")
            seen(page, "eighteen-with-one-hung")
            page.screen(3840, 2160)
            page.shows("nvl72d018")
            size = page.run("parseFloat(getComputedStyle(document.documentElement).fontSize)")
            assert size >= 24  # on a wall
            seen(page, "on-a-wall")
            doubles[4].close()
            began = time.monotonic()
            until(lambda: "✖ dead" in state_of(page, "nvl72d006"), "its death on the page", 30)
            assert time.monotonic() - began < DEAD_WITHIN
    finally:
        for double in doubles:
            double.close()


def test_a_job_that_ends_is_not_dead(page: Browser, tmp_path: Path) -> None:
    with Runner.of_plan(plan(process("aggregated"), server("frontend")), tmp_path) as runner:
        runner.wait_for("| ready after")
        page.open(f"http://127.0.0.1:{runner.health_port}/")
        page.shows("● ready")
        runner.process.terminate()
        page.shows("○ Ended at", 15)
        page.shows("asked to stop by SIGTERM")
        assert "dead" not in page.text()
        seen(page, "finished")


def test_a_failed_job_says_why(page: Browser, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"until [ -e {go} ]; do sleep 0.1; done; echo 'CUDA error: out of memory'; exit 9"
    with Runner.of_plan(plan(process("aggregated", argv=("bash", "-c", script))), tmp_path) as runner:
        runner.wait_for("| ready after")
        page.open(f"http://127.0.0.1:{runner.health_port}/")
        page.shows("● ready")
        go.touch()
        page.shows("Ended at", 20)
        page.shows("aggregated ended: exit code 9", 20)
        page.shows("✖ failed")
        page.press("ArrowRight")
        page.press("Enter")
        page.shows("CUDA error: out of memory")


def test_a_runner_that_is_killed_is_dead_and_comes_back(page: Browser, tmp_path: Path) -> None:
    made = plan(process("aggregated"), health_port=free_port())
    with Runner.of_plan(made, tmp_path) as runner:
        runner.wait_for("| ready after")
        page.open(f"http://127.0.0.1:{runner.health_port}/")
        page.shows("● ready")
        os.kill(runner.process.pid, signal.SIGKILL)
        began = time.monotonic()
        page.shows("The runner is dead or out of reach", 30)
        assert time.monotonic() - began < DEAD_WITHIN
        assert "✖ dead" in state_of(page, "aggregated")
    with Runner.of_plan(made, tmp_path):
        page.shows("● ready", 30)
        assert not page.run("document.getElementById('lost').checkVisibility()")


def test_a_stopped_runner_is_dead_too(page: Browser, tmp_path: Path) -> None:
    """Its port still takes connections: nothing refuses, and nothing comes."""
    with Runner.of_plan(plan(process("aggregated")), tmp_path) as runner:
        runner.wait_for("| ready after")
        page.open(f"http://127.0.0.1:{runner.health_port}/")
        page.shows("● ready")
        os.kill(runner.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        page.shows("The runner is dead or out of reach", 30)
        assert time.monotonic() - began < DEAD_WITHIN
        os.kill(runner.process.pid, signal.SIGCONT)
        until(lambda: "dead" not in page.text(), "it to be back", 30)


def test_colours_are_chosen_and_kept(page: Browser, tmp_path: Path) -> None:
    with Runner.of_plan(plan(process("aggregated")), tmp_path) as runner:
        runner.wait_for("| ready after")
        url = f"http://127.0.0.1:{runner.health_port}/"
        page.open(url)
        page.shows("● ready")
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.run(ground)
        page.press("t")
        dark = page.run(ground)
        assert light != dark
        page.open(url)
        assert page.run(ground) == dark
        page.press("t")
        assert page.run(ground) == light


def test_what_processes_print_is_text(page: Browser, tmp_path: Path) -> None:
    """Lines, names and reasons come from everywhere; none of it becomes part of the page."""
    evil = "<img src=x onerror=alert(1)><script>document.title='owned'</script>"
    made = plan(
        process("aggregated", argv=("bash", "-c", f'echo "{evil}"; exec sleep 1000')), warnings=(evil,)
    )
    with Runner.of_plan(made, tmp_path) as runner:
        runner.wait_for("| ready after")
        page.open(f"http://127.0.0.1:{runner.health_port}/")
        page.press("ArrowRight")
        page.shows("● ready")
        page.press("ArrowRight")
        page.press("Enter")
        until(lambda: page.text().count("onerror=alert(1)") >= 2, "both as text")
        assert page.run("document.querySelectorAll('main img, main script').length") == 0
        assert page.run("document.title") != "owned"


def test_the_form_lets_in(page: Browser, tmp_path: Path) -> None:
    with Runner.of_plan(plan(process("aggregated"), status_token="let me in"), tmp_path) as runner:
        runner.wait_for("| ready after")
        page.open(f"http://127.0.0.1:{runner.health_port}/")
        page.shows("GLM47_STATUS_TOKEN")
        page.run("document.querySelector('[name=token]').value = 'let me in'; document.forms[0].submit()")
        page.shows("● ready")


def test_many_pages_do_not_keep_probes_out(tmp_path: Path) -> None:
    """Clients of events are counted like all others: the oldest gives way, and comes back."""
    import http.client

    from entrypoint.supervise.status.health import CONNECTIONS

    with Runner.of_plan(plan(process("aggregated")), tmp_path) as runner:
        runner.wait_for("| ready after")
        threads = Path(f"/proc/{runner.process.pid}/task")
        before = len([*threads.iterdir()])
        clients = []
        for _ in range(CONNECTIONS + 10):
            client = http.client.HTTPConnection("127.0.0.1", runner.health_port, timeout=10)
            client.request("GET", "/events")
            assert client.getresponse().status == 200
            clients.append(client)
        assert runner.get("/readyz")[0] == 200
        most = before + CONNECTIONS + 2  # the one that looks, and the one that takes connections
        until(lambda: len([*threads.iterdir()]) <= most, "those that gave way to end", 10)
        for client in clients:
            client.close()
        until(lambda: len([*threads.iterdir()]) <= before + 1, "their threads to end", 15)
