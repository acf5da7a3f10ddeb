"""Which pairs of prefill and decode workers hand the KV cache over rightly, release by release. Pure.

Each rank of a prefill worker writes its KV heads into the buffers of decode ranks. Where both sides have the
same attention-TP it sends whole pages; where they differ it cuts them, and releases of SGLang differ in
whether that is right. `kv_layout_table` is what bench/kv_layouts.py measured by running each release's own
code; docs/layouts.md has it for reading. TP is attention-TP here: TP / DP where DP attention is on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from entrypoint.node.versions import older
from entrypoint.plan.engine.kv_layout_table import CODE, SPANS
from entrypoint.plan.types import KvLayout

REMARKS = {
    "wrong": "KV heads land in wrong places: wrong answers",
    "early": "decode goes on before every prefill rank has sent: wrong answers under load",
    "never": "decode never takes the transfer for complete: requests hang",
    "stops": "prefill fails on the first request",
}
"""What a measured result other than `right` means for a person."""
SHOWN: Mapping[str, tuple[str, ...]] = {"prefill-above-heads": ()}
"""Relations whose bytes in place are not enough: the releases on which answers from GPUs were right.

Ranks share heads there, as in the original deployment's layout (TP 16 with 8 heads).
"""


@dataclass(frozen=True)
class Verdict:
    """What is known of one pair."""

    word: str
    """`right`, `wrong`, `unknown`, or `untried`: the release has not been measured, but nothing is cut."""
    why: str = ""
    """For people; empty when right."""

    @property
    def refused(self) -> bool:
        """Such a pair is not to be started, unless a person insists."""
        return self.word in ("wrong", "unknown")


def relation(prefill: int, decode: int, kv_heads: int) -> str:
    """How the two attention-TPs stand to each other and to the number of KV heads.

    Within a release, all pairs of the same relation came out alike for 8, 4, 2 and 1 KV heads up to TP 32.
    """
    if prefill == decode:
        return "equal"
    if max(prefill, decode) % min(prefill, decode):
        return "uneven"
    if prefill > decode:
        if prefill > kv_heads:
            return "prefill-above-heads"
        return "prefill-above-one" if decode == 1 else "prefill-above"
    if decode <= kv_heads:
        return "decode-above"
    if prefill > kv_heads:
        return "both-above-heads"
    return "decode-above-heads" if prefill < kv_heads else "decode-above-heads-from-one"


def measured_as(backend: str, sglang: str, code: str | None) -> str | None:
    """The release in the table that stands for the installed one; None: it has not been measured.

    `code` is the digest of the installed transfer code: a release that is not in the table counts as the one
    whose code it has.
    """
    if any(_within(sglang, first, last) for first, last, _ in SPANS[backend]):
        return sglang
    return CODE[backend].get(code) if code is not None else None


def judge(
    backend: str, sglang: str, prefill: int, decode: int, kv_heads: int, code: str | None = None
) -> Verdict:
    """Whether a prefill worker of attention-TP `prefill` can feed a decode worker of `decode`."""
    kind = relation(prefill, decode, kv_heads)
    unmeasured = "untried" if kind == "equal" else "unknown"
    if backend not in SPANS:
        return Verdict(unmeasured, f"the transfer backend {backend} has not been measured")
    release = measured_as(backend, sglang, code)
    if release is None:
        return Verdict(unmeasured, f"sglang {sglang} with {backend} has not been measured")
    result = results(backend, release)[kind]
    if result == "right":
        if release in SHOWN.get(kind, (release,)):
            return Verdict("right")
        return Verdict("unknown", "every byte is in place, but no answers from GPUs have shown it right")
    upstream = ", ".join(map(str, _upstream(result, kind, release)))
    return Verdict("wrong", REMARKS[result] + (f" (sglang {upstream})" if upstream else ""))


def fit(prefill: KvLayout, decode: KvLayout) -> Verdict:
    """Whether these two workers can work together."""
    for what, one, other in (
        ("transfer backends", prefill.transfer_backend, decode.transfer_backend),
        ("KV cache dtypes", prefill.kv_cache_dtype, decode.kv_cache_dtype),
        ("page sizes", prefill.page_size, decode.page_size),
        ("sglang releases", prefill.sglang, decode.sglang),
        ("numbers of KV heads", prefill.kv_heads, decode.kv_heads),
    ):
        if one != other:
            return Verdict("wrong", f"their {what} differ: {one or 'unset'} and {other or 'unset'}")
    if prefill.pp > 1 or decode.pp > 1:
        return Verdict("unknown", "pipeline parallelism has not been measured")
    return judge(
        prefill.transfer_backend,
        prefill.sglang,
        prefill.attention_tp,
        decode.attention_tp,
        prefill.kv_heads,
        prefill.transfer_code,
    )


def describe(prefill: KvLayout, decode: KvLayout, verdict: Verdict, source: str = "") -> str:
    """The pair, where its TPs come from (`source`), and what is wrong with it, on one line."""
    return (
        f"attention-TP {prefill.attention_tp} and {decode.attention_tp}{source}, sglang {prefill.sglang}, "
        f"{prefill.transfer_backend}, {prefill.kv_heads} KV heads: {verdict.why}"
    )


def results(backend: str, release: str) -> Mapping[str, str]:
    """What was measured of each relation on a release of the table."""
    for first, last, found in SPANS[backend]:
        if _within(release, first, last):
            return found
    raise KeyError(release)


def _within(release: str, first: str, last: str) -> bool:
    return older(release, first) is False and older(last, release) is False


def _upstream(result: str, kind: str, release: str) -> tuple[int, ...]:
    """Issues and pull requests of SGLang that are about it."""
    if result == "never" and kind == "equal":
        return (25698,)
    if result in ("early", "never"):
        return (25698,) if release == "0.5.12" else (22145,)
    if result == "stops":
        return (14419,) if older(release, "0.5.11") else (31295, 31968)
    if result == "wrong" and kind != "uneven":
        return (19086,) if kind.startswith("prefill") else (30997,)
    return ()
