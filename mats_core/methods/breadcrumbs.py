"""Model breadcrumbs (arXiv 2312.06795): task vectors without their smallest and largest entries.

The options mean what they mean in mergekit: `density` is the share that is kept, `gamma` the share
of the largest magnitudes that is dropped, both within each tensor.  The paper calls the share of
the smallest ones that is dropped β; here it is 1 − density − gamma.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ..linear import streamed_thresholds
from .combining import COMBINED, Elect, Normalise, combined
from .cost import Cost, Shape, selection
from .layer import Layer, Merged
from .method import Counterpart, Method, SurveyScope, every_tensor
from .options import Options, Share, Signed, option
from .spaces import InSpace
from .stages import TASK_MATRIX, Stage, outcome

MIDDLE = {
    "Δ̂ₜ": "the task matrix of expert t, with zeros for its largest entries, a share γ of them, "
    "and for all that are too small to be among the share `density` after those",
    "γ": "the option gamma",
}


class BreadcrumbsOptions(Options):
    density: float = option(
        0.9,
        "share of each task vector that is kept, largest magnitudes first, after the outliers",
        above=0,
        high=1,
        step=0.05,
        source="mergekit's documentation",
    )
    gamma: Share = option(
        0.01,
        "γ, the share of the largest magnitudes that is dropped as outliers; none at density 1",
        source="mergekit's documentation",
    )
    scaling: Signed = option(
        0.4,
        "λ, the factor of the sum (or the mean) of what is left",
        source="validation split of the sample family",
    )
    elect: Elect = False
    normalise: Normalise = False
    space: InSpace = "full"


def breadcrumbs(
    layer: Layer, options: BreadcrumbsOptions, survey: Sequence[float] | None = None
) -> Merged:
    """W = W0 + λ τ.  `survey` holds two magnitudes an expert: the smallest kept, and the smallest
    that is an outlier."""
    limits = survey or magnitudes(lambda: [layer], options)
    pairs = zip(limits[::2], limits[1::2], strict=True)
    kept = [_between(update, *pair) for update, pair in zip(layer.updates, pairs, strict=True)]
    layer.show("kept", kept)
    found = combined(kept, layer, elect=options.elect, normalise=options.normalise)
    layer.show("sum", [found])
    entries = max(1, layer.experts[0].numel())
    shares = [float(torch.count_nonzero(own)) / entries for own in kept]
    return Merged(layer.base + options.scaling * found, "breadcrumbs", details={"kept": shares})


def _between(update: Tensor, low: float, high: float) -> Tensor:
    size = update.abs()
    return update * ((size >= low) & (size < high))


def magnitudes(
    layers: Callable[[], Iterable[Layer]], options: BreadcrumbsOptions
) -> tuple[float, ...]:
    """Of each expert the smallest magnitude that is kept and the smallest that is an outlier, ∞
    where none is.  Where several are as large as an outlier, all of them are dropped."""
    size = sum(layer.experts[0].numel() for layer in layers())
    kept = int(options.density * size)
    outliers = min(int(options.gamma * size), size - kept)
    experts = len(next(iter(layers())).experts)
    low = high = (math.inf,) * experts
    if kept:
        low = _ranked(layers, kept + outliers, size)
    if outliers:
        high = _ranked(layers, outliers, size)
    return tuple(limit for pair in zip(low, high, strict=True) for limit in pair)


def _ranked(layers: Callable[[], Iterable[Layer]], rank: int, size: int) -> tuple[float, ...]:
    """The rank-th largest magnitude of each expert's task vector."""
    # Half an entry more, so that no rounding of the share loses one.
    return streamed_thresholds(lambda: (own.updates for own in layers()), (rank + 0.5) / size)


def surveys(options: BreadcrumbsOptions) -> SurveyScope:
    return "tensor"


def cost(s: Shape, options: BreadcrumbsOptions) -> Cost:
    return Cost(
        "merged", selection(s) * 2 + s.passes(24 * s.experts + 6), (s.experts + 6) * s.nbytes
    )


METHOD = Method(
    name="breadcrumbs",
    title="Model breadcrumbs",
    short="Breadcrumbs",
    group="task vectors",
    summary="Drops each expert's few largest changes with its smallest ones, and adds up what is "
    "left.",
    formula=r"W = W_0 + \lambda \sum_m \alpha_m \hat\Delta_m,\quad \hat\Delta_m = \Delta_m \circ "
    r"\mathbf 1\left[\,q_m \le |\Delta_m| < Q_m\right]",
    source="arXiv 2312.06795",
    options=BreadcrumbsOptions,
    merge=breadcrumbs,
    cost=cost,
    survey=magnitudes,
    surveys=surveys,
    pieces=every_tensor,
    piece=lambda options: 1 << 22,  # its tensor is read several times: in few pieces
    normalises=lambda options: options.normalise and not options.elect,
    stages=(
        TASK_MATRIX,
        Stage("kept", "Without its outliers and its smallest", "Δ̂ₜ", MIDDLE, each=True),
        Stage("sum", "Combined", "τ", COMBINED),
        outcome("W = W₀ + λ τ", λ="the option scaling", **COMBINED),
    ),
    mergekit=lambda options: Counterpart(
        "breadcrumbs_ties" if options.elect else "breadcrumbs",
        "The same arithmetic: density and gamma are shares of each tensor.",
        {"normalize": options.normalise, "lambda": options.scaling},
        each={"density": options.density, "gamma": options.gamma},
        weights="positive" if options.elect and options.normalise else "any",
    ),
)
