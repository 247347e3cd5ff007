"""How far a merge lies from its experts: what there is to see without any data.

With W the merge, W_m an expert, W₀ the base and norms over all merged tensors,

    d_m = ‖W − W_m‖ / ‖W_m − W₀‖   1: as far as the base, 0: the expert itself

and by layer for the merge and for any other encoder.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..families import Family
from ..system import Event


@dataclass(frozen=True)
class Distances:
    """Distances of encoders to the experts of a family.

    layers     names of the merged tensors
    tasks      names of the experts
    moved      (layers, tasks) squared distance of each expert from the base
    left       encoder → (layers, tasks) squared distance from each expert
    """

    layers: tuple[str, ...]
    tasks: tuple[str, ...]
    moved: Tensor
    left: Mapping[str, Tensor]

    def of(self, encoder: str) -> dict[str, float]:
        """d_m of an encoder by expert; 0 for an expert that is the base."""
        return dict(zip(self.tasks, self._ratio(encoder, 0), strict=True))

    def by_layer(self, encoder: str) -> dict[str, float]:
        """d over all experts of an encoder by layer, their squares summed."""
        return dict(zip(self.layers, self._ratio(encoder, 1), strict=True))

    def _ratio(self, encoder: str, over: int) -> list[float]:
        left, moved = self.left[encoder].sum(over), self.moved.sum(over)
        return torch.where(moved > 0, left / moved.clamp_min(1e-300), 0).sqrt().tolist()


def measuring_distances(
    family: Family, encoders: Mapping[str, Mapping[str, Tensor]]
) -> Generator[Event, None, Distances]:
    """The distances of encoders (name → merged tensors by the base's names); an event before each
    tensor."""
    layers = tuple(name for name in family.shared if all(name in e for e in encoders.values()))
    moved: list[list[float]] = []
    left: dict[str, list[list[float]]] = {name: [] for name in encoders}
    for index, name in enumerate(layers):
        yield Event(fraction=index / len(layers), text=f"Measuring distances, layer {index + 1}")
        base = family.base.read(name, dtype=torch.float64)
        tuned = [e.checkpoint.read(name, dtype=torch.float64) for e in family.experts]
        moved.append([_squared(one, base) for one in tuned])
        for label, encoder in encoders.items():
            value = encoder[name].to("cpu", torch.float64)
            left[label].append([_squared(value, one) for one in tuned])
    tasks = tuple(expert.name for expert in family.experts)
    found = {label: _table(rows, len(tasks)) for label, rows in left.items()}
    return Distances(layers, tasks, _table(moved, len(tasks)), found)


def _squared(one: Tensor, other: Tensor) -> float:
    return float((one - other.to(one.device)).square().sum())


def _table(rows: list[list[float]], columns: int) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, columns)
