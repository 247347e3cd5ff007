"""Uncertainty-based gradient matching with K-FAC blocks instead of diagonal Fishers.

The published method (arXiv 2310.12808) takes any curvature; with `H_m = B_m ⊗ A_m` it is a MaTS
system with a shared prior.  Nobody has published this form; `docs/study.md` compares the two.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from torch import Tensor

from .. import linear
from ..linear import (
    Kronecker,
    Status,
    WeightedSum,
    eigh_descending,
    matrix,
    regularised,
    weighted_sum,
)
from .cost import Cost, Shape, bound, calls, eigenbases, forms, gemm
from .gradient_matching import FACTOR, PUBLISHED
from .grams import (
    POWERED,
    GramPower,
    Source,
    costing,
    measured_kinds,
    said,
    with_grams,
)
from .kfac import limits, show_blocks, sums
from .kfac_options import NORMALISED
from .layer import KFAC, Layer, LayerStatistics, Merged, indefinite, require_diagonal
from .method import Method, Solve
from .options import (
    Damping,
    ErrorGoal,
    Iterations,
    Normalise,
    Options,
    Prior,
    Tolerance,
    option,
)
from .remaining import (
    Remaining,
    means_by_pieces,
    merge_remaining,
    remaining_cost,
    remaining_reads,
)
from .singular_values import PUBLISHED as CALIBRATED
from .singular_values import Svc, svc_cost, with_svc
from .stages import (
    INPUT_GRAM,
    ITERATE,
    OUTPUT_GRAM,
    PRODUCT,
    TASK_MATRIX,
    UPDATE,
    outcome,
    start_of,
)

CURVATURE = {
    "H₀": "the K-FAC block of the base, or the option prior times the identity",
    "Hₜ": "the K-FAC block Bₜ ⊗ Aₜ of expert t",
}


class KfacMatchingOptions(Options):
    gram: Source = "measured"
    gram_power: GramPower = option(1.0, source=POWERED)
    scaling: float = option(1.0, FACTOR, low=0, high=10, step=0.05, source=PUBLISHED)
    prior: Prior = option(
        0.1,
        "H_0: the pre-trained model's own block (needs `base_statistics`), or a number δ for δ I, "
        "as a share of the mean diagonal of Σ α_m H_m at scaling 1",
    )
    damping: Damping = option(0.1, source="as for K-FAC merging")
    iterations: Iterations = 50
    tolerance: Tolerance = 1e-3
    error: ErrorGoal = None
    normalise: Normalise = option(True, NORMALISED)
    remaining: Remaining = "mean"
    svc: Svc = option(None, source=CALIBRATED)


def kfac_matching(layer: Layer, options: KfacMatchingOptions, survey: Any = None) -> Merged:
    """`(H_0 + Σ α_m H_m)(W − W0) = Σ α_m (H_0 + H_m) Δ_m` with `H = B ⊗ A`, by CG from the mean.

    What a negative weight makes indefinite is noticed as in `kfac`: by its diagonal, or where CG
    meets it.
    """
    layer = with_grams(layer, options.gram, KFAC, power=options.gram_power)
    blocks = [_block(own, options) for own in layer.statistics] if layer.is_matrix else []
    prior = _block(layer.base_statistics, options) if options.prior == "pretrained" else None
    known = [block for block in blocks if block is not None]
    if not known or len(known) < len(blocks) or (prior is None and options.prior == "pretrained"):
        return merge_remaining(layer, options.remaining, options.damping)
    weights = tuple(options.scaling * weight for weight in layer.weights)
    hessian = WeightedSum(tuple(known), weights)
    own_size = float(WeightedSum(tuple(known), layer.weights).diagonal().mean())
    shift = 0.0 if prior else float(options.prior) * own_size

    def at_prior(x: Tensor) -> Tensor:
        return prior.apply(x) if prior else shift * x

    right = weighted_sum(
        (at_prior(own) + h.apply(own) for h, own in zip(known, layer.updates, strict=True)), weights
    )

    def matvec(x: Tensor) -> Tensor:
        return at_prior(x) + hessian.apply(x)

    if layer.negative:
        diagonal = hessian.diagonal() + (prior.diagonal() if prior else shift)
        require_diagonal(layer, diagonal, "K-FAC gradient matching")
    preconditioner = _preconditioner(known, weights, prior, shift)
    start, how = layer.mean_update, limits(layer, options)
    show_blocks(layer, known)
    layer.show("start", (layer.base + x for x in [start]))
    # X is an update here: its origin is zero.
    how |= {"preconditioner": preconditioner, "origin": start.new_zeros(())}
    solution = linear.cg(matvec, right, start, **how)
    if layer.negative and solution.status == Status.NOT_POSITIVE:
        raise indefinite(layer, "K-FAC gradient matching")
    # For W instead of W − W0.
    iterates = {step: layer.base + x for step, x in solution.iterates.items()}
    found = replace(solution, value=layer.base + solution.value, iterates=iterates)
    status = f"{found.status}{said(options.gram)}"
    made = Merged(found.value, "kfac_matching", status=status, solution=found)
    return with_svc(layer, made, options.svc)


def _block(own: LayerStatistics, options: KfacMatchingOptions) -> Kronecker | None:
    b, a = own.output_gradient_gram, own.input_gram
    if b is None or a is None:
        return None
    block = Kronecker(matrix(b), matrix(a))
    return regularised(block, damping=options.damping, normalise=options.normalise)


def _preconditioner(
    blocks: list[Kronecker], weights: tuple[float, ...], prior: Kronecker | None, shift: float
) -> linear.Apply:
    terms = [*blocks, *([prior] if prior else [])]
    factors = [*map(abs, weights), *([1.0] if prior else [])]
    total = sum(factors)
    if not total > 0:  # scaling 0: only the prior is left
        return lambda r: r / shift if shift else r
    shares = [factor / total for factor in factors]
    # Eigenvalues of the mean factors; their product times the total weight has the sum's size.
    a, b = (eigh_descending(side) for side in sums(terms, shares))
    return linear.kronecker((a[0] * total, a[1]), b, shift)


def kfac_matching_reads(options: KfacMatchingOptions) -> frozenset[str]:
    prior = KFAC if options.prior == "pretrained" else frozenset()  # of the base, always measured
    return measured_kinds(options.gram, KFAC) | prior | remaining_reads(options.remaining)


def cost(s: Shape, options: KfacMatchingOptions) -> Cost:
    of_matrices = functools.partial(_cost, options=options)
    made = costing(s, options.gram, KFAC, of_matrices, power=options.gram_power)
    return svc_cost(s, made, options.svc)


def _cost(s: Shape, options: KfacMatchingOptions) -> Cost:
    if not s.is_matrix or not s.measured >= KFAC:
        return remaining_cost(s, options.remaining)
    m, n = s.rows, s.columns
    t = s.experts + (options.prior == "pretrained")
    both = gemm(m, n, m, s.dtype) + gemm(m, n, n, s.dtype)
    operator = both * t + s.passes(3 * t + 1)
    each = operator + both * 2 + s.passes(27) + calls(25.0)
    # Its operator is further from one Kronecker product: 10 to 30 iterations where the bound is 11.
    probable = bound(options.iterations, options.error or options.tolerance, s.experts)
    needed = min(options.iterations, 2 * probable)
    work = operator * 2 + eigenbases(m, n) + s.passes(8 * t) + each * needed
    for k in (m, n):
        work += forms(k, s, options.damping, 1.0, options.normalise)
    factors = t * (m * m + n * n) * s.width
    return Cost("merged", work, factors + 14 * s.nbytes + 8 * 3 * max(m, n) ** 2)


METHOD = Method(
    name="kfac_matching",
    title="K-FAC gradient matching",
    group="statistics",
    summary="Gradient matching with K-FAC blocks as curvature: directions decide, not "
    "single parameters.",
    formula=r"\bar H (W - W_0) = \sum_m \alpha_m (H_0 + H_m)\Delta_m,\quad "
    r"\bar H = H_0 + \sum_m \alpha_m H_m,\quad H_m = B_m \otimes A_m",
    source="the K-FAC form of arXiv 2310.12808, not published before",
    options=KfacMatchingOptions,
    merge=kfac_matching,
    cost=cost,
    short="K-FAC matching",
    pieces=means_by_pieces,
    reads=kfac_matching_reads,
    requires=lambda options: measured_kinds(options.gram, KFAC),
    stages=(
        TASK_MATRIX,
        INPUT_GRAM,
        OUTPUT_GRAM,
        replace(PRODUCT, formula="Hₜ Δₜ = Bₜ Δₜ Aₜ", symbols=CURVATURE),
        start_of("X₀ = W₀ + Σₜ αₜ Δₜ / Σₜ αₜ"),
        ITERATE,
        UPDATE,
        outcome("(H₀ + Σₜ αₜ Hₜ) (W − W₀) = Σₜ αₜ (H₀ + Hₜ) Δₜ", **CURVATURE),
    ),
    solve=Solve("iterations", {"damping": 0.0}),
)
