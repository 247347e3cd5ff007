"""A whole family at a glance: every matrix layer and task, before anything is merged.

A layer is read, measured and freed before the next.  Symbols as in `spectra.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..families import Family
from ..linear import norm
from ..statistics import Statistics
from ..system import Event, changed, drained, part
from .overlap import cosines, others_mean, overlaps, sign_conflict
from .spectra import KINDS, Kind, Spectrum, measures, predicted_loss, task_layers

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
        return float("nan")
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
        at = Surveyed(name, tuple(layers), text=f"Looking at every layer of every task: {name}")
        steps = changed(surveying_layer(family, statistics, name), functools.partial(_at, at))
        start, stop = index / len(names), (index + 1) / len(names)
        layers.append((yield from part(steps, start, stop)))
    return Survey(tuple(expert.name for expert in family.experts), tuple(layers))


def _at(place: Surveyed, step: Event) -> Surveyed:
    return replace(place, fraction=step.fraction)


def surveying_layer(
    family: Family, statistics: Mapping[str, Statistics], name: str
) -> Generator[Event, None, LayerSurvey]:
    """Everything that the survey says about one weight, with an event before each task."""
    base = family.weight(family.base, name, dtype=torch.float32)
    d_out, d_in = base.shape
    room = max(1, d_out // len(family.experts))
    spectra: dict[Kind, list[Spectrum | None]] = {kind: [] for kind in KINDS}
    found, bases = [], {}
    for index, task in enumerate(task_layers(family, statistics, name, base)):
        yield Event(fraction=index / len(family.experts), text=f"Looking at {task.expert.name}")
        own, basis = measures(task, room)
        for kind, values in own.items():
            spectra[kind].append(values)
        bases[task.expert.name] = (
            torch.full((d_out, room), torch.nan, dtype=torch.float64) if basis is None else basis
        )
        found.append(task)
    updates = [task.update for task in found]
    average = base + torch.stack(updates).mean(0)
    return LayerSurvey(
        name=name,
        shape=(d_out, d_in),
        room=room,
        base_norm=norm(base),
        norms=torch.tensor([norm(update) for update in updates], dtype=torch.float64),
        spectra={kind: tuple(values) for kind, values in spectra.items()},
        conflict=torch.stack(sign_conflict(updates)),
        cosines=cosines(updates),
        overlaps=overlaps(bases, room),
        losses=torch.tensor(
            [
                predicted_loss(average, base + task.update, task.a, task.b)
                if task.a is not None and task.b is not None
                else float("nan")
                for task in found
            ],
            dtype=torch.float64,
        ),
    )


survey = drained(surveying)
survey_layer = drained(surveying_layer)
