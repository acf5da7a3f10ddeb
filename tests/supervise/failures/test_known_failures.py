"""A hint is given for the event itself: never for a line that only speaks of it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from entrypoint.supervise.failures.known import KNOWN_FAILURES, KnownFailure, failure_hint, lost_rank
from entrypoint.supervise.failures.lines import read_line
from tests.supervise.failures.signatures import DYNAMO, LINES, NCCL

HERE = Path(__file__).parent
KNOWN = {known.key: known for known in KNOWN_FAILURES}
MEMBERS = [
    pytest.param(key, text, id=f"{key}-{n}") for key, texts in LINES.items() for n, text in enumerate(texts)
]


def log(path: Path) -> list[str]:
    """Its lines as the runner splits a process's output."""
    text = re.sub(r"\x1b\[[\d;]*m", "", path.read_text("utf-8", "replace"))
    return re.split(r"[\r\n]+", text)


def test_every_record_has_lines_and_a_source() -> None:
    assert [known.key for known in KNOWN_FAILURES] == [*LINES]
    assert all(known.source and known.cause and known.remedy for known in KNOWN_FAILURES)


@pytest.mark.parametrize(("key", "text"), MEMBERS)
def test_the_event_gives_its_hint_and_is_certain_only_where_it_ended_a_traceback(key: str, text: str) -> None:
    before = f"{DYNAMO.replace('ERROR', ' INFO')}engine: something else"
    hint = failure_hint([before, *text.split("\n"), "", before])
    said = str(KNOWN[key])
    assert hint in (said, f"perhaps {said}")
    certain = re.search(r"(?m)^[\w.]*(Error|Exception)\b|what\(\)", text) is not None
    assert hint == (said if certain else f"perhaps {said}")
    assert "\n" not in hint


@pytest.mark.parametrize(("key", "text"), MEMBERS)
def test_the_same_words_at_info_or_debug_are_nobodys_failure(key: str, text: str) -> None:
    words = re.sub(
        r"^(\S+Z ERROR \S+: |\S+ \[0\] .*NCCL WARN |\[[\d.]+\].*UCX +ERROR |\[[^\]]*\]:?(\[.*?\])? ?)",
        "",
        text,
    )
    place = re.match(r"\[[\d.]+\] \[\S+\] +(\S+)", text)
    for head in (
        "2026-11-25T14:22:00.832868Z  INFO module.function: ",
        "2026-11-25T14:22:00.832868Z DEBUG module::function: ",
        "2026-11-25T14:22:00.832868Z TRACE module::function: ",
        "[2026-11-25 14:22:00 TP0] INFO ",
        "2026-11-25 14:20:13,000 - INFO - file.py:256 - name: ",
        "INFO:root:",
        "INFO:     ",
        "I1125 14:22:00.123456  1234 file.cpp:91] ",
        "[rank0]:[I1125 14:22:00.707542570 file.cpp:72] ",
        "gpu01:118:530 [0] NCCL INFO ",
        "gpu01:118:530 [0] transport/nvls.cc:243 NCCL INFO ",
        f"[1778057834.457968] [gpu01:7:0] {place[1] if place else 'cuda_ipc_ep.c:1'} UCX  INFO  ",
        f"[1778057834.457968] [gpu01:7:0] {place[1] if place else 'cuda_ipc_ep.c:1'} UCX  DEBUG ",
        "[7] 2026/11/25 14:20:11.123456 [INF] ",
        "2026/11/25 14:20:12 [notice] 1#1: ",
    ):
        for line in (head + part for part in words.split("\n") if part and not part.startswith(" ")):
            assert failure_hint([line]) is None, line
            assert not any(known.signature.search(line) for known in KNOWN_FAILURES), line
    for level in ("INFO", "DEBUG", "info", "TRACE"):
        line = json.dumps({"time": "2026-11-25T16:12:05Z", "level": level, "target": "log", "message": words})
        head, *more = words.split("\n")
        if (
            not more
            and not KNOWN[key].signature.raised
            and re.match(r"[\w.]*(Error|Exception)\b", head) is None
        ):
            assert failure_hint([line]) is None, line


@pytest.mark.parametrize(("key", "text"), MEMBERS)
def test_the_same_words_in_a_request_are_nobodys_failure(key: str, text: str) -> None:
    words = json.dumps(text)
    for line in (
        f"[2026-11-25 14:22:00] Receive: obj=GenerateReqInput(rid='1', text={words}, sampling_params={{}})",
        f"[2026-11-25 14:22:00] Receive OpenAI: obj={{'messages': [{{'role': 'user', 'content': {words}}}]}}",
        f"[2026-11-25 14:22:00] Finish: obj=GenerateReqInput(rid='1'), out={{'text': {words}}}",
        f'{DYNAMO}dynamo_llm::http: cannot take a request: {{"messages": [{{"content": {words}}}]}}',
        f"{DYNAMO}dynamo_llm::preprocessor: NvCreateChatCompletionRequest {{ messages: [User({words})] }}",
        f'{{"timestamp":"2026-11-25T16:12:06","event":"request.received","rid":"8","obj":{{"text":{words}}}}}',
        f"    raise RuntimeError({words})",
    ):
        assert failure_hint([line]) is None, line
    if read_line(text.split("\n")[0]).headed:
        return  # a line with a head of its own ends what came before it
    raw = f"[2026-11-25 14:22:00] Receive: obj=GenerateReqInput(rid='1', text=\"look:\n{text}\nwhat is it?\")"
    assert failure_hint([*raw.split("\n"), "[2026-11-25 14:22:01] The server is fired up"]) is None


HEALTHY = sorted((HERE / "healthy").iterdir())


@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.name)
def test_healthy_logs_give_no_hint(path: Path) -> None:
    lines = log(path)
    assert failure_hint(lines) is None
    for number in range(len(lines)):
        # However early it ends, but within a request or a traceback that it goes on after.
        if path.name not in ("served-on.log", "sglang-start.log"):
            assert failure_hint(lines[: number + 1]) is None, lines[number]


def test_healthy_logs_cover_every_writer() -> None:
    text = "\n".join(path.read_text() for path in HEALTHY)
    for shape in (
        "NCCL INFO",
        "NCCL TRACE",
        "UCX  INFO",
        "UCX  DEBUG",
        "UCX  DIAG",
        '"level":"INFO"',
        "DEBUG dynamo",
        "Receive: obj=",
        "Finish: obj=",
        "request.received",
        "self.soft=True",
        "NIXL INFO",
        "[INF]",
        "[notice]",
        "ProcessGroupGloo",
        "Port 30000 is already in use",
        "Deferred KV release failed",
        "NVLS multicast support",
    ):
        assert shape in text, shape


@pytest.mark.parametrize("name", ["cold", "termstart", "killparent", "stopsched"])
def test_a_good_start_gives_no_hint(name: str) -> None:
    assert failure_hint(log(HERE / "data" / f"{name}.log")) is None


def test_a_killed_scheduler_is_recognised_in_its_real_log() -> None:
    lines = log(HERE / "data" / "schedstart.log")
    hint = failure_hint(lines)
    assert hint == str(KNOWN["scheduler-killed"])
    forwarded = [f"{'aggregated' if n else 'runner'} | {line}" for n, line in enumerate(lines)]
    assert failure_hint(forwarded) == hint


_ENDED = f"{DYNAMO}engine._launch_subprocesses: Scheduler or DataParallelController 4711 terminated with"
SAYS = (
    "RuntimeError: Rank 0 scheduler died during initialization (exit code: {}). If exit code is -9 (SIGKILL)"
    ", a common cause is the OS OOM killer. Run `dmesg -T | grep -i oom` to check.",
    DYNAMO + "watchdog._check_processes: Subprocess scheduler_0 (pid=2307) crashed with exit code {}.",
    _ENDED + " {}",
)


@pytest.mark.parametrize("says", SAYS)
@pytest.mark.parametrize(
    ("codes", "key"),
    [
        ((-9, 137), "scheduler-killed"),
        ((-4, -6, -7, -8, -11, 134, 135, 136, 139), "scheduler-crashed"),
        ((0, 1, 2, 9, 70, -1, -2, -3, -13, -15, 131, 143, -90, -99), None),
    ],
)
def test_the_number_of_an_exit_is_read(says: str, codes: tuple[int, ...], key: str | None) -> None:
    for code in codes:
        hint = failure_hint([says.format(code)]) or ""
        expected = str(KNOWN[key]) if key else ""
        assert hint.removeprefix("perhaps ").startswith(expected)
        if key is None:
            assert all(str(KNOWN[k]) not in hint for k in ("scheduler-killed", "scheduler-crashed")), code


def died(*last: str, who: str = "Scheduler", rank: int = 0) -> list[str]:
    """What SGLang logs when one of its processes ends by an exception."""
    return [
        f"[2026-05-12 08:20:11 TP{rank}] {who} hit an exception: Traceback (most recent call last):",
        '  File "/opt/x/sglang/srt/managers/scheduler.py", line 700, in run_scheduler_process',
        "    scheduler.event_loop_overlap()",
        *last,
        "",
        "[2026-05-12 08:20:12] Received sigquit from a child process. It usually means the child failed.",
    ]


OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
RESET = LINES["peer-lost"][0]
BATCH = "[2026-05-12 08:19:00 TP0] Decode batch, #running-req: 1, #token: 9, token usage: 0.00"


@pytest.mark.parametrize(
    "who", ["Scheduler", "DetokenizerManager", "TokenizerManager", "DataParallelController"]
)
@pytest.mark.parametrize(
    "last",
    [
        "RuntimeError: No plugins available for NIXL",
        "ValueError: The checkpoint has no lm_head",
        "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
        "safetensors_rust.SafetensorError: Error while deserializing header: header too large",
        "KeyError: 'model.layers.0.mlp'",
        "queue.Empty",
    ],
)
def test_where_nothing_is_known_the_exception_is_quoted(who: str, last: str) -> None:
    quoted = last if ":" in last else f"{last} at `scheduler.event_loop_overlap()`"
    assert failure_hint(died(last, who=who)) == f"its last exception: {quoted}"
    killed = SAYS[0].format(-3)
    assert failure_hint([*died(last, who=who), "Traceback (most recent call last):", "  File", killed]) == (
        f"its last exception: {quoted}"
    )


def test_an_exception_without_a_message_is_quoted_with_its_code() -> None:
    hint = failure_hint(
        died("    assert self.store_dtype == torch.uint8", "           ^^^^^^", "AssertionError")
    )
    assert hint == "its last exception: AssertionError at `assert self.store_dtype == torch.uint8`"


def test_a_long_exception_is_cut() -> None:
    hint = failure_hint(died("ValueError: " + "x" * 5000))
    assert hint is not None and len(hint) < 330 and hint.endswith("x…")


def test_of_several_candidates_the_one_that_ended_the_process_wins() -> None:
    handled = ["Traceback (most recent call last):", "  File", OOM]
    own = died("ValueError: The checkpoint has no lm_head")
    quoted = "its last exception: ValueError: The checkpoint has no lm_head"
    assert failure_hint([*handled, *own]) == quoted
    assert failure_hint([*handled, BATCH]) is None
    assert failure_hint([f"{NCCL}NCCL WARN NET/Socket: socket progress error", BATCH, *own]) == quoted
    # One rank's own failure, and what the others say of it, in whatever order they are heard.
    assert failure_hint([*died(OOM, rank=1), *died(RESET)]) == str(KNOWN["gpu-memory"])
    assert failure_hint([*died(RESET), *died(OOM, rank=1)]) == str(KNOWN["gpu-memory"])
    assert failure_hint([*died(RESET), *died("EOFError")]) == str(KNOWN["peer-lost"])
    # The parent's last words name a child's end, not its cause.
    parent = ["Traceback (most recent call last):", "EOFError", "", SAYS[0].format(-9)]
    assert failure_hint([*died(OOM), *parent]) == str(KNOWN["gpu-memory"])
    assert failure_hint(parent) == str(KNOWN["scheduler-killed"])


def test_a_chain_of_exceptions_is_read_to_its_root() -> None:
    chain = [
        OOM,
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        "Traceback (most recent call last):",
        "  File",
        "Exception: Capture cuda graph failed",
    ]
    assert failure_hint(died(*chain)) == str(KNOWN["gpu-memory"])


def test_a_vague_exception_gives_way_to_the_line_that_explains_it() -> None:
    imex, nixl = LINES["cuda-ipc-imex"][0], LINES["nixl-backend"][0]
    assert failure_hint([imex, nixl]) == f"perhaps {KNOWN['cuda-ipc-imex']}; its last exception: {nixl}"
    assert failure_hint([nixl]) == str(KNOWN["nixl-backend"])
    mnnvl, unhandled = LINES["mnnvl-imex"][0], "RuntimeError: NCCL error: unhandled system error"
    assert (
        failure_hint([mnnvl, unhandled]) == f"perhaps {KNOWN['mnnvl-imex']}; its last exception: {unhandled}"
    )


def test_a_traceback_in_jsonl_is_read() -> None:
    message = "\n".join(died("ValueError: no lm_head")[:-1]).split("] ", 1)[1]
    line = json.dumps({"time": "2026-11-25T16:12:05Z", "level": "ERROR", "target": "log", "message": message})
    assert failure_hint([line]) == "its last exception: ValueError: no lm_head"
    assert failure_hint(
        [json.dumps({"level": "ERROR", "message": LINES["etcd-lease"][0].split(": ", 1)[1]})]
    ) == (f"perhaps {KNOWN['etcd-lease']}")


def test_a_line_glued_to_a_bar_keeps_its_level() -> None:
    bar = "Capturing batches (bs=8 avail_mem=38.44 GB):  83%|████████▎ | 30/36 [00:00<00:00, 47.58it/s]"
    said = "Unable to create lease. Check etcd server status"
    assert failure_hint([f"{bar}2026-11-25T14:22:00.8Z  INFO dynamo: {said}"]) is None
    assert (
        failure_hint([f"{bar}2026-11-25T14:22:00.8Z ERROR dynamo: {said}"])
        == f"perhaps {KNOWN['etcd-lease']}"
    )


def test_being_asked_to_stop_is_no_failure() -> None:
    stop = (
        "2026-11-25T14:47:00.301095Z  WARN tokenizer_manager.sigterm_handler: SIGTERM received. signum=None"
    )
    for last in ("KeyboardInterrupt", "asyncio.exceptions.CancelledError", "SystemExit: 0"):
        assert failure_hint([stop, "Traceback (most recent call last):", "  File", last]) is None
    assert (
        failure_hint(["Traceback (most recent call last):", "  File", "ValueError: of one request", stop])
        is None
    )


@pytest.mark.parametrize(
    "piece", ["y 1/2 [ % | ", "a.", "x: ", "Connection refused :30001 ", "UCX ERROR ", "{"]
)
def test_a_long_line_takes_no_time(piece: str) -> None:
    line = f"2026-11-25T14:22:00Z ERROR x: {piece * 20000}"
    began = time.process_time()
    failure_hint([line, piece * 20000])
    assert time.process_time() - began < 1


def test_an_empty_log_has_no_hint() -> None:
    assert failure_hint([]) is None
    assert failure_hint(["", "Killed", "INFO something"]) is None


@pytest.mark.parametrize("known", KNOWN_FAILURES, ids=lambda known: known.key)
def test_a_remedy_names_only_settings_that_exist(known: KnownFailure) -> None:
    settings = (HERE.parents[2] / "docs" / "settings.md").read_text()
    for name in re.findall(r"\bGLM47_[A-Z_]+\b(?!\*)", str(known)):
        assert f"`{name}`" in settings or name.endswith("_"), name


@pytest.mark.parametrize(
    ("line", "address"),
    [
        # SGLang 0.5.14 on two H100s and 0.5.6.post2 on a CPU, as they came.
        (
            "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Read error "
            "[10.0.0.2]:2476: Connection reset by peer",
            "10.0.0.2",
        ),
        (
            "RuntimeError: [/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error "
            "[10.0.0.1]:62632: Connection reset by peer. This is typically caused by a remote worker hanging",
            "10.0.0.1",
        ),
        # As users of torch and NCCL report them.
        (
            "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer "
            "[10.233.87.118]:43139",
            "10.233.87.118",
        ),
        (
            "misc/socket.cc:71 NCCL WARN socketProgress: Connection closed by remote peer node2<36138>",
            "node2",
        ),
        (
            "misc/socket.cc:46 NCCL WARN socketProgressOpt: Call to send to 10.44.137.149<52905> failed : "
            "Connection reset by peer",
            "10.44.137.149",
        ),
    ],
)
def test_a_lost_rank_is_told_by_its_address(line: str, address: str) -> None:
    assert lost_rank(["INFO something else", line, "SIGQUIT received."]) == address


@pytest.mark.parametrize(
    "line",
    [
        "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting "
        "3600000ms for recv operation to complete",
        "httpx.ReadError: [Errno 104] Connection reset by peer",
        "ERROR nixl: Connection closed by peer",
    ],
)
def test_other_broken_connections_are_no_lost_ranks(line: str) -> None:
    assert lost_rank([line]) is None


def test_a_rank_with_a_cause_of_its_own_has_lost_nobody() -> None:
    assert lost_rank(died(RESET)) == "127.0.0.1"
    assert lost_rank([*died(RESET), *died(OOM, rank=1)]) is None
    assert lost_rank([f"[2026-11-25 14:22:00] Receive: obj=GenerateReqInput(text={RESET!r})"]) is None
    assert lost_rank([RESET, BATCH]) is None
