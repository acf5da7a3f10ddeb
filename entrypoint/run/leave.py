"""How a run leaves: its reason on standard error, in the termination log and in a Slurm job's `failure`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from entrypoint.base import last_words
from entrypoint.errors import ExitCode
from entrypoint.node import in_slurm
from entrypoint.node.in_group import in_group
from entrypoint.node.in_pod import in_pod
from entrypoint.settings import early

if TYPE_CHECKING:
    from entrypoint.plan.types import Plan

DEFAULT_HEALTH_PORT = 9480
HELD_CODES = (ExitCode.MODEL, ExitCode.CONFIG)
"""What does not get better by a new start, and is held in a group."""
SECRETS = (
    *("GLM47_API_KEY", "GLM47_STATUS_TOKEN"),
    *("GLM47_ETCD_PASSWORD", "GLM47_NATS_PASSWORD", "GLM47_NATS_TOKEN"),
)


def leave(code: int, reason: str, termination_log: str | None, environ: Mapping[str, str]) -> NoReturn:
    """Say the reason everywhere, and end with `code`. A start that is refused in a group is held first."""
    last_words.write_termination_log(termination_log, reason)
    stays = in_group(environ) and code in HELD_CODES
    stamp = _now() if in_slurm.in_job(environ) else ""
    if (note := tell_pod(environ, code, reason, held=stays)) is not None:
        last_words.say(note, stamp)
    last_words.say(reason, stamp)
    if stays:
        from entrypoint.supervise.status import held

        held.hold(code, reason, *_health(environ), early.value("GLM47_STATUS_TOKEN", environ, Path.cwd()))
    os._exit(code)


def tell_pod(environ: Mapping[str, str], code: int, reason: str, *, held: bool = False) -> str | None:
    """In a pod whose account may, make an Event of a failed end, or of a start that stays (`held`).

    Why there is none, where there should be one.
    """
    pod = None if code == 0 else in_pod(environ, early.value("GLM47_EVENTS", environ, Path.cwd()))
    if pod is None:
        return None
    from entrypoint.run import kube_event
    from entrypoint.settings import secrets

    files = (early.value(name, environ, Path.cwd()) for name in SECRETS)
    known = (*secrets.values(environ), *filter(None, files))
    return kube_event.tell(pod, code, secrets.hidden(reason, known), held)


def _now() -> str:
    """The time, as before a runner's other lines; what writes those need not be loaded here."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _health(environ: Mapping[str, str]) -> tuple[str, int]:
    """Where the health endpoint is to listen, as far as settings that may be wrong can be read."""
    host, port = (early.value(f"GLM47_HEALTH_{what}", environ, Path.cwd()) or "" for what in ("HOST", "PORT"))
    number = int(port) if port.isascii() and port.isdigit() else 0
    return host or "0.0.0.0", number if 0 < number < 65536 else DEFAULT_HEALTH_PORT


def tell_job(environ: Mapping[str, str], code: int, reason: str, plan: Plan | None = None) -> None:
    """In a Slurm job, write the first cause of a failed end where the batch script looks for it."""
    if code == 0 or not in_slurm.in_job(environ):
        return
    directory = plan.log_dir if plan else early.value("GLM47_LOG_DIR", environ, Path.cwd())
    if not directory:
        return
    from entrypoint.supervise.status.job_files import job_code, record_failure

    job = plan.job if plan is not None else None
    if code != ExitCode.PEER_LOST:
        reason = (
            f"{job.what} on {job.node}: {reason}"
            if job is not None
            else f"{in_slurm.node_name(environ)}: {reason}"
        )
    record_failure(directory, job_code(code, plan.nnodes if plan is not None else 1), reason)
