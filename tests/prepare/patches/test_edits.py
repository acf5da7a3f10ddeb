"""The edits as text in, text out."""

from __future__ import annotations

import ast
import difflib

import pytest

from entrypoint.prepare.patches import blocks, catalog, glm4_moe, modelopt
from tests.prepare.patches.sample import GLM4_MOE, MODELOPT

ASSERTION = MODELOPT[
    MODELOPT.index("                assert not layer") : MODELOPT.index(
        "                layer.w13_weight = None"
    )
]


def test_pad_only_adds_lines_and_changes_one_check() -> None:
    new = modelopt.pad(MODELOPT)
    old_lines, new_lines = MODELOPT.splitlines(), new.splitlines()
    taken = [line[2:] for line in difflib.ndiff(old_lines, new_lines) if line.startswith("- ")]
    assert taken == [
        "            assert (",
        "                weight_scale.shape[assert_dim] % 16 == 0",
        '            ), f"Expected {name}_weight_scale.dim({assert_dim}) to be divisible by 16"',
    ]
    found = next(n for n in ast.parse(new).body if isinstance(n, ast.ClassDef) and n.name == modelopt.CLASS)
    method = found.body[0]
    assert isinstance(method, ast.FunctionDef)
    kinds = [type(statement).__name__ for statement in method.body]
    assert kinds == ["Expr", "If", "Assign", "For", "If"], (
        "the padding comes before whatever reads the weights"
    )
    assert "assert weight_scale.shape[assert_dim] % 4 == 0, (" in new
    assert ASSERTION in new, "the assertion stays as a net"
    assert "entrypoint" not in new and "import glm47" not in new


def test_assert_mode_comments_the_assertion_out_and_nothing_else() -> None:
    new = modelopt.comment_out(MODELOPT)
    assert ast.dump(ast.parse(new)) == ast.dump(ast.parse(MODELOPT.replace(ASSERTION, "")))


def test_routing_is_one_keyword_and_its_helper() -> None:
    new = glm4_moe.add_routing(GLM4_MOE)
    call = glm4_moe._experts(new)
    assert [k.arg for k in call.keywords] == ["num_experts", "prefix", "routing_method_type"]
    assert glm4_moe.passes_routing(new) and not glm4_moe.passes_routing(GLM4_MOE)


@pytest.mark.parametrize(
    ("installed", "wanted"),
    [("0.5.3", None), ("0.6.1", None), ("0.6.2", "DeepSeekV3"), ("0.6.11.post1", "DeepSeekV3"),
     ("0.10.0", "DeepSeekV3"),
     ("0.6.2rc1", None), (None, None)],
)  # fmt: skip
def test_routing_is_named_only_where_flashinfer_routes_rightly(
    installed: str | None, wanted: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.metadata
    import sys
    import types

    utils = types.ModuleType("sglang.srt.layers.moe.utils")
    utils.RoutingMethodType = types.SimpleNamespace(DeepSeekV3="DeepSeekV3")  # type: ignore[attr-defined]
    for name in ("sglang", "sglang.srt", "sglang.srt.layers", "sglang.srt.layers.moe"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, utils.__name__, utils)

    def version(name: str) -> str:
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(importlib.metadata, "version", version)
    scope: dict[str, object] = {}
    exec(compile(glm4_moe.add_routing(GLM4_MOE), "glm4_moe.py", "exec"), scope)
    block = scope["Glm4MoeSparseMoeBlock"]
    made = block(types.SimpleNamespace(n_routed_experts=160))  # type: ignore[operator]
    assert made.experts["routing_method_type"] == wanted


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("edit", "mode"), [(catalog.MODELOPT, "pad"), (catalog.MODELOPT, "assert"), (catalog.ROUTING, "on")]
)
def test_edits_are_idempotent_and_reversible_byte_for_byte(
    edit: catalog.Edit, mode: str, bom: str, ending: str
) -> None:
    base = MODELOPT if edit is catalog.MODELOPT else GLM4_MOE
    text = bom + base.replace("\n", ending)
    first = catalog.judge(edit, text, mode)
    assert first.state == "needed"
    again = catalog.judge(edit, first.text, mode)
    assert (again.state, again.text) == ("applied", first.text)
    assert again.original == text
    assert first.text.count("\r\n") in (0, first.text.count("\n")), "line ends are not mixed"
    assert blocks.strip(first.text, edit.name).sha256 == blocks.digest(text)


def test_one_mode_replaces_the_other() -> None:
    padded = catalog.judge(catalog.MODELOPT, MODELOPT, "pad").text
    changed = catalog.judge(catalog.MODELOPT, padded, "assert")
    assert changed.state == "needed" and changed.text == modelopt.comment_out(MODELOPT)


def test_off_leaves_an_applied_edit_and_says_so() -> None:
    padded = catalog.judge(catalog.MODELOPT, MODELOPT, "pad").text
    judged = catalog.judge(catalog.MODELOPT, padded, None)
    assert (judged.state, judged.text) == ("applied", padded)


def test_foreign_edits_around_ours_are_kept() -> None:
    foreign = MODELOPT.replace("LEFT_ALONE", "# someone was here\nLEFT_ALONE")
    patched = catalog.judge(catalog.MODELOPT, foreign, "pad")
    assert patched.state == "needed" and patched.original == foreign
    later = patched.text.replace("odd spacing stays", "odd spacing has changed")
    judged = catalog.judge(catalog.MODELOPT, later, "pad")
    assert judged.state == "applied", "a change elsewhere is not ours to judge"
    assert judged.original == foreign.replace("odd spacing stays", "odd spacing has changed")


def test_the_original_deployments_edit_in_the_file_does_not_hinder_padding() -> None:
    commented = MODELOPT.replace(ASSERTION, "".join(f"# {line}\n" for line in ASSERTION.splitlines()))
    assert catalog.judge(catalog.MODELOPT, commented, "pad").state == "needed"
    assert catalog.judge(catalog.MODELOPT, commented, "assert").state == "not needed"


def test_release_without_the_scale_check() -> None:
    text = MODELOPT.replace("% 16 == 0", "% 16 >= 0")
    assert text != MODELOPT
    assert modelopt.pad(text).count(">>> glm47-runner") == 1


PADDED = modelopt.pad(MODELOPT)


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        (MODELOPT.replace('Process."""', "Process."), "pad", "not valid Python"),
        ("", "pad", f"expected one class {modelopt.CLASS}, found 0"),
        (MODELOPT + MODELOPT, "pad", "found 2"),
        (MODELOPT.replace("assert_dim = 2", "dim = 2"), "pad", "assert_dim"),
        (MODELOPT.replace("if intermediate_size_pad:", "if True:"), "pad", "found 0"),
        (MODELOPT.replace(ASSERTION, ""), "pad", "neither refused nor commented out"),
        (MODELOPT.replace(ASSERTION, ""), "assert", "neither refused nor commented out"),
        (MODELOPT.replace("# Validate", "_pad = 1"), "pad", "names of ours"),
        (PADDED.replace("% 64", "% 32"), "pad", "changed by hand"),
        (PADDED.replace("            # <<< glm47-runner modelopt\n", ""), "pad", "is broken"),
        ("".join(PADDED.splitlines(True)[:25]), "pad", "is broken"),
        (PADDED.replace(" pad sha256", " maybe sha256"), "pad", "changed by hand"),
    ],
)
def test_what_is_not_recognised_is_left_alone(text: str, mode: str, why: str) -> None:
    judged = catalog.judge(catalog.MODELOPT, text, mode)
    assert judged.state == "not recognised"
    assert why in judged.detail
    assert judged.text == text


@pytest.mark.parametrize(
    "text",
    [
        GLM4_MOE.replace("Glm4MoeSparseMoeBlock", "Other"),
        GLM4_MOE.replace("get_moe_impl_class(quant_config)(", "dict("),
        GLM4_MOE.replace('prefix=prefix + "experts",\n        )', 'prefix=prefix + "experts")'),
        GLM4_MOE.replace('prefix + "experts",', 'prefix + "experts"'),
    ],
)
def test_models_that_are_not_recognised(text: str) -> None:
    judged = catalog.judge(catalog.ROUTING, text, "on")
    assert judged.state == "not recognised" and judged.text == text
