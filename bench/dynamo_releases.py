"""``python bench/dynamo_releases.py`` writes docs/releases.md's tables: how releases of Dynamo differ.

What the runner plans is asked of entrypoint/plan/releases.py; what came of the stacks is what
tests/stack/test_releases.py has noted in .cache/stacks the last time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.releases import CACHE, ROOT
from entrypoint.plan import releases as facts

PAGE = ROOT / "docs" / "releases.md"
START, END = "<!-- {}: bench/dynamo_releases.py -->", "<!-- end of {} -->"
RECORDS = CACHE / "stacks"
STACKS = ("one container", "five containers")
RELEASES = {
    "0.8.1": ("0.5.6.post2", "0.5.3"),
    "0.9.1": ("0.5.8", "0.6.1"),
    "1.0.2": ("0.5.9", "0.6.3"),
    "1.1.1": ("0.5.10.post1", "0.6.7.post3"),
    "1.2.1": ("0.5.11", "0.6.8.post1"),
    "1.3.1": ("0.5.14", "0.6.12"),
    "1.4.2": ("0.5.16", "0.6.14"),
    "1.5.1": ("0.5.18", "0.6.17"),
    "1.6.1": ("0.5.21", "0.6.18"),
}
"""By release of Dynamo: the SGLang that its extra `sglang` pins, and the FlashInfer that this one pins."""


@contextmanager
def recorded(release: str, stack: str) -> Iterator[None]:
    """Note whether `stack`, which runs within, passes on `release` of Dynamo."""
    RECORDS.mkdir(parents=True, exist_ok=True)
    file = RECORDS / f"{release} {stack}"
    file.write_text("failed")
    yield
    file.write_text("passed")


def outcome(release: str, stack: str) -> str:
    """What came of `stack` the last time: `passed`, `failed` or `not run`."""
    file = RECORDS / f"{release} {stack}"
    return file.read_text() if file.exists() else "not run"


def planned() -> list[str]:
    """A table: what the runner plans for each release."""
    rows = []
    for dynamo, (sglang, flashinfer) in RELEASES.items():
        has = {name: fact.holds(dynamo) for name, fact in facts.facts().items() if fact.package == "dynamo"}
        rows.append((
            dynamo, sglang, flashinfer,
            "DYN_STORE_KV" if has["STORE_KV"] else "DYN_DISCOVERY_BACKEND",
            "the frontend's own way" if has["ALWAYS_DISAGGREGATES"] else "--enforce-disagg",
            "yes" if has["MOCKER_NEEDS_NATS"] else "no",
            "DYN_EVENT_PLANE=zmq" if has["EVENTS_OVER_NATS"] else "as it comes",
            "mocker, sglang" if has["HEALTH_BY_ENDPOINT"] else "mocker",
            "--kv-events" if has["KV_EVENTS"] else "--router-kv-events",
            "glm47, glm45" if has["GLM_PARSERS"] else "none",
            "worker" if has["MIGRATES_IN_WORKER"] else "frontend",
            "yes" if has["NEEDS_BOS"] else "no",
            "by itself" if has["MARKS_LOG_LINES"] else "DYN_LOG",
        ))  # fmt: skip
    titles = (
        "Dynamo", "SGLang", "FlashInfer", "store", "disaggregation", "NATS for the mocker",
        "events without NATS", "health by endpoint", "router's events", "parsers", "migration limit",
        "needs bos_token_id", "marked log lines",
    )  # fmt: skip
    return table(titles, rows)


def ran() -> list[str]:
    """A table: which stacks have passed on each release."""
    rows = [(release, *(outcome(release, stack) for stack in STACKS)) for release in RELEASES]
    return table(("Dynamo", *STACKS), rows)


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Lines of Markdown."""
    cells = [*titles]
    lines = ["| " + " | ".join(row) + " |" for row in (cells, *rows)]
    return [lines[0], "|" + "---|" * len(cells), *lines[1:]]


def section(page: str, name: str) -> list[str]:
    """The lines of the page's table called `name`."""
    return page.partition(START.format(name))[2].partition(END.format(name))[0].strip().splitlines()


def main() -> None:
    """Rewrite the tables."""
    page = PAGE.read_text()
    for name, lines in (("planned", planned()), ("ran", ran())):
        before, _, rest = page.partition(START.format(name))
        after = rest.partition(END.format(name))[2]
        page = "\n".join([before + START.format(name), *lines, END.format(name) + after])
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
