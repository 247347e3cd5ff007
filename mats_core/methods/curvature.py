"""Matching models in their task parameter subspace by input Grams and K-FAC blocks.

Sources: MaTS (arXiv 2312.04339), RegMean (arXiv 2212.09849), K-FAC (arXiv 1503.05671).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from .. import solver
from ..linalg import eigh_descending, pseudo_solve, solve_positive
from ..operators import (
    Dense,
    InputGram,
    Kronecker,
    Operator,
    Spectral,
    WeightedSum,
    damped,
    regularised,
    truncated,
)
from ..solver import Solution, Status
from .averaging import ArithmeticOptions, task_arithmetic
from .base import Layer, Merged, Options, averaged, option, weighted_sum
from .elementwise import FisherOptions, fisher

MEASURED = "validation split of the sample family"
STARTS = ("zero", "pretrained", "average", "task_arithmetic", "regmean", "fisher")
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


class KfacOptions(Options):
    iterations: int = option(
        50, "conjugate-gradient iterations at most", low=0, high=2000, step=5, source=MEASURED
    )
    tolerance: float = option(
        1e-3, "relative residual at which a layer stops", low=0, high=1, source=MEASURED
    )
    off_diagonal: float = option(
        1.0,
        "λ, the factor of the off-diagonal entries of A and of B",
        low=0,
        high=1,
        step=0.05,
        source="arXiv 2312.04339",
    )
    damping: float = option(
        0.1,
        "δ, Tikhonov damping as a share of the mean eigenvalue, of A and of B",
        low=0,
        high=10,
        step=0.01,
        source=MEASURED,
    )
    anchor: float = option(
        0.0,
        "μ, proximal pull towards the start, as a share of the operator's mean diagonal",
        low=0,
        high=10,
        step=0.01,
    )
    start: str = option(
        "average",
        "where CG starts: " + ", ".join(STARTS) + ", or the path of a checkpoint",
        source="arXiv 2312.04339 starts at task arithmetic",
    )
    preconditioner: Literal["auto", "none", "jacobi", "kronecker"] = option(
        "auto",
        "what CG is preconditioned with; auto: kronecker where the system is damped or anchored, "
        "none where only plain CG lands on the solution nearest to the start; on failure plain CG "
        "takes over and says so",
        source="a fifth of the products for the same residual, measured on the sample family; "
        "published: none",
    )
    normalise: bool = option(
        True, "divide each task's A and B by their traces, so that no task owns the operator"
    )
    fold_bias: bool = option(False, "merge [W b] as one matrix")
    rank: int | None = option(
        None, "keep only so many eigen-directions of each task's B ⊗ A; all by default", low=1
    )
    remaining: Remaining = remaining_option()


# Parameters without a block of their own ----------------------------------------------------------


def merge_remaining(layer: Layer, remaining: Remaining, damping: float) -> Merged:
    """The mean, the diagonal Fisher, or the full block, whichever was asked for and measured."""
    if remaining == "block":
        blocks = layer.measured("block")
        if blocks is not None:
            return _block(layer, blocks, damping)
    if remaining in ("fisher", "block") and layer.measured("fisher") is not None:
        return fisher(layer, FisherOptions())
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


def _remaining_reads(remaining: Remaining) -> set[str]:
    return {"mean": set(), "fisher": {"fisher"}, "block": {"fisher", "block"}}[remaining]


# RegMean ------------------------------------------------------------------------------------------


def regmean_value(layer: Layer, operators: list[InputGram]) -> tuple[Tensor, bool]:
    """`(Σ α W_m A_m)(Σ α A_m)⁻¹`, and whether the sum was singular (then: nearest to the mean)."""
    left = weighted_sum((operator.a for operator in operators), layer.shares)
    right = weighted_sum(
        (op.apply(update) for op, update in zip(operators, layer.updates, strict=True)),
        layer.shares,
    )
    # Solved for the update: the mean update is then the anchor of a singular system.
    update = solve_positive(left, right)
    if update is not None:
        return layer.base + update, False
    return layer.base + pseudo_solve(left, right, layer.mean_update), True


def regmean(layer: Layer, options: RegMeanOptions, survey: Any = None) -> Merged:
    """W = (Σ α_m W_m A_m)(Σ α_m A_m)⁻¹ by Cholesky."""
    grams = layer.measured("input_gram") if layer.is_matrix else None
    if grams is None:
        return merge_remaining(layer, options.remaining, options.damping)
    rows = len(layer.base)
    operators = [
        regularised(
            InputGram(gram, rows), off_diagonal=options.off_diagonal, damping=options.damping
        )
        for gram in grams
    ]
    value, singular = regmean_value(layer, operators)  # type: ignore[arg-type]
    status = "singular: nearest to the average" if singular else str(Status.CLOSED_FORM)
    return Merged(value, "regmean", status=status)


def regmean_reads(options: RegMeanOptions) -> frozenset[str]:
    mean = {"input_mean"} if options.fold_bias else set()
    return frozenset({"input_gram", *mean, *_remaining_reads(options.remaining)})


# K-FAC blocks by conjugate gradients --------------------------------------------------------------


def kfac(layer: Layer, options: KfacOptions, survey: Any = None) -> Merged:
    """`Σ α_m B_m W A_m = Σ α_m B_m W_m A_m`, by CG, or in closed form for two models."""
    inputs = layer.measured("input_gram") if layer.is_matrix else None
    outputs = layer.measured("output_gradient_gram") if layer.is_matrix else None
    if inputs is None or outputs is None:
        return merge_remaining(layer, options.remaining, options.damping)
    blocks = _blocks(layer, options, damping=0.0 if options.rank else options.damping)
    start = starting_point(layer, options, blocks)
    terms: list[Operator] = [_subspace(block, options) for block in blocks]
    solution, how = _solve(layer, options, blocks, terms, start)
    return Merged(solution.value, "kfac", status=f"{solution.status}{how}", solution=solution)


def _blocks(layer: Layer, options: KfacOptions, *, damping: float) -> list[Kronecker]:
    """Every task's `B ⊗ A`, normalised, scaled off the diagonal and damped."""
    inputs, outputs = layer.measured("input_gram"), layer.measured("output_gradient_gram")
    assert inputs is not None
    assert outputs is not None
    found = [
        regularised(
            Kronecker(b, a), off_diagonal=options.off_diagonal, damping=damping,
            normalise=options.normalise,
        )
        for b, a in zip(outputs, inputs, strict=True)
    ]  # fmt: skip
    return [block for block in found if isinstance(block, Kronecker)]


def _subspace(block: InputGram | Kronecker, options: KfacOptions) -> Operator:
    """The block itself, or its top directions; those are damped after, not before, the cut."""
    if options.rank is None:
        return block
    cut = truncated(block, options.rank)
    return Spectral(cut.q_b, cut.q_a, cut.values + options.damping * cut.values.mean())


def _solve(
    layer: Layer,
    options: KfacOptions,
    blocks: list[Kronecker],
    terms: list[Operator],
    start: Tensor,
) -> tuple[Solution, str]:
    operator = WeightedSum(tuple(terms), layer.shares)
    right = weighted_sum(
        (term.apply(expert) for term, expert in zip(terms, layer.experts, strict=True)),
        layer.shares,
    )
    shift = options.anchor * float(operator.diagonal().mean()) if options.anchor else 0.0
    if shift:
        right = right + shift * start

    def matvec(x: Tensor) -> Tensor:
        return operator.apply(x) + shift * x if shift else operator.apply(x)

    if len(blocks) == 2 and options.rank is None and not shift:
        pair = (layer.shares[0], layer.shares[1])
        closed = solver.two_models(blocks[0], blocks[1], pair, right, start)
        if closed is not None:
            return closed, ""

    def run(preconditioner: solver.Apply | None) -> Solution:
        return solver.cg(
            matvec,
            right,
            start,
            iterations=options.iterations,
            tolerance=options.tolerance,
            preconditioner=preconditioner,
            keep=layer.keep,
            callback=layer.pulse,
        )

    preconditioner = _preconditioner(options, operator, layer, shift)
    solution = run(preconditioner)
    if preconditioner and solution.status in (Status.STAGNATED, Status.NOT_POSITIVE):
        return run(None), f" (plain CG after the {_name(options)} preconditioner failed)"
    return solution, ""


def _preconditioner(
    options: KfacOptions,
    operator: WeightedSum,
    layer: Layer,
    shift: float,
) -> Callable[[Tensor], Tensor] | None:
    regular = bool(options.damping and options.rank is None) or shift > 0
    if options.preconditioner == "none" or (options.preconditioner == "auto" and not regular):
        return None
    if options.preconditioner == "jacobi":
        return solver.jacobi(operator.diagonal() + shift)
    bases = layer.remember(
        ("eigenbases of ΣA and ΣB", options.normalise, options.off_diagonal),
        lambda: _eigenbases(layer, options),
    )
    # Damping moves the eigenvalues of the sums and leaves their vectors: one basis serves all.
    damping = 0.0 if options.rank else options.damping
    a, b = ((values + damping * values.mean(), vectors) for values, vectors in bases)
    return solver.kronecker_in(a, b, shift)


def _name(options: KfacOptions) -> str:
    return "kronecker" if options.preconditioner == "auto" else options.preconditioner


def _eigenbases(layer: Layer, options: KfacOptions) -> tuple[solver.Eigen, solver.Eigen]:
    """Of `Σ α_m A_m` and `Σ α_m B_m`, before damping."""
    blocks = _blocks(layer, options, damping=0.0)
    return (
        eigh_descending(weighted_sum((block.a for block in blocks), layer.shares)),
        eigh_descending(weighted_sum((block.b for block in blocks), layer.shares)),
    )


def starting_point(layer: Layer, options: KfacOptions, blocks: list[Kronecker]) -> Tensor:
    """X₀ for `options.start`."""
    if options.start == "zero":
        return torch.zeros_like(layer.base)
    if options.start == "pretrained":
        return layer.base.clone()
    if options.start == "average":
        return averaged(layer).value
    if options.start == "task_arithmetic":
        return task_arithmetic(layer, ArithmeticOptions()).value
    if options.start == "regmean":
        rows = len(layer.base)
        return regmean_value(layer, [InputGram(block.a, rows) for block in blocks])[0]
    if options.start == "fisher":
        return fisher(layer, FisherOptions()).value
    if layer.starts is None:
        raise ValueError(f"no reader for the start '{options.start}'")
    return layer.starts(layer.name)


def kfac_reads(options: KfacOptions) -> frozenset[str]:
    kinds = {"input_gram", "output_gradient_gram", *_remaining_reads(options.remaining)}
    if options.fold_bias:
        kinds.add("input_mean")
    if options.start == "fisher":
        kinds.add("fisher")
    return frozenset(kinds)
