"""``python bench/options.py`` reads which release has which option, with every release's own parser.

It rewrites entrypoint/prepare/parser/options.txt: the line about an unknown option says which release has it.
Wheels come from the registry (`bench.releases`); only their Python files are unpacked. Of ai-dynamo-runtime
nothing is: the names of its parsers are not known then, and any is taken.
"""

from __future__ import annotations

import os
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import releases
from entrypoint.node.versions import newer
from entrypoint.plan.releases import NEWEST
from entrypoint.prepare.parser.ask import Answer, Question
from entrypoint.prepare.parser.options import TABLE

DYNAMO = (
    "0.8.1", "0.9.0", "0.9.1", "1.0.0", "1.0.2", "1.1.0", "1.1.1", "1.2.1", "1.3.1", "1.4.2", "1.5.1", "1.6.1"
)  # fmt: skip
"""Releases that are looked at."""
PAIRED: Mapping[str, str] = {
    "0.8": "0.5.6.post2", "0.9": "0.5.9", "1.0": "0.5.9", "1.1": "0.5.10", "1.2": "0.5.11", "1.3": "0.5.14",
    "1.4": "0.5.16", "1.5": "0.5.18", "1.6": "0.5.23",
}  # fmt: skip
"""By minor release of Dynamo, a sglang that its `dynamo.sglang` is read with."""
FILES = {
    "sglang": re.compile(
        r"sglang/(srt/)?[^/]*\.py|sglang/srt/(arg_groups|utils|parser|function_call)/.*\.py"
        r"|sglang/srt/model_executor/[^/]*\.py|sglang/(jit_kernel|kernels/ops)/kv_canary/[^/]*\.py"
    ),
    "ai-dynamo": re.compile(r"dynamo/(sglang|frontend|mocker|common)/.*\.py"),
}
PACKAGES = ("msgspec", "PyYAML", "packaging", "typing_extensions")
"""What parsers need as it is."""
NEEDED = ("--model-path", "/model")
TIMEOUT = 120.0
"""Seconds for one answer: this machine may be busy, and nothing is compiled yet."""


@cache
def packages() -> Path:
    """A directory with `PACKAGES`."""
    place = releases.CACHE / "parser-packages"
    with releases.alone(place):
        if not place.exists():
            temporary = place.with_name(place.name + ".tmp")
            releases.pip(sys.executable, "install", "--quiet", "--target", str(temporary), *PACKAGES)
            temporary.rename(place)
    return place


def parser(sglang: str, dynamo: str) -> dict[str, str]:
    """The environment in which the parsers of these releases are found."""
    parts = [
        *(
            str(releases.unpack(name, v, FILES[name], "-parser"))
            for name, v in (("sglang", sglang), ("ai-dynamo", dynamo))
        ),
        str(packages()),
    ]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(parts)}


def asked(module: str, words: Sequence[str], sglang: str, dynamo: str, wanted: Sequence[str] = ()) -> Answer:
    """What these releases' parser says to ``python -m MODULE WORDS``; UnavailableError: nothing."""
    environ = parser(sglang, dynamo)
    answer = Question(module, (sys.executable, "-m", module, *words), environ, wanted).answer(TIMEOUT)
    if answer.silent is not None:
        raise releases.UnavailableError(f"{module} of Dynamo {dynamo} with sglang {sglang}: {answer.silent}")
    return answer


def sglang_options(version: str) -> frozenset[str]:
    """All that this sglang takes: the newest `dynamo.sglang` has its parser apart."""
    return frozenset(asked("dynamo.sglang", NEEDED, version, DYNAMO[-1], ["*"]).options[-1])


def dynamo_options(module: str, version: str) -> frozenset[str]:
    """All that this Dynamo's `module` takes of its own."""
    pair = PAIRED[version.rpartition(".")[0]]
    parsers = asked(module, NEEDED if module != "dynamo.frontend" else (), pair, version, ["*"]).options
    if module != "dynamo.sglang":
        return frozenset(parsers[0])
    own = {option for names in parsers[:-1] or parsers for option in names}
    return frozenset(own - sglang_options(pair) if len(parsers) == 1 else own)


def spans(by_version: Mapping[str, frozenset[str]]) -> dict[tuple[str, str], list[str]]:
    """By first and last release of an unbroken row, the options that only they have."""
    versions = list(by_version)
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for option in sorted(frozenset().union(*by_version.values())):
        rows = groupby(versions, key=lambda version: option in by_version[version])
        for row in (list(row) for has, row in rows if has):
            if len(row) < len(versions):
                found[row[0], "-" if row[-1] == versions[-1] else row[-1]].append(option)
    order = {version: index for index, version in enumerate([*versions, "-"])}
    return dict(sorted(found.items(), key=lambda item: [order[end] for end in item[0]]))


def lines() -> list[str]:
    """The table."""
    made = []
    versions = [v for v in releases.versions() if not newer(v, NEWEST["sglang"])]
    tables = [("dynamo.sglang", "sglang", {v: sglang_options(v) for v in versions})]
    for module in ("dynamo.sglang", "dynamo.frontend", "dynamo.mocker"):
        tables.append((module, "dynamo", {v: dynamo_options(module, v) for v in DYNAMO}))
    for module, package, table in tables:
        for (first, last), options in spans(table).items():
            made.append(" ".join((module, package, first, last, *options)))
    return made


if __name__ == "__main__":
    TABLE.write_text("\n".join(lines()) + "\n")
    print(TABLE)
