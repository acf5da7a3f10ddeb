"""A failed end in a pod becomes an Event, and nothing that an API server does changes the end."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from entrypoint.node.in_pod import Pod, in_pod
from entrypoint.run import kube_event
from entrypoint.run.leave import tell_pod
from tests.support.api_server import NAMESPACE, TOKEN, ApiServer, make_account
from tests.support.plans import plan, process
from tests.support.runner import Runner, free_port, until
from tests.support.tls import make_certificate

RUN = [sys.executable, "-m", "entrypoint", "run"]
GROUP = {
    "LWS_GROUP_SIZE": "2",
    "LWS_WORKER_INDEX": "1",
    "LWS_LEADER_ADDRESS": "glm47-prefill-0.glm47-prefill.team-a",
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls") / "both.pem")


@pytest.fixture
def account(certificate: Path, tmp_path: Path) -> Path:
    return make_account(tmp_path / "account", certificate)


def variables(port: int, account: Path) -> dict[str, str]:
    """Of a pod."""
    return {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(port),
        "POD_NAME": "glm47-prefill-0-1",
        "POD_UID": "1-2-3",
        "GLM47_EVENTS": str(account),
    }


# -- what is said


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        ("exit 9", 9, "ProcessEnded"),
        ("kill -9 $$", 137, "ProcessEnded"),
        ("exit 0", 1, "ProcessEnded"),
    ],
)
def test_a_process_that_ends(
    script: str, code: int, reason: str, certificate: Path, account: Path, tmp_path: Path
) -> None:
    made = plan(process("decode", argv=("sh", "-c", script)))
    with (
        ApiServer(certificate) as api,
        Runner.of_plan(made, tmp_path, env=variables(api.port, account)) as runner,
    ):
        assert runner.wait() == code
        (event,) = api.events
        last = runner.lines[-1].partition("| ")[2]
        assert event["message"] == f"ended with {code}: {last}"
        assert (event["reason"], event["type"], event["count"]) == (reason, "Warning", 1)
        about = event["involvedObject"]
        assert (about["kind"], about["name"], about["uid"]) == ("Pod", "glm47-prefill-0-1", "1-2-3")
        assert api.asked == [f"POST /api/v1/namespaces/{NAMESPACE}/events"]


def test_an_end_that_was_asked_for_is_none(certificate: Path, account: Path, tmp_path: Path) -> None:
    with (
        ApiServer(certificate) as api,
        Runner.of_plan(plan(process("a")), tmp_path, env=variables(api.port, account)) as runner,
    ):
        until(lambda: runner.get("/readyz")[0] == 200, "ready")
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 0
        assert not api.asked


def test_a_refused_start(certificate: Path, account: Path, tmp_path: Path) -> None:
    with (
        ApiServer(certificate) as api,
        Runner(RUN, {**variables(api.port, account), "GLM47_TP": "four"}, cwd=tmp_path) as runner,
    ):
        assert runner.wait() == 78
        (event,) = api.events
        assert event["reason"] == "BadConfiguration" and "GLM47_TP" in event["message"]


@pytest.mark.parametrize("uid", [None, "7-8-9"])
def test_a_held_start_is_told_once_of_pod_and_group(
    uid: str | None, certificate: Path, account: Path, tmp_path: Path
) -> None:
    given = {**variables(0, account), **GROUP, "ROLE": "auto", "GLM47_HEALTH_PORT": str(free_port())}
    with ApiServer(certificate, uid=uid) as api:
        given["KUBERNETES_SERVICE_PORT"] = str(api.port)
        with Runner(RUN, given, cwd=tmp_path) as runner:
            runner.wait_for("held: not ready")
            pod, group = api.events
            assert pod["reason"] == group["reason"] == "Held"
            assert "held, it would end with 78: cannot work out ROLE" in pod["message"]
            about = group["involvedObject"]
            assert (about["kind"], about["name"]) == ("LeaderWorkerSet", "glm47-prefill")
            assert about.get("uid") == uid
            assert group["message"] == f"glm47-prefill-0-1 {pod['message']}"
            assert pod["metadata"]["name"] != group["metadata"]["name"]
            runner.signal(signal.SIGTERM)
            assert runner.wait() == 78
        assert len(api.events) == 2


# -- what an API server can do


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        *(
            (status, f"the API server answers {status}")
            for status in (302, 400, 401, 403, 404, 409, 429, 500)
        ),
        ("garbage", "RemoteProtocolError"),
        ("closes", ""),
        ("silence", "no answer within|timed out"),
        ("trickle", "no answer within"),
        ("no handshake", "no answer within|timed out"),
        ("no TLS", "SSL"),
    ],
)
def test_what_it_does_changes_no_end(
    answer: int | str, said: str, certificate: Path, account: Path, tmp_path: Path
) -> None:
    made = plan(process("decode", argv=("sh", "-c", "exit 9")))
    with (
        ApiServer(certificate, answer) as api,
        Runner.of_plan(made, tmp_path, env=variables(api.port, account)) as runner,
    ):
        began = time.monotonic()
        assert runner.wait() == 9
        assert time.monotonic() - began < kube_event.PATIENCE + 3
        runner.wait_for_match(f"no Event was made: .*({said})")
        assert "decode ended: exit code 9" in runner.lines[-1]
        assert TOKEN not in runner.text()


def broken(account: Path) -> dict[str, Callable[[], Any]]:
    return {
        "no token": (account / "token").unlink,
        "no CA": (account / "ca.crt").unlink,
        "no namespace": (account / "namespace").unlink,
        "a CA that is none": lambda: (account / "ca.crt").write_text("-----BEGIN nothing"),
        "a token of two lines": lambda: (account / "token").write_text(f"{TOKEN}\n{TOKEN}"),
        "a token that is no header": lambda: (account / "token").write_text(f"{TOKEN}\x00"),
        "a token that is no ASCII": lambda: (account / "token").write_text(f"{TOKEN}é"),
    }


@pytest.mark.parametrize("fault", broken(Path()))
def test_an_account_that_is_broken_changes_nothing(
    fault: str, certificate: Path, account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(account)[fault]()
    with ApiServer(certificate) as api:
        said = tell_pod(variables(api.port, account), 9, "a reason")
    assert said is not None and said.startswith("no Event was made: ") and TOKEN not in said
    assert not api.events


def test_nobody_there(account: Path) -> None:
    began = time.monotonic()
    said = tell_pod(variables(free_port(), account), 9, "a reason")
    assert said is not None and "refused" in said and time.monotonic() - began < 1


def test_another_certificate_is_not_trusted(certificate: Path, tmp_path: Path) -> None:
    account = make_account(tmp_path / "account", make_certificate(tmp_path / "other.pem"))
    with ApiServer(certificate) as api:
        said = tell_pod(variables(api.port, account), 9, "a reason")
    assert said is not None and "certificate" in said.lower() and not api.asked


# -- where there is nothing to tell, or nobody


@pytest.mark.parametrize(
    "change",
    [
        {"GLM47_EVENTS": "off"},
        {"KUBERNETES_SERVICE_HOST": ""},
        {"POD_NAME": "", "HOSTNAME": ""},
        {"GLM47_EVENTS": "auto"},
        {"GLM47_EVENTS": ""},
    ],
)
def test_no_pod_no_event(change: dict[str, str], account: Path) -> None:
    """Outside of a pod, without an account, or where it is off, nothing is asked and nothing is said."""
    assert tell_pod({**variables(1, account), **change}, 9, "a reason") is None


def test_a_pod_that_is_told_little(account: Path) -> None:
    found = in_pod({"KUBERNETES_SERVICE_HOST": "fd00::1", "HOSTNAME": "glm47-decode-0"}, str(account))
    assert found == Pod("https://[fd00::1]:443", account, "glm47-decode-0", None)


@pytest.mark.parametrize(
    ("leader", "group"),
    [
        ("glm47-prefill-0.glm47-prefill.default", "glm47-prefill"),
        ("glm47-0-1a2b3c4d-prefill-11.glm47-0-1a2b3c4d-prefill.default", "glm47-0-1a2b3c4d-prefill"),
        ("glm47-prefill-9f2ac71b.glm47-prefill.default", "glm47-prefill"),
        ("10.0.0.7", ""),
        ("fd00::7", ""),
        ("", ""),
    ],
)
def test_the_group_of_a_leader(leader: str, group: str, account: Path) -> None:
    given = {**variables(1, account), **GROUP, "LWS_LEADER_ADDRESS": leader}
    found = in_pod(given, str(account))
    assert found is not None and found.group == group


# -- limits and secrets


POD = Pod("https://127.0.0.1", Path("/"), "p" * 253, None)


@pytest.mark.parametrize("reason", ["short", "é" * 900, "x" * 1100, "𝄞" * 400, "two\nlines", "\ud800"])
def test_a_message_fits(reason: str) -> None:
    made = kube_event.event(POD, "default", 9, reason, False, time.time_ns())
    about = kube_event.about_group(made, "g" * 60, "")
    for event in (made, about):
        json.dumps(event).encode()
        assert len(event["message"].encode()) <= kube_event.MOST
        assert len(event["metadata"]["name"]) <= 253
        assert len(event["reportingInstance"]) <= 128
    assert made["message"].startswith("ended with 9: ")


def test_a_terminal_that_shows_it_is_not_commanded() -> None:
    made = kube_event.event(POD, "default", 9, "one\x1b[2J\ntwo\r\x9b", False, time.time_ns())
    assert made["message"] == "ended with 9: one [2J\ntwo\n "


def test_two_ends_are_two_events() -> None:
    names = {
        kube_event.event(replace(POD, name="a"), "n", 9, "r", False, now)["metadata"]["name"]
        for now in range(3)
    }
    assert len(names) == 3


SECRET = "hunter2hunter2"
LEAKS = {
    "a variable's": (f"decode ended: HF said {SECRET} is wrong", {"HF_TOKEN": SECRET}),
    "an own setting's": (f"cannot use it: {SECRET}: no", {"GLM47_API_KEY": SECRET}),
    "an argument": (f"unrecognized arguments: --api-key {SECRET}", {}),
    "an address": (f"cannot reach nats://me:{SECRET}@nats:4222: refused", {}),
    "a header": (f"request had Authorization: Bearer {SECRET}", {}),
    "JSON": (f'the body was {{"password": "{SECRET}", "a": 1}}', {}),
    "an assignment": (f"env: ETCD_AUTH_PASSWORD={SECRET}; next", {}),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_secret_is_never_in_it(leak: str, certificate: Path, account: Path) -> None:
    reason, more = LEAKS[leak]
    with ApiServer(certificate) as api:
        assert tell_pod({**variables(api.port, account), **more}, 9, reason) is None
    (event,) = api.events
    assert SECRET not in json.dumps(event) and "***" in event["message"]


def test_a_secret_of_a_file_is_never_in_it(certificate: Path, account: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRET)
    given = {"GLM47_STATUS_TOKEN_FILE": str(tmp_path / "key")}
    with ApiServer(certificate) as api:
        assert tell_pod({**variables(api.port, account), **given}, 9, f"it asks for {SECRET}") is None
    assert SECRET not in json.dumps(api.events)


@pytest.mark.parametrize(
    "reason",
    [
        "cannot use GLM47_NATS_TOKEN: it is empty: give one",
        "lost decode worker rank 1 on glm47-decode-0-1: its runner does not answer any more (refused)",
        "cannot find the model: /model/tokenizer.json: no such file: look at the claim",
        "decode ended: exit code 1 (KeyError: 'token_ids')",
        "it asks for another GLM47_STATUS_TOKEN than this one has",
    ],
)
def test_a_reason_without_one_stays_as_it_is(reason: str, certificate: Path, account: Path) -> None:
    with ApiServer(certificate) as api:
        assert tell_pod(variables(api.port, account), 9, reason) is None
    assert api.events[0]["message"] == f"ended with 9: {reason}"
