"""Products of a matrix with itself, of which half the entries need not be computed."""

from __future__ import annotations

import torch
from torch import Tensor

MIRRORED = 384  # columns from which half a product in several calls is the quicker one


def self_product(rows: Tensor) -> Tensor:
    """`XᵀX` (d, d) of X (n, d); of a large one the blocks below the diagonal are mirrored."""
    total = rows.new_empty(rows.shape[1], rows.shape[1])
    _fill(total, rows)
    return total


def _fill(total: Tensor, rows: Tensor) -> None:
    size = rows.shape[1]
    if size < MIRRORED:
        torch.mm(rows.T, rows, out=total)
        return
    half = size // 2
    _fill(total[:half, :half], rows[:, :half])
    _fill(total[half:, half:], rows[:, half:])
    torch.mm(rows[:, :half].T, rows[:, half:], out=total[:half, half:])
    total[half:, :half] = total[:half, half:].T
