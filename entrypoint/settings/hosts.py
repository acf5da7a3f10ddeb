"""Settings that name a host: a name or an address, and nothing around it."""

from __future__ import annotations

import re

HOSTS = ("head_address", "leader_address", "http_host", "health_host")
"""The fields."""
_NAME = re.compile(r"\w(?:[\w.-]*\w)?\.?")


def not_a_host(field: str, text: str) -> str | None:
    """What to do about the value `text` of `field`, where that names a host and `text` is none; else None."""
    if field not in HOSTS or is_host(text):
        return None
    return "give a host name or an address alone, without scheme, port or path: ports have their own settings"


def is_host(text: str) -> bool:
    """Whether `text` can be a host's name or address."""
    return _NAME.fullmatch(text) is not None or _is_ipv6(text)


def _is_ipv6(text: str) -> bool:
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" not in inner:
        return False
    from ipaddress import IPv6Address

    try:
        IPv6Address(inner)
    except ValueError:
        return False
    return True
