"""Text in aligned columns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def padded(rows: Iterable[Sequence[str]], right: Collection[int] = ()) -> list[list[str]]:
    """`rows` with cells as wide as the widest of their column; those of the columns `right` to the right."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows if len(row) > i) for i in range(max(map(len, rows), default=0))]
    return [
        [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=False))]
        for row in rows
    ]


def table(rows: Iterable[Sequence[str]], indent: int = 0) -> list[str]:
    """`rows` as lines; an empty cell is blank, the last column is as wide as it is."""
    return [(" " * indent + "  ".join(cells)).rstrip() for cells in padded(rows)]
