"""Answers with HTTP 200 that are none, and odd ones that are: what broken engines and parsers said."""

from __future__ import annotations

from typing import Any

from entrypoint.supervise.probes.no_answer import Said
from tests.commands.smoke import server

LONG = "The capital of France is Paris, of course."
BAD = {
    "no token": (Said("", "", "stop", 0), "no tokens came"),
    "aborted": (Said("Pa", "", "abort", 3), "finish_reason is abort"),
    "one character": (Said("!" * 32, "", "length", 32), "'!' again and again"),
    "one word": (Said(" the" * 12, "", "stop", 12), "'the' again and again"),
    "one word, cut off": (Said("Paris is " * 9 + "Par", "", "stop", 30), "'Parisis' again and again"),
    "one Chinese character": (Said("\u7684" * 32, "", "length", 32), "again and again"),
    "a thought that loops": (Said("Paris.", "hm " * 20, "stop", 30), "the reasoning is 'hm' again and again"),
    "new lines between": (Said("0\n" * 16, "", "length", 32), "'0' again and again"),
    "NULs": (Said("\0\0\0", "", "length", 32), "NUL characters"),
    "a NUL in the text": (Said("Par\0is", "", "stop", 4), "NUL characters"),
    "NULs in the reasoning": (Said("Paris", "\0", "stop", 4), "the reasoning has NUL characters"),
    "special tokens alone": (Said("<|endoftext|><|user|>", "", "stop", 2), "nothing but special tokens"),
    "GLM's prefix alone": (Said("[gMASK]<sop>", "", "stop", 2), "nothing but special tokens"),
    "the next turn": (Said("Paris.<|user|>And of Italy?", "", "stop", 9), "<|user|> in it"),
    "an observation": (Said("Paris.\n<|observation|>", "", "length", 32), "<|observation|> in it"),
    "two ends": (Said("Paris.<|user|><|user|>", "", "stop", 9), "<|user|> in it"),
    "another model's turn": (Said("Paris.<|im_end|>", "", "stop", 9), "<|im_end|> in it"),
    "the end of a thought": (Said("It is large.</think>Paris.", "", "stop", 9), "</think> in it"),
    "a whole thought": (Said("<think>Large.</think>Paris.", "", "stop", 9), "</think> in it"),
    "reasoning alone": (Said("", "Paris is the capital.", "stop", 9), "all of it is reasoning"),
    "reasoning and blanks": (Said(" \n", "Paris is the capital.", "stop", 9), "all of it is reasoning"),
    "cut off early": (Said(LONG, "", "length", 9), "9 tokens came of the 32 asked for"),
    "cut off early in a thought": (Said("", LONG, "length", 31), "31 tokens came of the 32 asked for"),
    "broken characters": (
        Said("\ufffd\ufffd\ufffd \u7684 ==== \ufffd\ufffd", "", "stop", 9),
        "broken (U+FFFD)",
    ),
}
"""By name: what came, and what the failed line says."""
GOOD = {
    "cut off while it thinks": Said("", "The user asks for", "length", 32),
    "cut off in a character": Said("Paris \ufffd", "", "length", 32),
    "speculated beyond": Said(LONG, "", "length", 34),
    "one word": Said("Paris", "", "stop", 2),
    "the token that ended it, from Dynamo 0.8.1": Said("Paris.<|user|>", "", "stop", 3),
    "a number": Said("11111", "", "stop", 5),
    "a laugh": Said("Ha ha ha! Paris.", "", "stop", 8),
    "a rule of hyphens": Said("Paris\n--------------------", "", "stop", 8),
    "angle brackets": Said("a <b> | c <| d", "", "stop", 9),
    "a thought that begins": Said("<think>The user", "", "length", 32),
    "Chinese": Said("\u5df4\u9ece\u662f\u6cd5\u56fd\u7684\u9996\u90fd\u3002", "", "stop", 9),
}


def send(said: Said, stream: bool) -> server.Send:
    """A chat completion that says it."""
    usage = {"prompt_tokens": 5, "completion_tokens": said.tokens, "total_tokens": 5 + (said.tokens or 0)}
    parts: dict[str, Any] = {"content": said.content, "reasoning_content": said.reasoning}
    if not stream:
        whole = server.good_whole(server.CHAT)
        message = {"role": "assistant", **parts}
        return server.reply_json(
            {
                **whole,
                "usage": usage,
                "choices": [{"index": 0, "finish_reason": said.finish, "message": message}],
            }
        )
    first, *_, last, counted = server.good_events(server.CHAT)
    events = []
    for key in ("reasoning_content", "content"):
        half = len(parts[key]) // 2
        for text in (parts[key][:half], parts[key][half:]):
            events.append({**first, "choices": [{"index": 0, "finish_reason": None, "delta": {key: text}}]})
    end = {**last, "choices": [{"index": 0, "finish_reason": said.finish, "delta": {}}]}
    return server.reply_events(server.sse([*events, end, {**counted, "usage": usage}]))
