"""SGLang itself, on the CPU, in the image's containers: tokens, not only processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.container.compose import command, project
from tests.container.conftest import unavailable
from tests.container.test_compose import DISAGG, assert_stops
from tests.support import cpu_engine
from tests.support.cpu_engine import container

pytestmark = pytest.mark.engine_more

WORKERS = {"GPUS_PER_WORKER": "1", "PREFILL_GPUS": "0", "DECODE_GPUS": "1"}


def test_disaggregated(engine: str, image: str, tmp_path: Path) -> None:
    """The file that `docker compose` users start: prefill and decode in containers of their own."""
    if command() is None:
        unavailable("no docker compose and no docker-compose")
    mounts = container.mounts(tmp_path)
    volumes = [f"{here}:{there}:ro" for here, there in mounts.items()]
    given = {"environment": container.environment(), "volumes": volumes}
    override = tmp_path / "engine.json"
    override.write_text(json.dumps({"services": dict.fromkeys(("frontend", "prefill", "decode"), given)}))
    asked = cpu_engine.prompts()
    right = cpu_engine.reference(container.model_of(tmp_path), asked)
    with project(image, DISAGG, str(override), **WORKERS) as made:
        made.run("up", "--detach", "--wait", timeout=400)
        assert cpu_engine.greedy(made.url(), asked) == right
        assert cpu_engine.greedy(made.url(), asked * 2, at_once=4) == right * 2
        assert_stops(made)
