"""The arithmetic of splitting GLM-4.7 over GPUs. Pure; the numbers of the model come in as arguments.

A routed expert's intermediate width is split over the MoE tensor parallelism, TP / EP. NVFP4 stores one scale
per block of 16 values, so a rank's width must be whole blocks; the MoE kernels want each of the two gated
halves (w1, w3) in multiples of 64 rows, and the ModelOpt patch pads up to that with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

NVFP4_BLOCK = 16
"""Values that share one NVFP4 scale."""
GATED_ROWS = 64
"""Each gated half must be a multiple of this: 2n a multiple of 128, n/16 a multiple of 4."""


def width_per_rank(intermediate: int, tp: int, ep: int = 1) -> int | None:
    """Columns of an expert that one rank holds; None when `intermediate` does not divide."""
    if tp % ep:
        return None
    ranks = tp // ep
    return None if intermediate % ranks else intermediate // ranks


def padded_width(width: int) -> int:
    """`width` rounded up to what the kernels take."""
    return -(-width // GATED_ROWS) * GATED_ROWS


def waste(width: int) -> float:
    """Expert weight and work added by padding `width`, as a fraction of what is needed (96: 0.333…)."""
    return padded_width(width) / width - 1


@dataclass(frozen=True)
class Split:
    """How one worker is split, and over what."""

    tp: int
    dp: int = 1
    """Data-parallel attention groups inside `tp`."""
    ep: int = 1
    pp: int = 1
    nnodes: int = 1
    gpus_per_node: int = 4

    @property
    def gpus(self) -> int:
        """GPUs the whole worker takes."""
        return self.tp * self.pp

    @property
    def attention_tp(self) -> int:
        """Tensor parallelism inside one attention group."""
        return self.tp // self.dp


@dataclass(frozen=True)
class Finding:
    """Something wrong with a split: which number, why, what to do."""

    number: str
    """`tp`, `dp` or `ep`: whose setting the message names."""
    why: str
    remedy: str


def divisors(number: int, most: int) -> list[int]:
    """Divisors of `number` up to `most`, ascending."""
    return [n for n in range(1, min(number, most) + 1) if number % n == 0]


def allowed_tp(
    *, heads: int, kv_heads: int, intermediate: int | None, most: int, nnodes: int = 1
) -> list[int]:
    """Tensor parallelisms up to `most` that suit the nodes, the heads and (if given) the NVFP4 block."""
    return [
        n
        for n in divisors(heads, most)
        if n % nnodes == 0
        and (kv_heads % n == 0 or n % kv_heads == 0)
        and (intermediate is None or intermediate % (n * NVFP4_BLOCK) == 0)
    ]


def check(
    split: Split, *, heads: int, kv_heads: int, experts: int, intermediate: int, nvfp4: bool
) -> list[Finding]:
    """What makes `split` impossible: at most one finding per number, the one to fix first."""
    found: dict[str, Finding] = {}

    def add(number: str, why: str, remedy: str) -> None:
        found.setdefault(number, Finding(number, why, remedy))

    room = split.nnodes * split.gpus_per_node
    good = allowed_tp(
        heads=heads,
        kv_heads=kv_heads,
        intermediate=intermediate if nvfp4 else None,
        most=room,
        nnodes=split.nnodes,
    )
    nodes = f"{split.nnodes} node{'s' if split.nnodes > 1 else ''} of {split.gpus_per_node} GPUs"
    choices = (
        "use one of " + ", ".join(map(str, good))
        if good
        else f"no TP suits {nodes}: use another number of nodes"
    )
    if split.gpus > room:
        add("tp", f"{nodes} cannot hold {split.gpus} ranks", f"use at most {room}")
    elif split.gpus % split.nnodes:
        add("tp", f"{split.gpus} ranks do not divide over {split.nnodes} nodes", choices)
    by_tp = "use one of " + ", ".join(map(str, divisors(split.tp, split.tp)))
    if split.tp % split.dp:
        add("dp", f"it must divide TP {split.tp}", by_tp)
    else:
        n = split.attention_tp
        if heads % n:
            add("tp", f"{heads} attention heads do not divide by {n}", choices)
        elif kv_heads % n and n % kv_heads:
            add("tp", f"{kv_heads} KV heads can neither be split nor replicated over {n}", choices)
    if split.tp % split.ep:
        add("ep", f"it must divide TP {split.tp}", by_tp)
        return list(found.values())
    if experts % split.ep:
        add("ep", f"it must divide the {experts} experts", "use 1")
    width = width_per_rank(intermediate, split.tp, split.ep)
    if nvfp4 and (width is None or width % NVFP4_BLOCK):
        share = f"{intermediate}/{split.tp // split.ep}"
        add("tp", f"MoE width per rank {share} is not a multiple of {NVFP4_BLOCK} (one NVFP4 block)", choices)
    return list(found.values())
