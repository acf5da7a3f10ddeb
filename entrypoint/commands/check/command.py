"""`check`: whatever would keep `run` from working in this container, found before it is started."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from entrypoint.commands.check.findings import Finding, ok, outcome, problem, warning
from entrypoint.commands.check.judge import judge
from entrypoint.commands.check.wanted import Wanted, wanted
from entrypoint.errors import ConfigError, ExitCode, RunnerError
from entrypoint.node.machine.facts import Machine
from entrypoint.node.machine.side_by_side import side_by_side
from entrypoint.plan.types import Plan
from entrypoint.supervise import ports

BOOTSTRAP_TIMEOUT = 3.0
"""Seconds for an answer of a prefill worker's bootstrap server."""
PATIENCE = 4.0
"""Seconds for all looks together: what has not answered by then hangs, and that is what is said of it."""


@dataclass(frozen=True)
class Checked:
    """What was found, and the facts behind it."""

    findings: list[Finding]
    machine: Machine = field(default_factory=Machine)


def check(environ: Mapping[str, str], cwd: Path) -> list[Finding]:
    """Look at everything; never raises for what is wrong."""
    return look(environ, cwd).findings


def look(environ: Mapping[str, str], cwd: Path) -> Checked:
    """Look at everything at once, for PATIENCE seconds at most once the plan is made."""
    from entrypoint.load import load_plan

    try:
        loaded = load_plan(environ, cwd)
    except ConfigError as error:
        return Checked([problem("settings", line) for line in error.problems])
    plan = loaded.plan
    found = [ok("settings", f"roles {', '.join(plan.roles)}")]
    found += [warning("plan", text) for text in plan.warnings]
    found += [problem("engine", text) for text in plan.unmet]
    # Caches and the flashinfer view may be below the run directory, which its own check makes.
    found += _run_dir(plan)
    asked = wanted(plan, dict(loaded.environ))
    looks = {**_of_plan(plan, environ), **_of_machine(plan, asked)}
    answers, silent = side_by_side(looks, PATIENCE)
    for name in OF_PLAN:
        found += answers.get(name, [])
    machine = Machine(**{name: answers[name] for name in MACHINE if name in answers})
    found += judge(machine, asked)
    found += [_hangs(name) for name in silent]
    return Checked(found, machine)


OF_PLAN = ("arguments", "flashinfer", "bootstrap", "model", "patch", "ports")
MACHINE = ("gpus", "adapters", "limits", "imex", "read", "cache")


def _of_plan(plan: Plan, environ: Mapping[str, str]) -> dict[str, Callable[[], list[Finding]]]:
    return {
        "arguments": lambda: [*_arguments(plan, environ)],
        "flashinfer": lambda: [*_flashinfer(plan, environ)],
        "bootstrap": lambda: [*_bootstrap_servers(plan, environ)],
        "model": lambda: [*_model(plan)],
        "patch": lambda: [*_sources(plan)],
        "ports": lambda: [*_ports(plan)],
    }


def _of_machine(plan: Plan, asked: Wanted) -> dict[str, Callable[[], object]]:
    from entrypoint.node import engine
    from entrypoint.node.machine import devices, gpus, reading

    looks: dict[str, Callable[[], object]] = {"limits": devices.limits}
    if asked.gpus:
        python = engine_python(plan)
        torch = [] if python is None else engine.site_packages(python)
        looks["gpus"] = lambda: gpus.look(torch)
    if asked.rdma:
        looks["adapters"] = devices.adapters
    if asked.multi_node_nvlink:
        looks["imex"] = devices.imex
    if asked.weights and plan.model_error is None:
        looks["read"] = lambda: reading.sample(Path(plan.model_source))
    if asked.cache is not None:
        place = asked.cache
        looks["cache"] = lambda: devices.cache(place)
    return looks


def engine_python(plan: Plan) -> str | None:
    """The interpreter that the plan starts its engine with."""
    return next((p.argv[0] for p in plan.processes if p.vital or p.log_dialect is not None), None)


HANGS = {
    "gpus": ("GPUs", "the driver"),
    "read": ("reading", "the model's file system"),
    "model": ("model", "the model's file system"),
    "cache": ("cache", "the cache's file system"),
}
"""Looks without whose answer a start would hang as well: what each is called, and who owes it."""


def _hangs(name: str) -> Finding:
    what, who = HANGS.get(name, (name, ""))
    if not who:
        return warning(what, f"not known: no answer in {PATIENCE:.0f} s")
    text = f"cannot look at this: {name}: no answer in {PATIENCE:.0f} s: see whether {who} hangs"
    return problem(what, text, ExitCode.TEMPFAIL)


def _run_dir(plan: Plan) -> list[Finding]:
    from entrypoint.prepare import run_dir

    return outcome("run dir", f"{plan.run_dir} is writable", lambda: run_dir.make_for(plan))


def _arguments(plan: Plan, environ: Mapping[str, str]) -> Iterator[Finding]:
    """What the installed releases' own parsers say to the planned command lines."""
    if plan.unmet:
        return
    from entrypoint.prepare.parser import ask, for_plan

    with ask.Questions(plan, environ) as questions:
        answers = questions.answers(ask.CHECK_WAIT)
    found = for_plan.verdict(plan, answers)
    yield from (problem("arguments", text) for text in found.problems)
    yield from (warning("arguments", text) for text in (*found.warnings, *found.notes))
    if taken := [a.process for a in answers if not a.complaints and a.silent is None]:
        yield ok("arguments", f"their own parsers take the command lines of {', '.join(taken)}")


def _model(plan: Plan) -> Iterator[Finding]:
    if not plan.needs_model:
        return
    from entrypoint.node.model import directory

    seen = directory.inspect(plan.model_source, weights=plan.needs_weights)
    for text in seen.problems:
        yield problem("model", text, ExitCode.MODEL)
    for text in seen.warnings:
        yield warning("model", text)
    if not seen.problems:
        fix = ", bos_token_id is missing and will be corrected" if seen.facts.needs_bos_fix else ""
        yield ok("model", f"{plan.model_source} is usable{fix}")


def _sources(plan: Plan) -> Iterator[Finding]:
    patch = plan.source_patch
    if patch is None:
        return
    from entrypoint.prepare.patches import apply

    try:
        states = apply.check_all(Path(patch.source_dir), patch.modelopt)  # type: ignore[arg-type]
    except RunnerError as error:
        yield problem("patch", str(error), error.exit_code)
        return
    for edit in states:
        if edit.state == "not recognised":
            yield problem("patch", edit.line, ExitCode.CANTCREAT)
        else:
            yield ok("patch", edit.line)


def _flashinfer(plan: Plan, environ: Mapping[str, str]) -> Iterator[Finding]:
    if plan.flashinfer is None:
        return
    from entrypoint.prepare.flashinfer.for_plan import make_usable

    try:
        _, lines = make_usable(plan, environ)
    except RunnerError as error:
        yield problem("flashinfer", str(error), error.exit_code)
        return
    for line in lines or [f"flashinfer: {plan.flashinfer.package} needs no write"]:
        yield ok("flashinfer", line.removeprefix("flashinfer: "))


def _ports(plan: Plan) -> Iterator[Finding]:
    for text in ports.problems(plan.ports):
        yield problem("port", text)
    yield ok("ports", ", ".join(f"{p.name} {p.number}" for p in plan.ports))


def _bootstrap_servers(plan: Plan, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Those that prefill workers announce now; before any is up there is nothing to ask."""
    if plan.announcements is None:
        return
    import httpx

    from entrypoint.supervise.probes.announced import Announced

    dynamo = next((p.env for p in plan.processes if p.name in ("frontend", "decode")), {})
    with httpx.Client(trust_env=False, timeout=BOOTSTRAP_TIMEOUT) as client:
        announced = Announced(plan.announcements, {**environ, **dynamo}, lambda: client)
        for why in announced.faults():
            yield problem("bootstrap", f"cannot use prefill: {why}", ExitCode.UNAVAILABLE)
    if announced.found:
        yield ok("bootstrap", ", ".join(sorted(announced.found)))
