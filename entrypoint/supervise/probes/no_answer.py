"""What of an answer with HTTP 200 is no answer: nothing, or what only a broken engine or parser says. Pure.

Used by the warm-up and by `smoke`. The limits are wide: an odd answer is one, noise is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LEAST = 8
"""Times that the same piece must come in a row, and make up the whole answer, to be called a loop."""
PIECE = 24
"""Characters of a piece at most: a token is shorter."""
BROKEN = 0.2
"""Share of U+FFFD in a text from which on its bytes are no UTF-8; one that is cut in a character has one."""
SPECIAL = re.compile(r"<\|[A-Za-z_0-9]+\|>|\[g?MASK\]|\[sMASK\]|<sop>|<eop>")
"""Tokens that stand between messages: GLM's own, and others' of the same form."""
END = re.compile(r"<\|(?:endoftext|user|observation)\|>$")
"""The token that ended an answer: Dynamo 0.8.1 leaves it at the end of the text (its issue 4062)."""
_LOOP = re.compile(rf"(.{{1,{PIECE}}}?)\1{{{LEAST - 1},}}", re.DOTALL)


@dataclass(frozen=True)
class Said:
    """What came of one request."""

    content: str
    reasoning: str = ""
    finish: str | None = None
    """finish_reason; None: not told."""
    tokens: int | None = None
    """completion_tokens; None: not counted."""
    asked: int | None = None
    """max_tokens of the request; None: none was given."""
    calls: bool = False
    """It calls tools, for which it needs no content."""
    chat: bool = True
    """A chat completion, whose thought must have been taken out."""


def fault(said: Said) -> str | None:
    """Why it is no answer, in one line; None: it is one."""
    if said.tokens == 0:
        return "no tokens came: completion_tokens is 0"
    if said.finish in ("abort", "error", "cancelled"):
        return f"no tokens: finish_reason is {said.finish}"
    for name, text in (("the answer", said.content), ("the reasoning", said.reasoning)):
        if why := _noise(text):
            return f"{name} {why}"
    content = END.sub("", said.content) if said.finish == "stop" else said.content
    if found := SPECIAL.search(content):
        return f"the answer has the token {found.group()} in it, which ends a message: see the chat template"
    if said.chat and "</think>" in said.content:
        return (
            "the answer has </think> in it: its thoughts are not taken out: set GLM47_REASONING_PARSER, "
            "which Dynamo knows from 1.0.0 on"
        )
    if said.finish == "length" and None not in (said.tokens, said.asked) and said.tokens < said.asked:  # type: ignore[operator]
        return f"{said.tokens} tokens came of the {said.asked} asked for, although finish_reason is length"
    if said.chat and said.finish == "stop" and not said.content.strip() and said.reasoning.strip():
        return "the answer is empty after stop, all of it is reasoning: see GLM47_REASONING_PARSER"
    return None


def _noise(text: str) -> str | None:
    if "\0" in text:
        return "has NUL characters in it: the engine gives garbage"
    bare = "".join(text.split())
    if bare and not SPECIAL.sub("", bare):
        return "has nothing but special tokens in it: the engine gives garbage"
    if bare.count("\ufffd") > max(1.0, len(bare) * BROKEN):
        return "is no text: many of its characters are broken (U+FFFD)"
    found = _LOOP.match(bare)
    if found is not None and found.group(1).startswith(bare[found.end() :]):
        return f"is {found.group(1)!r} again and again: the engine gives garbage"
    return None
