"""Runners on other nodes whose fate this one shares: which is lost, and which of their processes ended.

A rank that loads or captures graphs for twenty minutes has a runner that answers all the time, so silence of
the runner means that the node, or the runner, is gone. Pure: `peers.poller` asks. Times are seconds of a
monotonic clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from entrypoint.errors import ExitCode
from entrypoint.plan.types import JobPlan, Peer
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.lifecycle.verdicts import Verdict

REFUSED_AFTER = 5.0
"""How long a peer may refuse connections, once it has answered: a runner never closes its endpoint."""
SILENT_AFTER = 10.0
"""How long it may be out of reach: networks have hiccups."""
HELD = "held"
"""State of a runner whose start was refused and that stays to say so (`status.held`)."""


@dataclass(frozen=True)
class Clock:
    """How far another machine's clock is ahead of ours, by one question."""

    offset: float
    """Seconds; negative: it is behind."""
    round_trip: float
    """Seconds that the question took: the offset is wrong by half of it at most."""


CLOCK_AGE = 60.0
"""Seconds after which a worse comparison of clocks replaces a better one: they are corrected meanwhile."""


@dataclass(frozen=True)
class Answer:
    """What asking one peer gave: its status, or why there is none."""

    peer: str
    status: Mapping[str, Any] | None = None
    refused: bool = False
    why: str = ""
    clock: Clock | None = None


@dataclass
class _Seen:
    peer: Peer
    answered: bool = False
    failing_since: float | None = None
    why: str = "has not answered yet"
    clock: Clock | None = None
    clock_at: float = 0.0
    doing: Mapping[str, Any] = field(default_factory=dict)
    """Its last status."""


@dataclass
class PeerWatch:
    """What is known of the peers, and what follows from it. Pure."""

    job: JobPlan
    now: float
    _seen: dict[str, _Seen] = field(init=False)
    _ended: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._seen = {peer.name: _Seen(peer) for peer in self.job.peers}

    def answered(self, answer: Answer, now: float) -> Verdict | None:
        """Take an answer in; a verdict when it, or the silence so far, ends this runner."""
        seen = self._seen[answer.peer]
        if answer.status is None:
            since = seen.failing_since if seen.failing_since is not None else now
            seen.failing_since, seen.why = since, answer.why
            # Nobody is waited for who is not there: not yet, or not any more.
            if answer.refused or now - since >= SILENT_AFTER:
                self._ended |= self._awaited(answer.peer)
            patience = REFUSED_AFTER if answer.refused else SILENT_AFTER
            if seen.peer.watched and seen.answered and now - since >= patience:
                return self._lost(seen, f"its runner does not answer any more ({answer.why})")
            return None
        if answer.status.get("state") == HELD:
            # It waits for other settings, and does not come up without them.
            seen.why = f"its start is refused: {answer.status.get('reason')}"
            self._ended |= self._awaited(answer.peer)
            return None
        seen.answered, seen.failing_since, seen.why = True, None, ""
        seen.doing = answer.status
        if answer.clock is not None and (
            seen.clock is None
            or answer.clock.round_trip <= seen.clock.round_trip
            or now - seen.clock_at > CLOCK_AGE
        ):
            seen.clock, seen.clock_at = answer.clock, now
        self._ended -= self._awaited(answer.peer)
        for process in answer.status.get("processes", ()):
            if process.get("state") == State.ENDED.value:
                self._ended.add((answer.peer, str(process.get("name"))))
        return self._failed(seen, answer.status) if seen.peer.watched else None

    def overdue(self, now: float) -> Verdict | None:
        """A verdict when a peer has not come up in time."""
        if now - self.now < self.job.peer_timeout:
            return None
        missing = [s for s in self._seen.values() if s.peer.watched and not s.answered]
        if not missing:
            return None
        names = ", ".join(f"{s.peer.name} ({s.peer.what}; {s.why})" for s in missing)
        return Verdict(
            ExitCode.TEMPFAIL,
            f"cannot start: {names} never came up within {self.job.peer_timeout:g} s: look at "
            f"{'this node' if len(missing) == 1 else 'these nodes'}, or raise GLM47_START_TIMEOUT",
        )

    def gone_when_asked_to_stop(self, answers: Iterable[Answer]) -> Verdict | None:
        """Asked to stop: a verdict when a peer was gone before, and the request only follows from that."""
        for answer in answers:
            seen = self._seen[answer.peer]
            if not seen.peer.watched or not seen.answered:
                continue
            if answer.status is not None:
                if (verdict := self._failed(seen, answer.status)) is not None:
                    return verdict
            elif answer.refused:
                return self._lost(seen, f"its runner was gone when we were asked to stop ({answer.why})")
        return None

    def missing(self, but: Collection[str] = ()) -> list[str]:
        """Watched peers that have not answered yet, each with the reason, without the nodes in `but`."""
        return [
            f"{seen.peer.name} ({seen.peer.what}): {seen.why}"
            for seen in self._seen.values()
            if seen.peer.watched and not seen.answered and seen.peer.name not in but
        ]

    def clocks(self) -> dict[str, Clock]:
        """The clocks of the peers that have told, by node."""
        return {name: seen.clock for name, seen in self._seen.items() if seen.clock is not None}

    def statuses(self) -> dict[str, Mapping[str, Any]]:
        """The last status of each peer that has answered, by node."""
        return {name: seen.doing for name, seen in self._seen.items() if seen.answered}

    def awaited(self, process: str) -> tuple[tuple[str, str], ...]:
        """What on peers must still end before `process` here is stopped."""
        return tuple(pair for pair in self.job.stops_after.get(process, ()) if pair not in self._ended)

    def _awaited(self, peer: str) -> set[tuple[str, str]]:
        return {pair for pairs in self.job.stops_after.values() for pair in pairs if pair[0] == peer}

    def _failed(self, seen: _Seen, status: Mapping[str, Any]) -> Verdict | None:
        code = status.get("exit_code")
        if status.get("state") != "stopping" or not code:
            return None
        reason = str(status.get("reason") or "no reason given")
        first = reason.partition(":")[0]
        if code == ExitCode.TEMPFAIL and first != "cannot start" and " on " not in first:
            # Its worker hangs: that is why this one does.
            return Verdict(code, f"{seen.peer.what} on {seen.peer.name}: {reason}")
        if code in (ExitCode.PEER_LOST, ExitCode.TEMPFAIL):
            # It names the first cause already.
            return Verdict(code, reason)
        return self._lost(seen, reason)

    def _lost(self, seen: _Seen, reason: str) -> Verdict:
        return Verdict(ExitCode.PEER_LOST, f"lost {seen.peer.what} on {seen.peer.name}: {reason}")
