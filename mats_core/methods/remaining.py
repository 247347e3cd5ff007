"""What parameters without a block of their own take: mean, diagonal Fisher, or full block."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from torch import Tensor

from ..linear import Dense, Status, damped, pseudo_solve, solve_positive
from .cost import Cost, Shape, operations, passes
from .cost import averaged as averaged_cost
from .fisher import FisherOptions, fisher
from .fisher import cost as fisher_cost
from .layer import Layer, Merged, averaged, indefinite
from .options import option

Remaining = Annotated[
    Literal["mean", "fisher", "block"],
    option(
        help="what a parameter without a separate block takes: the mean, the diagonal Fisher, or "
        "(small parameters, where measured) its full block",
        label="Parameters without statistics",
        vectors="block",
    ),
]


def merge_remaining(layer: Layer, remaining: Remaining, damping: float) -> Merged:
    """The mean, the diagonal Fisher, or the full block, whichever was asked for and measured."""
    if remaining == "block":
        blocks = layer.measured("block")
        if blocks is not None and not layer.lacks("block"):
            return _block(layer, blocks, damping)
    if remaining in ("fisher", "block") and layer.measured("fisher") is not None:
        # Raw, as in every run of docs/study.md: tasks with loud gradients decide these few.
        return fisher(layer, FisherOptions(normalise=False))
    return averaged(layer)


def _block(layer: Layer, blocks: tuple[Tensor, ...], damping: float) -> Merged:
    """Σ α_m C_m vec W = Σ α_m C_m vec W_m with full blocks; nearest to the mean where singular."""
    terms = tuple(Dense(damped(block, damping)) for block in blocks)
    matrix = layer.total("block", (term.matrix for term in terms), layer.shares)
    weighed = (term.apply(value) for term, value in zip(terms, layer.experts, strict=True))
    right = layer.total("block value", weighed, layer.shares).reshape(1, -1)
    value = solve_positive(matrix, right)
    if value is None and layer.negative:
        raise indefinite(layer, "full blocks")
    if value is None:
        value = pseudo_solve(matrix, right, averaged(layer).value.reshape(1, -1))
    return Merged(value.reshape(layer.base.shape), "block", status=str(Status.CLOSED_FORM))


def means_by_pieces(options: Any, is_matrix: bool) -> bool:
    """Whether a tensor is sure to take the mean."""
    return not is_matrix and options.remaining == "mean"


def remaining_reads(remaining: Remaining) -> set[str]:
    return {"mean": set(), "fisher": {"fisher"}, "block": {"fisher", "block"}}[remaining]


def remaining_cost(s: Shape, remaining: Remaining) -> Cost:
    """What `merge_remaining` costs."""
    n = s.elements
    if remaining == "block" and "block" in s.measured:
        work = operations(n**3 / 3 + 2.0 * n**2) + passes(n * n * s.width, 6.0 * s.experts + 12)
        return Cost("merged", work, (2 * s.experts * s.width + 4 * 8) * n * n)
    if remaining in ("fisher", "block") and "fisher" in s.measured:
        return fisher_cost(s, FisherOptions())
    return averaged_cost(s)


def remaining_elements(s: Shape, remaining: Remaining) -> float:
    """Numbers that the sums of `merge_remaining` hold."""
    if remaining == "block" and "block" in s.measured:
        return s.elements**2 + 2.0 * s.elements
    return (3.0 if "fisher" in s.measured and remaining != "mean" else 1.0) * s.elements
