"""AIPerf's command line, and finding it."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.commands.bench.aiperf import arguments, child_environment, find
from entrypoint.commands.bench.suite import load_suite
from entrypoint.errors import ConfigError


def made(suite: str, test: str, *changes: str) -> list[str]:
    (found,) = load_suite(suite, changes=changes, only=[test]).tests
    return arguments(
        found, url="http://h:8000", model="glm-4.7", tokenizer="/model", directory=Path("/out/a")
    )


def test_the_whole_command_line() -> None:
    assert made("quick", "quick") == [
        "profile",
        "--model", "glm-4.7", "--url", "http://h:8000", "--endpoint-type", "chat", "--streaming",
        "--tokenizer", "/model", "--use-server-token-count",
        "--request-count", "20", "--random-seed", "20471", "--request-timeout-seconds", "600",
        "--warmup-request-count", "2", "--concurrency", "4", "--isl", "128", "--osl", "64",
        "--goodput", "time_to_first_token:2000 inter_token_latency:50", "--extra-inputs", "ignore_eos:true",
        "--no-gpu-telemetry", "--ui", "none", "--artifact-dir", "/out/a",
    ]  # fmt: skip


def value(args: list[str], option: str) -> str:
    return args[args.index(option) + 1]


def test_a_rate_and_a_mix() -> None:
    rate = made("full", "request-rate", "request-rate.arrival=constant")
    assert (value(rate, "--request-rate"), value(rate, "--arrival-pattern")) == ("2", "constant")
    assert "--concurrency" not in rate
    mixed = made("full", "mixed")
    assert value(mixed, "--seq-dist") == "128,128:40;1024,256:40;4096,512:20"
    assert "--isl" not in mixed and "--osl" not in mixed


def test_spread_lengths_and_further_arguments() -> None:
    args = made(
        "quick", "quick", "isl_stddev=12.5", "osl_stddev=3", 'aiperf_args=["--prompt-corpus","coding"]',
        'extra_inputs={"temperature":0.5,"mode":"fast"}', "goodput={}", "warmup_requests=0",
    )  # fmt: skip
    assert (value(args, "--isl-stddev"), value(args, "--osl-stddev")) == ("12.5", "3")
    assert args[-2:] == ["--prompt-corpus", "coding"]
    assert [args[i + 1] for i, a in enumerate(args) if a == "--extra-inputs"] == [
        "temperature:0.5",
        "mode:fast",
    ]
    assert "--goodput" not in args and "--warmup-request-count" not in args


def environment(directory: Path, version: str | None) -> str:
    """A directory that looks like a virtual environment, with or without aiperf."""
    python = directory / "bin" / "python"
    site = directory / "lib" / "python3.11" / "site-packages"
    for path in (python.parent, site):
        path.mkdir(parents=True)
    (directory / "pyvenv.cfg").write_text("include-system-site-packages = false\n")
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    if version:
        (site / f"aiperf-{version}.dist-info").mkdir()
    return str(python)


def test_it_is_found_where_the_setting_says(tmp_path: Path) -> None:
    python = environment(tmp_path / "a", "0.13.0")
    found = find(python, {}, str(tmp_path / "none"))
    assert (found.python, found.version) == (python, "0.13.0")


def test_it_is_found_beside_the_runner(tmp_path: Path) -> None:
    python = environment(tmp_path / "bench", "0.11.0")
    assert find(None, {}, str(tmp_path)).python == python


def test_it_is_not_there(tmp_path: Path) -> None:
    remedy = "run `make setup-bench`, or set GLM47_AIPERF_PYTHON to an interpreter that has aiperf"
    python = environment(tmp_path / "bare", None)
    for given, line in (
        ("/no/python", f"cannot run GLM47_AIPERF_PYTHON: /no/python: no such executable: {remedy}"),
        (python, f"cannot find GLM47_AIPERF_PYTHON: {python}: it has no aiperf: {remedy}"),
        (None, f"cannot find aiperf: GLM47_AIPERF_PYTHON is unset: {remedy}"),
    ):
        with pytest.raises(ConfigError) as caught:
            find(given, {}, str(tmp_path / "none"))
        assert str(caught.value) == line


def test_its_environment_has_no_secret_and_no_model_hub() -> None:
    environ = child_environment(
        {"GLM47_API_KEY": "secret", "HF_HUB_OFFLINE": "1", "PYTHONPATH": "/x", "PATH": "/bin"}, "/home"
    )
    assert environ == {
        "PATH": "/bin", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": "/home", "MPLCONFIGDIR": "/home",
        "DO_NOT_TRACK": "1",
    }  # fmt: skip
