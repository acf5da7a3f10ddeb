"""What looking for known failures in a living process's output costs, as a share of one core.

    .venv/bin/python -m bench.live_hints

Three logs at 20,000 lines a second: batches, as a busy engine writes them; the same with one error in a
hundred lines; nothing but errors that nobody knows. Prints a Markdown table.
"""

from __future__ import annotations

import time
from collections import deque

from entrypoint.supervise.failures.live import EVERY, LiveHints

RATE = 20_000
"""Lines a second."""
SECONDS = 10.0
"""Of the log."""
BATCH = "[2026-11-25 14:22:01 TP0] Decode batch. #running-req: 8, #token: 4096, token usage: 0.01"
STRANGE = "[2026-11-25 14:22:01 TP0] an error that nobody knows, in one of the requests of a client"
LOGS = {
    "batches only": [BATCH],
    "one error in a hundred lines": [BATCH] * 99 + [STRANGE],
    "errors only": [STRANGE],
}


def share(pattern: list[str]) -> float:
    """Processor seconds for each second of a log that repeats `pattern`."""
    kept: deque[str] = deque(maxlen=5000)
    hints = LiveHints(lambda n: [*kept][-n:])
    step = RATE // 100
    lines = (pattern * (step // len(pattern) + 1))[:step]
    data = "".join(f"{line}\n" for line in lines).encode()
    spent, now = 0.0, 100.0
    for _ in range(int(SECONDS * 100)):
        kept.extend(lines)
        now += 0.01
        began = time.process_time()
        hints.saw(data, len(lines))
        for _finding in hints.look(now):
            raise RuntimeError("a known failure in a log that should have none")
        spent += time.process_time() - began
    return spent / SECONDS


def main() -> None:
    """Measure and print."""
    share([STRANGE])  # the table of known failures is loaded
    print(f"{RATE:,} lines a second, a look every {EVERY} s\n\n| log | share of a core |\n|---|---|")
    for name, pattern in LOGS.items():
        print(f"| {name} | {share(pattern):.2%} |")


if __name__ == "__main__":
    main()
