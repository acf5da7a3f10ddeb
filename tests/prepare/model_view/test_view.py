from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from entrypoint.errors import CannotWriteError, ExitCode, ModelError
from entrypoint.node.model import directory
from entrypoint.prepare import model_view
from tests.node.model.files import BOS, model_directory, prepare, snapshot


def test_the_view_links_everything_and_corrects_one_file(source: Path, view: Path) -> None:
    (source / "sub").mkdir()
    (source / "sub/extra.txt").write_text("below")
    before = snapshot(source)
    assert prepare(source, view), "something was written"
    assert {p.name for p in view.iterdir()} == {p.name for p in source.iterdir()}
    for path in view.iterdir():
        if path.name == "generation_config.json":
            assert path.is_file() and not path.is_symlink()
        else:
            assert path.readlink() == source / path.name
    assert (view / "sub/extra.txt").read_text() == "below"
    original = json.loads((source / "generation_config.json").read_text())
    fixed = json.loads((view / "generation_config.json").read_text())
    assert list(fixed.items()) == [*original.items(), ("bos_token_id", BOS)]
    assert directory.check(str(view)) == [] and not directory.read_facts(str(view)).needs_bos_fix
    assert snapshot(source) == before


def test_doing_it_again_changes_nothing(source: Path, view: Path) -> None:
    prepare(source, view)
    before = (view.stat().st_ino, view.stat().st_mtime_ns)
    assert not prepare(source, view)
    assert (view.stat().st_ino, view.stat().st_mtime_ns) == before


def test_a_null_bos_token_id_is_replaced_where_it_stands(source: Path, view: Path) -> None:
    (source / "generation_config.json").write_text('{"a": 1, "bos_token_id": null, "ü": 1e-05}')
    prepare(source, view)
    fixed = (view / "generation_config.json").read_text()
    assert list(json.loads(fixed).items()) == [("a", 1), ("bos_token_id", BOS), ("ü", 1e-05)]


def test_a_missing_generation_config_is_made(source: Path, view: Path) -> None:
    (source / "generation_config.json").unlink()
    prepare(source, view)
    made = json.loads((view / "generation_config.json").read_text())
    assert made == {
        "_from_model_config": True,
        "eos_token_id": [151329, 151336, 151338],
        "pad_token_id": 151329,
        "bos_token_id": BOS,
    }


def test_nothing_to_correct(source: Path, view: Path) -> None:
    (source / "generation_config.json").write_text(json.dumps({"bos_token_id": 7}))
    assert prepare(source, view)
    assert all(path.is_symlink() for path in view.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        lambda s, v: (s / "new.txt").write_text("new"),
        lambda s, v: (s / "tokenizer.json").unlink(),
        lambda s, v: (s / "generation_config.json").write_text('{"temperature": 0.5}'),
        lambda s, v: (v / "generation_config.json").write_text("{"),
        lambda s, v: (v / "generation_config.json").unlink(),
        lambda s, v: (v / "config.json").unlink(),
        lambda s, v: ((v / "config.json").unlink(), (v / "config.json").symlink_to("/elsewhere")),
        lambda s, v: ((v / "config.json").unlink(), (v / "config.json").write_text("{}")),
        lambda s, v: (v / "left-by-an-engine.lock").touch(),
        lambda s, v: [p.unlink() for p in v.iterdir()],
    ],
)
def test_a_stale_or_damaged_view_is_replaced(source: Path, view: Path, change: Any) -> None:
    prepare(source, view)
    change(source, view)
    assert prepare(source, view)
    assert {p.name for p in view.iterdir()} == {p.name for p in source.iterdir()}
    assert directory.check(str(view)) == [] and not directory.read_facts(str(view)).needs_bos_fix
    assert {p.name for p in view.parent.iterdir()} == {"glm-4.7", ".glm-4.7.lock"}
    assert not prepare(source, view)


def test_replacing_works_where_directories_cannot_be_exchanged(
    source: Path, view: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_view, "_exchange", lambda one, other: False)
    prepare(source, view)
    assert prepare(source, view, 5)
    assert json.loads((view / "generation_config.json").read_text())["bos_token_id"] == 5
    assert {p.name for p in view.parent.iterdir()} == {"glm-4.7", ".glm-4.7.lock"}


def test_exchange_is_to_be_had_here(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    (one / "1").mkdir(parents=True)
    (other / "2").mkdir(parents=True)
    assert model_view._exchange(one, other)
    assert (one / "2").is_dir() and (other / "1").is_dir()


def test_the_layout_of_a_hub_cache(tmp_path: Path, view: Path) -> None:
    """Files in snapshots/<revision> are relative links into ../../blobs."""
    source = model_directory(tmp_path / "cache/snapshots/0123abc")
    blobs = tmp_path / "cache/blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(source.iterdir())):
        path.rename(blobs / f"blob{number}")
        path.symlink_to(f"../../blobs/blob{number}")
    assert directory.check(str(source)) == []
    prepare(source, view)
    assert (view / "config.json").readlink() == source / "config.json"
    assert directory.check(str(view)) == []


def test_a_link_to_the_model_stays_a_link(source: Path, view: Path, tmp_path: Path) -> None:
    """What the user named is what is mounted in every container; where it leads may not be."""
    (tmp_path / "current").symlink_to(source)
    prepare(tmp_path / "current", view)
    assert (view / "config.json").readlink() == tmp_path / "current/config.json"


def test_odd_file_names(source: Path, view: Path) -> None:
    (source / "dangling").symlink_to("nowhere")
    (source / "loop").symlink_to("loop")
    (source / os.fsdecode(b"not-utf8-\xff")).touch()
    (source / "new\nline").touch()
    prepare(source, view)
    assert not prepare(source, view)
    assert {p.name for p in view.iterdir()} == {p.name for p in source.iterdir()}


def test_a_directory_that_is_not_ours_is_left_alone(source: Path, view: Path) -> None:
    view.mkdir(parents=True)
    (view / "thesis.txt").write_text("mine")
    with pytest.raises(CannotWriteError, match="something else is there"):
        prepare(source, view)
    assert [p.name for p in view.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("target", ["glm-4.7", "nowhere", "/etc"])
def test_a_link_in_the_place_of_the_view_is_left_alone(source: Path, view: Path, target: str) -> None:
    view.parent.mkdir(parents=True)
    view.symlink_to(target)
    with pytest.raises(CannotWriteError, match="something else is there"):
        prepare(source, view)
    assert str(view.readlink()) == target


def test_the_view_itself_as_model_path(source: Path, view: Path) -> None:
    prepare(source, view)
    with pytest.raises(ModelError, match="is the runner's own view"):
        prepare(view, view)
    assert directory.check(str(view)) == []


def test_a_run_directory_that_cannot_be_written(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWriteError) as caught:
        prepare(source, tmp_path / "file/model/glm-4.7")
    assert caught.value.exit_code == ExitCode.CANTCREAT
    assert "set GLM47_RUN_DIR to a writable directory" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_directory_inside_the_model_is_refused(source: Path) -> None:
    before = snapshot(source)
    with pytest.raises(CannotWriteError, match="set GLM47_RUN_DIR to a directory outside GLM47_MODEL_PATH"):
        prepare(source, source / "run/model/glm-4.7")
    assert snapshot(source) == before and not (source / "run").exists()


def test_a_lone_surrogate_in_the_original_is_kept(source: Path, view: Path) -> None:
    (source / "generation_config.json").write_text(r'{"odd": "\ud800", "even": "\u00fc"}')
    prepare(source, view)
    fixed = json.loads((view / "generation_config.json").read_text())
    assert fixed == {"odd": "\ud800", "even": "ü", "bos_token_id": BOS}


def test_a_read_only_run_directory_with_a_good_view_will_do(source: Path, view: Path) -> None:
    prepare(source, view)
    (view.parent / ".glm-4.7.lock").unlink()
    view.parent.chmod(0o555)
    try:
        assert not prepare(source, view)
        assert not (view.parent / ".glm-4.7.lock").exists()
    finally:
        view.parent.chmod(0o755)
