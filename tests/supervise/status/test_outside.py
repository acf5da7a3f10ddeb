"""What the outside sees: health endpoint, probes, control socket, output that nobody reads."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from entrypoint.plan.types import HttpProbe, LoadedProbe
from entrypoint.supervise.status.health import CONNECTIONS, REQUEST_TIMEOUT
from tests.support.plans import plan, process, server
from tests.support.runner import Runner, free_port, until

WEB = (
    "import http.server as h, sys\n"
    "h.HTTPServer(('127.0.0.1', int(sys.argv[1])), h.SimpleHTTPRequestHandler).serve_forever()"
)
FOLLOWER = (
    "2026-01-20T10:00:00.000000Z  INFO main.init: Non-leader node detected (node_rank=1). Will not serve"
)
FLOOD = "import os\nline = b'x' * 99 + b'\\n'\nwhile True: os.write(1, line * 600)"


def web(port: int) -> tuple[str, ...]:
    return (sys.executable, "-c", WEB, str(port))


def test_pages(tmp_path: Path) -> None:
    p = plan(
        process("engine", ready=HttpProbe("http://127.0.0.1:1/")), server("etcd"), warnings=("a warning",)
    )
    with Runner.of_plan(p, tmp_path) as runner:
        runner.wait_for("etcd is ready")
        until(lambda: "no connection to" in str(runner.get("/readyz")), "the probe's reason")
        code, body = runner.get("/readyz")
        assert (
            code == 503
            and not body["ok"]
            and body["waiting_for"][0].startswith("engine: no connection to 127.0.0.1:")
        )
        assert runner.get("/startupz")[0] == 503
        assert runner.get("/livez")[0] == 200  # loading is no illness
        code, body = runner.get("/status")
        assert code == 200 and body["warnings"] == ["a warning"] and body["state"] == "starting"
        assert {q["name"]: q["ready"] for q in body["processes"]} == {"engine": False, "etcd": True}
        code, text = runner.get("/metrics")
        assert code == 200 and 'glm47_process_ready{process="engine",role="engine"} 0.0' in text.splitlines()
        assert runner.get("/plan")[1]["processes"][0]["name"] == "engine"
        code, body = runner.get("/nope")
        assert code == 404 and "/readyz" in body["pages"]


def test_idle_clients_do_not_use_up_descriptors(tmp_path: Path) -> None:
    p = plan(process("engine"))
    with Runner.of_plan(p, tmp_path) as runner, ExitStack() as clients:
        until(lambda: runner.get("/readyz")[0] == 200, "ready")
        descriptors = Path(f"/proc/{runner.process.pid}/fd")
        before = len([*descriptors.iterdir()])
        for _ in range(3 * CONNECTIONS):
            clients.enter_context(socket.create_connection(("127.0.0.1", runner.health_port)))
        assert runner.get("/readyz")[0] == 200
        until(
            lambda: len([*descriptors.iterdir()]) <= before + CONNECTIONS + 1,
            "the oldest are closed, long before they are timed out",
            REQUEST_TIMEOUT / 2,
        )


def test_ready_follows_the_probe_and_startup_stays_passed(tmp_path: Path) -> None:
    port = free_port()
    p = plan(server("web", argv=web(port), ready=HttpProbe(f"http://127.0.0.1:{port}/")))
    with Runner.of_plan(p, tmp_path) as runner:
        runner.wait_for("| ready after")
        pid = runner.status_of("web")["pid"]
        os.kill(pid, signal.SIGSTOP)
        until(lambda: runner.get("/readyz")[0] == 503, "not ready any more", 30)
        assert runner.get("/startupz")[0] == 200 and runner.get("/livez")[0] == 200
        os.kill(pid, signal.SIGCONT)
        until(lambda: runner.get("/readyz")[0] == 200, "ready again", 30)


def test_a_dependent_starts_only_after_its_need_answers(tmp_path: Path) -> None:
    port = free_port()
    delayed = f"import time; time.sleep(0.5)\n{WEB}"
    need = server(
        "web", argv=(sys.executable, "-c", delayed, str(port)), ready=HttpProbe(f"http://127.0.0.1:{port}/")
    )
    url = f"http://127.0.0.1:{port}/"
    script = f"import urllib.request as u; print('answered', u.urlopen('{url}').status, flush=True)"
    after = process(
        "after", argv=(sys.executable, "-c", script + "; import signal; signal.pause()"), needs=("web",)
    )
    with Runner.of_plan(plan(need, after), tmp_path) as runner:
        runner.wait_for("answered 200")


def test_a_follower_is_ready_when_its_log_says_it_has_loaded(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    spec = process(
        "decode", argv=("sh", "-c", f"read x < fifo; echo '{FOLLOWER}'; exec sleep 1000"), cwd=str(tmp_path),
        ready=LoadedProbe(), log_dialect="sglang",
    )  # fmt: skip
    with Runner.of_plan(plan(spec), tmp_path) as runner:
        runner.wait_for("decode started")
        assert runner.get("/readyz")[0] == 503
        (tmp_path / "fifo").write_text("go\n")
        runner.wait_for("| ready after")


def test_a_stalled_start_ends_with_75_and_says_in_which_phase(tmp_path: Path) -> None:
    lines = "Load weight begin. avail mem=100 GB\\rLoading shards:  25% Completed | 3/12\\r"
    spec = process(
        "decode", argv=("sh", "-c", f"printf '{lines}'; exec sleep 1000"), ready=LoadedProbe(),
        log_dialect="sglang", stall_timeout=1.0,
    )  # fmt: skip
    with Runner.of_plan(plan(spec), tmp_path) as runner:
        assert runner.wait() == 75
    assert "no progress for 1 s" in runner.lines[-1] and "weights" in runner.lines[-1], runner.text()


def test_a_silent_phase_is_seen_to_last(tmp_path: Path) -> None:
    """The first minute and more of graph capture has no line of output: its duration must still grow."""
    line = "INFO model_runner.init_prefill_cuda_graph: Capture target prefill CUDA graph begin. backend=full"
    spec = process(
        "decode",
        argv=("sh", "-c", f"echo '{line}'; exec sleep 1000"),
        ready=LoadedProbe(),
        log_dialect="sglang",
    )
    with Runner.of_plan(plan(spec), tmp_path) as runner:
        runner.wait_for("graph begin")
        until(lambda: runner.status_of("decode")["progress"] == "compiling kernels, 2 s", "two seconds", 20)
        runner.signal(signal.SIGUSR1)
        runner.wait_for_match(r"decode: running, not ready: compiling kernels, [2-9] s")


def test_an_engine_that_was_ready_says_why_it_is_not_any_more(tmp_path: Path) -> None:
    """How its start went is over then."""
    port = free_port()
    words = "echo 'INFO register: Successfully registered LLM with runtime config'; exec \"$@\""
    spec = process(
        "decode", argv=("sh", "-c", words, "sh", *web(port)), ready=HttpProbe(f"http://127.0.0.1:{port}/"),
        log_dialect="sglang",
    )  # fmt: skip
    with Runner.of_plan(plan(spec), tmp_path) as runner:
        runner.wait_for("| ready after")
        until(lambda: runner.status_of("decode")["progress"] is None, "no progress any more", 20)
        os.kill(runner.status_of("decode")["pid"], signal.SIGSTOP)
        until(lambda: not runner.status_of("decode")["ready"], "not ready any more", 30)
        now = runner.status_of("decode")
        assert now["progress"] is None and "no answer" in now["why"], now
        assert runner.get("/status")[1]["waiting_for"] == [f"decode: {now['why']}"]
        os.kill(now["pid"], signal.SIGCONT)


def test_a_known_failure_is_named_in_the_last_line(tmp_path: Path) -> None:
    text = "missing bos_token_id in generation_config.json and config.json, cannot load"
    with Runner.of_plan(
        plan(process("frontend", argv=("sh", "-c", f"echo '{text}'; exit 1"))), tmp_path
    ) as runner:
        assert runner.wait() == 1
    assert "bos_token_id" in runner.lines[-1]


def test_no_other_port_is_opened(tmp_path: Path) -> None:
    with Runner.of_plan(plan(process("engine")), tmp_path) as runner:
        runner.wait_for("| ready after")
        mine = {
            str(fd.readlink()) for fd in Path(f"/proc/{runner.process.pid}/fd").iterdir() if fd.is_symlink()
        }
        rows = [
            r.split() for t in ("tcp", "tcp6") for r in Path(f"/proc/net/{t}").read_text().splitlines()[1:]
        ]
        ports = {int(r[1].split(":")[1], 16) for r in rows if r[3] == "0A" and f"socket:[{r[9]}]" in mine}
    assert ports == {runner.health_port}


def test_output_that_nobody_reads_delays_no_signal_and_no_probe(tmp_path: Path) -> None:
    p = plan(process("engine", argv=(sys.executable, "-c", FLOOD)))
    with Runner.of_plan(p, tmp_path, read=False) as runner:
        until(lambda: runner.get("/readyz")[0] == 200, "ready")
        until(lambda: runner.status_of("engine")["output_bytes"] > 9 << 20, "the queue is full")
        for path in ("/livez", "/readyz", "/status", "/metrics"):
            began = time.monotonic()
            assert runner.get(path)[0] == 200
            assert time.monotonic() - began < 5  # not blocked; how fast is the benchmark's business
        runner.signal(signal.SIGTERM)
        assert runner.process.wait(15) == 0


def test_what_was_dropped_is_counted_and_said(tmp_path: Path) -> None:
    p = plan(process("engine", argv=(sys.executable, "-c", FLOOD)))
    with Runner.of_plan(p, tmp_path, read=False) as runner:
        until(lambda: runner.get("/readyz")[0] == 200, "ready")
        until(lambda: runner.status_of("engine")["dropped_lines"] > 0, "lines are dropped", 40)
        memory = Path(f"/proc/{runner.process.pid}/status").read_text().split("VmRSS:")[1].split()[0]
        assert int(memory) < 100_000  # KiB
        runner._reader.start()
        runner.wait_for_match(r"runner .* lines \(\d+ bytes\) of output dropped", 40)
        runner.signal(signal.SIGTERM)
        assert runner.wait(15) == 0


def test_json_lines(tmp_path: Path) -> None:
    text = "\x1b[32mgreen\x1b[0m café"
    with Runner.of_plan(
        plan(process("engine", argv=("printf", "%s", text)), log_format="json"), tmp_path
    ) as runner:
        assert runner.wait() == 1
    objects = [json.loads(line) for line in runner.lines]
    assert [o["line"] for o in objects if o["process"] == "engine"] == ["green café"]
    assert all(o["process"] in ("runner", "engine") and o["ts"].endswith("Z") for o in objects)
    assert "left with 0" in objects[-1]["line"]


def test_log_files(tmp_path: Path) -> None:
    p = plan(
        process("engine", argv=("sh", "-c", "echo one; echo two >&2; exit 3")), log_dir=str(tmp_path / "logs")
    )
    with Runner.of_plan(p, tmp_path) as runner:
        assert runner.wait() == 3
    assert (tmp_path / "logs" / "engine.log").read_text().splitlines() == ["engine | one", "engine | two"]
    assert "exit code 3" in (tmp_path / "logs" / "runner.log").read_text().splitlines()[-1]


def test_a_taken_health_port_is_said(tmp_path: Path) -> None:
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        p = plan(process("engine"), health_port=holder.getsockname()[1])
        with Runner.of_plan(p, tmp_path) as runner:
            assert runner.wait() == 78
    assert "GLM47_HEALTH_PORT" in runner.lines[-1] and "already in use" in runner.lines[-1]


CRASH = """
import sys, time
print("2026-11-25T17:39:14.9Z  INFO scheduler.report_prefill_stats: Prefill batch, #new-seq: 4")
print("Fatal Python error: Segmentation fault")
print("2026-11-25T17:39:15.2Z ERROR watchdog._check_processes: Subprocess scheduler_0 (pid=2612) "
      "crashed with exit code -11. Triggering SIGQUIT for cleanup...")
for n in range(1000):
    print("2026-11-25T17:39:16.0Z  INFO handle_payload: push_handler: request received", "x" * 250, n)
sys.stdout.flush()
import os; os.kill(os.getpid(), 9)
"""


def test_the_cause_is_named_though_requests_went_on_coming(tmp_path: Path) -> None:
    # SGLang's main process waits 5 s before it follows its scheduler, and goes on taking requests.
    with Runner.of_plan(plan(process("engine", argv=(sys.executable, "-c", CRASH))), tmp_path) as runner:
        assert runner.wait() == 137
        assert "Segmentation fault" in runner.lines[-1] and "native code" in runner.lines[-1]
