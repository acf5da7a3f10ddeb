"""The command line of `smoke`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from entrypoint.commands.smoke.questions import PROMPT, smoke
from entrypoint.errors import CheckFailedError

if TYPE_CHECKING:
    from entrypoint.commands.smoke.pd import Worker


@click.command("smoke")
@click.argument("url")
@click.option("--model", help="Model to ask for; the first one listed when left out.")
@click.option("--expect-text", metavar="WORD", help="A word that an answer must contain, whatever its case.")
@click.option("--pd", is_flag=True, help="Prove that prefill workers did the prefill and decode the decode.")
@click.option(
    "--worker",
    "workers",
    multiple=True,
    metavar="HOST[:PORT]",
    help="With --pd, a runner of prefill or decode workers, by its health port, or prefill=URL, decode=URL "
    "of a worker's system port; may be repeated. The runner of this machine when left out.",
)
@click.option("--prompt", default=PROMPT, show_default=True, help="What to ask.")
@click.option("--timeout", type=float, default=120.0, show_default=True, help="Seconds per request.")
@click.option("--format", "style", type=click.Choice(["text", "json"]), default="text", show_default=True)
def smoke_command(
    url: str,
    model: str | None,
    expect_text: str | None,
    pd: bool,
    workers: tuple[str, ...],
    prompt: str,
    timeout: float,
    style: str,
) -> None:
    """Ask a running deployment for its models, a completion and a chat completion, whole and streamed.

    Each may take the seconds of --timeout. URL is the frontend's address, such as http://127.0.0.1:8000.
    GLM47_API_KEY is sent as bearer token.
    """
    report = smoke(
        url,
        model=model,
        expect_text=expect_text,
        api_key=_api_key(),
        timeout=timeout,
        prompt=prompt,
        workers=_workers(workers) if pd or workers else None,
    )
    click.echo(json.dumps(report.to_jsonable(), indent=2) if style == "json" else report.table())
    failed = [check for check in report.checks if not check.ok]
    if failed:
        count = f"{len(failed)} of {len(report.checks)} checks failed"
        raise CheckFailedError(
            f"cannot pass {report.url}: {count}: first: {failed[0].name}: {failed[0].detail}"
        )


def _workers(given: Sequence[str]) -> list[Worker]:
    from entrypoint.commands import status
    from entrypoint.commands.smoke import pd as smoke_pd

    here = os.environ, Path.cwd()
    return smoke_pd.find(
        given,
        lambda: status.local_url(*here),
        lambda host: status.remote_url(host, *here),
        lambda: status.token(*here),
    )


def _api_key() -> str | None:
    from entrypoint.settings.load import load

    key = load(os.environ, Path.cwd()).settings.api_key
    return key.get_secret_value() if key else None
