"""What prefill and decode workers of a real engine do when they are killed, replaced and stopped.

    python -m bench.disaggregated --gpus 0,1 --out DIR [SCENARIO …] [--together]

One runner per container, on this machine, over etcd. The engine comes from the environment:
GLM47_MODEL_PATH, GLM47_PYTHON, GLM47_ETCD_BIN, GLM47_EXTRA_ARGS and whatever else it needs; a model with
random weights in which attention counts shows a wrong KV cache, dummy weights do not. Every figure is
seconds, printed as it is measured, and once more as JSON in DIR/results.json; containers' output is in DIR.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from bench.clients import Clients, Reply, greedy, prompts
from bench.deployment import Deployment, deployment, kill_container, last_line, scheduler, wait
from tests.support.runner import free_port

HUNG = 90.0
"""Seconds that a stopped scheduler is waited for: 15 to not ready and 60 to the end are promised."""
WORKERS = ("prefill", "decode")
"""By the GPU that each one gets."""
LONG = 2000
"""Tokens of a request that is still being answered when something happens to its worker."""


def pair(it: Deployment) -> dict[str, float]:
    """etcd, prefill, decode and a frontend, ready."""
    it.common |= {"GLM47_PREFILL_WORKERS": "1", "GLM47_DECODE_WORKERS": "1"}
    it.start("etcd", "etcd")
    it.start("prefill", "prefill", 0)
    it.start("decode", "decode", 1)
    it.start("frontend", "frontend")
    return it.ready("etcd", "prefill", "decode", "frontend")


def tokens(out: Path, gpus: list[str]) -> dict[str, Any]:
    """The same greedy tokens from an aggregated worker and from a pair."""
    with deployment(out, gpus) as it:
        it.start("single", "single", 0)
        took = it.ready("single")
        wanted = [greedy(it.http, prompt, 24) for prompt in prompts()]
        it.stop()
    with deployment(out, gpus) as it:
        took |= pair(it)
        got = [greedy(it.http, prompt, 24) for prompt in prompts()]
        codes = it.stop()
    equal = sum(a.text == b.text and a.tokens == 24 for a, b in zip(wanted, got, strict=True))
    return {"ready after": took, "equal": f"{equal} of {len(got)}", "codes": codes, "last": got[-1].text[:80]}


def replaced(out: Path, gpus: list[str]) -> dict[str, Any]:
    """Each worker killed and replaced, eight clients asking all the time."""
    found: dict[str, Any] = {}
    with deployment(out, gpus) as it:
        pair(it)
        greedy(it.http, "warm", 8)
        for gpu, name in enumerate(WORKERS):
            with Clients(it.http, 8) as clients:
                time.sleep(3)
                kill_container(it.runners[name])
                killed = time.monotonic()
                it.runners[name].wait(30)
                time.sleep(2)
                it.start(name, name, gpu)
                took = it.ready(name)[name]
                wait(lambda: it.is_ready("frontend"), 120, "the frontend is ready again")
                again = time.monotonic()
                first = [greedy(it.http, f"again {n}", 8) for n in range(3)]
                time.sleep(3)
            asked = clients.replies
            found[f"{name} killed, 8 clients"] = {
                "replacement ready after": took,
                "frontend ready after that": round(again - it.started[name] - took, 1),
                "first requests after that": [reply.seconds for reply in first],
                "asked": len(asked),
                "failed": failures(asked),
                "longest that began after ready": max(
                    (r.seconds for r in asked if r.began >= again), default=None
                ),
                "first good answer after the kill": min(
                    (round(r.began + r.seconds - killed, 1) for r in asked if r.good and r.began > killed),
                    default=None,
                ),
            }
            show(name, found[f"{name} killed, 8 clients"])
            # Once more with nobody asking: the first request is the first that the new worker gets.
            kill_container(it.runners[name])
            it.runners[name].wait(30)
            it.start(name, name, gpu)
            it.ready(name)
            wait(lambda: it.is_ready("frontend"), 120, "the frontend is ready again")
            quiet = [greedy(it.http, f"quiet {n}", 8) for n in range(3)]
            found[f"{name} killed, nobody asking"] = {
                "first requests": [(r.seconds, r.tokens) for r in quiet]
            }
            show(name, found[f"{name} killed, nobody asking"])
        found["codes"] = it.stop()
    return found


def failures(replies: list[Reply]) -> dict[str, int]:
    """How many requests failed, by why."""
    counts: dict[str, int] = {}
    for reply in replies:
        if not reply.good:
            counts[reply.why] = counts.get(reply.why, 0) + 1
    return counts


def stopped(out: Path, gpus: list[str], name: str, busy: bool) -> dict[str, Any]:
    """The scheduler of worker `name` stopped (SIGSTOP), idle or with a request in flight; then replaced."""
    with deployment(out, gpus) as it:
        pair(it)
        found = hang(it, name, it.http if busy else None)
        it.start(name, name, WORKERS.index(name))
        it.ready(name)
        wait(lambda: it.is_ready("frontend"), 120, "the frontend is ready again")
        found["tokens afterwards"] = greedy(it.http, "after all", 8).tokens
        found["codes"] = it.stop()
    return found


def hang(it: Deployment, name: str, http: int | None, signum: int = signal.SIGSTOP) -> dict[str, Any]:
    """Send `signum` to the scheduler of `name`, and watch what comes of it."""
    runner = it.runners[name]
    if http is not None:
        threading.Thread(target=greedy, args=(http, "long", LONG), daemon=True).start()
        time.sleep(1)
    others = [other for other in it.runners if other not in (name, "etcd")]
    os.kill(scheduler(runner), signum)
    began = time.monotonic()
    seen: dict[str, Any] = {}
    while time.monotonic() - began < HUNG and not it.ended(name):
        for other in (name, *others):
            if other not in seen and not it.is_ready(other):
                seen[other] = round(time.monotonic() - began, 1)
        time.sleep(0.2)
    return {
        "not ready after": seen,
        "ended after": round(time.monotonic() - began, 1) if it.ended(name) else None,
        "code": runner.process.poll(),
        "last line": last_line(runner),
    }


def group(out: Path, gpus: list[str], victim: str, signum: int) -> dict[str, Any]:
    """TP 2 over two containers, with a request in flight: `signum` to the scheduler of `victim`."""
    shared = {"GLM47_NNODES": "2", "GLM47_TP": "2", "GLM47_LEADER_ADDRESS": "127.0.0.1"}
    with deployment(out, gpus, **shared) as it:
        it.start("etcd", "etcd", GLM47_NNODES="1")
        it.start("leader", "aggregated", 0, GLM47_NODE_RANK="0")
        it.start("follower", "aggregated", 1, GLM47_NODE_RANK="1")
        it.start("frontend", "frontend", GLM47_NNODES="1", GLM47_PREFILL_WORKERS="0")
        took = it.ready("leader", "follower", "frontend")
        found = hang(it, victim, it.http, signum) | {"ready after": took}
        mate = "leader" if victim == "follower" else "follower"
        wait(lambda: it.ended(mate), HUNG, f"{mate} ends too")
        found["the other"] = (it.runners[mate].process.poll(), last_line(it.runners[mate]))
        it.stop()
    return found


def job(out: Path, gpus: list[str], addresses: list[str]) -> dict[str, Any]:
    """TP 2 over two nodes of a Slurm job, whose runners ask each other: when and how a stopped rank is named.

    `addresses`: two of this machine, one for each node.
    """
    if len(addresses) != 2:
        return {"not run": "give two addresses of this machine (--addresses)"}
    logs, health = out / "job", str(free_port())
    shared = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": ",".join(addresses), "GLM47_TP": "2",
              "GLM47_DECODE_NODES": "2", "GLM47_LOG_DIR": str(logs), "GLM47_HEALTH_PORT": health}  # fmt: skip
    with deployment(out, gpus, **shared) as it:
        it.common.pop("GLM47_HEAD_ADDRESS")
        for rank, (name, address) in enumerate(zip(("leader", "follower"), addresses, strict=True)):
            own = {"SLURMD_NODENAME": address, "SLURM_NODEID": str(rank), "GLM47_HEALTH_HOST": address}
            it.start(name, "auto", rank, address, GLM47_HEALTH_PORT=health, **own)
        found: dict[str, Any] = {"ready after": it.ready("leader", "follower")}
        leader = it.runners["leader"]
        threading.Thread(target=greedy, args=(it.http, "long", LONG), daemon=True).start()
        time.sleep(1)
        os.kill(scheduler(it.runners["follower"]), signal.SIGSTOP)
        began = time.monotonic()
        wait(lambda: any("is behind since" in line for line in leader.lines), HUNG, "the rank is named")
        found["named after"] = round(time.monotonic() - began, 1)
        found["line"] = next(line for line in leader.lines if "is behind since" in line)
        for name, runner in it.runners.items():
            wait(lambda name=name: it.ended(name), HUNG, f"{name} ends")
            found[name] = (runner.process.poll(), last_line(runner))
        found["stacks"] = sorted(file.name for file in logs.glob("*.stacks"))
    return found


def quiet(out: Path, gpus: list[str]) -> dict[str, Any]:
    """Lines that 60 s of waiting for a decode worker leave in each container's log."""
    with deployment(out, gpus, GLM47_PREFILL_WORKERS="1", GLM47_DECODE_WORKERS="1") as it:
        it.start("etcd", "etcd")
        it.start("prefill", "prefill", 0)
        it.start("frontend", "frontend")
        it.ready("prefill")
        before = {name: len(runner.lines) for name, runner in it.runners.items()}
        time.sleep(60)
        counts = {name: len(runner.lines) - before[name] for name, runner in it.runners.items()}
        it.stop()
    return {"lines in 60 s": counts}


def show(what: str, result: Any) -> None:
    """One line as soon as it is known."""
    print(what, json.dumps(result), flush=True)


SCENARIOS: dict[str, Callable[[Path, list[str]], dict[str, Any]]] = {
    "tokens": tokens,
    "replaced": replaced,
    "stopped-prefill": partial(stopped, name="prefill", busy=False),
    "stopped-prefill-busy": partial(stopped, name="prefill", busy=True),
    "stopped-decode": partial(stopped, name="decode", busy=False),
    "stopped-decode-busy": partial(stopped, name="decode", busy=True),
    "group-follower-stopped": partial(group, victim="follower", signum=signal.SIGSTOP),
    "group-leader-stopped": partial(group, victim="leader", signum=signal.SIGSTOP),
    "group-follower-killed": partial(group, victim="follower", signum=signal.SIGKILL),
    "quiet": quiet,
}
JOB = "job-follower-stopped"


def main() -> None:
    """Run what was asked for; what fails says so and does not keep the rest from running."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("scenarios", nargs="*", help=f"of {', '.join(SCENARIOS)}, {JOB}; default: all")
    parser.add_argument("--gpus", default="", help="CUDA_VISIBLE_DEVICES of the first and second worker")
    parser.add_argument("--together", action="store_true", help="run them side by side: they share the GPUs")
    parser.add_argument("--addresses", default="", help=f"two of this machine's, for {JOB}")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    addresses = given.addresses.split(",") if given.addresses else []
    scenarios = SCENARIOS | {JOB: partial(job, addresses=addresses)}
    if unknown := set(given.scenarios) - set(scenarios):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}: give some of {', '.join(scenarios)}")
    given.out.mkdir(parents=True, exist_ok=True)
    gpus = given.gpus.split(",") if given.gpus else []
    results: dict[str, Any] = {}

    def one(name: str) -> None:
        began = time.monotonic()
        try:
            results[name] = scenarios[name](given.out, gpus)
        except Exception as error:
            results[name] = {"did not run through": repr(error)}
        results[name]["took"] = round(time.monotonic() - began)
        show(name, results[name])
        (given.out / "results.json").write_text(json.dumps(results, indent=1))

    with ThreadPoolExecutor(len(scenarios) if given.together else 1) as pool:
        list(pool.map(one, given.scenarios or scenarios))


if __name__ == "__main__":
    main()
