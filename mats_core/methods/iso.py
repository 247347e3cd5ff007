"""Iso-C and Iso-CTS (arXiv 2502.04959): every direction of the merged update equally strong."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..linear import Triples, largest_triples, polar, svd, weighted_sum
from .layer import Layer, Merged, averaged
from .method import Method, but_matrices
from .options import Options, option
from .tsv_m import MEASURED, SCALING, rounding, said


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


ISO_C = Method(
    name="iso_c",
    title="Iso-C",
    group="task vectors",
    summary="Adds up the task matrices and makes every direction of the sum equally strong.",
    formula=r"W = W_0 + \alpha\, \bar\sigma\, U V^\top,\quad U \Sigma V^\top = "
    r"\sum_m \Delta_m",
    source="arXiv 2502.04959",
    options=IsoOptions,
    merge=iso_c,
    pieces=but_matrices,
    weighted=False,
)


ISO_CTS = Method(
    name="iso_cts",
    title="Iso-CTS",
    group="task vectors",
    summary="Like Iso-C, with a share of the directions reserved for what only one task needs.",
    formula=r"W = W_0 + \alpha\, \bar\sigma\, [U_c\,U_1 \cdots U_T]_\perp\, "
    r"[V_c\,V_1 \cdots V_T]_\perp^\top",
    source="arXiv 2502.04959",
    options=IsoCtsOptions,
    merge=iso_cts,
    pieces=but_matrices,
    weighted=False,
)
