"""Which of a row's answers a label means: by its number, by its letter, or by its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .classes import class_name, class_number

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def places(labels: Sequence[Any], answers: np.ndarray, names: Sequence[str]) -> list[Any]:
    """Labels (n,) that are texts of their rows' answers (n, k) as the numbers of these answers.

    Labels stay as they are where they are names of answers, or numbers from 0 to k − 1 in every
    row: an answer may be a number, too.
    """
    said = [class_name(label) for label in labels]
    count = answers.shape[1]
    if all(one in names for one in said) or are_numbers(said, count, first=0):
        return [*labels]
    found = [_place(one, row) for one, row in zip(said, answers, strict=True)]
    return [label if at is None else at for label, at in zip(labels, found, strict=True)]


def _place(text: str, answers: np.ndarray) -> int | None:
    """The answer with this text, if one alone has it."""
    same = [k for k, answer in enumerate(answers) if text and answer.strip() == text]
    return same[0] if len(same) == 1 else None


def named(labels: Sequence[str], answers: Sequence[Sequence[str]]) -> tuple[str, ...] | None:
    """What the answers are called in a column of labels: letters, or numbers from 1; empty for
    numbers from 0 and for texts of answers.  None for a column that says nothing of answers.

    labels   of the rows, "" for none
    answers  of each row
    """
    count = max(map(len, answers), default=0)
    said = [one for one in labels if one]
    if len(set(said)) < 2:
        return None
    for letters in (LETTERS, LETTERS.lower()):
        if set(said) <= set(letters[:count]):
            return tuple(letters[:count])
    if are_numbers(said, count, first=0):
        return ()
    if are_numbers(said, count, first=1):
        return tuple(str(k + 1) for k in range(count))
    pairs = zip(labels, answers, strict=True)
    return () if all(not one or one in row for one, row in pairs) else None


def are_numbers(said: Sequence[str], count: int, first: int) -> bool:
    """Whether labels are `count` numbers in turn, from the `first` one; none may be missing."""
    numbers = [class_number(one) for one in said if one]
    return all(one is not None and first <= one < first + count for one in numbers)
