"""The way between models: accuracy and loss on the straight lines base → expert → merge.

At x from −1 to 0 the encoder is (1 + x) W_t − x W₀, from the base to expert t; from 0 to 1 it is
(1 − x) W_t + x W, from the expert to the merge.  Each is asked with the head of expert t.  A
barrier is how far the loss rises above the straight line between the losses at both ends of the
second part (linear mode connectivity: Frankle et al., arXiv 1912.05671).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import models
from ..errors import InputError
from ..evaluation import examiner, examining
from ..recipes import Inputs, Recipe
from ..system import Event, part

STEPS = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
EXAMPLES = 200  # a task
ASKED = 0.05  # of the whole: experts and base on their tasks, most often remembered


@dataclass(frozen=True)
class Between:
    """Accuracy and loss on the way from the base over each expert to a merge.

    tasks      names of the experts that were asked
    places     x of every point: −1 the base, 0 the expert, 1 the merge
    accuracy   (tasks, places) shares of right answers
    loss       (tasks, places) mean cross-entropy in nats
    examples   of each task that were asked, on validation data
    """

    tasks: tuple[str, ...]
    places: tuple[float, ...]
    accuracy: np.ndarray
    loss: np.ndarray
    examples: tuple[int, ...]

    @property
    def barriers(self) -> dict[str, float]:
        """By task, the most by which the loss rises above the straight line from expert to merge,
        nats; 0 where it never does."""
        x = np.array(self.places)
        late = x >= 0
        straight = np.stack([row[x == 0] + x[late] * (row[-1] - row[x == 0]) for row in self.loss])
        above = (self.loss[:, late] - straight).max(1)
        return dict(zip(self.tasks, above.clip(0).tolist(), strict=True))


def walking(
    recipe: Recipe,
    merged: Mapping[str, Tensor],
    *,
    inputs: Inputs,
    places: Sequence[float] = STEPS,
    examples: int | None = EXAMPLES,
) -> Generator[Event, None, Between]:
    """Accuracy and loss at every place on every task's way, on validation data; an event before
    each.  `merged`: tensors by the base's names; `places` hold −1, 0 and 1 in order.

    Raises `InputError` for a family without tasks that have classes.
    """
    exam = yield from part(
        examining(inputs.family, recipe.folder, "validation", examples), 0.0, ASKED
    )
    asked = [one for one in exam.examiners if one.split.form.classified]
    if not asked:
        raise InputError("way between models", expected="tasks with classes", found="none")
    base = models.tensors_of(inputs.family.base)
    merged = {name: merged[name] for name in inputs.family.shared if name in merged}
    found = np.zeros((2, len(asked), len(places)))
    for row, one in enumerate(asked):
        own = {**base, **models.tensors_of(one.expert.checkpoint)}
        for column, x in enumerate(places):
            done = (row * len(places) + column) / (len(asked) * len(places))
            text = f"On the way of {one.expert.name}, {column + 1} of {len(places)}"
            yield Event(fraction=ASKED + (1 - ASKED) * done, text=text)
            found[:, row, column] = _asked(one, _at(x, base, own, merged))
    names = tuple(one.expert.name for one in asked)
    sizes = tuple(len(one.split) for one in asked)
    return Between(names, tuple(places), found[0], found[1], sizes)


def _at(
    x: float, base: Mapping[str, Tensor], own: Mapping[str, Tensor], merged: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The merged tensors' encoder at x; the ends are the models themselves."""
    end = base if x < 0 else merged
    return {name: own[name].lerp(end[name].to(own[name]), abs(x)) for name in merged}


def _asked(one: examiner.Examiner, encoder: Mapping[str, Tensor]) -> tuple[float, float]:
    """(share of right answers, mean cross-entropy) of an encoder on all examples of a task."""
    said = one.logits(encoder, np.arange(len(one.split))).double()
    labels = torch.from_numpy(one.split.labels).to(said.device)
    loss = torch.nn.functional.cross_entropy(said, labels)
    return float((said.argmax(1) == labels).double().mean()), float(loss)
