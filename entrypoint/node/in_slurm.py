"""Slurm's variables that are read before, or without, planning for a job. `slurm` reads the others."""

from __future__ import annotations

from collections.abc import Mapping


def in_job(environ: Mapping[str, str]) -> bool:
    """Whether this is part of a Slurm job."""
    return "SLURM_JOB_ID" in environ


def node_list(environ: Mapping[str, str]) -> str | None:
    """The job's nodes, as Slurm writes them; None outside a job."""
    return environ.get("SLURM_JOB_NODELIST")


def node_name(environ: Mapping[str, str]) -> str:
    """This node's name; empty when Slurm does not say it."""
    return environ.get("SLURMD_NODENAME", "")


def origin(environ: Mapping[str, str]) -> str:
    """The origin of a setting that the job decides."""
    return f"SLURM job {environ.get('SLURM_JOB_ID', '')}".rstrip()
