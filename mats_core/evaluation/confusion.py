"""What a merge did to single examples: confusion matrices, and what was lost and won.

Labels and predictions are class numbers (n,), in the order of the head's classes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ..errors import InputError


@dataclass(frozen=True)
class Changes:
    """Indices of a split's rows by correctness before (say, of the expert) and after (the merge).

    kept    right before and after
    lost    right before only
    won     right after only
    wrong   wrong both times

    The four are disjoint, ascending, and together they are the whole split.
    """

    kept: np.ndarray
    lost: np.ndarray
    won: np.ndarray
    wrong: np.ndarray


@dataclass(frozen=True)
class Mistake:
    """A confusion: `count` examples of class `true` are taken for `predicted`."""

    true: int
    predicted: int
    count: int


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """The confusion matrix (classes, classes): a row a true class, a column a predicted one."""
    _alike(labels, predicted)
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def changes(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> Changes:
    """The examples that were lost (right before, wrong after), won, kept, or wrong both times."""
    _alike(labels, before)
    _alike(labels, after)
    was, now = before == labels, after == labels
    return Changes(
        *(np.flatnonzero(rows) for rows in (was & now, was & ~now, ~was & now, ~was & ~now))
    )


def mistakes(labels: np.ndarray, predicted: np.ndarray, rows: np.ndarray) -> tuple[Mistake, ...]:
    """The confusions among `rows`, the commonest first; right answers are left out."""
    pairs = Counter(zip(labels[rows].tolist(), predicted[rows].tolist(), strict=True))
    wrong = [Mistake(true, taken, n) for (true, taken), n in pairs.items() if true != taken]
    return tuple(sorted(wrong, key=lambda m: (-m.count, m.true, m.predicted)))


def _alike(labels: np.ndarray, predicted: np.ndarray) -> None:
    if labels.shape != predicted.shape:
        raise InputError(
            "predictions",
            expected=f"one for each of {len(labels)} examples",
            found=f"shape {predicted.shape}",
        )
