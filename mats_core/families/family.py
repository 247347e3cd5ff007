"""A family: one base checkpoint and the experts fine-tuned from it.

`examine` is the preflight.  It compares keys, shapes and dtypes of every expert with the base,
looks for NaN and infinity, and decides in one place what each tensor is:

    matrix   a weight of a linear layer, which a method can treat by its own mathematics
    vector   any other floating-point parameter (bias, LayerNorm, embedding, convolution)
    head     differs by task (shape, class names, or missing from the base); never merged
    copied   not trained (position ids, masks), or a part that an expert lacks; the base's
    tied     the same bytes as another tensor in every checkpoint; follows that one

Names are the base's (`experts.py` has the translation).  A matrix that is stored as (d_in, d_out)
is `transposed`: `Family.weight` reads it as methods see it, `Family.oriented` turns it either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..checkpoints import Weights
from ..names import group_of
from .expert import Expert

Role = Literal["matrix", "vector", "head", "copied", "tied"]


@dataclass(frozen=True)
class Family:
    """Base, experts, and the role of every tensor (see the module's text).

    tied_to      a tensor → the one that it follows; may name tensors that only an expert's file has
    transposed   matrices that the files hold as (d_in, d_out)
    apart        heads, and tensors that some file may lack: these are tied to none by their bytes
    notes        what a person should know about how the experts were made to fit
    """

    base: Weights
    experts: tuple[Expert, ...]
    roles: Mapping[str, Role]
    tied_to: Mapping[str, str] = field(default_factory=dict)
    transposed: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    apart: frozenset[str] = frozenset()

    @property
    def shared(self) -> tuple[str, ...]:
        """Names of the tensors that are merged in one way or another."""
        return tuple(n for n, role in self.roles.items() if role in ("matrix", "vector"))

    def head_of(self, expert: Expert) -> tuple[str, ...]:
        return tuple(n for n in expert.checkpoint.tensors if self.roles.get(n) == "head")

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Like layers: names that differ only in dot-separated integer components."""
        groups: dict[str, list[str]] = {}
        for name in self.shared:
            groups.setdefault(group_of(name), []).append(name)
        return {group: tuple(names) for group, names in groups.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape as methods see it: (d_out, d_in) for every matrix."""
        shape = self.base.tensors[name].shape
        return shape[::-1] if name in self.transposed else shape

    def weight(
        self,
        checkpoint: Weights,
        name: str,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """A tensor of the base, an expert or a merge, as methods see it."""
        return self.oriented(name, checkpoint.read(name, dtype=dtype, device=device))

    def oriented(self, name: str, value: Tensor) -> Tensor:
        """From a file's layout to (d_out, d_in), and the way back.

        Contiguous, so that the same numbers in the other layout give the same bytes.
        """
        return value.mT.contiguous() if name in self.transposed else value
