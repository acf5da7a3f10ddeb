"""Suites as data: what the built-in ones measure, and how they are changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from entrypoint.commands.bench.suite import BUILT_IN, load_suite
from entrypoint.errors import ConfigError, ExitCode


def profile(tmp_path: Path, data: Any) -> Path:
    path = tmp_path / "profile.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def problems(*args: Any, **options: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_suite(*args, **options)
    assert caught.value.exit_code == ExitCode.CONFIG
    return caught.value.problems


TEST = {"name": "one", "concurrency": 2, "requests": 4, "isl": 16, "osl": 8}


def test_quick_is_twenty_requests() -> None:
    (test,) = load_suite("quick").tests
    assert (test.requests, test.concurrency, test.endpoint) == (20, 4, "chat")


def test_full_is_the_original_six() -> None:
    suite = load_suite("full")
    tests = {test.name: test for test in suite.tests}
    assert list(tests) == [
        "concurrency-4", "concurrency-8", "concurrency-16", "request-rate", "long-context", "mixed",
    ]  # fmt: skip
    assert [tests[f"concurrency-{n}"].concurrency for n in (4, 8, 16)] == [4, 8, 16]
    assert tests["request-rate"].request_rate == 2 and tests["request-rate"].concurrency is None
    assert tests["long-context"].isl == 4096
    assert len(tests["mixed"].mix) == 3


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_test_is_repeatable_and_judged(name: str) -> None:
    for test in load_suite(name).tests:
        assert test.seed and test.goodput and test.warmup_requests and test.extra_inputs["ignore_eos"] is True


def test_changes_reach_all_tests_or_one() -> None:
    suite = load_suite(
        "full", changes=["requests=10", "mixed.osl_stddev=2.5", "request-rate.arrival=constant"]
    )
    assert {test.requests for test in suite.tests} == {10}
    assert [test.osl_stddev for test in suite.tests] == [0, 0, 0, 0, 0, 2.5]
    assert [t.arrival for t in suite.tests if t.request_rate] == ["constant"]


def test_only_keeps_the_order_of_the_suite() -> None:
    assert [t.name for t in load_suite("full", only=["mixed", "concurrency-4"]).tests] == [
        "concurrency-4",
        "mixed",
    ]


def test_a_mix_takes_the_place_of_default_lengths(tmp_path: Path) -> None:
    data = {
        "name": "own",
        "defaults": {"isl": 5, "osl": 6},
        "tests": [
            {"name": "plain", "concurrency": 1, "requests": 1},
            {"name": "mix", "concurrency": 1, "requests": 1, "mix": [{"isl": 1, "osl": 2, "percent": 100}]},
        ],
    }
    plain, mixed = load_suite("quick", profile(tmp_path, data)).tests
    assert (plain.lengths, mixed.isl) == ("5 → 6", None)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("requests", "cannot set requests: write FIELD=VALUE"),
        ("speed=3", "cannot set speed=3: write FIELD=VALUE"),
        ("name=x", "cannot set name=x: write"),
        ("other.requests=3", "cannot set other.requests=3: no such test: tests are: quick"),
        ("requests=0", "cannot use profile quick: test quick requests: 0: input should be greater"),
        ("concurrency=null", "cannot use profile quick: test quick: give concurrency, request_rate or both"),
        ("isl=null", "cannot use profile quick: test quick: give isl and osl, or mix"),
        (
            "endpoint=images",
            "cannot use profile quick: test quick endpoint: 'images': input should be 'chat'",
        ),
    ],
)
def test_a_change_that_cannot_be_made(change: str, line: str) -> None:
    (problem,) = problems("quick", changes=[change])
    assert problem.startswith(line) and "\n" not in problem


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("{", "it is not JSON"),
        ([], 'give an object with "name", "tests"'),
        ({"name": "x", "tests": {}}, 'give an object with "name", "tests"'),
        ({"name": "x", "tests": []}, 'give an object with "name", "tests"'),
        ({"tests": [TEST]}, "name: field required"),
        ({"name": "x", "tests": [TEST, TEST]}, "one: give every test its own name"),
        ({"name": "x", "tests": [{**TEST, "isll": 3}]}, "test one isll: 3: extra inputs are not permitted"),
        ({"name": "x", "tests": [{**TEST, "name": "../x"}]}, "name: '../x': string should match pattern"),
        ({"name": "x", "tests": [{**TEST, "mix": [{"isl": 1, "osl": 1, "percent": 50}]}]}, "add up to 100"),
    ],
)
def test_a_profile_that_cannot_be_used(data: Any, line: str, tmp_path: Path) -> None:
    path = profile(tmp_path, data)
    found = problems("quick", path)
    assert line in found[0] and str(path) in found[0]


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    (problem,) = problems("quick", tmp_path / "none.json")
    assert problem == f"cannot read profile {tmp_path}/none.json: No such file or directory: give a JSON file"


def test_an_unknown_test() -> None:
    assert problems("quick", only=["slow"]) == (
        "cannot run only slow: no such test in profile quick: it has quick",
    )
