"""The mean of the experts.  Sources: model soups (arXiv 2203.05482), FedAvg (1602.05629)."""

from __future__ import annotations

from typing import Any

from .cost import Cost, Shape, averaged
from .layer import Layer, Merged
from .method import Counterpart, Method, Sums, every_tensor
from .options import Options
from .stages import TASK_MATRIX, UPDATE, outcome


class AverageOptions(Options):
    """The weights of the experts come from the recipe; there is nothing to tune."""


def average(layer: Layer, options: AverageOptions, survey: Any = None) -> Merged:
    """W = Σ α_m W_m / Σ α_m."""
    return Merged(layer.total("mean", layer.experts, layer.shares), "average", "averaged")


def cost(s: Shape, options: AverageOptions) -> Cost:
    return averaged(s)


METHOD = Method(
    name="average",
    title="Average",
    group="weights",
    summary="The (weighted) mean of the experts: every direction counts the same.",
    formula=r"W = \sum_m \alpha_m W_m \,/\, \sum_m \alpha_m",
    source="model soups, arXiv 2203.05482; FedAvg, arXiv 1602.05629",
    options=AverageOptions,
    merge=average,
    cost=cost,
    pieces=every_tensor,
    reads_base=False,
    sums=Sums(),
    stages=(TASK_MATRIX, UPDATE, outcome("W = Σₜ αₜ Wₜ / Σₜ αₜ")),
    mergekit=lambda options: Counterpart(
        "linear",
        "The same arithmetic: mergekit's linear is the weighted average.",
        {"normalize": True},
        base="",
    ),
)
