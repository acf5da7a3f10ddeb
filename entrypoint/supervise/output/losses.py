"""What could not be written: counted by process, and said in one line."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Loss:
    """What could not be written."""

    lines: int = 0
    bytes: int = 0

    def add(self, lines: int, size: int) -> None:
        """Count `lines` more lines of `size` bytes in all."""
        self.lines += lines
        self.bytes += size


@dataclass
class Gap:
    """Losses since the place was last in order, by the process that wrote them."""

    reason: str
    by_source: dict[str, Loss] = field(default_factory=dict)
    seconds: float = 0.0
    """How long nothing moved; 0 until something does."""

    def __str__(self) -> str:
        lines = sum(loss.lines for loss in self.by_source.values())
        size = sum(loss.bytes for loss in self.by_source.values())
        detail = ""
        if len(self.by_source) > 1:
            each = ", ".join(f"{name} {loss.lines}" for name, loss in sorted(self.by_source.items()))
            detail = f" ({each})"
        return (
            f"{lines} lines ({size} bytes) of output dropped{detail}: {self.reason} for {self.seconds:.1f} s"
        )
