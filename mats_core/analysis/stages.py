"""One layer of a merge, stage by stage, in matrices that are small enough to be looked at.

The layer is merged once more while it is watched (`Layer.show`): every number is one that the merge
computes.  Of each matrix `WINDOW` rows and columns are kept, chosen in three ways: the first ones,
those in which the experts move most, or the means of so many blocks.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from ..checkpoints import Weights
from ..errors import InputError
from ..linear import Gram, matrix
from ..merging import calibrating_one, inputs_of_last_round, merge_one
from ..methods import METHODS, PLAIN, Stage
from ..recipes import Inputs, Plan, Recipe, Report, prepare
from ..system import Event, part
from .layers import measured_by_name, shares_kept
from .spectra import task_layers

View = Literal["first", "moved", "means"]
VIEWS: tuple[View, ...] = ("moved", "first", "means")
WINDOW = 12  # rows and columns that are kept
MOST_STEPS = 51  # of a solve whose iterates are kept
MOST_KEPT = 1 << 26  # entries of all iterates together
AT_ONCE = 1 << 20  # entries of a matrix that are looked at together
MADE = 0.7  # of the whole, when the layer is merged


@dataclass(frozen=True)
class Window:
    """A few rows and columns of a matrix.

    rows      what is in each row: its number, or `first–last` of those whose mean it is
    columns   the same of the columns
    values    (rows, columns)
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: Tensor


@dataclass(frozen=True)
class Seen:
    """A matrix that was seen on the way.

    shape     of the whole matrix; (1, 1) for a number, (1, n) for a row of numbers
    norm      its Frobenius norm
    windows   what is kept of it, by the choice of rows and columns
    """

    shape: tuple[int, int]
    norm: float
    windows: Mapping[View, Window]

    @property
    def number(self) -> float | None:
        """Its only entry, where it has no other."""
        return float(self.windows["first"].values) if self.shape == (1, 1) else None


@dataclass(frozen=True)
class LayerSteps:
    """One layer of a merge, stage by stage.

    name       the weight
    method     that was applied to it: a fallback has another name than the run's
    status     how the result was computed, or why the solve ended
    experts    their names
    stages     those that the layer went through, in their order
    seen       key of a stage → its matrices: one an expert, one a step of the solve, or one in all
    folded     whether the bias is the last column
    residuals  relative residuals of the solve, from the start on; empty where nothing is solved
    steps      the steps of the solve whose iterates are in `seen`
    kept       the mean share of the experts' output shifts that each of these iterates has (see
               `LayerRow.kept`); NaN without input Grams, and of a calibrated layer, which is
               matched on other inputs
    """

    name: str
    method: str
    status: str
    experts: tuple[str, ...]
    stages: tuple[Stage, ...]
    seen: Mapping[str, tuple[Seen, ...]]
    folded: bool = False
    residuals: tuple[float, ...] = ()
    steps: tuple[int, ...] = ()
    kept: tuple[float, ...] = ()


def stepping(
    recipe: Recipe,
    report: Report,
    inputs: Inputs,
    name: str,
    merged: Mapping[str, Tensor] | None = None,
) -> Generator[Event, None, LayerSteps]:
    """Events of one layer of a finished merge that is made again; returns its stages.

    recipe   of the merge, with the options that were applied
    report   of the merge
    name     of a weight that is a matrix
    merged   the merge, by the base's names: for a method that measures each layer at the merge of
             those before it

    Raises `InputError` for another tensor, and for a merge of (IA)³ vectors.
    """
    told = next((layer for layer in report.layers if layer.name == name), None)
    _require_matrix(inputs, name, told is not None)
    assert told is not None
    inputs = yield from part(inputs_of_last_round(recipe, inputs), stop=0.3)
    plan = prepare(recipe, inputs, _steps(told.iterations, inputs.family.shape(name)))
    watched = _Watched(inputs, name, plan.dtype)
    plan = replace(plan, watch=watched.see)
    if plan.method.calibrates and merged is not None:
        made = calibrating_one(plan, name, merged)
    else:
        made = merge_one(plan, name, told.details.get("layer_weight"))
    done, tensors = yield from part(made, 0.3, MADE)
    own = done.entry.report
    watched.compared(inputs.family.oriented(name, tensors[name]))
    if "layer_weight" in own.details:
        watched.see("layer weight", 0, torch.tensor(own.details["layer_weight"]))
    for index, value in enumerate(done.iterates.values()):
        watched.see("iterate", index, value)
    yield Event(fraction=MADE, text="Looking at every step of the solve")
    iterates = tuple(done.iterates.values())
    if plan.method.calibrates:  # it does not stand on the experts' inputs
        kept = (math.nan,) * len(iterates)
    else:
        kept = _mean_kept(inputs, name, iterates)
    seen = watched.done()
    folded = plan.method.folds(plan.at(name).options)
    rows, columns = inputs.family.shape(name)
    stages = tuple(
        as_seen(stage, seen[stage.key][0], (rows, columns + folded))
        for stage in _stages(plan, own.method)
        if stage.key in seen
    )
    experts = tuple(expert.name for expert in inputs.family.experts)
    solve = (own.residuals, tuple(done.iterates), kept)
    return LayerSteps(name, own.method, own.status, experts, stages, seen, folded, *solve)


def task_matrices(recipe: Recipe, inputs: Inputs, name: str) -> LayerSteps:
    """The first stage of a layer: what every expert changes in it.  Nothing is merged for it, so
    that its status is empty.  Raises `InputError` as `stepping` does.
    """
    _require_matrix(inputs, name)
    experts = tuple(expert.name for expert in inputs.family.experts)
    seen = _Watched(inputs, name, torch.float32).done()
    return LayerSteps(name, recipe.method, "", experts, PLAIN[:1], seen)  # every method's first


def _require_matrix(inputs: Inputs, name: str, merged: bool = True) -> None:
    if not merged or inputs.family.roles.get(name) != "matrix" or inputs.vectors is not None:
        raise InputError(
            f"tensor '{name}'",
            expected="a matrix that the run merged",
            found="(IA)³ vectors, of which it follows" if inputs.vectors else "none",
        )


def _stages(plan: Plan, applied: str) -> tuple[Stage, ...]:
    """The stages of what was applied, which may be a fallback."""
    if applied == plan.method.name or applied in plan.method.ways:
        return plan.method.stages
    return METHODS[applied].stages if applied in METHODS else PLAIN


def as_seen(stage: Stage, seen: Seen, size: tuple[int, int]) -> Stage:
    """A stage with the axes of its matrix: of a layer that is merged in another space, directions
    stand where its outputs and inputs would.

    size    of the layer
    """
    if seen.number is not None:
        return stage
    whole: dict[str, int] = dict(zip(("output", "input"), size, strict=True))
    first, second = (
        "direction" if whole.get(axis, length) != length else axis
        for axis, length in zip(stage.axes, seen.shape, strict=True)
    )
    return replace(stage, axes=(first, second))


def _steps(iterations: int, shape: Sequence[int]) -> tuple[int, ...]:
    """Steps of a solve that are kept: all, or as many as there is room for, evenly."""
    most = max(2, min(MOST_STEPS, MOST_KEPT // math.prod(shape)))
    if not iterations:
        return ()
    gap = max(1.0, iterations / (most - 1))
    return tuple(sorted({min(iterations, round(i * gap)) for i in range(most)}))


def _mean_kept(inputs: Inputs, name: str, iterates: Sequence[Tensor]) -> tuple[float, ...]:
    """The mean share of the experts' output shifts that each iterate has."""
    family = inputs.family
    base = family.weight(family.base, name, dtype=torch.float32)
    updates = [x[:, : base.shape[1]].to("cpu", torch.float32) - base for x in iterates]
    tasks = task_layers(family, measured_by_name(inputs, family), name, base) if updates else ()
    shares = [shares_kept(updates, task) for task in tasks]
    known = [row for row in shares if row and row[0] == row[0]]
    if not known:
        return (math.nan,) * len(updates)
    return tuple(sum(column) / len(known) for column in zip(*known, strict=True))


# Watching -----------------------------------------------------------------------------------------


class _Watched:
    """What was seen so far of one weight, by stage and place."""

    def __init__(self, inputs: Inputs, name: str, dtype: torch.dtype) -> None:
        self._family, self._name, self._dtype = inputs.family, name, dtype
        self._axes = {s.key: s.axes for m in METHODS.values() for s in (*m.stages, *PLAIN)}
        self._sights: dict[tuple[str, int], _Sight] = {}
        self._base = self._read(self._family.base)
        squares = sum(update.square() for update in self._updates())
        assert isinstance(squares, Tensor)
        self._chosen = {"output": _largest(squares.sum(1)), "input": _largest(squares.sum(0))}
        for index, update in enumerate(self._updates()):
            self.see("task matrix", index, update)

    def _read(self, weights: Weights) -> Tensor:
        return self._family.weight(weights, self._name, dtype=self._dtype)

    def _updates(self) -> Iterator[Tensor]:
        for expert in self._family.experts:
            yield self._read(expert.checkpoint) - self._base

    def see(self, stage: str, place: int, value: Gram, start: int = 0) -> None:
        """A value of a stage, or its entries from `start` on, where it comes in flat pieces."""
        seen, axes = matrix(value).detach().to("cpu"), self._axes[stage]
        if (stage, place) not in self._sights:
            piece = seen.ndim == 1 and axes == ("output", "input")
            rows, columns = self._base.shape if piece else torch.atleast_2d(seen).shape
            picked = [self._chosen.get(axis, []) for axis in axes]
            self._sights[stage, place] = _Sight((rows, columns), picked[0], picked[1])
        self._sights[stage, place].add(seen.reshape(-1), start)

    def compared(self, merged: Tensor) -> None:
        """The merged matrix, and what it changes in the base."""
        value = merged.to(self._dtype)
        self.see("update", 0, value - self._base)
        self.see("merged", 0, value)

    def done(self) -> dict[str, tuple[Seen, ...]]:
        """All that was seen, by stage."""
        found: dict[str, tuple[Seen, ...]] = {}
        for (stage, _), sight in self._sights.items():
            found[stage] = (*found.get(stage, ()), sight.seen())
        return found


def _largest(sizes: Tensor) -> list[int]:
    return sorted(sizes.topk(min(WINDOW, len(sizes))).indices.tolist())


class _Sight:
    """The windows of one matrix (rows, columns), filled piece by piece.

    `picked`: the rows and columns in which the experts move most; the first ones where empty.
    """

    def __init__(self, shape: tuple[int, int], rows: list[int], columns: list[int]) -> None:
        self.shape, self._square = shape, 0.0
        first = [list(range(min(WINDOW, size))) for size in shape]
        moved = [rows or first[0], columns or first[1]]
        self._picked: dict[View, list[list[int]]] = {"first": first, "moved": moved}
        small = (len(first[0]), len(first[1]))
        self._values = {view: torch.full(small, math.nan) for view in self._picked}
        self._sums = torch.zeros(small, dtype=torch.float64)

    def add(self, flat: Tensor, start: int) -> None:
        """The entries from `start` on: whole rows, and what is there of one before and behind."""
        width = self.shape[1]
        most = max(1, AT_ONCE // width) * width
        while len(flat):
            row, column = divmod(start, width)
            rest = len(flat) if len(flat) + column < width else width - column
            count = rest if column or len(flat) < width else min(len(flat) // width * width, most)
            block = flat[:count].reshape(1 if count < width else -1, min(count, width))
            self._look(block, row, column)
            self._square += float(torch.linalg.vector_norm(block, dtype=torch.float64)) ** 2
            flat, start = flat[count:], start + count

    def _look(self, block: Tensor, row: int, column: int) -> None:
        """Rows and columns of the matrix that begin at these."""
        ends = (row + len(block), column + block.shape[1])
        for view, picked in self._picked.items():
            here = [
                [place for place, one in enumerate(own) if low <= one < high]
                for own, low, high in zip(picked, (row, column), ends, strict=True)
            ]
            if not all(here):
                continue
            rows, columns = (
                torch.tensor([own[place] - low for place in places])
                for own, low, places in zip(picked, (row, column), here, strict=True)
            )
            seen = block[rows][:, columns].float()
            self._values[view][torch.tensor(here[0])[:, None], torch.tensor(here[1])] = seen
        height, width = self._sums.shape
        of_rows = torch.arange(row, ends[0]) * height // self.shape[0]
        of_columns = torch.arange(column, ends[1]) * width // self.shape[1]
        narrow = torch.zeros(len(block), width, dtype=torch.float64)
        narrow.index_add_(1, of_columns, block.double())
        self._sums.index_add_(0, of_rows, narrow)

    def seen(self) -> Seen:
        """What was filled."""
        windows: dict[View, Window] = {}
        for view, (rows, columns) in self._picked.items():
            named = (tuple(map(str, rows)), tuple(map(str, columns)))
            windows[view] = Window(*named, self._values[view])
        height, width = (_blocks(n, m) for n, m in zip(self._sums.shape, self.shape, strict=True))
        counts = torch.tensor(height[1])[:, None] * torch.tensor(width[1])
        windows["means"] = Window(height[0], width[0], (self._sums / counts).float())
        return Seen(self.shape, self._square**0.5, windows)


def _blocks(count: int, size: int) -> tuple[tuple[str, ...], list[int]]:
    """What is in each of `count` blocks of `size` rows or columns, and how many of them."""
    ends = [math.ceil(i * size / count) for i in range(count + 1)]
    pairs = [(low, high - 1) for low, high in pairwise(ends)]
    named = tuple(str(low) if low == high else f"{low}–{high}" for low, high in pairs)
    return named, [high - low for low, high in pairwise(ends)]


__all__ = [
    "VIEWS", "WINDOW", "LayerSteps", "Seen", "View", "Window", "stepping", "task_matrices",
]  # fmt: skip
