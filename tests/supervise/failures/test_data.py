"""What a server's last lines say of its data. The real servers: tests/stack/test_damaged_data.py."""

from __future__ import annotations

import json

import pytest

from entrypoint.errors import ExitCode
from entrypoint.plan.types import AliveProbe, Data, HttpProbe
from entrypoint.supervise.failures.data import unusable
from entrypoint.supervise.lifecycle.actions import Action, Spawn
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.lifecycle.verdicts import Clues, Verdict
from tests.support.plans import plan, server

DATA = Data("/data/etcd", "GLM47_ETCD_DATA_DIR")


def zap(level: str, msg: str, error: str = "") -> str:
    """A line of etcd 3.5."""
    return json.dumps({"level": level, "ts": "2026-11-29T17:34:00Z", "msg": msg, "error": error})


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (
            "2026-11-29 17:38:26.703902 C | etcdserver/membership: cluster cannot be downgraded "
            "(current version: 3.4.23 is lower than determined cluster version: 3.5).",
            69, "lower than determined cluster version",
        ),
        ("2026-11-29 17:38:27.318469 C | etcdmain: walpb: crc mismatch", 69, "(walpb: crc mismatch)"),
        ("2026-11-29 17:38:27.854890 C | etcdmain: error listing data dir: /data/etcd", 69, "data dir"),
        (zap("fatal", "discovery failed", "proto: Record: illegal tag -15 (wire type 3)"), 69, "illegal"),
        ("panic: cannot use none as id", 69, "none as id"),
        ("fatal error: fault", 69, "(fault)"),
        (zap("fatal", "failed to list data directory", "open /x: permission denied"), 73, "permission"),
        (
            zap("fatal", "discovery failed", "open /x/.touch: read-only file system"),
            73, "read-only file system: set GLM47_ETCD_DATA_DIR to a directory that this user may write",
        ),
        (
            zap("panic", "failed to create WAL", "no space left on device"),
            73, "no space left on device: make room there, 200 MB, or set GLM47_ETCD_DATA_DIR to another",
        ),
        (zap("fatal", "failed to commit tx", "write /x/db: disk quota exceeded"), 73, "disk quota exceeded"),
        ("[1] 2026/11/29 17:35 [FTL] Can't start JetStream: storage directory is not a directory", 73, "not"),
    ],
)  # fmt: skip
def test_what_a_server_could_not_open(line: str, code: int, words: str) -> None:
    found = unusable("etcd", DATA, ["a line before it", line, "goroutine 1 [running]:"])
    assert found is not None and found[0] == code and words in found[1]
    assert found[1].startswith("cannot start etcd: /data/etcd: ") and "\n" not in found[1]


def test_the_stack_of_a_panic_tells_too() -> None:
    panic = "panic: runtime error: index out of range [18] with length 2"
    of_base = ["goroutine 1 [running]:", "go.etcd.io/bbolt.(*DB).page(...)"]
    assert unusable("etcd", DATA, [panic, *of_base]) is not None
    assert unusable("etcd", DATA, [panic, "goroutine 1 [running]:", "net/http.(*conn).serve()"]) is None


@pytest.mark.parametrize(
    "line",
    [
        zap("fatal", "discovery failed", "listen tcp 10.0.0.9:2380: bind: permission denied"),
        zap("fatal", "discovery failed", "listen tcp 0.0.0.0:2379: bind: address already in use"),
        zap("warn", "slow disk", "wal: sync took long"),
        zap("info", "recovered v3 backend from snapshot"),
        '{"level":"fatal", cut off',
        "[1] 2026/11/29 17:35 [FTL] Error listening on port: 4222, \"lookup n9: no such host\"",
        "goroutine 7: panic: is not at the line's begin",
        "",
    ],
)  # fmt: skip
def test_what_accuses_no_data(line: str) -> None:
    assert unusable("etcd", DATA, [line]) is None


UNUSABLE = Clues(unusable=Verdict(ExitCode.UNAVAILABLE, "cannot start etcd: its data"))


def started(**fields: object) -> Director:
    """A director whose server has just been started."""
    d = Director(plan(server("etcd", data=DATA, **fields)), 0.0)
    actions: list[Action] = d.tick(0.0)
    assert [type(action) for action in actions] == [Spawn]
    d.spawned("etcd", 7, 0.0)
    return d


def test_it_is_not_started_again() -> None:
    d = started(ready=HttpProbe("http://127.0.0.1:1/"))
    d.exited("etcd", 1, 1.0, UNUSABLE)
    d.gone("etcd", 1.0)
    assert d.verdict == UNUSABLE.unusable and d.procs["etcd"].state is State.ENDED


def test_one_that_had_opened_its_data_is_started_again() -> None:
    """A disk that is full for a moment; should it be full for good, its next start says so."""
    d = started(ready=AliveProbe(0.0))
    d.health("etcd", True, "", 0.5)
    full = Clues(unusable=Verdict(ExitCode.CANTCREAT, "cannot start etcd: no space left on device"))
    d.exited("etcd", 1, 1.0, full)
    d.gone("etcd", 1.0)
    assert d.verdict is None and d.procs["etcd"].state is State.BACKOFF


def test_one_that_waits_for_a_leader_for_ever() -> None:
    """Run: a truncated log, and data of an etcd of three members."""
    d = started(ready=HttpProbe("http://127.0.0.1:1/"), start_timeout=60.0)
    d.tick(60.0)
    assert d.verdict is not None and d.verdict.code == ExitCode.TEMPFAIL
    assert d.verdict.reason.endswith("if /data/etcd is damaged or another cluster's, move it away")
