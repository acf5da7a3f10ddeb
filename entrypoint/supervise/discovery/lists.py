"""Takes workers off the lists that frontends choose from, in threads: a store may be slow to answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from entrypoint.plan.types import Plan, Withdrawal

if TYPE_CHECKING:
    from entrypoint.supervise.discovery.listed import Listed

FINISH = 4.0
"""Seconds that a dead worker's entries may keep us at the end: a little more than a store gets to answer."""


class Lists:
    """The lists on which this container's workers stand. What came of it goes to `say`, from any thread."""

    def __init__(self, plan: Plan, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._plan, self._environ, self._say = plan, environ, say
        self._threads: list[threading.Thread] = []

    def before_drain(self, name: str, pid: int) -> Callable[[], None] | None:
        """What takes the living worker `name` off its list; None when it stands on none."""
        drain = self._plan.process(name).drain
        if drain is None or drain.withdraw is None:
            return None
        return partial(self._take_off, name, drain.withdraw, pid)

    def drop(self, name: str, pid: int) -> None:
        """Take a worker off that answers nothing any more; `pid` is 0 when it is gone."""
        work = self.before_drain(name, pid)
        if work is not None:
            thread = threading.Thread(target=work, name=f"unlist-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def clear(self, name: str) -> None:
        """Take an earlier life of worker `name` off, whose runner was killed with it and could not."""
        drain = self._plan.process(name).drain
        if drain is None or drain.withdraw is None:
            return
        work = partial(self._bury_earlier, name, drain.withdraw)
        threading.Thread(target=work, name=f"unlist-{name}", daemon=True).start()

    def watched(self, name: str, pid: int) -> Listed | None:
        """What looks whether the living worker `name` stays on etcd's list; None: it stands on none."""
        drain = self._plan.process(name).drain
        if drain is None or drain.withdraw is None or drain.withdraw.store != "etcd":
            return None
        from entrypoint.supervise.discovery.listed import Listed

        return Listed(drain.withdraw, {**self._environ, **self._plan.process(name).env}, pid)

    def finish(self) -> None:
        """Wait for what is under way: a list in etcd outlives us."""
        for thread in self._threads:
            thread.join(FINISH)

    def _bury_earlier(self, name: str, withdrawal: Withdrawal) -> None:
        from entrypoint.supervise.discovery.withdrawing import OFF, bury

        line = bury(withdrawal, {**self._environ, **self._plan.process(name).env})
        # That the list cannot be asked is said by whoever needs it.
        if line is not None and line.startswith(OFF):
            self._say(f"what ran here before as {name} {line}")

    def _take_off(self, name: str, withdrawal: Withdrawal, pid: int) -> None:
        from entrypoint.supervise.discovery.withdrawing import bury, withdraw

        environ = {**self._environ, **self._plan.process(name).env}
        line = withdraw(withdrawal, pid, environ) if pid else bury(withdrawal, environ)
        if line is not None:
            self._say(f"{name} {line}")
