"""Methods that live in the singular-value decomposition of the task matrices.

Sources: TSV-M (arXiv 2412.00081), Iso-C and Iso-CTS (arXiv 2502.04959).  All treat the experts
alike, apply to matrices, and give every other parameter the mean task vector with factor 1.

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

from ..linear import Triples, largest_triples, norm, polar
from .layer import Layer, Merged, averaged
from .method import Method, but_matrices
from .options import Options, option

MEASURED = "validation split of the sample family; published: 1"
SCALING = "α, the factor of the merged task matrices"


class TsvOptions(Options):
    scaling: float = option(1.5, SCALING, low=0, high=3, step=0.05, source=MEASURED)


def rounding(layer: Layer, terms: int = 1) -> float:
    """More than the largest singular value that float32 rounding gives a sum of `W_m − W0`.

    A matrix of independent entries, each `ε |w|` at most, has about `ε ‖W‖ (1/√m + 1/√n)`; the
    error of one rounding is a fifth of ε in the mean square, and half of ε is asked for here.
    Errors of several terms add up in squares.
    """
    m, n = layer.base.shape
    largest = max(map(norm, (layer.base, *layer.experts)))
    each = torch.finfo(torch.float32).eps / 2 * largest * (m**-0.5 + n**-0.5)
    return each * terms**0.5


def tsv_update(updates: Sequence[Tensor], floor: float = 0.0) -> tuple[Tensor, str]:
    """`U_o diag(σ_cat) V_o`: the top ⌊min(d)/T⌋ triples of each task, factors orthogonalised.

    Triples with a singular value at or under `floor` are left out.  Also says how exact parts were
    found (`said`).
    """
    rank = max(1, min(updates[0].shape) // len(updates))
    triples = [_above(largest_triples(update, rank), floor) for update in updates]
    left = torch.cat([own.left for own in triples], 1)
    values = torch.cat([own.values for own in triples])
    right = torch.cat([own.right for own in triples], 0)
    ways = [own.by for own in triples]
    if not len(values):
        return torch.zeros_like(updates[0]), said(ways)
    first, second = polar(left), polar(right)
    return (first.factor * values) @ second.factor, said([*ways, first.by, second.by])


def _above(found: Triples, floor: float) -> Triples:
    kept = int((found.values > floor).sum())
    return Triples(found.left[:, :kept], found.values[:kept], found.right[:kept], found.by)


def said(ways: Sequence[str]) -> str:
    """The status of a layer whose decompositions were found in these ways."""
    by_gram = sum(way == "Gram" for way in ways)
    if not by_gram:
        return "exact"
    return f"exact, {by_gram} of {len(ways)} decompositions by their Gram"


def tsv_m(layer: Layer, options: TsvOptions, survey: Any = None) -> Merged:
    """W = W0 + α U_o diag(σ_cat) V_o."""
    if not layer.is_matrix:
        return averaged(layer)
    update, status = layer.remember("tsv_m", lambda: tsv_update(layer.updates, rounding(layer)))
    return Merged(layer.base + options.scaling * update, "tsv_m", status=status)


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
    pieces=but_matrices,
    weighted=False,
)
