"""Methods that live in the singular-value decomposition of the task matrices.

Sources: TSV-M (arXiv 2412.00081), Iso-C and Iso-CTS (arXiv 2502.04959).  All treat the experts
alike, apply to matrices, and give every other parameter the mean task vector with factor 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..linalg import polar, svd
from .base import Layer, Merged, Options, averaged, option, weighted_sum

MEASURED = "validation split of the sample family; published: 1"
SCALING = "α, the factor of the merged task matrices"


class TsvOptions(Options):
    scaling: float = option(1.5, SCALING, low=0, high=3, step=0.05, source=MEASURED)


class IsoOptions(Options):
    scaling: float = option(2.0, SCALING, low=0, high=3, step=0.05, source=MEASURED)


class IsoCtsOptions(IsoOptions):
    common: float = option(
        0.8,
        "share of the rank that is given to directions common to all tasks",
        low=0,
        high=1,
        step=0.05,
        source="arXiv 2502.04959",
    )


def tsv_update(updates: Sequence[Tensor]) -> Tensor:
    """`U_o diag(σ_cat) V_o`: the top ⌊min(d)/T⌋ triples of each task, factors orthogonalised."""
    rank = max(1, min(updates[0].shape) // len(updates))
    triples = [_top(svd(update), rank) for update in updates]
    left = torch.cat([u for u, _, _ in triples], 1)
    values = torch.cat([s for _, s, _ in triples])
    right = torch.cat([v for _, _, v in triples], 0)
    return (polar(left)[0] * values) @ polar(right)[0]


def _top(triple: tuple[Tensor, Tensor, Tensor], rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first `rank` triples, as copies: a view would hold the rest of all tasks as well."""
    u, s, v = triple
    return u[:, :rank].clone(), s[:rank].clone(), v[:rank].clone()


def tsv_m(layer: Layer, options: TsvOptions, survey: Any = None) -> Merged:
    """W = W0 + α U_o diag(σ_cat) V_o."""
    if not layer.is_matrix:
        return averaged(layer)
    update = layer.remember("tsv_m", lambda: tsv_update(layer.updates))
    return Merged(layer.base + options.scaling * update, "tsv_m")


def iso_c(layer: Layer, options: IsoOptions, survey: Any = None) -> Merged:
    """W = W0 + α σ̄ U Vᵀ of the SVD of Σ Δ_m: all singular values replaced by their mean."""
    if not layer.is_matrix:
        return averaged(layer)
    direction, values = layer.remember("iso_c", lambda: polar(_total(layer)))
    return Merged(layer.base + options.scaling * values.mean() * direction, "iso_c")


def iso_cts(layer: Layer, options: IsoCtsOptions, survey: Any = None) -> Merged:
    """Common directions of Σ Δ_m, task-specific ones of (I − U_c U_cᵀ) Δ_m, uniform spectrum."""
    if not layer.is_matrix:
        return averaged(layer)
    update = layer.remember(
        ("iso_cts", options.common), lambda: iso_cts_update(layer, options.common)
    )
    return Merged(layer.base + options.scaling * update, "iso_cts")


def iso_cts_update(layer: Layer, share: float) -> Tensor:
    """σ̄ U V over the common and the task-specific directions, before scaling."""
    tasks, rank = len(layer.experts), min(layer.base.shape)
    # As published: the task-specific part is a multiple of T, the common part takes what is left.
    per_task = min(round((rank - int(rank * share)) / tasks), rank // tasks)
    common = rank - per_task * tasks
    u, s, v = layer.remember("svd of the sum", lambda: svd(_total(layer)))
    u_common = u[:, :common]
    left, values, right = [u_common], [s[:common]], [v[:common]]
    for update in layer.updates:
        specific = update - u_common @ (u_common.mT @ update)
        u_t, s_t, v_t = _top(svd(specific), per_task)
        left.append(u_t)
        values.append(s_t)
        right.append(v_t)
    direction = polar(torch.cat(left, 1))[0] @ polar(torch.cat(right, 0))[0]
    return torch.cat(values).mean() * direction


def _total(layer: Layer) -> Tensor:
    return weighted_sum(layer.updates, (1.0,) * len(layer.experts))
