"""``python bench/kv_layouts.py`` measures which layouts copy the right KV cache, on every sglang release.

It runs each release's own transfer code (tests/plan/engine/harness.py) for every pair of TPs up to `LARGEST`
and rewrites entrypoint/plan/engine/kv_layout_table.py and the table of docs/layouts.md. With versions it only
prints what it measures for these. Exit code 1 when pairs of one relation differ from each other: then the
rules of entrypoint/plan/engine/kv_layouts.py do not fit that release.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import releases
from entrypoint.node.engine import transfer_code
from entrypoint.node.versions import older
from entrypoint.plan.engine.kv_layouts import relation

HARNESS = releases.ROOT / "tests" / "plan" / "engine" / "harness.py"
TABLE = releases.ROOT / "entrypoint" / "plan" / "engine" / "kv_layout_table.py"
PAGE = releases.ROOT / "docs" / "layouts.md"
START, END = "<!-- table: bench/kv_layouts.py -->", "<!-- end of table -->"
BACKENDS = ("nixl", "mooncake")
KV_HEADS = (8, 4, 2, 1)
HEADS = 96
"""Attention heads of GLM-4.7, which TP must divide."""
LARGEST = 32
RELATIONS = {
    "equal": "equal",
    "prefill-above-one": "P > D = 1",
    "prefill-above": "P > D > 1",
    "prefill-above-heads": "P > D, P > heads",
    "decode-above": "P < D",
    "decode-above-heads": "P < heads < D",
    "decode-above-heads-from-one": "P = heads < D",
    "both-above-heads": "heads < P < D",
    "uneven": "no multiple",
}
Results = dict[str, dict[str, str]]
"""By backend and relation."""


def tps(kv_heads: int) -> list[int]:
    """TPs that split or replicate `kv_heads`."""
    suits = (n for n in range(1, LARGEST + 1) if HEADS % n == 0)
    return [n for n in suits if kv_heads % n == 0 or n % kv_heads == 0]


def measure(version: str, kv_heads: Iterable[int] = KV_HEADS) -> list[dict[str, Any]]:
    """One row per backend, number of KV heads and pair; the fields are the harness's."""
    request = {
        "sglang": str(releases.unpack("sglang", version)),
        "backends": BACKENDS,
        "kv_heads": list(kv_heads),
        "pairs": {str(h): [(p, d) for p in tps(h) for d in tps(h)] for h in kv_heads},
    }
    done = subprocess.run(
        [releases.torch_python(), str(HARNESS)], input=json.dumps(request), capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(releases.STUBS)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def result(row: dict[str, Any]) -> str:
    """What became of one pair: right, wrong, early, never or stops."""
    if "error" in row:
        return "stops"
    if row["in_place"] != row["of"] or row["outside"]:
        return "wrong"
    return {"last": "right"}.get(row["goes_on"], str(row["goes_on"]))


def summary(rows: list[dict[str, Any]]) -> tuple[Results, list[str]]:
    """The results by relation, and what does not fit: pairs of one relation that differ.

    Pairs of which neither TP divides the other have no rule: one that is not right makes them all wrong.
    """
    seen: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in rows:
        kind = relation(row["prefill"], row["decode"], row["kv_heads"])
        pair = f"{row['prefill']}/{row['decode']} of {row['kv_heads']}"
        seen.setdefault((row["backend"], kind), {}).setdefault(result(row), []).append(pair)
    found: Results = {backend: {} for backend in BACKENDS}
    odd = []
    for (backend, kind), by_result in seen.items():
        if kind == "uneven":
            found[backend][kind] = "right" if set(by_result) == {"right"} else "wrong"
            continue
        if len(by_result) > 1:
            told = "; ".join(f"{word}: {', '.join(pairs)}" for word, pairs in by_result.items())
            odd.append(f"{backend} {kind}: {told}")
        found[backend][kind] = min(by_result, key=lambda word: word == "right")
    return found, odd


def spans(found: dict[str, Results], backend: str) -> list[tuple[str, str, dict[str, str]]]:
    """(first, last, results) of neighbouring releases that are alike."""
    rows: list[tuple[str, str, dict[str, str]]] = []
    for version, results in found.items():
        if rows and rows[-1][2] == results[backend]:
            rows[-1] = (rows[-1][0], version, rows[-1][2])
        else:
            rows.append((version, version, results[backend]))
    return rows


def module(found: dict[str, Results], code: dict[str, dict[str, str]]) -> str:
    """The text of entrypoint/plan/engine/kv_layout_table.py."""
    lines = [
        '"""What bench/kv_layouts.py measured, and wrote. Do not edit: run it again."""',
        "",
        "from __future__ import annotations",
        "",
        "from collections.abc import Mapping",
        "",
        "SPANS: Mapping[str, tuple[tuple[str, str, Mapping[str, str]], ...]] = {",
    ]
    for backend in BACKENDS:
        lines.append(f'    "{backend}": (')
        for first, last, results in spans(found, backend):
            lines += [f'        ("{first}", "{last}", {{']
            lines += [f'            "{kind}": "{results[kind]}",' for kind in RELATIONS]
            lines += ["        }),"]
        lines.append("    ),")
    lines += ["}  # fmt: skip"]
    lines += ['"""By transfer backend: first release, last release, and the result of each relation."""']
    lines += ["CODE: Mapping[str, Mapping[str, str]] = {"]
    for backend in BACKENDS:
        lines.append(f'    "{backend}": {{')
        lines += [f'        "{digest}": "{version}",' for digest, version in code[backend].items()]
        lines.append("    },")
    lines += ["}"]
    lines += [
        '"""By transfer backend: digest of the transfer code, and the newest release that has it."""',
        "",
    ]
    return "\n".join(lines)


def markdown(found: dict[str, Results]) -> str:
    """The same as a table for reading."""
    lines = [f"| backend | sglang | {' | '.join(RELATIONS.values())} |", "|---" * (len(RELATIONS) + 2) + "|"]
    for backend in BACKENDS:
        for first, last, results in spans(found, backend):
            which = first if first == last else f"{first} to {last}"
            words = (results[kind] for kind in RELATIONS)
            cells = (word if word == "right" else f"**{word}**" for word in words)
            lines.append(f"| {backend} | {which} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(wanted: list[str]) -> int:
    found: dict[str, Results] = {}
    code: dict[str, dict[str, str]] = {backend: {} for backend in BACKENDS}
    fine = True
    pinned = releases.PINNED[0]
    for version in wanted or [v for v in releases.versions() if older(v, pinned) is False]:
        found[version], odd = summary(measure(version))
        for backend, digest in transfer_code(str(releases.unpack("sglang", version) / "sglang")).items():
            code[backend][digest] = version
        told = (" ".join(f"{k}={v}" for k, v in results.items()) for results in found[version].values())
        print(version, *told, sep="\n  ", flush=True)
        for line in odd:
            print(f"  differs: {line}", file=sys.stderr)
        fine = fine and not odd
    if not wanted and fine:
        TABLE.write_text(module(found, code))
        page = PAGE.read_text()
        before, _, rest = page.partition(START)
        PAGE.write_text(f"{before}{START}\n{markdown(found)}\n{END}{rest.partition(END)[2]}")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
