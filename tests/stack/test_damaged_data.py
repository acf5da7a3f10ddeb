"""The real etcd and NATS over data that they cannot open: one line, what to do, the documented code."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from entrypoint.errors import ExitCode
from entrypoint.plan.types import Data
from entrypoint.supervise.failures.data import unusable
from tests.support import stack
from tests.support.runner import ROOT, Runner, until

UNREADABLE, UNWRITABLE = ExitCode.UNAVAILABLE, ExitCode.CANTCREAT
LOG, BASE = "member/wal/0000000000000000-0000000000000000.wal", "member/snap/db"

Damage = Callable[[Path], object]


def server(role: str, data: Path, run_dir: Path, *wrap: str) -> Runner:
    """A container of one server, whose data are in `data`."""
    settings = {
        **stack.free_ports(), "ROLE": role, "GLM47_PYTHON": str(stack.ENGINE / "python"),
        f"GLM47_{role.upper()}_DATA_DIR": str(data), "GLM47_RUN_DIR": str(run_dir),
        "GLM47_TERMINATION_LOG": f"{run_dir}.reason", "GLM47_STOP_TIMEOUT": "10",
    }  # fmt: skip
    port = int(settings["GLM47_HEALTH_PORT"])
    runner = Runner([*wrap, stack.COMMAND, "run"], env=settings, health_port=port, cwd=ROOT)
    runner.client = settings["GLM47_ETCD_PORT"]  # type: ignore[attr-defined]
    return runner


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of an etcd that was killed after 50 writes."""
    directory = tmp_path_factory.mktemp("good")
    with server("etcd", directory / "data", directory / "run") as runner:
        runner.wait_for("etcd is ready")
        for number in range(50):
            pair = {"key": f"k{number}", "value": "v" * 500}
            body = json.dumps({k: base64.b64encode(v.encode()).decode() for k, v in pair.items()}).encode()
            url = f"http://127.0.0.1:{runner.client}/v3/kv/put"  # type: ignore[attr-defined]
            urllib.request.urlopen(urllib.request.Request(url, body), timeout=10).read()
        runner.process.kill()
        runner.wait()
    return directory / "data"


def cut(file: str, size: int) -> Damage:
    return lambda data: os.truncate(data / file, size)


def spoil(file: str, at: int, count: int) -> Damage:
    def change(data: Path) -> None:
        content = bytearray((data / file).read_bytes())
        content[at : at + count] = random.Random(at).randbytes(count)
        (data / file).write_bytes(content)

    return change


def replaced(name: str, by: str) -> Damage:
    """`name` within the data, or the data themselves, becomes a file, a directory or a link to nothing."""

    def replace(data: Path) -> None:
        path = data / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if by == "file":
            path.write_text("x")
        elif by == "directory":
            path.mkdir()
        else:
            path.symlink_to("/nonexistent/place")

    return replace


MEMBERS: dict[str, tuple[ExitCode, Damage]] = {
    "an empty log": (UNREADABLE, cut(LOG, 0)),
    "a spoilt head of the log": (UNREADABLE, spoil(LOG, 20, 64)),
    "a spoilt record": (UNREADABLE, spoil(LOG, 6000, 64)),
    "a spoilt length of a record": (UNREADABLE, spoil(LOG, 8000, 4096)),
    "a directory for the log": (UNREADABLE, replaced(LOG, "directory")),
    "a page of the base": (UNREADABLE, cut(BASE, 4096)),
    "a spoilt head of the base": (UNREADABLE, spoil(BASE, 0, 8192)),
    "spoilt pages": (UNREADABLE, spoil(BASE, 8192, 16_384)),
    "a directory for the base": (UNREADABLE, replaced(BASE, "directory")),
    "etcd 2's proxy beside a member": (UNREADABLE, lambda data: (data / "proxy").mkdir()),
    "a file for the directory": (UNWRITABLE, replaced(".", "file")),
    "a file for the member": (UNWRITABLE, replaced("member", "file")),
    "a file for the snapshots": (UNWRITABLE, replaced("member/snap", "file")),
    "a link to nothing": (UNWRITABLE, replaced(".", "link")),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_what_etcd_cannot_open(name: str, good: Path, tmp_path: Path) -> None:
    code, damage = MEMBERS[name]
    data = tmp_path / "data"
    shutil.copytree(good, data)
    damage(data)
    ends_with("etcd", code, data, tmp_path)


@pytest.mark.parametrize("size", [10_000, 16_384])
def test_a_base_that_lost_its_end_is_told_or_served(size: int, good: Path, tmp_path: Path) -> None:
    """etcd may write past the new end before it reads there: then the pages are there again, empty."""
    data = tmp_path / "data"
    shutil.copytree(good, data)
    cut(BASE, size)(data)
    with server("etcd", data, tmp_path / "run") as runner:
        until(
            lambda: (
                runner.process.poll() is not None or any("| ready after" in line for line in runner.lines)
            ),
            "it is ready or has ended",
        )
        runner.signal(signal.SIGTERM)
        code = runner.wait()
    assert code in (0, UNREADABLE), runner.text()
    assert code == 0 or "move that directory away" in runner.lines[-1], runner.text()
    assert "is restarted in" not in runner.text()


def ends_with(role: str, code: ExitCode, data: Path, tmp_path: Path, *wrap: str) -> None:
    """The container of `role` ends at once with `code`, and says why."""
    with server(role, data, tmp_path / "run", *wrap) as runner:
        assert runner.wait() == code, runner.text()
    last = runner.lines[-1]
    assert f"cannot start {role}: {data}: " in last
    assert ("move that directory away" if code is UNREADABLE else f"GLM47_{role.upper()}_DATA_DIR") in last
    assert "is restarted in" not in runner.text()
    assert (tmp_path / "run.reason").read_text().strip() in last


ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="only root mounts")
MOUNTS = {
    "read-only": 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"',
    "no room": 'mount -t tmpfs -o size=16m none "$0"',
    "full": 'mount -t tmpfs -o size=70m none "$0" && ! cp /dev/zero "$0/fill" 2>/dev/null',
}


@ROOT_ONLY
@pytest.mark.parametrize("name", MOUNTS)
def test_what_etcd_cannot_write(name: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    script = f'{MOUNTS[name]} && exec "$@"'
    ends_with("etcd", UNWRITABLE, data, tmp_path, "unshare", "--mount", "sh", "-c", script, str(data))


@pytest.mark.parametrize("inside", [".", "jetstream"])
def test_what_nats_cannot_write(inside: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / inside).parent.mkdir(exist_ok=True)
    (data / inside).write_text("x")
    ends_with("nats", UNWRITABLE, data, tmp_path)


@pytest.mark.parametrize(
    "damage", [cut(LOG, 5000), cut(BASE, 0), lambda data: shutil.rmtree(data / "member")]
)
def test_what_etcd_mends_itself(damage: Damage, good: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(good, data)
    damage(data)
    with server("etcd", data, tmp_path / "run") as runner:
        runner.wait_for("runner | ready after")
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 0


ENDS = 5.0
"""Seconds for which an etcd that neither ends nor serves is watched: it waits for a leader."""


def serves(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_random_damage_is_always_told(good: Path, tmp_path: Path) -> None:
    """Whatever etcd ends with, over bytes that anything may have happened to."""
    told = 0
    for seed in range(20):
        rng = random.Random(seed)
        data = tmp_path / f"data{seed}"
        shutil.copytree(good, data)
        spoilt = data / rng.choice([LOG, BASE])
        used = min(spoilt.stat().st_size, 40_000)
        if rng.random() < 0.4:
            os.truncate(spoilt, rng.randrange(used))
        else:
            at, count = rng.randrange(used), rng.choice([1, 8, 64, 4096])
            spoil(str(spoilt.relative_to(data)), at, count)(data)
        ports = stack.free_ports()
        client, peer = (f"http://127.0.0.1:{ports[f'GLM47_{p}_PORT']}" for p in ("ETCD", "ETCD_PEER"))
        urls = [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        urls += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        command = [
            str(stack.ENGINE / "etcd"),
            f"--data-dir={data}",
            *urls,
            f"--initial-cluster=default={peer}",
        ]
        out = tmp_path / "out"
        with out.open("w") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as etcd:
            end = time.monotonic() + ENDS
            while etcd.poll() is None and time.monotonic() < end and not serves(client):
                time.sleep(0.05)
            if etcd.poll() is None:
                etcd.kill()  # it serves, or waits for a leader
                continue
            lines = out.read_text(errors="replace").splitlines()
        assert etcd.returncode in (1, 2), lines
        assert unusable("etcd", Data(str(data), "X"), lines) is not None, f"seed {seed}: {lines}"
        told += 1
        shutil.rmtree(data)
    assert told >= 5, "this shows little"
