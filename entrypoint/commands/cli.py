"""The command line. Each command is thin: it reads options, calls one function, sets the exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import click

from entrypoint import __version__
from entrypoint.base.printable import clean
from entrypoint.errors import ExitCode, RunnerError

COMMANDS = (
    "run", "plan", "check", "probe", "status", "diagnose", "patch", "model", "flashinfer", "smoke", "bench",
    "topology", "profiles", "demo",
)  # fmt: skip
"""Every first word that is ours; the entrypoint execs any other one unchanged."""

LONGEST = 200
"""Characters of a path that are shown."""
F = TypeVar("F", bound=Callable[..., Any])
FORMAT = click.option(
    "--format", "style", type=click.Choice(["text", "json"]), default="text", help="For people or programs."
)


class Group(click.Group):
    """Turns expected errors into their line and exit code, and loads rarely used commands late."""

    late: ClassVar[dict[str, str]] = {
        "bench": "entrypoint.commands.bench.command:bench_group",
        "diagnose": "entrypoint.commands.diagnose.command:diagnose_command",
        "flashinfer": "entrypoint.commands.flashinfer:flashinfer_group",
        "profiles": "entrypoint.commands.profiles:profiles_command",
        "patch": "entrypoint.commands.patch:patch_group",
        "smoke": "entrypoint.commands.smoke.command:smoke_command",
        "topology": "entrypoint.commands.topology.command:topology_command",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.late:
            from importlib import import_module

            module, _, name = self.late[cmd_name].partition(":")
            command = getattr(import_module(module), name)
            assert isinstance(command, click.Command)
            return command
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RunnerError as error:
            for line in str(error).splitlines():
                click.echo(f"glm47-runner: {line}", err=True)
            ctx.exit(error.exit_code)
        except OSError as error:
            # Of a path that was given, or of what lies below it.
            if error.filename is None:
                raise
            name = clean(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else "a file"
            shown = name if len(name) < LONGEST else f"{name[:LONGEST]}…"
            hint = f"is it the path that was meant, and may uid {os.getuid()} use it?"
            click.echo(f"glm47-runner: cannot use {shown}: {error.strerror}: {hint}", err=True)
            ctx.exit(ExitCode.CONFIG)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "terminal_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Serve GLM-4.7-NVFP4 with NVIDIA Dynamo and SGLang.

    Settings come from the environment: ROLE and GLM47_*; docs/settings.md lists them. Any other first
    word is run as a command of its own.
    """


@cli.command("run")
def run_command() -> None:
    """Start this container's processes and supervise them until they end."""
    from entrypoint.run.start import run

    run(os.environ)


@cli.command("plan")
@FORMAT
@click.option(
    "--explain",
    type=click.Choice(["tp", "layout"]),
    help="tp: what each tensor parallelism costs; layout: which prefill and decode workers fit together.",
)
@click.option(
    "--nodes", type=click.IntRange(1, 64), help="With --explain: nodes to divide (tp: 4, layout: 6)."
)
def plan_command(style: str, explain: str | None, nodes: int | None) -> None:
    """Print what `run` would do, without doing any of it."""
    if explain == "tp":
        from entrypoint.commands.explain import tp

        click.echo(tp.explain(os.environ, Path.cwd(), nodes or 4), nl=False)
        return
    if explain == "layout":
        from entrypoint.commands.explain import layout

        click.echo(layout.explain(os.environ, Path.cwd(), nodes or 6), nl=False)
        return
    from entrypoint.load import load_plan
    from entrypoint.plan.text import text
    from entrypoint.plan.types import to_jsonable

    plan = load_plan(os.environ, Path.cwd()).plan
    click.echo(json.dumps(to_jsonable(plan), indent=2) if style == "json" else text(plan))


@cli.command("check")
@FORMAT
@click.option("--all", "everywhere", is_flag=True, help="Under srun, one task a node: the job in one table.")
@click.option(
    "--wait", type=click.FloatRange(1), default=60, help="With --all: seconds for the others to report."
)
def check_command(style: str, everywhere: bool, wait: float) -> None:
    """Look for whatever would keep `run` from working here, and say what to do about it, in seconds."""
    if everywhere:
        from entrypoint.commands.check.job import check_all

        sys.exit(check_all(os.environ, Path.cwd(), style, wait))
    from entrypoint.commands.check.command import check
    from entrypoint.commands.check.findings import render

    findings = check(os.environ, Path.cwd())
    click.echo(json.dumps([f.__dict__ for f in findings], indent=2) if style == "json" else render(findings))
    sys.exit(next((f.exit_code for f in findings if f.exit_code), 0))


@cli.command("probe")
@click.argument("kind", type=click.Choice(["startup", "live", "ready"]))
def probe_command(kind: str) -> None:
    """Ask this container's health endpoint; exit code 0 or 1, and one line that says why."""
    from entrypoint.commands.status import local_url, probe

    ok, line = probe(local_url(os.environ, Path.cwd()), kind)
    click.echo(line)
    sys.exit(0 if ok else 1)


@cli.command("status")
@FORMAT
@click.option(
    "--watch", is_flag=True, help="Keep it up to date, until Ctrl-C; a Slurm job's first node shows all."
)
@click.argument("hosts", nargs=-1, metavar="[HOST[:PORT]]...")
def status_command(style: str, watch: bool, hosts: tuple[str, ...]) -> None:
    """Show what every process is doing: of this container, or of the named hosts' runners."""
    from entrypoint.commands.status import local_url, remote_url, show, token

    urls = [remote_url(h, os.environ, Path.cwd()) for h in hosts] or [local_url(os.environ, Path.cwd())]
    secret = token(os.environ, Path.cwd())
    if watch and style == "text" and sys.stdout.isatty():
        from entrypoint.commands.watch.command import watch as watch_screen

        sys.exit(watch_screen(urls, secret))
    sys.exit(show(urls, style, watch, secret))


@cli.group("model")
def model_group() -> None:
    """Check the model directory, or make the corrected view of it."""


@model_group.command("check")
@click.option("--path", help="Model directory instead of GLM47_MODEL_PATH.")
def model_check(path: str | None) -> None:
    """Say everything that is wrong with the model directory; exit code 66 if anything is."""
    from entrypoint.errors import ModelError
    from entrypoint.node.model import directory
    from entrypoint.settings.load import load

    source = path or load(os.environ, Path.cwd()).settings.model_path
    if problems := directory.check(source):
        raise ModelError("\n".join(problems))
    facts = directory.read_facts(source)
    fix = "bos_token_id is missing: `run` corrects it" if facts.needs_bos_fix else "nothing to correct"
    click.echo(f"{source}: usable; {fix}")


@model_group.command("prepare")
def model_prepare() -> None:
    """Make the corrected view under GLM47_RUN_DIR, as `run` does, and print its path."""
    from entrypoint.load import load_plan
    from entrypoint.prepare.steps import prepare

    plan = load_plan(os.environ, Path.cwd()).plan
    prepare(plan)
    click.echo(plan.model_path)


@cli.command("demo")
def demo_command() -> None:
    """Serve a made-up small model on this machine with the mocker engine: no GPU needed."""
    from entrypoint.commands.demo.command import demo

    demo(os.environ)
