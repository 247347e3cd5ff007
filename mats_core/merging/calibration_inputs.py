"""Where the inputs of a calibration come from: an expert's task, a pile for all, or a pool.

From a pile or a pool each expert takes the inputs that its update answers to
(`answering.py`): nobody has to say which examples belong to which expert.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .. import models, tasks
from ..checkpoints import Tensors
from ..errors import InputError, listing
from ..families import Expert
from ..methods import LayerStatistics, SequentialOptions, share_of_update
from ..recipes import SHOWN, ChosenInputs, Margin, Picked, Plan
from ..statistics import MeasureSettings, answers, batches_of, drawn_rows, told_apart
from ..system import Event
from ..tasks import Kind, Split

POOL = "pool"
DIGITS = 4  # of the scores that the report keeps


def require(plan: Plan) -> None:
    """Raise `InputError` where there are no inputs for a method that calibrates."""
    options, experts = _options(plan), plan.inputs.family.experts
    apart = [expert.name for expert in experts if expert.checkpoint.directory is None]
    without = [expert.name for expert in experts if not expert.task]
    if options.inputs == "own" and (apart or without):
        raise InputError(
            f"method '{plan.method.name}'",
            expected="a task and a model's directory for every expert: layers are matched on each "
            "expert's inputs",
            found=f"none for {listing(dict.fromkeys([*without, *apart]))}",
            remedy="Name tasks in the recipe, choose inputs 'pool', which needs no task, or 'kfac' "
            "with gram 'update', which needs no data.",
        )
    if apart:
        raise InputError(
            f"method '{plan.method.name}'",
            expected="a model's directory for every expert: inputs pass through it",
            found=f"none for {listing(apart)}",
        )
    if options.inputs == "pile" and not options.pile and len(without) == len(experts):
        raise InputError(
            f"inputs 'pile' of '{plan.method.name}'",
            expected="an expert with a task, or the task of the pile",
            found="none",
            remedy="Name a task by the option 'pile', or choose inputs 'pool', which needs none.",
        )


@dataclass(frozen=True)
class Candidates:
    """Examples of one source.

    source   reference of their task, or `pool`
    rows     (n,) their numbers in it
    split    what they are
    """

    source: str
    rows: np.ndarray
    split: Split

    def take(self, places: np.ndarray) -> Candidates:
        return Candidates(self.source, self.rows[places], self.split.take(places))


@dataclass(frozen=True)
class Taken:
    """The inputs of one expert: what its layers are matched on, and the record of them.

    parts     of each source, with their copies
    chosen    the record
    known     how many of them count as of the expert's task (`LayerStatistics.examples`)
    """

    parts: tuple[Split, ...]
    chosen: ChosenInputs
    known: int


def source_of(plan: Plan, source: str) -> Split:
    """The examples in which the rows of a `Picked` of this source are counted.

    plan     of the merge, by `planned`
    source   reference of a task, or `pool`
    """
    options = _options(plan)
    if source == POOL:
        return tasks.pool(_kind(plan), options.candidates, plan.recipe.seed)
    return tasks.load(source, root=plan.recipe.folder).train


def of_task(plan: Plan, expert: Expert, examples: int) -> tuple[Candidates, int]:
    """Seeded draws from the expert's own task, and how many examples it has."""
    task = tasks.load(expert.task, root=plan.recipe.folder)
    split = models.check(expert.checkpoint, task).task.train
    rows = drawn_rows(len(split), examples, plan.recipe.seed)
    return Candidates(expert.task, rows, split.take(rows)), len(split)


def own_inputs(plan: Plan, expert: Expert) -> Taken:
    """The inputs of an expert that are examples of its own task."""
    part, there = of_task(plan, expert, _options(plan).examples)
    return _taken(plan, expert, [part], there, [Picked(expert.task, int(r)) for r in part.rows])


def candidates(plan: Plan) -> tuple[Candidates, ...]:
    """What the experts choose from: as many of every task of a pile, or a pool."""
    options, seed = _options(plan), plan.recipe.seed
    experts = plan.inputs.family.experts
    if options.inputs == "pool":
        names = [POOL]
    else:
        named = [options.pile] if options.pile else [e.task for e in experts if e.task]
        names = list(dict.fromkeys(named))
    each = math.ceil(options.candidates / len(names))
    found = []
    for name in names:
        split = source_of(plan, name)
        rows = drawn_rows(len(split), each, seed)
        found.append(Candidates(name, rows, split.take(rows)))
    return tuple(found)


def answered(
    plan: Plan,
    model: nn.Module,
    updates: Mapping[str, Tensor],
    expert: Expert,
    tensors: Tensors,
    there: Sequence[Candidates],
) -> Generator[Event, None, Tensor]:
    """Events of passing all candidates through an expert; returns how it answers to each (n,)."""
    found, total = [], sum(len(one.rows) for one in there)
    for one in there:
        scores = torch.zeros(len(one.rows), dtype=torch.float64)
        for places, inputs in batches_of(expert.checkpoint, one.split, _settings(plan), tensors):
            done = sum(map(len, found))
            yield Event(text=f"{expert.name} looks at input {done + 1} of {total}")
            scores[torch.from_numpy(places)] = answers(model, updates, inputs, len(places))
        found.append(scores)
    return torch.cat(found)


def choose(scores: Tensor, count: int) -> list[np.ndarray]:
    """Of each expert the places of the inputs that it answers to more than the others do, the
    surest first; `scores` (experts, inputs).

    Each takes `count`, and no more than its share of the inputs: who takes all has chosen nothing.
    """
    count = min(count, math.ceil(scores.shape[1] / scores.shape[0]))
    order = np.argsort(-told_apart(scores).numpy(), axis=1, kind="stable")
    return [row[:count] for row in order]


def margins(scores: Tensor, index: int, places: np.ndarray) -> Margin | None:
    """How far an expert's scores of its inputs are above the others'; None of a lone expert."""
    apart = told_apart(scores)[:, torch.from_numpy(places)]
    others = torch.cat([apart[:index], apart[index + 1 :]])
    if not len(others):
        return None
    ahead = apart[index] - others.amax(0)
    values = (float(ahead.min()), float(ahead.median()), float((ahead > 0).double().mean()))
    return Margin(*(round(value, DIGITS) for value in values))


def chosen_inputs(
    plan: Plan, index: int, there: Sequence[Candidates], scores: Tensor, places: np.ndarray
) -> Taken:
    """The inputs of one expert by the places of all candidates that it chose."""
    expert = plan.inputs.family.experts[index]
    ends = np.cumsum([len(one.rows) for one in there])
    which, apart = np.searchsorted(ends, places, side="right"), told_apart(scores)
    starts = ends - [len(one.rows) for one in there]
    parts, first = [], []
    for number, one in enumerate(there):
        mine = places[which == number] - starts[number]
        if len(mine):
            parts.append(one.take(mine))
    for place, number in zip(places[:SHOWN], which, strict=False):
        values = tuple(round(float(v), DIGITS) for v in apart[:, place])
        row = int(there[number].rows[place - starts[number]])
        first.append(Picked(there[number].source, row, values))
    return _taken(plan, expert, parts, int(ends[-1]), first, margins(scores, index, places))


def _taken(
    plan: Plan,
    expert: Expert,
    parts: Sequence[Candidates],
    there: int,
    first: Sequence[Picked],
    margin: Margin | None = None,
) -> Taken:
    options, count = _options(plan), sum(len(part.rows) for part in parts)
    splits = tuple(_with_copies(plan, part, count) for part in parts)
    shares = {part.source: len(part.rows) / count for part in parts}
    # Of a pile that holds the expert's task, what it takes is mostly of it.
    foreign = options.inputs != "own" and (options.inputs == "pool" or expert.task not in shares)
    known = 0 if foreign else count
    share = share_of_update(LayerStatistics(examples=known), options)
    return Taken(
        splits,
        ChosenInputs(
            expert=expert.name,
            inputs=options.inputs,
            candidates=there,
            examples=count,
            augmented=sum(map(len, splits)),
            update_share=round(share, DIGITS),
            sources=shares,
            first=tuple(first[:SHOWN]),
            margin=margin,
        ),
        known,
    )


def _with_copies(plan: Plan, part: Candidates, count: int) -> Split:
    """A part of an expert's `count` examples, with its share of all copies."""
    wanted = math.ceil(_options(plan).augment_to * len(part.rows) / count)
    return tasks.augmented(part.split, wanted, plan.recipe.seed)


def batches(
    plan: Plan, expert: Expert, parts: Sequence[Split], tensors: Tensors
) -> list[Mapping[str, Tensor]]:
    """What the expert's model is called with on these inputs."""
    settings = _settings(plan)
    each = (batches_of(expert.checkpoint, part, settings, tensors) for part in parts)
    return [inputs for found in each for _, inputs in found]


def _settings(plan: Plan) -> MeasureSettings:
    return MeasureSettings(seed=plan.recipe.seed, device=plan.device)


def _options(plan: Plan) -> SequentialOptions:
    assert isinstance(plan.options, SequentialOptions)
    return plan.options


def _kind(plan: Plan) -> Kind:
    """The kind of tasks that the family's models are asked."""
    first = plan.inputs.family.experts[0].checkpoint
    facts = models.facts_of(first.directory)
    if facts.takes == "image":
        return "image"
    if facts.takes == "text" and facts.reads:
        return "text" if facts.reads == "text" else "language"
    raise InputError(
        f"pool of inputs for '{first.path}'",
        expected="a model of images or texts",
        found=f"{facts.name}, which takes {facts.takes}",
        remedy="Choose inputs 'own' or 'pile'.",
    )
