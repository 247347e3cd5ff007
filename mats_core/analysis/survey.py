"""A whole family at a glance: every matrix layer and task, before anything is merged.

A layer is read, measured and freed before the next.  Symbols as in `spectra.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..families import Family
from ..linear import norm
from ..statistics import Statistics
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


def survey(
    family: Family,
    statistics: Mapping[str, Statistics],
    names: Sequence[str],
    *,
    on_step: Callable[[float, str], None] = lambda fraction, name: None,
) -> Iterator[LayerSurvey]:
    """The survey of the weights `names`, taken one after another.

    `on_step(fraction, name)` is called before each task of each layer; what it raises ends the
    survey.  Raises `InputError` where statistics do not fit a weight.
    """
    steps = len(names) * len(family.experts)
    for index, name in enumerate(names):
        done = index * len(family.experts)

        def on_task(task: int, done: int = done, name: str = name) -> None:
            on_step((done + task) / steps, name)

        yield survey_layer(family, statistics, name, on_task=on_task)


def survey_layer(
    family: Family,
    statistics: Mapping[str, Statistics],
    name: str,
    *,
    on_task: Callable[[int], None] = lambda task: None,
) -> LayerSurvey:
    """Everything that the survey says about one weight."""
    base = family.weight(family.base, name, dtype=torch.float32)
    d_out, d_in = base.shape
    room = max(1, d_out // len(family.experts))
    spectra: dict[Kind, list[Spectrum | None]] = {kind: [] for kind in KINDS}
    found, bases = [], {}
    for index, task in enumerate(task_layers(family, statistics, name, base)):
        on_task(index)
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
