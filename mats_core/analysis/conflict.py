"""Who conflicts with whom, measured: what each task does to each other one when they are merged.

    pairs         the merge of tasks t and s, against the expert t alone
    leave one out the merge of all tasks, against the merge of all but s

Each is the paired difference in task t's accuracy on the same validation examples: below zero, s
costs t.  `forecast.py` has what is expected before anything is merged by the method.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..evaluation import Difference, TaskResult, compare
from ..merging import Event, run
from ..recipes import Finished, Recipe, open_inputs
from ..system import Memo, changed, part
from .attempt import quietly
from .groups import Group, Way, compared, groups, matrix, named, only

EXAMPLES = 200  # a task


@dataclass(frozen=True)
class Conflicts:
    """What each task does to each other one.

    way        which merges were compared
    tasks      names of the experts
    measured   (t, s) → by how much s changes the accuracy of t
    examples   at most so many validation examples a task
    """

    way: Way
    tasks: Group
    measured: Mapping[tuple[str, str], Difference]
    examples: int | None

    @property
    def values(self) -> np.ndarray:
        """The measured changes (T, T) in shares, row t by column s; NaN where there is none."""
        return matrix(self.tasks, lambda t, s: self.measured[t, s].value)

    @property
    def chance(self) -> float:
        """Half the width of the middle interval: a smaller change may well be chance."""
        return float(np.median([(e.high - e.low) / 2 for e in self.measured.values()]))


def conflicting(
    recipe: Recipe, way: Way = "pairs", *, examples: int | None = EXAMPLES
) -> Generator[Event, None, Conflicts]:
    """The changes that each task of a recipe makes to each other one; merges again and again, with
    an event at every step, and writes nothing.

    Raises `InputError` for fewer than two tasks (three to leave one out), and where a merge fails.
    """
    names = named(recipe, way)
    many = groups(names, way)
    made: dict[Group, Mapping[str, TaskResult]] = {}
    for index, group in enumerate(many):
        start, stop = index / len(many), (index + 1) / len(many)
        said = f"Merge {index + 1} of {len(many)}: {{}}"
        trial = quietly(only(recipe, group), examples)
        made[group] = yield from part(_making(trial), start, stop, said)
    measured = {}
    for t, s, together, apart in compared(names, way):
        both = made[together][t]
        alone = replace(both, merged=both.finetuned) if len(apart) == 1 else made[apart][t]
        measured[t, s] = compare([both], [alone], same_examples=True).tasks[t]
    return Conflicts(way, names, measured, examples)


def _making(recipe: Recipe) -> Generator[Event, None, Mapping[str, TaskResult]]:
    """The results of one merge, by task."""
    inputs = open_inputs(recipe, Memo.of_process())
    merge = changed(run(recipe, inputs=inputs), lambda e: None if isinstance(e, Finished) else e)
    finished = yield from merge
    return {result.name: result for result in finished.report.tasks}
