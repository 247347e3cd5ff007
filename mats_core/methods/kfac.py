"""Matching models by their K-FAC blocks, with conjugate gradients.

Sources: MaTS (arXiv 2312.04339), K-FAC (arXiv 1503.05671).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from .. import linear
from ..linear import (
    WORTH,
    Kronecker,
    Operator,
    Solution,
    Status,
    WeightedSum,
    eigh_descending,
    factored_kronecker_inverse,
    matrix,
    regularised,
    truncated,
    weighted_sum,
)
from ..system import Work
from .cost import (
    Cost,
    Shape,
    bound,
    calls,
    eigenbases,
    forms,
    gemm,
    inverses,
    joint_basis,
    operations,
    side,
    woodbury,
)
from .grams import Source, costing, measured_kinds, said, with_grams
from .layer import FISHER, KFAC, Layer, Merged, indefinite, require_diagonal
from .method import Method, Solve
from .options import (
    Damping,
    FoldBias,
    Iterations,
    Normalise,
    Options,
    Rank,
    Share,
    Strength,
    Tolerance,
    option,
)
from .regmean import MEASURED
from .remaining import (
    Remaining,
    means_by_pieces,
    merge_remaining,
    remaining_cost,
    remaining_reads,
)
from .starts import STARTS, starting_point

NORMALISED = "divide each task's A and B by their traces, so that no task dominates the operator"


class KfacOptions(Options):
    """Options of merging by K-FAC blocks."""

    gram: Source = "measured"
    iterations: Iterations = option(50, source=MEASURED)
    tolerance: Tolerance = option(1e-3, source=MEASURED, more=True)
    off_diagonal: Share = option(
        1.0,
        "λ, the factor of the off-diagonal entries of A and of B",
        source="arXiv 2312.04339",
        more=True,
    )
    damping: Damping = option(0.1, source=MEASURED)
    anchor: Strength = option(
        0.0,
        "μ, proximal pull towards the start, as a share of the operator's mean diagonal",
        more=True,
    )
    start: str = option(
        "average",
        "where CG starts: " + ", ".join(STARTS) + ", or the path of a checkpoint",
        source="arXiv 2312.04339 starts at task arithmetic",
        checkpoint=STARTS,
    )
    preconditioner: Literal["auto", "none", "jacobi", "kronecker"] = option(
        "auto",
        "what CG is preconditioned with; auto: kronecker where the system is damped or anchored, "
        "none where only plain CG lands on the solution nearest to the start; on failure plain CG "
        "takes over and says so",
        source="a fifth of the products for the same residual, measured on the sample family; "
        "published: none",
    )
    normalise: Normalise = option(True, NORMALISED, more=True)
    fold_bias: FoldBias = option(False, more=True)
    rank: Rank = option(
        None, "keep only so many eigen-directions of each task's B ⊗ A; all by default", more=True
    )
    remaining: Remaining = option("mean", more=True)


def kfac(layer: Layer, options: KfacOptions, survey: Any = None) -> Merged:
    """`Σ α_m B_m W A_m = Σ α_m B_m W_m A_m`, by CG, or in closed form for two models.

    With a negative weight the system may be indefinite, which is an `InputError`: in closed form
    always.  Before CG its diagonal is judged, and CG notices a direction of negative curvature
    where it takes a step along one; one that it never meets is not noticed.
    """
    layer = with_grams(layer, options.gram, KFAC)
    damping = options.damping if options.rank is None else 0.0
    blocks = _blocks(layer, options, damping=damping) if layer.is_matrix else ()
    if not blocks:
        return merge_remaining(layer, options.remaining, options.damping)
    start = starting_point(layer, options.start, blocks)
    terms: tuple[Operator, ...] = blocks
    if options.rank is not None:
        terms = tuple(truncated(block, options.rank, options.damping) for block in blocks)
    del blocks  # those that were truncated are not needed any more
    solution, how, used = _solve(layer, options, WeightedSum(terms, layer.shares), start)
    status = f"{solution.status}{how}{said(options.gram)}"
    details = {"preconditioner": used}
    return Merged(solution.value, "kfac", status=status, solution=solution, details=details)


def _blocks(layer: Layer, options: KfacOptions, *, damping: float) -> tuple[Kronecker, ...]:
    """Every task's `B ⊗ A`, normalised, scaled off the diagonal and damped; () if not measured.

    Of a wide layer A or B or both are in factors, unless they are to be truncated.
    """
    read = layer.grams if options.rank is None else layer.measured
    inputs, outputs = read("input_gram"), read("output_gradient_gram")
    if inputs is None or outputs is None:
        return ()
    form = {"off_diagonal": options.off_diagonal, "normalise": options.normalise}
    return tuple(
        regularised(Kronecker(b, a), damping=damping, **form)
        for b, a in zip(outputs, inputs, strict=True)
    )


def _solve(
    layer: Layer, options: KfacOptions, operator: WeightedSum, start: Tensor
) -> tuple[Solution, str, str]:
    """The solution, what befell it, and the preconditioner it was found with."""
    right = operator.apply_each(layer.experts)
    shift = options.anchor * float(operator.diagonal().mean()) if options.anchor else 0.0
    if shift:
        right = right + shift * start

    if layer.negative:
        require_diagonal(layer, operator.diagonal() + shift, "K-FAC merging")

    def matvec(x: Tensor) -> Tensor:
        return operator.apply(x) + shift * x if shift else operator.apply(x)

    blocks = [term for term in operator.terms if isinstance(term, Kronecker)]
    in_factors = any(block.in_factors for block in blocks)
    if len(blocks) == 2 and not shift and not in_factors:
        closed = linear.two_models(blocks[0], blocks[1], layer.shares, right, start)
        if closed is not None:
            return closed, "", "none"
        if layer.negative:
            raise indefinite(layer, "K-FAC merging")
    preconditioner, kind = _preconditioner(layer, options, operator, shift)
    how = limits(layer, options)
    solution = linear.cg(matvec, right, start, preconditioner=preconditioner, **how)
    if preconditioner and solution.status in (Status.STAGNATED, Status.NOT_POSITIVE):
        named = "kronecker" if options.preconditioner == "auto" else options.preconditioner
        plain = linear.cg(matvec, right, start, **how)
        if layer.negative and plain.status == Status.NOT_POSITIVE:
            raise indefinite(layer, "K-FAC merging")
        return plain, f" (plain CG after the {named} preconditioner failed)", "none"
    if layer.negative and solution.status == Status.NOT_POSITIVE:
        raise indefinite(layer, "K-FAC merging")
    return solution, "", kind


def limits(layer: Layer, options: Options) -> dict[str, Any]:
    """Where CG stops, as the options say, and what it keeps and tells, as the layer says."""
    asked = options.model_dump(include={"iterations", "tolerance"})
    return {**asked, "keep": layer.keep, "callback": layer.pulse}


# Preconditioning ----------------------------------------------------------------------------------


def _preconditioner(
    layer: Layer, options: KfacOptions, operator: WeightedSum, shift: float
) -> tuple[linear.Apply | None, str]:
    """What CG is preconditioned with, and its name.

    With Grams in factors by inverses of their sums, for eigenbases of wide layers take longer than
    the iterations; by the operator's diagonal where those would be all rounding.
    """
    if options.preconditioner == "jacobi":
        return linear.jacobi(operator.diagonal() + shift), "jacobi"
    if not uses_kronecker(options):
        return None, "none"
    blocks = [term for term in operator.terms if isinstance(term, Kronecker)]
    if any(block.in_factors for block in blocks):
        inputs, outputs = [k.a for k in blocks], [k.b for k in blocks]
        inverse = factored_kronecker_inverse(inputs, outputs, layer.magnitudes, layer.base, shift)
        if inverse is not None:
            return inverse, "kronecker, by inverses of factors"
        return linear.jacobi(operator.diagonal() + shift), "jacobi, for Grams in factors"
    if blocks and not shift:
        inverse = linear.kronecker_inverse(*sums(blocks, layer.magnitudes))
        if inverse is not None:
            return inverse, "kronecker, by inverses"
    return _by_eigenbases(layer, options, shift), "kronecker, by eigenbases"


def uses_kronecker(options: KfacOptions) -> bool:
    """Whether the Kronecker preconditioner is used.

    On its own only where the system is damped or anchored: elsewhere plain CG alone lands on the
    solution nearest to the start.
    """
    regular = options.damping > 0 or options.anchor > 0
    automatic = options.preconditioner == "auto" and regular and options.rank is None
    return options.preconditioner == "kronecker" or automatic


def _by_eigenbases(layer: Layer, options: KfacOptions, shift: float) -> linear.Apply:
    """Damping moves the eigenvalues of the sums and leaves their vectors: one basis serves all."""
    damping = options.damping if options.rank is None else 0.0  # a truncated block is damped whole

    def compute() -> tuple[linear.Eigen, linear.Eigen]:
        blocks = _blocks(layer, options, damping=0.0)
        (a, q_a), (b, q_b) = (eigh_descending(total) for total in sums(blocks, layer.magnitudes))
        # A flipped view would be copied at every product.
        return (a, q_a.contiguous()), (b, q_b.contiguous())

    of = options.model_dump(include={"gram", "normalise", "off_diagonal"})
    what = ("K-FAC eigenbases", layer.weights, *of.values())
    a, b = layer.remember(what, compute)
    moved = [(values + damping * values.mean(), vectors) for values, vectors in (a, b)]
    return linear.kronecker(moved[0], moved[1], shift)


def sums(blocks: Sequence[Kronecker], shares: Sequence[float]) -> tuple[Tensor, Tensor]:
    """`Σ α_m A_m` and `Σ α_m B_m`."""
    sides = [matrix(k.a) for k in blocks], [matrix(k.b) for k in blocks]
    return weighted_sum(sides[0], shares), weighted_sum(sides[1], shares)


def kfac_reads(options: KfacOptions) -> frozenset[str]:
    measured = measured_kinds(options.gram, KFAC)
    folded = {"input_mean"} if options.fold_bias and "input_gram" in measured else set()
    start = FISHER if options.start == "fisher" else set()
    return measured | remaining_reads(options.remaining) | folded | start


def cost(s: Shape, options: KfacOptions) -> Cost:
    of_matrices = functools.partial(_cost, options=options)
    return costing(s, options.gram, KFAC, of_matrices)


def _cost(s: Shape, options: KfacOptions) -> Cost:
    if not s.is_matrix or not s.measured >= KFAC:
        return remaining_cost(s, options.remaining)
    if any(s.ranks) and options.rank is None:
        return _cost_in_factors(s, options)
    m, n, t = s.rows, s.columns, s.experts
    factors = (m * m + n * n) * s.width
    copies = t * factors
    product = gemm(m, n, m, s.dtype) + gemm(m, n, n, s.dtype)
    operator = product * t + s.passes(3 * t + 1)
    work = operator * 3 + s.passes(6 * t)  # the right-hand side, the first and the last residual
    for k in (m, n):
        work += forms(k, s, options.damping, options.off_diagonal, options.normalise)
    each = product * 0
    if options.rank is None and uses_kronecker(options):
        work += eigenbases(m, n) if options.anchor else inverses(m, n, s)
        each = product * (2 if options.anchor else 1)
        copies += 2 * factors
    if t == 2 and options.rank is None and not options.anchor:
        work += joint_basis(m) + joint_basis(n) + operator * 2
        return Cost("merged", work, copies + 8 * (6 * max(m, n) ** 2 + 6 * m * n))
    if options.rank is not None:  # a basis for each task, and twice the products in it
        work, operator = work + eigenbases(m, n) * t, operator * 2
    work += each + (operator + each + _vectors(s)) * iterations(options, t)
    return Cost("merged", work, copies + 12 * s.nbytes + 8 * 3 * max(m, n) ** 2)


def _vectors(s: Shape) -> Work:
    """Of an iteration: dot products, steps and the trace."""
    return s.passes(27) + calls(20.0)


def _cost_in_factors(s: Shape, options: KfacOptions) -> Cost:
    """The same with A or B or both in factors; the sums of both sides are inverted once."""
    m, n, t = s.rows, s.columns, s.experts
    sides = ((n, m, s.ranks[0]), (m, n, s.ranks[1]))
    operator = s.passes(3 * t + 1)
    inverted = each = s.passes(0)
    kept = 0
    for d, rows, k in sides:
        stacked = t * k if k and WORTH * t * k <= d else 0
        operator += side(rows, d, k, s) * t
        inverted += woodbury(d, stacked) if stacked else operations(float(d**3))
        each += side(rows, d, stacked, s)
        kept += (3 * 8 * stacked if stacked else 2 * 8 * d) * d + t * s.width * (k or d) * d
    iteration = operator + each + _vectors(s)
    work = operator * 3 + inverted + s.passes(6 * t) + iteration * iterations(options, t)
    return Cost("merged", work, kept + 13 * s.nbytes)


def iterations(options: KfacOptions, experts: int) -> float:
    """How many iterations CG will probably need, which is not known before.

    With the Kronecker preconditioner P of the mean factors, the eigenvalues of P⁻¹K are at most T
    (K is one of the T products that P sums, and P has the mean 1 of them); with the smallest taken
    as 1 the classical bound ½ √κ ln(2/ε) applies.  Without one: the limit.
    """
    if options.rank is not None or not uses_kronecker(options):
        return options.iterations
    return bound(options.iterations, options.tolerance, experts)


METHOD = Method(
    name="kfac",
    title="K-FAC block (MaTS)",
    group="statistics",
    summary="Matches the experts in the directions their losses are curved in, by "
    "conjugate gradients.",
    formula=r"\sum_m \alpha_m B_m W A_m = \sum_m \alpha_m B_m W_m A_m",
    source="MaTS, arXiv 2312.04339",
    options=KfacOptions,
    merge=kfac,
    cost=cost,
    short="K-FAC",
    pieces=means_by_pieces,
    reads=kfac_reads,
    requires=lambda options: measured_kinds(options.gram, KFAC),
    folds=lambda options: options.fold_bias,
    factored=True,
    solve=Solve("iterations", {"damping": 0.0, "anchor": 0.0, "off_diagonal": 1.0}),
)
