"""A thought and a tool call through the API, by a model that says both in GLM-4.7's own format."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest

from bench.clients import greedy
from bench.profiles_on_gpu import chat
from tests.engine.stacks import Stack
from tests.support.cpu_engine import PINNED, scripted
from tests.support.cpu_engine.install import NEWER

THOUGHT = "".join(scripted.THOUGHT)
KINDS = ((True, False), (True, True), (False, False), (False, True))
"""Thinks, streamed. Dynamo 0.8.1 does not take `chat_template_kwargs`, which turn thinking off."""


@pytest.mark.engine_more
def test_the_parsers_of_the_release_take_them_apart(release: str, tmp_path: Path) -> None:
    model = scripted.make_scripted(tmp_path / "model")
    with Stack(tmp_path / "run", model, "single", release=release) as stack:
        stack.ready()
        word, port = scripted.PLAIN[3], int(stack.ports["GLM47_HTTP_PORT"])
        assert greedy(port, word, 24).text == scripted.words_after(word, 24)
        if release == NEWER[-1]:
            # Dynamo 1.6.1 has the engine keep to a grammar where there are tools, and this engine has none.
            with pytest.raises(urllib.error.HTTPError) as refused:
                chat(port, True, False)
            assert "Grammar-based generation" in refused.value.read().decode()
            return
        for thinks, stream in KINDS[:2] if release == PINNED else KINDS:
            said = chat(port, thinks, stream)
            thought = THOUGHT if thinks else ""
            if release == PINNED:
                # Dynamo 0.8.1 has parsers for neither: an agent sees all of it, the end's token included.
                raw = "".join((thought, "</think>", *scripted.CALL, scripted.SCRIPT[-1]))
                assert said.content == raw
                assert not said.reasoning and not said.calls
            else:
                assert not said.wrong(thought), (thinks, stream)
