"""Differences of merges: published intervals, and coverage of the truth by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mats_core.evaluation.comparison import (
    compare,
    difference,
    normalised_interval,
    on_same_examples,
    paired,
    unpaired,
)
from mats_core.evaluation.metrics import wilson
from mats_core.evaluation.scores import Score, TaskResult

SEED = 20240817


def answers(row: np.ndarray) -> str:
    return "".join("1" if right else "0" for right in row)


def scored(row: np.ndarray) -> Score:
    return Score(int(row.sum()), len(row), answers(row))


def result(name: str, merged: Score, finetuned: float = 1.0) -> TaskResult:
    expert = Score(round(1000 * finetuned), 1000)
    return TaskResult(name, merged, expert, Score(0, 1000))


def correlated(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Pairs of answers, right with probability 0.85 and 0.78, mostly on the same examples."""
    both = [0.74, 0.11, 0.04, 0.11]  # 11, 10, 01, 00
    drawn = generator.choice(4, size=shape, p=both)
    return np.stack([drawn < 2, (drawn == 0) | (drawn == 2)])


def test_unpaired_agrees_with_the_published_example():
    # Newcombe (1998), 56/70 against 48/80 by method 10: 0.0524 to 0.3339
    found = unpaired(Score(56, 70), Score(48, 80))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert found.clear
    assert not found.paired


def test_paired_is_the_square_and_add_interval_with_the_correlation_of_the_answers():
    # A negative correlation is taken as it is, so numpy's is an independent oracle.
    first = np.array([1] * 30 + [1] * 35 + [0] * 25 + [0] * 10, bool)
    second = np.array([1] * 30 + [0] * 35 + [1] * 25 + [0] * 10, bool)
    phi = np.corrcoef(first, second)[0, 1]
    assert phi < 0
    p, q, n = 0.65, 0.55, 100
    (p_low, p_high), (q_low, q_high) = wilson(65, n), wilson(55, n)
    spread = lambda a, b: math.sqrt(a * a - 2 * phi * a * b + b * b)  # noqa: E731
    found = paired(answers(first), answers(second))
    assert found.value == pytest.approx(p - q)
    assert found.low == pytest.approx(p - q - spread(p - p_low, q_high - q))
    assert found.high == pytest.approx(p - q + spread(p_high - p, q - q_low))


def test_a_positive_correlation_is_shrunk_by_half_an_example():
    # 40 both right, 8 only the first, 4 only the second, 48 neither: φ = (ad − bc − n/2) / √margins
    first = np.array([1] * 40 + [1] * 8 + [0] * 4 + [0] * 48, bool)
    second = np.array([1] * 40 + [0] * 8 + [1] * 4 + [0] * 48, bool)
    phi = (40 * 48 - 8 * 4 - 50) / math.sqrt(48 * 52 * 44 * 56)
    (p_low, _), (_, q_high) = wilson(48, 100), wilson(44, 100)
    a, b = 0.48 - p_low, q_high - 0.44
    expected = 0.04 - math.sqrt(a * a - 2 * phi * a * b + b * b)
    assert paired(answers(first), answers(second)).low == pytest.approx(expected)


@pytest.mark.parametrize("examples", [60, 400])
def test_paired_interval_covers_the_truth_in_95_of_100_cases(examples: int):
    rows = correlated(np.random.default_rng(SEED), (2000, examples))
    truth = 0.85 - 0.78
    found = [paired(answers(a), answers(b)) for a, b in zip(*rows, strict=True)]
    covered = np.mean([d.low <= truth <= d.high for d in found])
    assert 0.94 <= covered <= 0.975
    loose = [unpaired(scored(a), scored(b)) for a, b in zip(*rows, strict=True)]
    # Pairing must pay, else the test would pass without it.
    assert np.mean([d.high - d.low for d in found]) < 0.8 * np.mean([d.high - d.low for d in loose])


def test_mean_normalised_difference_covers_the_truth():
    generator = np.random.default_rng(SEED + 1)
    shares = {"a": 1.0, "b": 0.9, "c": 0.8}
    truth = np.mean([0.07 / share for share in shares.values()])
    covered, widths, narrow = [], [], []
    for _ in range(1000):
        rows = {name: correlated(generator, (150,)) for name in shares}
        first = [result(n, scored(rows[n][0]), shares[n]) for n in shares]
        second = [result(n, scored(rows[n][1]), shares[n]) for n in shares]
        mean = compare(first, second, same_examples=True).mean
        assert mean is not None
        covered.append(mean.low <= truth <= mean.high)
        widths.append(mean.high - mean.low)
        narrow.append(abs(mean.value - truth))
    assert 0.94 <= np.mean(covered) <= 0.975
    assert np.mean(narrow) < np.mean(widths) / 4  # centred where the estimates are


def test_one_run_against_itself_is_no_difference():
    row = correlated(np.random.default_rng(3), (100,))[0]
    found = difference(scored(row), scored(row), same_examples=True)
    assert found.value == 0
    assert found.low < 0 < found.high
    assert not found.clear


def test_without_answers_or_on_other_examples_the_interval_is_unpaired():
    row, other = correlated(np.random.default_rng(4), (100,))
    known, counted = scored(row), Score(int(row.sum()), 100)
    assert difference(known, scored(other), same_examples=True).paired
    assert not difference(known, scored(other), same_examples=False).paired
    assert not difference(counted, scored(other), same_examples=True).paired


def test_examples_that_one_was_not_asked_are_left_out():
    row, other = correlated(np.random.default_rng(5), (200,))
    early = Score(int(row[:120].sum()), 120, answers(row[:120]) + "-" * 80)
    found = difference(early, scored(other), same_examples=True)
    assert found == paired(answers(row[:120]), answers(other[:120]))
    apart = Score(int(row[:120].sum()), 120, "-" * 80 + answers(row[:120]))
    late = Score(int(other[:100].sum()), 100, answers(other[:100]) + "-" * 100)
    assert not difference(apart, late, same_examples=True).paired  # 20 in common


def test_tasks_that_only_one_was_tested_on_are_left_out_of_the_mean():
    first = [result("a", Score(90, 100)), result("b", Score(10, 100), 0.5)]
    second = [result("b", Score(5, 100), 0.5), result("c", Score(1, 100))]
    found = compare(first, second, same_examples=True)
    assert list(found.tasks) == ["b"]
    assert found.mean is not None
    assert found.mean.value == pytest.approx(0.05 / 0.5)
    assert compare(first[:1], second, same_examples=True).mean is None


def test_interval_of_one_task_is_wilsons_over_the_experts_accuracy():
    low, high = wilson(80, 100)
    found = normalised_interval([result("a", Score(80, 100), 0.8)])
    assert found == pytest.approx((low / 0.8, high / 0.8))
    four = [result(name, Score(80, 100), 0.8) for name in "abcd"]
    assert normalised_interval(four)[0] == pytest.approx(1 - (1 - low / 0.8) / 2)


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("1101", "0111", ("1101", "0111")),
        ("1-01", "01-1", ("11", "01")),  # asked in part: the first and the last
        ("1---", "-111", None),  # nothing in common
        ("110", "0111", None),  # of other splits
    ],
)
def test_two_merges_on_the_examples_that_both_were_asked(first, second, shared):
    def one(row: str) -> TaskResult:
        count = len(row) - row.count("-")
        return result("t", Score(row.count("1"), count, row))

    found = on_same_examples([one(first)], [one(second)])
    if shared is None:
        assert found is None
    else:
        assert found is not None
        assert tuple(results[0].merged.answers for results in found) == shared


def test_tasks_that_only_one_of_two_merges_has_are_left_out():
    ours = [result(name, Score(3, 4, "1110")) for name in ("a", "b", "c")]
    theirs = [result(name, Score(2, 4, "0110")) for name in ("c", "a")]
    found = on_same_examples(ours, theirs)
    assert found is not None
    assert [[r.name for r in results] for results in found] == [["a", "c"], ["a", "c"]]
    assert on_same_examples(ours, []) is None


def test_another_metric_is_compared_where_as_many_were_asked():
    def one(examples: int) -> TaskResult:
        return result("t", Score(0, examples, "", "f1", 0.7, (0.6, 0.8)))

    assert on_same_examples([one(50)], [one(50)]) is not None
    assert on_same_examples([one(50)], [one(20)]) is None
