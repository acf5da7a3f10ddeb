"""SGLang itself, on the CPU, in the pods of 1p1d: locked down as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.k8s.cluster import COMPONENT, cluster
from tests.k8s.kubernetes import Kubernetes
from tests.k8s.manifests import Object
from tests.support import cpu_engine
from tests.support.cpu_engine import container

pytestmark = [pytest.mark.container, pytest.mark.engine_more]

HAVE_THE_ENGINE = ("frontend", "prefill", "decode")


def add_engine(template: Object, mounts: dict[Path, str]) -> None:
    """Let a pod of the mocker start the CPU engine instead."""
    (runner,) = template["spec"]["containers"]
    one_gpu = dict.fromkeys(("GLM47_GPUS_PER_NODE", "GLM47_PREFILL_TP", "GLM47_DECODE_TP"), "1")
    environment = container.environment() | one_gpu
    kept = [each for each in runner["env"] if each["name"] not in environment]
    runner["env"] = kept + [{"name": name, "value": value} for name, value in environment.items()]
    for number, (here, there) in enumerate(mounts.items()):
        name = f"cpu-engine-{number}"
        volume = {"name": name, "hostPath": {"path": str(here), "type": "Directory"}}
        template["spec"].setdefault("volumes", []).append(volume)
        runner["volumeMounts"].append({"name": name, "mountPath": there, "readOnly": True})


def test_1p1d(kubernetes: Kubernetes, images: dict[str, str], tmp_path: Path) -> None:
    """Prefill and decode in pods of their own, as uid 1000 on a read-only root."""
    mounts = container.mounts(tmp_path)
    asked = cpu_engine.prompts()
    right = cpu_engine.reference(container.model_of(tmp_path), asked)

    def change(template: Object) -> None:
        if template["metadata"]["labels"].get(COMPONENT) in HAVE_THE_ENGINE:
            add_engine(template, mounts)

    with cluster(kubernetes, images, "mocker/1p1d", change) as made:
        made.until_ready(400)
        assert cpu_engine.greedy(made.url(), asked) == right
        assert cpu_engine.greedy(made.url(), asked * 2, at_once=4) == right * 2
        for component in ("decode", "prefill"):
            (pod,) = made.of(component)
            made.kubectl("delete", f"statefulset/glm47-{component}", "--wait=false")
            assert pod.until_ended().code == 0, pod.logs()
