"""Which parsers take thoughts and tool calls out of the model's text: GLM's own, where Dynamo has them.

Without them a client gets `<think>` and the XML of tool calls as content.
"""

from __future__ import annotations

from dataclasses import dataclass

from entrypoint.plan import arguments
from entrypoint.plan.context import Context
from entrypoint.plan.releases import GLM_PARSERS

OFF = "none"
"""The word for no parser; an empty setting counts as unset."""


@dataclass(frozen=True)
class Parser:
    """One kind of parser."""

    setting: str
    """Its field of the settings."""
    flag: str
    glm: str
    """The one for GLM-4.7 (there is no reasoning parser of its own in Dynamo 1.0.0 to 1.3.1)."""
    native: str
    """The variable with which Dynamo is told without us."""
    sglangs: str | None
    """SGLang's flag for one of its own, with which Dynamo refuses to start beside `flag`."""


PARSERS = (
    Parser(
        "tool_call_parser", "--dyn-tool-call-parser", "glm47", "DYN_TOOL_CALL_PARSER", "--tool-call-parser"
    ),
    Parser("reasoning_parser", "--dyn-reasoning-parser", "glm45", "DYN_REASONING_PARSER", None),
)


def added(ctx: Context, given: arguments.Options) -> arguments.Options:
    """A rank's options `given`, which have the person's own, with those of the parsers.

    What a person says counts, by argument, setting or variable; else GLM's own, where the release has them.
    """
    words = []
    for parser in PARSERS:
        name = getattr(ctx.settings, parser.setting)
        own = parser.native in ctx.native or (parser.sglangs is not None and given.get(parser.sglangs))
        if name is None and ctx.has(GLM_PARSERS) and not own:
            name = parser.glm
        if name not in (None, OFF) and given.get(parser.flag) is None:
            words.append((parser.flag, name))
    return arguments.Options((*given.items, *arguments.planned(*words).items))
