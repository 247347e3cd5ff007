"""Matching models in the subspace of their inputs (RegMean).

Sources: MaTS (arXiv 2312.04339), RegMean (arXiv 2212.09849).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .. import linear
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
from .grams import INPUT, GramShare, InputSource, costing, measured_kinds, said, with_grams
from .layer import Layer, Merged, indefinite
from .method import Method, Sums
from .options import FoldBias, Normalise, Options, Share, Strength, option
from .remaining import (
    Remaining,
    means_by_pieces,
    merge_remaining,
    remaining_cost,
    remaining_elements,
    remaining_reads,
)
from .stages import INPUT_GRAM, TASK_MATRIX, UPDATE, Stage, outcome

WEIGHED = {"Ā": "the mean of the input Grams, by the weights of the recipe"}
MEASURED = "validation split of the sample family"


class RegMeanOptions(Options):
    gram: InputSource = "measured"
    gram_share: GramShare = option(1.0, source="TACT keeps 0.5")
    off_diagonal: Share = option(
        1.0,
        "λ, the factor of the off-diagonal entries of A",
        source="arXiv 2212.09849 uses 0.9; damping does the same work here",
    )
    damping: Strength = option(
        0.01, "δ, Tikhonov damping as a share of the mean eigenvalue of A", source=MEASURED
    )
    normalise: Normalise = option(
        False,
        "divide each task's A by its trace, so that no task dominates",
        source="arXiv 2212.09849 does not; WUDI-Merging, arXiv 2503.08099, does",
        more=True,
    )
    iterations: int | None = option(
        None,
        "conjugate-gradient iterations from the sum of all updates instead of the closed form: the "
        "fewer, the nearer to task arithmetic",
        low=0,
        high=2000,
        step=1,
        source="WUDI-Merging, arXiv 2503.08099, stops 300 steps of Adam before they converge",
        label="CG iterations",
        more=True,
    )
    fold_bias: FoldBias = False
    remaining: Remaining = "mean"


# RegMean ------------------------------------------------------------------------------------------


def regmean_value(layer: Layer, grams: Sequence[Gram]) -> tuple[Tensor, str]:
    """`(Σ α W_m A_m)(Σ α A_m)⁻¹`, and how it was found; nearest to the mean if singular."""
    # Solved for the update: the mean update is then the anchor of a singular system.
    weighed = (update @ gram for gram, update in zip(grams, layer.updates, strict=True))
    right = layer.total("gram update", weighed, layer.shares)
    # Roots of the shares are taken in factors; the sum of an earlier merge is a matrix.
    in_factors = not (layer.negative or layer.earlier)
    update = solve_factored(grams, layer.shares, right) if in_factors else None
    if update is not None and not layer.adds_up:
        return layer.base + update, f"{Status.CLOSED_FORM}, by factors"
    left = layer.total("gram", (matrix(gram) for gram in grams), layer.shares)
    if update is not None:
        return layer.base + update, f"{Status.CLOSED_FORM}, by factors"
    update = solve_positive(left, right)
    if update is not None:
        return layer.base + update, str(Status.CLOSED_FORM)
    if layer.negative:
        raise indefinite(layer, "RegMean")
    value = layer.base + pseudo_solve(left, right, layer.mean_update)
    return value, "singular: nearest to the average"


def regmean(layer: Layer, options: RegMeanOptions, survey: Any = None) -> Merged:
    """W = (Σ α_m W_m A_m)(Σ α_m A_m)⁻¹ by Cholesky, or by Woodbury with Grams in factors.

    With `iterations`, so many steps of conjugate gradients towards it, from `W0 + Σ Δ_m`.
    """
    layer = with_grams(layer, options.gram, INPUT, options.gram_share)
    grams = layer.grams("input_gram") if layer.is_matrix else None
    if grams is None or layer.lacks("gram"):
        return merge_remaining(layer, options.remaining, options.damping)
    form = options.model_dump(include={"off_diagonal", "damping", "normalise"})
    ready = [regularised_gram(gram, **form) for gram in grams]
    layer.show("input gram", ready)
    layer.show("weighed", (d @ gram for gram, d in zip(ready, layer.updates, strict=True)))
    layer.show("mean gram", (weighted_sum(map(matrix, grams), layer.shares) for grams in [ready]))
    if options.iterations is not None:
        return _early(layer, ready, options.iterations, said(options.gram))
    value, status = regmean_value(layer, ready)
    return Merged(value, "regmean", status=status + said(options.gram))


def _early(layer: Layer, grams: Sequence[Gram], iterations: int, more: str) -> Merged:
    """W0 plus the update after so many iterations from `Σ Δ_m`."""

    def matvec(x: Tensor) -> Tensor:
        return weighted_sum((x @ gram for gram in grams), layer.shares)

    each = zip(grams, layer.updates, strict=True)
    right = weighted_sum((update @ gram for gram, update in each), layer.shares)
    start = layer.mean_update * len(layer.experts)
    told = {"iterations": iterations, "callback": layer.pulse}
    solution = linear.cg(matvec, right, start, **told)
    if layer.negative and solution.status == Status.NOT_POSITIVE:
        raise indefinite(layer, "RegMean")
    return Merged(layer.base + solution.value, "regmean", status=f"{solution.status}{more}")


def regmean_reads(options: RegMeanOptions) -> frozenset[str]:
    mean = INPUT | {"input_mean"} if options.fold_bias else INPUT
    own = mean if options.gram == "measured" else frozenset()
    return own | remaining_reads(options.remaining)


def cost(s: Shape, options: RegMeanOptions) -> Cost:
    of_matrices = functools.partial(_cost, options=options)
    return costing(s, options.gram, INPUT, of_matrices, options.gram_share)


def _cost(s: Shape, options: RegMeanOptions) -> Cost:
    if not s.is_matrix or "input_gram" not in s.measured:
        return remaining_cost(s, options.remaining)
    m, n, t = s.rows, s.columns, s.experts
    rank = s.ranks[0]
    forming = forms(n, s, options.damping, options.off_diagonal, options.normalise)
    if options.iterations is not None:
        product = side(m, n, rank, s) * t + s.passes(3 * t)
        work = forming + product * (options.iterations + 2) + s.passes(27) * options.iterations
        return Cost("merged", work, 12 * s.nbytes + t * n * n * s.width)
    if rank and WORTH * t * rank <= n:
        work = side(m, n, rank, s) * t + woodbury(n, t * rank) + gemm(m, n, 2 * t * rank, EXACT)
        work += s.passes(9 * t + 6)
        return Cost("merged", work, 3 * s.nbytes + 8 * (3 * t * rank * n + 3 * m * n))
    work = forming + gemm(m, n, n, s.dtype) * t
    work += passes(n * n * s.width, 3 * t) + s.passes(9 * t + 6) + cholesky_solve(m, n)
    return Cost("merged", work, 2 * s.nbytes + t * n * n * s.width + 8 * (5 * n * n + 2 * m * n))


def why_not(options: RegMeanOptions) -> str:
    """Why no experts can be added to a merge with these options; "" where they can."""
    return "" if options.iterations is None else "'iterations' solves with each expert's Gram"


def kept_elements(s: Shape, options: RegMeanOptions) -> float:
    """Numbers that the sums of a layer hold."""
    if not s.is_matrix or ("input_gram" not in s.measured and options.gram == "measured"):
        return remaining_elements(s, options.remaining)
    return 2.0 * s.elements + s.columns**2


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
    requires=lambda options: measured_kinds(options.gram, INPUT),
    folds=lambda options: options.fold_bias,
    sums=Sums(why_not, elements=kept_elements),
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
