"""`profiles`: which profiles this machine and release can use, and what each gives, with its source.

``python -m entrypoint.commands.profiles > docs/profiles.md`` renders the page; a test compares them.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from entrypoint.plan.profiles import (
    LEFT,
    OFF,
    PROFILES,
    READ,
    ROLES,
    SWITCH,
    Profile,
    Value,
    kept_out,
    misfit,
)
from entrypoint.plan.releases import TITLES

if TYPE_CHECKING:
    from entrypoint.node.machine.facts import Gpu, Gpus
    from entrypoint.settings.schema import Settings

_HEAD = """\
# Profiles

Made by `python -m entrypoint.commands.profiles > docs/profiles.md` of `entrypoint/plan/profiles.py`.

`GLM47_PROFILE` chooses where values come from that nobody set. A setting (`GLM47_ATTENTION_BACKEND`, …) or an
argument in `GLM47_EXTRA_ARGS` always wins. `glm47-runner profiles` says which of them this machine and the
installed release can use, and what is kept out, `glm47-runner plan` which options a profile gave. Every
profile's command lines are parsed by every release's own parser (tests/prepare/parser). With the recipes of a
sister model: nobody has published one for GLM-4.7 on GB200. docs/decisions/profiles.md says why `original` is
the default.
"""


NVFP4, FP4_KINDS = "modelopt_fp4", ("B200", "B300", "GB200", "GB300", "B100", "RTX PRO 6000")
"""Words in the names of GPUs that NVFP4's kernels are made for; of others nothing is said."""
OTHER_KINDS = ("H100", "H200", "H800", "H20", "GH200", "A100", "A800", "L40", "L4")
"""Words in the names of GPUs that have none."""


@click.command("profiles")
def profiles_command() -> None:
    """List the profiles that this machine and release can use, and why not another."""
    from entrypoint.load import load_settings
    from entrypoint.node import engine
    from entrypoint.node.machine import gpus

    settings = load_settings(os.environ, Path.cwd()).settings
    facts = engine.gather(settings.python, os.environ)
    installed = {"sglang": facts.sglang, "dynamo": facts.dynamo}
    click.echo("\n".join(listed(settings, installed, gpus.look([]))))


def listed(s: Settings, installed: Mapping[str, str | None], here: Gpus) -> Iterator[str]:
    """The lines of the list."""
    versions = ", ".join(f"{TITLES[name]} {version or 'not found'}" for name, version in installed.items())
    yield f"for {versions}; GLM47_PROFILE is {s.profile}"
    workers = {role: _gpus(s, role) for role in ROLES}
    yield "GPUs of a worker: " + ", ".join(f"{role} {count}" for role, count in workers.items())
    yield from _machine(s, here, max(workers.values()))
    for profile in PROFILES.values():
        why = misfit(profile, installed)
        yield ""
        yield f"{profile.name}: " + ("can be used" if why is None else f"cannot be used: {why}")
        yield f"  {profile.purpose}"
        for value in profile.values:
            yield f"  {value.option}: {_shown(value)}"
            yield from _wrapped(value.source)
            if out := _kept_out(value, installed, workers):
                yield from _wrapped(f"not given here: {out}")


def _gpus(s: Settings, role: str) -> int:
    """GPUs of a worker of `role`, as far as settings say."""
    own = {"prefill": s.prefill_tp, "decode": s.decode_tp}.get(role) or s.tp
    nodes = {"prefill": s.prefill_nodes, "decode": s.decode_nodes}.get(role, 1)
    return own or s.gpus_per_node * max(nodes, s.nnodes)


def _kept_out(value: Value, installed: Mapping[str, str | None], workers: Mapping[str, int]) -> str:
    """Why none of the workers that `value` is for gets it; empty: one does, or it is for none."""
    found = [kept_out(value, installed, workers[role]) for role in ROLES if value.by_role[role] is not OFF]
    return "; ".join(dict.fromkeys(why for why in found if why)) if found and all(found) else ""


def _machine(s: Settings, here: Gpus, needed: int) -> Iterator[str]:
    """What this machine's GPUs say about every profile."""
    if here.seen is None:
        yield f"GPUs here: not known ({here.unseen})"
        return
    kinds = Counter(gpu.name or "a GPU that does not say its kind" for gpu in here.seen)
    yield "GPUs here: " + (", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none")
    if len(here.seen) < min(needed, s.gpus_per_node):
        yield (
            f"  no profile fits as GLM47_GPUS_PER_NODE is: {s.gpus_per_node}, and {len(here.seen)} are here"
        )
    if s.quantization == NVFP4 and any(_has(kind, OTHER_KINDS) for kind in kinds):
        yield (
            f"  no profile fits as GLM47_QUANTIZATION is: {NVFP4}, whose kernels need Blackwell "
            f"({', '.join(FP4_KINDS[:4])}): serve another checkpoint"
        )
    if here.seen and s.mnnvl == "auto" and not any(map(_has_fabric, here.seen)):
        yield "  multi-node NVLink: NVML shows no NVLink fabric on these GPUs: set GLM47_MNNVL=off"


def _has_fabric(gpu: Gpu) -> bool:
    return gpu.fabric is not None and gpu.fabric.state != "not supported"


def _has(kind: str, words: tuple[str, ...]) -> bool:
    return any(re.search(rf"(?<![A-Z0-9]){re.escape(word)}(?![0-9])", kind) for word in words)


def _wrapped(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, 100, initial_indent="    ", subsequent_indent="    ")


def _shown(value: Value) -> str:
    """A value's words; those of roles where they differ."""
    words = {role: _word(value.by_role[role]) for role in ROLES}
    if len(set(words.values())) == 1:
        return words[ROLES[0]]
    return ", ".join(f"{role} {word}" for role, word in words.items())


def _word(value: str | None) -> str:
    if value == SWITCH:
        return "on"
    return "left out" if value is OFF else str(value)


def page() -> str:
    """docs/profiles.md."""
    sections = (line for profile in PROFILES.values() for line in _section(profile))
    return "\n".join([_HEAD, *sections, *_left()])


def _section(profile: Profile) -> Iterator[str]:
    yield f"## {profile.name}"
    yield ""
    yield from textwrap.wrap(f"{profile.purpose[0].upper()}{profile.purpose[1:]}.", 118)
    yield ""
    yield "| option | value | only with | source |"
    yield "|---|---|---|---|"
    for value in profile.values:
        fact = value.since or value.where
        release = "" if fact is None else f"{TITLES[fact.package]} {fact.since or f'before {fact.until}'}"
        gpus = "" if value.gpus is None else f"{value.gpus} GPUs"
        only = ", ".join(filter(None, (release, gpus)))
        yield f"| {value.option} | {_shown(value)} | {only} | {value.source} |"
    yield ""


def _left() -> Iterator[str]:
    yield "## What no profile gives"
    yield ""
    yield f"Read on 2026-11-29: {READ}."
    yield ""
    for left in LEFT:
        yield from textwrap.wrap(f"- {left.what}: {left.why}.", 118, subsequent_indent="  ")
    yield ""


if __name__ == "__main__":
    print(page(), end="")
