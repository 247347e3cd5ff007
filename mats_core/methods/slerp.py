"""SLERP: two models interpolated along the arc between them instead of along the straight line.

Sources: Shoemake, "Animating rotation with quaternion curves" (SIGGRAPH 1985), for the formula;
mergekit (arXiv 2403.13257) for its use on weights: every tensor is one flat vector, the arc is
between the vectors as they are (their lengths are interpolated along), and two that are nearly
parallel or opposite are interpolated linearly.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..linear import weighted_sum
from .cost import Cost, Shape, calls, passes
from .layer import Layer, Merged
from .method import Counterpart, Method
from .options import Options, Share, option
from .stages import TASK_MATRIX, UPDATE, Stage, outcome

PIECE = 1 << 20  # numbers at a time in float64: scratch that does not grow with the tensor
NOTHING = 1e-8  # length below which a tensor has no direction, as in mergekit
SHARES = {
    "sₜ": "the share of expert t: sin((1 − t) θ) / sin θ and sin(t θ) / sin θ, with the angle θ "
    "between the two; 1 − t and t where they are nearly parallel"
}
PARALLEL = 0.9995  # the cosine above which mergekit's SLERP turns linear: no setting of it


class SlerpOptions(Options):
    t: Share = option(
        0.5, "position on the arc: 0 is the first expert, 1 the second", source="the middle"
    )
    parallel: float = option(
        PARALLEL,
        "|cosine| above which the two are interpolated linearly: the formula divides by the sine",
        low=0,
        high=0.999999,
        source="mergekit 0.1.5",
    )


def slerp(layer: Layer, options: SlerpOptions, survey: Any = None) -> Merged:
    """W = sin((1 − t) θ) / sin θ · W_1 + sin(t θ) / sin θ · W_2, θ the angle between the two.

    A tensor of zeros has no direction and counts as orthogonal to the other, as in mergekit.
    """
    first, second = layer.experts
    cosine = angle_cosine(first, second)
    linear = abs(cosine) > options.parallel
    shares = (1 - options.t, options.t) if linear else arc(options.t, math.acos(cosine))
    layer.show("share", (first.new_tensor(share) for share in shares))
    return Merged(
        weighted_sum((first, second), shares),
        "lerp" if linear else "slerp",
        details={"cosine": cosine, "shares": list(shares)},
    )


def arc(t: float, angle: float) -> tuple[float, float]:
    """What both ends count at `t` of the way along an arc of `angle` radians, 0 < angle < π."""
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def angle_cosine(first: Tensor, second: Tensor) -> float:
    """The cosine between two tensors taken as flat vectors; 0 where one has no direction."""
    lengths = [math.sqrt(inner(value, value)) for value in (first, second)]
    if min(lengths) <= NOTHING:
        return 0.0
    return max(-1.0, min(1.0, inner(first, second) / (lengths[0] * lengths[1])))


def inner(first: Tensor, second: Tensor) -> float:
    """⟨first, second⟩, piece by piece in float64 where the device has it."""
    wide = torch.float32 if first.device.type == "mps" else torch.float64
    pieces = zip(first.reshape(-1).split(PIECE), second.reshape(-1).split(PIECE), strict=True)
    return sum(float(x.to(wide) @ y.to(wide)) for x, y in pieces)


def cost(s: Shape, options: SlerpOptions) -> Cost:
    """Three inner products, each of two tensors widened piece by piece, and a weighted sum."""
    piece = min(s.elements, PIECE)
    widened = passes(8 * piece, 12 * math.ceil(s.elements / PIECE))
    return Cost("merged", widened + s.passes(6 + 6) + calls(6.0), s.nbytes + 2 * 8 * piece)


def mergekit(options: SlerpOptions) -> Counterpart | str:
    """The same arc for mergekit, which has one limit for nearly parallel tensors."""
    if options.parallel != PARALLEL:
        return (
            f"mergekit interpolates linearly above a cosine of {PARALLEL}, always; this merge has "
            f"its limit at {options.parallel:g}."
        )
    return Counterpart(
        "slerp",
        "The same arithmetic: the arc from the first expert, which mergekit calls the base model, "
        "to the second.",
        {"t": options.t},
        scaling=None,
        base="first expert",
    )


METHOD = Method(
    name="slerp",
    title="SLERP",
    group="weights",
    summary="Two experts, joined on the arc between them: what both share keeps its length, "
    "where a mean would shorten it.",
    formula=r"W = \frac{\sin((1-t)\,\theta)}{\sin\theta}\, W_1 + "
    r"\frac{\sin(t\,\theta)}{\sin\theta}\, W_2,\quad \theta = \angle(W_1, W_2)",
    source="Shoemake 1985; for weights mergekit, arXiv 2403.13257",
    options=SlerpOptions,
    merge=slerp,
    cost=cost,
    weighted=False,
    ways=("lerp",),
    experts=2,
    stages=(
        TASK_MATRIX,
        Stage("share", "What the expert counts", "sₜ", SHARES, axes=("", ""), each=True),
        UPDATE,
        outcome("W = Σₜ sₜ Wₜ", **SHARES),
    ),
    mergekit=mergekit,
)
