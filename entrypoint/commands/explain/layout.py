"""Which prefill and decode workers fit together: the tables of `plan --explain layout`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from entrypoint.node import inspect
from entrypoint.node.facts import ModelFacts
from entrypoint.plan.engine import kv_layouts, parallelism
from entrypoint.plan.engine.kv_layouts import Verdict
from entrypoint.plan.releases import PINNED
from entrypoint.plan.table import table as table_lines
from entrypoint.settings.load import load

_NONE = "(none: two roles need two nodes at least, and a worker a TP of the first table)"
COUNTS = 4
"""Numbers of workers that a line names at most."""


def explain(environ: Mapping[str, str], cwd: Path, nodes: int) -> str:
    """Which prefill and decode workers on `nodes` nodes fit together, as a table for people."""
    settings = load(environ, cwd).settings
    found = inspect.gather(settings, environ)
    return table(
        found.model,
        backend=settings.transfer_backend,
        sglang=found.engine.sglang or PINNED["sglang"],
        code=found.engine.transfer_code,
        gpus_per_node=settings.gpus_per_node,
        nodes=nodes,
        per_node=(settings.prefill_workers_per_node, settings.decode_workers_per_node),
    )


def table(
    model: ModelFacts,
    *,
    backend: str,
    sglang: str,
    code: Mapping[str, str] | None = None,
    gpus_per_node: int = 4,
    nodes: int = 6,
    per_node: tuple[int, int] = (1, 1),
) -> str:
    """Two tables as text: every pair of TPs, and every way to divide `nodes` nodes among both roles.

    `sglang` is the installed release, `code` the digests of its transfer code by backend, `per_node` how many
    prefill and decode workers are to share a node.
    """

    def judge(prefill: int, decode: int) -> Verdict:
        digest = (code or {}).get(backend)
        return kv_layouts.judge(backend, sglang, prefill, decode, model.kv_heads, digest)

    tps = parallelism.allowed_tp(
        heads=model.heads,
        kv_heads=model.kv_heads,
        intermediate=model.moe_intermediate_size,
        most=nodes * gpus_per_node,
    )
    verdicts = {(p, d): judge(p, d) for p in tps for d in tps}
    marks = _marks(verdicts)
    rows = [("prefill \\ decode", *map(str, tps))]
    rows += [(str(p), *(marks[verdicts[p, d]] for d in tps)) for p in tps]
    out = [
        f"sglang {sglang}, {backend}, {model.kv_heads} KV heads; "
        "attention-TP (TP / DP where DP attention is on)",
        "",
        *table_lines(rows),
        "",
        *(f"{mark}: {verdict.why}" for verdict, mark in marks.items() if verdict.why),
        *([""] if len(marks) > 1 else []),
        f"{nodes} nodes of {gpus_per_node} GPUs as:",
    ]
    head = ("prefill", "nodes each", "TP", "decode", "nodes each", "TP", "padding", "")
    lines = sorted(
        _divisions(nodes, gpus_per_node, tps, per_node),
        key=lambda d: verdicts[d[0].tp, d[1].tp].word != "right",
    )
    body = []
    for of_prefill, of_decode, counts in lines:
        padding = max(_waste(model, tp) for tp in (of_prefill.tp, of_decode.tp))
        for prefill, decode in counts:
            cells = (prefill, of_prefill.share, of_prefill.tp, decode, of_decode.share, of_decode.tp)
            body.append((*map(str, cells), f"{padding:.0%}", marks[verdicts[of_prefill.tp, of_decode.tp]]))
    return "\n".join([*out, *(table_lines([head, *body]) if body else [_NONE])]) + "\n"


def _marks(verdicts: Mapping[tuple[int, int], Verdict]) -> dict[Verdict, str]:
    """A short word for each verdict; the reasons stand below the table."""
    marks: dict[Verdict, str] = {}
    for verdict in verdicts.values():
        if verdict not in marks:
            numbered = sum(mark.startswith(verdict.word) for mark in marks.values()) + 1
            marks[verdict] = "right" if verdict.word == "right" else f"{verdict.word} {numbered}"
    return marks


@dataclass(frozen=True)
class Size:
    """A worker of `nodes` whole nodes, or one of `per_node` workers on a node."""

    nodes: int
    per_node: int
    tp: int

    @property
    def share(self) -> str:
        """Nodes of one worker: `2`, or `1/2` of a node."""
        return str(self.nodes) if self.per_node == 1 else f"1/{self.per_node}"


def _divisions(
    nodes: int, gpus: int, tps: list[int], per_node: tuple[int, int]
) -> Iterator[tuple[Size, Size, list[tuple[int, int]]]]:
    """A prefill worker's size, a decode worker's, and how many of each fill `nodes` nodes exactly."""

    def sizes(shared: int) -> list[Size]:
        if shared > 1:
            return [Size(1, shared, gpus // shared)] if gpus % shared == 0 and gpus // shared in tps else []
        return [Size(n, 1, n * gpus) for n in range(1, nodes) if n * gpus in tps]

    for prefill in sizes(per_node[0]):
        for decode in sizes(per_node[1]):
            counts = [
                (count * prefill.per_node, (nodes - count * prefill.nodes) // decode.nodes * decode.per_node)
                for count in range(1, nodes // prefill.nodes + 1)
                if nodes > count * prefill.nodes and (nodes - count * prefill.nodes) % decode.nodes == 0
            ]
            if counts:
                yield prefill, decode, counts[:COUNTS]


def _waste(model: ModelFacts, tp: int) -> float:
    return parallelism.waste(model.moe_intermediate_size // tp)
