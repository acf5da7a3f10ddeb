"""The edits by name, and what a text's state is with regard to one of them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from entrypoint.prepare.patches import glm4_moe, modelopt
from entrypoint.prepare.patches.blocks import UnknownSourceError, digest, strip

Mode = Literal["pad", "assert", "off"]
State = Literal["applied", "needed", "not needed", "not recognised"]


@dataclass(frozen=True)
class Edit:
    """One edit of one file of the sglang package."""

    name: str
    path: str
    """Inside the package."""
    what: str
    modes: dict[str, Callable[[str, str | None], str]]
    """Mode as the blocks name it → the function that makes the edit."""
    done_upstream: Callable[[str, str], bool]
    """(original text, mode) → whether the file needs no edit. May raise UnknownSourceError."""


@dataclass(frozen=True)
class Judged:
    """What became of a text: its state before, and the text that it should become."""

    state: State
    text: str
    """With the edit (state applied or needed), as it is otherwise."""
    original: str
    """Without the edit."""
    detail: str
    mode: str | None
    """The mode that the text had; None: none."""


MODELOPT = Edit(
    name=modelopt.NAME,
    path=modelopt.PATH,
    what="NVFP4 experts of any width per rank: padded half by half (pad), or an assertion removed (assert)",
    modes={"pad": modelopt.pad, "assert": modelopt.comment_out},
    done_upstream=lambda text, mode: mode == "assert" and modelopt.assertion_gone(text),
)
ROUTING = Edit(
    name=glm4_moe.NAME,
    path=glm4_moe.PATH,
    what="GLM's experts name their routing method, where the installed FlashInfer routes GLM rightly",
    modes={"on": glm4_moe.add_routing},
    done_upstream=lambda text, mode: glm4_moe.passes_routing(text),
)
CATALOG = (MODELOPT, ROUTING)


def mode_of(edit: Edit, modelopt_mode: Mode) -> str | None:
    """The mode `edit` is wanted in when GLM47_MODELOPT_PATCH is `modelopt_mode`; None: not at all."""
    if modelopt_mode == "off":
        return None
    if edit is ROUTING:
        # The original deployment's edit, to the letter, is one file.
        return "on" if modelopt_mode == "pad" else None
    return modelopt_mode


def judge(edit: Edit, text: str, mode: str | None) -> Judged:
    """The state of `text` with regard to `edit` in `mode`, and the text that it should become.

    A text counts as applied only when making the edit again from the text without it gives the same text: a
    half-made or hand-changed edit is not recognised.
    """
    try:
        bare = strip(text, edit.name)
        if bare.mode is not None and (
            bare.mode not in edit.modes or edit.modes[bare.mode](bare.text, bare.sha256) != text
        ):
            raise UnknownSourceError(f"its {edit.name} edit was changed by hand")
        if mode is None:
            state: State = "applied" if bare.mode else "not needed"
            return Judged(state, text, bare.text, f"mode {bare.mode}" if bare.mode else "off", bare.mode)
        if bare.mode == mode:
            return Judged("applied", text, bare.text, f"mode {mode}", mode)
        if edit.done_upstream(bare.text, mode):
            return Judged("not needed", bare.text, bare.text, "the release has it", bare.mode)
        wanted = edit.modes[mode](bare.text, digest(bare.text))
    except UnknownSourceError as error:
        return Judged("not recognised", text, text, str(error), None)
    return Judged("needed", wanted, bare.text, f"mode {mode}", bare.mode)
