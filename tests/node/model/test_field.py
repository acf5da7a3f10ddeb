"""Model directories as people have them: clones without their files, hubs' folders, other checkpoints."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from entrypoint.node.model import directory
from tests.node.model.files import SHARDS, link, model_directory

INDEX = "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 19970699\n"
FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "hf_quant_config.json", "special_tokens_map.json", "chat_template.jinja", INDEX, SHARDS[0], SHARDS[2],
)  # fmt: skip
"""What a clone of the model has, and the engine or the frontend reads."""


def only_problem(path: Path) -> str:
    (problem,) = directory.check(str(path))
    assert "\n" not in problem and problem.startswith("cannot use the model: ")
    return problem


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("name", FILES)
def test_a_git_lfs_pointer_is_called_one(tmp_path: Path, name: str) -> None:
    source = model_directory(tmp_path / "m")
    (source / name).write_bytes(POINTER)
    said = rf"/{name}:? is a git-lfs pointer, not the file itself: run `git lfs pull`"
    assert re.search(said, only_problem(source))
    if name.endswith(".safetensors"):
        # Before the weights are looked at, too: a plan is made without that.
        assert "is a git-lfs pointer" in str(directory.read_facts(str(source)).error)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, device])
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file_is_refused_and_never_read(
    tmp_path: Path, name: str, make: Callable[[Path], object]
) -> None:
    source = model_directory(tmp_path / "m")
    (source / name).unlink(missing_ok=True)
    make(source / name)
    assert re.search(rf"/{name}:? is not a regular file", only_problem(source))


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "config larger than memory": (
        lambda m: os.truncate(m / "config.json", 1 << 40),
        "config.json is too large: 1099511627776 bytes",
    ),
    "tokenizer config missing": (
        lambda m: (m / "tokenizer_config.json").unlink(),
        "tokenizer_config.json is missing: Dynamo's frontend lists no model without it",
    ),
    "tokenizer config truncated": (
        lambda m: (m / "tokenizer_config.json").write_text('{"chat_template": "'),
        "tokenizer_config.json is not valid JSON",
    ),
    "tokenizer dangling": (
        lambda m: link(m / "tokenizer.json", "gone"),
        "tokenizer.json is a link to nothing: mount what it points to as well",
    ),
    "no chat template": (
        lambda m: change(m / "tokenizer_config.json", chat_template=None),
        "has no chat template, neither chat_template.jinja nor chat_template in tokenizer_config.json",
    ),
    "an empty chat template": (
        lambda m: change(m / "tokenizer_config.json", chat_template=""),
        "has no chat template",
    ),
    "quantization config a list": (
        lambda m: change(m / "config.json", quantization_config=["fp8"]),
        "config.json has quantization_config that is not an object",
    ),
    "quantization method a number": (
        lambda m: change(m / "config.json", quantization_config={"quant_method": 8}),
        "config.json has quantization_config.quant_method that is not text",
    ),
    "ModelOpt's file without its object": (
        lambda m: (m / "hf_quant_config.json").write_text("{}"),
        "hf_quant_config.json has no object called quantization",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_each_defect_is_one_line(tmp_path: Path, name: str) -> None:
    breaks, expected = BREAKS[name]
    source = model_directory(tmp_path / "m")
    breaks(source)
    assert expected in only_problem(source)


@pytest.mark.parametrize("key", ["bos_token_id", "eos_token_id", "pad_token_id"])
@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("value", [151552, 2**31, 2**32, 2**64, 10**30, 10**4000, [151329, 10**30]])
def test_token_ids_that_no_vocabulary_has(tmp_path: Path, file: str, key: str, value: object) -> None:
    source = model_directory(tmp_path / "m")
    change(source / file, **{key: value})
    problem = only_problem(source)
    assert f"{file} has {key} = " in problem and "the model's vocab_size is 151552" in problem
    assert len(problem) < 300


@pytest.mark.parametrize("key", directory._CHECKED)
@pytest.mark.parametrize("value", [10**7, 2**63, 10**30, 10**4000, -1, 0, 1.5, 1e308, "8", [8], {}, True])
def test_numbers_that_no_model_has(tmp_path: Path, key: str, value: object) -> None:
    source = model_directory(tmp_path / "m", **{key: value})
    problem = only_problem(source)
    assert f"config.json has {key} = " in problem and len(problem) < 300


def test_a_number_of_too_many_digits(tmp_path: Path) -> None:
    source = model_directory(tmp_path / "m")
    (source / "config.json").write_text('{"num_attention_heads": ' + "9" * 10_000 + "}")
    assert "config.json has a number of thousands of digits" in only_problem(source)


def test_a_hubs_folder_names_the_snapshot(tmp_path: Path) -> None:
    folder = tmp_path / "hub/models--nvidia--GLM-4.7-NVFP4"
    blobs, snapshot = folder / "blobs", folder / "snapshots/2b8d"
    model_directory(blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("2b8d\n")
    (folder / "snapshots/0000").mkdir()
    assert directory.check(str(snapshot)) == []
    for path in (folder, folder / "snapshots", tmp_path / "hub"):
        assert f"config.json is missing: set GLM47_MODEL_PATH to {snapshot}, and mount" in only_problem(path)
    # The snapshot without what its links point to.
    alone = tmp_path / "alone"
    shutil.copytree(snapshot, alone, symlinks=True)
    assert "config.json is a link to nothing: mount what it points to as well" in only_problem(alone)


def test_a_directory_above_the_model_names_it(tmp_path: Path) -> None:
    source = model_directory(tmp_path / "models/GLM-4.7-NVFP4")
    assert f"set GLM47_MODEL_PATH to {source}, " in only_problem(tmp_path / "models")
    (tmp_path / "empty").mkdir()
    assert "set GLM47_MODEL_PATH to the directory that holds it" in only_problem(tmp_path / "empty")


def test_a_template_in_a_file_of_its_own_is_one(tmp_path: Path) -> None:
    source = model_directory(tmp_path / "m")
    change(source / "tokenizer_config.json", chat_template=None)
    (source / "chat_template.json").write_text('{"chat_template": "x"}')
    assert "has no chat template" in only_problem(source)
    (source / "chat_template.jinja").write_text("x")
    assert directory.check(str(source)) == []


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**9, 10**40)
    | st.floats()
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = [*directory._NUMBERS.values(), "bos_token_id", "eos_token_id", "vocab_size", "architectures",
        "quantization_config", "compression_config"]  # fmt: skip


@hypothesis_settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(KEYS), ANY_JSON, max_size=5), ANY_JSON, ANY_JSON)
def test_whatever_a_model_says_there_is_an_answer(
    config: dict[str, object], other: object, quant: object
) -> None:
    with tempfile.TemporaryDirectory() as name:
        source = model_directory(Path(name) / "m", **config)
        (source / "generation_config.json").write_text(json.dumps(other))
        (source / "hf_quant_config.json").write_text(json.dumps(quant))
        found = directory.inspect(str(source))
        assert all("\n" not in line and line.startswith("cannot use the model: ") for line in found.problems)
