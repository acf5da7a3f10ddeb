"""Writes what the Helm chart takes from kustomize: `python -m tests.k8s.chart_files`.

The objects of its layouts and the patches of its components go to k8s/chart/files, the runner's settings into
values.schema.json, and the table of values into the chart's README. A test compares.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from entrypoint.settings.schema import Settings, variable_of
from tests.k8s.manifests import K8S, Object, built

CHART = K8S / "chart"
RELEASE = "xxreleasexx"
"""Stands for the release's name: the prefix of names, the instance, Dynamo's namespace."""
NAME = f"{RELEASE}-glm47"
TABLE = ("<!-- values: tests/k8s/chart_files.py -->\n", "<!-- end of values -->\n")
COMPONENTS = (
    "external-servers",
    "monitoring",
    "nvlink-domain",
    "events",
    "hpa",
    "keda",
    "keda-auth",
    "kubernetes-discovery",
)
"""Those that bring objects."""
WITHOUT_ETCD = {"external-servers", "kubernetes-discovery"}
PATCHES = {
    "mocker-model": "mocker/model.yaml",
    "mocker-worker": "mocker/worker.yaml",
    "rdma": "rdma/worker.yaml",
    "nvlink-domain": "nvlink-domain/worker.yaml",
    "external-servers": "external-servers/credentials.yaml",
    "etcd-tls": "etcd-tls/worker.yaml",
    "nats-auth": "nats-auth/worker.yaml",
    "nats-tls": "nats-tls/worker.yaml",
    "events": "events/pod.yaml",
    "status-token": "status-token/pod.yaml",
    "kubernetes-discovery": "kubernetes-discovery/client.yaml",
}


def deployment(layout: str, components: tuple[str, ...], directory: Path) -> dict[str, Object]:
    """A layout as a second deployment is made of it, by kind and name; the name without its prefix."""
    text = (K8S / "second-deployment" / "kustomization.yaml").read_text().replace("blue", RELEASE)
    kustomization = yaml.safe_load(text)
    kustomization["resources"] = [f"../{layout}"]
    kustomization["components"] = [f"../components/{component}" for component in components]
    if layout == "single-node" or WITHOUT_ETCD & set(components):
        del kustomization["configMapGenerator"], kustomization["patches"]
    found = {}
    # The hash of a ConfigMap's name: the chart makes one of its own.
    text = re.sub(r"(-settings)-[a-z0-9]{10}\b", r"\1", json.dumps(built(directory, kustomization)))
    for o in json.loads(text):
        name = o["metadata"]["name"]
        found[f"{o['kind']}/{name.removeprefix(NAME).removeprefix('-') or 'glm47'}"] = o
    return found


def _text(objects: Mapping[str, Object]) -> str:
    return json.dumps(objects, indent=1, sort_keys=True) + "\n"


def files() -> dict[str, str]:
    """What k8s/chart/files has: texts by name."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        single = deployment("single-node", (), directory)
        plain = deployment("1p1d", (), directory)
        groups = deployment("1p1d", ("prefill-group", "decode-group"), directory)
        made = {
            "single.json": _text(single),
            "disaggregated.json": _text(plain),
            "groups.json": _text({k: v for k, v in groups.items() if v != plain.get(k)}),
        }
        with_account = deployment("1p1d", ("events",), directory)
        for component in COMPONENTS:
            listed: tuple[str, ...] = (component,)
            there = plain
            if component == "kubernetes-discovery":
                # It grants the same to the account of events: named by the release only if it is there.
                listed, there = (component, "events"), with_account
            elif component == "keda-auth":
                there = deployment("1p1d", ("keda",), directory)
            more = deployment("1p1d", listed, directory)
            made[f"{component}.json"] = _text({k: v for k, v in more.items() if k not in there})
    for name, path in PATCHES.items():
        patch = yaml.safe_load((K8S / "components" / path).read_text())["spec"]["template"]
        # A file of the chart is read with the release's name in its places.
        text = _text(patch).replace("glm47-channel", f"{NAME}-channel")
        text = text.replace('"serviceAccountName": "glm47', f'"serviceAccountName": "{NAME}')
        made[f"patch-{name}.json"] = text.replace('instance": "glm47"', f'instance": "{RELEASE}"')
    return made


def settings() -> list[str]:
    """The names of the runner's settings, those of their files too; without ROLE, which a pod has."""
    names = [variable_of(name) for name in Settings.model_fields if name != "role"]
    return sorted([*names, *(f"{name}_FILE" for name in names)])


def schema() -> str:
    """values.schema.json with the runner's settings as they are now."""
    found = json.loads((CHART / "values.schema.json").read_text())
    found["$defs"]["settings"]["propertyNames"] = {"enum": settings()}
    return json.dumps(found, indent=2) + "\n"


def described() -> list[tuple[str, str, Any]]:
    """(name, meaning, default) of every value: the remark above it is its meaning.

    AssertionError for a value without one.
    """
    rows = []
    path: list[str] = []
    remark: list[str] = []
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    for number, line in enumerate((CHART / "values.yaml").read_text().splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("#"):
            remark.append(stripped.lstrip("# "))
        elif found := re.match(r"( *)([A-Za-z]+):", line):
            depth = len(found[1]) // 2
            path = [*path[:depth], found[2]]
            value = defaults
            for key in path:
                value = value[key]
            assert remark, f"values.yaml:{number}: {'.'.join(path)} has no meaning"
            if not (isinstance(value, dict) and value):
                rows.append((".".join(path), " ".join(remark), value))
            remark = []
        else:
            remark = []
    return rows


def readme() -> str:
    """The chart's README with the table of values as they are now."""
    rows = [f"| `{name}` | {meaning} | `{json.dumps(value)}` |\n" for name, meaning, value in described()]
    text = (CHART / "README.md").read_text()
    before, _, rest = text.partition(TABLE[0])
    _, _, after = rest.partition(TABLE[1])
    table = "".join(["| value | what | default |\n", "|---|---|---|\n", *rows])
    return before + TABLE[0] + table + TABLE[1] + after


def main() -> None:
    """Write them all."""
    for name, text in files().items():
        (CHART / "files" / name).write_text(text)
    (CHART / "values.schema.json").write_text(schema())
    (CHART / "README.md").write_text(readme())


if __name__ == "__main__":
    main()
