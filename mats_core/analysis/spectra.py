"""Looking at a layer: spectra, ranks, overlaps, and the loss a merge is predicted to cost.

Symbols as in `mats_core.statistics`; Δ is a task matrix (d_out, d_in).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..families import Expert, Family
from ..linear import (
    Kronecker,
    eigenvalues,
    eigh_descending,
    exact,
    singular_values,
    svd,
    symmetric,
)
from ..methods import essential_subspace
from ..names import module_of
from ..statistics import Statistics

Kind = Literal["input", "output gradient", "essential", "task matrix"]
KINDS: dict[Kind, str] = {
    "input": "eigenvalues of A, the input Gram",
    "output gradient": "eigenvalues of B, the output-gradient Gram",
    "essential": "eigenvalues of Δ A Δᵀ, the moment of the output shift",
    "task matrix": "singular values of Δ",
}


@dataclass(frozen=True)
class Spectrum:
    """A spectrum: its `values`, largest first, and what they say about rank."""

    values: Tensor

    @property
    def stable_rank(self) -> float:
        """The stable rank Σ v / max v; of singular values pass the squares."""
        top = float(self.values.max()) if len(self.values) else 0.0
        return float(self.values.sum()) / top if top > 0 else 0.0

    @property
    def effective_rank(self) -> float:
        """The exponential of the entropy of the normalised spectrum (Roy & Vetterli, 2007)."""
        total = float(self.values.sum())
        if not total > 0:
            return 0.0
        p = self.values.double() / total
        p = p[p > 0]
        return float(torch.exp(-(p * p.log()).sum()))

    def energy(self, rank: int) -> float:
        """The share of the sum that the first `rank` values hold."""
        total = float(self.values.sum())
        return float(self.values[:rank].sum()) / total if total > 0 else 0.0


def spectrum(kind: Kind, update: Tensor, a: Tensor | None, b: Tensor | None) -> Spectrum | None:
    """One spectrum of one task in one layer; None where its statistics were not measured.

    Eigenvalues are energies; the singular values of Δ are squared, to be energies as well.
    Essential ones below the rounding of a float32 Gram are zero, as in `essential_subspace`.
    """
    if kind == "task matrix":
        return Spectrum(_eigenvalues(_smaller_gram(exact(update))))
    if kind == "output gradient":
        return Spectrum(_eigenvalues(b)) if b is not None else None
    if a is None:
        return None
    if kind == "input":
        return Spectrum(_eigenvalues(a))
    return Spectrum(essential_subspace(exact(update), exact(a), len(update))[1])


def _eigenvalues(matrix: Tensor) -> Tensor:
    return eigenvalues(symmetric(exact(matrix))).flip(0).clamp_min(0)


def _smaller_gram(matrix: Tensor) -> Tensor:
    return matrix @ matrix.mT if matrix.shape[0] <= matrix.shape[1] else matrix.mT @ matrix


def subspace(
    kind: Kind, update: Tensor, a: Tensor | None, b: Tensor | None, rank: int
) -> Tensor | None:
    """The `rank` strongest directions of one task in one layer, as orthonormal columns (d, rank).

    d is d_in for A and d_out for the others (of Δ, the left singular vectors).  Essential
    directions in which no output moves are zero columns.  None where statistics are missing.
    """
    if kind == "task matrix":
        return svd(update)[0][:, :rank]
    if kind == "output gradient":
        return eigh_descending(b, rank)[1] if b is not None else None
    if a is None:
        return None
    return (
        eigh_descending(a, rank)[1] if kind == "input" else essential_subspace(update, a, rank)[0]
    )


@dataclass(frozen=True)
class TaskLayer:
    """One task in one layer: Δ (d_out, d_in), A (d_in, d_in) and B (d_out, d_out) if measured."""

    expert: Expert
    update: Tensor
    a: Tensor | None
    b: Tensor | None


def task_layers(
    family: Family, statistics: Mapping[str, Statistics], name: str, base: Tensor | None = None
) -> Iterator[TaskLayer]:
    """Every task's view of one weight, read one after another.

    Raises `InputError` where statistics do not fit the weight.
    """
    base = family.weight(family.base, name, dtype=torch.float32) if base is None else base
    for expert in family.experts:
        yield task_layer(family, statistics.get(expert.name), name, expert, base)


def task_layer(
    family: Family, own: Statistics | None, name: str, expert: Expert, base: Tensor
) -> TaskLayer:
    """The view of one task on one weight, of which the base's value is `base` (d_out, d_in)."""
    (d_out, d_in), module = base.shape, module_of(name)
    return TaskLayer(
        expert,
        family.weight(expert.checkpoint, name, dtype=torch.float32) - base,
        own.read(f"{module}.input_gram", (d_in, d_in)) if own else None,
        own.read(f"{module}.output_gradient_gram", (d_out, d_out)) if own else None,
    )


def measures(task: TaskLayer, rank: int) -> tuple[dict[Kind, Spectrum | None], Tensor | None]:
    """Spectra of all kinds, and the `rank` strongest essential directions (d_out, rank).

    One decomposition serves both the essential spectrum and its directions.
    """
    others: dict[Kind, Spectrum | None] = {
        kind: spectrum(kind, task.update, task.a, task.b) for kind in KINDS if kind != "essential"
    }
    if task.a is None:
        return {**others, "essential": None}, None
    basis, values = essential_subspace(exact(task.update), exact(task.a), len(task.update))
    return {**others, "essential": Spectrum(values)}, basis[:, :rank]


def layer_spectra(
    family: Family, statistics: Mapping[str, Statistics], name: str, kind: Kind
) -> dict[str, Spectrum]:
    """The spectrum of one weight by task; tasks without the statistics are left out."""
    tasks = task_layers(family, statistics, name)
    found = ((t.expert.name, spectrum(kind, t.update, t.a, t.b)) for t in tasks)
    return {task: result for task, result in found if result is not None}


def layer_subspaces(
    family: Family, statistics: Mapping[str, Statistics], name: str, kind: Kind
) -> dict[str, Tensor]:
    """The directions in one weight by task, strongest first: (d, min(d_out, d_in)) each."""
    tasks, most = task_layers(family, statistics, name), min(family.shape(name))
    found = ((t.expert.name, subspace(kind, t.update, t.a, t.b, most)) for t in tasks)
    return {task: basis for task, basis in found if basis is not None}


def principal_angles(first: Tensor, second: Tensor) -> Tensor:
    """The angles in radians, smallest first, between the spans of two orthonormal bases (d, r)."""
    return singular_values(first.double().mT @ second.double()).clamp(0, 1).acos()


def overlap(first: Tensor, second: Tensor) -> float:
    """`‖E_sᵀ E_t‖_F² / r`: 1 for equal subspaces, 0 for orthogonal ones, r/d for random ones."""
    return float((first.mT @ second).square().sum()) / first.shape[1]


def predicted_loss(value: Tensor, expert: Tensor, a: Tensor, b: Tensor) -> float:
    """`½ (W − W_m) · C_m (W − W_m)` with the K-FAC block: the loss in nats, to second order."""
    difference = (value - expert).double()
    return 0.5 * float((difference * Kronecker(b.double(), a.double()).apply(difference)).sum())
