"""Consensus TA (arXiv 2405.07813): the sum of task vectors where at least two tasks need it.

TALL masks say which entries of the sum a task needs: those in which its own task vector is not
small against what the others add.  What one task alone needs, or none, is left out.
"""

from __future__ import annotations

from typing import Any

import torch

from ..linear import weighted_sum
from .cost import Cost, Shape
from .layer import Layer, Merged
from .method import Method, every_tensor, never
from .options import Options, Signed, option
from .spaces import InSpace
from .stages import TASK_MATRIX, Stage, outcome

MASKS = {
    "mₜ": "the mask of task t: 1 where the inequality holds, else 0",
    "Σₛ": "the sum over all experts s",
    "αₛ": "what expert s counts",
    "Δₛ": "the task matrix of expert s",
    "κ": "the option threshold",
}
NEEDED = {
    **MASKS,
    "τ": "the sum of the task matrices where it is needed",
    "k": "the option tasks, at most the number of experts",
    "𝟏": "1 where the inequality holds, else 0",
}


class ConsensusOptions(Options):
    threshold: float = option(
        0.2,
        "κ, how large an entry of a task vector must be against the sum of the others' for the "
        "task to need it",
        low=0,
        high=3,
        step=0.05,
        source="validation split of the sample family",
    )
    tasks: int = option(
        2,
        "k, how many tasks must need an entry; at most as many as are merged count",
        low=0,
        high=20,
        step=1,
        source="arXiv 2405.07813",
    )
    scaling: Signed = option(
        0.3,
        "λ, the factor of what is left of the sum",
        source="validation split of the sample family",
        by_experts={2: 1.0, 3: 1.0, 4: 0.5},
    )
    space: InSpace = "full"


def consensus(layer: Layer, options: ConsensusOptions, survey: Any = None) -> Merged:
    """W = W0 + λ τ, with τ = 1[Σ m_m ≥ k] ∘ Σ α_m Δ_m, m_m = 1[|α_m Δ_m| ≥ κ |Σ_{s≠m} α_s Δ_s|].

    An expert of weight zero needs nothing.
    """
    total = weighted_sum(layer.updates, layer.weights)
    layer.show("sum", [total])
    needs = torch.zeros_like(total)
    counted = [index for index, weight in enumerate(layer.weights) if weight]
    for index in counted:
        own = layer.updates[index] * layer.weights[index]
        needed = own.abs() >= options.threshold * (total - own).abs()
        if layer.watch is not None:
            layer.watch("mask", index, needed.to(total.dtype), layer.offset or 0)
        needs += needed
    found = total * (needs >= min(options.tasks, len(counted)))
    layer.show("needed", [found])
    return Merged(layer.base + options.scaling * found, "consensus")


def cost(s: Shape, options: ConsensusOptions) -> Cost:
    return Cost("merged", s.passes(24 * s.experts + 10), 8 * s.nbytes)


METHOD = Method(
    name="consensus",
    title="Consensus task arithmetic",
    short="Consensus",
    group="task vectors",
    summary="Adds up the task vectors, and keeps of the sum what at least two tasks need.",
    formula=r"W = W_0 + \lambda\, \mathbf 1\left[\textstyle\sum_m m_m \ge k\right] \circ \sum_m "
    r"\alpha_m \Delta_m,\quad m_m = \mathbf 1\left[\,|\alpha_m \Delta_m| \ge \kappa\, "
    r"\left|\textstyle\sum_{s \ne m} \alpha_s \Delta_s\right|\,\right]",
    source="arXiv 2405.07813",
    options=ConsensusOptions,
    merge=consensus,
    cost=cost,
    pieces=every_tensor,
    normalises=never,
    stages=(
        TASK_MATRIX,
        Stage("sum", "Sum of the task matrices", "Σₜ αₜ Δₜ"),
        Stage(
            "mask", "What the task needs", "mₜ: |αₜ Δₜ| ≥ κ |Σₛ αₛ Δₛ − αₜ Δₜ|", MASKS, each=True
        ),
        Stage("needed", "What enough tasks need", "τ = 𝟏[Σₜ mₜ ≥ k] ∘ Σₜ αₜ Δₜ", NEEDED),
        outcome("W = W₀ + λ τ", λ="the option scaling", **NEEDED),
    ),
)
