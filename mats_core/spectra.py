"""Looking at a layer: spectra, ranks, overlaps, and the loss a merge is predicted to cost.

Symbols as in `mats_core.statistics`; Δ is a task matrix (d_out, d_in).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .families import Family, module_of
from .linalg import eigh_descending
from .methods.essential import shift_covariance
from .operators import Kronecker
from .statistics import Statistics

Kind = Literal["input", "output gradient", "essential", "task matrix"]
KINDS: dict[Kind, str] = {
    "input": "eigenvalues of A, the input Gram",
    "output gradient": "eigenvalues of B, the output-gradient Gram",
    "essential": "eigenvalues of Δ A Δᵀ, the moment of the output shift",
    "task matrix": "singular values of Δ",
}


@dataclass(frozen=True)
class Spectrum:
    """Values largest first, and what they say about rank."""

    values: Tensor

    @property
    def stable_rank(self) -> float:
        """Σ v / max v: for singular values pass their squares."""
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
        """Share of the sum that the first `rank` values hold."""
        total = float(self.values.sum())
        return float(self.values[:rank].sum()) / total if total > 0 else 0.0


def spectrum(kind: Kind, update: Tensor, a: Tensor | None, b: Tensor | None) -> Spectrum | None:
    """One spectrum of one task in one layer; None where its statistics were not measured.

    Eigenvalues are energies; the singular values of Δ are squared, to be energies as well.
    """
    if kind == "task matrix":
        return Spectrum(torch.linalg.svdvals(update.double()) ** 2)
    if kind == "output gradient":
        return Spectrum(eigh_descending(b.double())[0].clamp_min(0)) if b is not None else None
    if a is None:
        return None
    matrix = a if kind == "input" else shift_covariance(update.double(), a.double())
    return Spectrum(eigh_descending(matrix.double())[0].clamp_min(0))


def layer_spectra(
    family: Family, statistics: Mapping[str, Statistics], name: str, kind: Kind
) -> dict[str, Spectrum]:
    """Every task's spectrum of one weight; tasks without the statistics are left out."""
    base = family.base.read(name, dtype=torch.float32)
    d_out, d_in = base.shape
    module = module_of(name)
    found: dict[str, Spectrum] = {}
    for expert in family.experts:
        own = statistics.get(expert.name)
        a = own.read(f"{module}.input_gram", (d_in, d_in)) if own else None
        b = own.read(f"{module}.output_gradient_gram", (d_out, d_out)) if own else None
        update = expert.checkpoint.read(name, dtype=torch.float32) - base
        result = spectrum(kind, update, a, b)
        if result is not None:
            found[expert.name] = result
    return found


def principal_angles(first: Tensor, second: Tensor) -> Tensor:
    """Angles in radians, smallest first, between the spans of two orthonormal bases (d, r)."""
    return torch.linalg.svdvals(first.double().mT @ second.double()).clamp(0, 1).acos()


def overlap(first: Tensor, second: Tensor) -> float:
    """`‖E_sᵀ E_t‖_F² / r`: 1 for the same subspace, 0 for orthogonal ones, r/d for random ones."""
    return float((first.mT @ second).square().sum()) / first.shape[1]


def predicted_loss(value: Tensor, expert: Tensor, a: Tensor, b: Tensor) -> float:
    """`½ (W − W_m) · C_m (W − W_m)` with the K-FAC block: the loss in nats, to second order."""
    difference = (value - expert).double()
    return 0.5 * float((difference * Kronecker(b.double(), a.double()).apply(difference)).sum())
