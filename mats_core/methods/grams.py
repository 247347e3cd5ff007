"""Grams of the updates in place of measured ones: a merge by curvature from the weights alone.

An expert moved most along the inputs that it saw and against the gradients that it got, so that its
update's own Grams `Δᵀ Δ` and `Δ Δᵀ` stand for A and B (ACTMat, arXiv 2604.01329; with the trace of
each at one, WUDI-Merging, arXiv 2503.08099).  Of TACT only the largest entries of Δ enter them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Literal

import torch
from torch import Tensor

from ..linear import WORTH, Gram, streamed_thresholds, update_gram
from .cost import Cost, Shape, gemm, selection, thin_svd
from .layer import KFAC, Layer, LayerStatistics
from .options import option

OfInputs = Literal["measured", "update"]
OfBoth = Literal["measured", "update", "update-output"]
INPUT = frozenset({"input_gram"})
POWERED = "1 on validation data of the sample family, 0.5 is better on the vision family's"

InputSource = Annotated[
    OfInputs,
    option(
        help="A as measured, or from each update (Δᵀ Δ), which needs no data",
        label="Gram from",
    ),
]
Source = Annotated[
    OfBoth,
    option(
        help="A and B as measured, or from each update, which needs no data; update-output: A "
        "measured, B from the update, which needs no gradients",
        label="Grams from",
    ),
]
GramShare = Annotated[
    float,
    option(
        help="share of each update's entries, largest magnitudes first, of which its Grams are "
        "made (where they come from updates)",
        above=0,
        high=1,
        step=0.05,
        label="Share of the update",
        more=True,
    ),
]

GramPower = Annotated[
    float,
    option(
        help="p, the power of the eigenvalues of each update's Grams (where they come from "
        "updates): below 1 its weaker directions count for more",
        above=0,
        high=1,
        step=0.05,
        label="Power of the update's Grams",
        more=True,
    ),
]


def measured_kinds(gram: OfBoth, kinds: frozenset[str]) -> frozenset[str]:
    """Of the kinds of statistics that a method takes, those that no update stands for."""
    replaced = {"measured": frozenset(), "update": KFAC, "update-output": KFAC - INPUT}
    return kinds - replaced[gram]


def with_grams(
    layer: Layer, gram: OfBoth, kinds: frozenset[str], share: float = 1.0, power: float = 1.0
) -> Layer:
    """The layer with Grams from its updates in place of measured ones, as `gram` says.

    kinds   those that the method solves with
    share   of each update's entries that are in its Gram
    power   of the eigenvalues of the Gram
    """
    made = kinds - measured_kinds(gram, kinds)
    if not made or not layer.is_matrix:
        return layer
    measured = layer.statistics or (LayerStatistics(),) * len(layer.experts)
    # Signs do not matter to a Gram.
    statistics = tuple(
        replace(own, **{kind: _gram(layer, index, share, power, kind) for kind in made})
        for index, own in enumerate(measured)
    )
    return replace(layer, statistics=statistics)


def _gram(layer: Layer, index: int, share: float, power: float, kind: str) -> Gram:
    update, stored = layer.updates[index], layer.experts[index]
    # What the expert's weights were rounded to is no direction of its update.
    rounding = torch.finfo(stored.dtype).eps * float(stored.norm())
    if share < 1:
        update = largest(update, share)
    side = update if kind == "input_gram" else update.mT
    return update_gram(side, len(layer.experts), rounding, power)


def largest(update: Tensor, share: float) -> Tensor:
    """The update with all but a share of its entries, the largest magnitudes, at zero."""
    (limit,) = streamed_thresholds(lambda: [[update]], share)
    return torch.where(update.abs() >= limit, update, 0)


def said(gram: OfBoth) -> str:
    """What a layer's report adds where Grams come from updates."""
    return {
        "measured": "",
        "update": ", Grams of the updates",
        "update-output": ", B of the updates",
    }[gram]


def costing(
    s: Shape,
    gram: OfBoth,
    kinds: frozenset[str],
    inner: Callable[[Shape], Cost],
    share: float = 1.0,
    power: float = 1.0,
) -> Cost:
    """What a layer costs by `inner`, with the Grams that its updates give counted in.

    kinds   those that the method solves with

    That an update is of low rank is not known before: its Grams count as those of any other.
    """
    made = kinds - measured_kinds(gram, kinds)
    if not made or not s.is_matrix:
        return inner(s)
    m, n, t = s.rows, s.columns, s.experts
    sides = {"input_gram": (m, n), "output_gradient_gram": (n, m)}
    ranks = {kind: k if WORTH * k <= d else 0 for kind, (k, d) in sides.items()}
    mine = tuple(
        ranks[kind] if kind in made else measured
        for kind, measured in zip(sides, s.ranks, strict=True)
    )
    cost = inner(replace(s, measured=s.measured | made, ranks=mine))
    work, held = s.passes(0), 2.0 * s.nbytes
    probe = gemm(m, min(m, n) // (WORTH * t), n, s.dtype) * 3
    for kind in made:
        k, d = sides[kind]
        formed = s.passes(2) if ranks[kind] else gemm(d, d, k, s.dtype)
        work += (formed + probe + s.passes(5)) * t
        work += selection(s) if share < 1 else s.passes(0)
        work += thin_svd(m, n) * t if power < 1 else s.passes(0)
        held += t * d * (ranks[kind] or d) * s.width
    return replace(cost, work=cost.work + work, nbytes=cost.nbytes + held)
