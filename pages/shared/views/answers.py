"""The answers of two encoders on one task, side by side, in words and in numbers.  No Streamlit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mats_core import figures
from mats_core.evaluation import Changes, confusion

from ..work import Answers

Before = Literal["expert", "pre-trained encoder"]
BEFORE: tuple[Before, ...] = ("expert", "pre-trained encoder")
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
    """The answers on one task, before and after: class numbers (n,) and what they make of it.

    who       what the merge is compared with, such as the expert, or another run
    chances   its probabilities (n, classes)
    """

    answers: Answers
    who: str
    chances: np.ndarray
    before: np.ndarray
    after: np.ndarray
    changes: Changes

    @property
    def labels(self) -> np.ndarray:
        return self.answers.labels

    def probabilities(self, who: str) -> np.ndarray:
        return self.answers.merged if who == AFTER else self.chances

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


def compared(answers: Answers, who: str, other: Answers | None = None) -> Compared:
    """The merge beside the expert, the pre-trained encoder, or (`other`) the merge of a run that
    `who` names."""
    if other is not None:
        chances = other.merged
    else:
        chances = answers.expert if who == "expert" else answers.pretrained
    before = chances.argmax(1)
    after = answers.merged.argmax(1)
    changes = confusion.changes(before, after, answers.labels)
    return Compared(answers, who, chances, before, after, changes)


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
    "AFTER", "BEFORE", "GROUPS", "Before", "Choice", "Compared", "choices", "compared", "story",
    "title",
]  # fmt: skip
