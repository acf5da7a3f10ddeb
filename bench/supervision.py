"""This runner beside bare supervisord 4.3.0, honcho and s6-svscan: the same children, one run.

    python -m bench.supervision [--rounds N] [--json FILE] [--no-stack]

Prints a Markdown table and what was to be reached; exits 1 if any of that was missed.
docs/benchmarks.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import lives, request_path, table
from bench.systems import System, all_systems
from bench.table import Row
from entrypoint.commands.demo.model import make_demo_model
from entrypoint.supervise import process_tree

LINES = 1_000_000
FEWER = {"honcho": 30_000}
"""Lines for who would take minutes; the speed is per line."""
STYLES = ("print", "raw")

NO_READINESS = "has no notion of readiness: children start at once"
LOADING = "a loading worker; one that serves is first taken off etcd's list, so that it gets no more requests"
LISTENER = "through an event listener that signals supervisord; the container then exits with 0"
FINISH = "through a finish script that calls s6-svscanctl -t; the container then exits with 0"


def rows() -> dict[str, Row]:
    """Every figure, still without samples."""
    made = [
        Row("first_spawn", "exec to the first child's exec", "ms"),
        Row("dependent", "dependency ready to its dependent's exec", "ms"),
        Row("crash", "crash of a child to exit of the container", "ms"),
        Row("term_idle", "SIGTERM to the child's receipt, idle stdout", "ms"),
        Row("term_blocked", "SIGTERM to the child's receipt, blocked stdout", "ms"),
        Row("rate_print", f"{LINES:,} log lines, one write each", "lines/s"),
        Row("rate_raw", f"{LINES:,} log lines, writes of 64 KiB", "lines/s"),
        Row("lost", "lines lost (worst)", "lines"),
        Row("joined", "lines joined (worst)", "lines"),
        Row("rss", "memory after start, RSS of all its processes", "MB"),
        Row("pss", "the same, shared pages counted once (PSS)", "MB"),
    ]
    found = {row.key: row for row in made}
    for name in ("supervisord", "honcho"):
        found["dependent"].notes[name] = NO_READINESS
    for key in ("term_idle", "term_blocked"):
        found[key].notes[table.RUNNER] = LOADING
    found["crash"].notes |= {"supervisord": LISTENER, "s6-svscan": FINISH}
    for name, count in FEWER.items():
        for style in STYLES:
            found[f"rate_{style}"].notes[name] = f"with {count:,} lines"
    return found


def measure(found: dict[str, Row], systems: list[System], rounds: int, count: int) -> None:
    """Fill `found`. The systems take turns, so that what else the machine does falls on all alike."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        model = make_demo_model(Path(name) / "model")

        def start(system: System) -> None:
            result = lives.start(system, model)
            found["first_spawn"].add(system.name, result.first_spawn)
            found["term_idle"].add(system.name, result.term)
            found["rss"].add(system.name, result.rss)
            found["pss"].add(system.name, result.pss)

        def fate(system: System) -> None:
            result = lives.fate(system, model)
            found["crash"].add(system.name, result.crash)
            if system.gates:
                found["dependent"].add(system.name, result.dependent)

        def blocked(system: System) -> None:
            found["term_blocked"].add(system.name, lives.blocked(system, model))

        def lines(style: str) -> Callable[[System], None]:
            def one(system: System) -> None:
                many = min(count, FEWER.get(system.name, count))
                result = lives.lines(system, model, many, style)
                found[f"rate_{style}"].add(system.name, many / result.seconds)
                found["lost"].add(system.name, result.counts.lost)
                found["joined"].add(system.name, result.counts.joined)

            return one

        # First, unmeasured: compiled modules and warm file caches for everyone.
        _turns(start, [s for s in systems if s.missing is None], 1)
        for row in ("first_spawn", "term_idle", "rss", "pss"):
            found[row].samples.clear()
        some = max(1, rounds // 2)
        _turns(start, systems, rounds)
        _turns(fate, [s for s in systems if s.name != "supervisord"], rounds)
        _turns(fate, [s for s in systems if s.name == "supervisord"], max(1, rounds // 3))
        _turns(blocked, systems, some)
        main = [s for s in systems if s.name in (table.RUNNER, table.BASELINE)]
        for style in STYLES:
            _turns(lines(style), systems, 1)
            _turns(lines(style), main, some)


def _turns(one: Callable[[System], None], systems: list[System], rounds: int) -> None:
    for _ in range(rounds):
        for system in systems:
            if system.missing is None:
                one(system)


def note_missing(found: dict[str, Row], systems: list[System]) -> None:
    """Say in the table why a column is empty."""
    for system in systems:
        if system.missing is not None:
            for row in found.values():
                row.notes[system.name] = system.missing


def heading(load: float) -> str:
    """What the figures were measured on. `load`: the machine's load average before the first of them."""
    cores = len(os.sched_getaffinity(0))
    names = f"supervisord {version('supervisor')}, honcho {version('honcho')}"
    return (
        f"{date.today().isoformat()}, {platform.machine()}, {cores} cores (load {load:.1f} before), "
        f"Linux {platform.release()}, Python {platform.python_version()}, {names}; medians of n."
    )


def main() -> None:
    """Measure, print, and exit 1 when something was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="repetitions of the short measurements")
    parser.add_argument("--lines", type=int, default=LINES, help="log lines of the long ones")
    parser.add_argument("--requests", type=int, default=100, help="requests to each of the two stacks")
    parser.add_argument("--json", type=Path, help="write every sample to this file")
    parser.add_argument("--systems", help="only these, separated by commas")
    parser.add_argument("--no-stack", action="store_true", help="leave the request path out")
    args = parser.parse_args()
    began, where = time.monotonic(), heading(os.getloadavg()[0])
    process_tree.become_subreaper()
    systems, found = all_systems(), rows()
    if args.systems:
        systems = [system for system in systems if system.name in args.systems.split(",")]
    measure(found, systems, args.rounds, args.lines)
    note_missing(found, systems)
    print(where, table.markdown([*found.values()], [s.name for s in systems]), sep="\n\n", flush=True)
    path = None
    if not args.no_stack:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            path = request_path.measure(Path(name), args.requests)
        print("\n" + describe(path))
    goals = table.goals(found, (path.runner, path.by_hand) if path else None)
    print("\n| to reach | found | |\n|---|---|---|")
    for goal in goals:
        print(f"| {goal.text} | {goal.found} | {'reached' if goal.reached else 'MISSED'} |")
    print(f"\n{time.monotonic() - began:.0f} s")
    if args.json:
        data = {
            "heading": where,
            "rows": [asdict(row) for row in found.values()],
            "request_path": asdict(path) if path else None,
            "goals": [asdict(goal) for goal in goals],
        }
        args.json.write_text(json.dumps(data, indent=1) + "\n")
    sys.exit(0 if all(goal.reached for goal in goals) else 1)


def describe(path: request_path.RequestPath) -> str:
    """The request path in a sentence or two."""
    ours, theirs = (statistics.median(s) * 1000 for s in (path.runner, path.by_hand))
    owner = "dynamo.frontend itself" if "dynamo.frontend" in path.listener else path.listener or "nobody"
    return (
        f"Request path: a chat completion takes {ours:.2f} ms under the runner and {theirs:.2f} ms with the "
        f"same stack started by hand, ratio {table.path_ratio((path.runner, path.by_hand)):.3f} "
        f"(n {len(path.runner)} each, in turn); the port is held by {owner}."
    )


if __name__ == "__main__":
    main()
