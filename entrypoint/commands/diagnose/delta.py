"""What differs between two runs: settings, versions, nodes, machines, commands. Pure but for reading."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from entrypoint.base.foreign import from_json
from entrypoint.commands.diagnose import archive
from entrypoint.errors import ConfigError

_RUN = "ts|pid|uptime|age|time|begins|number|log_names|log_dir|run_dir"
PASSING = re.compile(rf"(?:^|\.)(?:{_RUN})(?:\.|$)")
"""Keys of what differs between any two runs."""


def delta(one: Path, other: Path) -> list[str]:
    """A line for each difference of two bundles or log directories. ConfigError (78) where one is neither."""
    first, second = _flat(one), _flat(other)
    lines = []
    for key in sorted(first.keys() | second.keys()):
        was, now = first.get(key), second.get(key)
        if was != now:
            lines.append(f"{key}: {_shown(was)} -> {_shown(now)}")
    return lines


def _shown(value: object) -> str:
    return "(not there)" if value is None else str(value)


def _flat(place: Path) -> dict[str, str]:
    """What a run was, by dotted key: its nodes, and of each what its runner wrote down at the start."""
    found: dict[str, str] = {}
    by_key: dict[str, dict[str, str]] = {}
    nodes = []
    for name, text in _texts(place):
        if not name.endswith(".events.jsonl"):
            continue
        node = name.rpartition("/")[2].removesuffix(".events.jsonl").removesuffix("runner").removesuffix("_")
        nodes.append(node)
        for line in text.splitlines():
            for key, value in _of_event(line):
                by_key.setdefault(key, {})[node] = value
    if not nodes:
        raise ConfigError(
            f"cannot compare: {place}: it has no file of events: give a bundle or a log directory"
        )
    found["nodes"] = ", ".join(sorted(nodes)) or "1"
    for key, values in by_key.items():
        if len(set(values.values())) == 1 and len(values) == len(nodes):
            found[key] = next(iter(values.values()))
        else:
            found |= {f"{node}: {key}" if node else key: value for node, value in values.items()}
    return found


def _of_event(line: str) -> Iterator[tuple[str, str]]:
    try:
        record = from_json(line)
    except ValueError:
        return
    if not isinstance(record, dict):
        return
    for part in ("plan", "machine", "engine"):
        for key, value in _walk(part, record.get(part)):
            if not PASSING.search(key):
                yield key, value
    if "version" in record:
        yield "runner", str(record["version"])


def _walk(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _walk(f"{key}.{name}", each)
    elif isinstance(value, list) and value and all(isinstance(v, dict) and "name" in v for v in value):
        for each in value:
            yield from _walk(f"{key}.{each['name']}", {k: v for k, v in each.items() if k != "name"})
    elif value is not None:
        yield key, " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _texts(place: Path) -> Iterator[tuple[str, str]]:
    try:
        if place.is_dir():
            for path in place.rglob("*.events.jsonl"):
                yield path.name, path.read_text("utf-8", "replace")
            return
        with archive.reading(place) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None:
                    yield member.name, file.read().decode("utf-8", "replace")
    except (OSError, tarfile.TarError) as error:
        raise ConfigError(f"cannot read {place}: {error}: give a bundle or a log directory") from None
