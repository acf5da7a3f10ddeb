"""Installs the CPU engine ahead of the tests: the pinned release, or those that are named."""

from __future__ import annotations

import sys

from bench.releases import UnavailableError
from tests.support.cpu_engine.install import PINNED, engine_python

try:
    for release in sys.argv[1:] or [PINNED]:
        print(engine_python(release))
except UnavailableError as error:
    sys.exit(f"cannot install the CPU engine: {error}")
