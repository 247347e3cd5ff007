"""Orders of a model's units that leave its function as it is, and how tensors follow them.

A symmetry is a set of axes of tensors whose entries belong together.  Units stand in groups, groups
hold heads, and heads have value and query dimensions; an MLP's unit is a group alone:

    letter   place                                          who has it
    G        group: an MLP's unit, or the heads of one key   every axis
    H        head within its group                           queries, the output's columns
    V        dimension of a head's values                    values, the output's columns
    Q        dimension of a head's queries and keys          queries and keys
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """One axis of a tensor that follows a symmetry.

    tensor   its name
    axis     which of its axes
    dims     letters of what its entries are counted by, such as `GHV`
    index    (a dimension a letter) entry of the axis for each place
    """

    tensor: str
    axis: int
    dims: str
    index: Tensor


@dataclass(frozen=True)
class Order:
    """A permutation of a symmetry's units: at each place, which one comes there.

    groups    (G,)
    heads     (G, H)  within the group that comes there
    values    (G, V)
    queries   (G, Q)
    """

    groups: Tensor
    heads: Tensor
    values: Tensor
    queries: Tensor

    @classmethod
    def same(cls, sizes: Mapping[str, int]) -> Order:
        """Every unit where it is."""
        count = sizes["G"]
        rest = (torch.arange(sizes.get(k, 1)).expand(count, -1).clone() for k in "HVQ")
        return cls(torch.arange(count), *rest)

    @classmethod
    def drawn(cls, sizes: Mapping[str, int], letters: str, generator: torch.Generator) -> Order:
        """A random permutation of what the letters name."""

        def rows(size: int, letter: str) -> Tensor:
            if letter not in letters:
                return torch.arange(size).expand(sizes["G"], -1).clone()
            return torch.stack(
                [torch.randperm(size, generator=generator) for _ in range(sizes["G"])]
            )

        count = sizes["G"]
        groups = torch.randperm(count, generator=generator)
        groups = groups if "G" in letters else torch.arange(count)
        return cls(groups, *(rows(sizes.get(k, 1), k) for k in "HVQ"))

    def places(self, part: Part) -> tuple[Tensor, Tensor]:
        """(entries of the axis, entries that come there)."""
        within = {"H": self.heads, "V": self.values, "Q": self.queries}
        shape = part.index.shape
        picked: list[Tensor] = []
        for position, letter in enumerate(part.dims):
            view = [1] * len(shape)
            if letter == "G":
                view[0] = shape[0]
                picked.append(self.groups.view(view))
            else:
                view[0], view[position] = shape[0], shape[position]
                picked.append(within[letter].view(view))
        source = part.index[tuple(torch.broadcast_tensors(*picked))]
        return part.index.reshape(-1), source.reshape(-1)


@dataclass(frozen=True)
class Symmetry:
    """Axes that are permuted together.

    label   what its units are, in words
    parts   the axes
    free    letters that may be permuted without a change of the function
    """

    label: str
    parts: tuple[Part, ...]
    free: str

    @property
    def sizes(self) -> dict[str, int]:
        """How many there are of each letter."""
        found: dict[str, int] = {}
        for part in self.parts:
            found |= dict(zip(part.dims, part.index.shape, strict=True))
        return found

    def restricted(self, free: str) -> Symmetry:
        """The same with fewer free letters."""
        return replace(self, free=free)

    def renamed(self, names: Mapping[str, str]) -> Symmetry:
        """The same of tensors under other names."""
        parts = (replace(part, tensor=names[part.tensor]) for part in self.parts)
        return replace(self, parts=tuple(parts))


class Placement:
    """Where the entries of every axis come from, as permutations follow one another."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = dict(shapes)
        self.moves: dict[str, dict[int, Tensor]] = {}

    def follow(self, symmetry: Symmetry, order: Order) -> dict[str, dict[int, Tensor]]:
        """Permute further; returns the change alone: tensor → axis → entries."""
        change: dict[str, dict[int, Tensor]] = {}
        for part in symmetry.parts:
            size = self.shapes[part.tensor][part.axis]
            axis = change.setdefault(part.tensor, {}).setdefault(part.axis, torch.arange(size))
            places, entries = order.places(part)
            axis[places] = entries
        for name, axes in change.items():
            for axis, entries in axes.items():
                known = self.moves.setdefault(name, {}).get(axis, torch.arange(len(entries)))
                self.moves[name][axis] = known[entries]
        return change

    @property
    def changed(self) -> dict[str, dict[int, Tensor]]:
        """The moves of axes on which anything stands elsewhere."""
        found: dict[str, dict[int, Tensor]] = {}
        for name, axes in self.moves.items():
            real = {a: e for a, e in axes.items() if not torch.equal(e, torch.arange(len(e)))}
            if real:
                found[name] = real
        return found


def put(value: Tensor, axes: Mapping[int, Tensor]) -> Tensor:
    """A tensor with its entries where they belong."""
    for axis, entries in axes.items():
        value = value.index_select(axis, entries)
    return value


def covered(symmetries: Iterable[Symmetry]) -> set[tuple[str, int]]:
    """(tensor, axis) of every axis that follows one of the symmetries."""
    return {(part.tensor, part.axis) for one in symmetries for part in one.parts}
