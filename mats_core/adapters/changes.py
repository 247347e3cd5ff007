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

from torch import Tensor

Read = Callable[[str], Tensor]  # a tensor of the adapter's file, in the dtype of the arithmetic


@dataclass(frozen=True)
class LowRank:
    """`W += s B A`, or `W += s (B A)ᵀ` where W is stored transposed; A (r, d_in), B (d_out, r).

    A convolution's A (r, channels, kh, kw) and B (d_out, r, 1, 1) are the same product, flattened.
    """

    a: str
    b: str
    scale: float
    transposed: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        return self.a, self.b

    def apply(self, value: Tensor, read: Read) -> Tensor:
        a, b = read(self.a).flatten(1), read(self.b).flatten(1)
        flat = value.flatten(1)
        if self.transposed:
            a, b = b.T, a.T
        # In place on what was freshly read: no second copy of the weight.
        return flat.addmm_(b, a, alpha=self.scale).view_as(value)


@dataclass(frozen=True)
class Scaled:
    """`value ⊙ l` along one axis of the stored tensor."""

    vector: str
    axis: int

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.vector,)

    def apply(self, value: Tensor, read: Read) -> Tensor:
        shape = [1] * value.ndim
        shape[self.axis] = -1
        return value.mul_(read(self.vector).reshape(shape))


@dataclass(frozen=True)
class Shifted:
    """`b + s c`."""

    shift: str
    scale: float

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.shift,)

    def apply(self, value: Tensor, read: Read) -> Tensor:
        return value.add_(read(self.shift), alpha=self.scale)


@dataclass(frozen=True)
class Replaced:
    """The adapter's tensor instead of the base's."""

    key: str

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def apply(self, value: Tensor | None, read: Read) -> Tensor:
        return read(self.key)


Change = LowRank | Scaled | Shifted | Replaced
