"""Singular values of a merged update, set by how much of each expert its directions carry.

SVC (arXiv 2602.05536).  With the merged update and what expert t does along its left directions

    W − W₀ = Σᵣ σᵣ uᵣ vᵣᵀ,   aᵣₜ = Δₜᵀ uᵣ,   sᵣₜ = σᵣ ⟨vᵣ, aᵣₜ⟩ / ‖aᵣₜ‖²

a direction that carries too much (s above 1) is shortened, one that carries too little is
lengthened, by 1 / α at most:

    γᵣ = 1 / Σₜ αₜ max(α, sᵣₜ),   W = W₀ + Σᵣ γᵣ σᵣ uᵣ vᵣᵀ,   Σₜ αₜ = 1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor

from ..linear import svd
from .cost import Cost, Shape, gemm, svd_bytes, thin_svd
from .layer import Layer, Merged
from .options import option

Svc = Annotated[
    float | None,
    option(
        help="α, set the singular values of the merged update by how much of each expert its "
        "directions carry, where one that carries less than α counts as α; none: they stay",
        low=0.01,
        high=1,
        step=0.05,
        label="Calibrate singular values",
        more=True,
    ),
]
PUBLISHED = "SVC, arXiv 2602.05536; 0.3 to 0.5 on validation data of the vision family"


def calibrated_update(
    update: Tensor, updates: Sequence[Tensor], shares: Sequence[float], floor: float
) -> Tensor:
    """The update with each singular value times γ (see the module's text); shares sum to one."""
    left, values, right = svd(update)
    carried = torch.zeros_like(values)
    for own, share in zip(updates, shares, strict=True):
        along = left.mT @ own
        length = along.square().sum(1)
        # An expert that does nothing along a direction is not carried there.
        s = values * (right * along).sum(1) / torch.where(length > 0, length, 1)
        carried = carried + share * s.clamp_min(floor)
    return (left * (values / carried)) @ right


def with_svc(layer: Layer, found: Merged, floor: float | None) -> Merged:
    """A merged matrix with its singular values calibrated, and so every iterate of its solve; as it
    is where `floor` is None.  What an expert with a negative weight did counts negated."""
    if floor is None or not layer.is_matrix or found.treatment != "merged":
        return found

    def moved(value: Tensor) -> Tensor:
        settings = layer.signed_updates, layer.magnitudes, floor
        return layer.base + calibrated_update(value - layer.base, *settings)

    value, solution = moved(found.value), found.solution
    if solution is not None:
        iterates = {step: moved(x) for step, x in solution.iterates.items()}
        solution = replace(solution, value=value, iterates=iterates)
    status = f"{found.status}, singular values calibrated"
    return replace(found, value=value, solution=solution, status=status)


def svc_cost(s: Shape, cost: Cost, floor: float | None) -> Cost:
    """What merging a layer costs with the calibration of its singular values counted in."""
    if floor is None or cost.treatment != "merged" or not s.is_matrix:
        return cost
    m, n = s.rows, s.columns
    work = thin_svd(m, n) + gemm(m, n, min(m, n), s.dtype) * (s.experts + 1)
    work += s.passes(6 * s.experts)
    held = max(cost.nbytes, svd_bytes(m, n) + 4 * s.nbytes)
    return replace(cost, work=cost.work + work, nbytes=held)
