"""Fisher merging (arXiv 2111.09832): a mean weighted by the diagonal of each expert's Fisher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..linear import weighted_sum
from .cost import Cost, Shape
from .cost import averaged as averaged_cost
from .layer import FISHER, Layer, Merged, averaged, indefinite
from .method import Method, Sums
from .options import Normalise, Options, Share, option
from .stages import FISHER_DIAGONAL, TASK_MATRIX, UPDATE, Stage, outcome


class FisherOptions(Options):
    floor: Share = option(
        0.1,
        "smallest Fisher value, as a share of the tensor's mean: keeps parameters that no example "
        "touched from being decided by noise",
        step=0.01,
        source="validation split of the sample family",
    )
    normalise: Normalise = option(
        True,
        "divide each task's Fisher by its sum over the tensor, so that no task dominates",
        source="validation splits of the sample family and of both families of docs/study.md",
    )


def floored(values: Tensor, floor: float, normalise: bool = False) -> Tensor:
    """F with every entry at least `floor` times its mean; divided by its sum first if asked."""
    if normalise:
        total = values.sum()
        values = values / total if float(total) > 0 else values
    return values.clamp_min(0).clamp_min(floor * float(values.mean()))


def fisher_average(total: Tensor, weighted: Tensor, mean: Tensor) -> Tensor:
    """Σ α_m F_m ∘ V_m / Σ α_m F_m of both sums, and the plain mean where every F_m is zero."""
    safe = torch.where(total > 0, total, 1)
    return torch.where(total > 0, weighted / safe, mean)


def require_positive(
    layer: Layer, fishers: Sequence[Tensor], shares: Sequence[float], what: str
) -> None:
    """Raise `InputError` where negative weights outweigh the others in a parameter that any expert
    depends on."""
    seen = weighted_sum(fishers, (1.0,) * len(fishers)) > 0
    if bool(((weighted_sum(fishers, shares) <= 0) & seen).any()):
        raise indefinite(layer, what)


def fisher(layer: Layer, options: FisherOptions, survey: Any = None) -> Merged:
    """W = Σ α_m F_m ∘ W_m / Σ α_m F_m; parameters without a Fisher take the mean."""
    fishers = layer.measured("fisher")
    if fishers is None or layer.lacks("fisher"):
        return averaged(layer)
    ready = tuple(floored(values, options.floor, options.normalise) for values in fishers)
    if layer.negative:
        require_positive(layer, ready, layer.shares, "Fisher merging")
    layer.show("fisher", ready)
    pairs = zip(layer.shares, ready, strict=True)
    layer.show("shares", (share * own / weighted_sum(ready, layer.shares) for share, own in pairs))
    weighted = (own * update for own, update in zip(ready, layer.updates, strict=True))
    total = layer.total("fisher", ready, layer.shares)
    above = layer.total("fisher update", weighted, layer.shares)
    update = fisher_average(total, above, layer.mean_update)
    return Merged(layer.base + update, "fisher")


def cost(s: Shape, options: FisherOptions) -> Cost:
    if "fisher" not in s.measured:
        return averaged_cost(s)
    each = 26 + (5 if options.normalise else 0)
    return Cost("merged", s.passes(each * s.experts + 12), (s.experts + 8) * s.nbytes)


def kept_elements(s: Shape, options: FisherOptions) -> float:
    """Numbers that the sums of a layer hold: both of the quotient's, and the mean."""
    return (3.0 if "fisher" in s.measured else 1.0) * s.elements


METHOD = Method(
    name="fisher",
    title="Diagonal Fisher",
    group="statistics",
    summary="A mean in which each expert's parameters weigh as much as its predictions "
    "depend on them.",
    formula=r"W = \sum_m \alpha_m F_m \circ W_m \,/\, \sum_m \alpha_m F_m",
    source="arXiv 2111.09832",
    options=FisherOptions,
    merge=fisher,
    cost=cost,
    short="Fisher",
    reads=lambda options: FISHER,
    requires=lambda options: FISHER,
    sums=Sums(elements=kept_elements),
    stages=(
        TASK_MATRIX,
        FISHER_DIAGONAL,
        Stage("shares", "What the expert counts, weight by weight", "αₜ Fₜ / Σₜ αₜ Fₜ", each=True),
        UPDATE,
        outcome("W = Σₜ αₜ Fₜ ∘ Wₜ / Σₜ αₜ Fₜ"),
    ),
)
