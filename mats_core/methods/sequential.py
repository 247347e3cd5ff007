"""Sequential calibration: a merge whose layers are solved one after the other, inside of the model.

Every layer is matched on the inputs that it gets in the merge, whose earlier layers are calibrated
already, and its target also corrects what the residual stream has lost on the way:

    x_s, x_e   a layer's input in the merge and in the expert, x̃ = [x; 1]
    r_s, r_e   the stream that its output is added to, where there is one
    y_t        W̃_t (a x̃_e + (1 − a) x̃_s) + (r_e − r_s), with W̃_t = [W_t b_t]

    Σ α_t B_t W̃ A_t = Σ α_t B_t E[y_t x̃_sᵀ],    A_t = E[x̃_s x̃_sᵀ]

FeatCal (arXiv 2605.13030) and RegMean++ (2508.03121) are relatives with B = I; the form with
curvature by sub-layer is not published.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor

from .. import linear
from ..linear import (
    Gram,
    Kronecker,
    Status,
    WeightedSum,
    effective_dimension,
    eigh_descending,
    matrix,
    pseudo_solve,
    regularised_gram,
    solve_positive,
    weighted_sum,
)
from .cost import Cost, Shape, bound, cholesky_solve, gemm, inverses
from .cost import averaged as averaged_cost
from .grams import with_grams
from .kfac import KfacOptions, kfac, limits, sums
from .layer import Layer, LayerStatistics, Merged, averaged, indefinite
from .method import Method
from .options import ErrorGoal, Iterations, Options, Share, Strength, Tolerance, option
from .regmean import MEASURED
from .stages import ITERATE, OUTPUT_GRAM, TASK_MATRIX, UPDATE, Stage, outcome, start_of

GRAM = {
    "Aₜ": "the Gram of the inputs that this layer gets in the merge, on the examples of expert t: "
    "E[x̃ x̃ᵀ], of trace one, as the options regularise it",
    "x̃": "an input of the layer in the merge, whose earlier layers are calibrated, and a 1 for the "
    "bias",
    "W̃": "the merged weights with the bias as last column",
}
TARGET = {
    "Cₜ": "the mean of yₜ x̃ᵀ, in the scale of Aₜ",
    "E": "the mean over the examples of expert t",
    "yₜ": "what the layer should give: the output of expert t, and what the residual stream has "
    "lost before it",
    **GRAM,
}
CURVATURE = {
    "Bₜ": "the curvature of the outputs: from the update of expert t, with how its answers turn "
    "or without, or as measured"
}
OUTPUT = frozenset({"output_gradient_gram"})
STARTS = ("average", "kfac")
# Of a layer's details: its width with the column of the bias, and how many input directions are
# decided by each expert's examples, alone and with the update's share.
INPUT_WIDTH, DECIDED, STEADIED = "input_width", "directions", "steadied_directions"
# w: examples that need nothing of the update's Gram, and those that need `STEADY` of it; and what
# inputs of no task of the expert need.
ENOUGH, FEW = 256, 8
STEADY, FOREIGN = 0.8, 0.9


class SequentialOptions(Options):
    """Options of sequential calibration."""

    curvature: Literal["update", "answers", "measured", "identity"] = option(
        "update",
        "B: from each update, Δ Δᵀ, which needs no labels and no gradients; the mean of that and "
        "of how the expert's answers turn with a layer's outputs, which needs gradients and no "
        "labels; as it was measured at the experts; or none, which leaves a least-squares fit of "
        "the outputs",
        source=MEASURED,
        label="Curvature of the outputs",
    )
    inputs: Literal["own", "pile", "pool"] = option(
        "own",
        "what layers are matched on: examples of each expert's task; one unsorted pile of the "
        "examples of all their tasks; or a pool of no task, random pictures or sentences that come "
        "with the library. From a pile or a pool each expert takes what its update answers to",
        source=MEASURED,
        label="Calibration inputs",
    )
    pile: str | None = option(
        None,
        "a task whose examples are the pile; by default those of all experts' tasks",
        label="Task of the pile",
        task=True,
        more=True,
    )
    candidates: int = option(
        2048,
        "inputs of a pile or a pool that every expert looks at to take its examples",
        low=1,
        high=65536,
        step=1,
        source=MEASURED,
        more=True,
    )
    examples: int = option(
        256,
        "inputs on which each expert's layers are matched, from a pile or a pool at most the "
        "expert's share of the candidates; labels are not looked at",
        low=1,
        high=4096,
        step=1,
        source=MEASURED,
    )
    augment_to: int = option(
        256,
        "fewer pictures than that get moved and lit copies up to so many; texts have none",
        low=0,
        high=4096,
        step=32,
        source=MEASURED,
        label="Augment pictures to",
        more=True,
    )
    damping: Strength = option(
        0.03,
        "δ, Tikhonov damping as a share of the mean eigenvalue, of A and of B, towards each expert",
        source=MEASURED,
    )
    expert_inputs: Share = option(
        1.0,
        "a, how much a layer's target is of the expert's own inputs; 0: of the merge's, as in "
        "RegMean++",
        source="FeatCal, arXiv 2605.13030, mixes 0.25",
        label="Inputs of the expert",
    )
    residual: bool = option(
        True,
        "whether a layer's target corrects what the residual stream has lost before it",
        source=MEASURED,
        label="Correct the residual stream",
    )
    update_share: Literal["auto"] | Share = option(
        "auto",
        "w, the share of each update's Gram Δᵀ Δ in A, which steadies few or foreign inputs; auto: "
        "0 from 256 examples on, 0.8 for eight, in between by the logarithm, and 0.9 for inputs of "
        "no task of the expert",
        source=MEASURED,
        label="Share of the update's Gram",
    )
    off_diagonal: Share = option(
        1.0,
        "λ, the factor of the off-diagonal entries of A",
        source="RegMean++, arXiv 2508.03121, uses 0.9",
        more=True,
    )
    start: str = option(
        "average",
        "what all other parameters take, and where CG starts: average, kfac (from the updates "
        "alone), or the path of a checkpoint",
        checkpoint=STARTS,
        more=True,
    )
    iterations: Iterations = option(50, more=True)
    tolerance: Tolerance = option(1e-3, more=True)
    error: ErrorGoal = None


def sequential(layer: Layer, options: SequentialOptions, survey: Any = None) -> Merged:
    """The solution of the module's equation; the start where no moments were measured.

    With input Grams alone both streams are the expert's, which makes it merging by K-FAC blocks.
    """
    start = starting_merge(replace(layer, watch=None), options)
    inputs = layer.measured("input_gram") if layer.is_matrix else None
    outputs = _outputs(layer, options) if inputs is not None else None
    if inputs is None or outputs is None:
        return start
    sides = [_side(layer, index, gram, options) for index, gram in enumerate(inputs)]
    ready, targets = [a for a, _ in sides], [target for _, target in sides]
    how, details = _told(layer, options), _directions(layer, inputs, ready, options)
    layer.show("input gram", ready)
    layer.show("target", targets)
    layer.show("start", [start.value])
    if options.curvature == "identity":
        found = _least_squares(layer, ready, targets, start.value, how)
        return replace(found, details=details)
    # In factors as they are: an update with more outputs than inputs has no other directions.
    damped = [regularised_gram(b, damping=options.damping, normalise=True) for b in outputs]
    blocks = tuple(Kronecker(b, a) for b, a in zip(damped, ready, strict=True))
    operator = WeightedSum(blocks, layer.shares)
    each = (b @ target for b, target in zip(damped, targets, strict=True))
    right = weighted_sum(each, layer.shares)
    layer.show("output gram", damped)
    layer.show("right side", [right])
    preconditioner = _preconditioner(blocks, layer.magnitudes)
    how_far = {**limits(layer, options), "preconditioner": preconditioner, "origin": layer.base}
    solution = linear.cg(operator.apply, right, start.value, **how_far)
    if layer.negative and solution.status == Status.NOT_POSITIVE:
        raise indefinite(layer, "sequential calibration")
    status = f"{solution.status}{how}"
    return Merged(solution.value, "sequential", status=status, solution=solution, details=details)


def starting_merge(layer: Layer, options: SequentialOptions) -> Merged:
    """What a layer is before it is calibrated."""
    if layer.starts is not None:
        return Merged(layer.starts(layer.name), "start", "averaged", "as in the start")
    if options.start == "kfac":
        return kfac(layer, KfacOptions(gram="update", damping=options.damping))
    return averaged(layer)


def _outputs(layer: Layer, options: SequentialOptions) -> Sequence[Any] | None:
    """B of each expert; a placeholder of each where there is no curvature."""
    if options.curvature == "identity":
        return (None,) * len(layer.experts)
    measured = layer.grams("output_gradient_gram")
    if options.curvature == "measured":
        return measured
    of_updates = with_grams(layer, "update-output", OUTPUT).grams("output_gradient_gram")
    if options.curvature == "update" or of_updates is None:
        return of_updates
    if measured is None:
        return None
    return [_mean(pair) for pair in zip(of_updates, measured, strict=True)]


def _mean(grams: Sequence[Gram]) -> Tensor:
    """The mean of Grams of trace one."""
    ready = [matrix(regularised_gram(gram, normalise=True)) for gram in grams]
    return weighted_sum(ready, (1 / len(ready),) * len(ready))


def _side(
    layer: Layer, index: int, gram: Tensor, options: SequentialOptions
) -> tuple[Tensor, Tensor]:
    """A of trace one, and `E[y x̃_sᵀ]` in its scale; what is added to A draws to the expert."""
    own, expert = layer.statistics[index], layer.experts[index]
    share = share_of_update(own, options)
    scale = (1 - share) / float(gram.diagonal().sum())
    a = gram * scale
    if share:
        a = a + share * _of_update(layer.updates[index])
    formed = regularised_gram(a, off_diagonal=options.off_diagonal, damping=options.damping)
    ready = matrix(formed)
    if own.target is not None:
        return ready, own.target * scale + expert @ (ready - gram * scale)
    cross = gram if own.cross_gram is None else own.cross_gram
    mixed = options.expert_inputs * cross + (1 - options.expert_inputs) * gram
    target = expert @ (mixed * scale + (ready - gram * scale))
    if options.residual and own.lost is not None:
        target = target + scale * own.lost
    return ready, target


def share_of_update(own: LayerStatistics, options: SequentialOptions) -> float:
    """w of one expert: the option's, or by how many and how foreign its inputs are."""
    if options.update_share != "auto":
        return options.update_share
    if own.examples is None or own.examples >= ENOUGH:
        return 0.0
    if not own.examples:
        return FOREIGN
    return STEADY * min(1.0, math.log(ENOUGH / own.examples) / math.log(ENOUGH / FEW))


def _of_update(update: Tensor) -> Tensor:
    """`Δᵀ Δ` of trace one; of an expert that did not move, zero."""
    return (update.mT @ update) / update.square().sum().clamp_min(1e-30)


def _directions(
    layer: Layer, inputs: Sequence[Tensor], ready: Sequence[Tensor], options: SequentialOptions
) -> dict[str, Any]:
    """How many of a layer's input directions each expert's examples decide, and how many they do
    with the update's share of the Gram."""
    own = [regularised_gram(gram, damping=options.damping) for gram in inputs]
    found = {INPUT_WIDTH: len(ready[0]), DECIDED: _effective(own, options)}
    shared = any(share_of_update(one, options) for one in layer.statistics)
    return found | ({STEADIED: _effective(ready, options)} if shared else {})


def _effective(grams: Sequence[Any], options: SequentialOptions) -> list[float]:
    return [round(effective_dimension(matrix(gram), options.damping), 2) for gram in grams]


def measured_at_once(options: SequentialOptions) -> bool:
    """Whether the target of a layer with a stream can be measured as it is, in one product."""
    return options.expert_inputs == 1 and options.residual


def _told(layer: Layer, options: SequentialOptions) -> str:
    seen = ((own.lost, own.target) for own in layer.statistics)
    corrected = options.residual and any(one is not None for pair in seen for one in pair)
    shares = sorted({share_of_update(own, options) for own in layer.statistics})
    told = ["residual stream corrected"] if corrected else []
    if any(shares):
        ends = dict.fromkeys(f"{share:.2g}" for share in (shares[0], shares[-1]))
        told.append(f"w {' to '.join(ends)}")
    return "".join(f", {one}" for one in told)


def _least_squares(
    layer: Layer, grams: Sequence[Tensor], targets: Sequence[Tensor], start: Tensor, how: str
) -> Merged:
    left, right = weighted_sum(grams, layer.shares), weighted_sum(targets, layer.shares)
    value, status = solve_positive(left, right), str(Status.CLOSED_FORM)
    if value is None and layer.negative:
        raise indefinite(layer, "sequential calibration")
    if value is None:
        value, status = pseudo_solve(left, right, start), "singular: nearest to the start"
    return Merged(value, "sequential", status=f"{status}{how}")


def _preconditioner(blocks: Sequence[Kronecker], shares: Sequence[float]) -> linear.Apply:
    a, b = sums(blocks, shares)
    inverse = linear.kronecker_inverse(a, b)
    return inverse or linear.kronecker(eigh_descending(a), eigh_descending(b))


def reads(options: SequentialOptions) -> frozenset[str]:
    return OUTPUT if options.curvature == "measured" else frozenset()


def cost(s: Shape, options: SequentialOptions) -> Cost:
    if not s.is_matrix:
        return averaged_cost(s)
    m, n, t = s.rows, s.columns, s.experts
    product = gemm(m, n, n, s.dtype) * t + s.passes(3 * t)
    grams = t * (2 * n * n + m * m) * s.width
    product += gemm(n, n, n, s.dtype) * (t * (2 if options.update_share else 1))  # directions
    if options.curvature == "identity":
        return Cost("merged", product + cholesky_solve(m, n), 6 * s.nbytes + grams)
    operator = product + gemm(m, n, m, s.dtype) * t
    each = operator + gemm(m, n, m, s.dtype) + gemm(m, n, n, s.dtype) + s.passes(27)
    needed = bound(options.iterations, options.error or options.tolerance, t)
    work = operator * 2 + inverses(m, n, s) + each * needed + gemm(m, m, n, s.dtype) * t
    return Cost("merged", work, (12 + t) * s.nbytes + grams + 24 * max(m, n) ** 2)


METHOD = Method(
    name="sequential",
    title="Sequential calibration",
    group="statistics",
    summary="Walks through the model and matches every layer on the inputs that it gets in the "
    "merge, residual stream included; needs inputs, and not their labels.",
    formula=r"\sum_t \alpha_t B_t \tilde W A_t = \sum_t \alpha_t B_t\, "
    r"\mathrm{E}[y_t \tilde x_s^\top],\quad y_t = \tilde W_t \tilde x_e + (r_e - r_s),\quad "
    r"A_t = \mathrm{E}[\tilde x_s \tilde x_s^\top]",
    source="the K-FAC form by sub-layer of FeatCal, arXiv 2605.13030, not published before",
    options=SequentialOptions,
    merge=sequential,
    cost=cost,
    short="Sequential",
    reads=reads,
    requires=reads,
    folds=lambda options: True,
    calibrates=True,
    stages=(
        TASK_MATRIX,
        Stage("input gram", "Input Gram in the merge", "Aₜ", GRAM, ("input", "input"), each=True),
        Stage(
            "target",
            "What the outputs should be, against the inputs",
            "Cₜ = E[yₜ x̃ᵀ]",
            TARGET,
            each=True,
        ),
        OUTPUT_GRAM,
        Stage("right side", "Right side of the equation", "Σₜ αₜ Bₜ Cₜ", TARGET),
        start_of("W̃₀", **{"W̃₀": "the merge that is calibrated, where CG starts"}),
        ITERATE,
        UPDATE,
        outcome("Σₜ αₜ Bₜ W̃ Aₜ = Σₜ αₜ Bₜ Cₜ", **{**GRAM, **TARGET, **CURVATURE}),
    ),
    asks=lambda options: options.inputs == "own",
)
