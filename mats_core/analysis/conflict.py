"""Who conflicts with whom, measured: what each task does to each other one when they are merged.

    pairs         the merge of tasks t and s, against the expert t alone
    leave one out the merge of all tasks, against the merge of all but s

Each is the paired difference in task t's accuracy on the same validation examples: below zero, s
costs t.  Beside it stands what the statistics predict for the very same merges (`predicted_loss`):
the nats an example by which t's loss rises through s.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..evaluation import Difference, TaskResult, compare
from ..merging import Event, run
from ..recipes import Finished, Inputs, Recipe, open_inputs
from ..system import Memo, changed, part
from .attempt import quietly
from .correlation import Correlation, correlate_pairs
from .predicted_loss import layer_costs, measured_layers

Way = Literal["pairs", "leave one out"]
WAYS: dict[Way, str] = {
    "pairs": "two tasks merged, against the expert alone",
    "leave one out": "all tasks merged, against all but one",
}
EXAMPLES = 200  # a task
MERGED = 0.9  # of a merge's share of the whole; the rest is its prediction


@dataclass(frozen=True)
class Conflicts:
    """What each task does to each other one.

    way        which merges were compared
    tasks      names of the experts
    measured   (t, s) → by how much s changes the accuracy of t
    predicted  (T, T) nats an example by which s raises the loss of t; NaN on the diagonal and
               without statistics
    examples   at most so many validation examples a task
    """

    way: Way
    tasks: tuple[str, ...]
    measured: Mapping[tuple[str, str], Difference]
    predicted: np.ndarray
    examples: int | None

    @property
    def values(self) -> np.ndarray:
        """The measured changes (T, T) in shares, row t by column s; NaN where there is none."""
        found = np.full((len(self.tasks), len(self.tasks)), np.nan)
        for (t, s), effect in self.measured.items():
            found[self.tasks.index(t), self.tasks.index(s)] = effect.value
        return found

    @property
    def chance(self) -> float:
        """Half the width of the middle interval: a smaller change may well be chance."""
        return float(np.median([(e.high - e.low) / 2 for e in self.measured.values()]))

    @property
    def explained(self) -> Correlation | None:
        """The rank correlation over pairs of the predicted rise of the loss with the measured fall
        of the accuracy."""
        return correlate_pairs(self.predicted, -self.values)


def merges(tasks: int, way: Way) -> int:
    """The number of merges that a way takes."""
    return tasks * (tasks - 1) // 2 if way == "pairs" else tasks + 1


def conflicting(
    recipe: Recipe, way: Way = "pairs", *, examples: int | None = EXAMPLES
) -> Generator[Event, None, Conflicts]:
    """The changes that each task of a recipe makes to each other one; merges again and again, with
    an event at every step, and writes nothing.

    Raises `InputError` for fewer than two tasks (three to leave one out), and where a merge fails.
    """
    names = tuple(entry.name for entry in recipe.experts if entry.task)
    least = 2 if way == "pairs" else 3
    if len(names) < least:
        raise InputError(
            "conflicts", expected=f"at least {least} experts with tasks", found=str(len(names))
        )
    if way == "pairs":
        groups = list(combinations(names, 2))
    else:
        groups = [names, *(tuple(n for n in names if n != left) for left in names)]
    made: dict[tuple[str, ...], _Made] = {}
    for index, group in enumerate(groups):
        start, stop = index / len(groups), (index + 1) / len(groups)
        said = f"Merge {index + 1} of {len(groups)}: {{}}"
        trial = quietly(_only(recipe, group), examples)
        made[group] = yield from part(_making(trial), start, stop, said)
    pairs = [(t, s) for t in names for s in names if t != s]
    known = {pair: _effect(*pair, names, way, made) for pair in pairs}
    predicted = np.full((len(names), len(names)), np.nan)
    for (t, s), (_, cost) in known.items():
        predicted[names.index(t), names.index(s)] = cost
    measured = {pair: effect for pair, (effect, _) in known.items()}
    return Conflicts(way, names, measured, predicted, examples)


@dataclass(frozen=True)
class _Made:
    """One merge: its results, and what it is predicted to cost each of its experts."""

    results: Mapping[str, TaskResult]
    costs: Mapping[str, float]


def _only(recipe: Recipe, names: Sequence[str]) -> Recipe:
    experts = tuple(entry for entry in recipe.experts if entry.name in names)
    return recipe.model_copy(update={"experts": experts})


def _making(recipe: Recipe) -> Generator[Event, None, _Made]:
    inputs = open_inputs(recipe, Memo.of_process())
    merge = changed(run(recipe, inputs=inputs), lambda e: None if isinstance(e, Finished) else e)
    finished = yield from part(merge, stop=MERGED)
    results = {result.name: result for result in finished.report.tasks}
    yield Event(fraction=MERGED, text="Predicting its cost")
    return _Made(results, _costs(inputs, finished.tensors))


def _costs(inputs: Inputs, merged: Mapping[str, Tensor]) -> dict[str, float]:
    """Predicted nats an example of each expert, summed over layers; NaN without statistics."""
    layers = measured_layers(inputs)
    rows = np.array([layer_costs(inputs, merged, name) for name in layers] or [[np.nan]])
    known = ~np.isnan(rows).all(0)
    sums = np.where(known, np.nansum(rows, 0), np.nan)
    names = [expert.name for expert in inputs.family.experts]
    return dict(zip(names, np.broadcast_to(sums, len(names)).tolist(), strict=True))


def _effect(
    t: str, s: str, names: tuple[str, ...], way: Way, made: Mapping[tuple[str, ...], _Made]
) -> tuple[Difference, float]:
    """What s does to t: measured, and predicted."""
    if way == "pairs":
        both = made[tuple(n for n in names if n in (t, s))]
        alone = replace(both.results[t], merged=both.results[t].finetuned)
        cost = both.costs[t]
    else:
        both, without = made[names], made[tuple(n for n in names if n != s)]
        alone, cost = without.results[t], both.costs[t] - without.costs[t]
    found = compare([both.results[t]], [alone], same_examples=True)
    return found.tasks[t], cost
