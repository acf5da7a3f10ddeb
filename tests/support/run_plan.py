"""Carry out plans made by hand, by the product's own path after `plan`.

python -m tests.support.run_plan FILE         become the pickled plan
python -m tests.support.run_plan run          `glm47-runner run`: the plan of the environment
python -m tests.support.run_plan --each FILE  one forked runner per plan of a pickled list; prints
                                              the exit codes as JSON

TEST_LOOKS=FILE: the lookout for dead processes looks a hundred times a second (TEST_LOOKS_EVERY=SECONDS:
as often as that), and each look adds a byte to FILE: `.`, or `!` when it found one.
TEST_CLOCK=SECONDS: this runner's clock is ahead by so much.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

if "TEST_CLOCK" in os.environ:  # before anything keeps the function
    time.time = (lambda now, ahead: lambda: now() + ahead)(time.time, float(os.environ["TEST_CLOCK"]))

from entrypoint.load import Loaded
from entrypoint.run import start

AT_ONCE = 4


def each(plans: list[Any]) -> list[int]:
    """Exit code of one runner per plan. Forked, since importing takes longer than running."""
    # Imported here, so that the forks share it.
    import entrypoint.supervise.daemon  # noqa: F401

    codes: dict[int, int] = {}
    running: dict[int, int] = {}
    for index, plan in enumerate(plans):
        if len(running) == AT_ONCE:
            _collect(running, codes)
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            start.become(partial(Loaded, plan, dict(os.environ)), os.environ)
        running[pid] = index
    while running:
        _collect(running, codes)
    return [codes[i] for i in range(len(plans))]


def _collect(running: dict[int, int], codes: dict[int, int]) -> None:
    pid, status = os.wait()
    codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)


def look_often(file: Path) -> None:
    """Only the pace is another one, and every look is counted."""
    from entrypoint.supervise.watchdog import vital

    dead = vital.Tree.dead

    def counted(tree: vital.Tree) -> Any:
        found = dead(tree)
        with file.open("ab") as looks:
            looks.write(b"!" if found else b".")
        return found

    vital.Tree.dead = counted  # type: ignore[method-assign,assignment]
    vital.INTERVAL = float(os.environ.get("TEST_LOOKS_EVERY", "0.01"))


if __name__ == "__main__":
    if "TEST_LOOKS" in os.environ:
        look_often(Path(os.environ["TEST_LOOKS"]))
    if sys.argv[1] == "run":
        start.run(os.environ)
    if sys.argv[1] == "--each":
        print(json.dumps(each(pickle.loads(Path(sys.argv[2]).read_bytes()))))
    else:
        plan = pickle.loads(Path(sys.argv[1]).read_bytes())
        start.become(lambda: Loaded(plan, dict(os.environ)), os.environ)
