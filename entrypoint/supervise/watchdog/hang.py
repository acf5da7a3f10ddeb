"""Judges whether an engine gets on. Pure: what was seen of it goes in, a finding comes out.

An engine that is stopped, that waits for a rank which never comes, or that turns in a circle keeps its
processes and its health page: only its requests, and the time that its schedulers spend, tell. What counts
as evidence, and why it accuses none that compiles or has nothing to do: docs/decisions/hung-engine.md.

Time is counted in looks, not in seconds: a container that was paused has not had its time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from entrypoint.supervise.lifecycle.looks import Requests, Stuck

INTERVAL = 2.0
"""Seconds between two looks."""
STOPPED, ASLEEP = "T", "SD"
"""States of a thread (proc_pid_stat(5)): stopped by a signal; waiting."""
STILL = 0.02
"""A sleeping thread that took a smaller share of the time than this did nothing."""
ROUNDS = 5.0
"""Waits a second from which on a thread that is busy surely goes round its loop: a scheduler of several ranks
waits for the others on every round. One that spins waits a few times at most, for Python's lock."""
KERNEL = 0.01
"""Share of a busy thread's processor time in the kernel up to which it may spin: clock ticks that fall into
an interrupt are counted there. One that goes round its loop has at least three times as much."""
SPUN = 1.0
"""Seconds of processor time that a thread must have spent spinning to be accused of it: on a machine that has
too much to do, a few looks in a row may miss what it does in the kernel."""
HELPERS = 0.05
"""Processes below the engine that take a larger share of the time than this work: they compile."""
POLLS = "nanosleep"
"""In the name of the kernel function in which a thread waits that asks again and again for something outside,
such as the lock of a kernel that another container compiles. No collective waits like that."""


@dataclass(frozen=True)
class Thread:
    """The main thread of one of the engine's processes in one look."""

    title: str
    pid: int
    state: str
    """One letter."""
    user: float
    """Seconds of processor time so far in its own code."""
    system: float
    """And in the kernel."""
    waits: int
    """How often so far it gave up the processor to wait for something."""
    where: str = ""
    """The kernel function in which it waits; empty: not known, or it does not wait."""

    @property
    def schedules(self) -> bool:
        """Whether it is a scheduler: the process that computes the tokens of one rank."""
        return "::scheduler" in self.title


@dataclass(frozen=True)
class Look:
    """What was seen at one time."""

    threads: tuple[Thread, ...]
    """The engine's main process first, then those that it cannot do without."""
    requests: Requests | None = None
    """None: the worker did not tell; a follower never does."""
    helpers: float | None = None
    """Seconds of processor time so far of all other processes below the engine, the ended ones included;
    None: not looked at."""
    batches: int = 0
    """Lines so far in which the engine says that it has begun a batch."""


@dataclass
class Detector:
    """What was seen of one engine so far, and what follows from it."""

    waits_for_others: bool = False
    """Its requests may wait for a worker elsewhere (prefill for decode, or the other way round): no answer is
    no evidence then, unless a scheduler of its own is still or spins."""
    served: bool = False
    """It has answered a request: until then it may compile for as long as it takes."""
    _before: Look | None = None
    _stopped: int = 0
    """Looks in a row that found a process stopped."""
    _unanswered: int = 0
    """Looks in a row in which requests waited, none was answered, and nothing excused that."""
    _did: dict[int, str] = field(default_factory=dict)
    """What each process did since requests wait."""
    _began: Look | None = None
    """The last look before these."""
    _last: Stuck | None = None
    """What the last look found."""

    @property
    def suspects(self) -> bool:
        """Whether the next look should be a thorough one."""
        return self._unanswered > 0

    def look(self, look: Look) -> Stuck | None:
        """Take a look in; the finding when the engine does not get on now."""
        self._last = self._judge(look)
        return self._last

    def _judge(self, look: Look) -> Stuck | None:
        before, self._before = self._before, look
        stopped = [thread for thread in look.threads if thread.state == STOPPED]
        # One that is stopped and let go again and again may be stopped at every look, and is only slow.
        ran = {now.pid for was, now in _pairs(before or look, look) if _ran(was, now)}
        held = [thread for thread in stopped if thread.pid not in ran]
        self._stopped = self._stopped + 1 if held else min(1, len(stopped))
        if stopped:
            first, doing = [*held, *stopped][0], "is stopped by a signal (SIGSTOP)"
            return Stuck(first.title, first.pid, doing, self._stopped * INTERVAL)
        if before is None:
            return None
        if look.requests is None:
            # It has not told: no news in either direction.
            self._before = replace(look, requests=before.requests)
            return self._last if self._unanswered else None
        did = {t.pid: doing_of(was, t) for was, t in _pairs(before, look)}
        if not self._waits_in_vain(before.requests, look.requests, before, look, did):
            self._unanswered = 0
            return None
        if self._unanswered == 0:
            self._began = before
        self._unanswered += 1
        # Still is what is still now; whether it spins is seen better the longer it is looked at.
        self._did = {
            now.pid: "still" if did.get(now.pid) == "still" else doing_of(was, now, self._unanswered)
            for was, now in _pairs(self._began or before, look)
        }
        return self._stuck(look) if not self.waits_for_others or self._evidence(look) else None

    def _waits_in_vain(
        self, was: Requests | None, now: Requests, before: Look, look: Look, did: dict[int, str]
    ) -> bool:
        self.served = self.served or (now.answered > 0 and now.begun > now.in_flight)
        if not self.served or was is None or not now.in_flight or not was.in_flight:
            return False
        if now.answered != was.answered or look.batches != before.batches:
            return False
        if _helped(before, look) > HELPERS * INTERVAL:
            return False
        schedulers = [thread for thread in look.threads if thread.schedules]
        if any(POLLS in thread.where for thread in schedulers):
            return False
        return not self.waits_for_others or any(did.get(t.pid) in ("still", "spins") for t in schedulers)

    def _evidence(self, look: Look) -> bool:
        """Whether a scheduler is still, or has spun for long enough."""
        assert self._began is not None
        spun = {
            now.pid: now.user - was.user
            for was, now in _pairs(self._began, look)
            if self._did.get(now.pid) == "spins"
        }
        return any(
            self._did.get(thread.pid) == "still" or spun.get(thread.pid, 0.0) >= SPUN
            for thread in look.threads
            if thread.schedules
        )

    def _stuck(self, look: Look) -> Stuck:
        """Of several schedulers the one is named that spins or waits where the others run."""
        schedulers = [t for t in look.threads if t.schedules] or [*look.threads]
        order = {"still": 0, "spins": 1, "runs": 2}
        what = {thread.pid: self._did.get(thread.pid, "runs") for thread in schedulers}
        schedulers.sort(key=lambda thread: order[what[thread.pid]])
        first, rest = schedulers[0], schedulers[1:]
        words = _words(first, what[first.pid])
        others = ", ".join(f"{t.title} {_words(t, what[t.pid])}" for t in rest)
        count = look.requests.in_flight if look.requests is not None else 0
        requests = f"{count:g} request{'' if count == 1 else 's'} without an answer" if count else "no answer"
        doing = f"{words} with {requests}" + (f" ({others})" if others else "")
        return Stuck(first.title, first.pid, doing, self._unanswered * INTERVAL)


def _helped(before: Look, look: Look) -> float:
    if before.helpers is None or look.helpers is None:
        return 0.0
    return look.helpers - before.helpers


def _pairs(before: Look, look: Look) -> list[tuple[Thread, Thread]]:
    known = {(thread.pid, thread.title): thread for thread in before.threads}
    return [(known[t.pid, t.title], t) for t in look.threads if (t.pid, t.title) in known]


def _ran(was: Thread, now: Thread) -> bool:
    return (was.user, was.system, was.waits) != (now.user, now.system, now.waits)


def doing_of(was: Thread, now: Thread, intervals: int = 1) -> str:
    """What a thread did between two looks, `intervals` apart: `still`, `spins` or `runs`."""
    kernel, seconds = now.system - was.system, intervals * INTERVAL
    used = now.user - was.user + kernel
    if used < STILL * seconds and now.state in ASLEEP:
        return "still"
    goes_round = now.waits - was.waits >= ROUNDS * seconds or kernel > KERNEL * used
    return "runs" if goes_round else "spins"


def _words(thread: Thread, what: str) -> str:
    if what == "still":
        return f"waits in {thread.where}" if thread.where else "waits"
    return "spins" if what == "spins" else "runs"
