"""The k-th largest magnitude of a vector that is too long to hold, exactly.

Magnitudes of floating-point numbers order like their bit patterns, read as whole numbers.  A sample
says between which patterns the threshold must lie, almost surely; one pass over all entries counts
those above and holds what lies between, a few in a hundred, among which the threshold is then
selected.  What is too much to hold goes into a histogram, whose bin is the window of another pass;
where the sample misled, the next window is everything.  The answer is exact always.

On a GPU the entries stay there (`selection_apart`), but for the sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .apart import copied, host, is_apart
from .selection_apart import ColumnApart
from .updates import Updates

HELD = 1 << 20  # entries of a column between the bounds; more of them go into bins
BINS = 1 << 20  # of a histogram: 8 MB a column
BLOCK = (
    1 << 15
)  # entries looked at together: they fit a core's cache, and PyTorch starts no threads
STRIDE = 33  # one entry of so many is drawn: odd, so that all columns of a matrix have their turn
DRAWN = 1 << 18  # a sample twice as large is thinned
DEVIATIONS = 4.5  # of the sample's quantile, to either side: it misleads once in 10⁵ times

Chunks = Callable[[], Iterable[Sequence[Tensor]]]


def streamed_thresholds(chunks: Chunks, density: float) -> tuple[float, ...]:
    """The ⌊density · entries⌋-th largest magnitude (at least the first) of each column of `chunks`.

    Neither holds nor sorts a column: one pass over `chunks`, as a rule, after one for the sample.
    """
    columns = _columns(chunks, density)
    while left := [column for column in columns if column.found is None]:
        for chunk in chunks():
            for index, column in enumerate(columns):
                if column.found is not None:
                    continue
                if isinstance(column, ColumnApart):
                    column.count(chunk[index].reshape(-1))
                else:
                    column.count(_blocks(chunk, index))
        _narrow(left, density)
    return tuple(_value(column.found, column.wide) for column in columns)


def _narrow(columns: Sequence[_Column | ColumnApart], density: float) -> None:
    """The next window of each column; the numbers of those on a device are read together."""
    there = [column for column in columns if isinstance(column, ColumnApart)]
    numbers = host([column.numbers(density) for column in there]) if there else []
    for column, row in zip(there, numbers, strict=True):
        column.narrow(*map(int, row))
    for column in columns:
        if isinstance(column, _Column):
            column.narrow(density)


def _value(pattern: int | None, wide: bool) -> float:
    integer, real = (np.int64, np.float64) if wide else (np.int32, np.float32)
    return float(np.array(pattern, dtype=integer).view(real))


class _Column:
    """Where one column's threshold may lie: the patterns from `low` to `high`, exclusive.

    above     entries at `high` and beyond it
    held      patterns inside, less `low`
    counts    how many of them lie in each bin of 2^shift patterns, once there are too many to hold
    """

    def __init__(self, wide: bool, low: int, high: int) -> None:
        self.wide = wide
        self.found: int | None = None
        self._begin(low, high)

    def _begin(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.entries, self.above, self.waiting = 0, 0, 0
        self.held: list[np.ndarray] = []
        self.counts: np.ndarray | None = None
        self.shift = max(0, (high - low - 1).bit_length() - (BINS.bit_length() - 1))

    def count(self, blocks: Iterable[np.ndarray]) -> None:
        """Look at more entries of the column."""
        for block in blocks:
            offsets = _patterns(block)
            offsets -= offsets.dtype.type(self.low)  # those below `low` wrap to the far end
            known = offsets[offsets < self.high - self.low]
            # A magnitude's pattern has no sign bit: only what wrapped has the highest one.
            reaching = np.count_nonzero(offsets < 1 << (8 * offsets.itemsize - 1))
            self.entries += len(offsets)
            self.above += reaching - len(known)
            self.held.append(known)
            self.waiting += len(known)
            if self.waiting >= HELD:
                self._sort()

    def _sort(self) -> None:
        """What is held goes into the bins, many at a time: there are as many of those."""
        bins = (np.concatenate(self.held) >> self.shift).astype(np.int64)
        if self.counts is None:
            self.counts = np.zeros(((self.high - self.low - 1) >> self.shift) + 1, dtype=np.int64)
        self.counts += np.bincount(bins, minlength=len(self.counts))
        self.held, self.waiting = [], 0

    def narrow(self, density: float) -> None:
        """Find the pattern, or the next window: a bin, or everything where it is outside."""
        rank = max(1, int(density * self.entries)) - self.above
        if self.counts is not None and self.waiting:
            self._sort()
        inside = self.waiting if self.counts is None else int(self.counts.sum())
        if not 1 <= rank <= inside:
            self._begin(0, 1 << (63 if self.wide else 31))
        elif self.counts is None:
            known = np.concatenate(self.held)
            self.found = self.low + int(np.partition(known, inside - rank)[inside - rank])
        else:
            reached = np.cumsum(self.counts[::-1])
            digit = len(self.counts) - 1 - int(np.searchsorted(reached, rank))
            low = self.low + (digit << self.shift)
            if self.shift:
                self._begin(low, min(low + (1 << self.shift), self.high))
            else:
                self.found = low


def _blocks(chunk: Sequence[Tensor], index: int) -> Iterator[np.ndarray]:
    """One column of a chunk, flat, in blocks that hold until the next one is asked for."""
    if isinstance(chunk, Updates):
        ours, theirs = (one.reshape(-1).numpy() for one in (chunk.base, chunk.experts[index]))
        room = np.empty_like(ours[:BLOCK])
        for start in range(0, len(ours), BLOCK):
            place = slice(start, start + BLOCK)
            left = ours[place]
            yield np.subtract(theirs[place], left, out=room[: len(left)])
    else:
        values = chunk[index].reshape(-1).numpy()
        yield from (values[start : start + BLOCK] for start in range(0, len(values), BLOCK))


def _patterns(values: np.ndarray) -> np.ndarray:
    """The bit patterns of magnitudes, as whole numbers without a sign."""
    wide = values.dtype == np.float64
    bits = values.view(np.uint64 if wide else np.uint32)
    return bits & bits.dtype.type((1 << (63 if wide else 31)) - 1)


# The sample ---------------------------------------------------------------------------------------


def _columns(chunks: Chunks, density: float) -> list[_Column | ColumnApart]:
    """The columns, each with the window that a sample of it leaves."""
    drawn: list[Tensor] = []
    size, stride = 0, STRIDE
    for turn, chunk in enumerate(chunks()):
        # Another phase in every chunk: a stride that shares a factor with the rows meets them all.
        some = _every(chunk, stride, 7919 * turn % stride)
        drawn = drawn or [values.new_empty(2 * DRAWN) for values in some]
        for start in range(0, len(some[0]), DRAWN):
            parts = [values[start : start + DRAWN] for values in some]
            for own, values in zip(drawn, parts, strict=True):
                own[size : size + len(values)] = values
            size += len(parts[0])
            if size > DRAWN:
                for own in drawn:
                    own[: (size + 1) // 2] = own[:size:2].clone()
                size, stride = (size + 1) // 2, 2 * stride
    columns: list[_Column | ColumnApart] = []
    for own in drawn:
        wide, window = own.dtype == torch.float64, _window(copied(own[:size]), density)
        if is_apart(own):
            columns.append(ColumnApart(wide, *window, own.device))
        else:
            columns.append(_Column(wide, *window))
    return columns


def _every(chunk: Sequence[Tensor], stride: int, phase: int) -> Sequence[Tensor]:
    """Some entries of each column of a chunk, flat."""
    if isinstance(chunk, Updates):  # before the subtraction, not after
        return chunk.every(stride, phase)
    return [values.reshape(-1)[phase::stride] for values in chunk]


def _window(sample: Tensor, density: float) -> tuple[int, int]:
    """(low, high): patterns around the wanted quantile of a sample; all where it is too small."""
    wide = sample.dtype == torch.float64
    everything = 0, 1 << (63 if wide else 31)
    if not len(sample):
        return everything
    ordered = np.sort(_patterns(sample.numpy()))[::-1]
    spread = math.sqrt(len(ordered) * density * max(0.0, 1 - density))
    slack = DEVIATIONS * spread + 2
    first, last = int(density * len(ordered) - slack), int(density * len(ordered) + slack)
    low = int(ordered[last]) if last < len(ordered) else everything[0]
    high = int(ordered[first]) + 1 if first >= 0 else everything[1]
    return low, high
