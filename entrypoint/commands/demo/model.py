"""A small model directory that looks like GLM-4.7-NVFP4 to everything but a GPU.

The configuration values are the published ones of GLM-4.7; the tokenizer is real but small; there are no
weights. Like the published model it lacks `bos_token_id`, so the demo shows the correction at work.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from entrypoint.errors import CannotWriteError

BOS_TOKEN_ID = 151329
EOS_TOKEN_IDS = (151329, 151336, 151338)

CONFIG: dict[str, Any] = {
    "architectures": ["Glm4MoeForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "eos_token_id": list(EOS_TOKEN_IDS),
    "first_k_dense_replace": 3,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 5120,
    "initializer_range": 0.02,
    "intermediate_size": 12288,
    "max_position_embeddings": 202752,
    "model_type": "glm4_moe",
    "moe_intermediate_size": 1536,
    "n_group": 1,
    "n_routed_experts": 160,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 96,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 92,
    "num_key_value_heads": 8,
    "num_nextn_predict_layers": 1,
    "pad_token_id": 151329,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "routed_scaling_factor": 2.5,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_qk_norm": True,
    "vocab_size": 151552,
}

HF_QUANT_CONFIG: dict[str, Any] = {
    "producer": {"name": "modelopt"},
    "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "group_size": 16},
}

GENERATION_CONFIG: dict[str, Any] = {
    "_from_model_config": True,
    "do_sample": True,
    "eos_token_id": list(EOS_TOKEN_IDS),
    "pad_token_id": 151329,
    "temperature": 1.0,
    "top_p": 0.95,
}

SPECIAL_TOKENS: dict[str, int] = {
    name: 151329 + offset
    for offset, name in enumerate(
        (
            "<|endoftext|>",
            "[MASK]",
            "[gMASK]",
            "[sMASK]",
            "<sop>",
            "<eop>",
            "<|system|>",
            "<|user|>",
            "<|assistant|>",
            "<|observation|>",
        )
    )
} | {"<think>": 151350, "</think>": 151351}
"""GLM's special tokens at their real ids."""

CHAT_TEMPLATE = (
    "[gMASK]<sop>"
    "{%- for message in messages -%}"
    "<|{{ 'observation' if message.role == 'tool' else message.role }}|>"
    "{%- if message.content is string -%}{{ '\\n' + message.content }}"
    "{%- else -%}{%- for part in message.content or [] -%}"
    "{%- if part.type == 'text' -%}{{ '\\n' + part.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{{ '\\n' }}{%- endif -%}"
)

TOKENIZER_CONFIG: dict[str, Any] = {
    "additional_special_tokens": [t for t in SPECIAL_TOKENS if not t.endswith("think>")],
    "chat_template": CHAT_TEMPLATE,
    "clean_up_tokenization_spaces": False,
    "eos_token": "<|endoftext|>",
    "model_max_length": 128000,
    "pad_token": "<|endoftext|>",
    "padding_side": "left",
    "tokenizer_class": "PreTrainedTokenizerFast",
}

_CONSONANTS = "bdfghjklmnprstvz"
_VOWELS = "aeiou"
_WORDS = 2000
_FIRST_SPACED_WORD = 1000
"""The mocker answers with ids from 1000 on: from there every token is a word with its space."""


def byte_alphabet() -> list[str]:
    """The 256 characters that stand for the 256 bytes in byte-level BPE, in the order of the bytes.

    Printable Latin-1 characters stand for themselves, the rest follow from U+0100 on, as GPT-2 defined it.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = itertools.count(0x100)
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


def tokenizer() -> dict[str, Any]:
    """A byte-level BPE tokenizer of about 4,400 entries, as the data of tokenizer.json.

    Words are made of two syllables, so that ids of 1000 to 2999 decode to readable text.
    """
    space = byte_alphabet()[ord(" ")]
    syllables = [c + v for c in _CONSONANTS for v in _VOWELS]
    # A stride that shares no factor with the number of pairs visits each pair once, in a mixed order.
    pairs = list(itertools.product(syllables, syllables))
    words = [pairs[i * 2477 % len(pairs)] for i in range(_WORDS)]

    vocab = {char: i for i, char in enumerate(byte_alphabet())}
    merges: list[list[str]] = []
    for syllable in syllables:
        vocab[syllable] = len(vocab)
        merges.append([syllable[0], syllable[1]])
    bare = itertools.chain(
        range(len(vocab), _FIRST_SPACED_WORD), itertools.count(_FIRST_SPACED_WORD + _WORDS)
    )
    for number, (first, second) in enumerate(words):
        vocab[first + second] = next(bare)
        vocab[space + first + second] = _FIRST_SPACED_WORD + number
        merges.append([first, second])
    merges.extend([space, first + second] for first, second in words)
    # The model itself knows the special tokens: a reader gives unknown added tokens the next free id.
    vocab |= SPECIAL_TOKENS
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": content,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": not content.endswith("think>"),
            }
            for content, number in SPECIAL_TOKENS.items()
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])),
            "merges": merges,
        },
    }


def make_demo_model(directory: Path) -> Path:
    """Write the demo model into `directory` (made if missing) and return it.

    Files that are already there are written anew, with the same bytes. Raises CannotWriteError.
    """
    files = {
        "config.json": CONFIG,
        "hf_quant_config.json": HF_QUANT_CONFIG,
        "generation_config.json": GENERATION_CONFIG,
        "tokenizer_config.json": TOKENIZER_CONFIG,
        "tokenizer.json": tokenizer(),
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
            (directory / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CannotWriteError(
            f"cannot write the demo model: {directory}: {error.strerror}: "
            "set GLM47_RUN_DIR to a writable directory"
        ) from error
    return directory
