"""The product's modules as syntax trees, for the tests of its rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Module:
    """One source file."""

    name: str
    """`entrypoint.plan.types`; a package's own file has the package's name."""
    path: str
    """From the root of the repository."""
    text: str
    tree: ast.Module

    def in_package(self, package: str) -> bool:
        """Whether it is `package` (`plan.engine`, from `entrypoint` on) or in it."""
        return f"{self.name}.".startswith(f"entrypoint.{package}.")


@cache
def modules() -> tuple[Module, ...]:
    """All of `entrypoint`, in order of their paths."""
    found = []
    for file in sorted((ROOT / "entrypoint").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = file.read_text()
        found.append(Module(name, str(file.relative_to(ROOT)), text, ast.parse(text)))
    return tuple(found)


@cache
def imports(module: Module) -> frozenset[str]:
    """The modules of `entrypoint` that `module` imports anywhere, for types too."""
    names = {other.name for other in modules()}
    found = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.path}:{node.lineno}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found |= {inner if inner in names else str(node.module)} & names
    return frozenset(found)


def public(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Functions and classes without an underscore, methods included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)
