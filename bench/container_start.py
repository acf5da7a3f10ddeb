"""What the image costs: size of its layer, seconds of `plan`, seconds from start to the first answer.

The last is measured against the same stack started by hand, without the runner, in the same image and in the
same run, by turns. Needs a Docker engine and the image (default glm47-runner:test):

    python bench/container_start.py [IMAGE] [ROUNDS]
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from entrypoint.commands.demo.model import BOS_TOKEN_ID, make_demo_model
from tests.container.harness import MOCKER, docker, running

# By hand, everything starts as soon as it can. With the file store the frontend comes last, as with the
# runner: that store loses a worker that a frontend sees half-written. The model is already corrected, under
# the name that this mocker needs.
SERVERS = """
set -e
cd /by-hand
nats-server -js -sd /tmp/nats >/dev/null 2>&1 &
until (echo >/dev/tcp/127.0.0.1/4222) 2>/dev/null; do sleep 0.02; done
export DYN_TCP_RPC_HOST=127.0.0.1 DYN_SYSTEM_USE_ENDPOINT_HEALTH_STATUS='["generate"]'
mocker=(python3 -m dynamo.mocker --model-path /by-hand/glm-4.7 --model-name glm-4.7)
"""
LAYOUTS = {
    "single": SERVERS
    + """
export DYN_STORE_KV=file DYN_FILE_KV=/tmp/kv
DYN_SYSTEM_PORT=8081 "${mocker[@]}" &
until curl -sf -o /dev/null http://127.0.0.1:8081/health; do sleep 0.02; done
exec python3 -m dynamo.frontend --http-port 8000
""",
    "etcd,nats,prefill,decode,frontend": """
etcd --data-dir /tmp/etcd >/dev/null 2>&1 &
"""
    + SERVERS
    + """
until curl -sf -o /dev/null http://127.0.0.1:2379/health; do sleep 0.02; done
export DYN_STORE_KV=etcd
DYN_SYSTEM_PORT=8081 "${mocker[@]}" --is-prefill-worker --bootstrap-ports 30001 &
DYN_SYSTEM_PORT=8082 "${mocker[@]}" --is-decode-worker &
exec python3 -m dynamo.frontend --http-port 8000
""",
}
"""Values of ROLE, and what somebody without the runner would type for them."""


def layer_megabytes(image: str) -> float:
    """Size of what the Dockerfile adds: the layers above the base named in the image's label."""
    info = json.loads(docker("image", "inspect", image).stdout)[0]
    base = info["Config"]["Labels"]["org.opencontainers.image.base.name"]
    below = json.loads(docker("image", "inspect", base).stdout)[0]
    return float(info["Size"] - below["Size"]) / 1e6


def plan_seconds(image: str) -> float:
    """`docker run … plan`, from the client's start to its end."""
    began = time.monotonic()
    docker("run", "--rm", "-e", "ROLE=single", image, "plan")
    return time.monotonic() - began


def answer_seconds(image: str, model: Path, role: str, by_hand: bool) -> float:
    """From `docker run` to the end of the first chat completion that succeeds."""
    args, env = ["-p", "127.0.0.1::8000"], {**MOCKER, "ROLE": role}
    command: tuple[str, ...] = ()
    if by_hand:
        args += ["-v", f"{model}:/by-hand:ro"]
        env, command = {}, ("bash", "-c", LAYOUTS[role])
    body = {"model": "glm-4.7", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    began = time.monotonic()
    with running(image, env, args, command) as container:
        url = f"http://127.0.0.1:{container.port(8000)}/v1/chat/completions"
        while time.monotonic() - began < 120:
            try:
                if httpx.post(url, json=body, timeout=5).status_code == 200:
                    return time.monotonic() - began
            except httpx.HTTPError:
                pass
            time.sleep(0.02)
        raise SystemExit(f"no answer\n{container.logs()}")


def main() -> None:
    """Print the figures, one per line."""
    image = sys.argv[1] if len(sys.argv) > 1 else "glm47-runner:test"
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    print(f"layer: {layer_megabytes(image):.1f} MB")
    print(f"docker run … plan: {statistics.median(plan_seconds(image) for _ in range(rounds)):.2f} s")
    with tempfile.TemporaryDirectory() as directory:
        model = make_demo_model(Path(directory, "glm-4.7"))
        file = model / "generation_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "bos_token_id": BOS_TOKEN_ID}))
        Path(directory).chmod(0o755)
        for role in LAYOUTS:
            report(image, rounds, Path(directory), role)


def report(image: str, rounds: int, model: Path, role: str) -> None:
    """Print one layout's figures."""
    hand, ours = [], []
    for _ in range(rounds):
        hand.append(answer_seconds(image, model, role, by_hand=True))
        ours.append(answer_seconds(image, model, role, by_hand=False))
    print(f"start to first answer, {role}")
    for name, values in (("by hand", hand), ("runner", ours)):
        print(f"  {name}: median {statistics.median(values):.2f} s ({min(values):.2f}-{max(values):.2f})")
    print(f"  ratio: {statistics.median(ours) / statistics.median(hand):.2f}")


if __name__ == "__main__":
    main()
