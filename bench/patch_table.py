"""``python bench/patch_table.py [VERSION …]`` measures sglang releases and rewrites docs/patches.md's table.

Without versions it takes all from 0.5.6 to the newest on the registry; with some it only prints.
Exit code 1 when the edit leaves any width wrong, or a release is not recognised.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.releases import PAGE, RUNNERS, WIDTHS, copies, measure, no_expert_score, release, versions

START, END = "<!-- table: bench/patch_table.py -->", "<!-- end of table -->"
COLUMNS = (
    "sglang", "flashinfer", "`modelopt`", "`glm4_moe_routing`", "no expert scores",
    "cutlass: off", "cutlass: assert", "cutlass: pad", "trtllm: off", "trtllm: assert", "trtllm: pad",
)  # fmt: skip


def verdict(rows: list[dict[str, Any]]) -> str:
    """The widths of `rows` by what became of them: right, wrong, stopped."""
    right = [r["width"] for r in rows if r.get("relative_error") == 0 and 2 * r["told"] == r["rows"]]
    stopped = [r["width"] for r in rows if "error" in r]
    wrong = [r["width"] for r in rows if r["width"] not in right and r["width"] not in stopped]
    parts = [("right", right), ("**wrong**", wrong), ("stops", stopped)]
    return "; ".join(
        f"{word}: all" if len(found) == len(WIDTHS) else f"{word}: {', '.join(map(str, found))}"
        for word, found in parts
        if found
    )


def row(cells: Iterable[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def line(version: str) -> tuple[str, bool]:
    """The table's line for `version`, and whether `pad` is right at every width on both runners."""
    from entrypoint.prepare.patches.apply import check_all

    of = release(version)
    states = {s.edit: s.state for s in check_all(of.sglang, "pad")}
    with tempfile.TemporaryDirectory() as place:
        sources = copies(of, Path(place))
        rows = measure(sources, of.flashinfer, gated=[True])
    cells = []
    for runner in RUNNERS:
        for mode in ("off", "assert", "pad"):
            mine = [r for r in rows if r["runner"] == runner and r["source"] == mode]
            cells.append(verdict(mine) if mine else "not recognised")
    good = cells[2] == cells[5] == "right: all"
    routing = states.get("glm4_moe_routing", "no such file")
    first = [version, of.flashinfer_version, states["modelopt"], routing, no_expert_score(of.flashinfer)]
    return row([*first, *cells]), good


def main(wanted: list[str]) -> int:
    lines, fine = [], True
    for version in wanted or versions():
        text, good = line(version)
        print(text, flush=True)
        lines.append(text)
        fine = fine and good
    if not wanted:
        page = PAGE.read_text()
        before, _, rest = page.partition(START)
        after = rest.partition(END)[2]
        PAGE.write_text(
            f"{before}{START}\n{row(COLUMNS)}\n{row(['---'] * len(COLUMNS))}\n"
            + "\n".join(lines)
            + f"\n{END}{after}"
        )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
