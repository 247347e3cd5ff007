"""TSV-M (arXiv 2412.00081): the strongest singular directions of every task, orthogonalised.

Like Iso-C and Iso-CTS it treats the experts alike, applies to matrices, and gives every other
parameter the mean task vector with factor 1, −1 where the scaling is negative.

The update of a LoRA expert has a low rank.  Its other singular vectors are what rounding left, or
whatever the SVD routine returns for a zero, and would take part in an orthogonalisation like real
ones: TSV-M and Iso-C leave out directions below the rounding of float32 weights (`rounding`).
Iso-CTS asks for more directions than such experts have; there is no cure for that here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..linear import Triples, host, largest_triples_each, polar
from .cost import Cost, Shape, gemm, polar_factor, svd_bytes
from .cost import averaged as averaged_cost
from .cost import largest_triples as triples_cost
from .layer import Layer, Merged, Show, mean_task_vector, unseen
from .method import Method, but_matrices, never
from .options import Options, Signed, option
from .spaces import InSpace, rounding
from .stages import TASK_MATRIX, Stage, outcome

MEASURED = "validation split of the sample family; published: 1"
STRONGEST = {
    "Uₜ": "the strongest left singular vectors of the task matrix",
    "Vₜ": "its right ones",
    "σₜ": "its largest singular values, d / T of them for T tasks",
    "diag": "a diagonal matrix with these values",
}
SCALING = "α, the factor of the merged task matrices"


DIRECTIONS = {
    "U⊥": "the left singular vectors of all tasks side by side, set at right angles",
    "V⊥": "the right singular vectors of all tasks, set at right angles",
    "σ": "the singular values of all tasks",
    "diag": "a diagonal matrix with these values",
}
SCALED = {"α": "the option scaling"}


class TsvOptions(Options):
    scaling: Signed = option(1.5, SCALING, source=MEASURED)
    space: InSpace = "full"


def tsv_update(
    updates: Sequence[Tensor], floor: float = 0.0, show: Show = unseen
) -> tuple[Tensor, str]:
    """`U_o diag(σ_cat) V_o`: the top ⌊min(d)/T⌋ triples of each task, factors orthogonalised.

    Triples with a singular value at or under `floor` are left out.  Also says how exact parts were
    found (`said`).
    """
    rank = max(1, min(updates[0].shape) // len(updates))
    triples = above(largest_triples_each(updates, rank), floor)
    show("kept", ((own.left * own.values) @ own.right for own in triples))
    left = torch.cat([own.left for own in triples], 1)
    values = torch.cat([own.values for own in triples])
    right = torch.cat([own.right for own in triples], 0)
    ways = [own.by for own in triples]
    if not len(values):
        return torch.zeros_like(updates[0]), said(ways)
    first, second = polar(left), polar(right)
    show("left", [first.factor])
    show("values", [values])
    show("right", [second.factor])
    return (first.factor * values) @ second.factor, said([*ways, first.by, second.by])


def above(found: Sequence[Triples], floor: float) -> list[Triples]:
    """Of each task the triples with a singular value above `floor`."""
    counts = map(int, host([[(own.values > floor).sum() for own in found]])[0])
    return [
        Triples(own.left[:, :kept], own.values[:kept], own.right[:kept], own.by)
        for own, kept in zip(found, counts, strict=True)
    ]


def said(ways: Sequence[str]) -> str:
    """The status of a layer whose decompositions were found in these ways."""
    by_gram = sum(way != "SVD" for way in ways)
    if not by_gram:
        return "exact"
    return f"exact, {by_gram} of {len(ways)} decompositions by their Gram"


def tsv_m(layer: Layer, options: TsvOptions, survey: Any = None) -> Merged:
    """W = W0 + α U_o diag(σ_cat) V_o."""
    if not layer.is_matrix:
        return mean_task_vector(layer, options.scaling)
    update, status = layer.remember(
        ("tsv_m", layer.signs),
        lambda: tsv_update(layer.signed_updates, rounding(layer), layer.show),
    )
    layer.show("sum", [update])
    return Merged(layer.base + options.scaling * update, "tsv_m", status=status)


def cost(s: Shape, options: TsvOptions) -> Cost:
    if not s.is_matrix:
        return averaged_cost(s)
    m, n, t = s.rows, s.columns, s.experts
    each = max(1, min(m, n) // t)
    r = each * t
    work = triples_cost(m, n, each, s.dtype) * t + gemm(m, n, r, s.dtype) + s.passes(3 * t + 8)
    work += polar_factor(m, r, s.dtype) + polar_factor(r, n, s.dtype)
    # Every task's own share of triples is kept until the last is there.
    kept = 2 * s.nbytes + 3 * r * (m + n) * s.width
    return Cost("merged", work, kept + svd_bytes(m, n))


METHOD = Method(
    name="tsv_m",
    title="TSV-M",
    group="task vectors",
    summary="Keeps each task's strongest singular directions and makes them orthogonal "
    "to one another.",
    formula=r"W = W_0 + \alpha\, U_\perp\, \mathrm{diag}(\sigma)\, V_\perp^\top",
    source="arXiv 2412.00081",
    options=TsvOptions,
    merge=tsv_m,
    cost=cost,
    pieces=but_matrices,
    stages=(
        TASK_MATRIX,
        Stage("kept", "Its strongest directions", "Uₜ diag(σₜ) Vₜᵀ", STRONGEST, each=True),
        Stage("left", "Left directions of all", "U⊥", DIRECTIONS, axes=("output", "direction")),
        Stage("values", "Singular values of all", "σ", DIRECTIONS, axes=("", "direction")),
        Stage("right", "Right directions of all", "V⊥ᵀ", DIRECTIONS, axes=("direction", "input")),
        Stage("sum", "Merged task matrix", "U⊥ diag(σ) V⊥ᵀ", DIRECTIONS),
        outcome("W = W₀ + α U⊥ diag(σ) V⊥ᵀ", **DIRECTIONS, **SCALED),
    ),
    weighted=False,
    normalises=never,
)
