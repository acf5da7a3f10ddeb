"""What a worker's log says about how far its start has come. Pure: lines in, a state out.

The `sglang` dialect knows the lines of SGLang 0.5.6.post2 to 0.5.23 under Dynamo 0.8.1 to 1.6.1.
Log lines may be glued to the end of a progress bar, so nothing is anchored to a line's beginning.
All times are monotonic seconds given by the caller.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["PHASES", "Progress"]

PHASES = {
    "starting": "starting",
    "distributed": "joining the ranks",
    "weights": "loading weights",
    "draft": "loading the draft model",
    "kv_cache": "allocating the KV cache",
    "deep_gemm": "compiling DeepGEMM kernels",
    "autotune": "tuning FlashInfer kernels",
    "compile": "compiling kernels",
    "capture": "capturing CUDA graphs",
    "registering": "registering the model",
    "loaded": "loaded",
    "registered": "registered",
}
"""Phases in the order they come, and what each is called for a person."""

_ORDER = {phase: number for number, phase in enumerate(PHASES)}
_WARM_UP = ("deep_gemm", "autotune", "compile", "capture")
"""Phases that come in any order, and more than once: a release tunes before a capture or within it."""
_ORDER.update(dict.fromkeys(_WARM_UP, _ORDER["capture"]))

# Written by the worker for every 503 that its health server gives our own probe.
_PROBE_NOISE = re.compile(r"(?:\d{4}-\d\d-\d\dT\S+\s+)?ERROR\s+tower_http::trace::on_failure\b.*")

_BARS = (
    (r"Compiling num tokens", "compile"),
    (r"Warmup prefill shapes|Profiling prefill latency", "compile"),
    (r"Capturing (?:num tokens|batches|prefill shape)|\[BCG\] Capturing", "capture"),
    (r"DeepGEMM warmup", "deep_gemm"),
    (r"\[AutoTuner\]: Tuning [\w:.-]*\w", "autotune"),
    (r"Multi-thread loading(?: pt checkpoint)? shards", "weights"),
    (r"Loading (?:safetensors|pt|np_cache) checkpoint shards", "weights"),
    (r"Loading safetensors using [\w ]+", "weights"),
    (r"[Qq]uant \w+ to fp8|quant weights to fp8|Online \w+ quantization|Computing checksums", "weights"),
)
"""tqdm's descriptions, and the phase that each belongs to."""
_BAR = re.compile(
    r"(?P<what>" + "|".join(words for words, _ in _BARS) + r")"
    r"(?P<rest>[^|%]*?):?\s+\d+%[^|]*\|(?:[^|]*\|)?\s*(?P<done>\d+)/(?P<total>\d+)"
)
_BAR_DETAIL = re.compile(r"\((bs=\d+|num_tokens=\d+)|rank=(\d+)")
_MARKS: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (re.compile(r"Init (?:torch distributed|parallel) begin"), "distributed", ""),
    (re.compile(r"Init (?:torch distributed|parallel) ends"), "distributed", "joined"),
    (re.compile(r"Load weight begin"), "weights", ""),
    (re.compile(r"Load weight end"), "weights", "loaded"),
    (re.compile(r"KV Cache is allocated|Memory pool end"), "kv_cache", ""),
    (
        re.compile(r"Entering DeepGEMM JIT Pre-Compile|Try DeepGEMM JIT Compiling|DeepGEMM warmup start"),
        "deep_gemm",
        "",
    ),
    (re.compile(r"Running FlashInfer autotune|FlashInfer autotune: extra"), "autotune", ""),
    # Its first minute and more is kernel compilation, without a line of output.
    (re.compile(r"Capture (?:target |draft )?(?:prefill|piecewise) CUDA graph begin"), "compile", ""),
    (re.compile(r"Capture [\w -]*(?:(?:cuda|CUDA|cpu|CPU) graph|draft extend) begin"), "capture", ""),
    (re.compile(r"Capture [\w -]*(?:(?:cuda|CUDA|cpu|CPU) graph|draft extend) end"), "capture", "done"),
    (re.compile(r"\bmax_total_num_tokens=\d+, "), "registering", ""),
    (re.compile(r"Start of prefill disaggregation warmup"), "registering", "prefill warm-up"),
    # A follower's last line: the engine has come up with all ranks; it never registers.
    (re.compile(r"Non-leader node detected \(node_rank="), "loaded", ""),
    (re.compile(r"Successfully registered LLM|Model registration succeeded"), "registered", ""),
)

_BATCH = re.compile(r"\b(?:Prefill|Decode) batch\b")
"""Of a long prompt, each chunk."""


@dataclass
class Progress:
    """State of one process's start; `feed` it every line of its log."""

    dialect: str | None
    """`sglang`, or None: no phase is recognised, only whether the log moves."""
    started: float
    """When the process was spawned."""
    phase: str = "starting"
    done: int | None = None
    """Steps done of the bar being shown (shards, graphs), None when there is no bar."""
    total: int | None = None
    detail: str = ""
    loaded: bool = False
    """The load phase is over: registered (leader), or all that a follower ever says."""
    last_change: float = -1.0
    """Last time that phase, steps or detail changed."""
    last_line_at: float = -1.0
    """Last line that is a sign of life; the worker's answers to our own probes are none."""
    phase_since: float = -1.0
    batches: int = 0
    """Lines so far in which it says that it has begun a batch of requests."""
    _bar: tuple[str, float, int] = ("", 0.0, 0)
    """The bar being shown, when it was first seen, and its steps then."""
    _loading: int = 0
    """Ranks of this process that are loading weights."""
    _draft: bool = False
    """All of them had loaded, and began again: the draft model."""

    _spent: dict[str, float] = field(default_factory=dict)
    """Seconds by phase, the present one not included."""

    def __post_init__(self) -> None:
        self.last_change = self.last_line_at = self.phase_since = self.started

    def feed(self, line: str, now: float) -> bool:
        """Take one line; True when phase, steps or detail changed."""
        if "on_failure" in line:
            line = _PROBE_NOISE.sub("", line)
        if not line or line.isspace():
            return False
        self.last_line_at = now
        if self.dialect != "sglang":
            return False
        if _BATCH.search(line):
            self.batches += 1
        changed = self._feed_bar(line, now) if "/" in line else False
        for pattern, phase, detail in _MARKS:
            if pattern.search(line):
                if phase == "weights":
                    phase = self._load(begins=not detail)
                return self._enter(phase, detail, now) or changed
        return changed

    def _feed_bar(self, line: str, now: float) -> bool:
        bars = [*_BAR.finditer(line)]
        if not bars:
            return False
        found = bars[-1]
        phase = next(phase for words, phase in _BARS if re.match(words, found["what"]))
        if phase == "weights" and self._draft:
            phase = "draft"
        if _ORDER[phase] < _ORDER[self.phase]:
            return False
        detail = _BAR_DETAIL.search(found["rest"])
        changed = self._enter(phase, detail[1] or detail[0] if detail else "", now)
        steps = int(found["done"]), int(found["total"])
        name = f"{found['what']} {steps[1]}"
        if name != self._bar[0] or steps[0] < self._bar[2]:
            self._bar = name, now, steps[0]
        if steps != (self.done, self.total):
            self.done, self.total = steps
            self.last_change = now
            changed = True
        return changed

    def _load(self, begins: bool) -> str:
        """The phase that one rank's begin or end of loading belongs to."""
        if not begins:
            self._loading = max(0, self._loading - 1)
        else:
            self._draft = self._draft or (self._loading == 0 and _ORDER[self.phase] >= _ORDER["weights"])
            self._loading += 1
        return "draft" if self._draft else "weights"

    def _enter(self, phase: str, detail: str, now: float) -> bool:
        """Go to `phase`; a rank that is behind the others does not take us back."""
        if phase == self.phase:
            if detail == self.detail:
                return False
        elif (
            _ORDER[phase] > _ORDER[self.phase]
            or (phase in _WARM_UP and self.phase in _WARM_UP and detail != "done")
            or (phase == "draft" and not detail)
        ):
            # Older releases load a draft model after the first one's graphs, and go on as with the first.
            self._spent[self.phase] = self._spent.get(self.phase, 0.0) + now - self.phase_since
            self.phase, self.phase_since = phase, now
            self.done = self.total = None
        else:
            return False
        if not detail:
            self.done = self.total = None  # what begins here has not shown a bar yet
        self.detail = detail
        self.last_change = now
        self.loaded = self.loaded or phase in ("loaded", "registered")
        return True

    def spent(self, now: float) -> dict[str, float]:
        """Seconds that the start has spent in each phase so far; `loaded` and `registered` are its end."""
        if self.dialect is None or self.phase in ("loaded", "registered"):
            return dict(self._spent)
        return self._spent | {self.phase: self._spent.get(self.phase, 0.0) + now - self.phase_since}

    def remaining(self, now: float) -> float | None:
        """Seconds that the bar being shown still needs at its pace so far; None when nobody can tell."""
        if self.done is None or self.total is None:
            return None
        _, since, first = self._bar
        steps, seconds = self.done - first, self.last_change - since
        # A pace from a few steps or seconds is a guess, and so is one from a bar standing still.
        if steps < max(2, self.total // 10) or seconds < 10 or now - self.last_change > 3 * seconds / steps:
            return None
        return max(0.0, (self.total - self.done) * seconds / steps - (now - self.last_change))

    def summary(self, now: float) -> str:
        """For a person: "capturing CUDA graphs 5/36 (bs=256), 2 min, about 8 min left"."""
        text = PHASES[self.phase]
        if self.done is not None:
            text += f" {self.done}/{self.total}"
        if self.detail:
            text += f" ({self.detail})"
        text += f", {_duration(now - self.phase_since)}"
        remaining = self.remaining(now)
        if remaining is not None and remaining >= 1:
            text += f", about {_duration(remaining)} left"
        silent = now - self.last_line_at
        if silent >= 30:
            text += f", silent for {_duration(silent)}"
        return text


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{max(0, round(seconds))} s"
    if seconds < 6000:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
