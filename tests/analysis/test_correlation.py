"""Rank correlations against SciPy, and chance against counting."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from mats_core.analysis import correlation
from mats_core.analysis.correlation import (
    Correlation,
    clear_among,
    correlate,
    correlate_pairs,
    holm,
    ranks,
)

ROWS = [
    ([1, 2, 3, 4, 5, 6, 7, 8], [2, 1, 4, 3, 6, 5, 8, 7]),
    ([1, 1, 2, 3, 3, 3], [0.5, 0.2, 0.2, 9, -1, 4]),  # ties
    ([3, 1, 2], [3, 1, 2]),
    (np.random.default_rng(1).normal(size=30), np.random.default_rng(2).normal(size=30)),
]


@pytest.mark.parametrize(("x", "y"), ROWS)
def test_the_value_is_scipys(x, y):
    found = correlate(x, y)
    assert found is not None
    assert found.value == pytest.approx(spearmanr(x, y)[0])
    assert found.low <= found.value <= found.high
    assert found.count == len(x)
    assert list(ranks(np.asarray(x, float))) == list(rankdata(x))


def test_chance_is_the_share_of_all_orders():
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 3.0, 5.0, 4.0]
    found = correlate(x, y)
    assert found is not None
    rho = lambda order: float(spearmanr(x, order)[0])  # type: ignore[arg-type]  # noqa: E731
    as_large = [abs(rho(o)) >= abs(rho(y)) - 1e-12 for o in itertools.permutations(y)]
    assert found.chance == pytest.approx(sum(as_large) / math.factorial(5))


def test_of_many_numbers_chance_is_near_that_of_the_t_distribution():
    x, y = (np.random.default_rng(seed).normal(size=40) for seed in (5, 6))
    y = y + 0.3 * x
    found = correlate(x.tolist(), y.tolist())
    assert found is not None
    assert found.chance == pytest.approx(spearmanr(x, y)[1], abs=0.015)


@pytest.fixture
def orders_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They depend on the number of values alone, and take most of the time."""
    monkeypatch.setattr(correlation, "_orders", functools.cache(correlation._orders))


@pytest.mark.usefixtures("orders_drawn_once")
def test_the_interval_covers_the_truth_nineteen_times_in_twenty():
    generator, true, covered = np.random.default_rng(0), 0.6, 0
    of_ranks = 6 / math.pi * math.asin(true / 2)  # Spearman's ρ of a normal pair
    for _ in range(300):
        x, noise = generator.normal(size=(2, 25))
        found = correlate(x, true * x + math.sqrt(1 - true**2) * noise)
        assert found is not None
        covered += found.low <= of_ranks <= found.high
    assert 0.9 < covered / 300 < 0.99


@pytest.mark.parametrize("sign", [1, -1])
def test_a_few_numbers_in_one_order_are_no_certainty(sign: int):
    ends = []
    for count in (4, 8, 30):
        found = correlate(range(count), [sign * number for number in range(count)])
        assert found is not None
        assert found.value == pytest.approx(sign)
        near, far = sorted((abs(found.low), abs(found.high))) if count > 4 else (-1, 1)
        assert far == pytest.approx(1)
        ends.append(near)
    assert ends == sorted(ends), "more numbers say more"
    swapped = correlate(range(8), [1, 0, 2, 3, 4, 5, 6, 7])
    assert swapped is not None
    assert swapped.low < ends[1] < 1, "as near as the next order that is not perfect"


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1, 2], [1, 2]),
        ([1, 2, 3], [5, 5, 5]),
        ([1, math.nan, 3], [1, 2, 3]),
        ([1, 2, math.inf], [1, 2, 3]),
    ],
)
def test_no_order_worth_a_number(x, y):
    assert correlate(x, y) is None


def test_what_is_unknown_is_passed_over():
    found = correlate([1, 2, 3, math.nan, 9], [1, 3, 2, 100, math.nan])
    assert found is not None
    assert (found.value, found.count, found.low, found.high) == (pytest.approx(0.5), 3, -1, 1)


@pytest.mark.usefixtures("orders_drawn_once")
def test_pairs_of_unrelated_tasks_are_clear_one_time_in_twenty_and_related_ones_always():
    generator, clear = np.random.default_rng(3), 0
    first = np.zeros((7, 7))
    for _ in range(60):
        rows, columns = generator.normal(size=(2, 7))
        first = rows[:, None] + 0.1 * generator.normal(size=(7, 7))  # pairs that share their task
        second = columns[:, None] + 0.1 * generator.normal(size=(7, 7))
        found = correlate_pairs(first, second)
        assert found is not None
        clear += found.clear
    assert clear <= 8
    same = correlate_pairs(first, 2 * first + 1)
    assert same is not None
    assert same.value == pytest.approx(1)
    assert same.clear


def test_pairs_are_compared_off_the_diagonal():
    first = np.arange(16.0).reshape(4, 4)
    second = first.copy()
    np.fill_diagonal(second, 1e9)
    found = correlate_pairs(first, second)
    assert found is not None
    assert found.value == pytest.approx(1)
    assert correlate_pairs(first, np.ones((4, 4))) is None
    assert correlate_pairs(first[:2, :2], second[:2, :2]) is None


def test_holm_asks_more_where_more_is_looked_at():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_clear_among_several():
    def one(value: float, chance: float) -> Correlation:
        return Correlation(value, -1, 1, chance, 8)

    assert clear_among({"a": one(0.5, 0.03), "b": one(0.4, 0.3)}) == ()
    assert clear_among({"a": one(0.5, 0.03)}) == ("a",)
    both = {"a": one(-0.8, 0.02), "b": one(0.95, 0.001), "c": one(0.1, 0.8)}
    assert clear_among(both) == ("b", "a")
