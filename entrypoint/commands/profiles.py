"""`profiles`: which profiles the installed release can use, and what each gives, with its source.

``python -m entrypoint.commands.profiles > docs/profiles.md`` renders the page; a test compares them.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from entrypoint.plan.profiles import OFF, PROFILES, ROLES, SWITCH, Profile, Value, misfit
from entrypoint.plan.releases import TITLES

_HEAD = """\
# Profiles

Made by `python -m entrypoint.commands.profiles > docs/profiles.md` of `entrypoint/plan/profiles.py`.

`GLM47_PROFILE` chooses where values come from that nobody set. A setting (`GLM47_ATTENTION_BACKEND`, …) or an
argument in `GLM47_EXTRA_ARGS` always wins. `glm47-runner profiles` says which of them the installed release
can use, `glm47-runner plan` which options a profile gave. Every profile's command lines are parsed by every
release's own parser (tests/prepare/parser). docs/decisions/profiles.md says why `original` is the default.
"""


@click.command("profiles")
def profiles_command() -> None:
    """List the profiles that the installed release can use, and why it cannot use another."""
    from entrypoint.load import load_settings
    from entrypoint.node import engine

    settings = load_settings(os.environ, Path.cwd()).settings
    facts = engine.gather(settings.python, os.environ)
    installed = {"sglang": facts.sglang, "dynamo": facts.dynamo}
    click.echo("\n".join(_listed(settings.profile, installed)))


def _listed(chosen: str, installed: Mapping[str, str | None]) -> Iterator[str]:
    versions = ", ".join(f"{TITLES[name]} {version or 'not found'}" for name, version in installed.items())
    yield f"for {versions}; GLM47_PROFILE is {chosen}"
    for profile in PROFILES.values():
        why = misfit(profile, installed)
        yield ""
        yield f"{profile.name}: " + ("can be used" if why is None else f"cannot be used: {why}")
        yield f"  {profile.purpose}"
        for value in profile.values:
            yield f"  {value.option}: {_shown(value)}"
            yield from textwrap.wrap(value.source, 100, initial_indent="    ", subsequent_indent="    ")


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
    return "\n".join([_HEAD, *(line for profile in PROFILES.values() for line in _section(profile))])


def _section(profile: Profile) -> Iterator[str]:
    yield f"## {profile.name}"
    yield ""
    yield from textwrap.wrap(f"{profile.purpose[0].upper()}{profile.purpose[1:]}.", 118)
    yield ""
    yield "| option | value | from | source |"
    yield "|---|---|---|---|"
    for value in profile.values:
        since = "" if value.since is None else f"{TITLES[value.since.package]} {value.since.since}"
        yield f"| {value.option} | {_shown(value)} | {since} | {value.source} |"
    yield ""


if __name__ == "__main__":
    print(page(), end="")
