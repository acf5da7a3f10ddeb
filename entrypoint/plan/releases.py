"""What releases of SGLang, Dynamo and FlashInfer do differently, as far as the runner must know it. Pure.

One named fact each, with the span of releases that it holds for and how it is known. A release that is newer
than all that were looked at is planned for as the newest of them, with one warning (`unlooked_at`). Evidence
begins with `wheel` where test_release_facts.py reads the releases on both sides of each end, with `ran` where
the releases were run, and with `told` where others say so. Which layouts of prefill and decode workers fit
together has a table of its own, `kv_layout_table`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from entrypoint.node.versions import newer, older

PINNED: Mapping[str, str] = {"sglang": "0.5.6.post2", "dynamo": "0.8.1", "flashinfer": "0.5.3"}
"""What the image's default base has: planned for where nothing is installed."""
NEWEST: Mapping[str, str] = {"sglang": "0.5.23", "dynamo": "1.6.1", "flashinfer": "0.7.2"}
"""The newest releases that were looked at."""
TITLES: Mapping[str, str] = {"sglang": "sglang", "dynamo": "Dynamo", "flashinfer": "flashinfer"}


@dataclass(frozen=True)
class Fact:
    """Something that holds for some releases of a package and not for others."""

    package: str
    """`sglang`, `dynamo` or `flashinfer`."""
    what: str
    since: str | None
    """The first release that it holds for; None: the oldest."""
    until: str | None
    """The first release that it does not hold for any more; None: it still does."""
    evidence: str

    def holds(self, version: str | None) -> bool | None:
        """Whether it holds for `version`; None when that is not known."""
        early = False if self.since is None else older(version, self.since)
        late = True if self.until is None else older(version, self.until)
        if version is None or early is None or late is None:
            return None
        return not early and late

    def holds_here(self, version: str | None) -> bool:
        """Whether it holds for `version`, or for the pinned release when that is not known."""
        found = self.holds(version)
        return bool(self.holds(PINNED[self.package]) if found is None else found)


# -- SGLang

CUTEDSL_NEEDS_DEEPEP = Fact(
    "sglang",
    "flashinfer_cutedsl computes a rank's own experts behind DeepEP only (--moe-a2a-backend deepep)",
    None,
    "0.5.11",
    "wheel",
)
FORCES_LOW_LATENCY = Fact(
    "sglang",
    "with flashinfer_cutedsl DeepEP's mode auto becomes low_latency: there is no kernel for the other one, "
    "which auto takes for prefill",
    "0.5.17",
    None,
    "wheel",
)
NAMES_ROUTING = Fact(
    "sglang",
    "glm4_moe.py names the experts' routing method, without which flashinfer_trtllm serves no token",
    "0.5.8",
    None,
    "wheel",
)
PINS_RIGHT_FLASHINFER = Fact("sglang", "it pins a FlashInfer that routes GLM rightly", "0.5.9", None, "wheel")
ASSERTS_W2_SCALES = Fact(
    "sglang",
    "loading NVFP4 experts asserts that w2's scales divide by 16, which GLM-4.7's do at no TP",
    None,
    "0.5.8",
    "ran: every release's own function on a CPU (bench/patch_table.py, docs/patches.md)",
)
TAKES_ROUND_ROBIN = Fact(
    "sglang",
    "decode workers of DP over 1 need --prefill-round-robin-balance; later it only warns, then it is gone",
    None,
    "0.5.8",
    "wheel",
)
ROUNDS_TRTLLM_WIDTH = Fact(
    "sglang",
    "flashinfer_trtllm's width per rank is rounded up to 128 for gated NVFP4 experts too",
    "0.5.8",
    "0.5.23",
    "wheel",
)
RANKS_OVER_IPV6 = Fact(
    "sglang", "ranks can listen for each other on an IPv6 address", "0.5.10", None, "wheel"
)
LOADS_MTP = Fact(
    "sglang",
    "the draft layer (MTP) of GLM-4.7-NVFP4 is loaded as BF16",
    "0.5.9",
    None,
    "told: read in SGLang's glm4_moe_nextn.py; nobody has run it",
)
PICKS_FP4_GEMM = Fact(
    "sglang", "the kernels of FP4 matrices can be chosen (--fp4-gemm-backend)", "0.5.8", None, "wheel"
)
SPECULATES_V1 = Fact(
    "sglang",
    "speculation overlaps nothing unless SGLANG_ENABLE_SPEC_V2 is set",
    None,
    "0.5.11",
    "wheel",
)
ROUTES_IN_FP32 = Fact("sglang", "GLM's routing gate is computed in FP32", "0.5.10", None, "wheel")
READS_AHEAD = Fact(
    "sglang",
    "weights can be read ahead of loading them (--weight-loader-prefetch-checkpoints)",
    "0.5.11",
    None,
    "wheel",
)
COPIES_UNEQUAL = Fact(
    "sglang",
    "prefill and decode of unequal TP exchange right KV caches over NIXL, in most layouts",
    "0.5.17",
    None,
    "ran: every release's own code on byte arrays (bench/kv_layouts.py, docs/layouts.md)",
)
OVERLAP_HANGS = Fact(
    "sglang",
    "TP over nodes hangs in about one start of three without --disable-overlap-schedule",
    "0.5.11",
    "0.5.13",
    "told: SGLang 26454, of 0.5.11 to 0.5.12.post1",
)
FP8_TO_FP4 = Fact(
    "sglang",
    "modelopt_fp4 takes FP8 checkpoints too, and quantizes their experts anew",
    "0.5.18",
    None,
    "wheel",
)

# -- FlashInfer

ROUTES_GLM = Fact(
    "flashinfer",
    "the routing of flashinfer_trtllm is right for GLM; before, answers are fluent garbage",
    "0.6.2",
    None,
    "told: FlashInfer 2313 and 2485; the kernel's source is read in tests/patches/test_numbers.py",
)

WRITES_KERNELS = Fact(
    "flashinfer",
    "flashinfer_cutlass writes its kernels' sources into the package (prepare/flashinfer/kernel_sources)",
    None,
    "0.6.3",
    "wheel",
)
LOCKS_CUBINS = Fact(
    "flashinfer",
    "flashinfer_trtllm makes a lock and a link among the cubins (prepare/flashinfer/cubins)",
    "0.6.7.post1",
    None,
    "wheel",
)

# -- Dynamo

ANNOUNCES_IPV6 = Fact("dynamo", "a bootstrap server on IPv6 is announced in brackets", "0.9.0", None, "wheel")
STORE_KV = Fact("dynamo", "the store is DYN_STORE_KV; later DYN_DISCOVERY_BACKEND", None, "1.0.0", "wheel")
NEEDS_BOS = Fact(
    "dynamo",
    "the frontend refuses a model without bos_token_id",
    None,
    "0.9.1",
    "ran: 0.8.1 does, 0.9.1 does not; 0.9.0 was not run",
)
TEMPLATE_KWARGS = Fact(
    "dynamo",
    "requests turn thinking off with chat_template_kwargs; before with chat_template_args",
    "0.9.0",
    None,
    "wheel",
)
HIDES_END = Fact(
    "dynamo",
    "the token that ends an answer, <|user|> or <|observation|>, is left out of its text",
    "1.3.0",
    None,
    "ran: 1.3.1 does, 0.8.1 does not (tests/engine/test_thought_and_call.py); those between were not run",
)
MIGRATES_IN_WORKER = Fact(
    "dynamo", "--migration-limit is an option of workers; later the frontend's", None, "1.0.0", "wheel"
)
KV_EVENTS = Fact(
    "dynamo",
    "events are DYN_KV_EVENTS and --kv-events; later DYN_ROUTER_USE_KV_EVENTS and --router-kv-events",
    None,
    "1.0.0",
    "wheel",
)
GLM_PARSERS = Fact(
    "dynamo", "it knows the tool parser glm47 and the reasoning parser glm45", "1.0.0", None, "wheel"
)
ALWAYS_DISAGGREGATES = Fact(
    "dynamo",
    "the frontend enforces disaggregation by itself and does not know --enforce-disagg",
    "1.0.0",
    "1.1.0",
    "wheel",
)
FORGETS_PREFILL = Fact(
    "dynamo",
    "a frontend whose last decode worker left does not list the model again, until it is started anew",
    "1.1.0",
    "1.2.0",
    "ran: 1.1.1 does, 1.0.2 and 1.2.1 do not (tests/stack/test_releases.py); told: Dynamo 8965 mends it",
)
MARKS_LOG_LINES = Fact(
    "dynamo",
    "its servers' log lines show our header without being told",
    None,
    "1.1.0",
    "ran: 0.8.1, 0.9.1 and 1.0.2 do, 1.3.1 and 1.6.1 do not; those between were not run",
)
MOCKER_NEEDS_NATS = Fact(
    "dynamo",
    "the mocker needs NATS with JetStream whatever the store, and registers before its engine exists",
    None,
    "1.3.0",
    "ran: 0.8.1, 0.9.1 and 1.0.2 do, 1.3.1 and 1.6.1 do not; those between were not run",
)
EVENTS_OVER_NATS = Fact(
    "dynamo",
    "every process asks for NATS, except on the file store, unless DYN_EVENT_PLANE says zmq",
    "1.1.0",
    "1.3.0",
    "ran: 1.1.1 and 1.2.1 do; 0.8.1, 0.9.1, 1.0.2, 1.3.1 and 1.6.1 do not (tests/stack/test_releases.py)",
)
NATS_TLS = Fact("dynamo", "its NATS client speaks TLS (NATS_TLS_*, tls://)", "1.5.0", None, "wheel")
HEALTH_BY_ENDPOINT = Fact(
    "dynamo",
    "dynamo.sglang heeds DYN_SYSTEM_USE_ENDPOINT_HEALTH_STATUS; later only the mocker does, which needs it",
    None,
    "1.3.0",
    "ran: 0.8.1 to 1.6.1 with the mocker (docs/releases.md), 1.3.1 with SGLang on a GPU",
)


GAINS: Mapping[str, Fact] = {
    "GLM's own tool and reasoning parsers": GLM_PARSERS,
    "answers without the token that ends them": HIDES_END,
    "speculation with the model's draft layer (MTP)": LOADS_MTP,
    "an FP32 routing gate": ROUTES_IN_FP32,
    "weights read ahead": READS_AHEAD,
    "right KV caches between unequal TPs": COPIES_UNEQUAL,
}
"""What a person may want a newer base for, with the release that it begins with."""


def lacks(installed: Mapping[str, str | None]) -> str | None:
    """What newer releases than `installed`, by package, would give; None: they give nothing more."""
    missing = [
        f"{gain} ({TITLES[fact.package]} {fact.since})"
        for gain, fact in GAINS.items()
        if not fact.holds_here(installed.get(fact.package))
    ]
    return f"a newer base image (BASE_IMAGE) gives {', '.join(missing)}" if missing else None


def facts() -> dict[str, Fact]:
    """The whole table, by name."""
    return {name: value for name, value in globals().items() if isinstance(value, Fact)}


def unlooked_at(installed: Mapping[str, str | None]) -> tuple[str, ...]:
    """A warning when releases, by package, are newer than all that are known here; empty: none is."""
    ahead = [
        f"{TITLES[package]} {installed[package]} is planned for as {newest}"
        for package, newest in NEWEST.items()
        if newer(installed.get(package), newest)
    ]
    if not ahead:
        return ()
    return (f"newer than the newest releases that this runner knows: {', '.join(ahead)}",)
