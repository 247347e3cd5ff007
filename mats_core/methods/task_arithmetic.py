"""Task arithmetic (arXiv 2212.04089): a scaled sum of task vectors."""

from __future__ import annotations

from typing import Any

from .cost import Cost, Shape
from .layer import Layer, Merged
from .method import Counterpart, Method, Sums, every_tensor, never
from .options import Options, Signed, option
from .stages import TASK_MATRIX, Stage, outcome


class ArithmeticOptions(Options):
    scaling: Signed = option(
        0.3,
        "λ, the factor of the sum of task vectors; negative: what was learned is taken away",
        source="arXiv 2212.04089 recommends 0.3–0.4 without validation data; for few experts: "
        "validation split of the sample family",
        by_experts={2: 0.8, 3: 0.7, 4: 0.5},
    )


def task_arithmetic(layer: Layer, options: ArithmeticOptions, survey: Any = None) -> Merged:
    """W = W0 + λ Σ α_m Δ_m, with the weights as given (1 by default)."""
    update = layer.total("sum", layer.updates, layer.weights, mean=False)
    layer.show("sum", [update])
    return Merged(layer.base + options.scaling * update, "task_arithmetic")


def cost(s: Shape, options: ArithmeticOptions) -> Cost:
    return Cost("merged", s.passes(6 * s.experts + 5), 4 * s.nbytes)


METHOD = Method(
    name="task_arithmetic",
    title="Task arithmetic",
    group="task vectors",
    summary="Adds up what each expert learned, scaled down so that the sum does not overshoot.",
    formula=r"W = W_0 + \lambda \sum_m \alpha_m \Delta_m",
    source="arXiv 2212.04089",
    options=ArithmeticOptions,
    merge=task_arithmetic,
    cost=cost,
    pieces=every_tensor,
    normalises=never,
    sums=Sums(),
    stages=(
        TASK_MATRIX,
        Stage("sum", "Sum of the task matrices", "Σₜ αₜ Δₜ"),
        outcome("W = W₀ + λ Σₜ αₜ Δₜ", λ="the option scaling"),
    ),
    mergekit=lambda options: Counterpart(
        "task_arithmetic",
        "The same arithmetic: each weight is λ times the expert's own.",
        {"normalize": False},
        scaling=options.scaling,
    ),
)
