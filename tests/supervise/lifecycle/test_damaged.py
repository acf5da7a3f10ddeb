"""What a server that cannot use its data means for its container, without a process."""

from __future__ import annotations

import dataclasses

import pytest

from entrypoint.plan.types import HttpProbe
from entrypoint.supervise.lifecycle import restarts
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.lifecycle.verdicts import NO_CLUES, Verdict
from tests.support.plans import plan, server

PROBE = HttpProbe("http://127.0.0.1:1/")


@pytest.mark.parametrize("lived", [None, 0.1, restarts.RESET - 1, restarts.RESET + 1, 9999.0])
def test_damaged_data_end_the_container_before_and_soon_after_it_was_ready(lived: float | None) -> None:
    """A server that met the damage only once it was ready would meet it again in every life."""
    d = Director(plan(server("etcd", ready=PROBE)), 0.0)
    d.tick(0.0)
    d.spawned("etcd", 1, 0.0)
    if lived is not None:
        d.health("etcd", True, "", 1.0)
    unusable = Verdict(69, "cannot start etcd: its data cannot be read")
    ended = 1.0 + (lived or 0.0)
    d.exited("etcd", 2, ended, dataclasses.replace(NO_CLUES, unusable=unusable))
    d.gone("etcd", ended)
    if lived is None or lived < restarts.RESET:
        assert d.verdict == unusable
    else:
        assert d.verdict is None and d.procs["etcd"].state is State.BACKOFF
