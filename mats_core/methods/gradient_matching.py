"""Uncertainty-based gradient matching with diagonal Fishers (arXiv 2310.12808)."""

from __future__ import annotations

from typing import Any

import torch

from ..linear import weighted_sum
from .cost import Cost, Shape
from .cost import averaged as averaged_cost
from .fisher import require_positive
from .layer import FISHER, Layer, Merged, averaged
from .method import Method
from .options import Factor, Options, Prior, option
from .stages import TASK_MATRIX, UPDATE, Stage, outcome

FACTOR = "α, the factor of every task's weight, as in task arithmetic"
PUBLISHED = "arXiv 2310.12808: α_m = 1"
CURVATURE = {
    "H₀": "the diagonal Fisher of the base, or the option prior everywhere",
    "Hₜ": "the diagonal Fisher of expert t",
    "H̄": "the curvature of base and experts together",
    "αₜ": "what expert t counts, times the option scaling",
}


class MatchingOptions(Options):
    scaling: Factor = option(1.0, FACTOR, source=PUBLISHED)
    prior: Prior = option(
        "pretrained",
        "H_0: the pre-trained model's own Fisher (needs `base_statistics`), or a number δ for δ I",
        source="arXiv 2310.12808",
    )


def gradient_matching(layer: Layer, options: MatchingOptions, survey: Any = None) -> Merged:
    """W = W0 + Σ α_m H̄⁻¹ (H_0 + H_m) Δ_m with H̄ = H_0 + Σ α_m H_m, all diagonal."""
    hessians = layer.measured("fisher")
    prior = layer.base_statistics.fisher
    if options.prior != "pretrained":
        prior = torch.full_like(layer.base, float(options.prior))
    if hessians is None or prior is None:
        return averaged(layer)
    weights = tuple(options.scaling * weight for weight in layer.weights)
    layer.show("prior", [prior])
    layer.show("fisher", hessians)
    total = prior + weighted_sum(hessians, weights)
    layer.show("curvature", [total])
    if layer.negative:
        require_positive(layer, (prior, *hessians), (1.0, *weights), "gradient matching")
    terms = ((prior + h) * update for h, update in zip(hessians, layer.updates, strict=True))
    # Where nothing was ever measured every H is zero; equal curvature is the limit there.
    limit = weighted_sum(layer.updates, weights) / (1 + sum(weights)) * 2 if sum(weights) else 0
    matched = torch.where(
        total > 0, weighted_sum(terms, weights) / torch.where(total > 0, total, 1), limit
    )
    return Merged(layer.base + matched, "gradient_matching")


def cost(s: Shape, options: MatchingOptions) -> Cost:
    if "fisher" not in s.measured or (options.prior == "pretrained" and not s.prior):
        return averaged_cost(s)
    return Cost("merged", s.passes(27 * s.experts + 15), 10 * s.nbytes)


METHOD = Method(
    name="gradient_matching",
    title="Gradient matching",
    group="statistics",
    summary="Task arithmetic in which curvature decides how far each parameter follows "
    "each expert.",
    formula=r"W = W_0 + \sum_m \alpha_m \bar H^{-1}(H_0 + H_m)\Delta_m,\quad "
    r"\bar H = H_0 + \sum_m \alpha_m H_m",
    source="arXiv 2310.12808",
    options=MatchingOptions,
    merge=gradient_matching,
    cost=cost,
    reads=lambda options: FISHER,
    requires=lambda options: FISHER,
    stages=(
        TASK_MATRIX,
        Stage("prior", "Curvature at the base", "H₀", CURVATURE),
        Stage("fisher", "Curvature at the expert", "Hₜ", CURVATURE, each=True),
        Stage("curvature", "Curvature of all", "H̄ = H₀ + Σₜ αₜ Hₜ", CURVATURE),
        UPDATE,
        outcome("W = W₀ + Σₜ αₜ (H₀ + Hₜ) ∘ Δₜ / H̄", **CURVATURE),
    ),
)
