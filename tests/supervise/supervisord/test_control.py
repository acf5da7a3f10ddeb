"""The control socket: what supervisorctl shows and may ask, and what it costs those who never use it."""

from __future__ import annotations

import re
import signal
import socket
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.plan.types import HttpProbe
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.supervisord.control import CONNECTIONS
from entrypoint.supervise.supervisord.views import STATES
from tests.support.plans import plan, process, server
from tests.support.runner import ROOT, Runner, until


def socket_of(tmp_path: Path) -> Path:
    return tmp_path / "run" / "supervisor.sock"


def control(tmp_path: Path, *words: str) -> str:
    tool = [str(Path(sys.executable).parent / "supervisorctl"), "-s", f"unix://{socket_of(tmp_path)}", *words]
    return subprocess.run(tool, capture_output=True, text=True, timeout=30).stdout


def rows(tmp_path: Path) -> dict[str, list[str]]:
    """`supervisorctl status`: the words after each name."""
    lines = control(tmp_path, "status").splitlines()
    return {words[0]: words[1:] for line in lines if (words := line.split())}


def test_the_socket_is_private_and_shows_every_process(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    once = f"[ -e {flag} ] && exec sleep 1000; touch {flag}; exit 3"
    waits = process("later", needs=("never",))
    never = server("never", ready=HttpProbe("http://127.0.0.1:1/"))
    p = plan(process("engine"), server("etcd", argv=("sh", "-c", once)), never, waits)
    with Runner.of_plan(p, tmp_path) as runner:
        runner.wait_for("restart 1 of 3")
        until(lambda: rows(tmp_path)["etcd"][0] == "RUNNING", "it runs again", 20)
        assert stat.S_IMODE(socket_of(tmp_path).stat().st_mode) == 0o600
        shown = rows(tmp_path)
        pid = runner.status_of("engine")["pid"]
        assert shown["engine"][:3] == ["RUNNING", "pid", f"{pid},"], shown
        assert shown["later"] == ["STOPPED", "Not", "started"] and shown["never"][0] == "RUNNING", shown
        assert control(tmp_path, "pid").strip() == str(runner.process.pid)
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 0
    assert not socket_of(tmp_path).exists()


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("stop", "the plan decides"),
        ("restart", "the plan decides"),
        ("start", "ERROR (spawn error)"),
        ("clear", "ERROR (failed)"),
        ("reload", "the plan decides"),
    ],
)
def test_it_takes_no_orders_for_single_processes(tmp_path: Path, word: str, answer: str) -> None:
    with Runner.of_plan(plan(process("engine")), tmp_path) as runner:
        runner.wait_for("| ready after")
        pid = runner.status_of("engine")["pid"]
        assert answer in control(tmp_path, word, *(["engine"] if word != "reload" else []))
        runner.wait_for_match("refused on the control socket: .*the plan decides")
        assert runner.status_of("engine")["pid"] == pid and runner.process.poll() is None


def test_shutdown_stops_the_container(tmp_path: Path) -> None:
    with Runner.of_plan(plan(process("engine")), tmp_path) as runner:
        runner.wait_for("| ready after")
        control(tmp_path, "shutdown")
        assert runner.wait() == 0
    assert "asked to stop through the control socket" in runner.lines[-1]


def test_a_signal_reaches_the_process_itself(tmp_path: Path) -> None:
    trap = "trap 'echo got it' USR1; while :; do sleep 0.05; done"
    with Runner.of_plan(plan(process("engine", argv=("sh", "-c", trap))), tmp_path) as runner:
        runner.wait_for("| ready after")
        assert "signalled" in control(tmp_path, "signal", "USR1", "engine")
        runner.wait_for("got it")
        assert "BAD_SIGNAL" in control(tmp_path, "signal", "NOPE", "engine").upper().replace(" ", "_")


def test_tail_shows_the_log_where_there_is_one(tmp_path: Path) -> None:
    words = ("sh", "-c", "echo a line; exec sleep 1000")
    with Runner.of_plan(
        plan(process("engine", argv=words), log_dir=str(tmp_path / "logs")), tmp_path
    ) as runner:
        runner.wait_for("a line")
        until(lambda: "engine | a line" in control(tmp_path, "tail", "engine"), "the line", 20)


def test_who_leaves_in_the_middle_harms_nobody(tmp_path: Path) -> None:
    """A reset instead of an end, with and without a request, whole and cut off."""
    body = (
        b"<?xml version='1.0'?><methodCall><methodName>supervisor.getAllProcessInfo</methodName></methodCall>"
    )
    head = b"POST /RPC2 HTTP/1.1\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n" % len(body)
    with Runner.of_plan(plan(process("engine")), tmp_path) as runner:
        runner.wait_for("| ready after")
        for text in (b"", head[:20], head, head + body[:9], head + body, b"\xff" * 4000 + b"\r\n\r\n"):
            for _ in range(3):
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(socket_of(tmp_path)))
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.sendall(text)
        assert "RUNNING" in control(tmp_path, "status")
        assert runner.process.poll() is None
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 0


def test_a_run_directory_with_too_long_a_path_is_said_before_anything_starts(tmp_path: Path) -> None:
    (long := tmp_path / ("x" * 100)).mkdir()
    with Runner.of_plan(plan(process("engine")), long) as runner:
        assert runner.wait() == 73
    assert "cannot make the control socket" in runner.lines[-1] and "GLM47_RUN_DIR" in runner.lines[-1]
    assert "started with pid" not in runner.text()


def test_the_package_is_loaded_by_the_first_connection_only(tmp_path: Path) -> None:
    """A runner that nobody asks neither waits for it nor carries it."""
    with Runner.of_plan(plan(process("engine")), tmp_path) as runner:
        runner.wait_for("| ready after")
        mapped = Path(f"/proc/{runner.process.pid}/maps")
        assert "pyexpat" not in mapped.read_text()  # its XML parser
        assert "RUNNING" in control(tmp_path, "status")
        assert "pyexpat" in mapped.read_text()


def test_nothing_else_imports_the_package() -> None:
    code = "import sys, entrypoint.run.supervised as r; r.import_supervisor(); "
    code += "print('supervisor' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"
    folder = ROOT / "entrypoint" / "supervise" / "supervisord"
    imports = re.compile(r"^ *(from|import) supervisor\b", re.MULTILINE)
    users = [path for path in (ROOT / "entrypoint").rglob("*.py") if imports.search(path.read_text())]
    assert users == [folder / "server.py"]


def test_every_state_has_one_that_supervisorctl_knows() -> None:
    assert set(STATES) == set(State)
    from supervisor.states import ProcessStates, getProcessStateDescription

    known = {getProcessStateDescription(code) for code in STATES.values()}
    assert known <= set(vars(ProcessStates))


def test_idle_connections_do_not_use_up_descriptors(tmp_path: Path) -> None:
    with Runner.of_plan(plan(process("engine")), tmp_path) as runner:
        until(lambda: runner.get("/readyz")[0] == 200, "ready")
        held = []
        for _ in range(3 * CONNECTIONS):
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(socket_of(tmp_path)))
            held.append(client)
            client.send(b"GET /")
        assert "engine" in rows(tmp_path), "the newest is answered"
        assert len([*Path(f"/proc/{runner.process.pid}/fd").iterdir()]) < CONNECTIONS + 40
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 0
