"""Model stock (arXiv 2403.19522): the mean of the experts, drawn back to the base by their angle.

Fine-tuned models of one kind lie on a thin shell around a centre; how far their mean is from it
follows from the angles between their task vectors alone.  As in mergekit the cosine is the mean
over all pairs of experts, where the paper speaks of one angle for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ..linear import weighted_sum
from .cost import Cost, Shape, passes
from .layer import Layer, Merged
from .method import Counterpart, Method, SurveyScope
from .options import Options, option
from .slerp import NOTHING, inner
from .stages import TASK_MATRIX, UPDATE, Stage, outcome

SINGULAR = 1e-6  # below it the base stays, as in mergekit, instead of a step without an end
RATIO = {
    "t": "how far the merge goes from the base to the mean of T experts: T c / (1 + (T − 1) c), "
    "where c is the mean cosine of the angles between their task vectors",
    "W̄": "the mean of the experts",
}


class StockOptions(Options):
    by_row: bool = option(
        False,
        "whether each row of a tensor has an angle of its own; mergekit's `filter_wise`",
        source="mergekit 0.1.5",
        label="An angle for each row",
    )


def model_stock(
    layer: Layer, options: StockOptions, survey: Sequence[float] | None = None
) -> Merged:
    """W = t W̄ + (1 − t) W0, t = T c / (1 + (T − 1) c).  `survey` holds t of a whole tensor."""
    if options.by_row:
        t = _ratio(_cosine_by_row(list(layer.signed_updates)), len(layer.experts))
        t = t.reshape(-1, *[1] * (layer.base.ndim - 1)) if layer.base.ndim > 1 else t
    else:
        (ratio,) = survey or ratio_of(lambda: [layer], options)
        t = layer.base.new_tensor(ratio)
    layer.show("ratio", [t.reshape(-1)])
    mean = weighted_sum(layer.signed_updates, (1 / len(layer.experts),) * len(layer.experts))
    return Merged(
        layer.base + t * mean, "model_stock", details={"interpolation": [float(t.double().mean())]}
    )


def ratio_of(layers: Callable[[], Iterable[Layer]], options: StockOptions) -> tuple[float, ...]:
    """How far a tensor goes from the base to the mean of its experts."""
    count = 0
    products: dict[tuple[int, int], float] = {}
    for layer in layers():
        updates, count = list(layer.signed_updates), len(layer.experts)
        for i, one in enumerate(updates):
            for j, other in enumerate(updates[: i + 1]):
                products[i, j] = products.get((i, j), 0.0) + inner(one, other)
    lengths = [max(0.0, products[i, i]) ** 0.5 for i in range(count)]
    # An update of zero has no direction and counts as orthogonal to the others.
    cosines = [
        value / (lengths[i] * lengths[j]) if min(lengths[i], lengths[j]) > NOTHING else 0.0
        for (i, j), value in products.items()
        if i != j
    ]
    # One expert alone has no angle, and is its own centre.
    mean = torch.tensor(sum(cosines) / len(cosines) if cosines else 1.0, dtype=torch.float64)
    return (float(_ratio(mean, count)),)


def _cosine_by_row(updates: Sequence[Tensor]) -> Tensor:
    """The mean over all pairs of the cosine between the same row of two updates, one a row."""
    rows = [own.reshape(own.shape[0] if own.ndim > 1 else 1, -1) for own in updates]
    units = [row / row.norm(dim=1, keepdim=True).clamp_min(NOTHING) for row in rows]
    pairs = [
        (one * other).sum(1) for i, one in enumerate(units) for other in units[:i]
    ]  # fmt: skip
    return torch.stack(pairs).mean(0) if pairs else rows[0].new_ones(len(rows[0]))


def _ratio(cosine: Tensor, count: int) -> Tensor:
    below = 1 + (count - 1) * cosine
    singular = below.abs() < SINGULAR
    return torch.where(singular, 0, count * cosine / torch.where(singular, 1, below))


def surveys(options: StockOptions) -> SurveyScope:
    return "none" if options.by_row else "tensor"


def cost(s: Shape, options: StockOptions) -> Cost:
    pairs = s.experts * (s.experts + 1) / 2
    work = passes(2 * s.nbytes, 6 * pairs) + s.passes(12 * s.experts + 6)
    return Cost("merged", work, (2 * s.experts + 5) * s.nbytes + (16 << 20))


METHOD = Method(
    name="model_stock",
    title="Model stock",
    group="task vectors",
    summary="The mean of the experts, drawn back towards the base as far as the angles between "
    "their changes say.",
    formula=r"W = t\,\bar W + (1 - t)\, W_0,\quad t = \frac{T c}{1 + (T - 1)\, c},\quad "
    r"c = \mathrm{mean}_{s<m} \cos\angle(\Delta_s, \Delta_m)",
    source="arXiv 2403.19522",
    options=StockOptions,
    merge=model_stock,
    cost=cost,
    survey=ratio_of,
    surveys=surveys,
    pieces=lambda options, is_matrix: not options.by_row,
    weighted=False,
    stages=(
        TASK_MATRIX,
        Stage("ratio", "How far towards the mean", "t", RATIO, axes=("", "output")),
        UPDATE,
        outcome("W = t W̄ + (1 − t) W₀", **RATIO),
    ),
    mergekit=lambda options: Counterpart(
        "model_stock",
        "The same arithmetic, for two experts and more; where the norms of two updates multiply to "
        "less than 1e-6 mergekit takes their cosine for smaller.",
        {"filter_wise": options.by_row},
        scaling=None,
    ),
)
