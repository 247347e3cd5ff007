"""Karcher mean: the point of a sphere whose squared arcs to all experts sum to the least.

Sources: Karcher, "Riemannian center of mass and mollifier smoothing" (1977), for the mean; mergekit
(arXiv 2403.13257) for its use on weights: every tensor is one flat vector, the mean is that of
their directions, and its length is the mean of their lengths.

The mean is a combination of the directions, so all of it is found from their Gram, of one row an
expert: `u = Σ c_m u_m`, arcs from `G c`, where a step of the iteration

    u ← cos‖v‖ u + sin‖v‖ v / ‖v‖,   v = Σ α_m θ_m (u_m − cos θ_m u) / sin θ_m

is one of `c`.  Nothing of the tensor's size is kept, however many iterations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ..errors import InputError
from ..linear import weighted_sum
from .cost import Cost, Shape, calls, passes
from .layer import Layer, Merged
from .method import Counterpart, Method, SurveyScope, every_tensor
from .options import Options, option
from .slerp import NOTHING, inner
from .stages import TASK_MATRIX, UPDATE, Stage, outcome

# Length below which the mean of directions has none, and sine below which an arc has: both are
# roots of sums that cancel, known to the root of the rounding (1.5e-8) and no further.
OPPOSITE = 1e-7
SHARES = {
    "sₜ": "the factor of expert t: its coefficient in the mean direction, times the mean length of "
    "all experts, over its own length"
}


class KarcherOptions(Options):
    iterations: int = option(
        10, "steps towards the mean at most", low=0, high=1000, step=1, source="mergekit 0.1.5"
    )
    tolerance: float = option(
        1e-5, "length of a step, in radians, below which the mean is reached", low=0, high=1,
        source="mergekit 0.1.5",
    )  # fmt: skip


def karcher(layer: Layer, options: KarcherOptions, survey: Sequence[float] | None = None) -> Merged:
    """W = Σ s_m W_m.  `survey` holds the factors and how many steps were taken, −1 where the
    directions cancel and there is no mean but the linear one."""
    *factors, steps = survey or factors_of(lambda: [layer], options)
    if layer.negative:
        raise InputError(
            f"weights of 'karcher', at '{layer.name}'",
            expected="none below zero: a mean on a sphere lies among its points",
            found=", ".join(f"{weight:g}" for weight in layer.weights),
            remedy="Raise them, or take a task away with 'task_arithmetic'.",
        )
    layer.show("share", (layer.experts[0].new_tensor(factor) for factor in factors))
    linear = steps < 0
    return Merged(
        weighted_sum(layer.experts, factors),
        "mean" if linear else "karcher",
        status="directions that cancel" if linear else f"{steps:.0f} steps",
        details={"shares": list(factors)},
    )


def factors_of(layers: Callable[[], Iterable[Layer]], options: KarcherOptions) -> tuple[float, ...]:
    """The factor of each expert, and the number of steps (see `karcher`)."""
    gram, shares = np.zeros(()), np.zeros(())
    for layer in layers():
        experts, shares = layer.experts, np.array(layer.shares)
        own = [[inner(a, b) if j <= i else 0.0 for j, b in enumerate(experts)]
               for i, a in enumerate(experts)]  # fmt: skip
        gram = gram + np.array(own)
    gram = gram + np.tril(gram, -1).T
    lengths = np.sqrt(gram.diagonal())
    # A tensor of zeros has no direction; its length still counts in the mean length.
    some = (lengths > NOTHING) & (shares > 0)
    factors, steps = np.zeros(len(shares)), 0
    if some.any():
        unit = gram[np.ix_(some, some)] / np.outer(lengths[some], lengths[some])
        np.fill_diagonal(unit, 1.0)
        found = mean_direction(unit, shares[some] / shares[some].sum(), options)
        if found is None:
            return (*map(float, shares), -1.0)
        factors[some] = found[0] * float(shares @ lengths) / lengths[some]
        steps = found[1]
    return (*map(float, factors), float(steps))


def mean_direction(
    gram: np.ndarray, shares: np.ndarray, options: KarcherOptions
) -> tuple[np.ndarray, int] | None:
    """The coefficients of the mean and the number of steps, from the Gram of unit vectors; None
    where their linear mean, at which it begins, is zero."""

    def length(coefficients: np.ndarray) -> float:
        return math.sqrt(max(0.0, float(coefficients @ gram @ coefficients)))

    mean = shares
    if length(mean) < OPPOSITE:
        return None
    mean = mean / length(mean)
    for step in range(options.iterations):
        cosines = np.clip(gram @ mean, -1, 1)
        sines = np.sqrt(1 - cosines**2)
        # θ / sin θ, which is 1 for no angle; of an opposite point no direction is the shortest.
        ratio = np.where(sines > OPPOSITE, np.arccos(cosines) / np.maximum(sines, OPPOSITE), 1)
        ratio = np.where((sines <= OPPOSITE) & (cosines < 0), 0, ratio)
        tangent = shares * ratio - float(shares @ (ratio * cosines)) * mean
        way = length(tangent)
        if way < max(options.tolerance, 1e-15):
            return mean, step
        mean = math.cos(way) * mean + math.sin(way) / way * tangent
        mean = mean / length(mean)
    return mean, options.iterations


def surveys(options: KarcherOptions) -> SurveyScope:
    return "tensor"


def cost(s: Shape, options: KarcherOptions) -> Cost:
    """The inner products of all pairs, each of two tensors widened, and a weighted sum."""
    pairs = s.experts * (s.experts + 1) / 2
    widened = passes(2 * s.nbytes, 6 * pairs)
    small = calls(10.0 * options.iterations)
    return Cost("merged", widened + small + s.passes(3 * s.experts), 2 * s.nbytes + (16 << 20))


METHOD = Method(
    name="karcher",
    title="Karcher mean",
    group="weights",
    summary="The mean of all experts along arcs: SLERP for any number of them, which keeps their "
    "length.",
    formula=r"W = \bar\rho\, u,\quad u = \arg\min_{\|u\| = 1} \sum_m \alpha_m "
    r"\angle(u, W_m)^2,\quad \bar\rho = \sum_m \alpha_m \|W_m\|",
    source="Karcher 1977; for weights mergekit, arXiv 2403.13257",
    options=KarcherOptions,
    merge=karcher,
    cost=cost,
    survey=factors_of,
    surveys=surveys,
    pieces=every_tensor,
    reads_base=False,
    ways=("mean",),
    stages=(
        TASK_MATRIX,
        Stage("share", "What the expert counts", "sₜ", SHARES, axes=("", ""), each=True),
        UPDATE,
        outcome("W = Σₜ sₜ Wₜ", **SHARES),
    ),
    mergekit=lambda options: Counterpart(
        "karcher",
        "The same arithmetic, of experts that count the same.",
        {"max_iter": options.iterations, "tol": options.tolerance},
        scaling=None,
        base="",
        weights="equal",
    ),
)
