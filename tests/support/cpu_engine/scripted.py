"""A small GLM-4.7 that says what it was made to say, with the draft layer (MTP) of the published one.

Nothing but the last token decides on the next: attention and experts add nothing to a token's embedding, and
the head knows which token comes after each. So an answer can be compared word for word, whatever the
engine's kernels round: words follow each other by number, and after `<think>` come a thought and a call of a
tool in GLM-4.7's own format. The draft layer knows the same, so that every guess of it is right, if it is
loaded as it is written: a wrong one is accepted about once in a thousand.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from entrypoint.commands.demo import model as demo
from tests.support.cpu_engine import model
from tests.support.cpu_engine.model import HIDDEN, LAYERS, VOCABULARY, WORDS, Tensor

THOUGHT = (" they", " want", " weather", " so", " ask")
CALL = (
    "<tool_call>", "get_weather", "<arg_key>", "city", "</arg_key>", "<arg_value>", "Paris", "</arg_value>",
    "</tool_call>",
)  # fmt: skip
TOOL, ARGUMENTS = CALL[1], {CALL[3]: CALL[6]}
SPOKEN = (*THOUGHT, *CALL)
"""Texts that take the places of the last words."""
PLAIN = WORDS[: -len(SPOKEN)]
SCRIPT = ("<think>", *THOUGHT, "</think>", *CALL, "<|observation|>")
KV_HEADS = 2
TEMPLATE_END = (
    "{%- if add_generation_prompt -%}<|assistant|>"
    "{{ '</think>' if enable_thinking is defined and not enable_thinking else '<think>' }}{%- endif -%}"
)
"""GLM-4.7's: the prompt itself begins the thought, or ends it."""


def token_id(text: str) -> int:
    """The id of a word, of a text of the script or of a special token."""
    texts = (*PLAIN, *SPOKEN)
    return 256 + texts.index(text) if text in texts else model.special_id(text)


def after() -> dict[int, int]:
    """By token, the one that follows it: the script, words by number, and some word after anything else."""
    follows = {token_id(a): token_id(b) for a, b in pairwise(SCRIPT)}
    follows |= {token_id(a): token_id(b) for a, b in zip(PLAIN, (*PLAIN[1:], PLAIN[0]), strict=True)}
    rest = (token for token in range(VOCABULARY) if token not in follows)
    return follows | {token: token_id(PLAIN[n]) for n, token in enumerate(rest)}


def words_after(word: str, count: int) -> str:
    """The `count` words that a completion of `word` brings."""
    first = PLAIN.index(word) + 1
    return "".join(PLAIN[(first + n) % len(PLAIN)] for n in range(count))


def tensors() -> Iterator[Tensor]:
    """The model's, and those of layer `LAYERS`: a layer of experts with GLM's own names around it."""
    yield from model.tensors(KV_HEADS)
    layer = f"model.layers.{LAYERS}"
    yield from model.layer(layer, KV_HEADS)
    yield from (model.norm(f"{layer}.{name}", HIDDEN) for name in ("enorm", "hnorm", "shared_head.norm"))
    yield model.linear(f"{layer}.eh_proj", HIDDEN, 2 * HIDDEN)
    yield f"{layer}.embed_tokens.weight", (VOCABULARY, HIDDEN), 0.0, 1.0
    yield model.linear(f"{layer}.shared_head.head", VOCABULARY, HIDDEN)


def filled() -> Iterator[tuple[Tensor, array[float]]]:
    """Every tensor with its numbers."""
    source = random.Random(model.SEED)
    embedding = array("f", (source.gauss(0.0, 1.0) for _ in range(VOCABULARY * HIDDEN)))
    head = array("f", bytes(4 * len(embedding)))
    for token, following in after().items():
        for n in range(HIDDEN):
            head[following * HIDDEN + n] += embedding[token * HIDDEN + n]
    for tensor in tensors():
        name, shape = tensor[0], tensor[1]
        if name.endswith("embed_tokens.weight"):
            yield tensor, embedding
        elif name.endswith("head.weight"):
            yield tensor, head
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            yield tensor, array("f", bytes(4 * shape[0] * shape[1]))
        elif name.endswith("norm.weight"):
            yield tensor, array("f", [1.0] * shape[0])
        elif name.endswith("eh_proj.weight"):
            # Of the token's embedding and the model's state, the embedding.
            rows = ([float(column == row) for column in range(2 * HIDDEN)] for row in range(HIDDEN))
            yield tensor, array("f", (number for row in rows for number in row))
        else:
            yield tensor, model.values(tensor, source)


def files() -> dict[str, dict[str, Any]]:
    """What the directory holds besides weights, by name."""
    made = model.files(KV_HEADS)
    made["config.json"]["num_nextn_predict_layers"] = 1
    texts = {token_id(text): text for text in SPOKEN}
    for entry in made["tokenizer.json"]["added_tokens"]:
        entry["content"] = texts.get(entry["id"], entry["content"])
        # As in GLM-4.7's: an answer keeps these for the parsers, also where special tokens are left out.
        entry["special"] = entry["special"] and not entry["content"].endswith("think>")
    template, _, _ = demo.CHAT_TEMPLATE.rpartition("{%- if add_generation_prompt -%}")
    made["tokenizer_config.json"]["chat_template"] = template + TEMPLATE_END
    return made


def make_scripted(directory: Path) -> Path:
    """Write the model into `directory` (made if missing) and return it."""
    return model.write(directory, files(), filled())
