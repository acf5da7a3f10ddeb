"""JSON of others never ends the runner: who reads some gets a value, or the one error that is expected."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.base.foreign import DEEPEST, from_json, json_object
from entrypoint.commands.bench import comparison, places, results, suite
from entrypoint.commands.diagnose import redact
from entrypoint.commands.smoke import answers
from entrypoint.errors import ConfigError
from entrypoint.node import engine
from entrypoint.plan.probe_types import NatsProbe
from entrypoint.supervise.discovery import file_store, withdrawing
from entrypoint.supervise.failures.lines import read_line
from entrypoint.supervise.failures.live import LiveHints
from entrypoint.supervise.probes import asking, bootstrap_server
from entrypoint.supervise.status import starts

DEEP = '{"message": "error", "level": ' + "[" * 100_000
WALKED = '{"message": "error", "a": ' + "[" * 450 + "]" * 450 + "}"
"""Read by Python, and too deep for whoever calls itself twice for each level."""
ODD = (DEEP, WALKED, "[" * 200_000, "[]", "3", "null", '"text"', "{", "", "\ud800", "[1, 2", "{} {}", "NaN")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(values)
def test_what_is_json_is_read_as_it_is(value: object) -> None:
    assert from_json(json.dumps(value)) == value
    assert from_json(json.dumps(value).encode()) == value


@given(st.text(max_size=40) | st.binary(max_size=40))
def test_everything_else_is_a_value_error(text: str | bytes) -> None:
    with contextlib.suppress(ValueError):
        from_json(text)


@given(st.integers(0, 2 * DEEPEST), st.sampled_from([("[", "]"), ('{"a":', "}")]))
def test_the_depth_that_is_read(levels: int, brackets: tuple[str, str]) -> None:
    text = brackets[0] * levels + "1" + brackets[1] * levels
    if levels <= DEEPEST:
        assert from_json(text) is not None
    else:
        with pytest.raises(ValueError, match="nested too deeply"):
            from_json(text)


def _file(read: Callable[[Path], object]) -> Callable[[str, Path], object]:
    def from_file(text: str, tmp_path: Path) -> object:
        path = tmp_path / "file.json"
        path.write_text(text, errors="replace")
        return read(path)

    return from_file


def _hints(text: str, _: Path) -> object:
    hints = LiveHints(lambda lines: [text, "ERROR something failed", text])
    hints.saw(b"ERROR something failed\n" * 3, 3)
    return [*hints.look(1e9)]


def _client(text: str) -> httpx.Client:
    body = text.encode("utf-8", "replace")
    return httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, content=body)))


def _no_plan(path: Path) -> object:
    with pytest.raises(ConfigError, match="it is not a plan"):
        places.read_plans([path])
    return None


def _no_report(path: Path) -> object:
    with pytest.raises(ConfigError, match="cannot read report"):
        comparison.load(path)
    return None


READERS: dict[str, Callable[[str, Path], Any]] = {
    "a line of a log": lambda text, _: read_line(text),
    "a busy process": _hints,
    "a server's record": lambda text, _: json_object(text),
    "an instance in etcd": lambda text, _: withdrawing.local_addresses(text),
    "an entry of the file store": _file(file_store._whole),
    "earlier starts": _file(starts.read),
    "an answer of a server": lambda text, _: asking._json(_client(text).get("http://server/")),
    "a bootstrap server": lambda text, _: bootstrap_server.fault("http://server", _client(text)),
    "a bundle": lambda text, _: redact.redact_json(text, ("s3cret",)),
    "AIPerf's records": _file(lambda path: [*results._records(path)]),
    "AIPerf's summary": _file(results._object),
    "a plan for a report": _file(_no_plan),
    "a report to compare": _file(_no_report),
}


@pytest.mark.parametrize("text", ODD, ids=lambda text: repr(text[:12]))
@pytest.mark.parametrize("reader", READERS)
def test_whoever_reads_it_goes_on(reader: str, text: str, tmp_path: Path) -> None:
    READERS[reader](text, tmp_path)


@pytest.mark.parametrize("text", ODD, ids=lambda text: repr(text[:12]))
def test_an_answer_that_is_no_object_fails_the_smoke_test(text: str) -> None:
    with pytest.raises(answers.Unexpected, match=r"the page is not (JSON|a JSON object): "):
        answers.json_object(text, "the page is not")


@pytest.mark.parametrize("text", ODD, ids=lambda text: repr(text[:12]))
def test_a_file_that_is_no_suite_is_bad_configuration(text: str, tmp_path: Path) -> None:
    path = tmp_path / "suite.json"
    path.write_text(text, errors="replace")
    with pytest.raises(ConfigError, match="cannot"):
        suite.load_suite("own", path)


@pytest.mark.parametrize(
    "record",
    [
        {"message": "address already in use (os error 98) \ud800"},
        {"message": "address already in use (os error 98)", "error": "\udc00"},
        {"message": "bind failed", "error": "address already in use (os error 98) \udfff"},
        {"message": "address already in use (os error 98)", "target": "\ud800"},
    ],
)
def test_half_of_a_character_pair_in_a_log_is_told_like_any_other(record: dict[str, str]) -> None:
    """JSON may have it; encoding it ended the runner."""
    line = json.dumps({"level": "ERROR", **record})
    hints = LiveHints(lambda lines: [line])
    hints.saw(line.encode() + b"\n", 1)
    (told,) = map(str, hints.look(1e9))
    assert "address already in use" in told and told.encode()


@pytest.mark.parametrize("text", ODD, ids=lambda text: repr(text[:12]))
def test_a_greeting_that_is_not_nats(text: str) -> None:
    line = "INFO " + text.replace("\n", " ")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with server.accept()[0] as connection, contextlib.suppress(OSError):
                connection.sendall(line.encode("utf-8", "replace")[:60_000] + b"\n")

        thread = threading.Thread(target=greet)
        thread.start()
        ready, why, _ = asking.ask(NatsProbe("127.0.0.1", server.getsockname()[1]), lambda _: httpx.Client())
        thread.join()
    assert not ready and "sends a greeting that is not" in why


@pytest.mark.parametrize("last", ["3", "null", "[]", '"x"', "[" * 100_000, "{", "bye"])
def test_an_interpreter_that_says_something_at_its_end(last: str, tmp_path: Path) -> None:
    """A sitecustomize may: what the engine is remains unknown, and nothing ends."""
    said = tmp_path / "said"
    said.write_text(last + "\n")
    python = tmp_path / "python3"
    python.write_text(f"#!/bin/sh\ncat {said}\n")
    python.chmod(0o755)
    assert engine.ask(str(python)) == {}
