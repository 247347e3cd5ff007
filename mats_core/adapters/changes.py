"""What an adapter does to one tensor of its base: pure mathematics, read lazily.

    LowRank    W + s B A        LoRA (arXiv 2106.09685); s = α/r or α/√r
    Scaled     diag(l) W, W diag(l), or diag(l) b        (IA)³ (arXiv 2205.05638)
    Shifted    b + s c          the bias of a LoRA's B, which peft calls `lora_bias`
    Replaced   a tensor that was trained and saved whole

Weights are (d_out, d_in) as in `nn.Linear`; GPT-2's Conv1D stores the transpose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Read = Callable[[str], Tensor]  # a tensor of the adapter's file, in the dtype of the arithmetic


class Change:
    """What is done to a tensor: fields that are texts name tensors of the adapter's file."""

    @property
    def keys(self) -> list[str]:
        """Names of the tensors of the adapter's file that are read."""
        return [value for value in vars(self).values() if isinstance(value, str)]

    @property
    def numbers(self) -> list[Any]:
        """All other fields: what is done beyond reading these tensors."""
        return [value for value in vars(self).values() if not isinstance(value, str)]

    def apply(self, value: Tensor, read: Read) -> Tensor:
        """The tensor afterwards; `value` may be changed in place."""
        raise NotImplementedError


@dataclass(frozen=True)
class LowRank(Change):
    """`W += s B A`, or `W += s (B A)ᵀ` where W is stored transposed; A (r, d_in), B (d_out, r).

    A convolution's A (r, channels, kh, kw) and B (d_out, r, 1, 1) are the same product, flattened.
    """

    a: str
    b: str
    scale: float
    transposed: bool = False

    def apply(self, value: Tensor, read: Read) -> Tensor:
        a, b = read(self.a).flatten(1), read(self.b).flatten(1)
        flat = value.flatten(1)
        if self.transposed:
            a, b = b.T, a.T
        # In place on what was freshly read: no second copy of the weight.
        return flat.addmm_(b, a, alpha=self.scale).view_as(value)

    def factors(self, read: Read) -> tuple[Tensor, Tensor]:
        """L (m, r) and R (r, n) of what is added, in the layout of the file."""
        root = abs(self.scale) ** 0.5
        a, b = read(self.a).mul_(root), read(self.b).mul_(root if self.scale > 0 else -root)
        return (a.T, b.T) if self.transposed else (b, a)


@dataclass(frozen=True)
class Scaled(Change):
    """`value ⊙ l` along one axis of the stored tensor."""

    vector: str
    axis: int

    def apply(self, value: Tensor, read: Read) -> Tensor:
        shape = [1] * value.ndim
        shape[self.axis] = -1
        return value.mul_(read(self.vector).reshape(shape))


@dataclass(frozen=True)
class Shifted(Change):
    """`b + s c`."""

    shift: str
    scale: float

    def apply(self, value: Tensor, read: Read) -> Tensor:
        return value.add_(read(self.shift), alpha=self.scale)


@dataclass(frozen=True)
class Replaced(Change):
    """The adapter's tensor instead of the base's."""

    key: str

    def apply(self, value: Tensor, read: Read) -> Tensor:
        return read(self.key)
