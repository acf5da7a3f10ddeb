"""Means, and differences larger than the noise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.commands.bench.statistic import noise, sample, samples

VALUES = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=8)


def test_known_numbers() -> None:
    """Two samples of three: pooled variance 1, four degrees of freedom, t = 2.776."""
    limit = noise(sample([9.0, 10.0, 11.0]), sample([19.0, 20.0, 21.0]))
    assert limit == pytest.approx(2.776 * (2 / 3) ** 0.5)


def test_a_single_run_is_judged_by_the_other_side_s_noise() -> None:
    limit = noise(sample([10.0]), sample([9.0, 10.0, 11.0]))
    assert limit == pytest.approx(4.303 * (1 + 1 / 3) ** 0.5)


def test_without_repeats_the_noise_is_not_known() -> None:
    assert noise(sample([1.0]), sample([2.0])) is None


def test_a_run_that_lacks_a_number_is_left_out_of_it() -> None:
    found = samples([{"a": 1.0, "b": 5.0}, {"a": 3.0}])
    assert (found["a"].n, found["a"].mean, found["b"].n, found["b"].stdev) == (2, 2.0, 1, None)


@given(VALUES, VALUES)
def test_the_noise_is_symmetric_and_never_negative(a: list[float], b: list[float]) -> None:
    one, two = noise(sample(a), sample(b)), noise(sample(b), sample(a))
    assert (one is None) == (len(a) == len(b) == 1)
    if one is not None and two is not None:
        assert one == pytest.approx(two) and one >= 0


@given(VALUES)
def test_more_repeats_of_the_same_make_less_noise(values: list[float]) -> None:
    if len(values) > 1:
        few, many = sample(values), sample(values * 3)
        assert (noise(many, many) or 0.0) <= (noise(few, few) or 0.0)
