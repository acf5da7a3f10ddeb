"""What the plan says of KV caches: data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KvLayout:
    """How a prefill or decode worker keeps its KV cache: what its counterpart must fit."""

    role: str
    attention_tp: int
    """Ranks that share one KV cache: TP, or TP / DP where DP attention is on."""
    pp: int
    kv_heads: int
    """Of the model."""
    transfer_backend: str
    kv_cache_dtype: str
    page_size: int | None
    """Tokens of a page; None: SGLang's own choice."""
    sglang: str
    """The release that it is judged by."""
    transfer_code: str | None = None
    """Digest of the installed code that hands KV caches over; None: not known."""
