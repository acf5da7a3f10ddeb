from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from entrypoint.commands.demo import model as demo_model
from entrypoint.errors import CannotWriteError
from entrypoint.node.model import directory as model
from tests.stack.by_hand import ENGINE

CHECK_TOKENIZER = r"""
import json, sys
from tokenizers import Tokenizer
t = Tokenizer.from_file(sys.argv[1])
text = "[gMASK]<sop><|user|>\nbada kilo, 1.5 héllo 世界\n\t<|assistant|>\n"
ids = t.encode(text).ids
print(json.dumps({
    "size": t.get_vocab_size(),
    "special": {name: t.token_to_id(name) for name in json.loads(sys.argv[2])},
    "ids": ids,
    "round_trip": t.decode(ids, skip_special_tokens=False) == text,
    "words": [t.decode([n]) for n in range(1000, 3000)],
    "known_word": t.encode(" " + t.decode([1500]).strip()).ids,
}))
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_model.make_demo_model(tmp_path_factory.mktemp("demo") / "deep/model")


def test_it_is_a_usable_model_with_the_published_numbers_and_the_defect(directory: Path) -> None:
    assert model.check(str(directory)) == []
    facts = model.read_facts(str(directory))
    assert facts.config_read and facts.needs_bos_fix
    assert facts.experts == 160
    assert facts.moe_intermediate_size == 1536 and facts.heads == 96 and facts.kv_heads == 8
    config = json.loads((directory / "config.json").read_text())
    assert (config["num_hidden_layers"], config["hidden_size"]) == (92, 5120)
    assert config["num_experts_per_tok"] == 8 and config["intermediate_size"] == 12288
    assert config["eos_token_id"] == [151329, 151336, 151338]
    assert "bos_token_id" not in config
    assert "bos_token_id" not in json.loads((directory / "generation_config.json").read_text())


def test_making_it_again_gives_the_same_bytes(directory: Path) -> None:
    before = {p.name: p.read_bytes() for p in directory.iterdir()}
    demo_model.make_demo_model(directory)
    assert {p.name: p.read_bytes() for p in directory.iterdir()} == before


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotWriteError, match=r"cannot write the demo model: .*: set GLM47_RUN_DIR"):
        demo_model.make_demo_model(tmp_path / "file/model")


def test_the_tokenizer_is_real(directory: Path) -> None:
    """The library that Dynamo's frontend uses reads it, and the mocker's ids are readable words."""
    done = subprocess.run(
        [
            str(ENGINE / "python"),
            "-c",
            CHECK_TOKENIZER,
            str(directory / "tokenizer.json"),
            json.dumps(list(demo_model.SPECIAL_TOKENS)),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    seen: dict[str, Any] = json.loads(done.stdout)
    assert seen["size"] >= 4000
    assert seen["special"] == demo_model.SPECIAL_TOKENS
    assert seen["ids"][:3] == [151331, 151333, 151336] and seen["ids"][-2] == 151337
    assert seen["round_trip"]
    assert len(set(seen["words"])) == 2000
    assert all(word.strip().isalpha() and len(word.strip()) == 4 for word in seen["words"])
    assert seen["known_word"] == [1500]
