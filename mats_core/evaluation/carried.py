"""An estimate of a merge's scores from a few of its answers and all answers of an earlier merge.

A knob that is moved a little changes few answers.  What the earlier merge reached on a task, plus
the mean difference on the examples that both were asked, needs fewer of these than the answers
alone (the difference estimator of double sampling; Cochran, Sampling Techniques, 1977, chapter 12).
With n of N examples asked, p the estimate, and r the share of examples on which exactly one of both
merges is right:

    p          earlier + (gained − lost) / n
    variance   r (1/n − 1/N) + p (1 − p) / N

r is the share on this task, drawn towards that of all tasks as if `DRAWN` more examples had shown
it.  Two that changed and two that did not are added to that of all tasks, for few may show no
change (Agresti & Coull, The American Statistician 52, 119–126, 1998).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .scores import NOT_ASKED, Carried, Score, TaskResult, half_width

DRAWN = 16  # examples of a task that the share of all tasks counts as


@dataclass(frozen=True)
class Before:
    """A merge that was asked every example.

    label     what it is called where an estimate says where it comes from
    results   of the same tasks on the same examples
    """

    label: str
    results: tuple[TaskResult, ...]


@dataclass(frozen=True)
class _Pair:
    """The answers of a merge, and of one before it, to a task."""

    now: Score
    before: Score

    @property
    def fits(self) -> bool:
        """Whether both answered the same examples, the one before all of them."""
        rows = self.now.answers, self.before.answers
        plain = self.now.measured is None and self.before.measured is None
        return plain and len(rows[0]) == len(rows[1]) > 0 and NOT_ASKED not in rows[1]

    @functools.cached_property
    def gained(self) -> int:
        return self._count("1", "0")

    @functools.cached_property
    def lost(self) -> int:
        return self._count("0", "1")

    def _count(self, now: str, before: str) -> int:
        ours, theirs = _letters(self.now.answers), _letters(self.before.answers)
        return int(((ours == ord(now)) & (theirs == ord(before))).sum())


def _letters(answers: str) -> np.ndarray:
    return np.frombuffer(answers.encode("utf-32-le", "replace"), dtype=np.uint32)


def _pairs(results: Sequence[TaskResult], before: Before) -> list[_Pair] | None:
    """The answers of both to every task; None where they do not compare: other tasks or examples,
    another metric than accuracy, or one before that was not asked everything."""
    known = {result.name: result for result in before.results}
    if any(result.name not in known for result in results):
        return None
    if any(_of_experts(result) != _of_experts(known[result.name]) for result in results):
        return None  # the data has changed, or expert or base have
    pairs = [_Pair(result.merged, known[result.name].merged) for result in results]
    return pairs if all(pair.fits for pair in pairs) else None


def _of_experts(result: TaskResult) -> tuple[str, str]:
    return result.finetuned.answers, result.pretrained.answers


def carry(results: Sequence[TaskResult], before: Before | None) -> tuple[TaskResult, ...]:
    """The results, with estimates in the place of scores where that makes the interval of the
    normalised accuracy narrower; answers and counts stay those of the merge itself."""
    plain = tuple(results)
    pairs = _pairs(plain, before) if before is not None else None
    if before is None or not pairs or not any(pair.now.left for pair in pairs):
        return plain
    asked = sum(pair.now.examples for pair in pairs)
    rate = (sum(pair.gained + pair.lost for pair in pairs) + 2) / (asked + 4)
    carried = tuple(
        replace(result, merged=replace(pair.now, carried=_estimate(pair, rate, before.label)))
        for result, pair in zip(plain, pairs, strict=True)
    )
    return carried if half_width(carried) < half_width(plain) else plain


def _estimate(pair: _Pair, rate: float, label: str) -> Carried:
    """The estimate of one task's score; `rate`: of changes, over all tasks."""
    asked, whole = pair.now.examples, pair.before.examples
    value = pair.before.accuracy + (pair.gained - pair.lost) / asked
    value = min(1.0, max(0.0, value))
    own = (pair.gained + pair.lost + DRAWN * rate) / (asked + DRAWN)
    sampled = own * (1 / asked - 1 / whole)
    smooth = (value * whole + 1) / (whole + 2)
    return Carried(value, sampled + smooth * (1 - smooth) / whole, label)
