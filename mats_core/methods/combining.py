"""Thinned task matrices put together: added up or averaged, with or without elected signs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor

from ..linear import weighted_sum
from .layer import Layer
from .options import option
from .ties import agree_and_average

Elect = Annotated[
    bool,
    option(
        help="whether each entry's sign is elected by total mass and only the experts that agree "
        "with it count, as in TIES",
        label="Elect signs",
    ),
]
Normalise = Annotated[
    bool,
    option(
        help="whether the weights of the experts that count are divided by their sum: a mean "
        "instead of a sum",
        label="Mean instead of sum",
    ),
]
COMBINED: Mapping[str, str] = {
    "τ": "what is left of all task matrices, added up or averaged as the options `elect` and "
    "`normalise` say"
}


def combined(updates: Sequence[Tensor], layer: Layer, *, elect: bool, normalise: bool) -> Tensor:
    """The sum of α_m Δ̂_m; with `elect` only of those that have the elected sign of their entry;
    with `normalise` divided by the weights that were counted.  `updates` is left as it is."""
    if elect and normalise:
        return agree_and_average(updates, layer.weights)
    if not elect:
        return weighted_sum(updates, layer.shares if normalise else layer.weights)
    elected = weighted_sum(updates, layer.weights).sign_()
    total = torch.zeros_like(elected)
    for update, weight in zip(updates, layer.weights, strict=True):
        # The magnitude where the signs agree, zero elsewhere.
        total += (update * elected).mul_(weight).clamp_min_(0)
    return total.mul_(elected)
