"""What holds processes up, by the kernel's own files of real processes; and files of other kernels."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from entrypoint.supervise.watchdog.burden import Burden, Machine, Seen, seen
from tests.support.runner import until

SPIN = "while True: pass"
CORE = str(max(os.sched_getaffinity(0)))


@contextmanager
def running(code: str, *before: str) -> Iterator[int]:
    with subprocess.Popen([*before, sys.executable, "-c", code]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def looked(pid: int, seconds: float) -> Burden:
    """Looks every tenth of a second."""
    burden, end = Burden(pid), time.monotonic() + seconds
    while time.monotonic() < end:
        burden.look("weights", time.monotonic())
        time.sleep(0.1)
    return burden


def test_who_shares_its_core_waits_for_it() -> None:
    pinned = ("taskset", "-c", CORE)
    with running(SPIN, *pinned) as pid, running(SPIN, *pinned), running(SPIN, *pinned):
        total = looked(pid, 2.0).totals["weights"]
    print(total)
    assert total.looked > 1.0 and total.looks > 10
    assert 0.4 < total.waited / total.looked <= 1.05 and not total.stopped


def test_who_sleeps_does_not_wait() -> None:
    with running("import time; time.sleep(60)") as pid:
        until(lambda: (found := seen(pid)) is not None and found.state == "S", "it sleeps")
        total = looked(pid, 1.0).totals["weights"]
    assert total.waited < 0.05 * total.looked + 0.05


def test_who_is_stopped_is_seen_so() -> None:
    with running(SPIN) as pid:
        os.kill(pid, signal.SIGSTOP)
        until(lambda: (found := seen(pid)) is not None and found.state == "T", "it is stopped")
        total = looked(pid, 0.6).totals["weights"]
    assert total.stopped == total.looks > 2


def test_what_is_read_is_counted(tmp_path: Path) -> None:
    (tmp_path / "shard").write_bytes(bytes(8 << 20))
    code = f"import time\ntime.sleep(0.5)\nopen({str(tmp_path / 'shard')!r}, 'rb').read()\ntime.sleep(60)"
    with running(code) as pid:
        burden = Burden(pid)

        def read() -> bool:
            burden.look("weights", time.monotonic())
            return "weights" in burden.totals and burden.totals["weights"].read >= 8 << 20

        until(read, "8 MiB are read")


def test_ranks_are_known_by_their_titles(tmp_path: Path) -> None:
    names = ("sglang::scheduler_DP0_TP12_EP3", "sglang::scheduler", "sglang::detokenizer")
    code = f"""
import subprocess, time
held = [subprocess.Popen(["bash", "-c", 'exec -a "$0" sleep 60', name]) for name in {names!r}]
time.sleep(60)
"""
    with running(code) as pid:
        burden = Burden(pid)

        def known() -> bool:
            burden.look("", time.monotonic())
            return sorted(burden.ranks.values()) == [-1, 12]

        until(known, "two schedulers, one with its number")
        for each in (*burden.ranks, *burden._pids[1:]):
            os.kill(each, signal.SIGKILL) if Path(f"/proc/{each}").exists() else None


def test_a_process_that_is_gone_says_nothing(tmp_path: Path) -> None:
    assert seen(1 << 22) is None
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (a) b) R 1 7")
    found = seen(7, tmp_path)
    assert found == Seen("R", None, None, None)


STAT = "cpu  {user} 0 0 {idle} 0 0 0 {steal} 0 0\ncpu0 1 1\n"
SOME = "some avg10={0} avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"


@pytest.mark.parametrize("version", (1, 2))
def test_the_machine(tmp_path: Path, version: int) -> None:
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "pressure").mkdir(parents=True)
    (proc / "self").mkdir()
    (cgroup / "pod").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("0::/pod\n" if version == 2 else "3:cpu:/pod\n")
    (proc / "stat").write_text(STAT.format(user=100, idle=100, steal=0))
    (proc / "vmstat").write_text("nr_free 1\npswpin 0\npswpout 0\n")
    (proc / "pressure" / "io").write_text(SOME.format("12.50"))
    if version == 2:
        (cgroup / "pod" / "io.pressure").write_text(SOME.format("80.00"))
    machine = Machine(proc, cgroup)
    assert machine.look(0.0)["steal"] == 0
    (proc / "stat").write_text(STAT.format(user=140, idle=130, steal=30))
    (proc / "vmstat").write_text("nr_free 1\npswpin 1000\npswpout 1000\n")
    found = machine.look(10.0)
    assert found["steal"] == 0.3 and found["swapped"] == round(200 * os.sysconf("SC_PAGE_SIZE"))
    assert found["pressure_io"] == (0.8 if version == 2 else 0.125)
    assert "pressure_cpu" not in found


def test_this_machine_says_what_it_says() -> None:
    machine = Machine()
    machine.look(0.0)
    time.sleep(0.3)
    found = machine.look(0.3)
    assert 0 <= found["steal"] <= 1 and found["swapped"] >= 0


def test_nothing_there_is_nothing_said(tmp_path: Path) -> None:
    assert Machine(tmp_path, tmp_path).look(0.0) == {"steal": 0.0, "swapped": 0}
