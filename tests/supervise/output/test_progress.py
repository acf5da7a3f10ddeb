"""Progress recognised in real engine logs, and in the wording of the older release."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from entrypoint.supervise.output.lines import LineSplitter, strip_escapes
from entrypoint.supervise.output.progress import PHASES, Progress

DATA = Path(__file__).parents[1] / "failures" / "data"


def lines_of(name: str) -> list[str]:
    splitter = LineSplitter()
    blocks = splitter.feed((DATA / name).read_bytes()) + splitter.finish()
    text = b"".join(strip_escapes(block.data) for block in blocks).decode("utf-8", "replace")
    return text.split("\n")[:-1]


def timed_lines(name: str) -> list[tuple[float, str]]:
    """Lines with the seconds since exec at which they came."""
    found = [re.match(r"\s*([\d.]+) (.*)", line) for line in lines_of(name)]
    return [(float(match[1]), match[2]) for match in found if match]


def phases_of(lines: list[str]) -> tuple[list[str], Progress]:
    progress = Progress("sglang", 0.0)
    seen = [progress.phase]
    for number, line in enumerate(lines):
        progress.feed(line, float(number))
        if progress.phase != seen[-1]:
            seen.append(progress.phase)
    return seen, progress


UP_TO_CAPTURE = ["starting", "distributed", "weights", "kv_cache", "compile", "capture"]


@pytest.mark.parametrize("name", ["cold", "termstart", "killparent", "stopsched"])
def test_a_real_start_goes_through_every_phase_once(name: str) -> None:
    seen, progress = phases_of(lines_of(f"{name}.log"))
    assert seen == [*UP_TO_CAPTURE, "registering", "registered"]
    assert progress.loaded


def test_a_scheduler_killed_during_capture_stops_there() -> None:
    seen, progress = phases_of(lines_of("schedstart.log"))
    assert seen == UP_TO_CAPTURE
    assert not progress.loaded
    assert progress.summary(progress.last_change).startswith("capturing CUDA graphs 14/36 (bs=136), ")


def test_every_phase_has_a_name_for_people() -> None:
    assert [phase for phase in PHASES if phase in UP_TO_CAPTURE] == UP_TO_CAPTURE
    assert all(PHASES.values())


def test_shards_are_counted() -> None:
    progress = Progress("sglang", 0.0)
    counted = []
    for now, line in timed_lines("shards.seconds.log"):
        if progress.feed(line, now) and progress.phase == "weights" and progress.total:
            counted.append((progress.done, progress.total))
    assert counted[:4] == [(0, 12), (3, 12), (9, 12), (12, 12)]


def test_a_silent_compilation_shows_as_silence_and_not_as_progress() -> None:
    progress = Progress("sglang", 0.0)
    for now, line in timed_lines("cold.seconds.log"):
        if now > 100:
            break
        progress.feed(line, now)
    assert progress.phase == "compile"
    assert progress.phase_since == pytest.approx(41.82)
    assert progress.last_change < 60
    assert progress.last_line_at < 60  # the answers to our own probes, still coming, are no life
    assert re.fullmatch(r"compiling kernels, 58 s, silent for \d\d s", progress.summary(100.0))


OLDER = """\
[2026-01-10 07:02:11 TP0] Init torch distributed begin.
[2026-01-10 07:02:14 TP0] Init torch distributed ends. mem usage=1.21 GB
[2026-01-10 07:02:15 TP0] Load weight begin. avail mem=182.10 GB
Loading safetensors checkpoint shards:   0% Completed | 0/41 [00:00<?, ?it/s]
Loading safetensors checkpoint shards:  24% Completed | 10/41 [00:50<02:35,  5.01s/it]
[2026-01-10 07:06:09 TP0] Load weight end. type=Glm4MoeForCausalLM, dtype=torch.bfloat16, avail mem=128.40 GB
[2026-01-10 07:06:10 TP0] KV Cache is allocated. #tokens: 1204224, K size: 13.20 GB, V size: 13.20 GB
[2026-01-10 07:06:10 TP0] Memory pool end. avail mem=24.90 GB
[2026-01-10 07:06:11 TP0] Capture cuda graph begin. This can take up to several minutes. avail mem=24.80 GB
[2026-01-10 07:06:11 TP0] Capture cuda graph bs [1, 2, 4, 8, 12, 16, 24, 32]

  0%|          | 0/8 [00:00<?, ?it/s]
Capturing batches (bs=32 avail_mem=24.37 GB):   0%|          | 0/8 [00:00<?, ?it/s]
Capturing batches (bs=24 avail_mem=23.12 GB):  12%|█▎        | 1/8 [00:40<04:40, 40.00s/it]
[2026-01-10 07:12:18 TP0] Capture cuda graph end. Time elapsed: 367.2 s. mem usage=1.6 GB. avail mem=23.21 GB.
""".splitlines()


def test_the_older_releases_wording_is_known() -> None:
    seen, progress = phases_of(OLDER)
    assert seen == ["starting", "distributed", "weights", "kv_cache", "capture"]
    assert (progress.done, progress.total, progress.detail) == (1, 8, "done")
    assert not progress.loaded


def test_newer_releases_join_in_other_words() -> None:
    seen, _ = phases_of(
        ["INFO bootstrap: Init parallel begin.", "INFO bootstrap: Init parallel ends. elapsed=0.02 s"]
    )
    assert seen == ["starting", "distributed"]


# desc= and set_description() of the releases, and the phase that each is part of.
BARS = [
    ("Loading safetensors checkpoint shards", "weights"),
    ("Loading pt checkpoint shards", "weights"),
    ("Loading np_cache checkpoint shards", "weights"),
    ("Loading safetensors using Runai Model Streamer", "weights"),
    ("Loading safetensors using Fastsafetensor loader", "weights"),
    ("Loading safetensors using InstantTensor", "weights"),
    ("Multi-thread loading shards", "weights"),
    ("Multi-thread loading pt checkpoint shards", "weights"),
    ("Computing checksums", "weights"),
    ("quant weights to fp8 ue8m0", "weights"),
    ("quant attn to fp8 ue8m0", "weights"),
    ("Online quark_int4fp8_moe quantization on rank=3", "weights"),
    ("DeepGEMM warmup", "deep_gemm"),
    ("[AutoTuner]: Tuning trtllm::fused_moe::gemm1", "autotune"),
    ("[AutoTuner]: Tuning flashinfer::trtllm_fp4_block_scale_moe", "autotune"),
    ("Compiling num tokens (num_tokens=8192)", "compile"),
    ("Warmup prefill shapes (up to 32K)", "compile"),
    ("Profiling prefill latency for dynamic chunking", "compile"),
    ("Capturing num tokens (num_tokens=256 avail_mem=38.44 GB)", "capture"),
    ("Capturing prefill shape (num_tokens=256 avail_mem=38.44 GB)", "capture"),
    ("Capturing batches (bs=256 avail_mem=38.44 GB)", "capture"),
    ("[BCG] Capturing (num_tokens=256 avail_mem=38.44 GB)", "capture"),
]


@pytest.mark.parametrize(("what", "phase"), BARS)
def test_every_bar_is_counted(what: str, phase: str) -> None:
    progress = Progress("sglang", 0.0)
    for number, shown in enumerate(
        (
            f"{what}:   0%|          | 0/47 [00:00<?, ?it/s]",
            f"{what}:   9% Completed | 4/47 [00:30<05:00,  6.10s/it]",
            f"{what}:  31%|███▏      | 15/47 [01:35<03:11, 17.1s/profile]",
            f"{what}: 100%|██████████| 47/47 [01:35<00:00, 17.1s/profile]",
        )
    ):
        assert progress.feed(shown, float(number))
        assert (progress.phase, progress.done, progress.total) == (phase, (0, 4, 15, 47)[number], 47)


EAGLE = """\
[2026-05-12 08:20:31 TP0] Load weight begin. avail mem=183.10 GB
[2026-05-12 08:20:31 TP1] Load weight begin. avail mem=183.10 GB
Loading safetensors checkpoint shards: 100% Completed | 47/47 [05:00<00:00,  6.10s/it]
[2026-05-12 08:25:31 TP1] Load weight end. type=Glm4MoeForCausalLM, dtype=torch.bfloat16
[2026-05-12 08:25:31 TP0] Load weight end. type=Glm4MoeForCausalLM, dtype=torch.bfloat16
{between}
[2026-05-12 08:25:40 TP0] Load weight begin. avail mem=20.10 GB
Loading safetensors checkpoint shards:   9% Completed | 4/47 [00:30<05:00,  6.10s/it]
[2026-05-12 08:25:40 TP1] Load weight begin. avail mem=20.10 GB
"""
KV = "[2026-05-12 08:25:32 TP0] Memory pool end. avail mem=20.00 GB\n"
CAPTURE = (
    "[2026-05-12 08:25:33 TP0] Capture {} begin. avail mem=20.00 GB\n"
    "Capturing batches (bs=8 avail_mem=24.37 GB): 100%|██████████| 8/8 [00:02<00:00,  4.00it/s]\n"
    "[2026-05-12 08:25:36 TP0] Capture {} end. Time elapsed: 2.2 s.\n"
)


@pytest.mark.parametrize(
    "between",
    [
        "",
        KV,
        KV + CAPTURE.replace("{}", "cuda graph"),
        KV + CAPTURE.replace("{}", "target verify CUDA graph"),
    ],
    ids=["before the KV cache", "without graphs", "after the graphs of 0.5.6", "after the graphs of 0.5.14"],
)
@pytest.mark.parametrize(
    "draft", ["draft cuda graph", "draft decode CUDA graph", "Frozen-KV MTP draft cuda graph"]
)
def test_a_draft_model_has_a_phase_of_its_own_and_goes_on_as_the_first(between: str, draft: str) -> None:
    seen, progress = phases_of(EAGLE.format(between=between.rstrip("\n")).splitlines())
    assert seen[1] == "weights" and seen[-1] == "draft"
    assert (progress.done, progress.total) == (4, 47)
    assert progress.summary(progress.last_change).startswith("loading the draft model 4/47")
    rest = [
        "[TP0] Load weight end. type=Glm4MoeForCausalLMNextN",
        KV,
        *CAPTURE.replace("{}", draft).splitlines(),
    ]
    after = [(progress.feed(line, 50.0), progress.phase)[1] for line in rest]
    assert after == ["draft", "kv_cache", "capture", "capture", "capture"]


ORDER = ("begin 0", "begin 1", "end 1", "begin 2", "end 2", "end 0")


def test_a_rank_that_is_slow_to_begin_is_no_draft_model() -> None:
    begin, end = (
        "[TP{}] Load weight begin. avail mem=183.10 GB",
        "[TP{}] Load weight end. type=Glm4MoeForCausalLM",
    )
    seen, _ = phases_of(
        [begin.format(0), begin.format(1), end.format(1), begin.format(2), end.format(2), end.format(0)]
    )
    assert seen == ["starting", "weights"]


@pytest.mark.parametrize(
    "said",
    [
        "Running FlashInfer autotune...",
        "Running FlashInfer autotune with cache: /cache/autotune/x.json",
        "Running FlashInfer autotune (cache reuse DISABLED via SGLANG_FLASHINFER_AUTOTUNE_CACHE=0)",
    ],
)
def test_tuning_comes_before_a_capture_or_within_it(said: str) -> None:
    bar = "[AutoTuner]: Tuning trtllm::fused_moe::gemm1:  31%|███▏      | 5/16 [01:35<03:11, 17.1s/profile]"
    tune = [f"[2026-05-12 08:25:33 TP0] {said}", bar]
    captures = CAPTURE.replace("{}", "target decode CUDA graph").splitlines()
    assert phases_of([KV, *tune, *captures])[0] == ["starting", "kv_cache", "autotune", "capture"]
    seen, progress = phases_of([KV, captures[0], *tune, *captures[1:]])
    assert seen == ["starting", "kv_cache", "capture", "autotune", "capture"]
    progress = Progress("sglang", 0.0)
    for line in tune:
        progress.feed(line, 1.0)
    assert progress.summary(1.0).startswith("tuning FlashInfer kernels 5/16")


def test_deep_gemm_has_a_name() -> None:
    entering = "[2026-05-12 08:25:33 TP0] Entering DeepGEMM JIT Pre-Compile session. It may take a long time"
    seen, progress = phases_of([KV, entering, "DeepGEMM warmup:   3%|▎  | 512/16384 [00:30<20:00, 17.1it/s]"])
    assert seen[-1] == "deep_gemm"
    assert progress.summary(9.0).startswith("compiling DeepGEMM kernels 512/16384")


def test_a_follower_is_loaded_when_dynamo_says_so() -> None:
    _, progress = phases_of(OLDER)
    said = "INFO main._handle_non_leader_node: Non-leader node detected (node_rank=1)."
    assert progress.feed(f"2026-01-10T07:12:19.000123Z  {said}", 500.0)
    assert progress.loaded
    assert progress.phase == "loaded"


def test_a_line_glued_to_a_bar_is_not_lost() -> None:
    progress = Progress("sglang", 0.0)
    bar = "Capturing batches (bs=8 avail_mem=38.44 GB):  83%|████████▎ | 30/36 [00:00<00:00, 47.58it/s]"
    glued = "2026-01-10T07:12:18.1Z  INFO scheduler: max_total_num_tokens=10, chunked_prefill_size=8"
    assert progress.feed(bar, 1.0)
    assert (progress.done, progress.total, progress.detail) == (30, 36, "bs=8")
    assert progress.feed(bar.replace("30/36", "31/36") + glued, 2.0)
    assert progress.phase == "registering"


NOISE = (
    "2026-11-23T08:34:08.667331Z ERROR tower_http::trace::on_failure: response failed "
    "classification=Status code: 503 Service Unavailable latency=0 ms"
)


def test_answers_to_our_own_probes_are_no_sign_of_life_but_a_bar_before_one_is() -> None:
    progress = Progress("sglang", 0.0)
    assert not progress.feed(NOISE, 5.0)
    assert progress.last_line_at == 0.0
    assert progress.feed(
        "Compiling num tokens (num_tokens=8192):   2%|▏ | 1/58 [00:00<?, ?it/s]" + NOISE, 6.0
    )
    assert (progress.last_line_at, progress.last_change, progress.done) == (6.0, 6.0, 1)


def test_a_rank_that_is_behind_does_not_take_the_phase_back() -> None:
    progress = Progress("sglang", 0.0)
    progress.feed("[TP0] Capture cuda graph begin. avail mem=24.80 GB", 1.0)
    assert not progress.feed("[TP3] Memory pool end. avail mem=24.90 GB", 2.0)
    assert not progress.feed("[TP3] Capture cuda graph begin. avail mem=24.80 GB", 2.5)
    assert progress.phase == "capture"
    assert (progress.last_change, progress.last_line_at) == (1.0, 2.5)


def test_what_is_left_is_said_only_when_the_pace_is_known() -> None:
    progress = Progress("sglang", 0.0)
    bar = "Capturing batches (bs=%d avail_mem=38.44 GB):  10%%|█ | %d/36 [00:40<04:40, 40.00s/it]"
    progress.feed(bar % (256, 0), 100.0)
    progress.feed(bar % (248, 1), 120.0)
    assert progress.remaining(120.0) is None
    progress.feed(bar % (216, 5), 200.0)
    assert progress.remaining(200.0) == pytest.approx(31 * 20)
    assert progress.summary(210.0) == "capturing CUDA graphs 5/36 (bs=216), 2 min, about 10 min left"
    assert progress.remaining(300.0) is None  # it stands still
    assert progress.summary(300.0) == "capturing CUDA graphs 5/36 (bs=216), 3 min, silent for 2 min"


def test_without_a_dialect_only_life_is_seen() -> None:
    progress = Progress(None, 0.0)
    assert not progress.feed("Load weight begin. avail mem=78.50 GB", 3.0)
    assert (progress.phase, progress.last_line_at, progress.loaded) == ("starting", 3.0, False)
    assert progress.summary(4.0) == "starting, 4 s"
