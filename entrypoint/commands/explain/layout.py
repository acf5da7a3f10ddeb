"""Which prefill and decode workers fit together: the tables of `plan --explain layout`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from entrypoint.node import inspect
from entrypoint.node.facts import ModelFacts
from entrypoint.plan.engine import kv_layouts, parallelism
from entrypoint.plan.engine.kv_layouts import Verdict
from entrypoint.plan.releases import PINNED
from entrypoint.plan.table import table as table_lines
from entrypoint.settings.load import load

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
    )


def table(
    model: ModelFacts,
    *,
    backend: str,
    sglang: str,
    code: Mapping[str, str] | None = None,
    gpus_per_node: int = 4,
    nodes: int = 6,
) -> str:
    """Two tables as text: every pair of TPs, and every way to divide `nodes` nodes among both roles.

    `sglang` is the installed release, `code` the digests of its transfer code by backend.
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
    lines = sorted(_divisions(nodes, gpus_per_node, tps), key=lambda d: verdicts[d[1], d[3]].word != "right")
    body = []
    for prefill_nodes, prefill_tp, decode_nodes, decode_tp, counts in lines:
        padding = max(_waste(model, tp) for tp in (prefill_tp, decode_tp))
        for prefill, decode in counts:
            cells = (prefill, prefill_nodes, prefill_tp, decode, decode_nodes, decode_tp)
            body.append((*map(str, cells), f"{padding:.0%}", marks[verdicts[prefill_tp, decode_tp]]))
    return (
        "\n".join([*out, *(table_lines([head, *body]) if body else ["(two roles need two nodes at least)"])])
        + "\n"
    )


def _marks(verdicts: Mapping[tuple[int, int], Verdict]) -> dict[Verdict, str]:
    """A short word for each verdict; the reasons stand below the table."""
    marks: dict[Verdict, str] = {}
    for verdict in verdicts.values():
        if verdict not in marks:
            numbered = sum(mark.startswith(verdict.word) for mark in marks.values()) + 1
            marks[verdict] = "right" if verdict.word == "right" else f"{verdict.word} {numbered}"
    return marks


def _divisions(
    nodes: int, gpus: int, tps: list[int]
) -> Iterator[tuple[int, int, int, int, list[tuple[int, int]]]]:
    """(nodes, TP) of a prefill worker, of a decode worker, and how many of each fill `nodes` exactly."""
    sizes = [(n, n * gpus) for n in range(1, nodes) if n * gpus in tps]
    for prefill_nodes, prefill_tp in sizes:
        for decode_nodes, decode_tp in sizes:
            counts = [
                (count, (nodes - count * prefill_nodes) // decode_nodes)
                for count in range(1, nodes // prefill_nodes + 1)
                if nodes > count * prefill_nodes and (nodes - count * prefill_nodes) % decode_nodes == 0
            ]
            if counts:
                yield prefill_nodes, prefill_tp, decode_nodes, decode_tp, counts[:COUNTS]


def _waste(model: ModelFacts, tp: int) -> float:
    return parallelism.waste(model.moe_intermediate_size // tp)
