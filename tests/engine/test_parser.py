"""The parser that is read without torch is the one that the engine has with it."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from entrypoint.prepare.parser.ask import Question
from tests.support.cpu_engine import SHIM, engine_python
from tests.support.runner import ROOT

WITH_TORCH = """
import json, sys
sys.path.append(sys.argv[1])
from entrypoint.prepare.parser.asked import Question
sys.path.remove(sys.argv[1])
answer = Question("dynamo.sglang", [["--model-path", "/model"]], []).answer(["*"])
print(json.dumps(answer["options"]))
"""
"""The same question with everything imported as the engine does."""


def test_options_and_choices_are_the_engines(release: str) -> None:
    python = engine_python(release)
    environ = {**os.environ, "PYTHONPATH": str(SHIM)}
    command = [python, "-c", WITH_TORCH, str(ROOT)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    real: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    argv = (python, "-m", "dynamo.sglang", "--model-path", "/model")
    read = Question("decode", argv, environ, ["*"]).answer(120.0)
    assert read.silent is None
    assert [dict(options) for options in read.options] == real
    assert sum(map(len, real)) > 300
    with_choices = [choices for options in real for choices in options.values() if choices]
    assert len(with_choices) > 30
