"""Matching models by their K-FAC blocks, with conjugate gradients.

Sources: MaTS (arXiv 2312.04339), K-FAC (arXiv 1503.05671).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from .. import linear
from ..linear import (
    Kronecker,
    Operator,
    Solution,
    Status,
    WeightedSum,
    damped_products,
    eigh_descending,
    factored_kronecker_inverse,
    matrix,
    regularised,
    truncated,
    weighted_sum,
)
from .cost import Shape
from .grams import measured_kinds, said, with_grams
from .kfac_cost import cost
from .kfac_options import KfacOptions, uses_joint, uses_kronecker
from .layer import FISHER, KFAC, Layer, Merged, indefinite, require_diagonal
from .method import Method, Solve, Sums
from .options import Options
from .remaining import means_by_pieces, merge_remaining, remaining_elements, remaining_reads
from .singular_values import with_svc
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
from .starts import starting_point


def kfac(layer: Layer, options: KfacOptions, survey: Any = None) -> Merged:
    """`Σ α_m B_m W A_m = Σ α_m B_m W_m A_m`, by CG, or in closed form for two models.

    With a negative weight the system may be indefinite, which is an `InputError`: in closed form
    always.  Before CG its diagonal is judged, and CG notices a direction of negative curvature
    where it takes a step along one; one that it never meets is not noticed.
    """
    layer = with_grams(layer, options.gram, KFAC, power=options.gram_power)
    if layer.is_matrix:
        layer.keep_each(sorted(KFAC))
    damping = options.damping if options.rank is None else 0.0
    blocks = _blocks(layer, options, damping=damping) if layer.is_matrix else ()
    if not blocks:
        return merge_remaining(layer, options.remaining, options.damping)
    start = starting_point(layer, options.start, blocks)
    show_blocks(layer, blocks)
    layer.show("start", [start])
    terms: tuple[Operator, ...] = blocks
    if options.rank is not None:
        terms = tuple(truncated(block, options.rank, options.damping) for block in blocks)
    del blocks  # those that were truncated are not needed any more
    solution, how, used = _solve(layer, options, WeightedSum(terms, layer.shares), start)
    status = f"{solution.status}{how}{said(options.gram)}"
    details = {"preconditioner": used}
    made = Merged(solution.value, "kfac", status=status, solution=solution, details=details)
    return with_svc(layer, made, options.svc)


def show_blocks(layer: Layer, blocks: Sequence[Kronecker]) -> None:
    """Hand over A and B of every task, and what they make of its task matrix."""
    layer.show("input gram", (block.a for block in blocks))
    layer.show("output gram", (block.b for block in blocks))
    pairs = zip(blocks[layer.before :], layer.updates, strict=True)
    layer.show("product", (block.apply(update) for block, update in pairs))


def _blocks(layer: Layer, options: KfacOptions, *, damping: float) -> tuple[Kronecker, ...]:
    """Every task's `B ⊗ A`, normalised, scaled off the diagonal and damped; () if not measured.

    Of a wide layer A or B or both are in factors, unless they are to be truncated.
    """
    return tuple(_each_block(layer, options, damping=damping))


def _each_block(
    layer: Layer, options: KfacOptions, *, damping: float, first: int = 0
) -> Iterator[Kronecker]:
    """The blocks of all experts from number `first` on, one after the other."""
    inputs = layer.grams("input_gram", earlier=True)
    outputs = layer.grams("output_gradient_gram", earlier=True)
    if inputs is None or outputs is None:
        return
    if options.rank is not None:  # each is cut by its eigenvectors
        inputs, outputs = tuple(map(matrix, inputs)), tuple(map(matrix, outputs))
    inputs, outputs = inputs[first:], outputs[first:]
    form = {"off_diagonal": options.off_diagonal, "normalise": options.normalise}
    for b, a in zip(outputs, inputs, strict=True):
        yield regularised(Kronecker(b, a), damping=damping, **form)


def _solve(
    layer: Layer, options: KfacOptions, operator: WeightedSum, start: Tensor
) -> tuple[Solution, str, str]:
    """The solution, what befell it, and the preconditioner it was found with."""
    shift = options.anchor * float(operator.diagonal().mean()) if options.anchor else 0.0
    own = WeightedSum(operator.terms[layer.before :], operator.weights[layer.before :])
    right = _products(layer, options, own, "experts", layer.experts)
    right = layer.joined("product", right, sum(layer.shares[: layer.before]))
    if shift:
        right = right + shift * start

    if layer.negative:
        require_diagonal(layer, operator.diagonal() + shift, "K-FAC merging")

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
    if options.start == "average":
        mean = _products(layer, options, operator, "average", [start] * len(operator.terms))
        how["residual"] = right - mean - shift * start
    how["origin"] = layer.base
    quick = linear.stacked(operator)

    def matvec(x: Tensor) -> Tensor:
        return quick.apply(x) + shift * x if shift else quick.apply(x)

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


def _products(
    layer: Layer, options: KfacOptions, operator: WeightedSum, what: str, xs: Sequence[Tensor]
) -> Tensor:
    """`Σ α_m B_m X_m A_m`, of what is remembered for every damping where A and B are matrices.

    The operator's terms are those of all experts, or of the last of them.
    """
    blocks = [term for term in operator.terms if isinstance(term, Kronecker)]
    if len(blocks) < len(operator.terms) or any(block.in_factors for block in blocks):
        return operator.apply_each(xs)

    def compute() -> tuple[Tensor, Tensor, Tensor]:
        # One at a time: the damped ones are in memory already.
        first = len(layer.weights) - len(xs)
        undamped = _each_block(layer, options, damping=0.0, first=first)
        return damped_products(undamped, operator.weights, xs)

    key = ("K-FAC products", what, *_undamped(layer, options))
    constant, linear, square = layer.remember(key, compute)
    return constant + options.damping * linear + options.damping**2 * square


def _undamped(layer: Layer, options: KfacOptions) -> tuple[object, ...]:
    """All that the undamped blocks and their sum depend on, beside what the layer was given."""
    asked = options.model_dump(include={"gram", "gram_power", "normalise", "off_diagonal"})
    return layer.weights, *asked.values()


def limits(layer: Layer, options: Options) -> dict[str, Any]:
    """Where CG stops, as the options say, and what it keeps and tells, as the layer says."""
    asked = options.model_dump(include={"iterations", "tolerance", "error"})
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
    if uses_joint(options):
        return _by_joint_bases(layer, options, shift), "joint bases"
    if blocks and not shift:
        inverse = linear.kronecker_inverse(*sums(blocks, layer.magnitudes))
        if inverse is not None:
            return inverse, "kronecker, by inverses"
    return _by_eigenbases(layer, options, shift), "kronecker, by eigenbases"


def _by_eigenbases(layer: Layer, options: KfacOptions, shift: float) -> linear.Apply:
    """Damping moves the eigenvalues of the sums and leaves their vectors: one basis serves all."""
    damping = options.damping if options.rank is None else 0.0  # a truncated block is damped whole

    def compute() -> tuple[linear.Eigen, linear.Eigen]:
        blocks = _blocks(layer, options, damping=0.0)
        (a, q_a), (b, q_b) = (eigh_descending(total) for total in sums(blocks, layer.magnitudes))
        # A flipped view would be copied at every product.
        return (a, q_a.contiguous()), (b, q_b.contiguous())

    a, b = layer.remember(("K-FAC eigenbases", *_undamped(layer, options)), compute)
    moved = [(values + damping * values.mean(), vectors) for values, vectors in (a, b)]
    return linear.kronecker(moved[0], moved[1], shift)


def _by_joint_bases(layer: Layer, options: KfacOptions, shift: float) -> linear.Apply:
    """As eigenbases do, the bases of all blocks serve every damping."""

    def compute() -> tuple[linear.JointBasis, linear.JointBasis]:
        blocks = _blocks(layer, options, damping=0.0)
        sides = [matrix(k.a) for k in blocks], [matrix(k.b) for k in blocks]
        a, b = (linear.joint_basis(grams, layer.magnitudes) for grams in sides)
        return a, b

    a, b = layer.remember(("K-FAC joint bases", *_undamped(layer, options)), compute)
    return linear.joint(a, b, layer.magnitudes, damping=options.damping, shift=shift)


def sums(blocks: Sequence[Kronecker], shares: Sequence[float]) -> tuple[Tensor, Tensor]:
    """`Σ α_m A_m` and `Σ α_m B_m`."""
    sides = [matrix(k.a) for k in blocks], [matrix(k.b) for k in blocks]
    return weighted_sum(sides[0], shares), weighted_sum(sides[1], shares)


def kfac_reads(options: KfacOptions) -> frozenset[str]:
    measured = measured_kinds(options.gram, KFAC)
    folded = {"input_mean"} if options.fold_bias and "input_gram" in measured else set()
    start = FISHER if options.start == "fisher" else set()
    return measured | remaining_reads(options.remaining) | folded | start


def why_not(options: KfacOptions) -> str:
    """Why no experts can be added to a merge with these options; "" where they can."""
    if options.svc is not None:
        return "its singular values are calibrated, which needs every expert's update"
    kept = ("zero", "pretrained", "average", "task_arithmetic")
    return "" if options.start in kept else f"it starts at '{options.start}', which needs them all"


def kept_elements(s: Shape, options: KfacOptions) -> float:
    """Numbers that the right side, the mean, and every expert's A and B hold."""
    if not s.is_matrix or (options.gram == "measured" and not s.measured >= KFAC):
        return remaining_elements(s, options.remaining)
    sides = ((s.columns, s.ranks[0]), (s.rows, s.ranks[1]))
    grams = sum(size * (rank + 1 if rank else size) for size, rank in sides)
    sums = 3.0 if options.start == "task_arithmetic" else 2.0
    return sums * s.elements + s.experts * grams


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
    sums=Sums(why_not, each=KFAC, elements=kept_elements),
    factored=True,
    stages=(
        TASK_MATRIX,
        INPUT_GRAM,
        OUTPUT_GRAM,
        PRODUCT,
        start_of(),
        ITERATE,
        UPDATE,
        outcome("Σₜ αₜ Bₜ W Aₜ = Σₜ αₜ Bₜ Wₜ Aₜ"),
    ),
    solve=Solve("iterations", {"damping": 0.0, "anchor": 0.0, "off_diagonal": 1.0}),
    exploring={"preconditioner": "joint"},
)
