"""The routing edit: GLM-4.7's experts say how they are routed, to the runner that asks. Pure.

`flashinfer_trtllm` routes inside its kernel and asserts that the layer names a method. `glm4_moe.py` of
SGLang 0.5.6 and 0.5.7 names none; from 0.5.8 it names DeepSeekV3. The edit does the same, but only where the
installed FlashInfer routes GLM rightly: before 0.6.2 its kernel takes -1 as the score of "no expert", which
beats real experts whose bias is lower, and the answers are garbage. There the layer goes on naming none, and
the engine stops with its own assertion rather than serve them. docs/decisions/moe-runner.md has the evidence.
"""

from __future__ import annotations

import ast

from entrypoint.prepare.patches.blocks import Replacement, UnknownSourceError, class_line, method, replace

NAME = "glm4_moe_routing"
PATH = "srt/models/glm4_moe.py"
CLASS = "Glm4MoeSparseMoeBlock"
FIRST_FLASHINFER = (0, 6, 2)

_HELPER = (
    "def _glm47_routing_method_type():",
    '    """DeepSeekV3 where FlashInfer routes GLM rightly; else None, which flashinfer_trtllm refuses."""',
    "    from importlib.metadata import PackageNotFoundError, version",
    "",
    "    from sglang.srt.layers.moe.utils import RoutingMethodType",
    "",
    "    try:",
    '        release = tuple(int(part) for part in version("flashinfer-python").split(".")[:3])',
    "    except (PackageNotFoundError, ValueError):",
    "        return None",
    f"    return RoutingMethodType.DeepSeekV3 if release >= {FIRST_FLASHINFER} else None",
    "",
    "",
)


def add_routing(text: str, sha256: str | None = None) -> str:
    """`text` with `routing_method_type` given to the experts. UnknownSourceError: the code is not known."""
    head, call = class_line(text, CLASS), _experts(text)
    if _passes(call):
        raise UnknownSourceError("the experts are given a routing method already")
    last = call.keywords[-1]
    if last.value.end_lineno is None or last.value.end_lineno >= (call.end_lineno or 0):
        raise UnknownSourceError("the call that makes the experts does not end on a line of its own")
    after = last.value.end_lineno + 1
    edits = [
        Replacement(head, head - 1, _HELPER),
        Replacement(
            after,
            after - 1,
            ("routing_method_type=_glm47_routing_method_type(),",),
            " " * last.col_offset,
        ),
    ]
    new = replace(text, NAME, "on", edits, sha256)
    if not _passes(_experts(new)):
        raise UnknownSourceError("the call that makes the experts cannot be extended")
    return new


def passes_routing(text: str) -> bool:
    """Whether the experts are given a routing method. UnknownSourceError when the code is not known."""
    return _passes(_experts(text))


def _passes(call: ast.Call) -> bool:
    return any(k.arg == "routing_method_type" for k in call.keywords)


def _experts(text: str) -> ast.Call:
    calls = [
        n
        for n in ast.walk(method(text, CLASS, "__init__"))
        if isinstance(n, ast.Call)
        and isinstance(n.func, ast.Call)
        and isinstance(n.func.func, ast.Name)
        and n.func.func.id == "get_moe_impl_class"
    ]
    if len(calls) != 1 or not calls[0].keywords:
        raise UnknownSourceError(f"expected one call that makes the experts, found {len(calls)}")
    return calls[0]
