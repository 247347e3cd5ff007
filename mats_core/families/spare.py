"""Tensors that need not be in every file: buffers, and a tied matrix that is written twice.

A buffer is computed by the model's own code and not trained: what has no fractional numbers, what a
name says (position ids, masks, frequencies), and a constant that some file lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ..checkpoints import Weights
from ..names import is_buffer, is_table
from .expert import Expert

TRAINED = ("weight", "bias", "gamma", "beta", "scale")  # ends of names that a constant may have


@dataclass(frozen=True)
class Spare:
    """Tensors that need not be in every file.

    buffers   computed by the model, not trained
    copies    byte for byte another tensor of the same file, which every file has: name → that one
    beyond    of the base, in a part that some expert does not have
    relics    of a file alone, and read by no model
    """

    buffers: frozenset[str] = frozenset()
    copies: Mapping[str, str] = field(default_factory=dict)
    beyond: frozenset[str] = frozenset()
    relics: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """Names of all of them."""
        return self.buffers | self.copies.keys() | self.beyond | self.relics


def spare(base: Weights, experts: Sequence[Expert]) -> Spare:
    """The spare tensors that files alone tell; reads only such as may be constant, or copies."""
    checkpoints = (base, *(expert.checkpoint for expert in experts))
    entries = {n: entry for c in checkpoints for n, entry in c.tensors.items()}
    fractional = {n for c in checkpoints for n, e in c.tensors.items() if e.dtype.is_floating_point}
    partial = [n for n in entries if any(n not in c.tensors for c in checkpoints)]
    buffers = frozenset(
        name
        for name, entry in entries.items()
        if is_buffer(name, entry.shape) or name not in fractional
    )
    buffers |= {n for n in partial if n not in buffers and _untrained(n, checkpoints)}
    everywhere = sorted(entries.keys() - set(partial))
    copies = {
        name: target
        for name in partial
        if name not in buffers and (target := _copied(name, everywhere, checkpoints)) is not None
    }
    return Spare(buffers, copies)


def _untrained(name: str, checkpoints: Sequence[Weights]) -> bool:
    """Whether no file's tensor can have been trained: a mask, or many times the same number.

    What a name calls a weight or a bias may be as it was made, and is none.
    """
    if name.rpartition(".")[2].endswith(TRAINED):
        return False
    holders = [c for c in checkpoints if name in c.tensors]
    if any(c.tensors[name].elements < 2 for c in holders):
        return False
    return all(constant(c, name) for c in holders) or is_mask(holders, name)


def constant(checkpoint: Weights, name: str) -> bool:
    """Whether all numbers of a tensor are the same."""
    extremes = [part.aminmax() for part in checkpoint.parts(name) if part.numel()]
    return len({float(value) for pair in extremes for value in pair}) <= 1


def is_mask(checkpoints: Sequence[Weights], name: str) -> bool:
    """Whether a tensor is a mask: minus infinity and one other number at most, in every file the
    same."""
    holders = [c for c in checkpoints if name in c.tensors]
    if len({c.digest(name) for c in holders}) > 1:
        return False
    values = torch.unique(holders[0].read(name))
    return len(values) <= 2 and bool((values[0] == -torch.inf) & torch.isfinite(values[1:]).all())


def _copied(name: str, everywhere: Sequence[str], checkpoints: Sequence[Weights]) -> str | None:
    """The embedding that `name` repeats, byte for byte, in every checkpoint that has it."""
    holders = [c for c in checkpoints if name in c.tensors]
    shape = holders[0].tensors[name].shape
    for target in everywhere:
        alike = len(shape) == 2 and is_table(target)
        if alike and all(
            c.tensors[name].shape == c.tensors[target].shape and c.digest(name) == c.digest(target)
            for c in holders
        ):
            return target
    return None
