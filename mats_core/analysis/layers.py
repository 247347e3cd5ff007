"""Every layer of one merge in numbers, as a table that can be sorted.

With W the merge of a layer, W₀ the base, Δ_t the change of expert t and A_t its input Gram:

    moved        ‖W − W₀‖ / ‖W₀‖
    to experts   √(Σ_t ‖W − W_t‖² / Σ_t ‖Δ_t‖²): 1 as far as the base, 0 at all experts
    stable rank  ‖W − W₀‖²_F / ‖W − W₀‖²_2
    along        the mean over t of the cosine of W − W₀ with Δ_t
    between      the mean cosine of two different Δ_t
    kept         of t: 1 − tr (W − W_t) A_t (W − W_t)ᵀ / tr Δ_t A_t Δ_tᵀ, the share of the expert's
                 output shift that the merge has too; below 0: worse than the base
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..families import Family
from ..methods import METHODS
from ..recipes import Inputs
from ..statistics import Statistics
from ..system import Event, part
from .distances import measuring_distances
from .overlap import cosines, others_mean
from .spectra import Spectrum, TaskLayer, spectrum, task_layers

DISTANCES = 0.3  # of the whole, when they are measured


@dataclass(frozen=True)
class LayerRow:
    """One weight of a merge.

    name         of the weight
    moved        ‖W − W₀‖ / ‖W₀‖
    to_experts   distance to the experts, 1 for that of the base
    stable_rank  of W − W₀; 0 where nothing moved
    along        mean cosine of W − W₀ with the task vectors
    between      mean cosine of two task vectors; NaN for one task alone
    kept         task → share of its output shift; NaN without an input Gram, and where the merge
                 does not work on the expert's inputs
    """

    name: str
    moved: float
    to_experts: float
    stable_rank: float
    along: float
    between: float
    kept: Mapping[str, float]

    @property
    def mean_kept(self) -> float:
        """The mean over tasks of what is known of `kept`; NaN where nothing is."""
        known = [value for value in self.kept.values() if value == value]
        return sum(known) / len(known) if known else float("nan")


def tabulating(
    inputs: Inputs, merged: Mapping[str, Tensor], *, method: str | None = None
) -> Generator[Event, None, tuple[LayerRow, ...]]:
    """A row for every weight that is a matrix, in the checkpoint's order; events meanwhile.

    merged   tensors by the base's names
    method   that made them: the layers of a calibration are matched on the inputs that they get in
             the merge, and what they would give for the experts' inputs, which is all that files of
             statistics tell, is not said
    """
    if method is not None and METHODS[method].calibrates:
        inputs = replace(inputs, statistics=tuple(None for _ in inputs.statistics))
    family = inputs.family
    far = yield from part(measuring_distances(family, {"merge": merged}), stop=DISTANCES)
    to_experts = far.by_layer("merge")
    names = [name for name, role in family.roles.items() if role == "matrix" and name in merged]
    rows = []
    for index, name in enumerate(names):
        fraction = DISTANCES + (1 - DISTANCES) * index / len(names)
        yield Event(fraction=fraction, text=f"Looking at layer {index + 1} of {len(names)}")
        rows.append(_row(inputs, merged, name, to_experts[name]))
    return tuple(rows)


def _row(inputs: Inputs, merged: Mapping[str, Tensor], name: str, far: float) -> LayerRow:
    family = inputs.family
    base = family.weight(family.base, name, dtype=torch.float32)
    update = family.oriented(name, merged[name].to("cpu", torch.float32)) - base
    measured = measured_by_name(inputs, family)
    tasks = list(task_layers(family, measured, name, base))
    spread: Spectrum | None = spectrum("task matrix", update, None, None)
    angles = cosines([update, *(task.update for task in tasks)])
    between = others_mean(angles[1:, 1:]).mean() if len(tasks) > 1 else torch.nan
    return LayerRow(
        name,
        float(update.norm() / base.norm().clamp_min(1e-30)),
        far,
        spread.stable_rank if spread is not None else 0.0,
        float(angles[0, 1:].mean()),
        float(between),
        {task.expert.name: share_kept(update, task) for task in tasks},
    )


def measured_by_name(inputs: Inputs, family: Family) -> dict[str, Statistics]:
    """The statistics of every expert that has some, by its name."""
    pairs = zip(family.experts, inputs.statistics, strict=True)
    return {expert.name: own for expert, own in pairs if own is not None}


def share_kept(update: Tensor, task: TaskLayer) -> float:
    """The share of one task's output shift that an update has too; NaN without an input Gram."""
    return shares_kept([update], task)[0]


def shares_kept(updates: Sequence[Tensor], task: TaskLayer) -> list[float]:
    """The same of several updates."""
    if task.a is None:
        return [float("nan")] * len(updates)
    a = task.a.double()
    whole = _moved(task.update.double(), a)
    left = [_moved((update - task.update).double(), a) for update in updates]
    return [1 - one / whole if whole > 0 else float("nan") for one in left]


def _moved(change: Tensor, a: Tensor) -> float:
    """tr D A Dᵀ: the mean square by which outputs move."""
    return float((change @ a * change).sum())
