from __future__ import annotations

import json
import socket
import threading
from typing import Any

import pytest
from click.testing import CliRunner

from entrypoint.commands.cli import cli
from entrypoint.commands.smoke.questions import SmokeReport, base_url, smoke
from entrypoint.errors import ConfigError, ExitCode, NobodyListensError
from entrypoint.supervise.probes.no_answer import Said
from tests.commands.smoke import no_answers, server
from tests.commands.smoke.server import CHAT, MODELS, TEXT, Behaviour, Handler, Send, serving


def run(behaviour: Behaviour, **options: Any) -> SmokeReport:
    with serving(behaviour) as url:
        return smoke(url, **{"timeout": 10.0, **options})


def only_failure(report: SmokeReport) -> tuple[str, str]:
    failed = [(check.name, check.detail) for check in report.checks if not check.ok]
    assert len(failed) == 1, report.table()
    assert "\n" not in failed[0][1]
    return failed[0]


def test_a_good_server_passes_and_is_asked_the_right_things() -> None:
    behaviour = Behaviour()
    report = run(behaviour, api_key="s3cret", expect_text="PARIS", prompt="Capital?")
    assert report.ok and report.model == "glm-4.7"
    assert [check.name for check in report.checks] == [
        "models",
        "completion",
        "completion, streamed",
        "chat completion",
        "chat completion, streamed",
        "expected text",
    ]
    assert [(path, body["stream"]) for path, body, _ in behaviour.requests] == [
        (TEXT, False),
        (TEXT, True),
        (CHAT, False),
        (CHAT, True),
    ]
    for path, body, headers in behaviour.requests:
        assert body["model"] == "glm-4.7" and headers["Authorization"] == "Bearer s3cret"
        asked = body["prompt"] if path == TEXT else body["messages"][0]["content"]
        assert asked == "Capital?"
    assert "s3cret" not in json.dumps(report.to_jsonable())


def changed(path: str, **values: Any) -> Send:
    return server.reply_json({**server.good_whole(path), **values})


def choice(path: str, **values: Any) -> Send:
    data = server.good_whole(path)
    data["choices"][0].update(values)
    return server.reply_json(data)


def events(path: str, **values: Any) -> Send:
    """A stream whose first event has `values` in its choice."""
    found = server.good_events(path)
    found[0]["choices"][0].update(values)
    return server.reply_events(server.sse(found))


GOOD_STREAM = server.sse(server.good_events(CHAT))
DONE = b"data: [DONE]\n\n"
COUNTING = {**server.USAGE, "completion_tokens": 0}
"""Of a server that counts on with every event."""
HTML = b"<html><title>502 Bad Gateway</title></html>"

BENT: list[tuple[str, bool, Send, str]] = [
    (TEXT, False, server.reply(HTML, "text/html"), "answered with text/html, not application/json: <html>"),
    (TEXT, False, server.reply(HTML), "did not answer with JSON: <html>"),
    (TEXT, False, server.reply(HTML, "text/html", 502), "answered HTTP 502: <html>"),
    (TEXT, False, server.reply_json([]), "did not answer with a JSON object"),
    (TEXT, False, server.reply_json({"error": {"message": "no\nworker"}}, 500), "answered HTTP 500: {"),
    (TEXT, False, server.reply_json({"error": "no worker"}), "the answer is an error: no worker"),
    (TEXT, False, server.reply(b"", status=301), "answered HTTP 301: (nothing)"),
    (TEXT, False, server.reply(b'{"a": 1', length=50), "the answer broke off"),
    (
        TEXT,
        False,
        server.reply_json(server.good_whole(CHAT)),
        "object is chat.completion, not text_completion",
    ),
    (TEXT, False, changed(TEXT, choices=[]), "the answer has 0 choices, not 1"),
    (TEXT, False, changed(TEXT, choices=None), "the answer has no choices"),
    (TEXT, False, changed(TEXT, usage=None), "the answer has no usage counts"),
    (TEXT, False, changed(TEXT, usage={"prompt_tokens": 1}), "no whole number as completion_tokens"),
    (
        TEXT,
        False,
        changed(TEXT, usage={"prompt_tokens": 0, "completion_tokens": 1, "total_tokens": 1}),
        "usage does not add up",
    ),
    (
        TEXT,
        False,
        changed(TEXT, usage={"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1}),
        "no tokens came",
    ),
    (
        TEXT,
        False,
        changed(TEXT, usage={"prompt_tokens": 1, "completion_tokens": 41, "total_tokens": 42}),
        "completion_tokens 41 (asked for at most 32)",
    ),
    (TEXT, False, choice(TEXT, text=" \n"), "the answer has no text"),
    (TEXT, False, choice(TEXT, text=["x"]), "text is not a text"),
    (TEXT, False, choice(TEXT, finish_reason=None), "finish_reason is null"),
    (TEXT, False, choice(TEXT, index=1), "the choice has index 1, not 0"),
    (CHAT, False, choice(CHAT, message={"role": "user", "content": "x"}), "no message of the assistant"),
    (CHAT, False, choice(CHAT, message={"role": "assistant", "content": None}), "the answer has no text"),
    (CHAT, True, server.reply_json(server.good_whole(CHAT)), "application/json, not text/event-stream"),
    (CHAT, True, server.reply_events(server.sse(server.good_events(CHAT), done=False)), "no [DONE]"),
    (CHAT, True, server.reply_events(GOOD_STREAM[:200]), "the stream broke off after 1 pieces of text"),
    (CHAT, True, server.reply_events(GOOD_STREAM[:200], length=5000), "the answer broke off"),
    (CHAT, True, server.reply_events(b""), "the stream broke off after 0 pieces of text"),
    (CHAT, True, server.reply_events(b"data: [DONE]\n\n"), "the stream ended without a finish_reason"),
    (CHAT, True, server.reply_events(b"data: {\n\n"), "an event is not JSON: {"),
    (CHAT, True, server.reply_events(b"data: 3\n\n"), "an event is not a JSON object: 3"),
    (CHAT, True, server.reply_events(HTML + b"\n\n"), "not a server-sent event: <html>"),
    (CHAT, True, server.reply_events(b"event: error\n: engine gone\n\n"), "an error: engine gone"),
    (CHAT, True, server.reply_events(b'event: error\ndata: {"message": "gone"}\n\n'), "carries an error: {"),
    (CHAT, True, server.reply_events(server.sse(server.good_events(CHAT, ()))), "carried no text"),
    (CHAT, True, server.reply_events(GOOD_STREAM + b"data: {}\n\n"), "goes on after [DONE]"),
    (CHAT, True, events(CHAT, finish_reason="stop"), "text after its finish_reason"),
    (CHAT, True, events(CHAT, finish_reason="bored"), "finish_reason is bored"),
    (CHAT, True, events(CHAT, delta=None), "the choice has no delta"),
    (TEXT, True, events(TEXT, text=5), "text is not a text"),
]


@pytest.mark.parametrize(
    ("path", "stream", "send", "expected"), BENT, ids=[f"{n}: {row[3]}" for n, row in enumerate(BENT)]
)
def test_each_wrong_answer_is_one_failed_line(path: str, stream: bool, send: Send, expected: str) -> None:
    name, detail = only_failure(run(Behaviour(bent={(path, stream): send})))
    assert expected in detail
    assert name == ("chat completion" if path == CHAT else "completion") + (", streamed" if stream else "")


@pytest.mark.parametrize(
    "body",
    [
        GOOD_STREAM.replace(b"\n", b"\r\n"),
        GOOD_STREAM.replace(b"data: ", b"data:"),
        b": keep-alive\n\n" + GOOD_STREAM,
        b"event: message\nid: 7\nretry: 100\n" + GOOD_STREAM,
        GOOD_STREAM.replace(b'"content": "P', b'"reasoning_content": "P'),
        GOOD_STREAM.replace(b'"content": "P', b'"reasoning": "P'),
        server.sse([{**event, "usage": COUNTING} for event in server.good_events(CHAT)[:-1]])[: -len(DONE)]
        + server.sse(server.good_events(CHAT)[-1:]),
        server.sse(server.good_events(CHAT)[:-1]),
    ],
)
def test_what_the_standard_allows_in_a_stream_passes(body: bytes) -> None:
    report = run(Behaviour(bent={(CHAT, True): server.reply_events(body)}))
    assert report.ok, report.table()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"data": []}, "no model is listed"),
        ({"models": []}, "no data array"),
        ({"data": [{"name": "x"}]}, "an entry without id"),
    ],
)
def test_without_a_listed_model_nothing_else_is_asked(data: Any, expected: str) -> None:
    behaviour = Behaviour(bent={(MODELS, False): server.reply_json(data)})
    report = run(behaviour)
    assert expected in report.checks[0].detail
    assert [check.detail for check in report.checks[1:]] == ["not asked: no model is listed"] * 4
    assert behaviour.requests == []


def test_a_named_model_is_asked_for_though_it_is_not_listed() -> None:
    behaviour = Behaviour()
    name, detail = only_failure(run(behaviour, model="other"))
    assert (name, detail) == ("models", "other is not listed, but glm-4.7")
    assert {body["model"] for _, body, _ in behaviour.requests} == {"other"}


def test_a_word_that_no_answer_has() -> None:
    name, detail = only_failure(run(Behaviour(), expect_text="Rome"))
    assert name == "expected text"
    assert detail == "no answer contains 'Rome'; the last one says: Paris."


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", no_answers.BAD)
def test_what_is_no_answer_fails(name: str, stream: bool) -> None:
    said, expected = no_answers.BAD[name]
    failure, detail = only_failure(run(Behaviour(bent={(CHAT, stream): no_answers.send(said, stream)})))
    assert expected in detail and failure.startswith("chat completion")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", no_answers.GOOD)
def test_odd_answers_are_answers(name: str, stream: bool) -> None:
    said = no_answers.GOOD[name]
    report = run(Behaviour(bent={(CHAT, stream): no_answers.send(said, stream)}))
    assert report.ok, report.table()


def test_a_word_that_only_the_reasoning_has() -> None:
    said = Said("It is that one.", "Rome, I think", "stop", 9)
    bent = {(CHAT, stream): no_answers.send(said, stream) for stream in (False, True)}
    name, detail = only_failure(run(Behaviour(bent=bent), expect_text="rome"))
    assert name == "expected text"
    assert detail == (
        "no answer contains 'rome': only the reasoning of chat completion; chat completion, streamed has it"
    )


def test_a_server_that_never_answers_and_one_that_drips() -> None:
    release = threading.Event()

    def silent(handler: Handler) -> None:
        release.wait(20)

    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        while not release.wait(0.05):
            handler.wfile.write(b": still here\n\n")

    try:
        report = run(Behaviour(bent={(TEXT, False): silent, (CHAT, True): drip}), timeout=0.4)
        details = {check.name: check.detail for check in report.checks if not check.ok}
        assert details == dict.fromkeys(
            ["completion", "chat completion, streamed"], "no whole answer within 0.4 s"
        )
        assert all(check.seconds < 3 for check in report.checks)
    finally:
        release.set()


def test_an_endless_answer_ends() -> None:
    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.end_headers()
        while True:
            handler.wfile.write(b" " * (1 << 20))

    name, detail = only_failure(run(Behaviour(bent={(TEXT, False): endless})))
    assert (name, detail) == ("completion", "/v1/completions answered with more than 16 MiB")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "localhost:8000",
        "ftp://host",
        "http://",
        "http://host:99999",
        "http://host:0",
        "http://[::1",
        "http://host/?x=1",
        "//host",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot test: .*: give one such as http"):
        base_url(url)


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/"])
def test_the_usual_ways_to_write_an_address(tail: str) -> None:
    assert base_url("http://host:8000" + tail) == "http://host:8000"


def unused_url() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_nobody_listens() -> None:
    with pytest.raises(NobodyListensError, match="start the deployment"):
        smoke(unused_url(), timeout=5)


def test_exit_codes_and_output_of_the_command() -> None:
    runner = CliRunner()
    with serving(Behaviour()) as url:
        good = runner.invoke(cli, ["smoke", url, "--expect-text", "paris"])
        assert good.exit_code == 0, good.output
        assert [line.split()[0] for line in good.stdout.splitlines()] == ["ok"] * 6
        as_json = runner.invoke(cli, ["smoke", url, "--format", "json"])
        data = json.loads(as_json.stdout)
        assert data["ok"] is True and data["model"] == "glm-4.7" and len(data["checks"]) == 5
        wrong = runner.invoke(cli, ["smoke", url, "--expect-text", "Rome"])
        assert wrong.exit_code == ExitCode.FAILURE
        assert wrong.stdout.splitlines()[-1].startswith("FAIL  expected text")
        assert wrong.stderr.splitlines() == [
            f"glm47-runner: cannot pass {url}: 1 of 6 checks failed: first: expected text: "
            "no answer contains 'Rome'; the last one says: Paris."
        ]
        assert runner.invoke(cli, ["smoke", url, "--timeout", "0"]).exit_code == ExitCode.CONFIG
    assert runner.invoke(cli, ["smoke", "no-url"]).exit_code == ExitCode.CONFIG
    assert runner.invoke(cli, ["smoke", unused_url()]).exit_code == ExitCode.UNAVAILABLE


def test_the_api_key_comes_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM47_API_KEY", "from-settings")
    behaviour = Behaviour()
    with serving(behaviour) as url:
        assert CliRunner().invoke(cli, ["smoke", url]).exit_code == 0
    assert {headers["Authorization"] for _, _, headers in behaviour.requests} == {"Bearer from-settings"}
