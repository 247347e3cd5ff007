"""Like with like: what two merges reach on the tasks and examples that both were asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation import (
    Comparison,
    TaskResult,
    compare,
    normalised_accuracy,
    on_same_examples,
)
from ..recipes import Report


@dataclass(frozen=True)
class Beside:
    """Two merges on the same examples; a metric that cannot be told apart by examples is left
    whole, and then `same` is False.

    name         of the other merge
    ours         results of the merge that is shown
    theirs       results of the other one
    comparison   ours minus theirs, paired where the examples are the same
    same         whether all examples are
    whole        whether these are all that ours was asked
    """

    name: str
    ours: Sequence[TaskResult]
    theirs: Sequence[TaskResult]
    comparison: Comparison
    same: bool
    whole: bool

    @property
    def kept(self) -> tuple[float, float]:
        """The share of the experts' accuracy that ours keeps, and theirs."""
        return normalised_accuracy(self.ours), normalised_accuracy(self.theirs)

    @property
    def examples(self) -> int:
        """Answers of ours that count."""
        return examples(self.ours)


def examples(results: Sequence[TaskResult]) -> int:
    """Examples that a merge was asked, over all tasks."""
    return sum(result.merged.examples for result in results)


def beside(name: str, ours: Report, theirs: Report) -> Beside | None:
    """What another merge, of this name, reaches beside ours; None without a task in common."""
    shared = on_same_examples(ours.tasks, theirs.tasks)
    first, second = shared or (ours.tasks, theirs.tasks)
    found = compare(first, second, same_examples=True)
    if found.mean is None:
        return None
    whole = examples(first) == examples(ours.tasks)
    return Beside(name, first, second, found, shared is not None, whole)
