"""The answers of two encoders on one task, side by side, in words and in numbers.  No Streamlit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mats_core import figures
from mats_core.evaluation import Changes, confusion

from ..work import Answers

Before = Literal["expert", "pre-trained encoder", "other merge"]
OTHER: Before = "other merge"
BEFORE: tuple[Before, ...] = ("expert", "pre-trained encoder", OTHER)
AFTER = "merge"
CLOSE = 0.6  # probability of the wrong class, below which a mistake is a close call
COMMONEST = 8  # of the merge's mistakes that can be chosen from the list
GROUPS = {
    "lost": "Lost: right before, wrong after",
    "won": "Won: wrong before, right after",
    "wrong": "Wrong before and after",
}

# What to show: a group, or a cell of a matrix as (who, true class, predicted class).
Choice = str | tuple[str, int, int]


@dataclass(frozen=True)
class Compared:
    """The answers on one task, before and after: class numbers (n,) and what they make of it;
    `other` are those of another merge (n, classes), where one stands beside."""

    answers: Answers
    who: Before
    before: np.ndarray
    after: np.ndarray
    changes: Changes
    other: np.ndarray | None = None
    family: str = ""

    @property
    def labels(self) -> np.ndarray:
        return self.answers.labels

    def probabilities(self, who: str) -> np.ndarray:
        return _probabilities(self.answers, self.other, who)

    @property
    def everyone(self) -> list[str]:
        """All that were asked, from the base to the merge."""
        other = [OTHER] if self.other is not None else []
        return ["pre-trained encoder", "expert", *other, AFTER]

    def confusion(self, who: str) -> np.ndarray:
        predicted = self.after if who == AFTER else self.before
        return confusion.confusion(self.labels, predicted, len(self.answers.classes))

    def rows(self, choice: Choice) -> np.ndarray:
        """The examples of a choice, those with the surest mistake of the merge first."""
        if isinstance(choice, str):
            rows = getattr(self.changes, choice)
        else:
            who, true, taken = choice
            predicted = self.after if who == AFTER else self.before
            rows = np.flatnonzero((self.labels == true) & (predicted == taken))
        sure = self.answers.merged[rows].max(1)
        return rows[np.argsort(-sure, kind="stable")]


def compared(
    answers: Answers, who: Before, other: np.ndarray | None = None, family: str = ""
) -> Compared:
    before = _probabilities(answers, other, who).argmax(1)
    after = answers.merged.argmax(1)
    changes = confusion.changes(before, after, answers.labels)
    return Compared(answers, who, before, after, changes, other, family)


def _probabilities(answers: Answers, other: np.ndarray | None, who: str) -> np.ndarray:
    if who == OTHER:
        assert other is not None  # or it could not be chosen
        return other
    return {
        AFTER: answers.merged, "expert": answers.expert, "pre-trained encoder": answers.pretrained,
    }[who]  # fmt: skip


def story(found: Compared) -> str:
    """`digits lost 31 of 500 images: 12 of them are images of 4 taken for 9. It won 5.`"""
    lost, won = found.changes.lost, found.changes.won
    text = f"{found.answers.name} lost {len(lost)} of {len(found.labels)} {found.answers.noun}s"
    common = confusion.mistakes(found.labels, found.after, lost)
    if common and common[0].count > 1:
        first, classes = common[0], found.answers.classes
        text += (
            f": {first.count} of them are {classes[first.true]} taken for "
            f"{classes[first.predicted]}"
        )
    sure = found.answers.merged[lost].max(1) if len(lost) else np.zeros(0)
    text += f". It won {len(won)} that the {found.who} has wrong."
    if len(sure):
        median = float(np.median(sure))
        text += (
            f" In its lost answers the merge is {figures.percent(median, 0)} sure (median), so "
            f"these are {'' if median < CLOSE else 'not '}close calls."
        )
    return text


def choices(found: Compared, chosen: Choice | None) -> list[Choice]:
    """What the list offers: the groups, the merge's commonest mistakes, and a cell clicked on."""
    everything = np.arange(len(found.labels))
    common = confusion.mistakes(found.labels, found.after, everything)[:COMMONEST]
    offered: list[Choice] = [*GROUPS, *((AFTER, m.true, m.predicted) for m in common)]
    if chosen is not None and chosen not in offered:
        offered.append(chosen)
    return offered


def title(found: Compared, choice: Choice) -> str:
    count = len(found.rows(choice))
    if isinstance(choice, str):
        return f"{GROUPS[choice]} ({count})"
    who, true, taken = choice
    classes = found.answers.classes
    what = f"{classes[true]} taken for {classes[taken]}" if true != taken else classes[true]
    right = ", right" if true == taken else ""
    return f"{who[:1].upper()}{who[1:]}: {what}{right} ({count})"


__all__ = [
    "AFTER", "BEFORE", "GROUPS", "OTHER", "Before", "Choice", "Compared", "choices", "compared",
    "story", "title",
]  # fmt: skip
