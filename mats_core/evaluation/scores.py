"""What a model reached on a task, what a merge reached on several, and the summaries of both."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import typed
from ..system import Shown
from ..tasks import Split
from . import metrics
from .metrics import Z, wilson

NOT_ASKED = "-"
UNKNOWN = -1  # as a predicted class: not asked
WRONG = -2  # as a predicted class: another than the right one, nobody knows which


@dataclass(frozen=True)
class Carried:
    """An estimate of a score from few answers and those of an earlier merge (see `carried.py`).

    value      the estimated share of right answers
    variance   of the estimate
    label      what the earlier merge is called
    """

    value: float
    variance: float
    label: str


@dataclass(frozen=True)
class Score:
    """The answers of one model on one task, counted, and the task's metric where it is another.

    correct   right answers
    examples  examples that were asked
    answers   "1" for right and "0" for wrong, example by example, from the first of the split on;
              "-" where an example was not asked; empty where unknown
    metric    `accuracy`, or another one of `evaluation.metrics`; then also
    measured  its value, and
    limits    its 95 % interval
    said      example by example what the metric is made of: the predicted class, or the summed
              loss and the number of tokens; None where an example was not asked
    nothing   answers that were NaN, which count as wrong; not written into files
    carried   an estimate that stands for the share of right answers until all examples are asked;
              not written into files

    A language task has no right answers: `correct` is 0 and says nothing.
    """

    correct: int
    examples: int
    answers: str = field(default="", repr=False)
    metric: str = "accuracy"
    measured: float | None = None
    limits: tuple[float, float] | None = None
    said: tuple[Any, ...] = field(default=(), repr=False)
    nothing: int = field(default=0, repr=False, compare=False)
    carried: Carried | None = field(default=None, repr=False)

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.correct / self.examples

    @property
    def value(self) -> float:
        """The value of the metric: what is compared, normalised and drawn."""
        if self.carried is not None:
            return self.carried.value
        return self.accuracy if self.measured is None else self.measured

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `value`."""
        if self.carried is not None:
            half = Z * math.sqrt(self.carried.variance)
            return max(0.0, self.carried.value - half), min(1.0, self.carried.value + half)
        return wilson(self.correct, self.examples) if self.limits is None else self.limits

    @property
    def left(self) -> int:
        """Examples that were not asked."""
        return self.answers.count(NOT_ASKED)

    @property
    def variance(self) -> float:
        """The variance of `value`; a proportion counts as (k + 1) / (n + 2), so it is never 0."""
        if self.carried is not None:
            return self.carried.variance
        if self.limits is None:
            p = (self.correct + 1) / (self.examples + 2)
            return p * (1 - p) / self.examples
        low, high = self.limits
        return ((high - low) / (2 * Z)) ** 2

    def to_dict(self) -> dict[str, Any]:
        """The score as plain values, for JSON."""
        plain: dict[str, Any] = {
            "correct": self.correct, "examples": self.examples, "answers": self.answers,
        }  # fmt: skip
        if self.metric != "accuracy":
            plain |= {"metric": self.metric, "measured": self.measured, "limits": self.limits}
            plain["said"] = self.said
        return plain

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Score:
        """The score that `to_dict` wrote, also after a round trip through JSON."""
        said = tuple(tuple(s) if isinstance(s, list) else s for s in content.get("said", ()))
        limits = content.get("limits")
        found = typed(cls, {**content, "said": said, "limits": tuple(limits) if limits else None})
        if not 0 <= found.correct <= found.examples or not found.examples:
            raise ValueError(f"{found.correct} of {found.examples} examples are right")
        return found


@dataclass(frozen=True)
class TaskResult(Shown):
    """The scores of a merge on one task.

    name         of the task's expert
    merged       score of the merged encoder with the expert's head
    finetuned    of the expert
    pretrained   of the pre-trained encoder with the expert's head
    """

    name: str
    merged: Score
    finetuned: Score
    pretrained: Score


# Marks: what each example's answer was, as numbers ------------------------------------------------


def marks(split: Split, known: Score | None = None) -> np.ndarray:
    """What is known of every example's answer, nothing by default.

    Predicted classes (n,), `UNKNOWN` where not asked; of a language task losses and tokens (n, 2),
    NaN where not asked.
    """
    if not split.form.classified:
        nothing = (math.nan, math.nan)
        said = known.said if known and known.said else (None,) * len(split)
        return np.array([nothing if s is None else s for s in said], dtype=float).reshape(-1, 2)
    if known is not None and known.said:
        return np.array([UNKNOWN if s is None else s for s in known.said], dtype=np.int64)
    if known is not None and known.answers and split.form.metric == "accuracy":
        answers = np.array(list(known.answers))
        return np.select([answers == "1", answers == "0"], [split.labels, WRONG], UNKNOWN)
    return np.full(len(split), UNKNOWN, dtype=np.int64)


def chosen(logits: Tensor) -> Tensor:
    """The class (n,) of the largest of each row's logits (n, classes); `WRONG` where one is NaN."""
    nothing = logits.isnan().any(-1)
    warn_of_nothing(int(nothing.sum()))
    return logits.argmax(-1).where(~nothing, WRONG)


def nothing(said: Tensor, split: Split) -> int:
    """The number of a model's answers that are NaN: (examples, classes), or likelihoods (examples,
    2)."""
    looked_at = said if split.form.classified else said[:, :1]
    return int(looked_at.isnan().any(-1).sum())


def told_nothing(whose: str, task: str, score: Score) -> tuple[str, ...]:
    """A sentence on the answers of a model to a task that are NaN, where there are any."""
    if not score.nothing:
        return ()
    return (
        f"{score.nothing} of {score.examples} answers of {whose} to the task of '{task}' are NaN, "
        "which count as wrong: its weights or activations are too large for its arithmetic",
    )


def warn_of_nothing(count: int) -> None:
    """Warn of answers that are no numbers, where there are any."""
    if count:
        warnings.warn(
            "answers of the model are NaN, which count as wrong: its weights or activations are "
            "too large for its arithmetic",
            stacklevel=3,
        )


def asked(found: np.ndarray) -> np.ndarray:
    """(n,) bool: which examples have a mark."""
    return ~np.isnan(found[:, 0]) if found.ndim == 2 else found != UNKNOWN


def score(split: Split, found: np.ndarray) -> Score:
    """The score of these marks; raises `InputError` where nothing was asked."""
    there = asked(found)
    count = int(there.sum())
    if not split.form.classified:
        reached, limits = metrics.likelihood(found[there, 0], found[there, 1])
        said = tuple(
            (round(float(loss), 6), int(tokens)) if known else None
            for (loss, tokens), known in zip(found, there, strict=True)
        )
        return Score(0, count, "", split.form.metric, reached, limits, said)
    right = found == split.labels
    answers = "".join(np.select([~there, right], [NOT_ASKED, "1"], "0").tolist())
    correct = int((there & right).sum())
    metric = split.form.metric
    if metric == "accuracy":
        return Score(correct, count, answers)
    asked_of = metric, split.labels[there], found[there]
    said = tuple(int(k) if known else None for k, known in zip(found, there, strict=True))
    reached, limits = metrics.value(*asked_of), metrics.interval(*asked_of)
    return Score(correct, count, answers, metric, reached, limits, said)


# Summaries ----------------------------------------------------------------------------------------


def share(result: TaskResult) -> float:
    """The score of a merge as a share of its expert's.

    An expert whose metric is not above zero (Matthews) is no measure: reaching it counts as 1.
    """
    expert = result.finetuned.value
    if expert <= 0 and result.finetuned.metric != "accuracy":
        return float(result.merged.value >= expert)
    return result.merged.value / max(expert, 1e-12)


def normalised_accuracy(results: Sequence[TaskResult]) -> float:
    """The mean over tasks of merged / fine-tuned accuracy (by each task's metric)."""
    return sum(map(share, results)) / len(results)


def gap_recovered(results: Sequence[TaskResult]) -> float | None:
    """(merged − pre-trained) / (fine-tuned − pre-trained) of the means; None without a gap."""
    merged = sum(r.merged.value for r in results)
    pretrained = sum(r.pretrained.value for r in results)
    gap = sum(r.finetuned.value for r in results) - pretrained
    return (merged - pretrained) / gap if abs(gap) > 1e-12 else None


def half_width(results: Sequence[TaskResult], z: float = Z) -> float:
    """Half the 95 % interval of the normalised accuracy, the experts' accuracies taken as given."""
    variance = sum(r.merged.variance / max(r.finetuned.value, 1e-12) ** 2 for r in results)
    return z * math.sqrt(variance) / len(results)
