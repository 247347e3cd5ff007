"""Averages and task arithmetic: methods that need nothing but weights.

Sources: model soups (arXiv 2203.05482), FedAvg (1602.05629), task arithmetic (2212.04089).
"""

from __future__ import annotations

from typing import Any

from .method import Layer, Merged, Options, option, weighted_sum


class AverageOptions(Options):
    """The weights of the experts come from the recipe; there is nothing to tune."""


class ArithmeticOptions(Options):
    scaling: float = option(
        0.3,
        "λ, the factor of the sum of task vectors",
        low=0,
        high=3,
        step=0.05,
        source="arXiv 2212.04089 recommends 0.3–0.4 without validation data",
    )


def average(layer: Layer, options: AverageOptions, survey: Any = None) -> Merged:
    """W = Σ α_m W_m / Σ α_m."""
    return Merged(weighted_sum(layer.experts, layer.shares), "average", "averaged")


def task_arithmetic(layer: Layer, options: ArithmeticOptions, survey: Any = None) -> Merged:
    """W = W0 + λ Σ α_m Δ_m, with the weights as given (1 by default)."""
    update = weighted_sum(layer.updates, layer.weights)
    return Merged(layer.base + options.scaling * update, "task_arithmetic")
