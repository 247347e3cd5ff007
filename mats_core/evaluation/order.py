"""In which order examples are asked, so that the first of them stand for all.

Examples are alike where they have the same label and where the same models (the expert, the
pre-trained encoder) are right about them.  Each kind is spread evenly over the whole order, and
shuffled within itself: every beginning of the order holds each kind in its share, as a stratified
sample does (Cochran, Sampling Techniques, 1977, chapter 5).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..tasks import Split
from .scores import Score


def representative(split: Split, known: Sequence[Score] = (), seed: int = 0) -> np.ndarray:
    """The places of a split's examples (n,) in an order whose every beginning stands for the whole.

    `known`: scores on all examples of the split, whose right and wrong answers are spread evenly.
    """
    rows: list[list[object]] = [[] for _ in range(len(split))]
    if split.form.classified:
        rows = [[*row, int(label)] for row, label in zip(rows, split.labels, strict=True)]
    for score in known:
        if len(score.answers) == len(split):
            rows = [[*row, answer] for row, answer in zip(rows, score.answers, strict=True)]
    return spread(np.unique([repr(row) for row in rows], return_inverse=True)[1], seed)


def spread(kinds: np.ndarray, seed: int) -> np.ndarray:
    """An order of items of these kinds (n,) in which each kind is spread evenly."""
    generator = np.random.default_rng(seed)
    places = np.empty(len(kinds))
    for kind in range(kinds.max(initial=-1) + 1):
        mine = np.flatnonzero(kinds == kind)
        ranks = generator.permutation(len(mine))
        places[mine] = (ranks + generator.random()) / max(1, len(mine))
    return places.argsort(kind="stable")
