"""The files of a dead job, and who wrote which of their lines.

Knows what the runner leaves (`<node>_<role>_w0.log`, `<node>_runner.events.jsonl`, `failure`; without Slurm
the same without a node), what Slurm's own programs write, what a container engine kept of a runner's output,
and what Dynamo's scripts for Slurm leave (`log.err`, `<node>_prefill_w0.err`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entrypoint.base.foreign import json_object
from entrypoint.commands.diagnose.times import HEAD, stamp_of
from entrypoint.errors import ConfigError
from entrypoint.supervise.output.lines import strip_escapes

PROCESSES = ("etcd", "nats", "frontend", "nginx", "prefill", "decode", "aggregated", "runner")
_STEM = re.compile(rf"(?:(?P<node>.+)_)?(?P<process>{'|'.join(PROCESSES)})(?:_(?P<worker>w?\d+))?")
_TASK = re.compile(r"\.\d+$")
"""What `srun` puts after a node's name where it has several tasks."""
_SINGLE = re.compile(r"dynamo_single_\d+|sglang\w*|worker|engine")
"""One engine's output without a runner, by the names that people give it."""
_PREFIX = re.compile(
    rf"(?:(?P<container>[\w.-]+) +\| )?(?P<process>{'|'.join(PROCESSES)}) +\|(?P<more>[ +]) ?"
)
FIRST_LINE = re.compile(r"glm47-runner \S+: .*; processes: ")
"""A runner's first line (`status.report.describe`): logs are appended to, so earlier runs stand before it."""
_WRITTEN_BY_SLURM = re.compile(r"(?:\S+: )?(?:slurmstepd|srun): ")
_STAMP_BEFORE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*) (?=\S)")
"""`kubectl logs --timestamps`, `docker logs -t`."""
_DATED = re.compile(r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d[^\s\]]*")
ENDINGS = (".log", ".out", ".err", ".txt")
NO_LOGS = re.compile(r".*gpu_utili[sz]ation.*|bench|.*\.stacks")
FILES, FIRST, LAST = 2000, 1 << 20, 12 << 20
"""Files that are read at most, and bytes of each one's beginning and end."""


@dataclass
class Stream:
    """What one process wrote."""

    node: str
    """Empty: there is only one, or nobody says."""
    process: str
    worker: str = ""
    path: str = ""
    lines: list[str] = field(default_factory=list)
    written: list[str | None] = field(default_factory=list)
    """The time that was put before each line, as text."""
    numbers: list[int] = field(default_factory=list)
    """Where each stands in its file, from 1."""
    cut: bool = False
    """The middle of a long file was left out."""


@dataclass(frozen=True)
class Event:
    """A record that a runner left."""

    at: float
    """Unix seconds by that node's clock."""
    node: str
    data: dict[str, Any]


@dataclass
class Logs:
    """All that a directory tells."""

    streams: dict[tuple[str, str, str, str], Stream] = field(default_factory=dict)
    """By node, process, worker and file."""
    events: list[Event] = field(default_factory=list)
    slurm: list[str] = field(default_factory=list)
    """Lines of Slurm's own programs."""
    failure: str | None = None
    """What a job's nodes agreed on as the first cause: code and reason."""
    status: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    files: int = 0
    begins: dict[str, int] = field(default_factory=dict)
    """Bytes of each file that earlier runs wrote, as far as runners have said."""
    earlier: set[tuple[str, int]] = field(default_factory=set)
    """Runs before the last one that files still have: file and line of their first."""
    further: dict[tuple[str, str], str] = field(default_factory=dict)
    """By node and worker, what a node's further workers call their place: `nvl72d001/1`."""

    def begin_again(self, node: str, path: str) -> None:
        """The runner on `node` begins in file `path`: what stands there before is of an earlier run."""
        for key in [key for key in self.streams if key[0] == node and key[3] == path]:
            old = self.streams.pop(key)
            if old.process == "runner":
                self.earlier.add((path, old.numbers[0]))

    def stream(self, node: str, process: str, worker: str, path: str) -> Stream:
        """What a process wrote to a file, made at its first line."""
        return self.streams.setdefault((node, process, worker, path), Stream(node, process, worker, path))


def read(directory: Path) -> Logs:
    """Everything below `directory` (or one file). ConfigError (78) when there is no log."""
    logs = Logs()
    files = [directory] if directory.is_file() else sorted(p for p in _files(directory))
    # Events first: they say where the run begins in each file. Then each process's own file, before the
    # outputs that hold all of them.
    logs.further = _further(path.name.partition(".")[0] for path in files[:FILES])
    for path in sorted(files[:FILES], key=_turn):
        try:
            _take(path, directory, logs)
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}: give a directory of logs") from None
    if not logs.files:
        raise ConfigError(
            f"cannot find a log: {directory}: give the directory (GLM47_LOG_DIR) or file of one"
        )
    return logs


def _turn(path: Path) -> tuple[bool, bool]:
    return not path.name.endswith(".events.jsonl"), _STEM.fullmatch(path.name.partition(".")[0]) is None


def _further(stems: Iterable[str]) -> dict[tuple[str, str], str]:
    """Only a node's further workers have their number in the name of their runner's log."""
    numbers: dict[str, set[int]] = {}
    for found in filter(None, map(_STEM.fullmatch, stems)):
        if found["node"] and found["process"] == "runner" and (found["worker"] or "").startswith("w"):
            numbers.setdefault(found["node"], set()).add(int(found["worker"][1:]))
    return {
        (node, f"w{worker}"): f"{node}/{slot}"
        for node, workers in numbers.items()
        for slot, worker in enumerate(sorted(workers), 1)
    }


def _files(directory: Path) -> Iterator[Path]:
    for path in directory.rglob("*"):
        if path.is_file() and not any(NO_LOGS.fullmatch(part) for part in path.relative_to(directory).parts):
            yield path


def _take(path: Path, directory: Path, logs: Logs) -> None:
    if path.name == "failure":
        logs.failure = path.read_text(errors="replace").strip().partition("\n")[0] or None
    elif path.name in ("status.json", "plan.json"):
        found = json_object(path.read_text(errors="replace"))
        if path.name == "status.json":
            logs.status = found
        else:
            logs.plan = found
    elif path.name.endswith(".events.jsonl"):
        _take_events(path, _place(path, directory, logs)[0], logs)
    elif path.suffix in ENDINGS or path == directory:
        _take_log(path, directory, logs)


def _place(path: Path, directory: Path, logs: Logs) -> tuple[str, str, str]:
    """Node, process and worker of a file, by its name; the process is empty where it holds several.

    A node's further worker counts as a node.
    """
    stem = path.name.partition(".events.jsonl")[0] if path.name.endswith(".jsonl") else path.stem
    if path.suffix == ".out":
        stem = _TASK.sub("", stem)
    found = _STEM.fullmatch(stem)
    above = path.parent.name if path.parent != directory and path != directory else ""
    if found is not None:
        node, worker = found["node"] or above, found["worker"] or ""
        return logs.further.get((found["node"], worker), node), found["process"], worker
    if _SINGLE.fullmatch(stem):
        return above, "aggregated", ""
    return above or ("" if stem in ("log", "output") or path == directory else stem), "", ""


def _take_events(path: Path, node: str, logs: Logs) -> None:
    for line in _text(path, 0)[0]:
        record = json_object(line)
        stamp = stamp_of(str(record.get("ts", "")))
        if stamp is None:
            continue
        if isinstance(begins := record.get("begins"), dict):
            logs.events = [event for event in logs.events if event.node != node]
            if sum(begins.values()):
                logs.earlier.add((str(path), len(logs.earlier)))
            for name, size in begins.items():
                logs.begins[str(path.with_name(name))] = int(size)
        logs.files += 1
        logs.events.append(Event(stamp[0], node, record))


def _text(path: Path, begin: int) -> tuple[list[str], int, bool]:
    """The lines of a file from byte `begin` on, the first one's number, and whether its middle is missing."""
    size, before = path.stat().st_size, 0
    with path.open("rb") as file:
        while file.tell() < begin and (chunk := file.read(min(FIRST, begin - file.tell()))):
            before += chunk.count(b"\n")
        if size - begin <= FIRST + LAST:
            return _lines(file.read()), before + 1, False
        first = file.read(FIRST)
        file.seek(size - LAST)
        return _lines(first) + _lines(file.read()), before + 1, True


def _lines(data: bytes) -> list[str]:
    text = strip_escapes(data).decode("utf-8", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _take_log(path: Path, directory: Path, logs: Logs) -> None:
    node, process, worker = _place(path, directory, logs)
    whole = bool(process)
    lines, first, cut = _text(path, logs.begins.get(str(path), 0))
    known = {key[:2] for key in logs.streams} if not whole else set()
    last: str | None = None
    for number, line in enumerate(lines, first):
        if _WRITTEN_BY_SLURM.match(line):
            logs.slurm.append(line)
            continue
        who, written, text = _split(line)
        if not who and not whole and not _engine(line):
            continue
        name = who or process or "aggregated"
        if (own := _DATED.search(text[:HEAD])) is not None:
            last = written or own[0]
        elif not whole and written is None:
            written = last  # that of another's line before it
        if not whole and (node, name) in known:
            continue  # it has a file of its own
        if name == "runner" and FIRST_LINE.match(text):
            logs.begin_again(node, str(path))
        stream = logs.stream(node, name, worker if name == process else "", str(path))
        stream.cut = cut
        stream.lines.append(text)
        stream.written.append(written)
        stream.numbers.append(number)
        logs.files += 1


_ENGINE = re.compile(r"\[?\d{4}-\d\d-\d\d|Traceback|\s+File |\w+(?:Error|Exception)\b|\[rank\d+\]|NCCL|UCX")


def _engine(line: str) -> bool:
    """Whether a line of nobody knows whom may be an engine's."""
    return _ENGINE.search(line[:80]) is not None


def _split(line: str) -> tuple[str, str | None, str]:
    """Who wrote a line that several may have written, the time before it, and its text."""
    if line.startswith('{"ts": "') and (record := json_object(line)) and "process" in record:
        return str(record["process"]), str(record["ts"]), str(record.get("line", ""))
    before = _STAMP_BEFORE.match(line)
    rest = line[before.end() :] if before is not None else line
    found = _PREFIX.match(rest)
    if found is None:
        return "", None, line
    return found["process"], before[1] if before else None, rest[found.end() :]
