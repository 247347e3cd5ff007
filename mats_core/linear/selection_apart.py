"""What `selection` does to a column, on a device apart from this processor.

The patterns of a column go into a histogram on the device, all of them, and never leave it: what is
read of a pass are three whole numbers a column.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

AT_ONCE = 1 << 24  # entries looked at together: a few times 128 MB beside them
BELOW = 4096  # bins of what lies outside of the window: in one, all would wait for one another


class ColumnApart:
    """Where one column's threshold may lie: the patterns from `low` to `high`, exclusive.

    wide     whether the numbers are of float64
    found    the threshold's pattern, once it is known
    """

    BINS: ClassVar[int] = 1 << 20

    def __init__(self, wide: bool, low: int, high: int, device: torch.device) -> None:
        self.wide, self.device = wide, device
        self.found: int | None = None
        self._begin(low, high)

    def _begin(self, low: int, high: int) -> None:
        self.low, self.high, self.entries = low, high, 0
        self.shift = max(0, (high - low - 1).bit_length() - (self.BINS.bit_length() - 1))
        self.bins = ((high - low - 1) >> self.shift) + 1
        self.counts = torch.zeros(self.bins + BELOW, dtype=torch.int64, device=self.device)
        self.above = torch.zeros((), dtype=torch.int64, device=self.device)

    def count(self, values: Tensor) -> None:
        """Look at more entries of the column, flat."""
        for part in values.contiguous().split(AT_ONCE):
            self._count(part)

    def _count(self, values: Tensor) -> None:
        if self.wide:
            bits = values.view(torch.int64) & ((1 << 63) - 1)
        else:
            bits = (values.view(torch.int32) & ((1 << 31) - 1)).long()
        last = self.high - 1  # of float64 the end itself is no whole number of 64 bits
        inside = (bits >= self.low) & (bits <= last)
        elsewhere = self.bins + torch.arange(len(bits), device=self.device) % BELOW
        places = torch.where(inside, (bits - self.low) >> self.shift, elsewhere)
        self.counts.scatter_add_(0, places, torch.ones_like(places))
        self.above += (bits > last).sum()
        self.entries += len(bits)

    def numbers(self, density: float) -> list[Tensor]:
        """The rank of the threshold inside of the window, how many entries are inside, and the bin
        of that rank: on the device."""
        counts = self.counts[: self.bins]
        reached = counts.flip(0).cumsum(0)
        rank = max(1, int(density * self.entries)) - self.above
        bin_ = self.bins - 1 - torch.searchsorted(reached, rank)
        return [rank, reached[-1], bin_]

    def narrow(self, rank: int, inside: int, bin_: int) -> None:
        """Take over the pattern, or the next window: a bin, or everything where it is outside."""
        low = self.low + (bin_ << self.shift)
        if not 1 <= rank <= inside:
            self._begin(0, 1 << (63 if self.wide else 31))
        elif self.shift:
            self._begin(low, min(low + (1 << self.shift), self.high))
        else:
            self.found = low
