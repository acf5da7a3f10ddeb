"""The part of a plan that is done to files before anything starts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FileEdit:
    """A file the runner corrects before anything starts."""

    kind: str
    """`bos_token_id`, `modelopt` or `glm4_moe_routing`."""
    path: str
    """The file as the engine will see it."""
    reason: str
    mode: str = ""


@dataclass(frozen=True)
class SourcePatch:
    """Edits of the installed sglang that are made before its processes start."""

    source_dir: str
    """The directory that holds the sglang package."""
    modelopt: str
    """`pad` or `assert`."""
    where: str
    """`auto`, `inplace` or `overlay`."""


@dataclass(frozen=True)
class FlashInfer:
    """The installed FlashInfer, which writes into its own packages."""

    package: str
    """Directory of the `flashinfer` package."""
    cubins: str | None
    """Directory of the `flashinfer_cubin` package; None: not installed."""
    links: str
    """Where links to the cubins go when that directory cannot be written."""
    cutlass: bool
    """A rank runs its experts with CUTLASS's kernels, whose sources some releases write."""
