"""Sentences of the figures that compare two merges: each is what the numbers say."""

from __future__ import annotations

import numpy as np
import pytest

from mats_core import figures
from mats_core.analysis import Correlation, Why
from mats_core.evaluation import Comparison, Score, TaskResult
from mats_core.evaluation.comparison import Difference
from mats_core.figures.why import explained, verdict

NAMES = ("2 · ESM", "1 · Average")
TASKS = tuple("abcdefgh")
LOOKS = figures.looks(TASKS)


def part(value: float, half: float = 0.01) -> Difference:
    return Difference(value, value - half, value + half, paired=True)


def found(values: dict[str, float], mean: float) -> Comparison:
    return Comparison({name: part(value) for name, value in values.items()}, part(mean))


@pytest.mark.parametrize(
    ("mean", "said"),
    [
        (0.05, "2 · ESM is better than 1 · Average: +5.0 points (+4.0 to +6.0)"),
        (-0.05, "2 · ESM is worse than 1 · Average: −5.0 points (−6.0 to −4.0)"),
        (0.005, "2 · ESM is not clearly better or worse than 1 · Average: +0.5 points"),
    ],
)
def test_the_verdict_is_that_of_the_interval(mean: float, said: str):
    assert verdict(found({}, mean), NAMES).startswith(said)
    assert "no task in common" in verdict(Comparison({}, None), NAMES)


def test_tasks_are_drawn_from_the_best_to_the_worst():
    one = found({"a": -0.02, "b": 0.2, "c": 0.001}, 0.06)
    drawn = figures.why_tasks(one, LOOKS, NAMES, "300 test examples of 3 tasks")
    values = [trace.x[0] for trace in drawn.figure.data]  # type: ignore[attr-defined]
    assert values == [0.2, 0.001, -0.02, 0.06]
    assert (
        "Clearly better on b; clearly worse on a; on the other 1 of 3 tasks it may be chance. "
        in drawn.caption
    )
    assert drawn.caption.endswith("answer by answer, on 300 test examples of 3 tasks.")
    assert [row["task"] for row in drawn.rows] == ["b", "c", "a", "all tasks"]


def why(saved: list[float]) -> Why:
    second = np.array([saved, [0.0] * len(saved)])
    return Why(("m.0.weight", "m.1.weight"), TASKS[: len(saved)], np.zeros_like(second), second)


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], "explains which tasks gain, 100 % of the variance"),
        ([8, 7, 6, 5, 4, 3, 2, 1], "is the wrong way round"),
        ([3, 8, 1, 6, 2, 7, 4, 5], "does not explain which tasks gain: rank correlation"),
        ([1, 2], "fewer than three tasks"),
    ],
)
def test_the_prediction_explains_only_what_it_orders(measured: list[float], said: str):
    values = dict(zip(TASKS, measured, strict=False))
    text = explained(why([float(k) for k in range(8)]), found(values, 0.1))
    assert said in text
    known = why([float(k) for k in range(8)]).explained(found(values, 0.1).tasks)
    assert known is None or figures.correlation_words(known) in text


def test_layers_say_where_the_largest_part_lies():
    drawn = figures.why_layers(why([1.0, 3.0]), NAMES)
    assert drawn is not None
    assert "by 0 nats an example in 2 · ESM" in drawn.caption
    assert "by 4 in 1 · Average; by less in 1 of 2 layers" in drawn.caption
    assert "The largest part of the saving, 100 %, is 0's" in drawn.caption
    worse = figures.why_layers(why([-1.0, -3.0]), NAMES)
    assert worse is not None
    assert "The largest part of the extra cost, 100 %, is 0's" in worse.caption
    assert figures.why_layers(Why((), ("a",), np.zeros((0, 1)), np.zeros((0, 1))), NAMES) is None
    equal = figures.why_layers(why([0.0, 0.0]), NAMES)
    assert equal is not None
    assert "largest part" not in equal.caption


def test_both_have_a_point_for_each_task_with_statistics():
    drawn = figures.why_explained(
        why([1.0, 2.0]), found({"a": 0.1, "z": 0.2}, 0.1), LOOKS, NAMES, ""
    )
    assert drawn is not None
    assert [trace.x[0] for trace in drawn.figure.data] == [1.0]  # type: ignore[attr-defined]
    none = figures.why_explained(why([1.0]), found({"z": 0.2}, 0.1), LOOKS, NAMES, "")
    assert none is None


def test_what_was_asked_is_counted_where_both_were():
    score = lambda n: Score(1, n)  # noqa: E731
    first = [TaskResult(t, score(n), score(9), score(9)) for t, n in (("a", 100), ("b", 5))]
    second = [TaskResult(t, score(n), score(9), score(9)) for t, n in (("a", 60), ("c", 5))]
    assert figures.asked_of_both(first, second, "test") == "60 test examples of 1 task"


def test_a_correlation_has_its_interval_and_its_chance():
    said = figures.correlation_words(Correlation(-0.5, -0.9, 0.2, 0.0001, 8))
    assert said == (
        "rank correlation −0.50 (95 % interval −0.90 to +0.20, p < 0.001 by permutation, 8 tasks)"
    )
