"""Workers and NVLink domains: which nodes share one, and groups of nodes that do not lie across two. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from entrypoint.errors import ConfigError
from entrypoint.node import nodelist

Sizes = list[tuple[str, int, int]]
"""(role, number among the workers of that role, nodes) of each worker."""

_LAST_NUMBER = re.compile(r"^(.*?)([0-9]+)([^0-9]*)$", re.DOTALL)


def place(
    sizes: Sizes, names: tuple[str, ...], *, size: int, size_given: bool, known: str | None
) -> tuple[list[list[int]], tuple[str, ...] | None, tuple[str, ...]]:
    """(nodes of each worker, domain of each node or None, warnings); ConfigError for what cannot fit.

    In the list's order, or packed into domains when a worker would lie across two. `known` names the nodes of
    each domain; without it domains of `size` (0: they do not matter) are guessed from the names, and a guess
    refuses nobody: it only warns.
    """
    if size_given and size:
        _check_size(sizes, size)
    domains = None
    if known is not None:
        domains = known_domains(names, known)
    elif size:
        domains = guessed_domains(names, size)
    groups = _sequential(sizes)
    if domains is None or _straddler(groups, domains) is None:
        return groups, domains, ()
    if packed := _packed(sizes, domains):
        return packed, domains, ()
    text = _straddling(sizes, groups, names, domains)
    if known is not None:
        raise ConfigError(
            f"cannot place {text}: GLM47_NVLINK_DOMAINS says so: ask Slurm for nodes of one domain, or "
            "correct it"
        )
    warning = (
        f"{text}, as far as the numbers in their names tell (GLM47_NVLINK_DOMAIN_SIZE {size}); if that is "
        "so, ask Slurm for nodes of one domain; if not, name the domains in GLM47_NVLINK_DOMAINS, or set "
        "the size to 0"
    )
    return groups, domains, (warning,)


def known_domains(names: Sequence[str], text: str) -> tuple[str, ...]:
    """The NVLink domain of each node, from host lists with blanks between: its first node's name."""
    domain_of: dict[str, str] = {}
    for part in text.split():
        try:
            members = nodelist.expand(part)
        except ValueError as error:
            raise ConfigError(
                f"cannot read GLM47_NVLINK_DOMAINS: {part}: {error}: give the nodes of each domain as Slurm "
                "writes them, and a blank between two domains"
            ) from None
        for name in members:
            if name in domain_of:
                raise ConfigError(f"cannot use GLM47_NVLINK_DOMAINS: {name} is in it twice: name it once")
            domain_of[name] = members[0]
    if lost := [name for name in names if name not in domain_of]:
        raise ConfigError(
            f"cannot use GLM47_NVLINK_DOMAINS: {text}: {lost[0]} of the job is in none of its domains: add it"
        )
    return tuple(domain_of[name] for name in names)


def guessed_domains(names: Sequence[str], size: int) -> tuple[str, ...]:
    """The NVLink domain of each node, as far as its name tells.

    Nodes that differ only in the last number of their names are counted off in domains of `size`, from 1, or
    from 0 when a node has that number: ``n[001-018]`` is one domain, ``n019`` starts the next. A rack in the
    name (``rack12-t[01-18]``) is a domain of its own. When a name has no number, places in the list count.
    """
    matches = [_LAST_NUMBER.match(name.split(".", 1)[0]) for name in names]
    if any(match is None for match in matches):
        return tuple(f"#{index // size}" for index in range(len(names)))
    parts = [(m[1], int(m[2]), m[3]) for m in matches if m is not None]
    first = {(prefix, suffix): 1 for prefix, _, suffix in parts}
    for prefix, number, suffix in parts:
        if number == 0:
            first[prefix, suffix] = 0
    return tuple(
        f"{prefix}*{suffix}#{(number - first[prefix, suffix]) // size}" for prefix, number, suffix in parts
    )


def _sequential(sizes: Sizes) -> list[list[int]]:
    groups, start = [], 0
    for _, _, size in sizes:
        groups.append(list(range(start, start + size)))
        start += size
    return groups


def _straddler(groups: list[list[int]], domains: tuple[str, ...]) -> int | None:
    """The first group with nodes of two domains."""
    for i, group in enumerate(groups):
        if len({domains[index] for index in group}) > 1:
            return i
    return None


def _packed(sizes: Sizes, domains: tuple[str, ...]) -> list[list[int]] | None:
    """Groups that each lie in one domain, largest workers first; None when they do not fit."""
    free: dict[str, list[int]] = {}
    for index, domain in enumerate(domains):
        free.setdefault(domain, []).append(index)
    groups: list[list[int]] = [[] for _ in sizes]
    rooms: Iterator[list[int]] = iter(())
    room: list[int] | None = None
    last_size = 0
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i][2]):
        size = sizes[i][2]
        if size != last_size:
            # What was too small for a larger worker may hold this one: begin again at the first domain.
            rooms, last_size = iter(list(free.values())), size
            room = next(rooms)
        while room is not None and len(room) < size:
            room = next(rooms, None)
        if room is None:
            return None
        groups[i] = room[:size]
        del room[:size]
    return groups


def _check_size(sizes: Sizes, domain_size: int) -> None:
    """No names are needed to know that a worker is larger than any domain."""
    for role, worker, size in sizes:
        if size > domain_size:
            setting = "GLM47_PREFILL_NODES" if role == "prefill" else "GLM47_DECODE_NODES"
            raise ConfigError(
                f"cannot place {role} worker {worker}: {setting} {size}: a worker must fit one NVLink domain "
                f"of {domain_size} nodes (GLM47_NVLINK_DOMAIN_SIZE): lower {setting}"
            )


def _straddling(
    sizes: Sizes,
    groups: list[list[int]],
    names: tuple[str, ...],
    domains: tuple[str, ...],
) -> str:
    """Which worker lies across domains, and where."""
    first = _straddler(groups, domains)
    assert first is not None
    role, worker, size = sizes[first]
    nodes = [names[index] for index in groups[first]]
    split = next(i for i in range(1, size) if domains[groups[first][i]] != domains[groups[first][0]])
    return (
        f"{role} worker {worker}: {nodes[0]} to {nodes[-1]}: it would straddle two NVLink domains, "
        f"{nodes[split - 1]} ends one and {nodes[split]} begins another"
    )
