"""Running statistics (BatchNorm's means and variances): averaged as statistics, by any method.

They are no parameters but what a layer saw of its inputs.  A task vector of a variance has no
meaning, and base plus scaled differences may fall below zero, where the square root is NaN; a mean
of variances with weights of at least zero never does.
"""

from __future__ import annotations

from .cost import Cost, Shape
from .cost import averaged as averaged_cost
from .layer import Layer, Merged

STATUS = "a running statistic"


def merge_running(layer: Layer) -> Merged:
    """V = Σ α_m V_m / Σ α_m over the experts whose weight is above zero; the base's without one."""
    weights = [max(weight, 0.0) for weight in layer.weights]
    total = sum(weights)
    if not total:
        return Merged(layer.base.clone(), "mean", "averaged", STATUS)
    shares = [weight / total for weight in weights]
    mean = layer.total("running", layer.experts, shares)
    return Merged(mean, "mean", "averaged", STATUS)


def running_cost(s: Shape) -> Cost:
    """What `merge_running` costs."""
    return averaged_cost(s)
