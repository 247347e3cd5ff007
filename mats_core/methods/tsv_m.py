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

from ..linear import Triples, largest_triples, polar, svd
from .method import Layer, Merged, Options, averaged, norm, option, weighted_sum

MEASURED = "validation split of the sample family; published: 1"
SCALING = "α, the factor of the merged task matrices"


class TsvOptions(Options):
    scaling: float = option(1.5, SCALING, low=0, high=3, step=0.05, source=MEASURED)


class IsoOptions(Options):
    scaling: float = option(2.0, SCALING, low=0, high=5, step=0.05, source=MEASURED)


class IsoCtsOptions(IsoOptions):
    common: float = option(
        0.8,
        "share of the rank that is given to directions common to all tasks",
        low=0,
        high=1,
        step=0.05,
        source="arXiv 2502.04959",
    )


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


def iso_c(layer: Layer, options: IsoOptions, survey: Any = None) -> Merged:
    """W = W0 + α σ̄ U Vᵀ of the SVD of Σ Δ_m: all singular values replaced by their mean."""
    if not layer.is_matrix:
        return averaged(layer)
    found = layer.remember(
        "iso_c", lambda: polar(_total(layer), rounding(layer, len(layer.experts)))
    )
    value = layer.base + options.scaling * found.values.mean() * found.factor
    return Merged(value, "iso_c", status=said([found.by]))


def iso_cts(layer: Layer, options: IsoCtsOptions, survey: Any = None) -> Merged:
    """Common directions of Σ Δ_m, task-specific ones of (I − U_c U_cᵀ) Δ_m, uniform spectrum."""
    if not layer.is_matrix:
        return averaged(layer)
    update, status = layer.remember(
        ("iso_cts", options.common), lambda: iso_cts_update(layer, options.common)
    )
    return Merged(layer.base + options.scaling * update, "iso_cts", status=status)


def iso_cts_update(layer: Layer, share: float) -> tuple[Tensor, str]:
    """σ̄ U V over the common and the task-specific directions, before scaling."""
    tasks, rank = len(layer.experts), min(layer.base.shape)
    # As published: the task-specific part is a multiple of T, the common part takes what is left.
    per_task = min(round((rank - int(rank * share)) / tasks), rank // tasks)
    common = rank - per_task * tasks
    u, s, v = layer.remember("svd of the sum", lambda: svd(_total(layer)))
    u_common = u[:, :common]
    parts = [Triples(u_common, s[:common], v[:common], "SVD")]
    if per_task:
        for update in layer.updates:
            specific = update - u_common @ (u_common.mT @ update)
            parts.append(largest_triples(specific, per_task))
    first = polar(torch.cat([part.left for part in parts], 1))
    second = polar(torch.cat([part.right for part in parts], 0))
    mean = torch.cat([part.values for part in parts]).mean()
    ways = [*(part.by for part in parts), first.by, second.by]
    return mean * (first.factor @ second.factor), said(ways)


def _total(layer: Layer) -> Tensor:
    return weighted_sum(layer.updates, (1.0,) * len(layer.experts))
