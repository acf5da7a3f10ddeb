"""The real command lines of SGLang and Dynamo, read from their sources without importing either.

Each ``add_argument`` call in a source becomes one of an ordinary argparse parser, with its choices, types and
number of values, so that a planned command line can be parsed as the engine would.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / ".cache" / "wheels"
TYPES = {"int": int, "float": float}
SWITCHES = ("store_true", "store_false")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ValueError(message)


@cache
def wheel(requirement: str) -> Path:
    """The wheel of `requirement`, from the cache or the registry; skips the test when neither has it."""
    name, _, version = requirement.partition("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    WHEELS.mkdir(parents=True, exist_ok=True)
    if not (found := sorted(WHEELS.glob(pattern))):
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run(
            [*download, "--dest", str(WHEELS), requirement], capture_output=True, text=True, timeout=300
        )
        found = sorted(WHEELS.glob(pattern))
        if not found:
            reason = f"cannot get {requirement} from the package registry: {done.stderr.strip()[-300:]}"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
    return found[0]


@cache
def source(requirement: str, path: str) -> ast.Module:
    """The parsed module `path` of the wheel of `requirement`."""
    with zipfile.ZipFile(wheel(requirement)) as archive:
        return ast.parse(archive.read(path))


def sglang_parser(version: str = "0.5.6.post2", dynamo: str = "0.8.1") -> argparse.ArgumentParser:
    """What ``python -m dynamo.sglang`` accepts."""
    parser = _from_calls(source(f"sglang=={version}", "sglang/srt/server_args.py"))
    module = source(f"ai-dynamo=={dynamo}", "dynamo/sglang/args.py")
    for node in module.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "DYNAMO_ARGS":
            assert isinstance(node.value, ast.Dict)
            for entry in node.value.values:
                assert isinstance(entry, ast.Dict)
                fields = {ast.literal_eval(k): v for k, v in zip(entry.keys, entry.values, strict=True) if k}
                flags = ast.literal_eval(fields.pop("flags"))
                parser.add_argument(*flags, **_keywords(fields, {}))
    return parser


def dynamo_parser(component: str, module: str, version: str = "0.8.1") -> argparse.ArgumentParser:
    """What ``python -m dynamo.<component>`` accepts."""
    return _from_calls(source(f"ai-dynamo=={version}", f"dynamo/{component}/{module}.py"))


def _from_calls(module: ast.Module) -> argparse.ArgumentParser:
    parser = _Parser(add_help=False)
    constants = {
        target.id: node.value
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(module):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        flags = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if node.func.attr == "add_argument" and flags:
            keywords = {k.arg: k.value for k in node.keywords if k.arg is not None}
            parser.add_argument(*flags, **_keywords(keywords, constants))
    return parser


def _keywords(fields: dict[str, ast.expr], constants: dict[str, ast.expr]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    action = ast.unparse(fields["action"]).strip("'") if "action" in fields else "store"
    if action in SWITCHES:
        made["action"] = action
    elif action == "argparse.BooleanOptionalAction":
        made["action"] = argparse.BooleanOptionalAction
    elif action == "DeprecatedAction":
        made["action"] = "store_true"
    elif action == "version":
        return {"action": "version", "version": "any"}
    else:
        if "nargs" in fields:
            made["nargs"] = ast.literal_eval(fields["nargs"])
        made["type"] = TYPES.get(ast.unparse(fields["type"]) if "type" in fields else "", str)
        choices = fields.get("choices")
        choices = constants.get(choices.id) if isinstance(choices, ast.Name) else choices
        if isinstance(choices, ast.List | ast.Tuple):
            with contextlib.suppress(ValueError):  # a list made of others: not worth following
                made["choices"] = ast.literal_eval(choices)
        if "required" in fields:
            made["required"] = ast.literal_eval(fields["required"])
    if "dest" in fields:
        made["dest"] = ast.literal_eval(fields["dest"])
    return made
