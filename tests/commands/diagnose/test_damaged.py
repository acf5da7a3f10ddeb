"""Logs after a full disk, a cut, an edit, two writers at once: a diagnosis or one line, never a traceback."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from entrypoint.commands.diagnose import delta, logs, report
from entrypoint.errors import RunnerError
from tests.support.runner import ROOT

SOURCES = sorted((ROOT / "tests" / "supervise" / "failures").rglob("*.log"))
NAMES = (
    "n0_runner.log", "n0_runner.events.jsonl", "n1_decode_w0.log", "n0_prefill_w0.log", "n0_prefill_w0.err",
    "n2_runner.events.jsonl", "n1_decode_w0.stacks.txt", "plan.json", "status.json", "failure", "url",
    "decode.log", "slurm-12.out",
)  # fmt: skip
"""Files of the runner's own, of the original's and of Slurm's."""


def noise(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(50):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def shuffled(data: bytes, chance: random.Random) -> bytes:
    lines = data.split(b"\n")
    chance.shuffle(lines)
    return b"\n".join(lines)


def odd_events(_: bytes, chance: random.Random) -> bytes:
    """Events whose fields are of any kind."""
    odd: list[object] = [
        None,
        1,
        -1,
        1e30,
        float("nan"),
        "x",
        [],
        {},
        True,
        "\x1b[2J",
        "9999-99-99T99:99:99Z",
    ]
    fields = ("time", "at", "process", "state", "clock_of", "offset", "round_trip", "exit_code", "reason",
              "plan", "status", "line", "node", "message", "verdict", "machine")  # fmt: skip
    events = ({name: chance.choice(odd) for name in chance.sample(fields, 6)} for _ in range(40))
    return "\n".join(map(json.dumps, events)).encode()


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "none": lambda data, _: data,
    "the end is missing": lambda data, chance: data[: chance.randrange(len(data))],
    "the beginning is missing": lambda data, chance: data[chance.randrange(len(data)) :],
    "some bytes are others": noise,
    "the lines are mixed": shuffled,
    "line ends of another system": lambda data, _: data.replace(b"\n", b"\r\n"),
    "one line": lambda data, _: data.replace(b"\n", b" "),
    "times that are none": lambda data, _: data.replace(b"2026", b"9999").replace(b":", b""),
    "JSON that is none": lambda data, _: data.replace(b'"', b"").replace(b"{", b"["),
    "zeros": lambda data, _: data[:500] + bytes(4096) + data[500:],
    "events of any kind": odd_events,
    "nothing": lambda _, __: b"",
}


def printed(text: str) -> None:
    assert text.strip()
    assert not [c for c in text if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_is_in_the_files(damage: str, seed: int, tmp_path: Path) -> None:
    chance = random.Random(f"{damage} {seed}")
    places = [tmp_path / "a", tmp_path / "b"]
    for place in places:
        place.mkdir()
        for name in chance.sample(NAMES, chance.randint(1, 6)):
            (place / name).write_bytes(DAMAGES[damage](chance.choice(SOURCES).read_bytes(), chance))
    try:
        for place in places:
            found = logs.diagnose(place)
            printed(report.text(found))
            json.dumps(logs.as_json(found))
        list(delta.delta(*places))
    except RunnerError as error:
        printed(str(error))


@pytest.mark.parametrize("seed", range(20))
def test_events_of_any_kind(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    for name in ("n0_runner.events.jsonl", "n1_runner.events.jsonl"):
        (tmp_path / name).write_bytes(odd_events(b"", chance))
    (tmp_path / "n0_runner.log").write_bytes(chance.choice(SOURCES).read_bytes())
    found = logs.diagnose(tmp_path)
    printed(report.text(found))
    json.dumps(logs.as_json(found))
