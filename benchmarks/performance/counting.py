"""What a GPU would be asked for, counted without one: kernels, and reads that wait for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mats_core.linear import as_apart
from mats_core.methods import METHODS, Layer

# Operations whose result the processor waits for, as its value or its shape depends on the numbers.
READS = frozenset({"_local_scalar_dense", "nonzero", "masked_select", "equal"})


@dataclass(frozen=True)
class Counts:
    """What was counted.

    kernels   operations of PyTorch that compute or copy; views are none
    reads     numbers, or batches of them, that the processor waited for
    """

    kernels: float
    reads: float


class _Counted(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.reads = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put_") and any(
            one is not None and one.dtype == torch.bool for one in args[1]
        )
        self.reads += name in READS or masks
        self.kernels += name != "_local_scalar_dense" and not func.is_view
        return func(*args, **(kwargs or {}))


def counted(work: Callable[[], object], *, apart: bool = True) -> Counts:
    """What `work` asks for, on the ways that tensors of a GPU take, or on those of the CPU."""
    with as_apart(apart) as reads, _Counted() as seen:
        work()
    return Counts(seen.kernels, seen.reads + reads.count)


def of_layer(layer: Layer, method: str, *, apart: bool = True, **options: Any) -> Counts:
    """What the merge of one layer asks for."""
    row = METHODS[method]
    asked = row.options(**options)
    return counted(lambda: row.merge(layer, asked, None), apart=apart)


def of_iteration(
    layer: Layer,
    method: str,
    *,
    apart: bool = True,
    between: tuple[int, int] = (8, 24),
    **more: Any,
) -> Counts:
    """What one iteration asks for: the difference of two solves, over that of their lengths."""
    few, many = (
        of_layer(layer, method, apart=apart, iterations=count, tolerance=0.0, **more)
        for count in between
    )
    apart_by = between[1] - between[0]
    return Counts((many.kernels - few.kernels) / apart_by, (many.reads - few.reads) / apart_by)
