"""A small GLM-4.7 with real weights, written without PyTorch: the same bytes on every machine.

The weights are random, but large enough for attention, and so the KV cache, to decide on every token: an
engine with a wrong cache answers with other words. SGLang's `--load-format dummy` could not show that: its
weights are so small that a model answers everything alike.
"""

from __future__ import annotations

import json
import math
import random
import struct
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from entrypoint.commands.demo import model

HIDDEN, LAYERS, HEADS, HEAD_DIM = 128, 3, 4, 32
EXPERTS, EXPERTS_PER_TOKEN, EXPERT_WIDTH, DENSE_WIDTH = 8, 2, 64, 256
DENSE_LAYERS = 1
VOCABULARY = 1024
SPECIAL = tuple(model.SPECIAL_TOKENS)
WORDS = tuple(f" w{number:03}" for number in range(VOCABULARY - 256 - len(SPECIAL)))
"""One token each; the space belongs to it."""
ATTENTION_GAIN = 3.0
"""Attention's output against that of the experts."""
SEED = 47


def special_id(name: str) -> int:
    """The id of a special token: they follow the bytes and the words."""
    return 256 + len(WORDS) + SPECIAL.index(name)


EOS = tuple(map(special_id, ("<|endoftext|>", "<|user|>", "<|observation|>")))


def tokenizer() -> dict[str, Any]:
    """tokenizer.json: 256 bytes, the words and the special tokens. Every id decodes to a text of its own."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [(256 + n, word, False) for n, word in enumerate(WORDS)]
    added += [(special_id(name), name, True) for name in SPECIAL]
    bpe: dict[str, Any] = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": {char: n for n, char in enumerate(model.byte_alphabet())}, "merges": [],
    }  # fmt: skip
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": n, "content": text, "special": s, **plain} for n, text, s in added],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": bpe,
    }


def config(kv_heads: int) -> dict[str, Any]:
    """config.json: GLM-4.7's, with small numbers."""
    return model.CONFIG | {
        "eos_token_id": list(EOS),
        "pad_token_id": EOS[0],
        "vocab_size": VOCABULARY,
        "torch_dtype": "float32",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_nextn_predict_layers": 0,
        "num_attention_heads": HEADS,
        "num_key_value_heads": kv_heads,
        "head_dim": HEAD_DIM,
        "intermediate_size": DENSE_WIDTH,
        "moe_intermediate_size": EXPERT_WIDTH,
        "n_routed_experts": EXPERTS,
        "num_experts_per_tok": EXPERTS_PER_TOKEN,
        "first_k_dense_replace": DENSE_LAYERS,
        "max_position_embeddings": 8192,
    }


Tensor = tuple[str, tuple[int, ...], float, float]
"""Name, shape, mean, standard deviation."""


def linear(name: str, rows: int, columns: int, gain: float = 1.0) -> Tensor:
    """A matrix that keeps the length of what it is given, times `gain`."""
    return f"{name}.weight", (rows, columns), 0.0, gain / math.sqrt(columns)


def norm(name: str, width: int) -> Tensor:
    return f"{name}.weight", (width,), 1.0, 0.1


def mlp(name: str, width: int) -> Iterator[Tensor]:
    yield linear(f"{name}.gate_proj", width, HIDDEN)
    yield linear(f"{name}.up_proj", width, HIDDEN)
    yield linear(f"{name}.down_proj", HIDDEN, width)


def attention(name: str, kv_heads: int) -> Iterator[Tensor]:
    for part, heads in (("q", HEADS), ("k", kv_heads), ("v", kv_heads)):
        yield linear(f"{name}.{part}_proj", heads * HEAD_DIM, HIDDEN)
        yield f"{name}.{part}_proj.bias", (heads * HEAD_DIM,), 0.0, 0.1
    yield linear(f"{name}.o_proj", HIDDEN, HEADS * HEAD_DIM, ATTENTION_GAIN)
    yield norm(f"{name}.q_norm", HEAD_DIM)
    yield norm(f"{name}.k_norm", HEAD_DIM)


def layer(name: str, kv_heads: int, dense: bool = False) -> Iterator[Tensor]:
    """A layer of experts, or a dense one."""
    yield from attention(f"{name}.self_attn", kv_heads)
    yield norm(f"{name}.input_layernorm", HIDDEN)
    yield norm(f"{name}.post_attention_layernorm", HIDDEN)
    if dense:
        yield from mlp(f"{name}.mlp", DENSE_WIDTH)
        return
    yield linear(f"{name}.mlp.gate", EXPERTS, HIDDEN)
    yield f"{name}.mlp.gate.e_score_correction_bias", (EXPERTS,), 0.0, 0.01
    for expert in range(EXPERTS):
        yield from mlp(f"{name}.mlp.experts.{expert}", EXPERT_WIDTH)
    yield from mlp(f"{name}.mlp.shared_experts", EXPERT_WIDTH)


def tensors(kv_heads: int) -> Iterator[Tensor]:
    """Every tensor of the checkpoint, by the names that GLM-4.7's own has."""
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN), 0.0, 1.0
    for number in range(LAYERS):
        yield from layer(f"model.layers.{number}", kv_heads, dense=number < DENSE_LAYERS)
    yield norm("model.norm", HIDDEN)
    yield linear("lm_head", VOCABULARY, HIDDEN)


def values(tensor: Tensor, source: random.Random) -> array[float]:
    """A tensor's numbers. Only words are answered, to the full length: lm_head's other rows are zero."""
    name, shape, mean, deviation = tensor
    made = array("f", (source.gauss(mean, deviation) for _ in range(math.prod(shape))))
    if name == "lm_head.weight":
        first, end = 256 * HIDDEN, (256 + len(WORDS)) * HIDDEN
        made[:first] = array("f", bytes(4 * first))
        made[end:] = array("f", bytes(4 * (len(made) - end)))
    return made


def filled(kv_heads: int) -> Iterator[tuple[Tensor, array[float]]]:
    """Every tensor with its numbers."""
    source = random.Random(SEED)
    for tensor in tensors(kv_heads):
        yield tensor, values(tensor, source)


def safetensors(weights: Iterable[tuple[Tensor, array[float]]]) -> bytes:
    """The checkpoint: a length, a JSON header, the numbers."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for tensor, numbers in weights:
        begin = len(data)
        data += numbers.tobytes()
        header[tensor[0]] = {"dtype": "F32", "shape": tensor[1], "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(data)


def make_model(directory: Path, kv_heads: int = 2) -> Path:
    """Write the model into `directory` (made if missing) and return it: 4 MB in a second.

    Like the published one it has no `bos_token_id`. `kv_heads`: 1, 2 or 4.
    """
    return write(directory, files(kv_heads), filled(kv_heads))


def files(kv_heads: int) -> dict[str, dict[str, Any]]:
    """What the directory holds besides weights, by name."""
    ends = {"eos_token_id": list(EOS), "pad_token_id": EOS[0]}
    return {
        "config.json": config(kv_heads),
        "generation_config.json": model.GENERATION_CONFIG | ends,
        "tokenizer_config.json": model.TOKENIZER_CONFIG | {"model_max_length": 8192},
        "tokenizer.json": tokenizer(),
    }


def write(
    directory: Path, made: dict[str, dict[str, Any]], weights: Iterable[tuple[Tensor, array[float]]]
) -> Path:
    """Write a model's files and weights into `directory` (made if missing) and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in made.items():
        (directory / name).write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
    (directory / "model.safetensors").write_bytes(safetensors(weights))
    return directory
