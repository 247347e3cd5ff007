"""Orders of examples: every beginning holds each kind in its share, and no example is favoured."""

from __future__ import annotations

import numpy as np
import pytest

from mats_core.evaluation.order import representative, spread
from mats_core.evaluation.scores import Score
from mats_core.tasks import Form, Split


def split(labels: np.ndarray) -> Split:
    return Split(np.zeros((len(labels), 2, 2, 1), np.uint8), labels)


@pytest.mark.parametrize("counts", [(100,), (1,), (90, 9, 1), (3, 3, 3), (1, 250, 60, 8)], ids=str)
@pytest.mark.parametrize("seed", [0, 7])
def test_every_beginning_holds_each_kind_in_its_share(counts, seed):
    kinds = np.repeat(np.arange(len(counts)), counts)
    order = spread(kinds, seed)
    assert sorted(order) == list(range(len(kinds)))
    for kind, count in enumerate(counts):
        held = np.cumsum(kinds[order] == kind)
        wanted = count * np.arange(1, len(kinds) + 1) / len(kinds)
        # Off by one at most, and by what the others are: their roundings move the beginning.
        assert np.abs(held - wanted).max() <= 1 + len(counts) * count / len(kinds)


def test_labels_and_known_answers_are_spread():
    chance = np.random.default_rng(3)
    labels = np.sort(chance.integers(0, 5, 500))  # as files of classes often lie
    scores = []
    for right in (0.9, 0.4):
        answers = "".join("1" if hit else "0" for hit in chance.random(500) < right)
        scores.append(Score(answers.count("1"), 500, answers))
    first = representative(split(labels), scores)[:64]
    for known in scores:
        share = np.mean([known.answers[place] == "1" for place in first])
        assert abs(share - known.accuracy) < 0.05  # a plain draw is off by 0.06 in a third of cases
    assert np.abs(
        np.bincount(labels[first], minlength=5) / 64 - np.bincount(labels) / 500
    ).max() < (0.04)


def test_no_example_comes_first_more_often_than_its_like():
    kinds = np.repeat([0, 1, 2], [30, 15, 5])
    times = np.zeros(50)
    for seed in range(4000):
        times[spread(kinds, seed)[:10]] += 1
    assert np.abs(times / 4000 - 0.2).max() < 0.03  # four standard errors


def test_scores_of_other_examples_are_passed_over():
    labels = np.array([0, 1] * 10)
    assert (
        representative(split(labels), [Score(3, 4, "1110")]) == representative(split(labels))
    ).all()


def test_texts_without_classes_are_ordered_too():
    rows = Split(np.array(["a", "b", "c"]), np.zeros(3, np.int64), Form("language"))
    assert sorted(representative(rows)) == [0, 1, 2]
