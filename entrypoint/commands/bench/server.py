"""The deployment under test, seen over HTTP: its models, its counters, its runners' plans."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from entrypoint.base.foreign import from_json
from entrypoint.commands.smoke import answers as smoke_answers
from entrypoint.commands.smoke import questions
from entrypoint.errors import CheckFailedError, ConfigError, NobodyListensError
from entrypoint.supervise.status import client

T = TypeVar("T")

TIMEOUT = 10.0
"""Seconds for each small request."""
WAIT_INTERVAL = 2.0
"""Seconds between two looks at a server that is not ready."""
TOKEN_COUNTERS = ("dynamo_frontend_output_tokens_total", "dynamo_frontend_output_sequence_tokens_sum")
"""Counters of output tokens, the first that is there counts."""


class NotServing(Exception):
    """The server cannot be asked, or does not list the model; the text says which, in one line."""


class Server:
    """One frontend (or whatever stands in front of several)."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self.url = questions.base_url(url)
        self._key = api_key
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # No proxy from the environment: what is measured is this address, from here.
        self._client = httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT, trust_env=False)

    def models(self) -> list[str]:
        """The listed models. Raises NotServing, CheckFailedError (1) for an answer that is an error."""
        try:
            answer = self._client.get("/v1/models")
        except httpx.HTTPError as error:
            raise NotServing(str(error) or type(error).__name__) from None
        if answer.status_code in (401, 403):
            raise CheckFailedError(
                f"cannot benchmark {self.url}: /v1/models answered {answer.status_code}: set GLM47_API_KEY"
            )
        excerpt = smoke_answers.excerpt(answer.text)
        if answer.status_code >= 500:
            raise NotServing(f"/v1/models answered HTTP {answer.status_code}: {excerpt}")
        try:
            if answer.status_code == 200:
                return smoke_answers.model_names(from_json(answer.content))
        except (ValueError, AttributeError, smoke_answers.Unexpected):
            pass
        raise CheckFailedError(
            f"cannot benchmark {self.url}: /v1/models answered HTTP {answer.status_code}, not with a list of "
            f"models ({excerpt}): give the address of an OpenAI-style server"
        )

    def require(self, model: str) -> None:
        """Raises NotServing unless `model` is listed."""
        listed = self.models()
        if model not in listed:
            raise NotServing(f"it lists {', '.join(listed) or 'no model'}, not {model}")

    def require_answer(self, model: str) -> None:
        """Raises NotServing unless `model` is listed and a question of one token is not answered by an error.

        A model stays on the list for seconds after its last worker has died. An answer that takes longer
        than TIMEOUT is no error: a server may be busy.
        """
        self.require(model)
        question = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        try:
            answer = self._client.post("/v1/chat/completions", json=question)
        except httpx.TimeoutException:
            self.require(model)
        except httpx.HTTPError as error:
            raise NotServing(str(error) or type(error).__name__) from None
        else:
            if answer.status_code != 200:
                excerpt = smoke_answers.excerpt(answer.text)
                raise NotServing(f"/v1/chat/completions answered HTTP {answer.status_code}: {excerpt}")

    def answers(self, model: str, timeout: float) -> None:
        """Ask `model` a few short questions, `timeout` seconds each.

        Raises CheckFailedError (1) for an answer that is not good.
        """
        report = questions.smoke(self.url, model=model, api_key=self._key, timeout=timeout)
        for check in report.checks:
            if not check.ok:
                raise CheckFailedError(
                    f"cannot benchmark {self.url}: {check.name}: {check.detail}: "
                    f"look into it with `glm47-runner smoke {self.url}`"
                )

    def output_tokens(self, model: str) -> int | None:
        """The frontend's counter of output tokens of `model`; None when it has none or does not answer."""
        try:
            answer = self._client.get("/metrics")
        except httpx.HTTPError:
            return None
        return token_count(answer.text, model) if answer.status_code == 200 else None


def token_count(metrics: str, model: str) -> int | None:
    """The counter of `model`'s output tokens in a page of Prometheus metrics; None when there is none."""
    for name in TOKEN_COUNTERS:
        found = [
            float(line.rpartition(" ")[2])
            for line in metrics.splitlines()
            if line.startswith(f"{name}{{") and f'model="{model}"' in line
        ]
        if found:
            return int(sum(found))
    return None


def require_served(server: Server, model: str) -> None:
    """Raises NotServing when no model is listed or nobody answers, ConfigError (78) when only others are."""
    listed = server.models()
    if not listed:
        raise NotServing("no model is listed: no worker is registered (yet)")
    if model not in listed:
        raise ConfigError(
            f"cannot benchmark {server.url}: {model}: it is not listed, but {', '.join(listed)}: "
            "set GLM47_SERVED_MODEL_NAME or --model"
        )


def wait_for(server: Server, look: Callable[[], T], seconds: float, say: Callable[[str], None]) -> T:
    """What `look` gives, once it neither raises NotServing nor (while time is left) CheckFailedError.

    It is asked again for at most `seconds`; 0: once. Raises NobodyListensError (69), or `look`'s own error.
    """
    deadline = time.monotonic() + seconds
    told = False
    while True:
        try:
            return look()
        except NotServing as error:
            why = str(error)
            if time.monotonic() >= deadline:
                waited = f" after {seconds:g} s" if seconds else ""
                raise NobodyListensError(
                    f"cannot benchmark {server.url}{waited}: {why}: start the deployment, give its "
                    "frontend's address, or wait for it with --wait"
                ) from None
        except CheckFailedError as error:
            why = str(error)
            if time.monotonic() >= deadline:
                raise
        if not told:
            say(f"waiting at most {seconds:g} s for {server.url}: {why}")
            told = True
        time.sleep(WAIT_INTERVAL)


def deployment(
    url: str, health: Sequence[str], default_port: int, token: str | None = None
) -> list[dict[str, Any]]:
    """The plans and states of the deployment's runners, from their health ports; never raises.

    `health` has ``HOST:PORT`` words; without any, the host of `url` is asked at `default_port`. A name with
    several addresses (a headless Service) stands for the runners at all of them.
    """
    host = urlsplit(url).hostname or "127.0.0.1"
    words = list(health) or [f"[{host}]" if ":" in host else host]
    return [runner for word in words for runner in _runners(word, default_port, token)]


def _runners(word: str, default_port: int, token: str | None) -> list[dict[str, Any]]:
    """The runners that answer at `word`; when none does, one entry that says why."""
    try:
        parts = urlsplit(word if "://" in word else f"http://{word}")
        port = parts.port or default_port
        found = socket.getaddrinfo(parts.hostname or "", port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        return [{"address": word, "reached": False, "reason": str(error)}]
    shown = word if parts.port else f"{word}:{port}"
    asked: list[dict[str, Any]] = []
    for address in dict.fromkeys(str(entry[4][0]) for entry in found):
        name = shown if len(found) == 1 else f"{shown} ({address})"
        url = f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
        runner = _runner(name, url, token)
        # One machine may answer at several addresses.
        if runner.get("plan") not in [other.get("plan") for other in asked if other["reached"]]:
            asked.append(runner)
    return [runner for runner in asked if runner["reached"]] or asked[:1]


def _runner(name: str, url: str, token: str | None) -> dict[str, Any]:
    try:
        state, plan = (client.get(url, path, token=token)[1] for path in ("/status", "/plan"))
    except OSError as error:
        return {"address": name, "reached": False, "reason": str(error)}
    return {
        "address": name, "reached": True, "runner": state.get("version"), "roles": state.get("roles"),
        "rank": state.get("rank"), "nnodes": state.get("nnodes"), "ready": state.get("ready"),
        "uptime_seconds": state.get("uptime"), "plan": plan,
    }  # fmt: skip
