"""Matching models in the subspace of their inputs (RegMean).

Sources: MaTS (arXiv 2312.04339), RegMean (arXiv 2212.09849).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..linear import (
    WORTH,
    Gram,
    Status,
    matrix,
    pseudo_solve,
    regularised_gram,
    solve_factored,
    solve_positive,
    weighted_sum,
)
from .cost import EXACT, Cost, Shape, cholesky_solve, forms, gemm, passes, side, woodbury
from .layer import Layer, Merged, indefinite
from .method import Method
from .options import FoldBias, Options, Share, Strength, option
from .remaining import (
    Remaining,
    means_by_pieces,
    merge_remaining,
    remaining_cost,
    remaining_reads,
)
from .stages import INPUT_GRAM, TASK_MATRIX, UPDATE, Stage, outcome

WEIGHED = {"Ā": "the mean of the input Grams, by the weights of the recipe"}
MEASURED = "validation split of the sample family"


class RegMeanOptions(Options):
    off_diagonal: Share = option(
        1.0,
        "λ, the factor of the off-diagonal entries of A",
        source="arXiv 2212.09849 uses 0.9; damping does the same work here",
    )
    damping: Strength = option(
        0.01, "δ, Tikhonov damping as a share of the mean eigenvalue of A", source=MEASURED
    )
    fold_bias: FoldBias = False
    remaining: Remaining = "mean"


# RegMean ------------------------------------------------------------------------------------------


def regmean_value(layer: Layer, grams: Sequence[Gram]) -> tuple[Tensor, str]:
    """`(Σ α W_m A_m)(Σ α A_m)⁻¹`, and how it was found; nearest to the mean if singular."""
    # Solved for the update: the mean update is then the anchor of a singular system.
    right = weighted_sum(
        (update @ gram for gram, update in zip(grams, layer.updates, strict=True)), layer.shares
    )
    # Roots of the shares are taken in factors.
    update = None if layer.negative else solve_factored(grams, layer.shares, right)
    if update is not None:
        return layer.base + update, f"{Status.CLOSED_FORM}, by factors"
    left = weighted_sum((matrix(gram) for gram in grams), layer.shares)
    update = solve_positive(left, right)
    if update is not None:
        return layer.base + update, str(Status.CLOSED_FORM)
    if layer.negative:
        raise indefinite(layer, "RegMean")
    value = layer.base + pseudo_solve(left, right, layer.mean_update)
    return value, "singular: nearest to the average"


def regmean(layer: Layer, options: RegMeanOptions, survey: Any = None) -> Merged:
    """W = (Σ α_m W_m A_m)(Σ α_m A_m)⁻¹ by Cholesky, or by Woodbury with Grams in factors."""
    grams = layer.grams("input_gram") if layer.is_matrix else None
    if grams is None:
        return merge_remaining(layer, options.remaining, options.damping)
    off_diagonal, damping = options.off_diagonal, options.damping
    ready = [regularised_gram(gram, off_diagonal=off_diagonal, damping=damping) for gram in grams]
    layer.show("input gram", ready)
    layer.show("weighed", (d @ gram for gram, d in zip(ready, layer.updates, strict=True)))
    layer.show("mean gram", (weighted_sum(map(matrix, grams), layer.shares) for grams in [ready]))
    value, status = regmean_value(layer, ready)
    return Merged(value, "regmean", status=status)


def regmean_reads(options: RegMeanOptions) -> frozenset[str]:
    mean = {"input_mean"} if options.fold_bias else set()
    return frozenset({"input_gram"}) | mean | remaining_reads(options.remaining)


def cost(s: Shape, options: RegMeanOptions) -> Cost:
    if not s.is_matrix or "input_gram" not in s.measured:
        return remaining_cost(s, options.remaining)
    m, n, t = s.rows, s.columns, s.experts
    rank = s.ranks[0]
    if rank and WORTH * t * rank <= n:
        work = side(m, n, rank, s) * t + woodbury(n, t * rank) + gemm(m, n, 2 * t * rank, EXACT)
        work += s.passes(9 * t + 6)
        return Cost("merged", work, 3 * s.nbytes + 8 * (3 * t * rank * n + 3 * m * n))
    work = forms(n, s, options.damping, options.off_diagonal) + gemm(m, n, n, s.dtype) * t
    work += passes(n * n * s.width, 3 * t) + s.passes(9 * t + 6) + cholesky_solve(m, n)
    return Cost("merged", work, 2 * s.nbytes + t * n * n * s.width + 8 * (5 * n * n + 2 * m * n))


METHOD = Method(
    name="regmean",
    title="RegMean (input Gram)",
    group="statistics",
    summary="Per layer, the matrix whose outputs are closest to every expert's on that "
    "expert's own inputs.",
    formula=r"W = \Big(\sum_m \alpha_m W_m A_m\Big)\Big(\sum_m \alpha_m A_m\Big)^{-1}",
    source="arXiv 2212.09849",
    options=RegMeanOptions,
    merge=regmean,
    cost=cost,
    short="RegMean",
    pieces=means_by_pieces,
    reads=regmean_reads,
    requires=frozenset({"input_gram"}),
    folds=lambda options: options.fold_bias,
    factored=True,
    stages=(
        TASK_MATRIX,
        INPUT_GRAM,
        Stage("weighed", "What the inputs make of the task matrix", "Δₜ Aₜ", each=True),
        Stage("mean gram", "Mean input Gram", "Ā = Σₜ αₜ Aₜ", WEIGHED, axes=("input", "input")),
        UPDATE,
        outcome("W Ā = Σₜ αₜ Wₜ Aₜ", **WEIGHED),
    ),
)
