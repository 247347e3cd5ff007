"""Elementwise curvature: diagonal Fisher merging and uncertainty-based gradient matching.

Sources: Fisher merging (arXiv 2111.09832), gradient matching (arXiv 2310.12808).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from .method import Layer, Merged, Options, averaged, option, weighted_sum


class FisherOptions(Options):
    floor: float = option(
        0.1,
        "smallest Fisher value, as a share of the tensor's mean: keeps parameters that no example "
        "touched from being decided by noise",
        low=0,
        high=1,
        step=0.01,
        source="validation split of the sample family",
    )
    normalise: bool = option(
        True,
        "divide each task's Fisher by its sum over the tensor, so that no task dominates",
        source="validation splits of the sample family and of both families of docs/study.md",
    )


class MatchingOptions(Options):
    scaling: float = option(
        1.0,
        "α, the factor of every task's weight, as in task arithmetic",
        low=0,
        high=3,
        step=0.05,
        source="arXiv 2310.12808: α_m = 1",
    )
    prior: Literal["pretrained"] | Annotated[float, Field(gt=0, allow_inf_nan=False)] = option(
        "pretrained",
        "H_0: the pre-trained model's own Fisher (needs `base_statistics`), or a number δ for δ I",
        source="arXiv 2310.12808",
    )


def floored(values: Tensor, floor: float, normalise: bool = False) -> Tensor:
    """F with every entry at least `floor` times its mean; divided by its sum first if asked."""
    if normalise:
        total = values.sum()
        values = values / total if float(total) > 0 else values
    return values.clamp_min(0).clamp_min(floor * float(values.mean()))


def fisher_average(
    values: Sequence[Tensor], fishers: tuple[Tensor, ...], shares: tuple[float, ...]
) -> Tensor:
    """Σ α_m F_m ∘ V_m / Σ α_m F_m, and the plain mean where every F_m is zero."""
    total = weighted_sum(fishers, shares)
    weighted = (f * v for f, v in zip(fishers, values, strict=True))
    mean = weighted_sum(values, shares)
    safe = torch.where(total > 0, total, 1)
    return torch.where(total > 0, weighted_sum(weighted, shares) / safe, mean)


def fisher(layer: Layer, options: FisherOptions, survey: Any = None) -> Merged:
    """W = Σ α_m F_m ∘ W_m / Σ α_m F_m; parameters without a Fisher take the mean."""
    fishers = layer.measured("fisher")
    if fishers is None:
        return averaged(layer)
    ready = tuple(floored(values, options.floor, options.normalise) for values in fishers)
    update = fisher_average(layer.updates, ready, layer.shares)
    return Merged(layer.base + update, "fisher")


def gradient_matching(layer: Layer, options: MatchingOptions, survey: Any = None) -> Merged:
    """W = W0 + Σ α_m H̄⁻¹ (H_0 + H_m) Δ_m with H̄ = H_0 + Σ α_m H_m, all diagonal."""
    hessians = layer.measured("fisher")
    prior = (
        layer.base_statistics.fisher
        if options.prior == "pretrained"
        else torch.full_like(layer.base, float(options.prior))
    )
    if hessians is None or prior is None:
        return averaged(layer)
    weights = tuple(options.scaling * weight for weight in layer.weights)
    total = prior + weighted_sum(hessians, weights)
    terms = ((prior + h) * update for h, update in zip(hessians, layer.updates, strict=True))
    # Where nothing was ever measured every H is zero; equal curvature is the limit there.
    limit = weighted_sum(layer.updates, weights) / (1 + sum(weights)) * 2 if sum(weights) else 0
    matched = torch.where(
        total > 0, weighted_sum(terms, weights) / torch.where(total > 0, total, 1), limit
    )
    return Merged(layer.base + matched, "gradient_matching")
