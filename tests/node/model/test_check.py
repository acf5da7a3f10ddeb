from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from entrypoint.errors import ExitCode, ModelError
from entrypoint.node.model import directory
from entrypoint.prepare import model_view
from tests.node.model.files import SHARDS, fifo, folder, link, model_directory, shard

INDEX = "model.safetensors.index.json"


def only_problem(path: Path | str) -> str:
    problems = directory.check(str(path))
    assert len(problems) == 1, problems
    assert "\n" not in problems[0]
    assert problems[0].startswith("cannot use the model: ")
    return problems[0]


def test_a_whole_model_has_no_problems_and_its_numbers_are_read(tmp_path: Path) -> None:
    source = model_directory(tmp_path / "m", n_routed_experts=32, num_key_value_heads=4)
    assert directory.check(str(source)) == []
    facts = directory.read_facts(str(source), weights=True)
    assert (facts.error, facts.config_read, facts.needs_bos_fix) == (None, True, True)
    assert (facts.experts, facts.kv_heads, facts.heads) == (32, 4, 96)
    assert directory.inspect(str(source)).warnings == ()


@pytest.mark.parametrize(
    ("file", "value", "needs_fix"),
    [
        ("generation_config.json", 151329, False),
        ("generation_config.json", 0, False),
        ("config.json", 151329, False),
        ("generation_config.json", None, True),
        ("generation_config.json", [151329], True),
        ("generation_config.json", True, True),
        ("generation_config.json", -1, True),
    ],
)
def test_bos_token_id_counts_in_either_file_when_it_is_a_number(
    tmp_path: Path, file: str, value: object, needs_fix: bool
) -> None:
    source = model_directory(tmp_path / "m")
    data = json.loads((source / file).read_text())
    (source / file).write_text(json.dumps(data | {"bos_token_id": value}))
    assert directory.read_facts(str(source)).needs_bos_fix is needs_fix


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", None])
def test_a_model_with_code_of_its_own_says_so(tmp_path: Path, file: str | None) -> None:
    source = model_directory(tmp_path / "m")
    if file is not None:
        data = json.loads((source / file).read_text())
        (source / file).write_text(
            json.dumps(data | {"auto_map": {"AutoTokenizer": ["tokenization_x.X", None]}})
        )
    assert directory.read_facts(str(source)).own_code is (file is not None)


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "config missing": (lambda m: (m / "config.json").unlink(), "config.json is missing"),
    "config empty": (lambda m: (m / "config.json").write_text(""), "config.json is not valid JSON"),
    "config truncated": (
        lambda m: (m / "config.json").write_text((m / "config.json").read_text()[:100]),
        "config.json is not valid JSON",
    ),
    "config a list": (lambda m: (m / "config.json").write_text("[1]"), "config.json is not a JSON object"),
    "config not UTF-8": (
        lambda m: (m / "config.json").write_bytes(b'{"a": "\xff"}'),
        "config.json is not UTF-8 text",
    ),
    "config too deep": (
        lambda m: (m / "config.json").write_text("[" * 200_000),
        "config.json is nested too deeply",
    ),
    "config a number as text": (
        lambda m: (m / "config.json").write_text('{"num_attention_heads": "96"}'),
        'num_attention_heads = "96"',
    ),
    "config zero experts": (
        lambda m: (m / "config.json").write_text('{"n_routed_experts": 0}'),
        "n_routed_experts = 0",
    ),
    "config a FIFO": (
        lambda m: fifo(m / "config.json"),
        "config.json is not a regular file",
    ),
    "config a directory": (
        lambda m: folder(m / "config.json"),
        "config.json is not a regular file",
    ),
    "config a dangling link": (
        lambda m: link(m / "config.json", "../blobs/gone"),
        "config.json is a link to nothing",
    ),
    "config a link loop": (
        lambda m: link(m / "config.json", "config.json"),
        "config.json cannot be read (Too many levels of symbolic links)",
    ),
    "generation config truncated": (
        lambda m: (m / "generation_config.json").write_text('{"eos_token_id": [1, 2'),
        "generation_config.json is not valid JSON",
    ),
    "generation config dangling": (
        lambda m: link(m / "generation_config.json", "gone"),
        "generation_config.json is a link to nothing",
    ),
    "index truncated": (
        lambda m: (m / INDEX).write_text((m / INDEX).read_text()[:-20]),
        f"{INDEX}: is not valid JSON",
    ),
    "index too deep": (lambda m: (m / INDEX).write_text("[" * 200_000), f"{INDEX}: is nested too deeply"),
    "index without map": (lambda m: (m / INDEX).write_text("{}"), f"{INDEX}: has no weight_map"),
    "index not UTF-8": (lambda m: (m / INDEX).write_bytes(b"\xff\xfe"), f"{INDEX}: is not UTF-8 text"),
    "shard missing": (lambda m: (m / SHARDS[1]).unlink(), f"{SHARDS[1]}: is missing"),
    "shard dangling": (
        lambda m: link(m / SHARDS[1], "gone"),
        f"{SHARDS[1]}: is missing",
    ),
    "shard empty": (lambda m: (m / SHARDS[2]).write_bytes(b""), f"{SHARDS[2]}: is empty"),
    "shard of 5 bytes": (lambda m: (m / SHARDS[2]).write_bytes(b"12345"), "is truncated: 5 bytes"),
    "shard truncated in its header": (
        lambda m: os.truncate(m / SHARDS[0], 40),
        f"{SHARDS[0]}: is truncated: 40 bytes",
    ),
    "shard one byte short": (
        lambda m: os.truncate(m / SHARDS[0], (m / SHARDS[0]).stat().st_size - 1),
        f"{SHARDS[0]}: is truncated",
    ),
    "shard one byte long": (
        lambda m: (m / SHARDS[0]).write_bytes(shard() + b"x"),
        f"{SHARDS[0]}: is too long",
    ),
    "shard an HTML page": (
        lambda m: (m / SHARDS[0]).write_bytes(b"<!doctype html><p>sign in</p>"),
        f"{SHARDS[0]}: is not a safetensors file",
    ),
    "shard with a header that is no object": (
        lambda m: (m / SHARDS[0]).write_bytes((4).to_bytes(8, "little") + b"[12]"),
        f"{SHARDS[0]}: is not a safetensors file",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_each_defect_is_one_line_and_exit_66(tmp_path: Path, name: str) -> None:
    breaks, expected = BREAKS[name]
    source = model_directory(tmp_path / "m")
    breaks(source)
    problem = only_problem(source)
    assert expected in problem
    assert str(source) in problem
    assert directory.read_facts(str(source), weights=True).error == problem
    if directory.read_facts(str(source)).error is None:
        return  # a defect of the weights, which `run` looks for before it makes the view
    with pytest.raises(ModelError) as caught:
        model_view.prepare(str(source), tmp_path / "run/model/x", bos_token_id=1)
    assert str(caught.value) == problem
    assert caught.value.exit_code == ExitCode.MODEL
    assert not (tmp_path / "run").exists()


def test_all_problems_are_found_at_once(tmp_path: Path) -> None:
    source = model_directory(tmp_path / "m")
    (source / "config.json").write_text("{")
    (source / "generation_config.json").write_text("[]")
    for name in SHARDS:
        (source / name).unlink()
    assert len(directory.check(str(source))) == 5
    assert "(and 4 more: see glm47-runner model check)" in str(
        directory.read_facts(str(source), weights=True).error
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("relative/path", "GLM47_MODEL_PATH=relative/path is not an absolute path"),
        ("", "GLM47_MODEL_PATH= is not an absolute path"),
        ("/no/such/model", "GLM47_MODEL_PATH=/no/such/model does not exist"),
        ("/etc/passwd", "GLM47_MODEL_PATH=/etc/passwd is not a directory"),
        ("/etc/passwd/model", "is not a directory"),
        ("/" + "a" * 300, "cannot be read (File name too long)"),
        ("/nul\0byte", "embedded null byte"),
    ],
)
def test_a_path_that_is_no_model(path: str, expected: str) -> None:
    assert expected in only_problem(path)


def test_a_link_loop_as_model_path(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "Too many levels of symbolic links" in only_problem(tmp_path / "a")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user may enter; pytest's own are private."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def as_nobody() -> Iterator[int]:
    """The test's body does not run as root, whom no mode stops."""
    if os.geteuid() != 0:
        yield os.geteuid()
        return
    os.seteuid(65534)
    try:
        yield 65534
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("name", "mode"),
    [(".", 0o000), (".", 0o600), (".", 0o644), ("config.json", 0o000), (SHARDS[0], 0o000)],
)
def test_permission_denied_names_the_uid(
    open_directory: Path, name: str, mode: int, request: pytest.FixtureRequest
) -> None:
    source = model_directory(open_directory / "m")
    (source / name).chmod(mode)
    uid = request.getfixturevalue("as_nobody")
    try:
        assert f"cannot be read by uid {uid}" in only_problem(source)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        (source / name).chmod(0o755)


def test_weights_without_an_index_are_checked_too(tmp_path: Path) -> None:
    source = model_directory(tmp_path / "m")
    (source / INDEX).unlink()
    assert directory.check(str(source)) == []
    os.truncate(source / SHARDS[1], 100)
    assert SHARDS[1] in only_problem(source)
    assert directory.check(str(source), weights=False) == []


def test_a_model_without_weights_or_of_another_kind_is_a_warning(tmp_path: Path) -> None:
    source = model_directory(tmp_path / "m", architectures=["LlamaForCausalLM"])
    for name in (*SHARDS, INDEX, "tokenizer.json"):
        (source / name).unlink()
    found = directory.inspect(str(source))
    assert found.problems == ()
    assert [w.partition(":")[0].split("/")[-1] for w in found.warnings] == [
        'config.json has architectures = ["LlamaForCausalLM"]',
        "m has no tokenizer.json",
        "m has no safetensors files",
    ]


def test_a_large_index_is_read_like_a_small_one(tmp_path: Path) -> None:
    source = model_directory(tmp_path / "m")
    weight_map = {f"model.layers.{n}.mlp.experts.weight_scale": SHARDS[n % 3] for n in range(20_000)}
    large = json.dumps({"metadata": {}, "weight_map": weight_map})
    assert len(large) > 1_000_000
    (source / INDEX).write_text(large)
    assert directory.check(str(source)) == []
    (source / SHARDS[2]).unlink()
    assert SHARDS[2] in only_problem(source)
    for cut in (1, 2, 200, 500_000):
        (source / INDEX).write_text(large[:-cut])
        assert f"{INDEX}: is not valid JSON" in only_problem(source)
