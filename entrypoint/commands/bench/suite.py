"""What a benchmark measures: suites of tests, as data.

`quick` and `full` are JSON files in ``profiles/``; `--profile` takes a file of the same form. Lengths are
tokens, durations seconds, goodput limits milliseconds. Pure, but for reading the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from entrypoint.base.foreign import from_json
from entrypoint.errors import ConfigError

PROFILES = Path(__file__).parent / "profiles"
BUILT_IN = ("quick", "full")

Tokens = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Share(_Model):
    """One kind of request in a mixed test."""

    isl: Tokens
    osl: Tokens
    percent: Annotated[float, Field(gt=0, le=100)]


class BenchTest(_Model):
    """One test: one run of AIPerf."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)
    """Names its directory, its row in the report and what `--set NAME.FIELD=VALUE` addresses."""
    title: str = ""
    endpoint: Literal["chat", "completions"] = "chat"
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """Requests in flight; with `request_rate`: at most that many."""
    request_rate: Positive | None = None
    """Requests per second, whether or not earlier ones have been answered."""
    arrival: Literal["poisson", "constant", "gamma"] = "poisson"
    """How the requests of a rate are spread."""
    requests: Annotated[int, Field(ge=1)]
    """Requests that are measured."""
    warmup_requests: Annotated[int, Field(ge=0)] = 0
    """Requests before them, which are not measured."""
    isl: Tokens | None = None
    """Input tokens of a request, without the chat template's own."""
    isl_stddev: Annotated[float, Field(ge=0)] = 0.0
    osl: Tokens | None = None
    """Output tokens that a request asks for."""
    osl_stddev: Annotated[float, Field(ge=0)] = 0.0
    mix: tuple[Share, ...] = ()
    """Instead of isl and osl: several kinds of requests."""
    seed: Annotated[int, Field(ge=0)] = 20471
    """Makes the same prompts and arrival times every time."""
    request_timeout: Positive = 600.0
    """Seconds after which a request counts as failed."""
    goodput: dict[str, Positive] = Field(default_factory=dict)
    """AIPerf metric tags and the limits (milliseconds for latencies) that a good request keeps."""
    max_failed: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the measured requests that may fail before the benchmark counts as failed."""
    extra_inputs: dict[str, str | bool | int | float] = Field(default_factory=dict)
    """Fields added to every request; `ignore_eos` makes answers exactly `osl` tokens long."""
    aiperf_args: tuple[str, ...] = ()
    """Further arguments of `aiperf profile`."""

    @model_validator(mode="after")
    def _load_and_lengths(self) -> BenchTest:
        if self.concurrency is None and self.request_rate is None:
            raise ValueError("give concurrency, request_rate or both")
        if self.mix:
            if abs(sum(share.percent for share in self.mix) - 100) > 0.01:
                raise ValueError("make the percents of mix add up to 100")
        elif self.isl is None or self.osl is None:
            raise ValueError("give isl and osl, or mix")
        return self

    @property
    def load(self) -> str:
        """The load in words: ``4 at a time``, ``2/s poisson``."""
        parts = []
        if self.request_rate is not None:
            parts.append(f"{self.request_rate:g}/s {self.arrival}")
        if self.concurrency is not None:
            parts.append(f"{'at most ' if parts else ''}{self.concurrency} at a time")
        return ", ".join(parts)

    @property
    def lengths(self) -> str:
        """Tokens in and out in words: ``512 → 256``."""
        if self.mix:
            return "; ".join(f"{s.isl} → {s.osl} ({s.percent:g} %)" for s in self.mix)
        spread_in = f" ± {self.isl_stddev:g}" if self.isl_stddev else ""
        spread_out = f" ± {self.osl_stddev:g}" if self.osl_stddev else ""
        return f"{self.isl}{spread_in} → {self.osl}{spread_out}"


class Suite(_Model):
    """Tests that make up one benchmark, in their order."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)
    description: str = ""
    tests: tuple[BenchTest, ...]


def load_suite(
    name: str, profile: Path | None = None, changes: Sequence[str] = (), only: Sequence[str] = ()
) -> Suite:
    """The built-in suite `name`, or the one in the file `profile`, with `changes` made to it.

    A change is ``FIELD=VALUE`` for every test or ``TEST.FIELD=VALUE`` for one; the value is JSON, or text.
    `only` keeps the named tests. Raises ConfigError (78) with one line per problem.
    """
    path = profile or PROFILES / f"{name}.json"
    where = f"profile {path}" if profile else f"profile {name}"
    try:
        data = from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {where}: {error.strerror}: give a JSON file") from None
    except ValueError as error:
        raise ConfigError(f"cannot read {where}: it is not JSON: {error}") from None
    tests = _merged(data, where)
    _change(tests, changes)
    known = [str(test.get("name")) for test in tests]
    if unknown := [word for word in only if word not in known]:
        raise ConfigError(
            f"cannot run only {', '.join(unknown)}: no such test in {where}: it has {', '.join(known)}"
        )
    if only:
        tests = [test for test in tests if test.get("name") in only]
    head = {k: v for k, v in data.items() if k not in ("defaults", "tests")}
    try:
        suite = Suite(**{**head, "tests": tests})
    except ValidationError as error:
        raise ConfigError([_problem(detail, where, tests) for detail in error.errors()]) from None
    if repeated := {name for name in known if known.count(name) > 1}:
        raise ConfigError(f"cannot use {where}: {', '.join(sorted(repeated))}: give every test its own name")
    return suite


def _merged(data: Any, where: str) -> list[dict[str, Any]]:
    shape = (
        f"cannot use {where}: it is no profile: give an object with "
        '"name", "tests" (a list of objects) and maybe "defaults"'
    )
    if not isinstance(data, dict) or not isinstance(data.get("defaults", {}), dict):
        raise ConfigError(shape)
    tests = data.get("tests")
    if not isinstance(tests, list) or not tests or not all(isinstance(test, dict) for test in tests):
        raise ConfigError(shape)
    defaults = data.get("defaults", {})
    # Lengths are either plain or a mix: a mix in one test takes the place of everybody's plain lengths.
    plain = {k: v for k, v in defaults.items() if k not in ("isl", "osl")}
    return [{**(plain if test.get("mix") else defaults), **test} for test in tests]


def _change(tests: list[dict[str, Any]], changes: Sequence[str]) -> None:
    problems = []
    for change in changes:
        target, equals, text = change.partition("=")
        name, dot, field = target.rpartition(".")
        chosen = [test for test in tests if not dot or test.get("name") == name]
        if not equals or field not in BenchTest.model_fields or field == "name":
            fields = ", ".join(f for f in BenchTest.model_fields if f != "name")
            problems.append(
                f"cannot set {change}: write FIELD=VALUE or TEST.FIELD=VALUE; fields are: {fields}"
            )
        elif not chosen:
            names = ", ".join(str(test.get("name")) for test in tests)
            problems.append(f"cannot set {change}: no such test: tests are: {names}")
        for test in chosen:
            test[field] = _value(text)
    if problems:
        raise ConfigError(problems)


def _value(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        return text


def _problem(detail: Any, where: str, tests: list[dict[str, Any]]) -> str:
    path = list(detail["loc"])
    words = [str(word) for word in path]
    if len(path) > 1 and path[0] == "tests" and isinstance(path[1], int):
        words = [f"test {tests[path[1]].get('name', path[1] + 1)}", *map(str, path[2:])]
    message = str(detail["msg"]).removeprefix("Value error, ")
    given = detail.get("input")
    shown = f": {given!r}" if isinstance(given, str | int | float | bool) else ""
    return f"cannot use {where}: {' '.join(words)}{shown}: {message[0].lower()}{message[1:]}"
