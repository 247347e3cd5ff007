"""Who will conflict with whom, forecast before a method is chosen, without labels or statistics.

The experts are merged by a probe, TSV-M with its defaults, which reads weights alone.  On inputs x
of task t, whose labels are not asked for, its answers are held beside those of the expert t:

    F(t | group) = mean over x of ½ Σ_c |p_t(c | x) − p_group(c | x)|

the share of the expert's answers that the merge moves to other classes, in probability.  What s
does to t is F(t | t, s) of a pair, and F(t | all) − F(t | all but s) where one is left out.

It ranks pairs, also for other methods than the probe, where tasks cost each other much: its rank
correlation with the accuracy that pairs really lost is 0.80 to 0.93 over four methods on the sample
family, on which it was chosen, and 0.61 on a text family whose pairs lose a point or three.
docs/study.md has them beside those of cosines, gradients, features and the quadratic form of the
statistics.  It is no forecast of the amount.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .. import models, tasks
from ..errors import InputError
from ..evaluation import evaluate
from ..families import Expert, Family
from ..merging import Event, run
from ..recipes import Finished, Recipe, open_inputs
from ..statistics import drawn_rows
from ..system import Memo, changed, part
from ..tasks import Split
from .attempt import quietly
from .correlation import Correlation, correlate_pairs
from .groups import Group, Way, compared, groups, matrix, named, only

PROBE = "tsv_m"
EXAMPLES = 64  # inputs a task
MERGED = 0.7  # of a probe's share of the whole; the rest is asking it


@dataclass(frozen=True)
class Forecast:
    """What each task is expected to do to each other one.

    way        which merges were compared
    tasks      names of the experts
    moved      (T, T) share of the answers of t (row) that s (column) moves; NaN on the diagonal and
               for tasks without classes
    examples   inputs a task that were asked at most, without their labels
    """

    way: Way
    tasks: Group
    moved: np.ndarray
    examples: int

    def explains(self, values: np.ndarray) -> Correlation | None:
        """The rank correlation over ordered pairs with the fall of the accuracy, of which `values`
        (T, T) are the changes that were measured."""
        return correlate_pairs(self.moved, -values)


def forecasting(
    recipe: Recipe, way: Way = "pairs", *, examples: int = EXAMPLES
) -> Generator[Event, None, Forecast]:
    """The forecast for the experts of a recipe, whatever its method; merges them by the probe, with
    an event at every step, and writes nothing.

    Raises `InputError` for fewer than two tasks (three to leave one out), for experts whose tasks
    have no classes, and where the probe fails.
    """
    names, probing = named(recipe, way), _probe(recipe)
    rows: dict[str, Split] = {}
    own: dict[str, np.ndarray] = {}
    moved: dict[tuple[str, Group], float] = {(name, (name,)): 0.0 for name in names}
    many = groups(names, way)
    for index, group in enumerate(many):
        start, stop = index / len(many), (index + 1) / len(many)
        said = f"Probe {index + 1} of {len(many)}: {{}}"
        family, merged = yield from part(_merging(only(probing, group)), start, stop, said)
        for place, expert in enumerate(family.experts):
            name, done = expert.name, MERGED + (1 - MERGED) * place / len(group)
            yield Event(fraction=start + done * (stop - start), text=f"Asking it about {name}")
            if name not in rows:
                rows[name] = _inputs(expert, recipe, examples)
                own[name] = _answers(family, expert, models.tensors_of(expert.checkpoint), rows)
            told = _answers(family, expert, merged, rows)
            moved[name, group] = float(abs(told - own[name]).sum(1).mean() / 2)
    pairs = {(t, s): moved[t, g] - moved[t, h] for t, s, g, h in compared(names, way)}
    return Forecast(way, names, matrix(names, lambda t, s: pairs[t, s]), examples)


def _probe(recipe: Recipe) -> Recipe:
    """The recipe of a probe of the same experts: weights alone, nothing before or after."""
    plain = {
        "method": PROBE, "options": {}, "by": (), "after": (), "rounds": 1, "refine": None,
        "routed": None, "lora": None, "adds_to": None, "base_statistics": None,
    }  # fmt: skip
    experts = tuple(e.model_copy(update={"statistics": None}) for e in recipe.experts)
    still = quietly(recipe, None).model_copy(update={**plain, "evaluate": False})
    return still.model_copy(update={"experts": experts})


def _merging(recipe: Recipe) -> Generator[Event, None, tuple[Family, Mapping[str, Tensor]]]:
    inputs = open_inputs(recipe, Memo.of_process())
    merge = changed(run(recipe, inputs=inputs), lambda e: None if isinstance(e, Finished) else e)
    finished = yield from part(merge, stop=MERGED)
    return inputs.family, finished.tensors


def _inputs(expert: Expert, recipe: Recipe, examples: int) -> Split:
    """Inputs of an expert's task from its training half, drawn by the recipe's seed."""
    task = evaluate.check_task(expert, tasks.load(expert.task, root=recipe.folder)).task
    if not task.form.classified:
        raise InputError(
            f"forecast for '{expert.name}'",
            expected="a task with classes, whose probabilities can be compared",
            found=f"kind {task.form.kind}",
            remedy="Have the conflicts of these experts measured.",
        )
    return task.train.take(drawn_rows(len(task.train), examples, recipe.seed))


def _answers(
    family: Family, expert: Expert, encoder: Mapping[str, Tensor], rows: Mapping[str, Split]
) -> np.ndarray:
    """Class probabilities (n, classes) of an encoder with an expert's head."""
    asked = evaluate.probabilities(encoder, family, expert, rows[expert.name])
    return asked.astype(np.float64)
