"""`smoke URL`: does a deployment answer, in the right shape, and does what it says make sense?

Five requests: the list of models, then a completion and a chat completion, each whole and streamed. With
`--pd` the workers' counters are read besides (`pd`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from entrypoint.commands.smoke import answers as smoke_answers
from entrypoint.commands.smoke.answers import Answer, Unexpected
from entrypoint.errors import ConfigError, NobodyListensError
from entrypoint.plan.table import table

if TYPE_CHECKING:
    import httpx

    from entrypoint.commands.smoke.pd import Counters, Worker

PROMPT = "What is the capital of France?"
MAX_TOKENS = 32
MAX_TOKENS_EXPECTING = 512
"""With an expected word: GLM-4.7 thinks before it answers."""
MAX_BODY = 16 << 20
"""Bytes of one answer; more than that is no answer to these questions."""


@dataclass(frozen=True)
class Check:
    """One request and what came of it."""

    name: str
    ok: bool
    detail: str
    """What was seen, or what is wrong, in one line."""
    seconds: float
    text: str = ""
    """What the model said."""
    reasoning: str = ""
    """What it thought before, where that comes apart."""


@dataclass(frozen=True)
class SmokeReport:
    """All checks of one deployment."""

    url: str
    model: str | None
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(check.ok for check in self.checks)

    def to_jsonable(self) -> dict[str, Any]:
        """The report as JSON-able data."""
        return {
            "url": self.url,
            "model": self.model,
            "ok": self.ok,
            "checks": [asdict(c) for c in self.checks],
        }

    def table(self) -> str:
        """The report for people, one line per check."""
        rows = [("ok  " if c.ok else "FAIL", c.name, f"{c.seconds:7.2f} s", c.detail) for c in self.checks]
        return "\n".join(table(rows))


def smoke(
    url: str,
    *,
    model: str | None = None,
    expect_text: str | None = None,
    api_key: str | None = None,
    timeout: float = 120.0,
    prompt: str = PROMPT,
    workers: Sequence[Worker] | None = None,
) -> SmokeReport:
    """Ask the deployment at `url` and report; `timeout` is the seconds each request may take in all.

    `model` defaults to the first one listed. With `expect_text` an answer must contain that word, whatever
    its case; `workers` must have counted the requests. Raises ConfigError (78) for a URL that is none,
    NobodyListensError (69) when nothing listens.
    """
    base = base_url(url)
    if timeout <= 0:
        raise ConfigError(f"cannot test {base}: --timeout={timeout:g}: give a number of seconds above 0")
    import httpx

    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    limits = httpx.Timeout(timeout, connect=min(timeout, 10.0))
    # No proxy from the environment: what is tested is this address, from here.
    with httpx.Client(base_url=base, headers=headers, timeout=limits, trust_env=False) as client:
        run = _Run(client, base, model, timeout, expect_text, prompt)
        if workers is None:
            return run.report()
        from entrypoint.commands.smoke.pd import Counters

        # Without the API's key: that is not for the workers.
        with httpx.Client(trust_env=False) as plain:
            return run.report(Counters(workers, plain))


def base_url(url: str) -> str:
    """`url` without a trailing slash or /v1. Raises ConfigError (78) when it is not an http(s) URL."""
    remedy = "give one such as http://127.0.0.1:8000"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"cannot test: {url!r} is not a URL ({error}): {remedy}") from None
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.query
        or parts.fragment
        or port == 0
    ):
        raise ConfigError(f"cannot test: {url!r} is not the URL of a server: {remedy}")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


class _Run:
    def __init__(
        self,
        client: httpx.Client,
        url: str,
        model: str | None,
        timeout: float,
        expect_text: str | None,
        prompt: str,
    ) -> None:
        self.client = client
        self.url = url
        self.model = model
        self.timeout = timeout
        self.expect_text = expect_text
        self.prompt = prompt
        self.max_tokens = MAX_TOKENS_EXPECTING if expect_text else MAX_TOKENS
        self.checks: list[Check] = []

    def report(self, counters: Counters | None = None) -> SmokeReport:
        self._check("models", self._models)
        for chat in (False, True):
            for stream in (False, True):
                name = ("chat completion" if chat else "completion") + (", streamed" if stream else "")
                if self.model is None:
                    self.checks.append(Check(name, False, "not asked: no model is listed", 0.0))
                else:
                    self._check(name, partial(self._ask, chat, stream))
        if self.expect_text:
            self.checks.append(self._expected(self.expect_text))
        if counters is not None:
            answered = sum(check.ok for check in self.checks[1:5])
            for name, ok, detail in counters.judge(answered):
                self.checks.append(Check(name, ok, detail, 0.0))
        return SmokeReport(self.url, self.model, tuple(self.checks))

    def _check(self, name: str, ask: Callable[[], Answer]) -> None:
        import httpx

        start = time.monotonic()
        ok, detail, text, reasoning = False, "", "", ""
        try:
            answer = ask()
            ok, detail, text, reasoning = True, answer.detail, answer.text, answer.reasoning
        except Unexpected as error:
            detail = str(error)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if not self.checks:
                raise NobodyListensError(
                    f"cannot reach {self.url}: {error}: start the deployment, or give its frontend's address"
                ) from None
            detail = f"no connection: {error}"
        except httpx.TimeoutException:
            detail = f"no whole answer within {self.timeout:g} s"
        except httpx.HTTPError as error:
            detail = f"the answer broke off: {error or type(error).__name__}"
        took = round(time.monotonic() - start, 3)
        self.checks.append(Check(name, ok, detail, took, text, reasoning))

    def _models(self) -> Answer:
        data = self._json("GET", "/v1/models", None)
        names = smoke_answers.model_names(data)
        if not names:
            raise Unexpected("no model is listed: the worker is not registered (yet)")
        if self.model is not None and self.model not in names:
            raise Unexpected(f"{self.model} is not listed, but {', '.join(names)}")
        self.model = self.model or names[0]
        return Answer("", ", ".join(names))

    def _ask(self, chat: bool, stream: bool) -> Answer:
        path = "/v1/chat/completions" if chat else "/v1/completions"
        request: dict[str, Any] = {"model": self.model, "max_tokens": self.max_tokens, "stream": stream}
        if chat:
            request["messages"] = [{"role": "user", "content": self.prompt}]
        else:
            request["prompt"] = self.prompt
        if not stream:
            return smoke_answers.whole(self._json("POST", path, request), chat, self.max_tokens)
        request["stream_options"] = {"include_usage": True}
        body = self._body("POST", path, request, "text/event-stream")
        return smoke_answers.streamed(body, chat, self.max_tokens)

    def _json(self, method: str, path: str, request: dict[str, Any] | None) -> dict[str, Any]:
        body = self._body(method, path, request, "application/json")
        return smoke_answers.json_object(body, f"{path} did not answer with")

    def _body(self, method: str, path: str, request: dict[str, Any] | None, wanted: str) -> str:
        import httpx

        deadline = time.monotonic() + self.timeout
        body = bytearray()
        with self.client.stream(method, path, json=request) as response:
            for part in response.iter_bytes():
                body += part
                # A server that drips bytes never trips a read timeout.
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("too slow")
                if len(body) > MAX_BODY:
                    raise Unexpected(f"{path} answered with more than {MAX_BODY >> 20} MiB")
            text = body.decode("utf-8", "replace")
            if response.status_code != 200:
                raise Unexpected(
                    f"{path} answered HTTP {response.status_code}: {smoke_answers.excerpt(text)}"
                )
            kind = response.headers.get("content-type", "none").partition(";")[0].strip().lower()
            if kind != wanted:
                raise Unexpected(f"{path} answered with {kind}, not {wanted}: {smoke_answers.excerpt(text)}")
            return text

    def _expected(self, word: str) -> Check:
        answers = [check for check in self.checks if check.text]
        found = [check.name for check in answers if word.casefold() in check.text.casefold()]
        if found:
            return Check("expected text", True, f"{word!r} in: {'; '.join(found)}", 0.0)
        said = smoke_answers.excerpt(answers[-1].text) if answers else "nothing"
        thought = [check.name for check in self.checks if word.casefold() in check.reasoning.casefold()]
        if thought:
            where = f"only the reasoning of {'; '.join(thought)} has it"
            return Check("expected text", False, f"no answer contains {word!r}: {where}", 0.0)
        return Check("expected text", False, f"no answer contains {word!r}; the last one says: {said}", 0.0)
