"""Iso-C and Iso-CTS (arXiv 2502.04959): every direction of the merged update equally strong."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..linear import Triples, largest_triples, polar, svd, weighted_sum
from .cost import Cost, Shape, gemm, polar_factor, svd_bytes, thin_svd
from .cost import averaged as averaged_cost
from .cost import largest_triples as triples_cost
from .layer import Layer, Merged, mean_task_vector
from .method import Method, but_matrices, never
from .options import Options, Share, option
from .spaces import InSpace, rounding
from .stages import TASK_MATRIX, Stage, outcome
from .tsv_m import MEASURED, SCALING, said


class IsoOptions(Options):
    scaling: float = option(
        2.0,
        SCALING,
        low=-5,
        high=5,
        step=0.05,
        source=MEASURED,
        by_experts={2: 3.0, 3: 3.0, 4: 3.0},
    )
    space: InSpace = "full"


class IsoCtsOptions(IsoOptions):
    common: Share = option(
        0.8,
        "share of the rank that is given to directions common to all tasks; they also take what T "
        "tasks cannot divide among themselves",
        source="arXiv 2502.04959",
    )


def iso_c(layer: Layer, options: IsoOptions, survey: Any = None) -> Merged:
    """W = W0 + α σ̄ U Vᵀ of the SVD of Σ Δ_m: all singular values replaced by their mean."""
    if not layer.is_matrix:
        return mean_task_vector(layer, options.scaling)
    found = layer.remember(
        ("iso_c", layer.signs), lambda: polar(_total(layer), rounding(layer, len(layer.experts)))
    )
    layer.show("sum", map(_total, [layer]))
    layer.show("mean value", [found.values.mean()])
    layer.show("factor", [found.factor])
    value = layer.base + options.scaling * found.values.mean() * found.factor
    return Merged(value, "iso_c", status=said([found.by]))


def iso_cts(layer: Layer, options: IsoCtsOptions, survey: Any = None) -> Merged:
    """Common directions of Σ Δ_m, task-specific ones of (I − U_c U_cᵀ) Δ_m, uniform spectrum."""
    if not layer.is_matrix:
        return mean_task_vector(layer, options.scaling)
    update, status = layer.remember(
        ("iso_cts", layer.signs, options.common), lambda: iso_cts_update(layer, options.common)
    )
    return Merged(layer.base + options.scaling * update, "iso_cts", status=status)


def iso_cts_update(layer: Layer, share: float) -> tuple[Tensor, str]:
    """σ̄ U V over the common and the task-specific directions, before scaling."""
    tasks, rank = len(layer.experts), min(layer.base.shape)
    common, per_task = shared_rank(rank, tasks, share)
    u, s, v = layer.remember(("svd of the sum", layer.signs), lambda: svd(_total(layer)))
    u_common = u[:, :common]
    parts = [Triples(u_common, s[:common], v[:common], "SVD")]
    if per_task:
        for update in layer.signed_updates:
            specific = update - u_common @ (u_common.mT @ update)
            parts.append(largest_triples(specific, per_task))
    layer.show("sum", map(_total, [layer]))
    first = polar(torch.cat([part.left for part in parts], 1))
    second = polar(torch.cat([part.right for part in parts], 0))
    mean = torch.cat([part.values for part in parts]).mean()
    layer.show("mean value", [mean])
    layer.show("factor", (first.factor @ one for one in [second.factor]))
    ways = [*(part.by for part in parts), first.by, second.by]
    return mean * (first.factor @ second.factor), said(ways)


def _stages(factor: str, **symbols: str) -> tuple[Stage, ...]:
    """The sum, its mean singular value, and directions of equal strength: of both methods."""
    said = {"σ̄": "the mean of the singular values", **symbols}
    return (
        TASK_MATRIX,
        Stage("sum", "Sum of the task matrices", "Σₜ Δₜ"),
        Stage("mean value", "Mean singular value", "σ̄", said, axes=("", "")),
        Stage("factor", "Every direction equally strong", factor, said),
        outcome(f"W = W₀ + α σ̄ {factor}", α="the option scaling", **said),
    )


def shared_rank(rank: int, tasks: int, share: float) -> tuple[int, int]:
    """(common directions, those of each task), of `rank` in all.

    As published: the task-specific part is a multiple of T, the common part takes what is left.
    """
    per_task = min(round((rank - int(rank * share)) / tasks), rank // tasks)
    return rank - per_task * tasks, per_task


def _total(layer: Layer) -> Tensor:
    return weighted_sum(layer.updates, layer.signs)


def iso_c_cost(s: Shape, options: IsoOptions) -> Cost:
    if not s.is_matrix:
        return averaged_cost(s)
    m, n, t = s.rows, s.columns, s.experts
    work = polar_factor(m, n, s.dtype) + s.passes(6 * t + 8)
    return Cost("merged", work, 4 * s.nbytes + svd_bytes(m, n))


def iso_cts_cost(s: Shape, options: IsoCtsOptions) -> Cost:
    if not s.is_matrix:
        return averaged_cost(s)
    m, n, t = s.rows, s.columns, s.experts
    rank = min(m, n)
    common, each = shared_rank(rank, t, options.common)
    work = thin_svd(m, n) + triples_cost(m, n, each, s.dtype) * t + s.passes(12 * t + 8)
    work += gemm(m, n, common, s.dtype) * (2 * t) + gemm(m, n, rank, s.dtype)
    work += polar_factor(m, rank, s.dtype) + polar_factor(rank, n, s.dtype)
    kept = 5 * s.nbytes + 3 * rank * (m + n) * s.width
    return Cost("merged", work, kept + svd_bytes(m, n))


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
    cost=iso_c_cost,
    pieces=but_matrices,
    stages=_stages(
        "U Vᵀ", U="the left singular vectors of the sum", V="the right singular vectors of the sum"
    ),
    weighted=False,
    normalises=never,
)


ISO_CTS = Method(
    name="iso_cts",
    title="Iso-CTS",
    group="task vectors",
    summary="Like Iso-C, with a share of the directions reserved for what only one task needs.",
    formula=r"W = W_0 + \alpha\, \bar\sigma\, U_\perp V_\perp^\top,\quad "
    r"U = [U_c\,U_1 \cdots U_T],\quad V = [V_c\,V_1 \cdots V_T]",
    source="arXiv 2502.04959",
    options=IsoCtsOptions,
    merge=iso_cts,
    cost=iso_cts_cost,
    pieces=but_matrices,
    stages=_stages(
        "U⊥ V⊥ᵀ",
        **{
            "U⊥": "left directions of all tasks together, then of single ones, at right angles",
            "V⊥": "their right directions, at right angles",
        },
    ),
    weighted=False,
    normalises=never,
)
