"""Each profile started by the runner with a real engine: ready, words, thought and tool call, draft layer.

    python -m bench.profiles_on_gpu --out DIR [--only PROFILE …] [--gpu N] [--limit SECONDS] [--cpu RELEASE]

ROLE=single, one profile after another, with a model that says what it was made to say
(`tests/support/cpu_engine/scripted.py`), so that every answer is compared word for word, and that has a
draft layer which guesses right if it is loaded as written. GLM47_PYTHON names the engine's interpreter, and
any setting in the environment wins over `SETTINGS`. What was found is printed as it comes, then a table; DIR
gets results.json, profiles.md and the containers' output. Ends with 1 if anything was not as it has to be.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.clients import greedy
from bench.deployment import Deployment, deployment, last_line, wait
from entrypoint.plan.profiles import PROFILES
from tests.support.cpu_engine import scripted

SETTINGS = {
    "GLM47_QUANTIZATION": "none",
    "GLM47_KV_CACHE_DTYPE": "auto",
    "GLM47_PATCH_MODE": "overlay",
    "GLM47_CACHE_DIR": "/tmp/cache",
    # Neither FlashInfer nor FlashAttention has kernels for heads as small as this model's.
    "GLM47_ATTENTION_BACKEND": "triton",
    "GLM47_EXTRA_ARGS": "--dtype bfloat16 --grammar-backend none --sampling-backend pytorch "
    "--disable-prefill-cuda-graph --cuda-graph-max-bs-decode 8 --max-total-tokens 65536",
}
"""Of a machine with a Hopper GPU and this model; a setting of the environment wins."""
LIMIT = 240.0
"""Seconds that a start may take."""
WITHIN = 530.0
"""Seconds that all of it may take: a profile that would not be up in time is not begun."""
REST = 45.0
"""Seconds of them for questions and the stop."""
WORDS = 600
"""Length of a long answer: SGLang says how many guesses it took every 40 passes."""
ACCEPTED = re.compile(r"accept(?: len|_len|ance length)[:=]? *([\d.]+)")
PASSES = re.compile(r"Decode batch")
GUESSES = 3.0
"""Tokens a pass from which the draft layer is right: one that is not brings about 1, of 4 at most."""
TOOL = {
    "type": "function",
    "function": {
        "name": scripted.TOOL,
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in scripted.ARGUMENTS},
            "required": list(scripted.ARGUMENTS),
        },
    },
}


@dataclass
class Said:
    """What an assistant's message was made of, whole or joined from its pieces."""

    content: str = ""
    reasoning: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)
    """By index, name and arguments as text."""
    finish: str | None = None

    def add(self, part: dict[str, Any], finish: str | None) -> None:
        """A message, or a piece of one."""
        self.content += part.get("content") or ""
        self.reasoning += part.get("reasoning_content") or ""
        for place, call in enumerate(part.get("tool_calls") or []):
            words = self.calls.setdefault(call.get("index", place), ["", ""])
            words[0] += call["function"].get("name") or ""
            words[1] += call["function"].get("arguments") or ""
        self.finish = finish or self.finish

    def wrong(self, thought: str) -> str:
        """What is not as the model said it; empty: nothing."""
        calls = [(name, json.loads(arguments)) for name, arguments in self.calls.values()]
        found = (self.reasoning.strip(), calls, self.content.strip(), self.finish)
        wanted = (thought.strip(), [(scripted.TOOL, scripted.ARGUMENTS)], "", "tool_calls")
        return "" if found == wanted else f"{found} where {wanted} was said"


def chat(port: int, thinks: bool, stream: bool) -> Said:
    """The answer to a chat completion with a tool. OSError, ValueError."""
    body = {
        "model": "glm-4.7",
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "tools": [TOOL],
        "max_tokens": 64,
        "temperature": 0,
        "stream": stream,
        **({} if thinks else {"chat_template_kwargs": {"enable_thinking": False}}),
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    said = Said()
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read().decode()
    if not stream:
        (choice,) = json.loads(text)["choices"]
        said.add(choice["message"], choice["finish_reason"])
        return said
    for line in text.splitlines():
        if line.startswith("data: ") and line != "data: [DONE]":
            for choice in json.loads(line.removeprefix("data: "))["choices"]:
                said.add(choice["delta"], choice.get("finish_reason"))
    return said


def asked(port: int) -> Iterator[tuple[str, str]]:
    """Questions and what was wrong with their answers; empty: nothing."""
    word = scripted.PLAIN[20]
    reply = greedy(port, word, 24)
    right = reply.text == scripted.words_after(word, 24)
    yield "words", "" if right else reply.why or f"{reply.text!r}"
    for thinks, stream in ((True, False), (True, True), (False, False)):
        name = "thought and call" if thinks else "call without a thought"
        name += ", streamed" if stream else ""
        try:
            yield name, chat(port, thinks, stream).wrong("".join(scripted.THOUGHT) if thinks else "")
        except urllib.error.HTTPError as error:
            yield name, f"HTTP {error.code}: {error.read().decode(errors='replace')[:300]}"
        except (OSError, ValueError, KeyError) as error:
            yield name, repr(error)
    reply = greedy(port, word, WORDS)
    right = reply.text == scripted.words_after(word, WORDS)
    yield f"{WORDS} words", "" if right else reply.why or f"{reply.text[-80:]!r} at the end"


def accepted(it: Deployment) -> list[float]:
    """Tokens a pass, as SGLang counted them with speculation; nothing when it said none."""
    return [float(found[1]) for line in it.runners["single"].lines if (found := ACCEPTED.search(line))]


def one(profile: str, out: Path, gpus: list[str], limit: float, settings: dict[str, str]) -> dict[str, Any]:
    """What came of `profile`, whose start may take `limit` seconds. TimeoutError, OSError."""
    if limit <= REST:
        return {"wrong": {"run": "no time is left for it"}}
    found: dict[str, Any] = {"given": given(profile)}
    with deployment(out, gpus, GLM47_PROFILE=profile, **settings) as it:
        it.start("single", "single", 0)
        wait(lambda: it.is_ready("single") or it.ended("single"), limit, f"{profile} is ready")
        if it.ended("single"):
            return found | {"wrong": {"start": last_line(it.runners["single"])}}
        found["ready after"] = round(time.monotonic() - it.started["single"], 1)
        answers = dict(asked(it.http))
        tokens = accepted(it)
        if any(option.startswith("--speculative") for option in found["given"]):
            found["tokens a pass"] = tokens
            right = bool(tokens) and max(tokens) >= GUESSES
            answers["draft layer"] = "" if right else f"{tokens or 'no count'} tokens a pass"
        elif tokens:
            answers["no draft layer"] = f"{tokens} tokens a pass"
        code = it.stop()["single"]
        answers["stop"] = "" if code == 0 else f"ended with {code}"
    found["right"] = [name for name, why in answers.items() if not why]
    found["wrong"] = {name: why for name, why in answers.items() if why}
    return found


def given(profile: str) -> dict[str, str]:
    """What a profile gives an aggregated worker, by option."""
    values = ((value.option, value.by_role["aggregated"]) for value in PROFILES[profile].values)
    return {option: value for option, value in values if value is not None}


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = ["| profile | ready after | right | wrong | tokens a pass |", "|---|---|---|---|---|"]
    for profile, found in results.items():
        wrong = "; ".join(f"{name}: {why}" for name, why in found.get("wrong", {}).items())
        tokens = ", ".join(f"{n:g}" for n in found.get("tokens a pass", ()))
        ready = f"{found['ready after']} s" if "ready after" in found else "-"
        cells = (profile, ready, ", ".join(found.get("right", ())), wrong or "-", tokens or "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what was asked for; what fails says so and does not keep the rest from running."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=PROFILES, default=list(PROFILES))
    parser.add_argument("--gpu", default="0", help="CUDA_VISIBLE_DEVICES of the engine")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds that a start may take")
    parser.add_argument("--within", type=float, default=WITHIN, help="seconds that all may take")
    parser.add_argument(
        "--cpu", metavar="RELEASE", help="with this release of the CPU engine, see HACKING.md"
    )
    asked_for = parser.parse_args()
    asked_for.out.mkdir(parents=True, exist_ok=True)
    model = scripted.make_scripted(asked_for.out / "model")
    if asked_for.cpu:
        from tests.support import cpu_engine

        settings = cpu_engine.settings(model, release=asked_for.cpu)
        settings.pop("PYTHONPATH")
        os.environ["PYTHONPATH"] = str(cpu_engine.SHIM)
    else:
        settings = {name: value for name, value in SETTINGS.items() if name not in os.environ}
        settings["GLM47_MODEL_PATH"] = str(model)
    results: dict[str, dict[str, Any]] = {}
    end = time.monotonic() + asked_for.within
    for profile in asked_for.only:
        gpus = [] if asked_for.cpu else [asked_for.gpu]
        began = time.monotonic()
        limit = min(asked_for.limit, end - began - REST)
        try:
            results[profile] = one(profile, asked_for.out, gpus, limit, settings)
        except Exception as error:
            results[profile] = {"wrong": {"run": repr(error)}}
        results[profile]["took"] = round(time.monotonic() - began)
        print(profile, json.dumps(results[profile]), flush=True)
        (asked_for.out / "results.json").write_text(json.dumps(results, indent=1))
    print(table(results))
    (asked_for.out / "profiles.md").write_text(table(results) + "\n")
    sys.exit(any(found["wrong"] for found in results.values()))


if __name__ == "__main__":
    main()
