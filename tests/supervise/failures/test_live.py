"""A known failure is told while its process lives, once, and nothing else is."""

from __future__ import annotations

import re
import signal
import sys
import time
from pathlib import Path

import pytest

from entrypoint.supervise.failures.known import KNOWN_FAILURES
from entrypoint.supervise.failures.live import BEFORE, EVERY, NEEDLES, SEARCHED, LiveHints, findings
from tests.supervise.failures.signatures import LINES
from tests.support.plans import plan, process, server
from tests.support.runner import Runner, until

KNOWN = {known.key: known for known in KNOWN_FAILURES}
MEMBERS = [
    pytest.param(key, text, id=f"{key}-{n}") for key, texts in LINES.items() for n, text in enumerate(texts)
]
HEALTHY = sorted(p for p in (Path(__file__).parent / "healthy").iterdir() if p.name != "served-on.log")
OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"


class Process:
    """What a process has written, as its output keeps it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.hints = LiveHints(lambda n: self.lines[-n:])
        self.now = 100.0

    def write(self, *lines: str) -> list[str]:
        """The keys of what is found when the process has written `lines`, after a while."""
        self.lines += lines
        self.hints.saw("".join(f"{line}\n" for line in lines).encode(), len(lines))
        self.now += EVERY
        return [finding.key for finding in self.hints.look(self.now)]


@pytest.mark.parametrize(("key", "text"), MEMBERS)
def test_every_known_failure_is_found_by_its_words_alone(key: str, text: str) -> None:
    assert any(needle in text.encode() for needle in NEEDLES)
    written = Process()
    assert written.write("Load weight begin.") == []
    found = written.write(*text.split("\n"), "")
    # What says that something failed and not why is left to the end's reason.
    assert found[:1] == ([] if KNOWN[key].vague else [key])
    assert key not in written.write(*text.split("\n"), "")


@pytest.mark.parametrize("size", [1, 7, 400])
@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.stem)
def test_a_healthy_log_gives_nothing_however_it_comes(path: Path, size: int) -> None:
    text = re.sub(r"\x1b\[[\d;]*m", "", path.read_text("utf-8", "replace"))
    lines = re.split(r"[\r\n]+", text)
    written = Process()
    for first in range(0, len(lines), size):
        assert written.write(*lines[first : first + size]) == [], lines[first]


def test_a_traceback_that_comes_in_two_parts_is_read_as_one() -> None:
    head = ["Traceback (most recent call last):", '  File "/fi/utils.py", line 7, in shuffle']
    written = Process()
    assert written.write(*head, "    assert M % 128 == 0") == []
    assert written.write("AssertionError") == ["shuffle-padding"]


def test_the_text_of_a_request_is_nobodys_failure_wherever_a_look_begins() -> None:
    request = "[2026-11-25 14:22:00] Receive: obj=GenerateReqInput(text='why does my program say"
    for many in range(1, BEFORE - 2):
        written = Process()
        assert written.write(request, *["more of it"] * many) == []
        assert written.write(OUT_OF_MEMORY) == []


def test_what_it_has_gone_on_working_after_is_over() -> None:
    served = "[2026-11-25 14:22:01] Decode batch. #running-req: 1, #token: 9"
    assert [*findings([OUT_OF_MEMORY], 0)]
    assert not [*findings([OUT_OF_MEMORY, served], 0)]


def test_the_newest_lines_of_a_flood_are_read() -> None:
    written = Process()
    line = "[2026-11-25 14:22:01] Prefill batch. #new-seq: 1" + " " * 200
    written.hints.saw(b"", 0)
    many = SEARCHED // len(line) + 1
    assert written.write(*[line] * many, OUT_OF_MEMORY)
    assert written.hints.due() is None
    assert written.write(line) == []


def test_looks_are_apart() -> None:
    written = Process()
    written.write("ERROR one")
    written.lines.append(OUT_OF_MEMORY)
    written.hints.saw(OUT_OF_MEMORY.encode(), 1)
    assert not [*written.hints.look(written.now + EVERY / 2)]
    assert written.hints.due() == written.now + EVERY
    assert [*written.hints.look(written.now + EVERY)]


SAYS = f"""
import sys, time
print({OUT_OF_MEMORY!r}, flush=True)
print({OUT_OF_MEMORY!r}, flush=True)
time.sleep(1000)
"""


def test_it_is_told_at_once_and_once_everywhere(tmp_path: Path) -> None:
    log = tmp_path / "reason"
    engine = process("engine", argv=(sys.executable, "-c", SAYS))
    with Runner.of_plan(plan(engine, termination_log=str(log)), tmp_path) as runner:
        said = runner.wait_for("engine: perhaps the GPU's memory does not hold")
        assert said.endswith(OUT_OF_MEMORY)
        kept = log.read_text()
        assert kept.startswith("it has not ended, but engine said at ") and OUT_OF_MEMORY in kept

        def status() -> list[dict[str, object]]:
            found = runner.get("/status")[1]["processes"][0].get("findings")
            return found or []

        found = until(status, "the finding in the status")
        assert [f["key"] for f in found] == ["gpu-memory"] and found[0]["count"] == 1
        assert abs(time.time() - float(str(found[0]["at"]))) < 60
        assert 'glm47_findings_total{key="gpu-memory",process="engine"' in str(runner.get("/metrics")[1])
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 0
    assert sum("perhaps" in line for line in runner.lines) == 1
    assert log.read_text().startswith("asked to stop by SIGTERM")


def test_the_next_life_of_a_process_tells_it_again(tmp_path: Path) -> None:
    says = SAYS.replace("time.sleep(1000)", "time.sleep(2)\nsys.exit(1)")
    frontend = server("frontend", argv=(sys.executable, "-c", says))
    with Runner.of_plan(plan(frontend, max_restarts=1), tmp_path) as runner:
        runner.wait_for("frontend: perhaps")

        def count() -> int:
            found = runner.status_of("frontend")["findings"]
            return int(found[0]["count"]) if found else 0

        until(lambda: count() == 2, "a second time, in its second life")
