"""A benchmark as a step of the job that serves."""

from __future__ import annotations

import json
import os
import sys

import pytest

from entrypoint.commands.bench import aiperf
from entrypoint.errors import ConfigError
from tests.slurm.cluster import wait_for
from tests.slurm.conftest import Submitter

pytestmark = pytest.mark.slurm


def test_a_job_measures_itself_once_it_is_ready(submit: Submitter) -> None:
    try:
        found = aiperf.find(os.environ.get("GLM47_AIPERF_PYTHON"), os.environ, sys.prefix)
    except ConfigError as error:
        pytest.skip(str(error))
    job = submit("single_node.sbatch", GLM47_BENCH="quick", GLM47_AIPERF_PYTHON=found.python)
    url = job.wait_ready()
    wait_for(lambda: " benchmark" in job.output, 120, "the benchmark's end")
    report = job.logs / "bench" / "report.md"
    assert f" benchmark: {report}" in job.output, job.everything()
    data = json.loads(report.with_name("report.json").read_text())
    assert (data["state"], data["context"]["url"]) == ("complete", url)
    assert data["runs"][0]["succeeded"] == 20
    assert data["context"]["deployment"][0]["plan"] == json.loads((job.logs / "plan.json").read_text())
    assert job.state == "RUNNING"
