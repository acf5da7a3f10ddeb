"""What the GPUs do at a moment, by a double of the driver behind the real nvidia-ml-py."""

from __future__ import annotations

import json
import subprocess
import sys

import pynvml
import pytest

from entrypoint.node.machine import now
from tests.node.machine.nvml_double import GIB, Card, Driver
from tests.support.runner import ROOT


def told(*cards: Card, init: int | None = None) -> list[str]:
    return [*now.lines(Driver([*cards], init=init))]


def test_a_gpu_that_computes() -> None:
    card = Card(busy=97, used=150 * GIB, processes=((4711, 149 * GIB), (4712, None)))
    assert told(card)[0] == (
        "GPU 0: 97 % busy, 150.0 of 186.0 GiB used, 1965 of 2062 MHz, 200 W, 40 C, "
        "processes 4711 (149.0 GiB), 4712"
    )


@pytest.mark.parametrize(("name", "text"), now.THROTTLES.items())
def test_why_a_gpu_is_slow(name: str, text: str) -> None:
    (line,) = [line for line in told(Card(throttle=getattr(pynvml, name), ecc=3)) if line.startswith("GPU")]
    assert f"slowed: {text}, 3 uncorrected ECC errors" in line
    assert line.count("slowed") == 1


def test_a_lost_one_and_a_driver_that_knows_nothing() -> None:
    silent = Card(busy=None, clock=None, watts=None, celsius=None, ecc=None)
    lost, known = [line for line in told(Card(lost=True), silent) if line.startswith("GPU")]
    assert "lost" in lost.lower()
    assert known == "GPU 1: 0.0 of 186.0 GiB used"


def test_clocks_for_programs() -> None:
    cards = [
        Card(busy=97, clock=(345, 2062), throttle=pynvml.nvmlClocksThrottleReasonHwSlowdown),
        Card(lost=True),
    ]
    held, *rest = now.clocks(Driver([*cards, Card(clock=None, busy=None)]))
    assert held == {"index": 0, "busy": 97, "clock": 345, "most": 2062, "slowed": ["hardware slowdown"]}
    assert rest == [{"index": 2, "busy": None, "clock": None, "most": None, "slowed": []}]
    assert [*now.clocks(Driver([], init=pynvml.NVML_ERROR_DRIVER_NOT_LOADED))] == []


def test_no_driver() -> None:
    (line,) = told(init=pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    assert line.startswith("GPUs: cannot ask the driver: ")


def test_it_is_a_program() -> None:
    command = [sys.executable, "-m", "entrypoint.node.machine.now"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("GPU"), done
    done = subprocess.run(
        [*command, "--clocks"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert all(gpu.keys() >= {"index", "busy", "clock", "slowed"} for gpu in json.loads(done.stdout))
