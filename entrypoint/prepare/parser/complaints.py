"""What a release's parser complains about, in the runner's voice, with the setting to change. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from entrypoint.node.versions import newer, older
from entrypoint.plan.releases import TITLES
from entrypoint.plan.types import Process
from entrypoint.prepare.parser.ask import Complaint
from entrypoint.prepare.parser.options import Span

EXTRA = "EXTRA_ARGS"
LISTED = 24
"""Choices that a line shows at most."""


def line(
    one: Complaint, process: Process, installed: Mapping[str, str | None], spans: tuple[Span, ...]
) -> str:
    """The complaint `one` about an option of `process`; `installed` are versions by package.

    `spans`: in which releases there is an option of that name.
    """
    who = release(process, installed)
    setting = process.settings.get(one.flag, "")
    extra = setting.endswith(EXTRA)
    # What stands there only because of the plan has no setting to change.
    flag = f"{setting}: {one.flag}" if setting else f"what is planned for {process.name}: {one.flag}"
    value = f"{setting} {one.flag}" if extra else setting or flag
    if one.kind == "unknown":
        return f"cannot use {flag}: {_unknown(who, one, installed, spans)}"
    if one.kind == "ambiguous":
        return f"cannot use {flag}: it may be {' or '.join(one.near)}: write it out"
    if one.kind == "surplus":
        return f"cannot use {value}: {one.text}: the option takes no such value: leave it out"
    if one.kind == "choice":
        return f"cannot use {value}: {one.value}: {_choice(who, one)}"
    if one.kind == "value":
        return f"cannot use {value}: {one.value or 'no value'}: {who} says `{one.text}`: correct it"
    where = flag if one.flag else f"the arguments of {process.name}"
    return f"cannot use {where}: {who} says `{one.text}`: correct it"


def release(process: Process, installed: Mapping[str, str | None]) -> str:
    """Who reads the command line of `process`."""
    packages = ("sglang", "dynamo") if process.argv[2] == "dynamo.sglang" else ("dynamo",)
    return " with ".join(
        f"{TITLES[name]} {installed.get(name) or 'of an unknown release'}" for name in packages
    )


def _unknown(who: str, one: Complaint, installed: Mapping[str, str | None], spans: tuple[Span, ...]) -> str:
    for span in spans:
        if older(installed.get(span.package), span.first):
            having = f"{TITLES[span.package]} {span.first}" + (
                f" to {span.last}" if span.last else " and newer"
            )
            return f"{who} has no such option ({having} do): leave it out, or use such a release"
    for span in reversed(spans):
        if span.last and newer(installed.get(span.package), span.last):
            last = f"{TITLES[span.package]} {span.last}"
            return f"{who} has no such option any more ({last} was the last): leave it out"
    if one.near:
        return f"{who} has no such option: use the nearest name, {one.near[0]}"
    return f"{who} has no such option: leave it out"


def _choice(who: str, one: Complaint) -> str:
    if one.near:
        return f"{who} does not know it: use the nearest name, {one.near[0]}"
    shown = ", ".join(one.choices[:LISTED]) + (", …" if len(one.choices) > LISTED else "")
    return f"{who} does not know it: use one of {shown}"
