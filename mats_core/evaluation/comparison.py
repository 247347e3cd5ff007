"""Two merges on the same tasks: by how much they differ, and whether that could be chance.

All intervals have 95 % coverage and are made of the interval of one score (Wilson's for a
proportion; another metric has its interval in the score, and its differences count as unpaired):

    unpaired   the square-and-add interval of a difference (Newcombe, Statistics in Medicine 17,
               873–890, 1998, method 10)
    paired     the same with the correlation φ of the answers (Newcombe, Statistics in Medicine 17,
               2635–2650, 1998, method 10): where both merges answered the very same examples
    mean       distances to the limits add up in squares (Zou & Donner, Statistics in Medicine 27,
               1693–1702, 2008), for tasks are tested on different examples

The experts' accuracies, which normalised accuracy divides by, are taken as given: their own
uncertainty is the same for all merges that are compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .scores import NOT_ASKED, Score, TaskResult

SHARED = 0.8  # below it, leaving examples out costs more than pairing gains


@dataclass(frozen=True)
class Difference:
    """A difference (first − second) in shares, with its 95 % interval.

    value       the difference
    low, high   ends of the interval
    paired      whether both answered the same examples, with known answers
    """

    value: float
    low: float
    high: float
    paired: bool

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """Differences between two merges.

    tasks   task → difference in accuracy (or in the task's metric)
    mean    difference in mean normalised accuracy; None where no task was tested on both
    """

    tasks: Mapping[str, Difference]
    mean: Difference | None


def unpaired(first: Score, second: Score) -> Difference:
    """Difference of two accuracies that were measured on different examples."""
    return _square_and_add(first, second, 0.0, paired=False)


def paired(first: str, second: str) -> Difference:
    """Difference of two rows of answers ("1" right, "0" wrong) to the same examples."""
    ours, theirs = (Score(row.count("1"), len(row)) for row in (first, second))
    return _square_and_add(ours, theirs, _phi(first, second), paired=True)


def _square_and_add(first: Score, second: Score, phi: float, *, paired: bool) -> Difference:
    p, q = first.value, second.value
    (p_low, p_high), (q_low, q_high) = first.interval, second.interval
    below = _combine(p - p_low, q_high - q, phi)
    above = _combine(p_high - p, q - q_low, phi)
    return Difference(p - q, p - q - below, p - q + above, paired)


def _combine(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def _phi(first: str, second: str) -> float:
    """Correlation of two rows of answers, with the paper's continuity correction: a positive
    association is taken as a little weaker than it looks."""
    both = sum(a == b == "1" for a, b in zip(first, second, strict=True))
    neither = sum(a == b == "0" for a, b in zip(first, second, strict=True))
    only_first = first.count("1") - both
    only_second = second.count("1") - both
    rows = (both + only_first) * (only_second + neither)
    margins = rows * (both + only_second) * (only_first + neither)
    if not margins:
        return 0.0
    excess = both * neither - only_first * only_second
    if excess > 0:
        excess = max(0.0, excess - len(first) / 2)
    return excess / math.sqrt(margins)


def difference(first: Score, second: Score, *, same_examples: bool) -> Difference:
    """Paired where `same_examples` and both say which answers were right, else unpaired.

    Answers are paired over the examples that both were asked, if these are at least `SHARED` of
    the smaller number: an evaluation that stopped early has asked fewer.
    """
    if same_examples and first.limits is None:  # answers make up an accuracy, and no other metric
        both = [
            pair
            for pair in zip(first.answers, second.answers, strict=False)
            if NOT_ASKED not in pair
        ]
        if both and len(both) >= SHARED * min(first.examples, second.examples):
            return paired("".join(a for a, _ in both), "".join(b for _, b in both))
    return unpaired(first, second)


def compare(
    first: Sequence[TaskResult], second: Sequence[TaskResult], *, same_examples: bool
) -> Comparison:
    """The differences, first minus second, on the tasks that both were tested on.

    `same_examples`: both were tested on the same split of the same tasks.
    """
    others = {result.name: result for result in second}
    shared = [result for result in first if result.name in others]
    found = {
        r.name: difference(r.merged, others[r.name].merged, same_examples=same_examples)
        for r in shared
    }
    return Comparison(found, _mean(shared, list(found.values())) if shared else None)


def on_same_examples(
    first: Sequence[TaskResult], second: Sequence[TaskResult]
) -> tuple[tuple[TaskResult, ...], tuple[TaskResult, ...]] | None:
    """The results of two merges on the tasks and examples that both were asked, or None.

    None where they share no task, or where a task's examples cannot be told apart: a metric other
    than accuracy whose examples differ.  Both were tested on the same split.
    """
    others = {result.name: result.merged for result in second}
    pairs = [
        (result, _shared(result.merged, others[result.name]))
        for result in first
        if result.name in others
    ]
    whole = [(result, pair) for result, pair in pairs if pair is not None]
    if not whole or len(whole) < len(pairs):
        return None
    return (
        tuple(replace(result, merged=ours) for result, (ours, _) in whole),
        tuple(replace(result, merged=theirs) for result, (_, theirs) in whole),
    )


def _shared(first: Score, second: Score) -> tuple[Score, Score] | None:
    """Two scores on the examples that both were asked."""
    if first.limits is None and len(first.answers) == len(second.answers) > 0:
        places = [
            place
            for place, pair in enumerate(zip(first.answers, second.answers, strict=True))
            if NOT_ASKED not in pair
        ]
        chosen = ["".join(s.answers[i] for i in places) for s in (first, second)]
        ours, theirs = (Score(row.count("1"), len(row), row) for row in chosen)
        return (ours, theirs) if places else None
    return (first, second) if first.examples == second.examples else None


def _mean(results: Sequence[TaskResult], parts: Sequence[Difference]) -> Difference:
    """Σ w_t δ_t with independent δ_t (Zou & Donner's recovered variances), where w_t makes a mean
    of shares of the expert's score out of differences on each task."""
    weights = [1 / (len(results) * max(r.finetuned.value, 1e-12)) for r in results]
    value = sum(w * part.value for w, part in zip(weights, parts, strict=True))
    below = [w * (part.value - part.low) for w, part in zip(weights, parts, strict=True)]
    above = [w * (part.high - part.value) for w, part in zip(weights, parts, strict=True)]
    paired = all(part.paired for part in parts)
    return Difference(value, value - math.hypot(*below), value + math.hypot(*above), paired)


def normalised_interval(results: Sequence[TaskResult]) -> tuple[float, float]:
    """The 95 % interval of a mean normalised accuracy.  Raises `InputError` without examples."""
    parts = [Difference(r.merged.value, *r.merged.interval, paired=True) for r in results]
    whole = _mean(results, parts)
    return whole.low, whole.high


FAR_BELOW = 0.05  # of a stated accuracy: cards round, and differ in preprocessing


def doubts(
    name: str, expert: Score, base: Score, *, classes: int, stated: float | None = None
) -> tuple[str, ...]:
    """Why an expert may not be one, a sentence each: it does worse on its task than the base with
    the same head, than chance, or far worse than its card says.

    classes  of the task; 0 for one without
    stated   accuracy that the expert's card states, from 0 to 1; None where it states none
    """
    found = []
    said = f"the expert '{name}' reaches {100 * expert.value:.1f} % on its task"
    apart = difference(expert, base, same_examples=True)
    if apart.value < 0:
        clear = "" if apart.clear else f", which may be chance on {expert.examples} examples"
        found.append(
            f"{said}, less than the pre-trained model with the same head "
            f"({100 * base.value:.1f} %{clear}): are its labels in the order of its head?"
        )
    guessing = {"accuracy": 1 / classes if classes else 0.0, "matthews": 0.0}.get(expert.metric)
    if guessing is not None and classes and expert.value < guessing:
        found.append(
            f"{said}, less than guessing among its {classes} classes would "
            f"({100 * guessing:.1f} %): are its labels in the order of its head?"
        )
    if stated is not None and expert.metric == "accuracy":
        low, high = expert.interval
        if high < stated and stated - expert.value > FAR_BELOW:
            found.append(
                f"{said} (95 % interval {100 * low:.1f} to {100 * high:.1f} %, "
                f"{expert.examples} examples), and its card says {100 * stated:.1f} %: are these "
                "the examples and the preprocessing that the card means?"
            )
    return tuple(found)
