"""`check`: whatever would keep `run` from working in this container, found before it is started."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from entrypoint.errors import ConfigError, ExitCode, RunnerError
from entrypoint.plan.types import Plan
from entrypoint.supervise import ports

BOOTSTRAP_TIMEOUT = 5.0
"""Seconds for an answer of a prefill worker's bootstrap server."""
SHM_LEAST = 1 << 30
"""Bytes of /dev/shm that a worker's ranks need for NCCL's segments; Docker's default is 64 MiB."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: str
    """`ok`, `warning` or `problem`."""
    text: str
    exit_code: int = 0
    """What `run` would end with because of it, or because of what follows from it."""


def check(environ: Mapping[str, str], cwd: Path) -> list[Finding]:
    """Look at everything; never raises for what is wrong."""
    from entrypoint.load import load_plan

    try:
        plan = load_plan(environ, cwd).plan
    except ConfigError as error:
        return [_problem("settings", line, ExitCode.CONFIG) for line in error.problems]
    found = [Finding("settings", "ok", f"roles {', '.join(plan.roles)}")]
    found += [Finding("plan", "warning", text) for text in plan.warnings]
    found += [_problem("engine", text, ExitCode.CONFIG) for text in plan.unmet]
    found += _run_dir(plan)
    found += _flashinfer(plan, environ)
    found += _bootstrap_servers(plan, environ)
    for look in (_model, _sources, _ports, _shared_memory, _locked_memory, _gpus, _imex):
        found += look(plan)
    return found


def render(findings: list[Finding]) -> str:
    """The findings as lines, and a verdict."""
    width = max(len(f.what) for f in findings)
    lines = [f"{f.state:7}  {f.what:{width}}  {f.text}" for f in findings]
    problems = sum(f.state == "problem" for f in findings)
    verdict = (
        f"{problems} problem{'s' * (problems != 1)}: `run` would not work" if problems else "`run` can start"
    )
    return "\n".join([*lines, verdict])


def _problem(what: str, text: str, code: ExitCode) -> Finding:
    return Finding(what, "problem", text, code)


def _outcome(what: str, good: str, action: Callable[[], object]) -> list[Finding]:
    try:
        action()
    except RunnerError as error:
        return [_problem(what, line, error.exit_code) for line in str(error).splitlines()]
    return [Finding(what, "ok", good)]


def _run_dir(plan: Plan) -> list[Finding]:
    from entrypoint.prepare import run_dir

    return _outcome("run dir", f"{plan.run_dir} is writable", lambda: run_dir.make(plan.run_dir))


def _model(plan: Plan) -> Iterator[Finding]:
    if not plan.needs_model:
        return
    from entrypoint.node.model import directory

    seen = directory.inspect(plan.model_source, weights=plan.needs_weights)
    for text in seen.problems:
        yield _problem("model", text, ExitCode.MODEL)
    for text in seen.warnings:
        yield Finding("model", "warning", text)
    if not seen.problems:
        fix = ", bos_token_id is missing and will be corrected" if seen.facts.needs_bos_fix else ""
        yield Finding("model", "ok", f"{plan.model_source} is usable{fix}")


def _sources(plan: Plan) -> Iterator[Finding]:
    patch = plan.source_patch
    if patch is None:
        return
    from entrypoint.prepare.patches import apply

    try:
        states = apply.check_all(Path(patch.source_dir), patch.modelopt)  # type: ignore[arg-type]
    except RunnerError as error:
        yield _problem("patch", str(error), error.exit_code)
        return
    for edit in states:
        if edit.state == "not recognised":
            yield _problem("patch", edit.line, ExitCode.CANTCREAT)
        else:
            yield Finding("patch", "ok", edit.line)


def _flashinfer(plan: Plan, environ: Mapping[str, str]) -> Iterator[Finding]:
    if plan.flashinfer is None:
        return
    from entrypoint.prepare.flashinfer.for_plan import make_usable

    try:
        _, lines = make_usable(plan, environ)
    except RunnerError as error:
        yield _problem("flashinfer", str(error), error.exit_code)
        return
    for line in lines or [f"flashinfer: {plan.flashinfer.package} needs no write"]:
        yield Finding("flashinfer", "ok", line.removeprefix("flashinfer: "))


def _ports(plan: Plan) -> Iterator[Finding]:
    for problem in ports.problems(plan.ports):
        yield _problem("port", problem, ExitCode.CONFIG)
    yield Finding("ports", "ok", ", ".join(f"{p.name} {p.number}" for p in plan.ports))


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
            yield _problem("bootstrap", f"cannot use prefill: {why}", ExitCode.UNAVAILABLE)
    if announced.found:
        yield Finding("bootstrap", "ok", ", ".join(sorted(announced.found)))


def _has_gpu_worker(plan: Plan) -> bool:
    return plan.needs_weights


def _shared_memory(plan: Plan) -> Iterator[Finding]:
    if not _has_gpu_worker(plan):
        return
    try:
        state = os.statvfs("/dev/shm")
    except OSError as error:
        yield _problem("/dev/shm", f"cannot use /dev/shm: {error.strerror}: mount one", ExitCode.CONFIG)
        return
    size = state.f_frsize * state.f_blocks
    if size < SHM_LEAST:
        text = (
            f"cannot use /dev/shm: {size >> 20} MiB: NCCL needs more: --ipc=host, --shm-size or an emptyDir"
        )
        yield _problem("/dev/shm", text, ExitCode.CONFIG)
    else:
        yield Finding("/dev/shm", "ok", f"{size >> 20} MiB")


def _locked_memory(plan: Plan) -> Iterator[Finding]:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if _has_gpu_worker(plan) and soft != resource.RLIM_INFINITY:
        text = f"locked memory is limited to {soft >> 10} KiB: RDMA may fail: --ulimit memlock=-1, IPC_LOCK"
        yield Finding("memlock", "warning", text)


def _gpus(plan: Plan) -> Iterator[Finding]:
    if not _has_gpu_worker(plan):
        return
    wanted = int(plan.settings["GLM47_GPUS_PER_NODE"].value)
    seen = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if seen < wanted:
        text = f"cannot see {wanted} GPUs: {seen}: start with --gpus all, or set GLM47_GPUS_PER_NODE"
        yield _problem("GPUs", text, ExitCode.CONFIG)
    else:
        yield Finding("GPUs", "ok", f"{seen} devices")


def _imex(plan: Plan) -> Iterator[Finding]:
    wants = any(p.env.get("NCCL_MNNVL_ENABLE") == "1" for p in plan.processes)
    if wants and plan.nnodes > 1 and not Path("/dev/nvidia-caps-imex-channels").exists():
        text = "no /dev/nvidia-caps-imex-channels: multi-node NVLink will not work: add the IMEX channel"
        yield Finding("IMEX", "warning", f"{text}, or set GLM47_MNNVL=off")
