"""The folders are the data flow: who may import whom, who reads the environment, how long a module is."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter

import pytest

from tests.lint.sources import ROOT, Module, imports, modules

FLOW = {
    "base": "",
    "errors": "base",
    "settings": "errors",
    "node": "errors base settings",
    "plan": "base errors settings node",
    "prepare": "errors base node plan",
    "supervise": "errors base plan",
    "load": "errors settings node plan",
    "run": "errors base settings node plan prepare supervise load",
    "commands": "errors base settings node plan prepare supervise load run",
    "__main__": "commands run",
}
"""Each part of `entrypoint`, and the parts that it may import."""
SUPERVISE = {
    "process_tree": "",
    "discovery": "",
    "output": "",
    "failures": "",
    "lifecycle": "",
    "ports": "process_tree",
    "probes": "discovery ports",
    "status": "lifecycle output",
    "peers": "lifecycle status",
    "child": "output process_tree",
    "children": "child process_tree",
    "waiting": "child",
    "supervisord": "child lifecycle process_tree",
    "watchdog": "child lifecycle probes process_tree",
    "log_monitor": "failures lifecycle output status",
    "mailbox": "lifecycle",
    "signals": "",
    "executor": "child children discovery lifecycle log_monitor mailbox output probes watchdog",
    "daemon": "children discovery executor lifecycle log_monitor mailbox output peers ports probes signals "
    "status supervisord waiting watchdog",
}
"""The same within `supervise`."""
NO_EFFECTS = ("plan", "supervise.lifecycle")
EFFECTS = ("os", "subprocess", "socket", "threading", "time", "httpx", "supervisor")

READS = {
    "settings": "every layer of the settings",
    "node": "placement, and what is installed",
    "prepare.flashinfer.for_plan": "a variable of FlashInfer that the engine inherits",
    "prepare.patches.for_plan": "PYTHONPATH that the engine inherits, to put a directory before it",
    "prepare.patches.overlay": "the same",
    "supervise.discovery.registry": "ETCD_AUTH_*, as Dynamo reads them",
    "commands.bench.aiperf": "PATH, to find a program",
}
"""Who looks a variable up, and what for."""
HANDS_ON = ("__main__", "commands", "settings.deferred", "supervise.discovery.joining")
"""Who names `os.environ`: it is an argument everywhere else. `deferred` sets a variable of pydantic's,
`joining` is a process of its own."""

LONGEST = 300
LONGER = {
    "entrypoint/settings/schema.py": 355,  # a list
    "entrypoint/commands/bench/session.py": 303,
}
"""Lines; only ever fewer."""


def part(name: str, depth: int) -> str:
    """`plan` of `entrypoint.plan.types` (depth 1)."""
    return name.split(".")[depth] if name.count(".") >= depth else ""


@pytest.mark.parametrize(
    ("within", "table", "depth"), [("entrypoint", FLOW, 1), ("entrypoint.supervise", SUPERVISE, 2)]
)
def test_imports_follow_the_flow(within: str, table: dict[str, str], depth: int) -> None:
    inside = [m for m in modules() if m.name.startswith(f"{within}.")]
    assert {part(m.name, depth) for m in inside} == set(table)
    used: dict[str, set[str]] = {name: set() for name in table}
    for module in inside:
        own = part(module.name, depth)
        used[own] |= {part(i, depth) for i in imports(module) if i.startswith(f"{within}.")} - {own}
    allowed = {name: set(line.split()) for name, line in table.items()}
    assert {n: sorted(u - allowed[n]) for n, u in used.items() if u - allowed[n]} == {}
    assert {n: sorted(a - used[n]) for n, a in allowed.items() if a - used[n]} == {}, "allowed, and unused"
    tuple(TopologicalSorter(allowed).static_order())  # raises CycleError


def test_no_two_modules_import_each_other() -> None:
    tuple(TopologicalSorter({m.name: imports(m) - {m.name} for m in modules()}).static_order())


@pytest.mark.parametrize("package", NO_EFFECTS)
def test_what_is_pure_imports_nothing_that_acts(package: str) -> None:
    found = []
    for module in modules():
        for node in ast.walk(module.tree) if module.in_package(package) else ():
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            found += [(module.path, n) for n in names if n.split(".")[0] in EFFECTS]
    assert not found


def lookups(module: Module) -> list[int]:
    """Lines where a variable of something called `environ` is looked up."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Subscript):
            of: ast.expr | None = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = node.func.value if node.func.attr in ("get", "pop", "setdefault") else None
            of = node.func if node.func.attr == "getenv" else of
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            of = node.comparators[0]
        else:
            continue
        if of is not None and ast.unparse(of).split(".")[-1].strip("_") in ("environ", "getenv"):
            found.append(node.lineno)
    return found


def test_few_read_the_environment() -> None:
    read = {m.name.removeprefix("entrypoint."): lookups(m) for m in modules()}
    found = {name: lines for name, lines in read.items() if lines}
    assert {n: f for n, f in found.items() if not any(f"{n}.".startswith(f"{r}.") for r in READS)} == {}
    assert [r for r in READS if not any(f"{n}.".startswith(f"{r}.") for n in found)] == []


def test_the_environment_is_an_argument() -> None:
    named = [m for m in modules() if "os.environ" in m.text or "os.getenv" in m.text]
    assert [m.path for m in named if not any(m.in_package(part) for part in HANDS_ON)] == []


def test_nothing_after_the_plan_sees_settings() -> None:
    after = [m for m in modules() if m.in_package("prepare") or m.in_package("supervise")]
    assert [m.path for m in after if any(i.startswith("entrypoint.settings") for i in imports(m))] == []


def test_packages_hold_no_code() -> None:
    for module in modules():
        if module.path.endswith("__init__.py") and module.name != "entrypoint":
            assert len(module.tree.body) == 1 and ast.get_docstring(module.tree), module.path


def test_modules_stay_small() -> None:
    """What grows beyond that has two subjects."""
    files = [*(ROOT / "entrypoint").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    lines = {str(f.relative_to(ROOT)): f.read_text().count("\n") for f in files}
    assert {n: count for n, count in lines.items() if count > LONGER.get(n, LONGEST)} == {}
    assert {n: most for n, most in LONGER.items() if lines.get(n, 0) <= LONGEST} == {}, (
        "no exceptions any more"
    )


def test_json_of_others_is_read_in_one_place() -> None:
    """What is nested too deeply is no ValueError of json's: a log's line would end the runner."""
    own = {
        "entrypoint/base/foreign.py",
        "entrypoint/prepare/parser/asked.py",  # runs in the engine's interpreter
        "entrypoint/commands/bench/plots.py",  # runs in AIPerf's, on a report of ours
        "entrypoint/node/model/weights.py",  # says that it is nested too deeply, in its caller
        "entrypoint/node/model/directory.py",  # the same
    }
    found = {str(path.relative_to(ROOT)) for path in (ROOT / "entrypoint").rglob("*.py")
             if re.search(r"\bjson\.loads?\(|\.json\(\)", path.read_text())}  # fmt: skip
    assert found == own
