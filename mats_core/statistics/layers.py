"""What one layer adds to the statistics of a batch, from what its calls saw.

Modules that share a weight are one layer, under the name of the weight's first holder.  The
mathematics lives in `gram.py`, `fisher.py` and `ia3.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..names import module_of
from . import fisher, gram, ia3
from .capture import CHANNEL_NORMS, Notes, Uses, is_conv1d, is_rms_norm

GRAM_MOST = 16_384  # numbers of an output: a vocabulary gets no output-gradient Gram
CANCELLED = 1e-9  # of the square of what is summed: below it is rounding of float32


@dataclass
class Added:
    """What one layer adds to the sums, under the checkpoint's names.

    squares  parameter → per-example gradients (examples, ...), or
    sums     parameter → the sum of their squares over the examples, in the parameter's shape
    grams    `<module>.input` and `<module>.output_gradient` → tokens (examples, tokens, d)
    mean     sum of the inputs (d,), where there are Grams
    source   what the input was before padding was set to zero: layers that share it share a Gram
    tokens   N
    rounding what may be left of a Fisher whose terms cancel each other, in norm
    """

    squares: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)
    grams: dict[str, Tensor] = field(default_factory=dict)
    mean: Tensor | None = None
    source: Tensor | None = None
    tokens: int = 0
    rounding: float = 0.0

    def fishers(self) -> dict[str, Tensor]:
        """Sums over the examples of squared gradients, by parameters."""
        return {**self.sums, **{name: square_sum(g) for name, g in self.squares.items()}}


def square_sum(gradients: Tensor) -> Tensor:
    """The sum over examples of squared gradients (examples, ...), in the parameter's shape."""
    return (gradients**2).sum(0)


class Layers:
    """The layers of a model, and the checkpoint's names of their parameters.

    modules  by name
    first    id of a parameter → its first name in the model
    names    the checkpoint's name of each of the model's parameters that are measured
    vectors  layers with an (IA)³ vector, by the name of their weight
    """

    def __init__(
        self,
        model: nn.Module,
        names: Mapping[str, str],
        vectors: Mapping[str, ia3.Rescaled] | None = None,
    ) -> None:
        self.model, self.modules = model, dict(model.named_modules())
        self.first = {id(p): name for name, p in model.named_parameters()}
        self.names, self.vectors = names, vectors or {}

    def of(self, owner: str) -> str:
        """The layer that a module belongs to."""
        first = self.first.get(id(getattr(self.modules[owner], "weight", None)))
        return owner if first is None else module_of(first)

    def used(self, notes: Notes) -> dict[str, list[str]]:
        """The modules that were used, by layer."""
        groups: dict[str, list[str]] = defaultdict(list)
        for owner in notes.uses:
            groups[self.of(owner)].append(owner)
        return groups

    def parameters(self, owner: str) -> set[str]:
        """The names of a module's parameters that are measured, by the model."""
        values = self.modules[owner]._parameters.values()
        found = {self.first[id(value)] for value in values if id(value) in self.first}
        return found & self.names.keys()

    def name(self, owner: str, kind: str) -> str | None:
        """The checkpoint's name of a module's `weight` or `bias`; None where it is not measured."""
        value = self.modules[owner]._parameters.get(kind)
        return self.names.get(self.first.get(id(value), "")) if value is not None else None

    def added(self, name: str, owners: list[str], notes: Notes, *, whole: bool = True) -> Added:
        """What a layer adds; without its Fisher where that is not wanted (`whole`)."""
        found = Added()
        uses = [use for owner in owners for use in notes.uses[owner]]
        module = self.modules[owners[0]]
        weight = self.name(owners[0], "weight")
        tables = [isinstance(self.modules[owner], nn.Embedding) for owner in owners]
        if any(tables) and not all(tables):
            if whole:
                self._tied(found, weight, owners, notes)
        elif isinstance(module, nn.Linear) or is_conv1d(module):
            self._linear(found, name, owners, uses, notes, whole)
        elif whole:
            self._others(found, weight, owners, uses, notes)
        return found

    def _others(
        self, found: Added, weight: str | None, owners: list[str], uses: Uses, notes: Notes
    ) -> None:
        """Norms, tables and convolutions, which have a Fisher alone."""
        module = self.modules[owners[0]]
        if isinstance(module, nn.Embedding):
            if weight is not None:
                ids, g = self._rows(owners, notes)
                found.sums[weight] = fisher.embedding_square_sum(ids, g, module.num_embeddings)
        elif isinstance(module, nn.Conv2d):
            if fisher.unfolds(module):
                x = torch.cat([fisher.convolution_patches(used, module) for used, _ in uses], 1)
                g = torch.cat([given.flatten(2).transpose(1, 2) for _, given in uses], 1)
                square = fisher.linear_weight_square_sum(x, g) if weight is not None else None
            else:
                g = torch.cat([given.flatten(2).transpose(1, 2) for _, given in uses], 1)
                square = fisher.convolution_square_sum(uses, module) if weight else None
            if weight is not None and square is not None:
                found.sums[weight] = square.reshape(module.weight.shape)
            self._bias(found, owners[0], g)
        elif isinstance(module, CHANNEL_NORMS):
            parts = [fisher.channel_norm(used, given, module) for used, given in uses]
            scale, shift = (torch.stack(part).sum(0) for part in zip(*parts, strict=True))
            self._squares(found, weight, scale)
            self._squares(found, self.name(owners[0], "bias"), shift)
        elif isinstance(module, nn.LayerNorm):
            x, g = notes.joined(uses)
            self._squares(found, weight, fisher.layer_norm_weight(x, g, module.eps))
            self._bias(found, owners[0], g)
        elif is_rms_norm(module):
            x, g = notes.joined(uses)
            self._squares(found, weight, fisher.rms_norm_weight(x, g, module))

    def _linear(
        self, found: Added, name: str, owners: list[str], uses: Uses, notes: Notes, whole: bool
    ) -> None:
        x, g = notes.joined(uses)
        weight = self.name(owners[0], "weight")
        if weight is not None:
            layer = module_of(weight)
            found.source = uses[0][0] if len(uses) == 1 else x
            found.grams[f"{layer}.input"] = x
            found.mean = x.sum((0, 1))
            if g.shape[-1] <= GRAM_MOST:
                found.grams[f"{layer}.output_gradient"] = g
            found.tokens = notes.tokens(uses)
            vector = self.vectors.get(f"{layer}.weight")
            if vector is not None:
                found.squares[vector.vector] = ia3.vector_gradients(x, g, vector)
            if whole:
                square = fisher.linear_weight_square_sum(x, g)
                # The Fisher has the parameter's layout, which Conv1D stores as (d_in, d_out).
                found.sums[weight] = square.T if is_conv1d(self.modules[owners[0]]) else square
                found.rounding = CANCELLED * float(x.norm() * g.norm()) ** 2
        for owner in owners if whole else ():
            # A bias belongs to one of the modules that share a weight.
            self._bias(found, owner, g if len(owners) == 1 else notes.joined(notes.uses[owner])[1])

    def _tied(self, found: Added, weight: str | None, owners: list[str], notes: Notes) -> None:
        """An embedding that is also the output's weight: only its Fisher, of both uses at once."""
        x, out = [], []
        tables = [owner for owner in owners if isinstance(self.modules[owner], nn.Embedding)]
        for owner in owners:
            if isinstance(self.modules[owner], nn.Linear):
                seen, g = notes.joined(notes.uses[owner])
                x.append(seen)
                out.append(g)
                self._bias(found, owner, g)
        if weight is not None:
            ids, into = self._rows(tables, notes)
            square = fisher.tied_square_sum(ids, into, torch.cat(x, 1), torch.cat(out, 1))
            found.sums[weight] = square

    def _rows(self, owners: list[str], notes: Notes) -> tuple[Tensor, Tensor]:
        """The rows that tables took (examples, tokens), and their gradients (examples, tokens, d).

        The row of the padding has no gradient, as in PyTorch.
        """
        ids, into = [], []
        for owner in owners:
            table: Any = self.modules[owner]
            scale = getattr(table, "embed_scale", None)
            for used, given in notes.uses[owner]:
                rows = used.reshape(notes.examples, -1)
                g = gram.tokens_of(given, notes.examples)
                g = g if scale is None else g * scale
                if table.padding_idx is not None:
                    g = g.masked_fill((rows == table.padding_idx)[..., None], 0)
                ids.append(rows)
                into.append(g)
        return torch.cat(ids, 1), torch.cat(into, 1)

    def _bias(self, found: Added, owner: str, g: Tensor) -> None:
        self._squares(found, self.name(owner, "bias"), fisher.bias(g))

    def _squares(self, found: Added, parameter: str | None, gradients: Tensor) -> None:
        if parameter is not None:
            found.squares[parameter] = gradients
