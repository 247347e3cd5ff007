"""A whole family at a glance: every matrix layer and task, before anything is merged.

A layer is read, measured and freed before the next.  Symbols as in `spectra.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..families import Family
from ..linear import norm
from ..statistics import Statistics
from ..system import Event, drained
from .overlap import cosines, others_mean, overlaps, sign_conflict
from .spectra import KINDS, Kind, Spectrum, TaskLayer, measures, predicted_loss, task_layers

Quantity = Literal[
    "relative norm",
    "norm",
    "stable rank",
    "effective rank",
    "energy",
    "sign conflict",
    "sign conflict by mass",
    "cosine",
    "overlap",
    "cost of averaging",
]
OF_A_KIND: tuple[Quantity, ...] = ("stable rank", "effective rank", "energy")


@dataclass(frozen=True)
class LayerSurvey:
    """One weight, all T tasks; NaN where a task lacks the statistics.

    room         ⌊d_out / T⌋ (at least 1): the directions that each task has room for
    base_norm    ‖W0‖
    norms        (T,) ‖Δ_t‖
    spectra      of each kind, one a task
    conflict     (2, T) sign conflict by entries and by mass
    cosines      (T, T) of the task vectors
    overlaps     (T, T) of the first `room` essential directions
    losses       (T,) `predicted_loss` of the mean of the experts: comparable within a task
    """

    name: str
    shape: tuple[int, int]
    room: int
    base_norm: float
    norms: Tensor
    spectra: Mapping[Kind, tuple[Spectrum | None, ...]]
    conflict: Tensor
    cosines: Tensor
    overlaps: Tensor
    losses: Tensor


@dataclass(frozen=True)
class Survey:
    """Spectra and overlaps of every layer of a family.

    tasks    names of the experts
    layers   a record for each weight, in the checkpoint's order
    """

    tasks: tuple[str, ...]
    layers: tuple[LayerSurvey, ...]

    def values(self, quantity: Quantity, kind: Kind = "essential", rank: int = 1) -> Tensor:
        """One quantity as an array (layers, tasks), NaN where statistics are missing.

        `kind` matters to ranks and energy, `rank` to energy alone.  Cosine and overlap are each
        task's mean over the others; the cost is each layer's share of its task's whole.
        """
        if quantity in OF_A_KIND:
            rows = [[_of(s, quantity, rank) for s in la.spectra[kind]] for la in self.layers]
            return torch.tensor(rows, dtype=torch.float64)
        if quantity == "cost of averaging":
            losses = torch.stack([layer.losses for layer in self.layers])
            return losses / losses.nansum(0).clamp_min(1e-300)
        read: dict[str, Callable[[LayerSurvey], Tensor]] = {
            "norm": lambda la: la.norms,
            "relative norm": lambda la: la.norms / max(la.base_norm, 1e-300),
            "sign conflict": lambda la: la.conflict[0],
            "sign conflict by mass": lambda la: la.conflict[1],
            "cosine": lambda la: others_mean(la.cosines),
            "overlap": lambda la: others_mean(la.overlaps),
        }
        return torch.stack([read[quantity](layer) for layer in self.layers])


def _of(found: Spectrum | None, quantity: Quantity, rank: int) -> float:
    if found is None:
        return math.nan
    if quantity == "energy":
        return found.energy(rank)
    return found.stable_rank if quantity == "stable rank" else found.effective_rank


@dataclass(frozen=True)
class Surveyed(Event):
    """An event: a task of the weight `name` is next; `layers` are those that are done."""

    name: str
    layers: tuple[LayerSurvey, ...]


def surveying(
    family: Family, statistics: Mapping[str, Statistics], names: Sequence[str]
) -> Generator[Surveyed, None, Survey]:
    """The survey of the weights `names`, one after another, with an event before each task.

    Raises `InputError` where statistics do not fit a weight.
    """
    layers: list[LayerSurvey] = []
    for index, name in enumerate(names):
        base = family.weight(family.base, name, dtype=torch.float32)
        room, count = max(1, len(base) // len(family.experts)), len(family.experts)
        found = []
        for place, task in enumerate(task_layers(family, statistics, name, base)):
            text = f"Looking at every layer of every task: {name}"
            fraction = (index + place / count) / len(names)
            yield Surveyed(name, tuple(layers), fraction=fraction, text=text)
            found.append((task, *measures(task, room)))
        layers.append(_layer(name, room, base, found))
    return Survey(tuple(expert.name for expert in family.experts), tuple(layers))


def _layer(
    name: str,
    room: int,
    base: Tensor,
    found: Sequence[tuple[TaskLayer, dict[Kind, Spectrum | None], Tensor | None]],
) -> LayerSurvey:
    d_out, d_in = base.shape
    unknown = torch.full((d_out, room), torch.nan, dtype=torch.float64)
    tasks = [task for task, _, _ in found]
    updates = [task.update for task in tasks]
    average = base + torch.stack(updates).mean(0)
    losses = [
        predicted_loss(average, base + task.update, task.a, task.b)
        if task.a is not None and task.b is not None
        else math.nan
        for task in tasks
    ]
    bases = {t.expert.name: unknown if basis is None else basis for t, _, basis in found}
    return LayerSurvey(
        name=name,
        shape=(d_out, d_in),
        room=room,
        base_norm=norm(base),
        norms=torch.tensor([norm(update) for update in updates], dtype=torch.float64),
        spectra={kind: tuple(own[kind] for _, own, _ in found) for kind in KINDS},
        conflict=torch.stack(sign_conflict(updates)),
        cosines=cosines(updates),
        overlaps=overlaps(bases, room),
        losses=torch.tensor(losses, dtype=torch.float64),
    )


survey = drained(surveying)
