"""The logs of a living deployment, fetched from its runners' health ports into a directory for `sources`.

Each runner keeps the last lines of its processes and its own last events: less than its files have.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entrypoint.base.foreign import from_json, json_object
from entrypoint.base.printable import clean
from entrypoint.commands.diagnose import rules
from entrypoint.commands.diagnose.findings import ELSEWHERE, FOLLOWS, Finding, Weight
from entrypoint.commands.diagnose.rules import SEE_NODE
from entrypoint.errors import CheckFailedError
from entrypoint.supervise.failures.records import KNOWN_FAILURES
from entrypoint.supervise.output.lines import stamp
from entrypoint.supervise.status.client import bearer, get_status, why

TIMEOUT = 5.0
"""Seconds that one page may take."""
THREADS = 32
"""Nodes asked at once."""
LARGEST = 16 << 20
"""Bytes of one page that are taken."""
_BEHIND = re.compile(
    r"(?P<process>[\w-]+): (?P<rank>rank \d+) of \d+(?: \(node (?P<node>[^)]+)\))? is behind"
)


@dataclass
class Node:
    """What one runner said."""

    url: str
    name: str
    """Its node's name, else its address."""
    why: str = ""
    """Why it said nothing."""
    status: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    """By process, and `runner` for its events."""


def ask_all(urls: Sequence[str], token: str | None) -> list[Node]:
    """The runners at `urls`, and of those that know the others of their deployment, these too.

    CheckFailedError (1) when none of them answers.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        given = [*pool.map(lambda url: _ask(url, "", token), urls)]
        known = {node.name for node in given if not node.why} | {node.url for node in given}
        others: dict[str, str] = {}
        for node in given:
            job = node.plan.get("job") or {}
            for peer in (*(job.get("others") or ()), *(job.get("peers") or ())):
                if peer["name"] not in known and peer["url"] not in known:
                    others[peer["name"]] = peer["url"]
        found = [*given, *pool.map(lambda each: _ask(each[1], each[0], token), others.items())]
    if all(node.why for node in found):
        reasons = "; ".join(f"{node.name}: {node.why}" for node in found)
        raise CheckFailedError(
            f"cannot diagnose: {reasons}: name a runner that is up, or a directory of logs"
        )
    return found


def _ask(url: str, name: str, token: str | None) -> Node:
    node = Node(url, name or urllib.parse.urlsplit(url).netloc)
    try:
        node.status = get_status(url, TIMEOUT, token)
        node.plan = json_object(_get(url, "/plan", token))
        names = [str(process["name"]) for process in node.status["processes"]]
        for each in (*names, "runner"):
            node.logs[each] = _get(url, f"/logs/{each}", token)
    except OSError as error:
        node.why = why(error)
        return node
    node.name = name or str(node.status.get("node") or node.name)
    return node


def _get(url: str, path: str, token: str | None) -> str:
    """The text of a page. OSError when there is none."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
    try:
        connection.request("GET", path, headers=bearer(token))
        answer = connection.getresponse()
        text = answer.read(LARGEST).decode("utf-8", "replace")
    except http.client.HTTPException as error:
        raise OSError(f"not a health endpoint: {error}") from None
    finally:
        connection.close()
    if answer.status == 404 and path == "/logs/runner":
        return ""  # an older runner
    if answer.status != 200:
        raise OSError(f"its health port answers {answer.status} to {path}")
    return text


def lay_down(nodes: Sequence[Node], directory: Path) -> None:
    """Write what the runners said as their log directory would have it."""
    for node in nodes:
        if node.why:
            continue
        job = node.plan.get("job") or {}
        names = job.get("log_names") or {}
        if job.get("head"):
            (directory / "plan.json").write_text(json.dumps(node.plan))
        for process, text in node.logs.items():
            own = node.name.replace("/", "-")
            stem = names.get(process, f"{own}_{process}").replace("/", "-")
            if process == "runner":
                (directory / f"{stem}.events.jsonl").write_text("".join(_events(node, text)))
            else:
                (directory / f"{stem}.log").write_text(text)


def _events(node: Node, text: str) -> Iterator[str]:
    now = stamp(float(node.status.get("time") or time.time()))
    known = set()
    for line in text.splitlines(keepends=True):
        try:
            record = from_json(line)
        except ValueError:
            continue
        # Where its files began says nothing of what was fetched.
        if isinstance(record, dict) and "begins" not in record:
            known |= {str(record["clock_of"])} if "clock_of" in record else set()
            yield line
    for other, clock in (node.status.get("clocks") or {}).items():
        if other not in known:
            yield json.dumps({"ts": now, "clock_of": other, **clock}) + "\n"
    yield json.dumps({"ts": now, "plan": node.plan}) + "\n"


def findings(nodes: Sequence[Node], ahead: Mapping[str, float]) -> Iterator[Finding]:
    """What the runners know and no log line tells. `ahead`: seconds that each node's clock is ahead."""
    for node in nodes:
        if node.why:
            what = f"its runner does not answer at {node.url}: {node.why}"
            yield Finding(Weight.GONE, None, node.name, "", what, "no answer", do=SEE_NODE)
            continue
        line = str(node.status.get("behind") or "")
        if (found := _BEHIND.match(line)) is not None:
            at = float(node.status.get("time") or time.time()) - ahead.get(node.name, 0.0)
            yield Finding(
                Weight.CAUSE,
                at,
                found["node"] or node.name,
                found["process"],
                line.partition(": ")[2],
                "behind",
                late=_since(line, at),
                do="look at that rank's stacks beside its log",
                quote=line,
                where=f"/status of {node.name}",
            )
        for each in node.status.get("slow", ()):
            now = float(node.status.get("time") or time.time()) - ahead.get(node.name, 0.0)
            slow = rules.slow(node.name, now, str(each["text"]), f"/status of {node.name}")
            yield from () if slow is None else (slow,)
        for process in node.status.get("processes", ()):
            if not process.get("ready") or process.get("stuck"):
                yield from _perhaps(node, process, ahead.get(node.name, 0.0))


def _since(line: str, at: float) -> float:
    """Seconds before `at` that a line's `since 02:13:07Z` is."""
    found = re.search(r"is behind since (\d\d):(\d\d):(\d\d)Z", line)
    if found is None:
        return 0.0
    hours, minutes, seconds = map(int, found.groups())
    return (at - (hours * 3600 + minutes * 60 + seconds)) % 86400


def _perhaps(node: Node, process: Mapping[str, Any], ahead: float) -> Iterator[Finding]:
    """What a living process wrote of a known failure, while it does not serve."""
    for told in process.get("findings") or ():
        known = next((k for k in KNOWN_FAILURES if k.key == told.get("key")), None)
        if known is None:
            continue
        weight = Weight.SYMPTOM if known.key in ELSEWHERE else Weight.CAUSE
        weight = Weight.CONSEQUENCE if known.key in FOLLOWS else weight
        said = str(told.get("text", "")).partition("; it wrote: ")[2]
        yield Finding(
            weight,
            float(told["at"]) - ahead,
            node.name,
            str(process["name"]),
            said,
            known.key,
            known=known,
            sure=False,
            quote=said,
            where=f"/status of {node.name}",
        )


def now(nodes: Sequence[Node]) -> list[str]:
    """What each runner that is not ready waits for; one line where all are ready."""
    answered = [node for node in nodes if not node.why]
    lines = [f"no answer: {node.name} ({node.url}): {node.why}" for node in nodes if node.why]
    for node in answered:
        if not node.status.get("ready"):
            waits = "; ".join(map(str, node.status.get("waiting_for") or ())) or node.status.get("reason")
            lines.append(f"now: {node.name} is {node.status.get('state')}: {waits}")
    ready = sum(bool(node.status.get("ready")) for node in answered)
    return [f"now: {ready} of {len(nodes)} nodes ready", *map(clean, lines)]
