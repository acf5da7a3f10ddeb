"""What the nodes of a job say together: who differs, who is slow, which to leave out. Pure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from entrypoint.base.printable import clean
from entrypoint.commands.check.findings import Finding, problem, warning
from entrypoint.errors import ExitCode
from entrypoint.node.topology import Node, Topology
from entrypoint.plan.table import table

CLOCK_LIMIT = 1.0
"""Seconds that a node's clock may differ before its log cannot be put beside the others'."""
SLOW = 0.5
"""Share of the median node's reading rate below which a node is the one that all others wait for."""
NOT_A_NODE = ("settings", "plan", "engine")
"""What is the same wherever it is looked at."""


@dataclass(frozen=True)
class Report:
    """What one node sent."""

    node: str
    findings: tuple[Finding, ...]
    gpus: int | None = None
    """Those that the driver reaches."""
    gpu_names: tuple[str, ...] = ()
    driver: str | None = None
    cliques: tuple[tuple[str, int], ...] = ()
    """(cluster, clique) of its GPUs' NVLink fabric, each once."""
    adapters: int | None = None
    """Those that are up."""
    rate: float | None = None
    """Bytes of weights that it reads in a second."""
    clock: float | None = None
    """Seconds that its clock is ahead of the head's; None: not asked."""
    clock_error: float = 0.0
    """Seconds that this may be off at most."""

    @property
    def problems(self) -> int:
        """How many of its findings are problems."""
        return sum(finding.state == "problem" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """How many of its findings are warnings."""
        return sum(finding.state == "warning" for finding in self.findings)


@dataclass(frozen=True)
class Together:
    """The whole job: reports with what only the comparison shows, the worst first."""

    reports: tuple[Report, ...]
    exclude: tuple[str, ...]
    """Nodes with a problem that most others do not have."""
    domains: str | None
    """NVLink domains by NVML, as GLM47_NVLINK_DOMAINS takes them; None: no fabric, or not all know theirs."""
    exit_code: int
    holds: Mapping[str, str] = field(default_factory=dict)


def together(reports: Sequence[Report], topology: Topology, waited: float) -> Together:
    """Compare what the nodes of `topology` sent within `waited` seconds."""
    by_name = {report.node: report for report in reports}
    names = topology.names
    for name in names:
        by_name.setdefault(name, Report(name, (_silent(name, waited),)))
    for name, finding in _compared([by_name[name] for name in names], topology):
        by_name[name] = replace(by_name[name], findings=(*by_name[name].findings, finding))
    ordered = [by_name[name] for name in names]
    exclude = _excluded(ordered)
    ordered.sort(key=lambda r: (r.node not in exclude, -r.problems, -r.warnings))
    codes = [f.exit_code for report in ordered for f in report.findings if f.exit_code]
    return Together(
        tuple(ordered), exclude, domains(by_name, topology.nodes), codes[0] if codes else 0,
        {name: _holds(topology.places(name)) for name in names},
    )  # fmt: skip


def _holds(places: Sequence[Node]) -> str:
    """`decode worker 0 rank 1`, `prefill workers 2, 3`."""
    if len(places) == 1:
        return places[0].label
    return f"{places[0].role} workers {', '.join(str(place.worker) for place in places)}"


def _silent(name: str, waited: float) -> Finding:
    text = f"cannot ask node {name}: it sent nothing in {waited:.0f} s: see its output, or leave it out"
    return problem("node", text, ExitCode.UNAVAILABLE)


def _compared(reports: Sequence[Report], topology: Topology) -> Iterator[tuple[str, Finding]]:
    yield from _slow(reports)
    yield from _clocks(reports)
    yield from _fewer(reports)
    for what, value in (("driver", "driver"), ("GPUs", "gpu_names")):
        yield from _odd(reports, what, value)
    yield from _straddling({report.node: report for report in reports}, topology)


def _slow(reports: Sequence[Report]) -> Iterator[tuple[str, Finding]]:
    rates = [report.rate for report in reports if report.rate]
    if len(rates) < 2:
        return
    median = statistics.median(rates)
    for report in reports:
        if report.rate and report.rate < SLOW * median:
            text = f"{report.rate / 1e9:.2f} GB/s, the median node {median / 1e9:.2f}: the others wait for it"
            yield report.node, warning("reading", text)


def _clocks(reports: Sequence[Report]) -> Iterator[tuple[str, Finding]]:
    """Against the median, so that a head that is wrong is the one named."""
    known = [report.clock for report in reports if report.clock is not None]
    if not known:
        return
    median = statistics.median_low(sorted(known, key=abs)) if len(known) < 3 else statistics.median(known)
    for report in reports:
        if report.clock is None:
            continue
        ahead = report.clock - median
        if abs(ahead) - report.clock_error > CLOCK_LIMIT:
            text = f"its clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the others'"
            yield report.node, warning("clock", f"{text}: logs will not fit together: see its NTP")


def _fewer(reports: Sequence[Report]) -> Iterator[tuple[str, Finding]]:
    """Fewer adapters than most: a worker's ranks go at the slowest one's pace."""
    known = [report.adapters for report in reports if report.adapters is not None]
    usual = _usual(known)
    for report in reports:
        if usual is not None and report.adapters is not None and report.adapters < usual:
            text = (
                f"cannot use all adapters: {report.adapters} up, most nodes have {usual}: leave the node out"
            )
            yield report.node, problem("HCA", text)


def _usual(values: Sequence[Any]) -> Any:
    """What more than half of the nodes have; None: there is no such thing."""
    value, count = Counter(values).most_common(1)[0] if values else (None, 0)
    return value if 2 * count > len(values) else None


def _odd(reports: Sequence[Report], what: str, name: str) -> Iterator[tuple[str, Finding]]:
    known = [getattr(report, name) for report in reports if getattr(report, name)]
    usual = _usual(known)
    for report in reports:
        own = getattr(report, name)
        if usual is not None and own and own != usual:
            yield report.node, warning(what, f"{_words(own)}, most nodes have {_words(usual)}")


def _words(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def _straddling(by_name: Mapping[str, Report], topology: Topology) -> Iterator[tuple[str, Finding]]:
    """Nodes of a worker that are of another clique than most of it; names of nodes prove nothing."""
    for leader in topology.nodes:
        if leader.rank or leader.nnodes == 1:
            continue
        ranks = topology.worker_of(leader)
        cliques = {node.name: by_name[node.name].cliques for node in ranks}
        if not all(cliques.values()) or len(set(cliques.values())) == 1:
            continue
        usual = Counter(cliques[node.name] for node in ranks).most_common(1)[0][0]
        for node in ranks:
            if cliques[node.name] != usual:
                text = f"cannot share NVLink with {leader.role} worker {leader.worker}: {node.name}"
                remedy = "set GLM47_NVLINK_DOMAINS as below, or GLM47_MNNVL=off"
                yield node.name, problem("NVLink", f"{text}: it is in another clique: {remedy}")


def domains(by_name: Mapping[str, Report], nodes: Sequence[Node]) -> str | None:
    """Nodes of each NVLink domain by NVML, in the order of the job's list."""
    groups: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for name in dict.fromkeys(node.name for node in nodes):
        cliques = by_name[name].cliques
        if len(cliques) != 1:
            return None
        groups.setdefault(cliques, []).append(name)
    return " ".join(",".join(names) for names in groups.values())


def _excluded(reports: Sequence[Report]) -> tuple[str, ...]:
    """A problem that more than half of the nodes have is the job's, and no other node would be better."""
    have = Counter(what for report in reports for what in _own_problems(report))
    few = {what for what, count in have.items() if 2 * count <= len(reports) or len(reports) == 1}
    return tuple(report.node for report in reports if _own_problems(report) & few)


def _own_problems(report: Report) -> set[str]:
    return {f.what for f in report.findings if f.state == "problem" and f.what not in NOT_A_NODE}


def render(found: Together) -> str:
    """The table, the worst node first; what is wrong, said once where all nodes have it; the remedy."""
    rows: list[tuple[str, ...]] = [("NODE", "HOLDS", "GPUS", "HCAS", "GB/S", "CLOCK", "STATE")]
    for r in found.reports:
        rows.append((
            r.node, found.holds.get(r.node, ""), _number(r.gpus), _number(r.adapters),
            "-" if r.rate is None else f"{r.rate / 1e9:.2f}",
            "-" if r.clock is None else f"{r.clock:+.3f} s", _state(r),
        ))  # fmt: skip
    lines = [*table(rows), *_notes(found.reports)]
    if found.domains is not None:
        lines.append(f"NVLink domains by NVML: GLM47_NVLINK_DOMAINS='{found.domains}'")
    bad = sum(report.problems > 0 for report in found.reports)
    if found.exclude:
        lines.append(f"leave out: --exclude={','.join(found.exclude)}")
    lines.append(
        f"{bad} of {len(found.reports)} nodes have problems" if bad else "`run` can start on every node"
    )
    return "\n".join(map(clean, lines))


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _state(report: Report) -> str:
    if report.problems:
        return f"{report.problems} problem{'s' * (report.problems != 1)}"
    return f"{report.warnings} warning{'s' * (report.warnings != 1)}" if report.warnings else "ok"


def _notes(reports: Sequence[Report]) -> Iterator[str]:
    nodes: dict[tuple[str, str, str], list[str]] = {}
    for report in reports:
        for f in report.findings:
            if f.state != "ok":
                nodes.setdefault((f.state, f.what, f.text), []).append(report.node)
    for (state, what, text), names in sorted(nodes.items(), key=lambda item: item[0][0] != "problem"):
        who = f"all {len(names)} nodes" if len(names) == len(reports) > 1 else ", ".join(names)
        yield f"{who}: {state}: {what}: {text}"
