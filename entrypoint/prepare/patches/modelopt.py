"""The ModelOpt edit: gated NVFP4 experts of any width per rank, computed rightly. Pure.

SGLang (0.5.6 to 0.5.23 at least) pads the fused [w1, w3] tensor of gated experts at its end, which moves the
boundary between the two; an assertion keeps that from happening, and with it the model from loading.

`pad` pads each half by itself before any branch looks at the weights: w1 and w3 to a multiple of 64 rows
(weights and block scales), w2's columns with them. The kernels then get a shape they take and values that are
unchanged, since the added channels are zero. Releases that demand a number of scale columns divisible by 16
get that relaxed to 4, which is what the kernels' swizzle needs. The assertion stays as the net it is.

`assert` is the original deployment's edit to the letter: the assertion commented out, nothing else.
"""

from __future__ import annotations

import ast
from typing import TypeVar

from entrypoint.prepare.patches.blocks import Replacement, UnknownSourceError, method, replace

NAME = "modelopt"
PATH = "srt/layers/quantization/modelopt_quant.py"
CLASS = "ModelOptNvFp4FusedMoEMethod"
METHOD = "process_weights_after_loading"
MESSAGE = "padding is also implemented for gated activations"
"""In the text of the assertion."""

_Node = TypeVar("_Node", bound=ast.AST)

PAD = (
    "# w1 and w3 are halves of one tensor: each gets zero rows up to a multiple of 64, so that the boundary",
    "# between them stays in the middle, and w2 as many columns. A zero byte is zero in FP4 and in FP8.",
    "if layer.moe_runner_config.is_gated and layer.w13_weight.shape[1] // 2 % 64:",
    "    _width = layer.w13_weight.shape[1] // 2",
    "    _pad = -_width % 64",
    "    for _param in (layer.w13_weight, layer.w13_weight_scale):",
    "        _halves = _param.data.view(torch.uint8).unflatten(1, (2, _width))",
    "        _halves = torch.nn.functional.pad(_halves, (0, 0, 0, _pad))",
    "        _param.data = _halves.flatten(1, 2).view(_param.dtype)",
    "    for _param, _per_byte in ((layer.w2_weight, 2), (layer.w2_weight_scale, 16)):",
    "        _columns = torch.nn.functional.pad(_param.data.view(torch.uint8), (0, _pad // _per_byte))",
    "        _param.data = _columns.view(_param.dtype)",
    "    # What flashinfer_trtllm's kernel is told.",
    "    layer.intermediate_size_per_partition = _width + _pad",
)


def pad(text: str, sha256: str | None = None) -> str:
    """`text` with experts padded half by half. UnknownSourceError: the code is not known."""
    body = _method(text)
    anchor = _only(
        [n for n in body.body if isinstance(n, ast.Assign) and _names(n) == ["assert_dim"]],
        "one `assert_dim = …` in the method",
    )
    following = body.body[body.body.index(anchor) + 1 :]
    if not following or not isinstance(following[0], ast.For):
        raise UnknownSourceError("no loop over the weight scales after `assert_dim = …`")
    _padding(body, text)
    used = {n.id for n in ast.walk(body) if isinstance(n, ast.Name)}
    if used & {"_width", "_pad", "_param", "_halves", "_columns", "_per_byte"}:
        raise UnknownSourceError("the method uses names of ours")
    edits = [Replacement(anchor.lineno, anchor.lineno - 1, PAD, " " * anchor.col_offset)]
    checks = [n for n in ast.walk(following[0]) if isinstance(n, ast.Assert) and _divisor(n.test) is not None]
    if len(checks) > 1:
        raise UnknownSourceError("more than one check of the scales' divisibility")
    for check in checks:
        test = check.test
        assert isinstance(test, ast.Compare) and isinstance(test.left, ast.BinOp)
        edits.append(
            Replacement(
                check.lineno,
                check.end_lineno or check.lineno,
                (
                    f"assert {ast.unparse(test.left.left)} % 4 == 0, (",
                    '    f"Expected {name}_weight_scale.dim({assert_dim}) to be divisible by 4"',
                    ")",
                ),
                " " * check.col_offset,
            )
        )
    return _checked(replace(text, NAME, "pad", edits, sha256))


def comment_out(text: str, sha256: str | None = None) -> str:
    """`text` with the assertion commented out. UnknownSourceError when it is not there, or not alone."""
    check = _gated_assert(_padding(_method(text), text))
    if check is None:
        raise UnknownSourceError("the assertion on gated activations is not there")
    edit = Replacement(check.lineno, check.end_lineno or check.lineno, (), " " * check.col_offset)
    return _checked(replace(text, NAME, "assert", [edit], sha256))


def assertion_gone(text: str) -> bool:
    """Whether the code is the known one, with the assertion already taken out by someone else."""
    return _gated_assert(_padding(_method(text), text)) is None


def _method(text: str) -> ast.FunctionDef:
    return method(text, CLASS, METHOD)


def _padding(body: ast.FunctionDef, text: str) -> ast.If:
    """The branch that pads w13 at its end, with the assertion or with it commented out."""
    branch = _only(
        [
            n
            for n in ast.walk(body)
            if isinstance(n, ast.If) and isinstance(n.test, ast.Name) and n.test.id == "intermediate_size_pad"
        ],
        "one `if intermediate_size_pad:`",
    )
    if _gated_assert(branch) is None and MESSAGE not in text:
        raise UnknownSourceError("padding of gated experts is neither refused nor commented out")
    return branch


def _gated_assert(branch: ast.If) -> ast.Assert | None:
    for node in branch.body:
        if (
            isinstance(node, ast.Assert)
            and ast.unparse(node.test) == "not layer.moe_runner_config.is_gated"
            and node.msg is not None
            and MESSAGE in ast.unparse(node.msg)
        ):
            return node
    return None


def _divisor(test: ast.expr) -> ast.expr | None:
    """The 16 of ``weight_scale.shape[assert_dim] % 16 == 0``, a number or a name."""
    if (
        isinstance(test, ast.Compare)
        and [type(op) for op in test.ops] == [ast.Eq]
        and isinstance(test.left, ast.BinOp)
        and isinstance(test.left.op, ast.Mod)
        and ast.unparse(test.left.left) == "weight_scale.shape[assert_dim]"
        and ast.unparse(test.comparators[0]) == "0"
    ):
        return test.left.right
    return None


def _names(node: ast.Assign) -> list[str]:
    return [t.id for t in node.targets if isinstance(t, ast.Name)]


def _only(nodes: list[_Node], what: str) -> _Node:
    if len(nodes) != 1:
        raise UnknownSourceError(f"expected {what}, found {len(nodes)}")
    return nodes[0]


def _checked(text: str) -> str:
    _method(text)
    return text
