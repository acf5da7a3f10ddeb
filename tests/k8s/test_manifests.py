"""The manifests against the runner's own plan."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from entrypoint.errors import ConfigError
from entrypoint.load import load_plan
from entrypoint.plan.types import FrontendProbe, Plan
from tests.k8s.manifests import (
    IN_GROUPS,
    K8S,
    LAYOUTS,
    OVERLAYS,
    ROOT,
    Object,
    PodSpec,
    build,
    environ,
    named,
    of_kind,
    overlay,
    pods,
    selects,
    templates,
    with_component,
)

WORKERS = {"glm47-prefill", "glm47-decode"}
GPUS = "nvidia.com/gpu"
PAGES = ("/startupz", "/livez", "/readyz")


@cache
def planned(variables: tuple[tuple[str, str], ...]) -> Plan:
    return load_plan(dict(variables), Path("/nonexistent")).plan


def plan_of(pod: PodSpec, objects: list[Object]) -> Plan:
    return planned(tuple(sorted(environ(pod, objects).items())))


def mount_paths(pod: PodSpec) -> dict[str, Object]:
    return {m["mountPath"]: m for m in pod.container.get("volumeMounts", [])}


def under(path: str, mounts: Mapping[str, Any]) -> str:
    """The mount that `path` is on."""
    found = [m for m in mounts if path == m or path.startswith(m + "/")]
    assert found, f"{path} is on the read-only root"
    return max(found, key=len)


# -- the runner's plan


@pytest.mark.parametrize("name", OVERLAYS)
def test_pods_are_what_the_runner_plans(name: str) -> None:
    """Every variable is one the runner knows, every port one it binds, every directory one of a volume."""
    objects = overlay(name)
    for pod in pods(objects):
        agrees_with_its_plan(name, pod, objects)


def agrees_with_its_plan(name: str, pod: PodSpec, objects: list[Object]) -> None:
    plan = plan_of(pod, objects)
    assert not plan.warnings
    variables = environ(pod, objects)
    for variable in variables:
        if variable.startswith("GLM47_"):
            setting = plan.settings[variable]
            assert setting.origin == "environment"
    if variables["ROLE"] != "single":
        assert plan.roles == (variables["ROLE"],)
    bound = {p.name: p.number for p in plan.ports if not p.host.startswith("127.")}
    bound["health"] = plan.health.number
    for port in pod.container["ports"]:
        if port["name"] in ("system", "bootstrap") and port["name"] not in bound:
            assert plan.rank > 0 or "mocker" in name
            continue
        assert bound[port["name"]] == port["containerPort"]
    mounts = mount_paths(pod)
    assert under(plan.run_dir, mounts) == "/tmp"
    for process in plan.processes:
        for argument in process.argv:
            _, _, value = argument.rpartition("=")
            if value.startswith("/data"):
                assert under(value, mounts) == "/data"
        for variable in ("TRITON_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE"):
            if variable in process.env:
                assert under(process.env[variable], mounts) == "/var/cache/glm47-runner"
    if plan.needs_model and "mocker" not in name:
        assert mounts[plan.model_source]["readOnly"] is True
    if "mocker" in name:
        assert "model" not in {v["name"] for v in pod.spec["volumes"]}
    volumes = {v["name"] for v in pod.spec["volumes"]} | set(pod.claims)
    assert {m["name"] for m in mounts.values()} == volumes


@pytest.mark.parametrize("name", OVERLAYS)
def test_probes_and_budgets(name: str) -> None:
    """Probes ask pages that exist, the start-up budget outlasts the runner's own, the grace its stop."""
    objects = overlay(name)
    for pod in pods(objects):
        has_sound_probes(pod, plan_of(pod, objects))


def has_sound_probes(pod: PodSpec, plan: Plan) -> None:
    container = pod.container
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    probes = [container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")]
    assert tuple(p["httpGet"]["path"] for p in probes) == PAGES
    assert {ports[p["httpGet"]["port"]] for p in probes} == {plan.health.number}
    startup = probes[0]["periodSeconds"] * probes[0]["failureThreshold"]
    own = max([p.start_timeout or 0.0 for p in plan.processes], default=0.0)
    own += max([g.timeout for g in plan.gates], default=0.0)
    assert startup > 2 * own
    assert plan.stop_timeout + 10 <= pod.spec["terminationGracePeriodSeconds"] <= plan.stop_timeout + 30
    for process in plan.processes:
        if process.name == "frontend":
            assert process.drain is not None
            # Until the endpoint controller and every kube-proxy have heard of it.
            assert process.drain.delay >= 10


def test_health_pages_exist() -> None:
    """The pages of the probes and of the ServiceMonitor are pages of the endpoint."""
    source = (ROOT / "entrypoint" / "supervise" / "status" / "health.py").read_text()
    for page in (*PAGES, "/metrics"):
        assert f'"{page}"' in source


@pytest.mark.parametrize("name", OVERLAYS)
def test_addresses_are_services(name: str) -> None:
    """Every server that a pod is told of is a Service of a port that its pods bind and are ready on."""
    objects = overlay(name)
    made = pods(objects)
    for service in of_kind(objects, "Service"):
        chosen = [p for p in made if selects(service["spec"]["selector"], p.labels)]
        assert chosen, service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            for pod in chosen:
                ports = {p["name"]: p["containerPort"] for p in pod.container["ports"]}
                assert ports[port["targetPort"]] == port["port"]
    for pod in made:
        variables = environ(pod, objects)
        for variable in ("ETCD_ENDPOINTS", "NATS_SERVER"):
            if variable in variables:
                address = urlsplit(variables[variable])
                service = named(objects, "Service", str(address.hostname))
                assert address.port in {p["port"] for p in service["spec"]["ports"]}


@pytest.mark.parametrize("name", OVERLAYS)
def test_numbers_agree(name: str) -> None:
    """A frontend is ready with one worker of each kind; a worker uses the GPUs that its pods claim."""
    objects = overlay(name)
    made = pods(objects)
    leaders = dict.fromkeys(("prefill", "decode"), 0)
    for pod in made:
        plan = plan_of(pod, objects)
        for role in leaders:
            leaders[role] += role in plan.roles and plan.rank == 0
        for process in plan.processes:
            if "dynamo.sglang" in process.argv:
                claimed = int(pod.container["resources"]["limits"][GPUS]) * plan.nnodes
                assert process.argv[process.argv.index("--tp-size") + 1] == str(claimed)
    for pod in made:
        for process in plan_of(pod, objects).processes:
            if isinstance(process.ready, FrontendProbe):
                assert process.ready.prefill == min(1, leaders["prefill"])
                assert process.ready.backend == 1


def test_mocker_needs_nothing_special() -> None:
    """No GPU, no claim, no affinity, no toleration, no custom resource but the group itself."""
    for name in OVERLAYS:
        if not name.startswith("mocker/"):
            continue
        text = json.dumps(overlay(name))
        for word in ("nvidia.com", "resourceClaims", "podAffinity", "IPC_LOCK", "glm47-model"):
            assert word not in text, (name, word)


# -- security


@pytest.mark.parametrize("name", OVERLAYS)
def test_pods_are_locked_down(name: str) -> None:
    """The restricted pod security level, a read-only root, no token, no injected Services."""
    for pod in pods(overlay(name)):
        is_locked_down(name, pod)


def is_locked_down(name: str, pod: PodSpec) -> None:
    spec, container = pod.spec, pod.container
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    own = container["securityContext"]
    assert own["allowPrivilegeEscalation"] is False and own["readOnlyRootFilesystem"] is True
    assert own["capabilities"]["drop"] == ["ALL"]
    rdma = name in IN_GROUPS and {"prefill", "decode"} & {pod.labels["app.kubernetes.io/component"]}
    assert own["capabilities"].get("add", []) == (["IPC_LOCK"] if rdma else [])
    assert not any(spec.get(k) for k in ("hostNetwork", "hostPID", "hostIPC"))
    assert not any("hostPath" in v for v in spec["volumes"])
    for entry in container["env"]:
        assert "PASSWORD" not in entry["name"] and "TOKEN" not in entry["name"]


def test_external_servers_credentials_are_files(tmp_path: Path) -> None:
    """Credentials are read from the Secret's files, and no password is in the plan."""
    objects = with_component("external-servers", tmp_path)
    assert not [o for o in objects if "etcd" in o["metadata"]["name"] or "nats" in o["metadata"]["name"]]
    secret = tmp_path / "servers"
    secret.mkdir()
    for pod in pods(objects):
        mount = mount_paths(pod)["/etc/glm47/servers"]
        assert mount["readOnly"] is True
        variables = environ(pod, objects)
        files = {k: v for k, v in variables.items() if k.endswith("_FILE")}
        assert len(files) == 4
        for variable, path in files.items():
            file = secret / Path(path).name
            file.write_text(f"hunter2-{variable}")
            variables[variable] = str(file)
        plan = load_plan(variables, tmp_path).plan
        (process,) = plan.processes
        assert process.env["ETCD_AUTH_PASSWORD"] == "hunter2-GLM47_ETCD_PASSWORD_FILE"
        assert process.env["NATS_AUTH_PASSWORD"] == "hunter2-GLM47_NATS_PASSWORD_FILE"
        assert {"ETCD_AUTH_PASSWORD", "NATS_AUTH_PASSWORD"} <= process.secret_env


# -- layouts


def test_multi_node_groups() -> None:
    """Workers of two ranks, leader and follower, restarted as one; prefill and decode of the same TP."""
    objects = overlay("multi-node")
    assert not [o for o in of_kind(objects, "StatefulSet") if o["metadata"]["name"] in WORKERS]
    groups = of_kind(objects, "LeaderWorkerSet")
    assert {g["metadata"]["name"] for g in groups} == WORKERS
    for group in groups:
        assert group["spec"]["leaderWorkerTemplate"]["restartPolicy"] == "RecreateGroupOnPodRestart"
    workers = [p for p in pods(objects) if p.owner in WORKERS]
    assert [p.name for p in workers] == [
        *("glm47-decode-0", "glm47-decode-0-1"),
        *("glm47-prefill-0", "glm47-prefill-0-1", "glm47-prefill-1", "glm47-prefill-1-1"),
    ]
    domain = named(objects, "ComputeDomain", "glm47")["spec"]
    assert domain["numNodes"] == len(workers)
    for index, pod in enumerate(workers):
        plan = plan_of(pod, objects)
        leader = pod.name.removesuffix("-1") if index % 2 else pod.name
        assert (plan.rank, plan.nnodes, plan.roles) == (index % 2, 2, (pod.owner.removeprefix("glm47-"),))
        assert f"{leader}.{pod.owner}.default:29500" in plan.processes[0].argv
        # They watch each other by the names that the controller gives.
        assert plan.job is not None
        other = leader if index % 2 else f"{leader}-1"
        assert [peer.url for peer in plan.job.peers] == [f"http://{other}.{pod.owner}.default:9480"]
        assert plan.layouts[0].attention_tp == 8
        (claim,) = pod.spec["resourceClaims"]
        assert claim["resourceClaimTemplateName"] == domain["channel"]["resourceClaimTemplate"]["name"]
        assert pod.container["resources"]["claims"] == [{"name": claim["name"]}]
        (term,) = pod.spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert selects(term["labelSelector"]["matchLabels"], pod.labels)
        ours, theirs = (
            {k: v for k, v in c.items() if k not in ("env", "ports")}
            for c in (pod.container, workers[-1].container)
        )
        assert ours == theirs


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_every_pod_refuses_a_pair_that_does_not_fit(layout: str) -> None:
    """One setting for all of them: whoever changes one side's TP alone is told by all three roles."""
    objects = overlay(layout)
    for settings in of_kind(objects, "ConfigMap"):
        settings["data"]["GLM47_DECODE_TP"] = "1"
    for pod in pods(objects):
        if pod.labels["app.kubernetes.io/component"] in ("etcd", "nats"):
            continue
        with pytest.raises(ConfigError, match="cannot pair prefill and decode workers"):
            plan_of(pod, objects)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_can_be_set(layout: str, tmp_path: Path) -> None:
    """`kustomize edit set image` reaches every pod, the group's included; etcd and NATS by their own name."""
    copied = tmp_path / "k8s"
    subprocess.run(["cp", "-r", K8S, copied], check=True)
    mine = copied / "mine"
    mine.mkdir()
    image = {"name": "glm47-runner", "newName": "registry.example.com/glm47-runner", "newTag": "1.2.3"}
    (mine / "kustomization.yaml").write_text(
        yaml.safe_dump({"resources": [f"../{layout}"], "images": [image]})
    )
    servers = 0
    for owner, template in templates(build(mine)):
        (container,) = template["spec"]["containers"]
        if owner["metadata"]["name"] in ("glm47-etcd", "glm47-nats"):
            servers += 1
            assert container["image"] == "glm47-runner-servers:0.1.0"
        else:
            assert container["image"] == "registry.example.com/glm47-runner:1.2.3"
    assert servers == (0 if layout == "single-node" else 2)


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_etcd_has_three_members(layout: str) -> None:
    """Each pod is one of the list, by its own name; they start at once, and a drain takes one."""
    objects = overlay(layout)
    etcd = named(objects, "StatefulSet", "glm47-etcd")["spec"]
    assert (etcd["replicas"], etcd["podManagementPolicy"]) == (3, "Parallel")
    assert etcd["template"]["spec"]["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "ScheduleAnyway"
    members = [pod for pod in pods(objects) if pod.owner == "glm47-etcd"]
    listed = [f"{pod.name}.{etcd['serviceName']}" for pod in members]
    for pod in members:
        variables = environ(pod, objects)
        assert variables["GLM47_ETCD_MEMBERS"] == ",".join(listed)
        plan = load_plan({**variables, "GLM47_ETCD_MEMBER": listed[0]}, Path("/nonexistent")).plan
        assert f"--name={listed[0]}" in plan.process("etcd").argv
    budget = named(objects, "PodDisruptionBudget", "glm47-etcd")["spec"]
    assert budget["maxUnavailable"] == 1 and budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert all(selects(budget["selector"]["matchLabels"], pod.labels) for pod in members)
