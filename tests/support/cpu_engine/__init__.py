"""SGLang on a CPU, started by the runner as in production: an engine that can say no.

It stands in for an engine on a GPU, where the mocker stands in for any engine: processes, ports, discovery,
prefill to decode over NIXL, signals and tokens are SGLang's and Dynamo's own. It cannot show GPU kernels,
NVFP4, an FP8 KV cache, CUDA graphs, FlashInfer or NCCL (`shim/sitecustomize.py`).
"""

from __future__ import annotations

import json
import random
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.cpu_engine.install import PINNED, engine_python
from tests.support.cpu_engine.model import WORDS, make_model
from tests.support.stack import ENGINE

__all__ = [
    "PINNED",
    "RefusedError",
    "engine_python",
    "greedy",
    "make_model",
    "prompts",
    "reference",
    "settings",
]

SHIM = Path(__file__).parent / "shim"
TOKENS = 24
"""Length of an answer."""
ARGUMENTS = (
    "--device cpu --sampling-backend pytorch --grammar-backend none --max-total-tokens 4096 "
    # In 16 bits, two words that are nearly as good change places between one rank and two.
    "--dtype float32"
)


def settings(
    model: Path | str, *, release: str = PINNED, gpus: int = 1, spins: bool = False
) -> dict[str, str]:
    """The environment with which a runner starts the CPU engine; roles, ports and addresses are the caller's.

    Ranks and KV transfers use the loopback: what goes to another machine needs `GLOO_SOCKET_IFNAME` and
    `UCX_NET_DEVICES` of its own. `gpus`: ranks of this node. `spins`: an idle scheduler keeps a core busy, as
    in production; else it sleeps, so that several engines have room on two cores.
    """
    made = {
        "PYTHONPATH": str(SHIM),
        "GLOO_SOCKET_IFNAME": "lo",
        "UCX_NET_DEVICES": "lo",
        "GLM47_PYTHON": engine_python(release),
        "GLM47_ETCD_BIN": str(ENGINE / "etcd"),
        "GLM47_NATS_BIN": str(ENGINE / "nats-server"),
        "GLM47_MODEL_PATH": str(model),
        "GLM47_GPUS_PER_NODE": str(gpus),
        "GLM47_QUANTIZATION": "none",
        "GLM47_KV_CACHE_DTYPE": "auto",
        "GLM47_ATTENTION_BACKEND": "torch_native",
        "GLM47_SYMM_MEM": "false",
        "GLM47_MEM_FRACTION": "0.1",
        # The installed engine is shared: nobody edits it in place.
        "GLM47_PATCH_MODE": "overlay",
        "GLM47_EXTRA_ARGS": ARGUMENTS if spins else f"{ARGUMENTS} --sleep-on-idle",
    }
    if release == "0.5.23":
        # With overlap, its prefill scheduler makes a CUDA event.
        made["GLM47_PREFILL_EXTRA_ARGS"] = "--disable-overlap-schedule"
    return made


def prompts(lengths: Sequence[int] = (3, 20, 60, 150, 300), seed: int = 7) -> list[str]:
    """Random words, so many in each prompt; no two prompts begin alike."""
    source = random.Random(seed)
    return ["".join(source.choices(WORDS, k=length)) for length in lengths]


class RefusedError(Exception):
    """A request got no answer: the frontend's status and body."""


def greedy(
    url: str,
    asked: Sequence[str],
    *,
    tokens: int = TOKENS,
    at_once: int = 1,
    model: str = "glm-4.7",
    timeout: float = 60.0,
) -> list[str]:
    """The most probable answer to each prompt, `tokens` long; every token is a text of its own.

    Two engines of the same model agree to the last word, or one of them is wrong. RefusedError, OSError.
    """

    def one(prompt: str) -> str:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens,
            "temperature": 0,
        }
        request = urllib.request.Request(
            f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                data = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise RefusedError(f"{error.code} {error.read().decode(errors='replace')[:300]}") from error
        assert data["usage"]["completion_tokens"] == tokens, data
        return str(data["choices"][0]["message"]["content"])

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, asked))


def reference(model: Path, asked: Sequence[str], *, release: str = PINNED, tokens: int = TOKENS) -> list[str]:
    """The most probable answers according to transformers: the judge over every engine."""
    command = [engine_python(release), str(Path(__file__).parent / "reference.py"), str(model), str(tokens)]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers: list[str] = json.loads(done.stdout)
    return answers
