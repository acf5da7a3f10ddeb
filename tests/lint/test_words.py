"""What people read: errors in one punctuation, and functions that say what their numbers are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from entrypoint import errors
from tests.lint.sources import modules, public

ERRORS = {name for name, found in vars(errors).items() if isinstance(found, type)}
VOICE = re.compile(r"cannot .+?: .+: .+|cannot .+: .*\{\}", re.DOTALL)
"""`cannot …: <value>: <what to do>`, as far as it is written here: its end may be put in."""
REMEDY = re.compile(
    r"; (add|ask|begin|choose|close|correct|give|leave|lower|name|pass|set|unset|use|write)\b"
)
"""What to do, behind a semicolon."""
FRAGMENTS = re.compile(r"cannot (be|start\b(?!:)|run here)")
"""Parts of longer lines."""
PUT_IN = "{}"


def words(node: ast.AST) -> str | None:
    """The text that an expression makes, with `PUT_IN` for what is put into it; None: not to be seen here."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else PUT_IN for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = words(node.left), words(node.right)
        return None if left is None else left + (PUT_IN if right is None else right)
    return None


def texts(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every whole string in `node`; comments and docstrings are none."""
    if (text := words(node)) is not None:
        yield getattr(node, "lineno", 0), text
        return
    for child in ast.iter_child_nodes(node):
        yield from texts(child)


def spoken(text: str) -> bool:
    """Whether a line is in the one voice."""
    return VOICE.fullmatch(text) is not None and not REMEDY.search(text)


def test_every_error_says_what_which_value_and_what_to_do() -> None:
    wrong, seen = [], 0
    for module in modules():
        for line, text in texts(module.tree):
            if text.startswith("cannot ") and not FRAGMENTS.match(text):
                seen += 1
                wrong += [] if spoken(text) else [f"{module.path}:{line}: {text}"]
    assert seen > 100 and not wrong, "\n".join(wrong)


def test_every_error_raised_is_in_that_voice() -> None:
    wrong = []
    for module in modules():
        for node in ast.walk(module.tree):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
                continue
            if ast.unparse(node.exc.func) in ERRORS and (text := words(node.exc.args[0])) is not None:
                wrong += [] if spoken(text) else [f"{module.path}:{node.lineno}: {text}"]
    assert not wrong, "\n".join(wrong)


UNIT = re.compile(
    r"second|monotonic|`?now\b|byte|ratio|share|fraction|percent|digits|mean|tokens|requests|samples|loop",
    re.IGNORECASE,
)
"""What a number with a fraction is, in a docstring: `now` is the loop's monotonic clock, everywhere."""


def test_public_functions_say_what_they_do_and_their_numbers_units() -> None:
    """A `float` is a time, a size or a share: the docstring says which, or its class's or its module's.

    Methods of one line, such as those that a library asks for, may leave it to their class.
    """
    silent, unitless = [], []
    for module in modules():
        above = ast.get_docstring(module.tree) or ""
        for node in public(module.tree):
            here, text = f"{module.path}:{node.lineno}: {node.name}", ast.get_docstring(node)
            short = isinstance(node, ast.FunctionDef) and len(node.body) <= 2 and node not in module.tree.body
            silent += [here] if text is None and not short else []
            if isinstance(node, ast.FunctionDef):
                kinds = [a.annotation for a in (*node.args.args, *node.args.kwonlyargs)] + [node.returns]
                floats = any(k is not None and re.search(r"\bfloat\b", ast.unparse(k)) for k in kinds)
                unitless += [here] if floats and not UNIT.search(f"{text} {above}") else []
    assert not silent, "\n".join(silent)
    assert not unitless, "\n".join(unitless)


def test_constants_say_their_units() -> None:
    silent = []
    for module in modules():
        for node, after in zip(module.tree.body, [*module.tree.body[1:], None], strict=True):
            if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)):
                continue
            number = isinstance(node.value.value, float)
            said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            silent += [f"{module.path}:{node.lineno}: {ast.unparse(node)}"] if number and not said else []
    assert not silent, "\n".join(silent)
