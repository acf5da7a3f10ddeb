"""The defect and its correction, seen by the real frontend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from entrypoint.commands.demo.model import make_demo_model
from entrypoint.commands.smoke.questions import smoke
from entrypoint.node.model import directory
from entrypoint.prepare import model_view
from tests.stack.by_hand import Stack, wait_for

pytestmark = pytest.mark.stack


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Callable[[Path], Stack]]:
    stacks: list[Stack] = []

    def start(model_directory: Path) -> Stack:
        stacks.append(Stack(tmp_path / "stack", model_directory))
        stacks[-1].start_all()
        return stacks[-1]

    yield start
    for one in stacks:
        one.stop()


def test_without_the_correction_the_frontend_refuses_the_model(
    tmp_path: Path, stack: Callable[[Path], Stack]
) -> None:
    started = stack(make_demo_model(tmp_path / "model/glm-4.7"))
    refusal = "missing bos_token_id in generation_config.json and config.json"
    wait_for(lambda: refusal in started.log("frontend"), 20, "the refusal in the frontend's log")
    assert started.listed() == []


def test_with_the_view_the_model_is_listed_and_answers(
    tmp_path: Path, stack: Callable[[Path], Stack]
) -> None:
    source = make_demo_model(tmp_path / "original")
    view = tmp_path / "run/model/glm-4.7"
    model_view.prepare(str(source), view, bos_token_id=directory.read_facts(str(source)).bos_token_id)
    started = stack(view)
    assert wait_for(started.listed, 20, "the model in /v1/models") == ["glm-4.7"]
    report = smoke(started.url, model="glm-4.7", timeout=30)
    assert report.ok, report.table()
    assert [check.name for check in report.checks] == [
        "models",
        "completion",
        "completion, streamed",
        "chat completion",
        "chat completion, streamed",
    ]
    words = {word for check in report.checks[1:] for word in check.text.split()}
    assert len(words) > 50, "the answers are not words"
    assert smoke(started.url, expect_text=next(iter(words))[:2].upper(), timeout=30).ok
    failed = smoke(started.url, expect_text="Paris", timeout=30)
    assert [check.name for check in failed.checks if not check.ok] == ["expected text"]
    unlisted = smoke(started.url, model="glm-9", timeout=30)
    assert "glm-9 is not listed, but glm-4.7" in unlisted.checks[0].detail
    assert not any(check.ok for check in unlisted.checks)
