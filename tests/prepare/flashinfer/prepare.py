"""Does what `run` does before a start, and starts the harness in the engine's place.

    python -m tests.prepare.flashinfer.prepare SITE BASE FUNCTION…

One line of JSON: what was said, and each function's outcome; or the error and its exit code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from entrypoint.errors import RunnerError
from entrypoint.plan.types import FlashInfer
from entrypoint.prepare.flashinfer.for_plan import make_usable
from tests.prepare.flashinfer import packages
from tests.support import plans


def main() -> None:
    site, base, *functions = sys.argv[1:]
    flashinfer = FlashInfer(
        package=f"{site}/flashinfer",
        cubins=f"{site}/flashinfer_cubin" if Path(site, "flashinfer_cubin").exists() else None,
        links=f"{base}/flashinfer-cubin",
        cutlass=True,
    )
    workspace = packages.environment(Path(site), Path(base, "flashinfer"))
    worker = plans.process("aggregated", argv=("python3", "-m", "dynamo.sglang"), env=workspace)
    try:
        plan, lines = make_usable(plans.plan(worker, flashinfer=flashinfer), os.environ)
    except RunnerError as error:
        print(json.dumps({"error": str(error), "code": error.exit_code}))
        return
    done = subprocess.run(
        [packages.ENGINE, packages.HARNESS, "call", *functions],
        env={**os.environ, **plan.process("aggregated").env},
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    print(json.dumps({"said": lines, "outcome": json.loads(done.stdout)}))


if __name__ == "__main__":
    main()
