"""A plan for reading: fits 100 columns where paths let it. `types.to_jsonable` is the same for programs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from entrypoint.base.printable import clean
from entrypoint.plan.profiles import SETTING
from entrypoint.plan.table import table
from entrypoint.plan.types import (
    AliveProbe,
    Criticality,
    Drain,
    FrontendProbe,
    HttpProbe,
    NatsProbe,
    Plan,
    PrefillProbe,
    Probe,
    Process,
    StoreProbe,
)
from entrypoint.settings.origin import REDACTED
from entrypoint.settings.secrets import redacted

WIDTH = 100
LISTS = {"etcd": "etcd's list", "file": "the file store"}
FATE = {
    Criticality.CRITICAL: "the container ends with its exit code",
    Criticality.RESTART: "it is restarted in place",
}


def text(plan: Plan) -> str:
    """`plan` as lines for a person, without a newline at the end."""
    return "\n".join(map(clean, _lines(plan)))


def _lines(plan: Plan) -> Iterator[str]:
    rank = f", rank {plan.rank} of {plan.nnodes}" if plan.nnodes > 1 else ""
    source, view = plan.model_source, plan.model_path
    head = [("roles", ", ".join(plan.roles) + rank)]
    if plan.job is not None:
        number = f"{plan.job.number}: " if plan.job.number is not None else ""
        api = f"; API {plan.job.api_url}" if plan.job.api_url is not None else ""
        head.append(("job", f"{number}{plan.job.what} on {plan.job.node}{api}"))
    if plan.needs_model:
        head.append(("model", f"{plan.served_model_name} from {source}"))
        if view != source:
            head.append(("", f"engine and frontend get {view}, links to it"))
    for index, own in enumerate(plan.layouts):
        text = f"{own.role}: attention-TP {own.attention_tp}, {own.kv_heads} KV heads, {own.kv_cache_dtype}"
        head.append(("" if index else "KV cache", f"{text}, over {own.transfer_backend}"))
    head += [
        ("run dir", plan.run_dir),
        ("logs", f"standard output ({plan.log_format})" + (f" and {plan.log_dir}" if plan.log_dir else "")),
        ("stop", f"within {plan.stop_timeout:g} s; servers restart up to {plan.max_restarts} times"),
    ]
    yield from table(head)
    problems = [*plan.unmet, *([plan.model_error] if plan.model_error else [])]
    for title, items in (("cannot run here", problems), ("warnings", plan.warnings), ("notes", plan.notes)):
        if items:
            yield ""
            yield title
            for item in items:
                yield from wrapped(item, first="  - ", rest="    ")
    if plan.gates:
        yield ""
        yield "waits for servers elsewhere"
        yield from table(
            [(g.name, probe(g.probe), f"up to {g.timeout:g} s", g.setting) for g in plan.gates], indent=2
        )
    if plan.job is not None and plan.job.peers:
        yield ""
        yield "shares its fate with the runners on"
        yield from table([(p.name, p.what, p.url) for p in plan.job.peers if p.watched], indent=2)
    for process in plan.processes:
        yield ""
        yield from _process(process)
    if plan.file_edits:
        yield ""
        yield "files corrected first"
        for edit in plan.file_edits:
            mode = f" ({edit.mode})" if edit.mode else ""
            yield from wrapped(f"{edit.kind}{mode}: {edit.reason}", first="  - ", rest="    ")
            yield f"    {edit.path}"
    yield ""
    yield "ports"
    yield from table([(str(p.number), p.name, p.host, p.process, p.setting) for p in plan.ports], indent=2)
    given = [(n, o.origin, str(o.value)) for n, o in sorted(plan.settings.items()) if o.origin != "default"]
    yield ""
    yield f"settings given; {len(plan.settings) - len(given)} others have their defaults"
    yield from table(given or [("none",)], indent=2)


def _process(process: Process) -> Iterator[str]:
    needs = f"after {', '.join(process.needs)}" if process.needs else "at once"
    stop = f"{process.stop_signal}, then KILL after {process.grace:g} s"
    if process.least is not None and process.least < process.grace:
        stop += f", of which {process.least:g} s are kept for it"
    if process.loading_grace is not None:
        stop += f"; {process.loading_grace:g} s while it loads"
    if process.stops_before:
        stop += f"; before {', '.join(process.stops_before)}"
    limits = []
    if process.start_timeout is not None:
        limits.append(f"ready within {process.start_timeout:g} s")
    if process.stall_timeout is not None:
        limits.append(f"never silent for {process.stall_timeout:g} s")
    if process.unlisted_timeout is not None:
        limits.append(f"restarted if unlisted for {process.unlisted_timeout:g} s")
    yield process.name
    rows = [
        ("starts", needs),
        ("ready", probe(process.ready)),
        *([("limits", "; ".join(limits))] if limits else []),
        *([("drains", drains)] if (drains := _drains(process)) else []),
        ("stops", stop),
        ("if lost", FATE[process.criticality]),
    ]
    if profile := [option for option, setting in process.settings.items() if setting == SETTING]:
        rows.append(("by profile", ", ".join(profile)))
    if process.cwd is not None:
        rows.append(("in", process.cwd))
    yield from table(rows, indent=2)
    yield from command(redacted(process.argv), indent=2)
    if process.env:
        yield "  with"
        hidden = process.secret_env
        yield from table(
            [(k, REDACTED if k in hidden else v) for k, v in sorted(process.env.items())], indent=4
        )
    if process.unset_env:
        yield f"  without {', '.join(process.unset_env)}"


def _drains(process: Process) -> str:
    if process.leader_hold is not None:
        return f"goes on until its leader ends, {process.leader_hold:g} s at most"
    return _drain(process.drain) if process.drain is not None else ""


def _drain(drain: Drain) -> str:
    first = f"leaves {LISTS[drain.withdraw.store]}, then " if drain.withdraw is not None else ""
    least = f"{drain.delay:g} s at least, " if drain.delay else ""
    return f"{first}until no request is in flight, {least}{drain.timeout:g} s at most"


def probe(ready: Probe) -> str:
    """What `ready` waits for, in words."""
    if isinstance(ready, HttpProbe):
        return f"{ready.url} answers 2xx"
    if isinstance(ready, PrefillProbe):
        return f"{ready.url} answers 2xx, {ready.bootstrap} knows every rank"
    if isinstance(ready, NatsProbe):
        return f"NATS with JetStream at {ready.host}:{ready.port}"
    if isinstance(ready, StoreProbe):
        return f"{_wanted(ready)} registered in {ready.directory}"
    if isinstance(ready, FrontendProbe):
        return f"{ready.url} lists {ready.model}, {_wanted(ready)} registered"
    if isinstance(ready, AliveProbe):
        return f"alive for {ready.seconds:g} s"
    return "its log shows the end of loading"


def _wanted(ready: FrontendProbe | StoreProbe) -> str:
    return f"{ready.backend} backend" + (f" and {ready.prefill} prefill" if ready.prefill else "")


def command(argv: Sequence[str], indent: int) -> Iterator[str]:
    """A command line to copy: options stay with their values, broken with backslashes."""
    groups: list[str] = []
    for word in argv:
        quoted = shlex.quote(word)
        if groups and not word.startswith("-") and groups[-1].startswith("-") and " " not in groups[-1]:
            groups[-1] += f" {quoted}"
        else:
            groups.append(quoted)
    prefix, line = " " * indent + "$ ", ""
    for group in groups:
        if line and len(prefix) + len(line) + len(group) + 3 > WIDTH:
            yield f"{prefix}{line} \\"
            prefix, line = " " * (indent + 4), group
        else:
            line = f"{line} {group}" if line else group
    yield prefix + line


def wrapped(sentence: str, first: str, rest: str) -> Iterator[str]:
    """`sentence` broken at blanks to the width."""
    prefix, line = first, ""
    for word in sentence.split():
        if line and len(prefix) + len(line) + 1 + len(word) > WIDTH:
            yield prefix + line
            prefix, line = rest, word
        else:
            line = f"{line} {word}" if line else word
    yield prefix + line
