"""A family: one base checkpoint and the experts fine-tuned from it.

`examine` is the preflight.  It compares keys, shapes and dtypes of every expert with the base,
looks for NaN and infinity, and decides in one place what each tensor is:

    matrix   a weight of a linear layer, which a method can treat by its own mathematics
    vector   any other floating-point parameter (bias, LayerNorm, embedding, convolution)
    head     differs by task (shape, class names, or missing from the base); never merged
    copied   not trained (position ids, masks), or a part that an expert lacks; the base's
    tied     the same bytes as another tensor in every checkpoint; follows that one

Names are the base's (`expert.py` has the translation).  A matrix that is stored as (d_in, d_out)
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

    base         the pre-trained checkpoint
    experts      those fine-tuned from it, under the base's names
    roles        a tensor → what it is: matrix, vector, head, copied or tied
    tied_to      a tensor → the one that it follows; may name tensors that only an expert's file has
    transposed   matrices that the files hold as (d_in, d_out)
    apart        heads, and tensors that some file may lack: these are tied to none by their bytes
    notes        sentences about how the experts were made to fit, for the report
    running      running means and variances, which are averaged whatever the method
    buffers      what no training changes; may hold infinities, and some file may lack it
    untied       output layers that experts trained apart → the embedding that the base ties them to
    """

    base: Weights
    experts: tuple[Expert, ...]
    roles: Mapping[str, Role]
    tied_to: Mapping[str, str] = field(default_factory=dict)
    transposed: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    apart: frozenset[str] = frozenset()
    running: frozenset[str] = frozenset()
    buffers: frozenset[str] = frozenset()
    untied: Mapping[str, str] = field(default_factory=dict)

    @property
    def shared(self) -> tuple[str, ...]:
        """Names of the tensors that are merged: matrices and vectors."""
        return tuple(n for n, role in self.roles.items() if role in ("matrix", "vector"))

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of the base's contents, and of each expert's by its name."""
        return {
            "base": self.base.fingerprint,
            **{expert.name: expert.checkpoint.fingerprint for expert in self.experts},
        }

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that experts name and that their directories can be asked about."""
        experts = [expert for expert in self.experts if expert.task]
        return tuple(e.task for e in experts if e.checkpoint.directory is not None)

    def head_of(self, expert: Expert) -> tuple[str, ...]:
        """Names of the tensors of an expert's head."""
        return tuple(n for n in expert.checkpoint.tensors if self.roles.get(n) == "head")

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Groups of like layers: their key → names that differ only in integer components."""
        groups: dict[str, list[str]] = {}
        for name in self.shared:
            groups.setdefault(group_of(name), []).append(name)
        return {group: tuple(names) for group, names in groups.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor as methods see it: (d_out, d_in) for every matrix."""
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
        """A tensor turned from its file's layout to (d_out, d_in), or back.

        Contiguous, so that the same numbers in the other layout give the same bytes.
        """
        return value.mT.contiguous() if name in self.transposed else value
