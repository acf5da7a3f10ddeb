"""The rows of the table: environment, arguments and command against answer, health and exit code."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tests.container.harness import DEMO_MODEL, MOCKER

CLUSTER = {"ETCD_ENDPOINTS": "http://servers:2379", "NATS_SERVER": "nats://servers:4222"}
NOWHERE = {"ETCD_ENDPOINTS": "http://etcd-nowhere:2379", "NATS_SERVER": "nats://nats-nowhere:4222"}
SINGLE = {**MOCKER, "ROLE": "single"}
WORKER = {**MOCKER, **CLUSTER}


@dataclass(frozen=True)
class Ends:
    """A container that ends by itself."""

    id: str
    code: int
    output: str
    """A regular expression that its whole output must contain."""
    env: dict[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    silent: str | None = None
    """What its output must not contain."""


@dataclass(frozen=True)
class Serves:
    """A container that becomes healthy, and leaves with 0 when it is stopped."""

    id: str
    env: dict[str, str]
    args: tuple[str, ...] = ()
    cluster: bool = False
    """On the network with etcd and NATS."""
    answers: bool = False
    """A chat completion comes back through its port 8000."""
    inside: tuple[str, ...] = ()
    """A command that must succeed inside."""
    output: str = ""


def bash(script: str) -> tuple[str, ...]:
    return ("bash", "-c", script)


CLICK = "import click; print(click.__version__)"
HARD = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")
READ_ONLY = ("--read-only", "--tmpfs", "/tmp")
NO_SUBREAPER = ("--security-opt", f"seccomp={Path(__file__).with_name('no-subreaper.json')}")
JETSTREAM = "http://127.0.0.1:8222/healthz?js-enabled-only=true"

ENDS = [
    # -- commands
    Ends("version", 0, r"^glm47-runner,? .*\d+\.\d+", command=("--version",)),
    Ends("help", 0, r"plan\b.*\bprobe", command=("--help",)),
    Ends("plan", 0, r"aggregated", {"ROLE": "single"}, command=("plan",)),
    Ends("plan-json", 0, r'"processes"', SINGLE, command=("plan", "--format", "json")),
    Ends("other-command", 7, r"^$", command=bash("exit 7")),
    Ends("other-command-unchanged", 0, r"^a b\|\$HOME\|$", command=("printf", "%s|", "a b", "$HOME")),
    Ends("unknown-command", 127, r"cannot run: plann: no such command: did you mean `plan`",
         command=("plann",)),
    Ends("not-executable", 126, r"cannot run: /etc/passwd: Permission denied", command=("/etc/passwd",)),
    Ends("pyxis-entrypoint", 0, r"^$", command=("sh", "-c", "exit 0")),
    Ends("probe-nobody", 1, r"cannot ask http://127\.0\.0\.1:9480: .*is the runner up",
         command=("probe", "live")),
    Ends("patch-check", 0, r"modelopt: applied .*glm4_moe_routing: applied", command=("patch", "check")),
    Ends("engine-python-intact", 0, r"^8\.1\.", command=("python3", "-c", CLICK)),
    # -- wrong settings
    Ends("unknown-setting", 78, r"GLM47_MODEL_PAHT.*GLM47_MODEL_PATH", {**SINGLE, "GLM47_MODEL_PAHT": "/m"}),
    Ends("unknown-role", 78, r"cannot .*ROLE.*prefil.*prefill", {**MOCKER, "ROLE": "prefil"}),
    Ends("bad-number", 78, r"GLM47_HTTP_PORT.*eighty", {**SINGLE, "GLM47_HTTP_PORT": "eighty"}),
    Ends("both-value-and-file", 78, r"GLM47_API_KEY.*GLM47_API_KEY_FILE",
         {**SINGLE, "GLM47_API_KEY": "hunter2", "GLM47_API_KEY_FILE": "/run/secrets/key"}, silent="hunter2"),
    Ends("port-twice", 78, r"cannot use port 8000 twice", {**SINGLE, "GLM47_HEALTH_PORT": "8000"}),
    Ends("no-etcd-named", 78, r"no etcd is named", {**MOCKER, "ROLE": "aggregated"}),
    Ends("all-problems-at-once", 78, r"(?s)GLM47_HTTP_PORT.*GLM47_TP|GLM47_TP.*GLM47_HTTP_PORT",
         {**SINGLE, "GLM47_HTTP_PORT": "0", "GLM47_TP": "none"}),
    # -- what is missing
    Ends("model-missing", 66, r"cannot .*/model", {"ROLE": "single"}),
    Ends("etcd-silent", 69, r"ETCD_ENDPOINTS",
         {**MOCKER, **NOWHERE, "ROLE": "aggregated", "GLM47_SERVER_TIMEOUT": "2"}),
    Ends("nothing-writable", 73, r"cannot write GLM47_RUN_DIR: /tmp/glm47-runner", SINGLE, ("--read-only",)),
    # -- check
    Ends("check-shm", 78, r"problem +/dev/shm .*64 ?MiB.*--shm-size",
         {"ROLE": "single", "GLM47_MODEL_PATH": DEMO_MODEL}, command=("check",)),
    Ends("check-fine", 0, r"", SINGLE, command=("check",)),
]  # fmt: skip

SERVES = [
    # -- each role
    Serves("etcd", {"ROLE": "etcd"}, inside=("curl", "-sf", "http://127.0.0.1:2379/health")),
    Serves("nats", {"ROLE": "nats"}, inside=("curl", "-sf", JETSTREAM)),
    Serves("single", SINGLE, answers=True, inside=("glm47-runner", "status")),
    Serves("aggregated", {**WORKER, "ROLE": "aggregated", "GLM47_NAMESPACE": "t-agg"}, cluster=True),
    Serves("prefill", {**WORKER, "ROLE": "prefill", "GLM47_NAMESPACE": "t-prefill"}, cluster=True),
    Serves("decode", {**WORKER, "ROLE": "decode", "GLM47_NAMESPACE": "t-decode"}, cluster=True),
    # -- several in one
    Serves("frontend+aggregated", {**WORKER, "ROLE": "frontend,aggregated", "GLM47_NAMESPACE": "t-fa"},
           cluster=True, answers=True),
    Serves("everything", {**MOCKER, "ROLE": "decode,nats,frontend,etcd,prefill"}, answers=True),
    # -- hardened
    Serves("read-only", SINGLE, READ_ONLY, answers=True),
    Serves("foreign-user", SINGLE, ("--user", "12345"), answers=True),
    Serves("foreign-user-and-group", SINGLE, ("--user", "12345:12345"), answers=True),
    Serves("root", SINGLE, ("--user", "0"), answers=True),
    Serves("no-capabilities", SINGLE, HARD, answers=True),
    Serves("all-of-it", SINGLE, (*READ_ONLY, *HARD, "--user", "12345", "--pids-limit", "300"), answers=True),
    Serves("with-init", SINGLE, ("--init",), answers=True),
    Serves("no-subreaper", SINGLE, NO_SUBREAPER, answers=True),
    Serves("no-subreaper-with-init", SINGLE, ("--init", *NO_SUBREAPER), output="may outlive it"),
    # -- settings
    Serves("other-name", {**SINGLE, "GLM47_SERVED_MODEL_NAME": "zai-org/GLM-4.7"},
           inside=("glm47-runner", "smoke", "http://127.0.0.1:8000")),
    Serves("json-logs", {**SINGLE, "GLM47_LOG_FORMAT": "json"}, output=r'(?m)^\{.*"aggregated".*\}$'),
]  # fmt: skip
