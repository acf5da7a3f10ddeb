"""A plan's command lines before the installed releases' parsers, and what `run` and `check` make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from entrypoint.errors import ConfigError
from entrypoint.node import engine
from entrypoint.plan.arguments import canonical
from entrypoint.plan.types import Plan, Process
from entrypoint.prepare.parser.ask import START_WAIT, Answer, Questions
from entrypoint.prepare.parser.complaints import line
from entrypoint.prepare.parser.options import spans


@dataclass(frozen=True)
class Verdict:
    """What the parsers say of a plan."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def must_accept(plan: Plan, questions: Questions) -> Plan:
    """Wait for answers; `plan` with a note where there was none. ConfigError (78) with every complaint."""
    found = verdict(plan, questions.answers(START_WAIT))
    if found.problems:
        raise ConfigError(found.problems)
    return replace(plan, notes=(*plan.notes, *found.notes)) if found.notes else plan


def verdict(plan: Plan, answers: list[Answer]) -> Verdict:
    """What is to be said of `answers`."""
    problems, warnings, notes = [], [], []
    for answer in answers:
        process = plan.process(answer.process)
        if answer.silent is not None:
            notes.append(f"{process.argv[2]} was not asked about its command line: {answer.silent}")
        for complaint in answer.complaints:
            where = spans(process.argv[2], complaint.flag) if complaint.kind == "unknown" else ()
            problems.append(line(complaint, process, _installed(process), where))
        for short, full in (answer.abbreviations or {}).items():
            if canonical(short) == canonical(full):
                continue  # one that the runner reads as well
            warnings.append(f"{process.settings.get(short, process.name)}: {short} is taken for {full}")
    return Verdict(tuple(dict.fromkeys(problems)), tuple(warnings), tuple(dict.fromkeys(notes)))


def _installed(process: Process) -> Mapping[str, str | None]:
    return engine.read_site(engine.site_packages(process.argv[0]))
