"""Matching models in the subspace of their inputs (RegMean), and what all such methods share.

Sources: MaTS (arXiv 2312.04339), RegMean (arXiv 2212.09849).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from ..linear import (
    Dense,
    Gram,
    LowRank,
    Status,
    damped,
    matrix,
    pseudo_solve,
    regularised_gram,
    solve_factored,
    solve_positive,
)
from .fisher import FisherOptions, fisher
from .method import Layer, Merged, Options, averaged, option, weighted_sum

MEASURED = "validation split of the sample family"
Remaining = Literal["mean", "fisher", "block"]


def remaining_option() -> Any:
    return option(
        "mean",
        "what a parameter without a block of its own takes: the mean, the diagonal Fisher, or "
        "(small parameters, where measured) its full block",
    )


class RegMeanOptions(Options):
    off_diagonal: float = option(
        1.0,
        "λ, the factor of the off-diagonal entries of A",
        low=0,
        high=1,
        step=0.05,
        source="arXiv 2212.09849 uses 0.9; damping does the same work here",
    )
    damping: float = option(
        0.01,
        "δ, Tikhonov damping as a share of the mean eigenvalue of A",
        low=0,
        high=10,
        step=0.01,
        source=MEASURED,
    )
    fold_bias: bool = option(False, "merge [W b] as one matrix")
    remaining: Remaining = remaining_option()


# Parameters without a block of their own ----------------------------------------------------------


def merge_remaining(layer: Layer, remaining: Remaining, damping: float) -> Merged:
    """The mean, the diagonal Fisher, or the full block, whichever was asked for and measured."""
    if remaining == "block":
        blocks = layer.measured("block")
        if blocks is not None:
            return _block(layer, blocks, damping)
    if remaining in ("fisher", "block") and layer.measured("fisher") is not None:
        # Raw, as in every run of docs/study.md: tasks with loud gradients decide these few.
        return fisher(layer, FisherOptions(normalise=False))
    return averaged(layer)


def _block(layer: Layer, blocks: tuple[Tensor, ...], damping: float) -> Merged:
    """Σ α_m C_m vec W = Σ α_m C_m vec W_m with full blocks; nearest to the mean where singular."""
    terms = [Dense(damped(block, damping)) for block in blocks]
    matrix = weighted_sum((term.matrix for term in terms), layer.shares)
    right = weighted_sum(
        (term.apply(expert) for term, expert in zip(terms, layer.experts, strict=True)),
        layer.shares,
    ).reshape(1, -1)
    value = solve_positive(matrix, right)
    if value is None:
        mean = weighted_sum(layer.experts, layer.shares).reshape(1, -1)
        value = pseudo_solve(matrix, right, mean)
    return Merged(value.reshape(layer.base.shape), "block", status=str(Status.CLOSED_FORM))


def means_by_pieces(options: Any, is_matrix: bool) -> bool:
    """Whether a tensor is sure to take the mean."""
    return not is_matrix and options.remaining == "mean"


def remaining_reads(remaining: Remaining) -> set[str]:
    return {"mean": set(), "fisher": {"fisher"}, "block": {"fisher", "block"}}[remaining]


# RegMean ------------------------------------------------------------------------------------------


def regmean_value(layer: Layer, grams: Sequence[Gram]) -> tuple[Tensor, str]:
    """`(Σ α W_m A_m)(Σ α A_m)⁻¹`, and how it was found; nearest to the mean if singular."""
    # Solved for the update: the mean update is then the anchor of a singular system.
    right = weighted_sum(
        (update @ gram for gram, update in zip(grams, layer.updates, strict=True)), layer.shares
    )
    factors = [gram for gram in grams if isinstance(gram, LowRank)]
    if len(factors) == len(grams):
        update = solve_factored(factors, layer.shares, right)
        if update is not None:
            return layer.base + update, f"{Status.CLOSED_FORM}, by factors"
    left = weighted_sum((matrix(gram) for gram in grams), layer.shares)
    update = solve_positive(left, right)
    if update is not None:
        return layer.base + update, str(Status.CLOSED_FORM)
    value = layer.base + pseudo_solve(left, right, layer.mean_update)
    return value, "singular: nearest to the average"


def regmean(layer: Layer, options: RegMeanOptions, survey: Any = None) -> Merged:
    """W = (Σ α_m W_m A_m)(Σ α_m A_m)⁻¹ by Cholesky, or by Woodbury with Grams in factors."""
    grams = layer.grams("input_gram") if layer.is_matrix else None
    if grams is None:
        return merge_remaining(layer, options.remaining, options.damping)
    value, status = regmean_value(
        layer,
        [
            regularised_gram(gram, off_diagonal=options.off_diagonal, damping=options.damping)
            for gram in grams
        ],
    )
    return Merged(value, "regmean", status=status)


def regmean_reads(options: RegMeanOptions) -> frozenset[str]:
    mean = {"input_mean"} if options.fold_bias else set()
    return frozenset({"input_gram", *mean, *remaining_reads(options.remaining)})
