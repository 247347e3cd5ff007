"""Confusion matrices and changes against the plainest loops."""

from __future__ import annotations

import numpy as np
import pytest

from mats_core.errors import InputError
from mats_core.evaluation.confusion import Mistake, changes, confusion, mistakes

RNG = np.random.default_rng(5)
LABELS, BEFORE, AFTER = RNG.integers(0, 4, (3, 200))


def test_confusion_counts_true_rows_and_predicted_columns():
    counts = confusion(LABELS, AFTER, 5)
    for true in range(5):
        for taken in range(5):
            there = sum(1 for a, b in zip(LABELS, AFTER, strict=True) if (a, b) == (true, taken))
            assert counts[true, taken] == there
    assert counts.sum() == 200
    assert np.trace(counts) == (LABELS == AFTER).sum()
    assert not counts[4].any()


def test_changes_are_disjoint_and_cover_the_split():
    found = changes(BEFORE, AFTER, LABELS)
    for row in range(200):
        was, now = BEFORE[row] == LABELS[row], AFTER[row] == LABELS[row]
        expected = {(1, 1): "kept", (1, 0): "lost", (0, 1): "won", (0, 0): "wrong"}[was, now]
        for name in ("kept", "lost", "won", "wrong"):
            assert (row in getattr(found, name)) == (name == expected)
    # What is lost and won explains the difference in right answers.
    difference = (AFTER == LABELS).sum() - (BEFORE == LABELS).sum()
    assert len(found.won) - len(found.lost) == difference


def test_mistakes_come_commonest_first_and_without_right_answers():
    labels = np.array([4, 4, 4, 1, 1, 0, 4])
    predicted = np.array([9, 9, 4, 2, 2, 0, 9])
    rows = np.array([0, 1, 2, 3, 5])
    assert mistakes(labels, predicted, rows) == (Mistake(4, 9, 2), Mistake(1, 2, 1))
    assert mistakes(labels, predicted, np.array([], dtype=int)) == ()


def test_predictions_of_another_length_are_refused():
    with pytest.raises(InputError, match="one for each of 200 examples"):
        confusion(LABELS, AFTER[:-1], 4)
    with pytest.raises(InputError, match="one for each of 200 examples"):
        changes(BEFORE[:7], AFTER, LABELS)
