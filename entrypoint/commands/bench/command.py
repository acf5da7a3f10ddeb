"""`bench quick|full URL`, `bench compare A B`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from entrypoint.errors import CheckFailedError, ExitCode

F = TypeVar("F", bound=Callable[..., Any])


OPTIONS = (
    click.argument("url", required=False),
    click.option(
        "--output",
        type=click.Path(path_type=Path),
        help="Directory to make for this run; a new one under GLM47_BENCH_DIR when left out.",
    ),
    click.option(
        "--profile",
        type=click.Path(path_type=Path),
        help="A suite of your own, as JSON (docs/benchmarking.md).",
    ),
    click.option(
        "--set",
        "changes",
        multiple=True,
        metavar="[TEST.]FIELD=VALUE",
        help="Change a number of the suite. Repeatable.",
    ),
    click.option("--only", multiple=True, metavar="TEST", help="Run only this test. Repeatable."),
    click.option(
        "--repeat",
        type=click.IntRange(1, 100),
        default=1,
        show_default=True,
        help="Times that the suite is run, so that `compare` knows the noise.",
    ),
    click.option("--model", help="Model to ask for instead of GLM47_SERVED_MODEL_NAME."),
    click.option(
        "--tokenizer", metavar="DIR", help="Directory with the model's tokenizer; found when left out."
    ),
    click.option(
        "--wait",
        type=click.FloatRange(0),
        default=0.0,
        metavar="SECONDS",
        help="Wait that long for the model to be served.",
    ),
    click.option(
        "--plan",
        "plans",
        multiple=True,
        type=click.Path(path_type=Path),
        help="A file with a plan as JSON, where a health port cannot be asked. Repeatable.",
    ),
    click.option(
        "--health",
        multiple=True,
        metavar="HOST[:PORT]",
        help="A runner whose plan goes into the report; URL's host when left out. Repeatable.",
    ),
)


def _measuring(function: F) -> F:
    for option in reversed(OPTIONS):
        function = option(function)
    return function


@click.group("bench")
def bench_group() -> None:
    """Measure a running deployment with AIPerf, and compare measurements."""


@bench_group.command("quick")
@_measuring
def quick_command(**options: Any) -> None:
    """20 requests: is it alive, and about how fast.

    URL is the API's address; that of this container's deployment when left out. GLM47_API_KEY is sent as
    bearer token.
    """
    _measure("quick", **options)


@bench_group.command("full")
@_measuring
def full_command(**options: Any) -> None:
    """Concurrency 4, 8 and 16, a request rate, long context, and a mix of lengths.

    URL is the API's address; that of this container's deployment when left out. GLM47_API_KEY is sent as
    bearer token.
    """
    _measure("full", **options)


@bench_group.command("compare")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--format", "style", type=click.Choice(["text", "json"]), default="text", show_default=True)
def compare_command(a: Path, b: Path, style: str) -> None:
    """Put two reports side by side, and say which differences are larger than the noise between runs."""
    import json

    from entrypoint.commands.bench import comparison

    found = comparison.compare(comparison.load(a), comparison.load(b), (str(a), str(b)))
    click.echo(json.dumps(found.to_jsonable(), indent=2) if style == "json" else comparison.text(found))


def _measure(
    name: str,
    *,
    url: str | None,
    output: Path | None,
    profile: Path | None,
    changes: tuple[str, ...],
    only: tuple[str, ...],
    repeat: int,
    model: str | None,
    tokenizer: str | None,
    wait: float,
    health: tuple[str, ...],
    plans: tuple[Path, ...],
) -> None:
    from entrypoint.commands.bench.display import Display
    from entrypoint.commands.bench.files import MARKDOWN
    from entrypoint.commands.bench.session import Options, Session, Stopped, now
    from entrypoint.commands.bench.suite import load_suite
    from entrypoint.load import api_url, load_settings

    settings = load_settings(os.environ, Path.cwd()).settings
    suite = load_suite(name, profile, changes, only)
    if url is None:
        url = api_url(os.environ, Path.cwd())
    stamp = now().replace("-", "").replace(":", "").partition("+")[0]
    display = Display(sys.stderr)
    session = Session(
        Options(
            suite=suite,
            url=url,
            model=model or settings.served_model_name,
            tokenizer=tokenizer,
            model_path=settings.model_path,
            directory=output or Path(settings.bench_dir, f"{stamp}Z-{suite.name}"),
            repeat=repeat,
            wait=wait,
            health=health,
            plans=plans,
            health_port=settings.health_port,
            status_token=settings.status_token.get_secret_value() if settings.status_token else None,
            api_key=settings.api_key.get_secret_value() if settings.api_key else None,
            aiperf_python=settings.aiperf_python,
            environ=dict(os.environ),
            command=("glm47-runner", *sys.argv[1:]),
        ),
        display,
    )
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda number, frame: session.stop(number))
    try:
        report = session.run()
    except Stopped:
        click.echo("glm47-runner: asked to stop before anything was measured", err=True)
        sys.exit(128 + (session.stopped_by or 0))
    where = session.options.directory / MARKDOWN
    if session.stopped_by is not None and not report.ok:
        click.echo(f"glm47-runner: {report.reason}: see {where}", err=True)
        sys.exit(128 + session.stopped_by)
    if not report.ok:
        raise CheckFailedError(f"cannot finish {url}: {report.reason}: see {where}")
    click.echo(str(where))
    sys.exit(ExitCode.OK)
