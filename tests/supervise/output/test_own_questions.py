"""The runner's own questions leave no lines; everybody else's do. Lines as the named releases write them."""

from __future__ import annotations

import os
import pty
import time
from pathlib import Path

import pytest

from entrypoint.plan.own_questions import MARK, WARM_UP_HEADERS, log_filter, without_own
from entrypoint.supervise.output.forwarding import Output, make_pipe

AT = "2026-11-25T15:55:27.815441Z"
OWN = [
    # ai-dynamo 0.8.1, a worker that loads
    f"{AT} ERROR http-request: tower_http::trace::on_failure: response failed classification=Status "
    f'code: 503 latency=0 ms method=GET uri=/health version=HTTP/1.1 x_request_id="{MARK}"',
    # 1.3.1 and 1.6.1, a frontend
    f"{AT}  INFO http-request: dynamo_llm::http::service::service_v2: http response sent status=200 "
    f'latency_ms=0 method=GET uri=/health version=HTTP/1.1 x_request_id="{MARK}" request_id=6eac2915-055f',
    # with colours, as they come even into a pipe
    f"\x1b[2m{AT}\x1b[0m \x1b[32m INFO\x1b[0m \x1b[1mhttp-request\x1b[0m: http response sent "
    f'\x1b[3mx_request_id\x1b[0m\x1b[2m=\x1b[0m"{MARK}"',
    # DYN_LOGGING_JSONL
    f'{{"time":"{AT}","level":"INFO","target":"dynamo_llm::http::service::service_v2",'
    f'"message":"http response sent","status":200,"x_request_id":"{MARK}"}}',
]
OTHERS = [
    f'{AT}  INFO http-request: http response sent status=200 uri=/health x_request_id="a-person"',
    f"{AT}  INFO dynamo_llm::http::service::service_v2: http response sent status=200 latency_ms=0",
    f"{AT} ERROR tower_http::trace::on_failure: response failed classification=Status code: 503",
    f'{AT} ERROR http-request: failed x_request_id="{WARM_UP_HEADERS["x-request-id"]}" status=500',
    f"{AT}  INFO a person asks what {MARK} means",
    "",
]


@pytest.mark.parametrize("own", OWN)
def test_a_line_about_our_own_question_is_left_out_and_nothing_else(own: str) -> None:
    text = "".join(f"{line}\n{own}\n" for line in OTHERS)
    assert without_own(text.encode()).decode() == "".join(f"{line}\n" for line in OTHERS)


@pytest.mark.parametrize("own", OWN)
def test_what_stands_before_it_on_the_line_stays(own: str) -> None:
    bar = "Capturing batches (bs=4 avail_mem=46.85 GB):  33%|###  | 1/3 [00:03<00:06]"
    assert without_own(f"{bar}{own}\n".encode()).decode() == f"{bar}\n"


def test_the_forwarder_leaves_them_out(tmp_path: Path) -> None:
    """In the file and in the tail too, from which a reason for an end is taken."""
    read_end, write_end = make_pipe()
    master, slave = pty.openpty()
    seen: list[str] = []
    output = Output(["worker"], log_dir=str(tmp_path), stdout=slave)
    child = output.child("worker", read_end, seen.extend)
    os.write(write_end, f"before\n{OWN[0]}\nafter\n{OWN[1]}".encode())
    os.close(write_end)
    while child.handle_read():
        pass
    output.close(time.monotonic() + 10)
    assert (tmp_path / "worker.log").read_text().splitlines() == ["worker | before", "worker | after"]
    assert child.tail() == seen == ["before", "after"]
    for fd in (read_end, master, slave):
        os.close(fd)


@pytest.mark.parametrize(
    ("own", "engine", "value"),
    [
        (None, True, "info,system_span=4"),
        ("", False, "info,system_span=4"),
        ("warn", False, "warn,system_span=4"),
        ("warn", True, None),  # SGLang would go back to info
        ("debug", True, None),
        ("info", True, "info,system_span=4"),
        ("warn,dynamo_llm=debug", True, "warn,dynamo_llm=debug,system_span=4"),
        ("info,system_span=trace", False, None),
    ],
)
def test_a_persons_filter_is_only_added_to(own: str | None, engine: bool, value: str | None) -> None:
    assert log_filter(own, engine) == value
