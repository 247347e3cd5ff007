"""A second round: statistics measured again where the merge landed.

A merge by curvature minimises `Σ α_m ½ (W − W_m)ᵀ C_m (W − W_m)` with C_m measured at the expert.
But an expert is sure of its own examples: its gradients there are small and say little about what
hurts further out.  What the loss really does between W_m and the merge W is governed by the
curvature *along the way*,

    ∇L_m(W) − ∇L_m(W_m) = ∫₀¹ H_m(W_m + t (W − W_m)) dt · (W − W_m),

so each further round measures A, B and F once more, of the merged encoder with the expert's head on
the expert's own calibration examples, and merges the experts again with those statistics.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from .. import tasks
from ..adapters import Adapted
from ..errors import InputError
from ..evaluation import with_head
from ..families import Expert
from ..methods import METHODS
from ..recipes import Inputs, Recipe, under_base_names
from ..statistics import EXAMPLES, Labels, MeasureSettings, Statistics, measuring_task
from ..system import Event, drained, part


def require(recipe: Recipe, inputs: Inputs) -> None:
    """Raise `InputError` where a recipe asks for a further round that cannot be."""
    if recipe.rounds == 1:
        return
    method = METHODS[recipe.method]
    if not method.reads(recipe.parsed_options()):
        can = method.group == "statistics"
        raise InputError(
            f"'rounds' {recipe.rounds} with method '{recipe.method}'",
            expected="options with which it reads statistics"
            if can
            else "a method that reads statistics",
            found="none of them is read: a second round would change nothing",
            remedy="Leave 'rounds' out.",
        )
    for expert, own in zip(inputs.family.experts, inputs.statistics, strict=True):
        _require(expert, own)


def _require(expert: Expert, own: Statistics | None) -> Statistics:
    if own is None or not expert.task:
        raise InputError(
            f"a further round for expert '{expert.name}'",
            expected="its statistics and its task, to measure again at the merge",
            found="no statistics" if own is None else "no task",
            remedy="Name both in the recipe, or leave 'rounds' at 1.",
        )
    return own


def measuring_at(
    inputs: Inputs,
    encoder: Mapping[str, Tensor],
    folder: Path,
    *,
    labels: Labels | None = None,
    device: str = "cpu",
) -> Generator[Event, None, Inputs]:
    """The same files with statistics of `encoder` instead of the experts'.

    encoder     merged tensors by the base's names, as a merge returns them
    folder      where the experts' task references start
    labels      `empirical` or `true`; as the experts' statistics were measured by default

    An event before each expert and after each batch of its examples.  Number of examples, seed and
    full blocks are those of each expert's statistics.  Raises `InputError` for an expert without
    statistics or task.
    """
    found: list[Statistics] = []
    pairs = list(zip(inputs.family.experts, inputs.statistics, strict=True))
    for index, (expert, maybe) in enumerate(pairs):
        own = _require(expert, maybe)
        start, stop = index / len(pairs), (index + 1) / len(pairs)
        said = f"Measuring statistics of {expert.name} ({index + 1} of {len(pairs)}) at the merge"
        yield Event(fraction=start, text=said)
        settings = MeasureSettings(
            examples=examples_of(own),
            labels=labels or ("true" if own.metadata.get("labels") == "true" else "empirical"),
            seed=_number(own, "seed", 0),
            blocks=_blocks(expert, own),
            rank=_number(own, "rank", 0),
            device=device,
        )
        task = tasks.load(expert.task, root=folder)
        tensors = with_head(encoder, inputs.family, expert)
        steps = measuring_task(expert.checkpoint, task, settings, tensors=tensors)
        again = yield from part(steps, start, stop, said)
        found.append(under_base_names(again, expert.checkpoint))
    # What was remembered belongs to the statistics before.
    return replace(inputs, statistics=tuple(found), memo=inputs.memo.fresh())


measured_at = drained(measuring_at)


def _blocks(expert: Expert, own: Statistics) -> int:
    """Up to how many elements parameters have a full Fisher block; vectors of (IA)³ always have."""
    vectors = expert.checkpoint.vectors if isinstance(expert.checkpoint, Adapted) else {}
    blocks = {n.removesuffix(".block"): s for n, s in own.shapes.items() if n.endswith(".block")}
    return max((shape[0] for name, shape in blocks.items() if name not in vectors), default=0)


def examples_of(own: Statistics) -> int:
    """Number of examples on which statistics were measured."""
    return _number(own, "examples", EXAMPLES)


def _number(own: Statistics, key: str, default: int) -> int:
    text = own.metadata.get(key, "")
    return int(text) if text.isdigit() else default


def mean_of(rounds: Sequence[Inputs]) -> Inputs:
    """Inputs with the mean of the statistics of several rounds: a quadrature of the way between.

    Kinds and layers that one of them lacks are left out.
    """
    of_experts = zip(*(inputs.statistics for inputs in rounds), strict=True)
    return replace(rounds[0], statistics=tuple(map(_mean, of_experts)), memo=rounds[0].memo.fresh())


def _mean(parts: Sequence[Statistics | None]) -> Statistics | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    shared = set(known[0].shapes).intersection(*(part.shapes for part in known))
    tensors = {}
    for name in sorted(shared):
        if name.endswith("_factor"):  # FᵀF of rows side by side is the sum of their Grams
            rows = [part.stored(name) for part in known]
            tensors[name] = torch.cat(rows) / len(known) ** 0.5
            continue
        values = [part.read(name, part.shapes[name]) for part in known]
        tensors[name] = sum(value for value in values if value is not None) / len(known)
    return Statistics.of(tensors, known[0].metadata)  # type: ignore[arg-type]
