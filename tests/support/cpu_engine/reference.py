"""What the model says according to transformers, an implementation that shares no code with SGLang's.

Runs with the CPU engine's interpreter: `reference.py MODEL TOKENS`, a JSON list of prompts on standard input,
a JSON list of answers on standard output.
"""

from __future__ import annotations

import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(directory: str, tokens: int) -> None:
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    answers = []
    for prompt in json.load(sys.stdin):
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        given = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        made = model.generate(
            input_ids=given["input_ids"],
            attention_mask=given["attention_mask"],
            max_new_tokens=tokens,
            do_sample=False,
        )
        answers.append(tokenizer.decode(made[0, given["input_ids"].shape[1] :]))
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
