"""The members of an etcd of several: GLM47_ETCD_MEMBERS."""

from __future__ import annotations

from dataclasses import dataclass

from entrypoint.settings.hosts import is_host

MOST = 7
"""Members; more make every write slower and lose no fewer."""


@dataclass(frozen=True)
class Member:
    """One member."""

    name: str
    """What etcd calls it."""
    host: str
    """The name or address at which the others and all clients reach it."""


def members(text: str) -> tuple[Member, ...]:
    """The members that `text` lists: hosts joined by commas, each `host` or `name=host`.

    Raises ValueError with the remedy.
    """
    found = [_member(word.strip()) for word in text.split(",")]
    for what in ("name", "host"):
        values = [getattr(one, what).lower() for one in found]
        if twice := next((value for value in values if values.count(value) > 1), None):
            raise ValueError(f"name {twice} only once: each member is a host of its own")
    if len(found) > MOST:
        raise ValueError(f"name {MOST} of them at most: more make every write slower")
    if len(found) % 2 == 0:
        raise ValueError(
            f"name 1, 3, 5 or 7 of them: {len(found)} survive the loss of no more than {len(found) - 1} do"
        )
    return tuple(found)


def _member(word: str) -> Member:
    name, equals, host = word.rpartition("=")
    if not is_host(host) or (equals and not is_host(name)):
        what = f"instead of {word!r} " if word else "between two commas, "
        raise ValueError(
            f"{what}give a host name or an address alone, or name=host; ports have their own settings"
        )
    return Member(name if equals else host.strip("[]"), host.strip("[]"))
