"""What statistics must be, whatever the model and its data: cheap to see, next to a merge.

A Gram and the block of a Fisher are sums of v vᵀ: symmetric and positive semi-definite.
A diagonal Fisher is a sum of squares, and the rest of a Gram in factors is an eigenvalue of one.
"""

from __future__ import annotations

import torch
from torch import Tensor

SQUARES = frozenset({"fisher", "input_rest", "output_gradient_rest"})
SYMMETRIC = frozenset({"input_gram", "output_gradient_gram", "block"})
# Of the largest number, what rounding leaves: of a sum that was taken as a difference in float32,
BELOW = 1e-6
APART = 1e-2  # and of two sums in another order, then stored in half precision.
ROWS = 1024  # compared at once: a large Gram is not held twice


def impossible(kind: str, value: Tensor) -> tuple[str, str] | None:
    """(expected, found) of a statistic of this kind that no model has; None for all others.

    What rounding explains is possible.  `value`: finite numbers, in the shape of its kind.
    """
    if not value.numel() or kind not in SQUARES | SYMMETRIC:
        return None
    largest = float(value.abs().max())
    on_it = value.diagonal() if kind in SYMMETRIC else value
    smallest = float(on_it.min())
    if smallest < -BELOW * largest:
        where = " on its diagonal" if kind in SYMMETRIC else ""
        return f"numbers of at least 0{where}, for they are sums of squares", f"{smallest:.3g}"
    if kind in SYMMETRIC and (apart := _asymmetry(value)) > APART * largest:
        return "a symmetric matrix", f"numbers that differ from their mirrored ones by {apart:.3g}"
    if kind in SYMMETRIC and largest and not _is_positive(value, APART * largest):
        return "a positive semi-definite matrix", "one with a negative eigenvalue"
    return None


def _is_positive(value: Tensor, shift: float) -> bool:
    """Whether no eigenvalue of a symmetric matrix lies below -`shift`: A + shift I is definite."""
    wide = torch.float64 if value.dtype == torch.float64 else torch.float32
    # A copy: what is read stays as it is.  Apple's MPS has no such decomposition.
    scaled = value.to("cpu" if value.device.type == "mps" else value.device, wide) / shift
    scaled.diagonal().add_(1)
    _, info = torch.linalg.cholesky_ex((scaled + scaled.mT) / 2)
    return not int(info)


def _asymmetry(value: Tensor) -> float:
    """The largest |a_ij - a_ji|."""
    spans = range(0, len(value), ROWS)
    blocks = (value[i : i + ROWS, i:] - value[i:, i : i + ROWS].mT for i in spans)
    return max(float(block.abs().max()) for block in blocks)
