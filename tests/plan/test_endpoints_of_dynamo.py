"""Dynamo's own command line, in the installed release, takes the address that the plan says."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.plan.deployments import HEAD, Container, build
from tests.plan.test_endpoints import API, HOSTS, both
from tests.support.stack import ENGINE

ASK = """
import json, os, sys
from dynamo.frontend import main
found = []
for argv, environ in json.load(sys.stdin):
    for name in ("DYN_HTTP_HOST", "DYN_HTTP_PORT"):
        os.environ.pop(name, None)
    os.environ.update(environ)
    sys.argv = ["frontend", *argv]
    flags = main.parse_args()
    found.append((flags.http_host, flags.http_port))
print(json.dumps(found))
"""


@pytest.mark.skipif(
    not (ENGINE / "python").exists(), reason="the engine's environment is not there: make setup"
)
def test_the_frontend_takes_what_is_planned() -> None:
    cases: list[tuple[list[str], dict[str, str]]] = []
    planned: list[tuple[str, int]] = []
    for way in API.values():
        for host in HOSTS.values():
            given, native = both(way, host)
            plan = build(Container({**HEAD, "role": "frontend", **given}, native=native))
            frontend, endpoint = plan.process("frontend"), plan.endpoint("http")
            cases.append(([*frontend.argv[3:]], {**native, **frontend.env}))
            planned.append((endpoint.host.strip("[]"), endpoint.number))
    done = subprocess.run(
        [str(ENGINE / "python"), "-c", ASK],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    assert [(host.strip("[]"), port) for host, port in found] == planned
