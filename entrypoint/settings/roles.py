"""The words that ROLE may have."""

from __future__ import annotations

ROLES = ("etcd", "nats", "prefill", "decode", "aggregated", "frontend", "nginx")
"""The roles that can share a container, in the order in which they are always named."""
LONE_ROLES = ("single", "auto")
"""The roles that stand for several others and are given alone."""


def split_roles(text: str) -> tuple[str, ...]:
    """The roles in `text`, in the order of `ROLES`.

    Raises ValueError with the remedy when a word is unknown or given twice, or when single or auto
    is joined with another.
    """
    words = [word.strip() for word in text.split(",")]
    known = (*ROLES, *LONE_ROLES)
    for word in words:
        if word not in known:
            import difflib

            near = difflib.get_close_matches(word.lower(), known, n=1)
            meant = f"; instead of {word!r} you may mean {near[0]}" if near else ""
            raise ValueError(f"give single, auto, or a comma-joined set of {', '.join(ROLES)}{meant}")
        if words.count(word) > 1:
            raise ValueError(f"name {word} only once")
        if word in LONE_ROLES and len(words) > 1:
            raise ValueError(f"give {word} alone, or leave it out")
    return tuple(role for role in known if role in words)
