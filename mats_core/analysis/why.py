"""Why one merge is better than another: what each is predicted to cost the experts, and where.

Both are predicted from the same statistics (`predicted_loss`), so that their difference by layer
adds up to their difference by task.  Whether it explains what was measured is a rank correlation
over tasks, which is said with its interval.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..evaluation import Difference
from ..recipes import Inputs
from ..system import Event
from .correlation import Correlation, correlate
from .predicted_loss import layer_costs, measured_layers


@dataclass(frozen=True)
class Why:
    """What the statistics predict that two merges cost the experts.

    layers   names of the weights; none without statistics
    tasks    names of the experts
    first    (layers, tasks) nats an example of the first merge; NaN without statistics
    second   (layers, tasks) the same of the second
    """

    layers: tuple[str, ...]
    tasks: tuple[str, ...]
    first: np.ndarray
    second: np.ndarray

    @property
    def by_layer(self) -> dict[str, float]:
        """What the first saves against the second in each layer, nats summed over the experts."""
        return dict(zip(self.layers, np.nansum(self.second - self.first, 1).tolist(), strict=True))

    @property
    def by_task(self) -> dict[str, float]:
        """What the first saves each expert that has statistics, nats summed over the layers."""
        saved = self.second - self.first
        known = np.flatnonzero(~np.isnan(saved).all(0))
        return {self.tasks[i]: float(np.nansum(saved[:, i])) for i in known}

    def explained(self, measured: Mapping[str, Difference]) -> Correlation | None:
        """The rank correlation over tasks of what the first saves with what it was measured to be
        better by; None where fewer than three tasks have both."""
        saved = self.by_task
        shared = [task for task in measured if task in saved]
        return correlate([saved[t] for t in shared], [measured[t].value for t in shared])


def explaining(
    inputs: Inputs, first: Mapping[str, Tensor], second: Mapping[str, Tensor]
) -> Generator[Event, None, Why]:
    """What two encoders (merged tensors by the base's names) are predicted to cost the experts of
    `inputs`, layer by layer; an event before each layer."""
    layers = measured_layers(inputs)
    costs = np.full((2, len(layers), len(inputs.family.experts)), np.nan)
    for index, name in enumerate(layers):
        yield Event(fraction=index / len(layers), text=f"Predicting the loss in layer {index + 1}")
        for row, encoder in enumerate((first, second)):
            costs[row, index] = layer_costs(inputs, encoder, name)
    tasks = tuple(expert.name for expert in inputs.family.experts)
    return Why(layers, tasks, costs[0], costs[1])
