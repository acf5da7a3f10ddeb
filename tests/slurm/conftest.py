"""A Slurm cluster of six nodes for the session, and what the tests do with it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from entrypoint.commands.demo.model import make_demo_model
from tests.slurm import image as images
from tests.slurm.cluster import USER, Cluster, missing, wait_for

STANDIN = Path(__file__).parent / "standin"
SBATCH = images.REPOSITORY / "sbatch"


def chosen(config: pytest.Config) -> bool:
    """Whether the minutes that the cluster takes were asked for."""
    return os.environ.get("GLM47_CI_SLURM") == "1" or "slurm" in str(config.getoption("-m"))


def not_here() -> str | None:
    """Why no Slurm test can run on this machine."""
    reason = missing()
    if reason is None and not (images.ENGINE / "bin" / "python").exists():
        reason = f"{images.ENGINE} is missing: make setup"
    return reason


@pytest.fixture(scope="session")
def base(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory that everybody can read, outside of /tmp, which is private in containers."""
    reason = not_here()
    if reason is not None:
        if os.environ.get("GLM47_CI_SLURM") == "1":
            pytest.fail(f"GLM47_CI_SLURM=1 promised a Slurm cluster: {reason}", pytrace=False)
        pytest.skip(reason)
    if not chosen(request.config):
        pytest.skip("takes four minutes: ask for it with -m slurm or GLM47_CI_SLURM=1")
    path = Path(tempfile.mkdtemp(prefix="glm47-slurm-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    if not os.environ.get("GLM47_KEEP_SLURM"):
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def image(base: Path) -> Iterator[Path]:
    """The unpacked image."""
    path = base / "glm47-runner.sqsh"
    try:
        images.make(path)
        yield path
    finally:
        images.remove(path)


@pytest.fixture(scope="session")
def model(base: Path) -> Path:
    """A small model with the original's defect, readable by everybody."""
    path = make_demo_model(base / "models" / "GLM-4.7-NVFP4")
    for each in (path.parent, path, *path.iterdir()):
        each.chmod(0o755 if each.is_dir() else 0o644)
    return path


@pytest.fixture(scope="session")
def six_nodes(base: Path, image: Path) -> Iterator[Cluster]:
    """The cluster. The image comes first: a node sees only what was mounted before it started."""
    # Copies: the repository may lie where the unprivileged user of the jobs cannot look.
    shutil.copytree(STANDIN, base / "bin")
    shutil.copytree(SBATCH, base / "sbatch", ignore=shutil.ignore_patterns("site.env"))
    cluster = Cluster(base / "cluster", bin_first=base / "bin")
    cluster.up()
    yield cluster
    cluster.down()


@pytest.fixture(scope="session")
def old_engine(image: Path) -> Path:
    """An interpreter, in the image, with the pinned releases beside it by name only; never started."""
    root = Path("/opt/old-engine")
    real = image / "rootfs" / "opt" / "old-engine"
    site = real / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    (real / "bin").mkdir()
    (real / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    (real / "bin" / "python").chmod(0o755)
    (real / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.2\n")
    for name in ("ai_dynamo-0.8.1", "sglang-0.5.6.post2", "flashinfer_python-0.5.3"):
        (site / f"{name}.dist-info").mkdir()
    for package in ("dynamo", "sglang"):
        (site / package).mkdir()
        (site / package / "__init__.py").touch()
    return root / "bin" / "python"


@dataclass
class Job:
    """A submitted job."""

    cluster: Cluster
    number: int
    directory: Path
    image: Path

    @property
    def output(self) -> str:
        """What the batch script has printed so far."""
        found = sorted(self.directory.glob(f"*-{self.number}.out"))
        return found[0].read_text() if found else ""

    @property
    def logs(self) -> Path:
        """The job's log directory (of its latest start)."""
        return sorted((self.directory / "logs").glob(f"{self.number}_*"))[-1]

    @property
    def state(self) -> str:
        return self.cluster.job(self.number)["JobState"]

    @property
    def exit_code(self) -> str:
        """Slurm's `code:signal`."""
        return self.cluster.job(self.number)["ExitCode"]

    def wait_ready(self, seconds: float = 60) -> str:
        """The API's address once the job says it is ready."""

        def ready() -> bool:
            if self.state not in ("PENDING", "RUNNING", "CONFIGURING"):
                raise AssertionError(f"the job is {self.state}:\n{self.everything()}")
            return "ready: http://" in self.output

        try:
            wait_for(ready, seconds, "ready")
        except TimeoutError:
            raise AssertionError(f"not ready:\n{self.everything()}") from None
        return self.output.rpartition("ready: ")[2].split()[0]

    def wait_over(self, seconds: float = 60) -> str:
        """The final state."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
        try:
            wait_for(lambda: self.state in over, seconds, "end")
        except TimeoutError:
            raise AssertionError(f"the job is {self.state}:\n{self.everything()}") from None
        return self.state

    def everything(self) -> str:
        """Output and logs, for a failed test."""
        parts = [self.output]
        for path in sorted((self.directory / "logs").glob(f"{self.number}_*/*")):
            parts.append(
                f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-40:])
            )
        return "\n".join(parts)

    def cancel(self, *options: str) -> None:
        self.cluster.as_user("scancel", *options, str(self.number))

    def pid(self, node: str, words: str) -> int:
        """The only process on `node` whose command line holds `words` (seen from the node)."""
        found = self.cluster.on_node(node, "pgrep", "-f", words).split()
        assert len(found) == 1, found
        return int(found[0])


@dataclass
class Submitter:
    """Submits jobs from a directory of its own."""

    cluster: Cluster
    image: Path
    model: Path
    directory: Path
    jobs: list[Job]

    def __call__(self, script: str, *options: str, **settings: str) -> Job:
        """`sbatch` of one of the repository's scripts."""
        env = {
            "SITE_IMAGE": str(self.image),
            "GLM47_MODEL_PATH": str(self.model),
            "GLM47_ENGINE": "mocker",
            "GLM47_START_TIMEOUT": "90",
            "STANDIN_SRUN": shutil.which("srun") or "",
            "SITE_ENV": "/nonexistent",
            **settings,
        }
        argv = ["sbatch", "--parsable", *options, str(self.cluster.base.parent / "sbatch" / script)]
        number = int(self.cluster.as_user(*argv, env=env, cwd=self.directory))
        job = Job(self.cluster, number, self.directory, self.image)
        self.jobs.append(job)
        return job


@pytest.fixture
def submit(
    six_nodes: Cluster, image: Path, model: Path, request: pytest.FixtureRequest
) -> Iterator[Submitter]:
    """Call it to submit a job; whatever still runs afterwards is killed."""
    directory = six_nodes.shared / request.node.name
    directory.mkdir()
    os.chown(directory, USER, USER)
    submitter = Submitter(six_nodes, image, model, directory, [])
    yield submitter
    for job in submitter.jobs:
        if job.state in ("RUNNING", "PENDING", "COMPLETING"):
            job.cancel("--full", "--signal=KILL")
    wait_for(lambda: six_nodes.idle() == len(six_nodes.names), 40, "all nodes idle again")


def ask(cluster: Cluster, url: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """GET or POST, with the nodes' names resolved as on the nodes."""
    host, _, port = url.removeprefix("http://").partition(":")
    request = urllib.request.Request(
        f"http://{cluster.address(host)}:{port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        data = json.loads(answer.read())
    assert isinstance(data, dict)
    return data


def chat(cluster: Cluster, url: str, tokens: int = 8) -> dict[str, Any]:
    """A chat completion."""
    message = {"role": "user", "content": "Hello!"}
    return ask(
        cluster,
        url,
        "/v1/chat/completions",
        {"model": "glm-4.7", "messages": [message], "max_tokens": tokens},
    )


def seconds_since(moment: float) -> float:
    return time.monotonic() - moment
