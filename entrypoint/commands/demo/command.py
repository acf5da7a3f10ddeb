"""`demo`: the real stack on this machine, with a made-up model and Dynamo's mocker as the engine.

It only chooses settings and makes the model; from there on it is `run`, by the ordinary path.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from entrypoint.load import Loaded
    from entrypoint.plan.types import Plan

MODEL_DIRECTORY = "demo-model"
START_TIMEOUT = 120
"""Seconds: without weights to load, a start that takes longer has failed."""


def demo(environ: Mapping[str, str]) -> NoReturn:
    """Make the demo model, serve it in the foreground, and exit with `run`'s code."""
    from entrypoint.run.start import become

    def load() -> Loaded:
        from entrypoint.load import load_plan

        return load_plan(environment(environ, default_base()), Path.cwd())

    become(load, environ, ready_text)


def default_base() -> Path:
    """The demo's run directory where GLM47_RUN_DIR does not name one: this user's, under TMPDIR."""
    return Path(tempfile.gettempdir(), f"glm47-runner-demo-{os.getuid()}")


def environment(environ: Mapping[str, str], base: Path) -> dict[str, str]:
    """`environ` with the demo's settings, and its model made where they name no other.

    ROLE and GLM47_ENGINE are the demo's own; what the person set otherwise, in whichever layer, stays.
    Raises ConfigError (78) for settings that cannot be read, CannotWriteError (73) for the model.
    """
    from entrypoint.commands.demo.model import make_demo_model
    from entrypoint.settings.load import load

    result = {
        **{k: v for k, v in environ.items() if k not in ("ROLE_FILE", "GLM47_ENGINE_FILE")},
        "ROLE": "single",
        "GLM47_ENGINE": "mocker",
    }
    loaded = load(result, Path.cwd())

    def given(name: str) -> bool:
        return loaded.origins[name].origin != "default"

    if not given("GLM47_RUN_DIR"):
        result["GLM47_RUN_DIR"] = str(base)
    if not given("GLM47_START_TIMEOUT"):
        result["GLM47_START_TIMEOUT"] = str(START_TIMEOUT)
    engine = Path(sys.prefix, "engine", "bin", "python")
    if not given("GLM47_PYTHON") and engine.exists():
        result["GLM47_PYTHON"] = str(engine)
    if not given("GLM47_MODEL_PATH"):
        run_dir = Path(loaded.settings.run_dir) if given("GLM47_RUN_DIR") else base
        result["GLM47_MODEL_PATH"] = str(make_demo_model(run_dir.absolute() / MODEL_DIRECTORY))
    return result


def ready_text(plan: Plan) -> str:
    """What the terminal shows once the demo is ready: how to talk to it, and how to stop it."""
    address, health = plan.endpoint("http").url, plan.endpoint("health")
    model = plan.served_model_name
    status = f"GLM47_HEALTH_PORT={health.number} {command()} status"
    return f"""
{model} is ready (a mocker answers: real stack, made-up words). Talk to it from another terminal:

  curl {address}/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}], "max_tokens": 50}}'

  curl {address}/v1/completions -H 'Content-Type: application/json' \\
    -d '{{"model": "{model}", "prompt": "Hello!", "max_tokens": 50}}'

  {command()} smoke {address}
  {status}
  curl {health.url}/readyz

Ctrl-C stops it.
"""


def command() -> str:
    """How this command is called from a shell in the current directory."""
    path = Path(sys.prefix, "bin", "glm47-runner")
    if not path.exists():
        return "glm47-runner"
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
