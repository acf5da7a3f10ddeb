"""What checkov finds in the rendered objects, from an environment of its own (`make checkov`)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.releases import UnavailableError
from tests.k8s import chart
from tests.k8s.manifests import LAYOUTS, OVERLAYS, Object, overlay, templates, with_component
from tests.k8s.test_chart import EVERYTHING
from tests.k8s.test_overlays import FITTING
from tests.support.available import available

pytestmark = pytest.mark.checkov
ALLOWED: dict[str, str] = yaml.safe_load(Path(__file__).with_name("checkov.yaml").read_text())
"""Checks that may fail, and why."""
ONLY = {
    "CKV_K8S_8": r"/chart-\S+ Pod\.default\.glm47-smoke$",
    "CKV_K8S_9": r"/chart-\S+ Pod\.default\.glm47-smoke$",
    "CKV_K8S_38": r"/(chart-|component-(events|kubernetes-discovery)\.yaml)",
}
"""Where they alone may fail: file and object."""


@cache
def checkov() -> Path:
    """The program; skips without it, fails when CI=true."""

    def get() -> Path:
        found = Path(sys.prefix, "checkov/bin/checkov")
        if not found.is_file():
            raise UnavailableError(f"no {found}: make checkov installs it")
        return found

    return available(get)


def looked_at(objects: list[Object]) -> list[Object]:
    """What checkov knows: pods in place of LeaderWorkerSets, each object once by name."""
    made = []
    for o in objects:
        if o["kind"] == "LeaderWorkerSet":
            ((_, template),) = templates([o])
            labels = template["metadata"]["labels"]
            made.append(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": o["metadata"]["name"], "labels": labels},
                    "spec": template["spec"],
                }
            )
        else:
            made.append(o)
    return made


def findings(directory: Path, sources: dict[str, list[Object]]) -> list[tuple[str, str, str]]:
    """(check, its name, what failed it) of everything in `sources`."""
    directory.mkdir(exist_ok=True)
    for name, objects in sources.items():
        path = directory / f"{name.replace('/', '-')}.yaml"
        path.write_text(yaml.safe_dump_all(looked_at(objects)))
    command = [
        str(checkov()),
        "-d",
        str(directory),
        "-o",
        "json",
        "--framework",
        "kubernetes",
        "--quiet",
        "--compact",
    ]
    # It would ask its maker's server what checks are called there.
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(directory), "BC_SKIP_MAPPING": "TRUE"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environ)
    report: Any = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0, report["summary"]
    assert report["summary"]["passed"] > 100 or len(sources) == 1
    return [
        (c["check_id"], c["check_name"], f"{c['file_path']} {c['resource']}")
        for c in report["results"]["failed_checks"]
    ]


def components(directory: Path) -> dict[str, list[Object]]:
    """What each component adds to a layout, or changes of it."""
    made = {}
    for component, layouts in FITTING.items():
        layout = "1p1d" if "1p1d" in layouts else layouts[0]
        plain = overlay(layout)
        changed = [o for o in with_component(component, directory, layout) if o not in plain]
        assert changed, component
        made[f"component-{component}"] = changed
    return made


def test_nothing_is_found_but_what_has_a_reason(tmp_path: Path) -> None:
    """kustomize's objects, its components, and the chart's, its hooks included."""
    sources = {name: overlay(name) for name in (*OVERLAYS, "bench", "second-deployment")}
    sources |= components(tmp_path)
    sources |= {f"chart-{layout}": chart.render(chart.values(layout), EVERYTHING) for layout in LAYOUTS}
    found = findings(tmp_path / "looked-at", sources)
    assert not [f for f in found if f[0] not in ALLOWED]
    assert {f[0] for f in found} == set(ALLOWED), "a check of checkov.yaml that nothing fails"
    for check, places in ONLY.items():
        assert not [f for f in found if f[0] == check and not re.match(places, f[2])], check


def test_it_sees_into_groups(tmp_path: Path) -> None:
    """A fault of a group's pods alone is found."""
    objects = overlay("multi-node")
    for owner, template in templates(objects):
        if owner["kind"] == "LeaderWorkerSet":
            template["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    (check,) = {f[0] for f in findings(tmp_path, {"one": objects})} - set(ALLOWED)
    assert check == "CKV_K8S_20"
